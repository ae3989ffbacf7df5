"""Shapes found at once are those that PyTorch finds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from prunelab.surgery.shapes import shaped

aten = torch.ops.aten


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, device="meta", dtype=dtype)


def convolution(x: torch.Tensor, weight: torch.Tensor, *rest: Any) -> tuple[Any, tuple[Any, ...]]:
    return aten.convolution.default, (x, weight, *rest)


CALLS = {
    "convolution": convolution(meta(2, 6, 9, 8), meta(4, 6, 3, 3), meta(4), [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
    "strides, dilation": convolution(meta(2, 6, 19, 8), meta(4, 6, 3, 1), None, [2, 3], [0, 1], [4, 1], False, [0, 0], 1),
    "groups": convolution(meta(1, 6, 5, 5), meta(9, 2, 3, 3), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 3),
    "one dimension": convolution(meta(1, 6, 5), meta(9, 6, 5), None, [1], [0], [1], False, [0], 1),
    "transposed": convolution(meta(2, 6, 9, 8), meta(6, 4, 3, 3), None, [2, 2], [1, 1], [1, 1], True, [1, 1], 1),
    "concatenation": (aten.cat.default, ([meta(2, 3, 4), meta(2, 5, 4)], 1)),
    "from the end": (aten.cat.default, ([meta(2, 3, 4), meta(2, 3, 1)], -1)),
    "along the first": (aten.cat.default, ([meta(2, 3), meta(1, 3)],)),
    "with an empty vector": (aten.cat.default, ([meta(0), meta(1, 3)],)),
    "of two types": (aten.cat.default, ([meta(2, 3), meta(1, 3, dtype=torch.float64)],)),
    "normalisation": (
        aten._native_batch_norm_legit_no_training.default,
        (meta(2, 3, 4), meta(3), meta(3), meta(3), meta(3), 0.1, 1e-5),
    ),
}  # fmt: skip

REFUSED = {
    "other inputs": convolution(meta(2, 5, 9, 8), meta(4, 6, 3, 3), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
    "a kernel too large": convolution(
        meta(2, 6, 2, 2), meta(4, 6, 3, 3), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1
    ),
    "other sizes": (aten.cat.default, ([meta(2, 3, 4), meta(2, 5, 3)], 1)),
    "other dimensions": (aten.cat.default, ([meta(2, 3, 4), meta(2, 3)], 1)),
    "a dimension that is not there": (aten.cat.default, ([meta(2, 3), meta(2, 3)], 2)),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_shape_is_pytorchs(name: str) -> None:
    func, args = CALLS[name]
    found, expected = shaped(func, args, {}), func(*args)
    if isinstance(expected, torch.Tensor):
        found, expected = (found,), (expected,)
    assert [(t.shape, t.dtype) for t in found[:1]] == [(t.shape, t.dtype) for t in expected[:1]]
    assert all(t.is_meta for t in found)


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_left_to_pytorch(name: str) -> None:
    func, args = REFUSED[name]
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        shaped(func, args, {})


def test_real_tensors_are_computed() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(shaped(aten.cat.default, ([x, x],), {}), torch.cat([x, x]))
