"""The ways to run a layer of which a part of the weights is gone, each with what it must compute.

- `zeros`: the dense kernel, with zeros in the weight: what a mask gives.
- `CSR`: the same zeros left out, in torch's compressed sparse rows.
- `block-CSR`: whole square blocks of the weight are zero and left out.
- `2:4`: two of every four weights are zero, for NVIDIA's sparse tensor cores (Mishra et al. 2021); half of the weights
  are gone, no more and no less.
- `removed channels`: a smaller dense layer, with fewer outputs and fewer inputs.

A convolution runs on sparse matrices by unfolding its input, which is part of its cost.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

KERNEL = 3  # of the convolutions: 3 × 3, with padding 1


@dataclass(frozen=True)
class Problem:
    """A layer without bias and its input: weight (O, I) and x (B, I), or (O, I, 3, 3) and (B, I, H, W)."""

    weight: Tensor
    x: Tensor

    @property
    def name(self) -> str:
        outputs, inputs, *kernel = self.weight.shape
        if not kernel:
            return f"Linear({inputs}, {outputs}), batch {len(self.x)}"
        height, width = self.x.shape[-2:]
        return f"Conv2d({inputs}, {outputs}, {KERNEL}), batch {len(self.x)} of {height} × {width}"

    def dense(self, weight: Tensor, x: Tensor) -> Tensor:
        """The layer with another weight or input, of whatever width."""
        return F.linear(x, weight) if weight.dim() == 2 else F.conv2d(x, weight, padding=KERNEL // 2)

    def product(self, matrix: Tensor) -> Tensor:
        """The layer with the weight as a (sparse) matrix (O, I) or (O, I·3·3)."""
        if self.weight.dim() == 2:
            # Several times faster than F.linear, which copies its operands for sparse weights.
            return (matrix @ self.x.t()).t()
        batch, _, *sites = self.x.shape
        columns = F.unfold(self.x, KERNEL, padding=KERNEL // 2).transpose(0, 1)  # (I·3·3, B, H·W)
        return (matrix @ columns.flatten(1)).unflatten(1, (batch, *sites)).transpose(0, 1)


@dataclass(frozen=True)
class Prepared:
    """A layer ready to run: `run()` gives an output, which must equal `expected`; `removed` is the fraction gone."""

    run: Callable[[], Tensor]
    expected: Tensor
    removed: float

    def error(self) -> float:
        """The largest deviation of one run, relative to the largest expected output."""
        deviation = float((self.run().detach().cpu().double() - self.expected).abs().max())
        return deviation / (float(self.expected.abs().max()) or 1.0)


def zeros(problem: Problem, sparsity: float, draw: torch.Generator) -> Prepared:
    weight = _mask(problem.weight, problem.weight.shape, sparsity, draw)
    return _prepared(problem, weight, lambda: problem.dense(weight, problem.x))


def csr(problem: Problem, sparsity: float, draw: torch.Generator) -> Prepared:
    weight = _mask(problem.weight, problem.weight.shape, sparsity, draw)
    with _in_beta():
        matrix = weight.flatten(1).to_sparse_csr()
    return _prepared(problem, weight, lambda: problem.product(matrix))


def block_csr(problem: Problem, sparsity: float, draw: torch.Generator, block: int) -> Prepared:
    rows, columns = problem.weight.flatten(1).shape
    if rows % block or columns % block:
        raise ValueError(f"a matrix of {rows} × {columns} has no whole blocks of {block} × {block}")
    blocks = problem.weight.flatten(1).unflatten(1, (-1, block)).unflatten(0, (-1, block))  # (rows, b, columns, b)
    weight = _mask(blocks, (rows // block, 1, columns // block, 1), sparsity, draw).reshape(problem.weight.shape)
    with _in_beta():
        matrix = weight.flatten(1).to_sparse_bsr((block, block))
    return _prepared(problem, weight, lambda: problem.product(matrix))


def two_of_four(problem: Problem) -> Prepared:
    device, dtype = problem.weight.device, problem.weight.dtype
    if device.type != "cuda":
        raise ValueError(f"needs an NVIDIA GPU (compute capability 8.0 or more), not {device.type}")
    if torch.cuda.get_device_capability(device) < (8, 0):
        raise ValueError(f"needs compute capability 8.0, which {torch.cuda.get_device_name(device)} has not")
    if dtype not in (torch.float16, torch.bfloat16):
        raise ValueError(f"needs float16 or bfloat16, not {dtype}")
    weight = half_of(problem.weight)
    with _in_beta():
        matrix = torch.sparse.to_sparse_semi_structured(weight.flatten(1))
    if weight.dim() == 2:  # the one product that this layout has for a linear layer
        return _prepared(problem, weight, lambda: F.linear(problem.x, matrix))
    return _prepared(problem, weight, lambda: problem.product(matrix))


def half_of(weight: Tensor) -> Tensor:
    """`weight` without the second two of every four along a row."""
    places = torch.arange(weight[0].numel(), device=weight.device)
    return torch.where((places % 4 < 2).reshape(weight[0].shape), weight, torch.zeros_like(weight))


def removed_channels(problem: Problem, sparsity: float) -> Prepared:
    """√(1 - sparsity) of the outputs and of the inputs are left, at least one of each: 1 - sparsity of the weights."""
    outputs, inputs = (max(1, round(size * math.sqrt(1 - sparsity))) for size in problem.weight.shape[:2])
    weight = problem.weight[:outputs, :inputs].contiguous()
    x = problem.x[:, :inputs].contiguous()  # the layer before has fewer outputs too
    kept = torch.zeros_like(problem.weight)
    kept[:outputs, :inputs] = weight
    masked = _prepared(problem, kept, lambda: problem.dense(weight, x))
    return Prepared(masked.run, masked.expected[:, :outputs], masked.removed)


def _prepared(problem: Problem, weight: Tensor, run: Callable[[], Tensor]) -> Prepared:
    """`run`, which must equal the dense layer with the same zeros, in float64."""
    expected = problem.dense(weight.cpu().double(), problem.x.cpu().double())
    return Prepared(run, expected, 1 - int(weight.count_nonzero()) / weight.numel())


def _mask(values: Tensor, units: Sequence[int], sparsity: float, draw: torch.Generator) -> Tensor:
    """`values` with round(sparsity · units) units set to zero, by chance; the shape `units` spans that of `values`."""
    kept = torch.ones(math.prod(units), dtype=torch.bool)
    kept[torch.randperm(len(kept), generator=draw)[: round(sparsity * len(kept))]] = False
    return torch.where(kept.reshape(tuple(units)).to(values.device), values, torch.zeros_like(values))


@contextmanager
def _in_beta() -> Iterator[None]:
    """Without the warning that torch's sparse layouts may still change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s).*(beta|prototype)")
        yield
