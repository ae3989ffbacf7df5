"""Least squares on the weights that are kept."""

from __future__ import annotations

import torch
from torch import Tensor

from prunelab.curvature.layerwise.damping import factor

_MEMORY = 1 << 28  # bytes for the systems that are solved side by side; one row at least


def least_squares(weight: Tensor, hessian: Tensor, noise: float, mask: Tensor) -> Tensor:
    """The weights, zero where the mask is False, that minimise (v - w) H (v - w)ᵀ in every row: v_K = H_KK⁻¹ (Hw)_K.

    weight (O, I), hessian (I, I), of one dtype, mask bool (O, I) → (O, I). Raises SingularError where an H_KK has no
    inverse.
    """
    kept = int(mask.sum(1).max())
    places = mask.int().argsort(dim=1, descending=True, stable=True)[:, :kept]  # (O, K): what is kept, then fillers
    used = mask.gather(1, places)
    targets = (weight @ hessian).gather(1, places) * used
    rows = max(1, _MEMORY // max(1, kept * kept * hessian.element_size()))
    found = torch.zeros_like(weight)
    for part in torch.arange(len(weight), device=weight.device).split(rows):
        at, on = places[part], used[part]  # (R, K)
        systems = hessian[at[:, :, None], at[:, None, :]]  # (R, K, K)
        systems *= on[:, :, None] & on[:, None, :]
        systems.diagonal(dim1=1, dim2=2).add_(~on)  # a filler's equation is 1 · v = 0
        solved = torch.cholesky_solve(targets[part, :, None], factor(systems, noise))[:, :, 0]
        found[part] = found[part].scatter(1, at, solved)
    return found
