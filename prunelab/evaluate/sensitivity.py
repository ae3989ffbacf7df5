"""Which layers can be pruned: each is pruned alone, to several sparsities, and the network is scored."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prunelab.criteria.base import Criterion, Evidence
from prunelab.criteria.magnitude import Magnitude
from prunelab.criteria.measuring import Batches, Loss
from prunelab.criteria.random import Random
from prunelab.evaluate.cell import checked_values
from prunelab.evaluate.layerwise import Reading, Sensitivity
from prunelab.evaluate.method import Method
from prunelab.evaluate.seeding import check_seeds, check_sparsities, seeded
from prunelab.granularity import Granularity, Weight
from prunelab.heads import targets_of
from prunelab.masks import Masks
from prunelab.names import Exclude, matches
from prunelab.progress import bar
from prunelab.pruner.once import prune
from prunelab.pruner.once import score as score_units
from prunelab.scope import LayerCollapseWarning


def sensitivity(
    model: nn.Module,
    score: Callable[[nn.Module], float],
    *,
    sparsities: Iterable[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    criterion: Criterion | None = None,
    granularity: Granularity | None = None,
    parameters: Iterable[str] | None = None,
    exclude: Exclude | None = None,
    data: Batches | None = None,
    loss: Loss | None = None,
    groups: Mapping[str, Iterable[str]] | None = None,
    seeds: Iterable[int] = (0,),
    progress: bool = True,
) -> Sensitivity:
    """Score the network with each layer pruned alone, at each sparsity; the others stay as they are.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    >>> x, y = torch.randn(200, 8), torch.randint(4, (200,))
    >>> result = sensitivity(model, lambda net: float((net(x).argmax(1) == y).float().mean()), sparsities=[0.5, 0.9])
    >>> result.frame()[["layer", "sparsity", "removed"]].values.tolist()
    [['0.weight', 0.5, 0.5], ['0.weight', 0.9, 0.90625], ['2.weight', 0.5, 0.5], ['2.weight', 0.9, 0.90625]]

    Every score is measured on a fresh copy, so the model itself never changes, whatever `score` does to what it gets,
    and also when it raises or is interrupted. What one layer can lose alone says little of what all can lose together:
    the losses do not simply add up.

    Args:
        model: any module that can be copied with `copy.deepcopy`.
        score: score(model) → a number, larger is better (accuracy).
        sparsities: the fractions of a layer to remove.
        criterion, granularity, parameters, exclude, data, loss: those of `prunelab.prune`.
        groups: layers that lose the same units together, such as the filters of all layers that add up to one residual
            stream: name → names or globs of their parameters. A unit's score is the mean over the group. Pruned one
            at a time these layers would look robust, because the others still fill the channel; but the channel can
            only be removed from all of them.
        seeds: chance starts from each of them, in `criteria.Random`, which gets it as its seed, in the data and in
            `score`; afterwards the generators of Python, NumPy and torch are as they were. The spread over several
            seeds is that of chance.
        progress: show a bar.

    Raises TypeError or ValueError for a bad argument, and what `score` raises.
    """
    criterion, granularity = criterion or Magnitude(), granularity or Weight()
    method = Method(criterion, granularity, "local", parameters, exclude, data, loss)  # checks them
    levels = check_sparsities(sparsities)
    if not callable(score):
        raise TypeError(f"score must be a function score(model) → number, not {score!r:.60}")
    layers = _layers(model, method, groups)
    how = {"granularity": granularity, "data": data, "loss": loss}
    starts = check_seeds(seeds)
    readings, dense = [], {}
    with bar(len(starts) * (1 + len(layers) * len(levels)), "sensitivity", shown=progress) as shown:
        for seed in starts:
            dense[seed] = _score(copy.deepcopy(model), score, seed)
            shown.update()
        for layer in layers:
            for seed in starts:
                chosen = _prepared(model, layer, _of_seed(criterion, seed), how, seed)
                for sparsity in levels:
                    masks = _masks(model, layer, sparsity, chosen, how, seed)
                    value = _score(masks.apply_(copy.deepcopy(model)), score, seed)
                    readings.append(Reading(layer.name, sparsity, seed, masks.sparsity, value))
                    shown.update()
    return Sensitivity(tuple(readings), dense, {layer.name: layer.parameters for layer in layers})


@dataclass(frozen=True)
class _Layer:
    """What is pruned alone: one parameter, or several that lose the same units."""

    name: str
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class _Given(Criterion):
    """Scores that were measured before, one tensor a parameter."""

    needs: ClassVar[frozenset[str]] = frozenset()

    given: Mapping[str, Tensor]

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:  # noqa: ARG002
        return statistics

    def scores(self, evidence: Mapping[str, Evidence]) -> dict[str, Tensor]:
        return {name: self.score(one.weights, one.gradients, self.given[name]) for name, one in evidence.items()}


def _prepared(model: nn.Module, layer: _Layer, criterion: Criterion, how: Mapping[str, Any], seed: int) -> Criterion:
    """The criterion with its scores already measured, since all sparsities share them; in a group they are averaged."""
    if criterion.rounds > 1:  # it measures anew as it removes
        return criterion
    with seeded(seed):
        scores = score_units(model, criterion, parameters=layer.parameters, **how)
    if len(scores) > 1:
        mean = torch.stack([values.double() for values in scores.values()]).mean(0)
        scores = dict.fromkeys(scores, mean)
    return _Given(scores)


def _masks(
    model: nn.Module, layer: _Layer, sparsity: float, criterion: Criterion, how: Mapping[str, Any], seed: int
) -> Masks:
    with seeded(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerCollapseWarning)  # a layer that is emptied is what is measured
        return prune(
            model, sparsity, criterion=criterion, scope="local", parameters=layer.parameters, apply=False, **how
        )


def _score(pruned: nn.Module, score: Callable[[nn.Module], float], seed: int) -> float:
    with seeded(seed):
        found = score(pruned)
    if isinstance(found, Mapping):
        raise TypeError(f"score(model) must return a number, one only, not {found!r:.80}")
    return checked_values(found)["score"]


def _of_seed(criterion: Criterion, seed: int) -> Criterion:
    return replace(criterion, seed=seed) if isinstance(criterion, Random) else criterion


def _layers(model: nn.Module, method: Method, groups: Mapping[str, Iterable[str]] | None) -> list[_Layer]:
    """The layers to prune, in the model's order; a group stands where its first layer does."""
    what = method.granularity or Weight()
    targets = targets_of(model, what, method.parameters, method.exclude)
    units = {target.name: what.units(target.weight.shape, target.layout)[0] for target in targets}
    group_of: dict[str, str] = {}
    for name, patterns in (groups or {}).items():
        if name in units:
            raise ValueError(f"a group cannot be called {name!r}, as a layer is; name it otherwise")
        if isinstance(patterns, str):
            raise TypeError(f"groups[{name!r}] must be a list of names, not a string; write [{patterns!r}]")
        for pattern in patterns:
            found = matches(pattern, units)
            if not found:
                raise ValueError(f"groups[{name!r}] names {pattern!r}; what is pruned is {', '.join(units)}")
            for member in found:
                if group_of.setdefault(member, name) != name:
                    raise ValueError(f"{member!r} is in the groups {group_of[member]!r} and {name!r}; it can be in one")
    layers: dict[str, tuple[str, ...]] = {}
    for member in units:
        name = group_of.get(member, member)
        layers[name] = (*layers.get(name, ()), member)
    for name, members in layers.items():
        _check_group(name, {member: units[member] for member in members}, method.criterion)
    return [_Layer(name, members) for name, members in layers.items()]


def _check_group(name: str, units: Mapping[str, int], criterion: Criterion) -> None:
    """Raises ValueError where the layers of a group cannot lose the same units."""
    if len(set(units.values())) > 1:
        listed = ", ".join(f"{member} has {count}" for member, count in units.items())
        raise ValueError(
            f"the layers of the group {name!r} lose the same units, so they must have equally many: {listed}"
        )
    if len(units) > 1 and criterion.rounds > 1:
        raise ValueError(f"{criterion} removes in {criterion.rounds} rounds, which groups cannot share; write rounds=1")
