"""Is the smaller network the same function? Run both on the example inputs, and on inputs drawn like them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prunelab.trace import call_arguments, device_of, map_tensors, results_in, undisturbed

# Differences that rounding explains: sums over fewer terms, in another order.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 2e-1}


class NotEqual(ValueError):
    """Two networks that should compute the same do not."""


@dataclass(frozen=True)
class Check:
    """The largest relative difference of any output, on so many sets of inputs, and what it may be. Where the smaller
    network `raised` an error, on these `inputs`."""

    error: float
    tolerance: float
    draws: int
    raised: str = field(default="", repr=False)
    inputs: Any = field(default=None, repr=False)

    @property
    def holds(self) -> bool:
        return self.error <= self.tolerance


def check(
    masked: nn.Module, small: nn.Module, example_inputs: Any, seen: tuple[Any, Any] | None = None, draws: int = 1
) -> Check:
    """Compare two networks in evaluation mode. `seen` is what both returned for the example inputs."""
    worst, tolerance = 0.0, 0.0
    for number in range(1 + draws):
        inputs = redrawn(example_inputs, number) if number else example_inputs
        try:
            expected = outputs_of(masked, inputs) if number or seen is None else seen[0]
        except Exception:
            if number:
                continue  # inputs that the network does not take
            raise
        try:
            found = outputs_of(small, inputs) if number or seen is None else seen[1]
        except Exception as error:
            return Check(float("inf"), 0.0, number, f"{type(error).__name__}: {error}", inputs)
        gap, allowed = difference(expected, found)
        worst, tolerance = max(worst, gap), max(tolerance, allowed)
    return Check(worst, tolerance, 1 + draws)


def differs_in_training(masked: nn.Module, small: nn.Module, inputs: Any) -> bool:
    """Whether the smaller network fails in training mode, or computes something else, where it is not for chance."""
    try:
        expected = outputs_of(masked, inputs, training=True)
    except Exception:  # it may want targets, say
        return False
    try:
        gap, allowed = difference(expected, outputs_of(small, inputs, training=True))
    except Exception:  # of the model's code: that is what is asked
        return True
    if gap <= allowed:
        return False
    again, _ = difference(expected, outputs_of(masked, inputs, training=True, seed=1))
    return again <= allowed


def outputs_of(model: nn.Module, inputs: Any, *, training: bool = False, seed: int = 0) -> Any:
    """One forward, in evaluation mode if not asked otherwise, that leaves no mark, chance the same at each call."""
    with undisturbed(model, training=training, seed=seed):
        args, kwargs = call_arguments(inputs, device_of(model))
        return model(*args, **kwargs)


def redrawn(inputs: Any, seed: int) -> Any:
    """Other inputs like these: floats of the same mean and spread, whole numbers and flags in another order."""
    draw = torch.Generator().manual_seed(seed)

    def another(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and tensor.numel() > 1:
            noise = torch.randn(tensor.shape, generator=draw, dtype=torch.float32)
            values = tensor.detach().to("cpu", torch.float32)
            finite = values[values.isfinite()]
            if finite.numel() < values.numel() or finite.numel() < 2 or finite.std() == 0:
                return tensor  # a mask of infinities, or a constant: not something to draw
            return (finite.mean() + finite.std() * noise).to(tensor.device, tensor.dtype)
        if tensor.is_floating_point() or tensor.is_complex():
            return tensor
        order = torch.randperm(tensor.numel(), generator=draw).to(tensor.device)
        return tensor.reshape(-1)[order].reshape(tensor.shape)

    return map_tensors(another, inputs)


def difference(expected: Any, found: Any) -> tuple[float, float]:
    """(largest relative difference, the tolerance of the coarsest float type) over all tensors of two results."""
    pairs = list(zip(results_in(expected), results_in(found), strict=False))
    if len(pairs) != len(results_in(expected)) or len(pairs) != len(results_in(found)):
        return float("inf"), 0.0
    worst, tolerance = 0.0, 0.0
    for a, b in pairs:
        if a.shape != b.shape or a.dtype != b.dtype:
            return float("inf"), 0.0
        if not a.is_floating_point() and not a.is_complex():
            continue  # an index chosen by a maximum may turn on rounding
        tolerance = max(tolerance, TOLERANCE.get(a.dtype, 1e-4))
        wide = torch.complex128 if a.is_complex() else torch.float64
        a, b = a.detach().to("cpu", wide), b.detach().to("cpu", wide)
        gap = torch.where((a == b) | (a.isnan() & b.isnan()), torch.zeros_like(a), a - b).abs()
        scale = a[a.isfinite()].abs().max() if a.isfinite().any() else torch.tensor(0.0)
        if gap.numel():
            highest = gap.max() / scale.clamp(min=1e-30) if gap.max() > 0 else gap.max()
            worst = max(worst, float("inf") if highest.isnan() else float(highest))
    return worst, tolerance
