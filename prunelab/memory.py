"""Which tensors are the same memory: how tied parameters are told apart from equal ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy


def memory_of(tensor: Tensor) -> tuple[Any, ...]:
    """A key that two tensors share if they are the same piece of memory: tied parameters, a matrix and its transpose.

    Tensors that leave gaps in their memory or repeat it (slices with steps, expanded ones) share it with their like.
    """
    if tensor.layout != torch.strided or is_lazy(tensor):
        return (id(tensor),)
    place = (tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.numel())
    return place if tensor.is_contiguous() or _is_dense(tensor) else (*place, tensor.shape, tensor.stride())


def _is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill their piece of memory, each once, in whatever order."""
    filled = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != filled:
                return False
            filled *= size
    return True
