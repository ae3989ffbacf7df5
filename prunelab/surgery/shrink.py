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
from prunelab.surgery.building import Chosen, Keep, NotEqual, OtherPath, build
from prunelab.surgery.carrying import carry
from prunelab.surgery.choose import Limits, choose
from prunelab.surgery.cost import dense_macs, macs_after, params_after
from prunelab.surgery.coupling import Coupling, couple
from prunelab.surgery.importance import Aggregate, importance
from prunelab.surgery.plan import Plan
from prunelab.surgery.telling import to_text
from prunelab.surgery.verifying import Check
from prunelab.targets import named_parameters, unwrap

_PATHS = 3  # through the model's code, beside that of the example inputs

Budget: TypeAlias = tuple[Literal["macs", "params", "latency"], float]


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
    left_out = _excluded(network, exclude)
    coupling = couple(network, example_inputs, exact=exact, exclude=left_out)
    scores = importance(network, coupling, criterion, aggregate, data, loss)
    limits = Limits(minimum, multiple_of)

    def keep(coupling: Coupling, fraction: float) -> Keep:
        return choose(coupling, scores, fraction, limits, everywhere=scope == "global")

    def decide(coupling: Coupling) -> Chosen:
        fraction = sparsity if sparsity is not None else 0.0
        return Chosen(keep(coupling, fraction), {})

    paths: list[Any] = []
    while True:
        try:
            built = build(network, example_inputs, coupling, decide, verify)
            return Shrunk(built.model, built.plan, built.check, network)
        except OtherPath as other:
            if len(paths) == _PATHS:
                raise NotEqual(f"on inputs like the examples the smaller network fails: {other}") from other
            paths.append(other.inputs)
            coupling = couple(network, example_inputs, exact=exact, exclude=left_out, also=paths)
            scores = importance(network, coupling, criterion, aggregate, data, loss)


def _excluded(model: nn.Module, exclude: Exclude | None) -> list[str]:
    """Names of parameters; a module's name stands for all its parameters."""
    modules = {path for path, _ in model.named_modules()}
    several = [exclude] if isinstance(exclude, str) or callable(exclude) else list(exclude or ())
    named = [f"{one}.*" if isinstance(one, str) and one in modules else one for one in several]
    return sorted(excluded(named, named_parameters(model)))


_ = (Real, np, dense_macs, macs_after, params_after)
