"""From what was asked for (a fraction, a budget, masks) to which units go, and what happens to their constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunelab.surgery.building import Chosen, Keep, added_biases
from prunelab.surgery.choose import Limits, choose, settle
from prunelab.surgery.constants import Constants
from prunelab.surgery.cost import dense_macs, macs_after, params_after
from prunelab.surgery.coupling import Coupling
from prunelab.surgery.emitted import find_constants
from prunelab.surgery.labels import varying
from prunelab.surgery.reference import emitting

Budget: TypeAlias = tuple[Literal["macs", "params", "latency"], float]
_HALVINGS = 16


@dataclass(frozen=True)
class Asked:
    """What `shrink` was asked for, checked."""

    scores: NDArray[np.float64]
    limits: Limits
    everywhere: bool
    constants: Literal["keep", "zero"]

    def keep(self, coupling: Coupling, fraction: float) -> Keep:
        return choose(coupling, self.scores, fraction, self.limits, self.everywhere)


def by_fraction(asked: Asked, fraction: float) -> Callable[[Coupling], Chosen]:
    """The lowest scores of each group go, this fraction of them."""

    def decide(coupling: Coupling) -> Chosen:
        return with_constants(coupling, asked.keep(coupling, fraction), asked)

    return decide


def by_count(asked: Asked, budget: Budget) -> Callable[[Coupling], Chosen]:
    """As little goes as brings parameters or MACs down to the budget; found by bisection on the fraction.

    Raises ValueError, with the least that can be reached, for a budget below it.
    """
    what, share = budget

    def decide(coupling: Coupling) -> Chosen:
        whole = dense_macs(coupling) if what == "macs" else sum(p.numel() for p in coupling.anatomy.parameters.values())

        def chosen(fraction: float) -> Chosen:
            return with_constants(coupling, asked.keep(coupling, fraction), asked)

        def cost(fraction: float) -> int:
            # Constants change the price where layers get biases for them, or keep channels for their sake.
            if what == "macs":
                keep = asked.keep(coupling, fraction) if asked.constants == "zero" else chosen(fraction).keep
                return macs_after(coupling, keep)
            found = chosen(fraction)
            return params_after(coupling, found.keep) + added_biases(coupling, found)

        if share >= 1:
            return Chosen(np.ones(coupling.solution.why.size, bool), {})
        if (least := cost(1.0)) > share * whole:
            raise ValueError(
                f"budget=({what!r}, {share}) cannot be reached: with as little left in every group as can be "
                f"{least / whole:.4f} of the {what} are left; give a larger budget, a smaller minimum=, or exclude less"
            )
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if cost(middle) <= share * whole else (middle, high)
        return chosen(high)

    return decide


def by_zeros(asked: Asked) -> Callable[[Coupling], Chosen]:
    """What is dead goes: units that hold a constant, or that only zeros read, wherever they are read.

    With `constants="zero"` also units that nothing but zeros makes, whatever constant they hold.
    """

    def decide(coupling: Coupling) -> Chosen:
        units, solution = np.zeros(coupling.solution.why.size, bool), coupling.solution
        zero = _zero_channels(coupling, coupling.anatomy.tensors)
        for group in coupling.groups:
            units[group.units] = True
        unmade = units.copy()
        unmade[solution.unit_of[coupling.made & ~zero]] = False
        candidates = np.zeros_like(units)
        candidates[solution.unit_of[zero]] = True
        keep, dead, unread = ~(candidates & units), zero & coupling.made, zero & coupling.read
        held = np.zeros_like(units)
        while True:
            found = find_constants(coupling, ~keep, dead, unread)
            stuck = _stuck(coupling, found, ~keep, asked)
            back = stuck & ~unmade if asked.constants == "zero" else stuck
            held |= back & unmade
            settled = settle(coupling, _limited(coupling, keep | back, asked.limits), np.zeros(keep.size))
            if (settled == keep).all():
                return _chosen(coupling, found, ~keep, stuck, held)
            keep = settled

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
        tensor = tensors[name].detach()
        nonzero = ((tensor if tensor.layout is torch.strided else tensor.to_dense()) != 0).cpu().numpy()
        for label in labels:
            alive = np.zeros(zero.size, bool)
            others = tuple(d for d in range(label.ndim) if d not in varying(label))
            present = nonzero.any(axis=others, keepdims=True) if others else nonzero
            alive[label[present]] = True
            mine = np.unique(label)
            zero[mine] |= ~alive[mine]  # several tensors of one layer may have the same channels
    return zero


def with_constants(coupling: Coupling, keep: Keep, asked: Asked) -> Chosen:
    """Add to biases what removed channels contributed; where that is not exact, keep the channel or zero it."""
    none, held = np.zeros(coupling.made.size, bool), np.zeros(keep.size, bool)
    while True:
        gone = ~keep
        found = find_constants(coupling, gone, gone[coupling.solution.unit_of] & coupling.made, none)
        stuck = _stuck(coupling, found, gone, asked)
        if asked.constants == "zero" or not stuck.any():
            return _chosen(coupling, found, gone, stuck, held)
        held |= stuck
        keep = settle(coupling, keep | stuck, asked.scores)


def _stuck(coupling: Coupling, found: Constants, gone: NDArray[np.bool_], asked: Asked) -> NDArray[np.bool_]:
    """(units,): those that go, and whose constants cannot be added to biases."""
    if coupling.folds:
        return found.unfoldable(gone)
    return gone if asked.constants == "zero" else gone & (emitting(coupling) | found.unfoldable(gone))


def _chosen(
    coupling: Coupling,
    found: Constants,
    gone: NDArray[np.bool_],
    stuck: NDArray[np.bool_],
    held: NDArray[np.bool_],
) -> Chosen:
    why = (
        "cannot be added to a bias exactly (a zero-padded convolution, or an operation that is not followed, reads "
        "them)"
    )
    notes = []
    if stuck.any():
        notes.append(f"the constants of {np.count_nonzero(stuck)} removed units {why}: they are set to zero")
    if held.any():
        notes.append(
            f"{np.count_nonzero(held)} units without weights stay, because their constants {why}; constants='zero' "
            "removes them"
        )
    return Chosen(~gone, found.biases(coupling, gone & ~stuck, gone), tuple(notes), gone & stuck)
