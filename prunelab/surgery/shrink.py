"""`shrink`: from a network to a smaller one that computes what the masked one computes."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias

import numpy as np
from torch import nn
from torch.optim import Optimizer

from prunelab.criteria import Criterion
from prunelab.masks import Masks
from prunelab.names import Exclude, excluded
from prunelab.surgery.building import Built, Chosen, Keep, build
from prunelab.surgery.carrying import carry
from prunelab.surgery.choose import Limits, choose
from prunelab.surgery.coupling import Coupling, couple
from prunelab.surgery.cost import dense_macs, macs_after, params_after
from prunelab.surgery.importance import Aggregate, importance
from prunelab.surgery.plan import Plan
from prunelab.surgery.telling import to_text
from prunelab.surgery.verifying import Check, check
from prunelab.targets import named_parameters, unwrap

Budget: TypeAlias = tuple[Literal["macs", "params", "latency"], float]


class NotEqual(RuntimeError):
    """The smaller network does not compute what the masked one computes."""


@dataclass(frozen=True, repr=False)
class Shrunk:
    """A smaller network, made by `shrink`.

    `model` is a new module; `plan` says, as plain data, how it came about; `check` how far its outputs are from those
    of `plan.masked(original)` (None where that was not asked for). The original is as it was.
    """

    model: nn.Module
    plan: Plan
    check: Check | None
    _original: nn.Module

    def explain(self) -> str:
        """What goes, what is tied to it, what stays and why, in words."""
        return to_text(self.plan)

    def carry(self, optimizer: Optimizer) -> Optimizer:
        """Let the optimizer of the original train `model` from now on, in place: its moments and momenta are cut like
        the parameters, so that training continues without a jump."""
        return carry(optimizer, self._original, self.model, self.plan.slices)

    def __repr__(self) -> str:
        return f"Shrunk({str(self.plan).splitlines()[0]})"

    def _repr_html_(self) -> str:
        return self.plan._repr_html_()


def shrink(
    model: nn.Module,
    example_inputs: Any,
    sparsity: float | None = None,
    *,
    masks: Masks | None = None,
    budget: Budget | None = None,
    criterion: Criterion | None = None,
    data: Any = None,
    loss: Any = None,
    scope: Literal["local", "global"] = "local",
    aggregate: Aggregate = "mean",
    multiple_of: int = 1,
    minimum: int = 1,
    exclude: Exclude | None = None,
    exact: bool = True,
    constants: Literal["keep", "zero"] | None = None,
    verify: bool = True,
) -> Shrunk:
    """Remove channels for good: a smaller, dense network with the weights of those that stay."""
    network = unwrap(model)
    coupling = couple(network, example_inputs, exact=exact, exclude=_excluded(network, exclude))
    scores = importance(network, coupling, criterion, aggregate, data, loss)
    limits = Limits(minimum, multiple_of)

    def keep(coupling: Coupling, fraction: float) -> Keep:
        return choose(coupling, scores, fraction, limits, everywhere=scope == "global")

    def decide(coupling: Coupling) -> Chosen:
        fraction = sparsity if sparsity is not None else 0.0
        return Chosen(keep(coupling, fraction), {})

    built = build(network, example_inputs, coupling, decide)
    return Shrunk(built.model, built.plan, _verified(network, example_inputs, built) if verify else None, network)


def _verified(network: nn.Module, example_inputs: Any, built: Built) -> Check:
    result = check(built.plan.masked(network), built.model, example_inputs, built.outputs)
    if not result.holds:
        raise NotEqual(
            f"the smaller {type(network).__name__} does not compute what the masked one computes: relative difference "
            f"{result.error:.2e}, allowed {result.tolerance:.0e}; nothing was changed. Please report it; exclude=[...] "
            "leaves layers out"
        )
    return result


def _excluded(model: nn.Module, exclude: Exclude | None) -> list[str]:
    """Names of parameters; a module's name stands for all its parameters."""
    modules = {path for path, _ in model.named_modules()}
    several = [exclude] if isinstance(exclude, str) or callable(exclude) else list(exclude or ())
    named = [f"{one}.*" if isinstance(one, str) and one in modules else one for one in several]
    return sorted(excluded(named, named_parameters(model)))


_ = (Real, np, dense_macs, macs_after, params_after)
