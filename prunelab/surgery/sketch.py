"""Tensors in a sixty-fourth of their size: enough to see whether another one holds the same values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

_BLOCK = 64  # elements to a sum
_HUGE = 1e30  # masks are filled with the lowest number there is: a sum of these is none any more


@dataclass(frozen=True)
class Sketch:
    """Weighted sums of the elements, block by block (blocks,), and the largest magnitude among them."""

    shape: tuple[int, ...]
    sums: Tensor
    scale: float

    def differs(self, other: Sketch, tolerance: float, floor: float) -> bool:
        """Whether single values are further apart than rounding explains: by more than `tolerance` of the largest one,
        and by more than `floor`. Found are a value that is forty times that far apart, whatever its neighbours are, and
        many that are three times that far apart."""
        if self.shape != other.shape:
            return True
        # Rounding is as often up as down: its sums grow with the root of the number of terms.
        allowed = math.sqrt(min(_BLOCK, math.prod(self.shape))) * max(tolerance * self.scale, floor)
        gap = (self.sums - other.sums).abs().max()
        return not bool(gap <= allowed)


Sketches: TypeAlias = dict[int, tuple[Sketch | None, ...]]  # by the number of an operation: of what it returned


def sketch(tensor: Tensor) -> Sketch | None:
    """None for a tensor that has no real or complex values, or is not plain memory. What is not finite counts as 0."""
    floating = tensor.is_floating_point() or tensor.is_complex()
    if not floating or not tensor.numel() or tensor.layout != torch.strided or tensor.is_meta:
        return None
    shape, values = tuple(tensor.shape), tensor.detach()
    values = torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
    if values.dtype not in (torch.float32, torch.float64):
        values = values.float()
    flat = values.reshape(-1)
    scale = _largest(flat)
    if not scale < _HUGE:
        flat = torch.where(flat.abs() < _HUGE, flat, torch.zeros_like(flat))
        scale = _largest(flat)
    whole = flat.numel() // _BLOCK * _BLOCK
    weights = _weights(flat.dtype, flat.device)
    sums = [flat[:whole].view(-1, _BLOCK) @ weights] if whole else []
    if whole < flat.numel():
        rest = functional.pad(flat[whole:], (0, whole + _BLOCK - flat.numel()))
        sums.append((rest @ weights).reshape(1))
    return Sketch(shape, torch.cat(sums), scale)


def _largest(flat: Tensor) -> float:
    low, high = flat.aminmax()
    return max(-float(low), float(high))


@cache
def _weights(dtype: torch.dtype, device: torch.device) -> Tensor:
    """(_BLOCK,): no two alike, so that differences that add up to nothing do not cancel each other."""
    weights = 0.2 + 1.6 * torch.rand(_BLOCK, generator=torch.Generator().manual_seed(0))
    return weights.to(device, dtype)
