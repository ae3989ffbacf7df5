"""What a layer reads, as samples: rows of numbers, each of which every row of its weight matrix multiplies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

_PATCHES = 1 << 24  # numbers in the patches of a convolution that are laid out at a time; one example at least


def groups_of(module: nn.Module) -> int:
    """In how many groups the rows of a layer's weight read different inputs."""
    return module.groups if isinstance(module, _ConvNd) else 1


def reads_alike(module: nn.Module) -> tuple[Any, ...]:
    """A key that two layers share if the same input makes the same samples for them."""
    if isinstance(module, _ConvNd):
        geometry = module.kernel_size, module.stride, module.padding, module.dilation
        return "patches", geometry, module.padding_mode, module.groups
    return ("rows",) if isinstance(module, nn.Linear) else (id(module),)


def readable(module: nn.Module) -> bool:
    """Whether `samples` knows how to read the layer."""
    return isinstance(module, nn.Linear | _ConvNd) and not isinstance(module, _ConvTransposeNd)


def samples(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    """The samples of one call of a layer, (groups, samples, I/g·kernel), in pieces.

    For a Linear layer they are its inputs, for a convolution the patches that it reads, padding included. For a
    `nn.MultiheadAttention`, which does not call its output projection, they are what that reads.
    """
    if isinstance(module, nn.MultiheadAttention):
        yield _attended(module, args, kwargs).flatten(end_dim=-2)[None]
        return
    inputs = args[0] if args else kwargs["input"]
    if not isinstance(module, _ConvNd):
        yield inputs.reshape(1, math.prod(inputs.shape[:-1]), inputs.shape[-1])
        return
    examples = inputs if inputs.dim() == len(module.kernel_size) + 2 else inputs[None]  # (N, I, *positions)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    examples = functional.pad(examples, module._reversed_padding_repeated_twice, mode=mode)
    patches = _patches(module, examples)  # a view: nothing is copied yet
    each = max(1, math.prod(patches.shape[1:]))
    for part in patches.split(max(1, _PATCHES // each)):
        n = math.prod(part.shape[: 1 + len(module.kernel_size)])
        yield part.reshape(n, module.groups, math.prod(module.weight.shape[1:])).transpose(0, 1)


def _patches(module: _ConvNd, examples: Tensor) -> Tensor:
    """A view of padded examples (N, I, *positions) as (N, *output positions, I, *kernel)."""
    for axis, (kernel, stride, dilation) in enumerate(
        zip(module.kernel_size, module.stride, module.dilation, strict=True), start=2
    ):
        examples = examples.unfold(axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    dims = len(module.kernel_size)
    return examples.permute(0, *range(2, 2 + dims), 1, *range(2 + dims, 2 + 2 * dims))


def _attended(module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """What the output projection of the attention reads: what the layer puts out when that projection does nothing."""
    projection = module.out_proj
    own = dict(projection._parameters)
    eye = torch.eye(projection.in_features, dtype=projection.weight.dtype, device=projection.weight.device)
    try:
        projection._parameters.update(weight=nn.Parameter(eye), bias=None)
        return module.forward(*args, **kwargs)[0]
    finally:
        projection._parameters.update(own)
