"""Every row for itself: units compete with those that feed the same output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prunelab.granularity import Group, Kernel, Weight
from prunelab.scope.base import Candidates, Scope
from prunelab.scope.competition import already_removed, compete, nan_error
from prunelab.selection import NotANumberError, keep_largest_in_rows


@dataclass(frozen=True)
class PerRow(Scope):
    """Units compete within their row of the matrix (O, I/g·kernel): every output loses as much (Sun et al. 2024).

    In each row exactly round(sparsity * units of the row) go. For `Weight()` and `Kernel()` a row is one output; for
    `Group(r, c)` it is a row of blocks, r outputs. A row that ends in a short block has units of two sizes: there each
    that still fits into round(sparsity * parameters of the row) goes. Other units do not tile rows and are refused.

    >>> scores = torch.tensor([[4.0, 3.0, 2.0, 1.0], [10.0, 40.0, 20.0, 30.0]])  # Linear(4, 2)
    >>> PerRow().keep([Candidates("fc", scores.flatten(), 1, shape=(2, 4))], 0.5)[0].view(2, 4).int().tolist()
    [[1, 1, 0, 0], [0, 1, 0, 1]]
    """

    def keep(self, candidates: Sequence[Candidates], sparsity: float) -> list[Tensor]:
        return [self._keep_one(one, sparsity) for one in candidates]

    def _keep_one(self, one: Candidates, sparsity: float) -> Tensor:
        rows, columns = self._shape(one)
        if not isinstance(one.sizes, int) and _mixed(one.unit_sizes.view(rows, columns)):
            return torch.cat([compete([row], sparsity)[0] for row in _rows_of(one, rows, columns)])
        wanted = round(sparsity * columns)
        alive = None if one.alive is None else one.alive.view(rows, columns)
        gone = 0 if alive is None or not alive.numel() else int((~alive).sum(1).max())
        if gone > wanted:
            raise already_removed(wanted, gone, f"sparsity {sparsity}", "units", f"each row of {one.name}")
        return in_rows(one, one.scores.view(rows, columns), wanted, alive).flatten()

    def _shape(self, one: Candidates) -> tuple[int, int]:
        """(rows, units of a row)."""
        if not isinstance(one.granularity, Weight | Kernel | Group):
            raise ValueError(
                f"{self} lets the units of a row compete, and {one.granularity} has no units within a row; use "
                "granularity.Weight(), Kernel() or Group(rows, columns), or another scope, such as 'local'"
            )
        filters, columns = one.matrix_shape(self)
        if isinstance(one.granularity, Weight):
            return filters, columns
        if isinstance(one.granularity, Kernel):
            return filters, columns // (math.prod(one.shape[2:]) or 1)
        return math.ceil(filters / one.granularity.rows), math.ceil(columns / one.granularity.columns)


def in_rows(one: Candidates, scores: Tensor, remove: int, alive: Tensor | None) -> Tensor:
    """`keep_largest_in_rows` of the scores of `one`, as (rows, columns); NaN is refused by the parameter's name."""
    try:
        return keep_largest_in_rows(scores, remove, magnitude=one.magnitude, alive=alive)
    except NotANumberError:
        raise nan_error(one) from None


def _mixed(sizes: Tensor) -> bool:
    """Whether any row has units of several sizes."""
    return not torch.equal(sizes, sizes[:, :1].expand_as(sizes))


def _rows_of(one: Candidates, rows: int, columns: int) -> list[Candidates]:
    """Each row as candidates of its own."""
    parts = []
    for row in range(rows):
        part = slice(row * columns, (row + 1) * columns)
        alive = None if one.alive is None else one.alive[part]
        name = f"row {row} of {one.name}"
        parts.append(replace(one, name=name, scores=one.scores[part], sizes=one.unit_sizes[part], alive=alive))
    return parts
