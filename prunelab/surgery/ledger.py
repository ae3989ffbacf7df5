"""The ledger: numbers for channels, and what is known about them: which share their fate, which must stay, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from prunelab.surgery.labels import FIXED, Label


@dataclass(frozen=True)
class Verdict:
    """Why some channels stay: `inexact` where removing them is possible but changes what the network computes."""

    reason: str
    where: str
    inexact: bool = False


@dataclass
class Ledger:
    """Statements about channels, collected while a trace is followed; `solve` draws the conclusions."""

    count: int = 1  # channel 0 is FIXED
    _ties: list[tuple[Label, Label]] = field(default_factory=list)
    _kept: list[tuple[Label, Verdict]] = field(default_factory=list)
    _balances: list[Label] = field(default_factory=list)
    _made: list[Label] = field(default_factory=list)
    _read: list[Label] = field(default_factory=list)

    def new(self, size: int) -> Label:
        """`size` channels never named before."""
        self.count += size
        return np.arange(self.count - size, self.count, dtype=np.int64)

    def tie(self, a: Label, b: Label) -> None:
        """a and b, broadcast against each other, share their fate position by position."""
        if a.shape != b.shape:
            a, b = np.broadcast_arrays(a, b)
        self._ties.append((a.ravel(), b.ravel()))

    def tie_along(self, label: Label, axis: int) -> Label:
        """All positions along `axis` share their fate; returns the label without that dimension's variation."""
        first = label.take([0], axis=axis)
        self.tie(label, first)
        return first

    def freeze(self, label: Label, verdict: Verdict) -> None:
        """These channels stay."""
        self._kept.append((np.unique(label), verdict))

    def balance(self, rows: Label) -> None:
        """(parts, n): the parts that are not removed whole keep the same number of channels."""
        self._balances.append(rows)

    def made(self, label: Label) -> None:
        """These channels are made by a layer: they are what there is to remove."""
        self._made.append(label.ravel())

    def read(self, label: Label) -> None:
        """A layer reads its input by these channels of its weight."""
        self._read.append(label.ravel())

    def read_channels(self) -> NDArray[np.bool_]:
        """(channels,): those by which a weight reads."""
        read = np.zeros(self.count, bool)
        for label in self._read:
            read[label] = True
        return read

    def made_channels(self) -> NDArray[np.bool_]:
        """(channels,): those that a layer makes."""
        made = np.zeros(self.count, bool)
        for label in self._made:
            made[label] = True
        return made

    def is_made(self, label: Label) -> NDArray[np.bool_]:
        """Of the shape of the label."""
        return self.made_channels()[label]

    def solve(self) -> Solution:
        left = np.concatenate([np.zeros(0, np.int64), *(a for a, _ in self._ties)])
        right = np.concatenate([np.zeros(0, np.int64), *(b for _, b in self._ties)])
        units, unit_of = _components(self.count, left, right)
        why = np.full(units, -1, np.int64)  # the first verdict on each unit; those that forbid go before the inexact
        verdicts = [Verdict("it shares its fate with positions that cannot go (padding, an input, an index)", "")]
        why[unit_of[FIXED]] = 0
        for label, verdict in sorted(self._kept, key=lambda entry: entry[1].inexact):
            touched = np.unique(unit_of[label])
            why[touched[why[touched] < 0]] = len(verdicts)
            verdicts.append(verdict)
        made = np.zeros(units, bool)
        for label in self._made:
            made[unit_of[label]] = True
        balances = _distinct([unit_of[rows] for rows in self._balances])
        return Solution(unit_of, why, tuple(verdicts), made, balances)


@dataclass(frozen=True)
class Solution:
    """Units: sets of channels with the same fate. `unit_of` (channels,), `why` (units,): a verdict, or -1."""

    unit_of: NDArray[np.int64]
    why: NDArray[np.int64]
    verdicts: tuple[Verdict, ...]
    made: NDArray[np.bool_]
    balances: tuple[Label, ...]

    def free(self, exact: bool) -> NDArray[np.bool_]:
        """Which units may go."""
        inexact = np.array([verdict.inexact for verdict in self.verdicts])
        allowed = (self.why < 0) | (inexact[self.why] & (not exact))
        return allowed & self.made


def _components(count: int, left: NDArray[np.int64], right: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """(how many sets of channels are tied to each other, the set of each channel)."""
    # Most channels have one tie, to a tensor that many read: they follow it, and only the others must be searched.
    ties = np.bincount(left, minlength=count) + np.bincount(right, minlength=count)
    right_follows = ties[right] == 1
    left_follows = (ties[left] == 1) & ~right_follows
    inner = ~(right_follows | left_follows)
    set_of = np.arange(count)
    if inner.any():
        edges = coo_matrix((np.ones(np.count_nonzero(inner)), (left[inner], right[inner])), shape=(count, count))
        set_of = connected_components(edges, directed=False)[1].astype(np.int64)
    set_of[right[right_follows]] = set_of[left[right_follows]]
    set_of[left[left_follows]] = set_of[right[left_follows]]
    used = np.zeros(count, bool)
    used[set_of] = True
    return int(np.count_nonzero(used)), (np.cumsum(used) - 1)[set_of]


def _distinct(balances: Sequence[Label]) -> tuple[Label, ...]:
    """Each demand once, without those that ties already meet: every part a single unit, or all parts the same units."""
    kept: dict[tuple[tuple[int, ...], bytes], Label] = {}
    for rows in balances:
        whole = (rows == rows[:, :1]).all()
        alike = (rows == rows[:1]).all()
        if not (whole or alike):
            kept.setdefault((rows.shape, rows.tobytes()), rows)
    return tuple(kept.values())
