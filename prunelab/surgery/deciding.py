"""From what was asked for (a fraction, a budget, masks) to which units go, and what happens to their constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from prunelab.surgery.building import Chosen, Keep
from prunelab.surgery.choose import Limits, choose, settle
from prunelab.surgery.cost import dense_macs, macs_after, params_after
from prunelab.surgery.coupling import Coupling
from prunelab.surgery.emitted import find_constants
from prunelab.surgery.labels import varying
from prunelab.surgery.rebuild import named_tensors

Budget: TypeAlias = tuple[Literal["macs", "params", "latency"], float]
_HALVINGS = 24


@dataclass(frozen=True)
class Asked:
    """What `shrink` was asked for, checked."""

    scores: NDArray[np.float64]
    limits: Limits
    everywhere: bool
    constants: Literal["keep", "zero"]

    def keep(self, coupling: Coupling, fraction: float) -> Keep:
        return choose(coupling, self.scores, fraction, self.limits, self.everywhere)


def by_fraction(model: nn.Module, asked: Asked, fraction: float) -> Callable[[Coupling], Chosen]:
    """The lowest scores of each group go, this fraction of them."""

    def decide(coupling: Coupling) -> Chosen:
        return with_constants(model, coupling, asked.keep(coupling, fraction), asked)

    return decide


def by_count(model: nn.Module, asked: Asked, budget: Budget) -> Callable[[Coupling], Chosen]:
    """As little goes as brings parameters or MACs down to the budget; found by bisection on the fraction.

    Raises ValueError, with the least that can be reached, for a budget below it.
    """
    what, share = budget

    def cost(coupling: Coupling, keep: Keep) -> int:
        return macs_after(coupling, keep) if what == "macs" else params_after(model, coupling, keep)

    def decide(coupling: Coupling) -> Chosen:
        whole = dense_macs(coupling) if what == "macs" else sum(p.numel() for p in model.parameters())
        low, high = 0.0, 1.0
        least = cost(coupling, asked.keep(coupling, 1.0))
        if least > share * whole:
            raise ValueError(
                f"budget=({what!r}, {share}) cannot be reached: with one channel left in every group that can shrink "
                f"{least / whole:.4f} of the {what} are left; give a larger budget, a smaller minimum=, or exclude less"
            )
        if share >= 1:
            return Chosen(np.ones(coupling.solution.why.size, bool), {})
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            fits = cost(coupling, asked.keep(coupling, middle)) <= share * whole
            low, high = (low, middle) if fits else (middle, high)
        return with_constants(model, coupling, asked.keep(coupling, high), asked)

    return decide


def by_zeros(model: nn.Module, asked: Asked) -> Callable[[Coupling], Chosen]:
    """What is dead goes: units that nothing but zeros makes, or that nothing but zeros read."""

    def decide(coupling: Coupling) -> Chosen:
        keep = np.ones(coupling.solution.why.size, bool)
        zero = _zero_channels(coupling, named_tensors(model))
        alive_made = np.unique(coupling.solution.unit_of[coupling.made & ~zero])
        alive_read = np.unique(coupling.solution.unit_of[coupling.read & ~zero])
        read = np.unique(coupling.solution.unit_of[coupling.read])
        for group in coupling.groups:
            unmade = ~np.isin(group.units, alive_made)
            unread = ~np.isin(group.units, alive_read) & np.isin(group.units, read)
            keep[group.units[unmade | unread]] = False
        scores = np.zeros(keep.size)
        keep = settle(coupling, _limited(coupling, keep, asked.limits), scores)
        return with_constants(model, coupling, keep, asked, dead=zero & coupling.made)

    return decide


def _limited(coupling: Coupling, keep: Keep, limits: Limits) -> Keep:
    """Give back what the limits ask for: the last ones of each group."""
    keep = keep.copy()
    for group in coupling.groups:
        gone = group.units[~keep[group.units]]
        left = len(group) - gone.size
        wanted = max(left, limits.minimum)
        step = max(1, limits.multiple_of // int(np.gcd(limits.multiple_of, group.width)))
        wanted = min(-(-wanted // step) * step, len(group))
        keep[gone[gone.size - (wanted - left) :]] = True
    return keep


def _zero_channels(coupling: Coupling, tensors: dict[str, Tensor]) -> NDArray[np.bool_]:
    """(channels,): those whose slices of the weights they were numbered for are all zero."""
    zero = np.zeros(coupling.solution.unit_of.size, bool)
    for name, labels in coupling.tensors.items():
        nonzero = (tensors[name].detach() != 0).cpu().numpy()
        for label in labels:
            alive = np.zeros(zero.size, bool)
            others = tuple(d for d in range(label.ndim) if d not in varying(label))
            present = nonzero.any(axis=others, keepdims=True) if others else nonzero
            alive[label[present]] = True
            mine = np.unique(label)
            zero[mine] = ~alive[mine]
    return zero


def with_constants(
    model: nn.Module, coupling: Coupling, keep: Keep, asked: Asked, dead: NDArray[np.bool_] | None = None
) -> Chosen:
    """Add to biases what removed channels contributed; where that is not exact, keep the channel or zero it."""
    scores = asked.scores if asked.scores.size == keep.size else np.zeros(keep.size)
    while True:
        gone = ~keep
        emitting = gone[coupling.solution.unit_of] & coupling.made if dead is None else dead
        found = find_constants(model, coupling, emitting & gone[coupling.solution.unit_of])
        stuck = found.unfoldable(gone)
        if dead is not None:
            stuck &= ~_unread(coupling, keep, model)
        if asked.constants == "zero" or not stuck.any():
            break
        keep = settle(coupling, keep | stuck, scores)
    notes: tuple[str, ...] = ()
    kept_for = np.count_nonzero(stuck)
    if asked.constants == "zero" and kept_for:
        notes = (
            f"the constants of {kept_for} removed units cannot be added to a bias exactly (a zero-padded convolution, "
            "or an operation that is not followed, reads them): they are set to zero",
        )
    return Chosen(keep, found.biases(model, gone & ~stuck), notes)


def _unread(coupling: Coupling, keep: Keep, model: nn.Module) -> NDArray[np.bool_]:
    """Units whose constant does not matter, because only zeros read it."""
    zero = _zero_channels(coupling, named_tensors(model))
    alive = np.zeros(keep.size, bool)
    alive[coupling.solution.unit_of[coupling.read & ~zero]] = True
    return ~alive
