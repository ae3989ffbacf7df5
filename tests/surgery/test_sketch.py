"""Two tensors, told apart by a sixty-fourth of their size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from prunelab.surgery.sketch import Sketch, sketch

TOLERANCE = 1e-3


def of(tensor: Tensor) -> Sketch:
    found = sketch(tensor)
    assert found is not None
    return found


@pytest.mark.parametrize("shape", [(), (1,), (63,), (64,), (65,), (3, 1, 50), (7, 640)])
def test_rounding_is_no_difference_and_anything_else_is(shape: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(0)
    tensor = torch.randn(shape, generator=draw)
    scale = float(tensor.abs().max())
    rounded = tensor + 0.2 * TOLERANCE * scale * torch.randn(shape, generator=draw)
    assert not of(tensor).differs(of(rounded), TOLERANCE, 0.0)
    for moved in (tensor + 8 * TOLERANCE * scale, tensor * 1.2, torch.flip(tensor, [0]) if tensor.dim() else -tensor):
        assert tensor.numel() == 1 or of(tensor).differs(of(moved), TOLERANCE, 0.0) or torch.equal(moved, tensor)
    one = tensor.clone().reshape(-1)
    one[-1] += 45 * TOLERANCE * scale
    assert of(tensor).differs(of(one.reshape(shape)), TOLERANCE, 0.0)


def test_what_adds_up_to_nothing_is_found() -> None:
    tensor = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    scale = float(tensor.abs().max())
    turns = torch.tensor([1.0, -1.0]).repeat(32) * 20 * TOLERANCE * scale
    assert of(tensor).differs(of(tensor + turns), TOLERANCE, 0.0)


def test_below_the_floor_nothing_differs() -> None:
    noise = torch.randn(100, generator=torch.Generator().manual_seed(0)) * 1e-9
    assert of(noise).differs(of(-noise), TOLERANCE, 0.0)
    assert not of(noise).differs(of(-noise), TOLERANCE, 1e-8)


def test_other_shapes_differ() -> None:
    assert of(torch.ones(2, 3)).differs(of(torch.ones(3, 2)), TOLERANCE, 0.0)


def test_numbers_that_no_sum_can_hold_count_as_nothing() -> None:
    lowest = torch.finfo(torch.float32).min
    mask = torch.tensor([0.0, lowest, -torch.inf, torch.nan] * 40)
    assert of(mask).scale == 0
    assert not of(mask).differs(of(mask.clone()), TOLERANCE, 0.0)
    assert of(mask).differs(of(mask.nan_to_num(nan=1.0)), TOLERANCE, 0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64], ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    tensor = torch.randn(5, 30, dtype=torch.complex128 if dtype.is_complex else torch.float64).to(dtype)
    assert not of(tensor).differs(of(tensor.clone()), TOLERANCE, 0.0)
    assert of(tensor).differs(of(tensor * 1.5), TOLERANCE, 0.0)
    conjugate = tensor.conj()
    assert of(tensor).differs(of(conjugate), TOLERANCE, 0.0) == dtype.is_complex


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(0, 3), torch.arange(4), torch.ones(2, device="meta"), torch.eye(3).to_sparse(), torch.ones(2).bool()],
    ids=["empty", "integers", "meta", "sparse", "flags"],
)
def test_nothing_to_compare(tensor: Any) -> None:
    assert sketch(tensor) is None


def test_memory_in_any_order() -> None:
    tensor = torch.randn(6, 70)
    assert not of(tensor.t()).differs(of(tensor.t().contiguous()), 0.0, 1e-12)
    assert not of(tensor[:1].expand(4, 70)).differs(of(tensor[:1].repeat(4, 1)), 0.0, 1e-12)
