"""SparseGPT: one pass over the columns of a layer, and what a removed weight leaves undone falls to those on its right.

The published algorithm reads the upper Cholesky factor U of H⁻¹. Here it is the factor R of H = R Rᵀ, upper too: U is
its inverse, so R costs a quarter, and nothing is inverted. With Δ = W - Ŵ the loss of a row is ‖ΔR‖². Column j adds
(c_j + Δ_j R_jj)² to it, where c_j = Σ_{i<j} Δ_i R_ij is what the columns before it left. A weight that is kept cancels
that: it moves to w_j + c_j / R_jj. One that is removed loses (c_j + w_j R_jj)²: the published w² / U_jj², with w as it
then is. Nothing is written to columns on the right: each looks back when its turn comes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prunelab.scope import NM
from prunelab.selection import keep_largest, keep_largest_in_rows

_PIECE = 16  # columns that are brought up to date together, inside a block


def left_to_right(
    weight: Tensor, factor: Tensor, sparsity: float, pattern: NM | None, block_size: int, before: int = 0
) -> tuple[Tensor, Tensor]:
    """SparseGPT (Frantar & Alistarh 2023, algorithm 1).

    weight (O, I) and factor R (I, I), upper, H = R Rᵀ, of one dtype → the weights and which are kept, (O, I) each.
    Of every `block_size` columns, all rows together, those that add least to the loss when the block is reached go, so
    many that after every block round(sparsity · weights so far) have gone; `before` counts those of another matrix.
    A pattern decides which of every group of every row go, when the group is reached.
    """
    columns, rows = weight.shape[1], weight.shape[0]
    weight = weight.T.contiguous()  # (I, O): a column is one piece of memory
    moved = torch.zeros_like(weight)  # Δ
    kept = torch.ones_like(weight, dtype=torch.bool)
    piece = _PIECE
    if pattern is not None:
        piece = pattern.m
        block_size = math.ceil(block_size / piece) * piece  # groups lie within blocks
    gone = round(sparsity * before)
    for start in range(0, columns, block_size):
        block = slice(start, min(start + block_size, columns))
        carried = factor[:start, block].T @ moved[:start]  # (B, O): c of each column, as far as blocks before go
        if pattern is None:
            quota = round(sparsity * (before + rows * block.stop)) - gone
            gone += quota
            kept[block] = _largest(_losses(weight, carried, factor, block), quota)
        for first in range(start, block.stop, piece):
            part = slice(first, min(first + piece, block.stop))
            here = carried[first - start : part.stop - start]
            here += factor[start:first, part].T @ moved[start:first]
            if pattern is not None:
                size = part.stop - first
                scores = _losses(weight, here, factor, part).T.contiguous()  # (O, group)
                kept[part] = keep_largest_in_rows(scores, max(0, size - pattern.n), magnitude=True).T
            _settle(weight[part], moved[part], kept[part], here, factor[part, part])
    return (weight - moved).T.contiguous(), kept.T.contiguous()


def _losses(weight: Tensor, carried: Tensor, factor: Tensor, part: slice) -> Tensor:
    """What removing each weight of these columns would lose if all others cancelled: the root, signed, (columns, O)."""
    inside = factor[part, part]
    cancelling = torch.linalg.solve_triangular(inside.T, carried, upper=False)  # -Δ of a column that is kept
    return (weight[part] + cancelling) * inside.diagonal()[:, None]


def _largest(losses: Tensor, remove: int) -> Tensor:
    """Which stay when so many of a block go; of equals the first in the order of the weight's memory, (O, columns)."""
    (kept,) = keep_largest([losses.T], remove, magnitude=True)
    return kept.view(losses.shape[1], losses.shape[0]).T


def _settle(weight: Tensor, moved: Tensor, kept: Tensor, carried: Tensor, factor: Tensor) -> None:
    """Write Δ of a few columns, one after the other, into `moved`: what goes moves to zero, what stays cancels."""
    for column in range(len(weight)):
        here = torch.addmv(carried[column], moved[:column].T, factor[:column, column])
        torch.where(kept[column], here / -factor[column, column], weight[column], out=moved[column])
