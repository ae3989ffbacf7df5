"""Least squares on the weights that are kept."""

from __future__ import annotations

import torch
from torch import Tensor

from prunelab.curvature.layerwise.damping import factor

_MEMORY = 1 << 26  # bytes for the systems that are solved side by side; one row at least


def least_squares(weight: Tensor, hessian: Tensor, noise: float, mask: Tensor) -> Tensor:
    """The weights, zero where the mask is False, that minimise (v - w) H (v - w)ᵀ in every row: v_K = H_KK⁻¹ (Hw)_K.

    weight (O, I), hessian (I, I), of one dtype, mask bool (O, I) → (O, I). Raises SingularError where an H_KK has no
    inverse.
    """
    counts = mask.sum(1)
    targets = weight @ hessian  # (O, I)
    found = torch.zeros_like(weight)
    most = int(counts.max())
    together = max(1, _MEMORY // max(1, most * most * hessian.element_size()))
    for rows in counts.argsort(descending=True).split(together):  # rows that keep about as many, side by side
        size = int(counts[rows[0]])
        places = mask[rows].int().argsort(dim=1, descending=True, stable=True)[:, :size]  # (R, K): kept, then fillers
        used = mask[rows].gather(1, places)
        systems = hessian[places[:, :, None], places[:, None, :]]  # (R, K, K)
        systems *= used[:, :, None] & used[:, None, :]
        systems.diagonal(dim1=1, dim2=2).add_(~used)  # a filler's equation is 1 · v = 0
        wanted = (targets[rows].gather(1, places) * used)[:, :, None]
        solved = torch.cholesky_solve(wanted, factor(systems, noise))[:, :, 0]
        found[rows] = torch.zeros_like(weight[rows]).scatter(1, places, solved)
    return found
