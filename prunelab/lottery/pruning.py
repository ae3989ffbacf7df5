"""How a round of the search removes, and how much."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from prunelab.criteria.base import Criterion
from prunelab.criteria.magnitude import Magnitude
from prunelab.criteria.measuring import Batches, Loss
from prunelab.granularity import Granularity, Weight
from prunelab.lottery.recipe import Recipe
from prunelab.lottery.training import Train, check_train
from prunelab.masks import Masks
from prunelab.names import Exclude
from prunelab.pruner import prune
from prunelab.schedule.base import check_sparsity
from prunelab.scope import LayerCollapseWarning, Scope, resolve


@dataclass(frozen=True, eq=False)
class Pruning:
    """How a round removes."""

    criterion: Criterion
    granularity: Granularity
    scope: str | Scope | Mapping[str, float]
    data: Batches | None
    loss: Loss | None
    parameters: list[str] | str | None
    exclude: Exclude | None

    def masks(self, model: nn.Module, sparsity: float | None, within: Masks | None = None) -> Masks:
        """The masks of a round."""
        known = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return prune(model, sparsity, **known, within=within, apply=False)

    def quietly(self, model: nn.Module, sparsity: float | None) -> Masks:
        """Masks that are not those of a round: nobody asked whether a layer would lose everything."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LayerCollapseWarning)
            return self.masks(model, sparsity)


def pruning_of(train: Train, what: dict[str, Any]) -> Pruning:
    names = ("criterion", "granularity", "scope", "data", "loss", "parameters", "exclude")
    if unknown := set(what) - set(names):
        raise TypeError(f"find_tickets has no argument {', '.join(sorted(unknown))}; what goes is said by {names}")
    check_train(train)
    if isinstance(train, Recipe):
        chunks = zip(train.inputs.split(1024), train.targets.split(1024), strict=True)
        what = {"data": list(chunks), "loss": train.loss} | {k: v for k, v in what.items() if v is not None}
    exclude = what.get("exclude")
    if exclude is not None and not isinstance(exclude, str) and not callable(exclude):
        exclude = list(exclude)  # it is gone through in every round
    criterion, granularity, parameters = what.get("criterion"), what.get("granularity"), what.get("parameters")
    return Pruning(
        Magnitude() if criterion is None else criterion,
        Weight() if granularity is None else granularity,
        what.get("scope", "global"),
        what.get("data"),
        what.get("loss"),
        parameters if parameters is None or isinstance(parameters, str) else list(parameters),
        exclude,
    )


def levels_of(pruning: Pruning, model: nn.Module, keep: float | None, rounds: int) -> list[tuple[float, float | None]]:
    """(the fraction to keep, the sparsity to ask for) of each round."""
    scope = resolve(pruning.scope, model)
    if scope.fixed:
        if rounds != 1:
            raise ValueError(f"rounds is {rounds}, but {scope} fixes what goes, so that nothing is left to spread")
        sparsity = scope.check(None if keep is None else 1 - keep)
        return [(1 - sparsity, None if keep is None else sparsity)]
    if keep is None:
        raise TypeError(f"keep is None, but {scope} needs to know the fraction to keep, such as 0.1")
    fraction = check_sparsity(keep, "keep")
    if fraction == 0:
        raise ValueError("keep is 0: a network without weights is no ticket; keep more, such as 0.1")
    fractions = [fraction ** (number / rounds) for number in range(1, rounds)] + [fraction]
    return [(left, 1 - left) for left in fractions]
