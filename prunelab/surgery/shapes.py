"""What operations return on the meta device, where PyTorch takes as long to find a shape as to compute a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def shaped(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """`func(*args, **kwargs)`; at once for the operations that networks are full of, where it is plain what it is."""
    quick = _RETURNED.get(func)
    result = None if quick is None else quick(*args, **kwargs)
    return func(*args, **kwargs) if result is None else result


def _normalised(x: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor] | None:
    return (x.detach(), _empty(x, [0]), _empty(x, [0])) if x.is_meta else None


def _concatenated(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    first, dims = tensors[0], tensors[0].dim()
    axis = dim % dims if dims else 0
    apart = [(*t.shape[:axis], *t.shape[axis + 1 :]) for t in tensors]
    alike = all(t.is_meta and t.dim() == dims and t.dtype == first.dtype for t in tensors)
    if not -dims <= dim < dims or not alike or any(shape != apart[0] for shape in apart):
        return None
    return _empty(first, [*first.shape[:axis], sum(t.shape[axis] for t in tensors), *first.shape[axis + 1 :]])


def _convolved(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    _: Sequence[int],
    groups: int,
) -> Tensor | None:
    dims = weight.dim() - 2
    fits = x.is_meta and weight.is_meta and x.dtype == weight.dtype and not transposed and x.dim() == dims + 2
    if not fits or x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        return None
    if not (bias is None or bias.shape == weight.shape[:1]) or not len(stride) == len(padding) == len(dilation) == dims:
        return None
    sizes = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    ]
    return None if min(sizes, default=1) < 1 else _empty(x, [x.shape[0], weight.shape[0], *sizes])


def _empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    """On the meta device `new_empty` takes four times as long, and `empty_like` thirty times."""
    return torch.empty(shape, dtype=like.dtype, device="meta")


def _itself(x: Tensor) -> Tensor | None:
    return x if x.is_meta else None


_RETURNED: Mapping[Any, Callable[..., Any]] = {
    torch.ops.aten.native_batch_norm.default: _normalised,
    torch.ops.aten._native_batch_norm_legit_no_training.default: _normalised,
    torch.ops.aten.relu_.default: _itself,
    torch.ops.aten.cat.default: _concatenated,
    torch.ops.aten.convolution.default: _convolved,
}
