"""Wanda: a weight counts as much as what it multiplies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from prunelab.criteria.base import Criterion
from prunelab.criteria.members import finest, member_sums
from prunelab.criteria.watching import Call, PerWeight, Probe


@dataclass(frozen=True)
class Wanda(Criterion):
    """|W_ij| · ‖X_j‖₂, summed over a unit's members (Sun et al. 2024).

    ‖X_j‖₂ is the Euclidean norm, over all examples and positions, of the inputs that the weight multiplies: of feature
    j for a Linear layer, as published; for a convolution, of what the weight meets at each of its places, with padding,
    stride, dilation and groups as they are. The published selection is by output row: `scope.PerRow()`.

    >>> norms = torch.tensor([[10.0, 1.0], [10.0, 1.0]])                        # of two inputs, for two outputs
    >>> Wanda().score(torch.tensor([[0.5, -3.0], [-0.1, 2.0]]), None, norms)
    tensor([8., 3.])
    """

    needs: ClassVar[frozenset[str]] = frozenset({"weights", "data"})

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        return member_sums(weights.abs() * statistics)

    def probe(self) -> Probe:
        return InputNorms()


class InputNorms(Probe):
    """For every weight, the norm of the inputs that it multiplies."""

    def __init__(self) -> None:
        self._squares: Tensor | float = 0.0
        self._module: nn.Module | None = None

    def read(self, module: nn.Module, inputs: Tensor) -> tuple[nn.Module, Tensor]:
        own = len(_layout(module)[1]) - 1  # an example has as many dimensions as the weight without its outputs
        examples = inputs.reshape(math.prod(inputs.shape[:-own]), *inputs.shape[-own:])  # (N, I, *positions)
        precision = finest(inputs.device)
        # What a weight meets is linear in the squares: one example, their sum, stands for the whole batch.
        return module, torch.linalg.vector_norm(examples, dim=0, dtype=precision).square()  # (I, *positions)

    def emit(self, module: nn.Module, outputs: Tensor) -> torch.Size:
        return outputs.shape

    def add(self, calls: Sequence[Call], examples: int) -> None:
        for call in calls:
            module, squares = call.read
            if self._module is not None and _layout(module) != _layout(self._module):
                raise ValueError(
                    "shares its weight with one that stores it differently, so it is not known which inputs a weight "
                    "multiplies; leave it out with exclude=[...]"
                )
            self._module = module
            self._squares = self._squares + _met(module, squares, call.emitted[0])

    def result(self, labels: Any) -> PerWeight:
        assert self._module is not None  # a layer that did not run is refused before
        shape, norms = _layout(self._module)[1], torch.as_tensor(self._squares).sqrt()
        first, _, *rest = norms.shape
        repeats = math.prod(shape) // max(norms.numel(), 1)  # the filters that read the same inputs
        return PerWeight(norms.expand(first, repeats, *rest).reshape(shape))


def _met(module: nn.Module, squares: Tensor, outputs: torch.Size) -> Tensor:
    """The sum of the `squares` that each weight multiplies, with one output channel for all that read the same inputs.

    Linear: (I,) -> (1, 1, I); a convolution: (I, *positions) -> (g, 1, I/g, *kernel), transposed (I, 1, *kernel). It is
    the gradient, with respect to the weight, of the sum of what the layer makes of the squares.
    """
    if not isinstance(module, _ConvNd):
        return squares[None, None]
    inputs, groups, kernel = module.in_channels, module.groups, module.kernel_size
    with torch.inference_mode(False), torch.enable_grad():
        values = squares[None].clone()  # what was made in inference mode has no gradient
        if isinstance(module, _ConvTransposeNd):
            weight = values.new_ones(inputs, 1, *kernel, requires_grad=True)
            made = _transposed(module, values, weight, outputs[-len(kernel) :])
            return torch.autograd.grad(made.sum(), weight)[0]
        weight = values.new_ones(groups, inputs // groups, *kernel, requires_grad=True)
        made = module._conv_forward(values, weight, None)  # with the layer's own padding
        return torch.autograd.grad(made.sum(), weight)[0][:, None]


def _transposed(module: _ConvTransposeNd, values: Tensor, weight: Tensor, size: Sequence[int]) -> Tensor:
    """The transposed convolution that makes an output of this size."""
    padding = [int(p) for p in module.padding]
    geometry = zip(size, values.shape[2:], module.stride, padding, module.dilation, module.kernel_size, strict=True)
    extra = [out - ((into - 1) * s - 2 * p + d * (k - 1) + 1) for out, into, s, p, d, k in geometry]
    return torch.convolution(values, weight, None, module.stride, padding, module.dilation, True, extra, module.groups)


def _layout(module: nn.Module) -> tuple[Any, ...]:
    weight = module._parameters["weight"]
    assert weight is not None  # it is what the probe was asked for
    return isinstance(module, _ConvTransposeNd), weight.shape, weight.stride(), getattr(module, "groups", 1)
