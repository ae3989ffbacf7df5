"""Remove units of several sizes within a budget of parameters."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def keep_within_budget(scores: Tensor, sizes: Tensor, budget: int) -> Tensor:
    """Which units stay when units of several sizes are removed from the lowest score on, each that still fits.

    Walk the units from the lowest score (ties by position); remove one if the removed sizes stay within `budget`, else
    keep it and go on to the next.

    Args:
        scores: (units,) float without NaN.
        sizes: (units,) int64, the number of parameters of each unit.
        budget: the number of parameters that may be removed.

    Returns:
        (units,) bool, True = kept.
    """
    order = np.argsort(scores.detach().double().cpu().numpy(), kind="stable")
    sizes_in_order = sizes.cpu().numpy()[order]
    keep = np.ones(order.size, dtype=np.bool_)
    candidates = np.arange(order.size)
    while candidates.size:
        # The budget only shrinks: a unit that does not fit now never will.
        candidates = candidates[sizes_in_order[candidates] <= budget]
        spent = np.cumsum(sizes_in_order[candidates])
        taken = int(np.searchsorted(spent, budget, side="right"))
        keep[order[candidates[:taken]]] = False
        budget -= int(spent[taken - 1]) if taken else 0
        candidates = candidates[taken:]
    return torch.from_numpy(keep).to(scores.device)
