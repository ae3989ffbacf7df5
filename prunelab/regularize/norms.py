"""Penalties on single weights: the sum of absolute values, which gives zeros, and of squares, which gives none."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from prunelab.regularize.base import Entrywise


@dataclass(frozen=True)
class L1(Entrywise):
    """strength · Σ|w|, the lasso (Tibshirani 1996): its pull does not weaken as a weight gets small.

    The proximal step is the soft threshold sign(v) · max(|v| - lr · strength, 0): weights within the threshold become
    exactly zero. Biases are left alone unless `parameters` names them.

    >>> import torch
    >>> layer = torch.nn.Linear(3, 1)
    >>> layer.weight.data = torch.tensor([[0.5, -0.05, -2.0]])
    >>> round(L1(0.1).penalty(layer).item(), 4)
    0.255
    >>> L1(0.1).proximal_(layer, lr=1.0); layer.weight.tolist()[0][1]
    0.0
    """

    def _cost(self, values: Tensor) -> Tensor:
        return values.abs().sum()

    def _shrunk(self, values: Tensor, threshold: float) -> Tensor:
        return functional.softshrink(values, threshold)


@dataclass(frozen=True)
class L2(Entrywise):
    """strength / 2 · Σw², the same as an SGD's `weight_decay=strength` on these weights; here for contrast.

    Its pull is proportional to the weight, so it shrinks everything and removes nothing. The proximal step divides by
    1 + lr · strength.
    """

    def _cost(self, values: Tensor) -> Tensor:
        return values.square().sum() / 2

    def _shrunk(self, values: Tensor, threshold: float) -> Tensor:
        return values / (1 + threshold)
