"""Optimal Brain Surgeon for every row of a layer: remove one weight, move all others, and again."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from prunelab.curvature.layerwise.damping import SingularError, factor
from prunelab.scope import NM

_MEMORY = 1 << 28  # bytes for the inverses of the rows that are pruned side by side; one row at least
_PENDING = 32  # removals that wait until they are taken out of the inverses, in one product


def greedy_rows(
    weight: Tensor, hessian: Tensor, noise: float, sparsity: float, pattern: NM | None
) -> tuple[Tensor, Tensor]:
    """Greedy OBS in every row (Frantar et al. 2022): the weight with the least w_p² / [H⁻¹]_pp goes, and the others
    move by -w_p / [H⁻¹]_pp · H⁻¹e_p; then again, until round(sparsity · I) of each row have gone, or what the pattern
    removes.

    weight (O, I), hessian (I, I), both of the finest type → the weights and which are kept, (O, I) each. A row costs
    O(I² · removals). Raises SingularError where the inverse is lost in rounding errors.
    """
    inverse = torch.cholesky_inverse(factor(hessian, noise))
    count = round(sparsity * weight.shape[1]) if pattern is None else _removals(pattern, weight.shape[1])
    rows = max(1, _MEMORY // (inverse.numel() * inverse.element_size()))
    parts = [_Rows(part, inverse, pattern).removed(count) for part in weight.split(rows)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _removals(pattern: NM, columns: int) -> int:
    """How many of so many weights in a row the pattern removes; a short last group keeps min(n, its size)."""
    groups, rest = divmod(columns, pattern.m)
    return groups * (pattern.m - pattern.n) + max(0, rest - pattern.n)


class _Rows:
    """Some rows, each with its own inverse: that of the Hessian of the weights which it still has.

    Without weight p the inverse is H⁻¹ - H⁻¹e_p e_pᵀH⁻¹ / [H⁻¹]_pp. The columns to subtract are kept beside the
    inverses and subtracted `_PENDING` at a time: the same arithmetic in far fewer reads of the memory.
    """

    def __init__(self, weight: Tensor, inverse: Tensor, pattern: NM | None) -> None:
        self.weight = weight.clone()  # (R, I)
        self.kept = torch.ones_like(weight, dtype=torch.bool)
        self._inverses = inverse.repeat(len(weight), 1, 1)  # (R, I, I), as they were _PENDING removals ago at most
        self._diagonal = inverse.diagonal().repeat(len(weight), 1)  # (R, I), up to date
        self._columns = weight.new_zeros(*weight.shape, _PENDING)  # (R, I, removals)
        self._waiting = 0
        self._each = torch.arange(len(weight), device=weight.device)
        self._pattern = pattern

    def removed(self, count: int) -> tuple[Tensor, Tensor]:
        """The weights and which are kept, once `count` of each row have gone."""
        for _ in range(count):
            self._remove(self._cheapest())
        return self.weight.masked_fill_(~self.kept, 0), self.kept

    def _cheapest(self) -> Tensor:
        """Of each row the weight whose removal costs least, the first of equals: (R,)."""
        free = self.kept if self._pattern is None else self.kept & self._open(self._pattern)
        if not bool((self._diagonal[free] > 0).all()):
            raise SingularError("the inverse was lost in rounding errors")
        costs = self.weight.square() / self._diagonal
        return costs.masked_fill_(~free, torch.inf).argmin(1)

    def _open(self, pattern: NM) -> Tensor:
        """The weights of groups that still have more than the pattern leaves: bool (R, I)."""
        rows, columns = self.kept.shape
        groups = functional.pad(self.kept, (0, -columns % pattern.m)).view(rows, -1, pattern.m)
        return (groups.sum(2) > pattern.n).repeat_interleave(pattern.m, 1)[:, :columns]

    def _remove(self, gone: Tensor) -> None:
        pending = self._columns[:, :, : self._waiting]
        here = self._each, gone
        column = self._inverses[here]  # (R, I): the inverse is symmetric, and rows lie together
        column = torch.baddbmm(column[:, :, None], pending, pending[here][:, :, None], alpha=-1)[:, :, 0]
        pivot = self._diagonal[here][:, None]  # (R, 1)
        self.weight -= self.weight[here][:, None] / pivot * column
        column = column / pivot.sqrt()
        self._diagonal -= column.square()
        self._columns[:, :, self._waiting] = column
        self.kept[here] = False
        self._waiting += 1
        if self._waiting == _PENDING:
            self._inverses.baddbmm_(self._columns, self._columns.mT, alpha=-1)
            self._waiting = 0
