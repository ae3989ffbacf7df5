"""Which units go: the lowest scores of every group, in numbers that every demand on equal counts allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunelab.surgery.coupling import Coupling, Group
from prunelab.surgery.labels import Label


@dataclass(frozen=True)
class Limits:
    """How far a group may shrink: widths are multiples of `multiple_of` channels, at least `minimum` units stay."""

    minimum: int = 1
    multiple_of: int = 1


def choose(
    coupling: Coupling, scores: NDArray[np.float64], sparsity: float, limits: Limits, everywhere: bool = False
) -> NDArray[np.bool_]:
    """`keep` (units,): of every group the fraction `sparsity` goes, those with the lowest `scores` (units,).

    With `everywhere` the groups compete with each other. Ties go by position. Where parts of a tensor must keep equal
    counts, the lowest of each part go together; where that cannot be, less goes.
    """
    bundles = [_bundles(coupling, group, scores) for group in coupling.groups]
    counts = [round(sparsity * len(rows)) for rows in bundles]
    if everywhere:
        counts = _global_counts(bundles, scores, sparsity)
    keep = np.ones(coupling.solution.why.size, bool)
    for group, rows, count in zip(coupling.groups, bundles, counts, strict=True):
        count = _allowed(len(rows), count, rows.shape[1], group.width, limits)
        keep[rows[:count].ravel()] = False
    return settle(coupling, keep, scores)


def _bundles(coupling: Coupling, group: Group, scores: NDArray[np.float64]) -> Label:
    """The units of a group, lowest first, as rows that go together: one unit each, or one of every equal part."""
    for rows in coupling.solution.balances:
        inside = np.isin(rows, group.units)
        if inside.all() and np.unique(rows).size == rows.size == len(group):
            order = np.argsort(scores[rows], axis=1, kind="stable")
            ranked = np.take_along_axis(rows, order, axis=1).T  # (rank, parts)
            return ranked[np.argsort(scores[ranked].mean(1), kind="stable")]
    return group.units[np.argsort(scores[group.units], kind="stable")][:, None]


def _global_counts(bundles: Sequence[Label], scores: NDArray[np.float64], sparsity: float) -> list[int]:
    """How many rows of each group are among the lowest of all."""
    values = np.concatenate([np.zeros(0), *(scores[rows].mean(1) for rows in bundles)])
    owner = np.concatenate([np.zeros(0, int), *(np.full(len(rows), i) for i, rows in enumerate(bundles))]).astype(int)
    weights = np.concatenate([np.zeros(0, int), *(np.full(len(rows), rows.shape[1]) for rows in bundles)])
    order = np.argsort(values, kind="stable")
    lowest = order[np.cumsum(weights[order]) <= round(sparsity * int(weights.sum()))]
    return np.bincount(owner[lowest], minlength=len(bundles)).tolist()


def _allowed(rows: int, count: int, units: int, width: int, limits: Limits) -> int:
    """At most `count` rows of `units` units each, so that what stays keeps the limits."""
    step = limits.multiple_of // math.gcd(limits.multiple_of, max(units * width, 1))
    left = max(rows - count, min(rows, math.ceil(max(limits.minimum, 1) / max(units, 1))))
    left = min(math.ceil(left / step) * step, rows)
    return rows - left


def settle(coupling: Coupling, keep: NDArray[np.bool_], scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Give back units, the highest scores first, until every part that stays keeps as many as its neighbours.

    It only ever gives back, so it comes to an end.
    """
    keep, changed = keep.copy(), True
    distinct = {id(label): label for labels in coupling.tensors.values() for label in labels}
    while changed:
        changed = False
        for rows in coupling.solution.balances:
            changed |= _give_back(rows, keep, scores)
        for label in distinct.values():
            changed |= _whole_again(coupling, label, keep)
    return keep


def _give_back(rows: Label, keep: NDArray[np.bool_], scores: NDArray[np.float64]) -> bool:
    left = keep[rows].sum(1)
    wanted = left.max(initial=0)
    before = int(keep.sum())
    for row, count in zip(rows, left, strict=True):
        if 0 < count < wanted or (count == 0 and np.unique(row).size > 1):
            gone = np.unique(row[~keep[row]])
            best = gone[np.argsort(-scores[gone], kind="stable")]
            for unit in best:
                if keep[row].sum() >= wanted:
                    break
                keep[unit] = True
    return int(keep.sum()) != before


def _whole_again(coupling: Coupling, label: Label, keep: NDArray[np.bool_]) -> bool:
    """A tensor that would lose everything along some dimension gets its units back."""
    stays = coupling.kept(label, keep)
    if stays.any():
        return False
    keep[np.unique(coupling.solution.unit_of[label])] = True
    return True
