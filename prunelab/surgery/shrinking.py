"""`shrink`: from a network to a smaller one that computes what the masked one computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from prunelab.criteria import Criterion
from prunelab.masks import Masks
from prunelab.names import Exclude, excluded
from prunelab.surgery.asking import check_arguments, masked_copy
from prunelab.surgery.building import Built, Choice, OtherMode, OtherPath, build
from prunelab.surgery.carrying import carry
from prunelab.surgery.choose import Limits
from prunelab.surgery.coupling import Coupling, couple
from prunelab.surgery.deciding import Asked, Budget, by_count, by_fraction, by_zeros
from prunelab.surgery.importance import Aggregate, importance
from prunelab.surgery.plan import Plan
from prunelab.surgery.telling import to_text
from prunelab.surgery.timed import fraction_for_latency
from prunelab.surgery.verifying import Check, NotEqual, check
from prunelab.targets import named_parameters, unwrap

_PATHS = 3  # through the model's code, beside that of the example inputs


@dataclass(frozen=True, repr=False)
class Shrunk:
    """A smaller network, made by `shrink`.

    `model` is a new module; `plan` says, as plain data, how it came about; `check` how far its outputs are from those
    of `plan.masked(original)`, the original with the masks applied where `masks` were given (None where that was not
    asked for). The original is as it was.
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


@torch.inference_mode(False)  # what is made in that mode can never be trained
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
    """Remove channels for good: a smaller, dense network with the weights of those that stay.

    One forward is followed to find which channels go together (residual additions, concatenations, groups, heads,
    ...), and which cannot go without changing more than their own removal does; these stay, and `explain()` says why.
    The smaller network computes what `plan.masked(model)` computes: that is checked on the example inputs, operation
    by operation, and on inputs drawn like them; what the model's code cannot do with fewer channels stays too, in
    evaluation and in training mode.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> small = shrink(model, torch.randn(3, 4), sparsity=0.5)
    >>> [tuple(p.shape) for p in small.model.parameters()]
    [(4, 4), (4,), (2, 4), (2,)]
    >>> x = torch.randn(5, 4)
    >>> torch.allclose(small.model(x), small.plan.masked(model)(x), atol=1e-6)
    True

    Args:
        model: any module that `copy.deepcopy` copies. It is not changed; no other thread may run it meanwhile.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments, as in use: what never runs on
            them is not followed.
        sparsity: the fraction of the channels (or heads) of every coupled group to remove, from 0 to 1, rounded; at
            least `minimum` stay.
        masks: instead, remove what these leave dead: channels that only zeros make, or only zeros read. With neither
            `sparsity`, `masks` nor `budget`, remove what is dead in the model as it is.
        budget: instead, ("macs" | "params" | "latency", fraction of the dense network's to be left at most).
            As little goes as gets there. Latency is measured on this machine, and so are its errors.
        criterion, data, loss: scores of single channels, as in `prune`; by default their L1 norm.
        scope: "local": every group loses the same fraction; "global": the groups compete.
        aggregate: how the scores of the layers that make a unit are put together: "mean", "sum" or "max".
        multiple_of: widths that are left are multiples of this many channels (hardware likes 8 or 16).
        minimum: units of every group that stay at least.
        exclude: layers whose own channels stay: names of modules or parameters, globs, functions (name, parameter) →
            bool, or a list of these. What leaves the network always keeps its size.
        exact: False also removes what cannot be removed exactly: widths under a LayerNorm, RMSNorm or GroupNorm, the
            dimensions of a single head. `check.error` then says how much the outputs changed. Where there are several
            heads, they go as a whole in any case.
        constants: a removed channel may emit a constant (its bias, the shift of its normalisation). It is added to the
            biases of the layers that read it where that is exact. Elsewhere (a zero-padded convolution reads it):
            "keep" keeps the channel (the default with masks, where exact), "zero" sets the constant to zero.
        verify: False skips the comparison (not the trial run).

    Raises:
        TypeError, ValueError: a bad argument, or a budget out of reach.
        NotEqual: the smaller network computes something else, and it is not known why. The model is unchanged.
    """
    network = unwrap(model)
    check_arguments(network, sparsity=sparsity, masks=masks, budget=budget, scope=scope, aggregate=aggregate,
                    multiple_of=multiple_of, minimum=minimum, constants=constants)  # fmt: skip
    removes_dead = sparsity is None and budget is None
    original, network = network, masked_copy(network, masks) if masks is not None else network
    left_out = sorted(excluded(exclude, named_parameters(network)))
    how: Literal["keep", "zero"] = constants or ("keep" if removes_dead and exact else "zero")
    paths, training = list[Any](), False
    while True:
        coupling = couple(network, example_inputs, exact=exact, exclude=left_out, also=paths, training=training)
        scores = np.zeros(0) if removes_dead else importance(network, coupling, criterion, aggregate, data, loss)
        asked = Asked(scores, Limits(minimum, multiple_of), scope == "global", how)
        try:
            built = _build(example_inputs, coupling, asked, sparsity, budget, verify, exact)
            break
        except OtherMode:
            training = True
        except OtherPath as other:
            if len(paths) == _PATHS:
                raise NotEqual(f"on inputs like the examples the smaller network fails: {other}") from other
            paths.append(other.inputs)
    if verify and removes_dead and exact and how == "keep":
        _same_as(network, built, example_inputs)
    return Shrunk(built.model, built.plan, built.check, original)


def _build(
    example_inputs: Any,
    coupling: Coupling,
    asked: Asked,
    sparsity: float | None,
    budget: Budget | None,
    verify: bool,
    exact: bool,
) -> Built:
    def built(decide: Choice, verify: bool = verify) -> Built:
        return build(example_inputs, coupling, decide, verify, exact)

    if budget is not None and budget[0] == "latency":
        fraction = fraction_for_latency(
            coupling.anatomy.model, example_inputs, budget[1], lambda f: built(by_fraction(asked, f), False).model
        )
        return built(by_fraction(asked, fraction))
    if budget is not None:
        return built(by_count(asked, budget))
    return built(by_fraction(asked, sparsity) if sparsity is not None else by_zeros(asked))


def _same_as(network: nn.Module, built: Built, example_inputs: Any) -> None:
    """Against the masked network itself, nothing zeroed and nothing added."""
    result = check(network, built.model, example_inputs)
    if not result.holds:
        raise NotEqual(
            f"the smaller {type(network).__name__} does not compute what the masks leave of the model: relative "
            f"difference {result.error:.2e}, allowed {result.tolerance:.0e}"
        )
