"""What criteria do with the members of units: products with gradients, and sums that lose nothing."""

from __future__ import annotations

import torch
from torch import Tensor


def finest(device: torch.device | None) -> torch.dtype:
    """The type to add in: float64, where no square of a float32 over- or underflows; float32 on MPS, which has none."""
    return torch.float32 if device is not None and device.type == "mps" else torch.float64


def precise(values: Tensor) -> Tensor:
    """The values in the finest type that their device has."""
    return values.to(finest(values.device))


def member_sums(values: Tensor) -> Tensor:
    """Sums over the members, (units,) from (units, members): added in float64, returned in float32 at least."""
    if values.shape[1] == 1:
        return values[:, 0]  # nothing to add: no copy of a whole model's weights
    return values.sum(1, dtype=finest(values.device)).to(torch.promote_types(values.dtype, torch.float32))


def gradients_of(criterion: str, gradients: Tensor | None) -> Tensor:
    """The gradients, if there are any: nothing else can stand in for them."""
    if gradients is None:
        raise ValueError(
            f"{criterion} scores with gradients, and none were given; prune(..., data=, loss=) measures them"
        )
    return gradients
