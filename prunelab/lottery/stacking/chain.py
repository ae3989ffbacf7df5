"""Chains of layers that are known one by one: convolutions, pooling, batch normalisation, Linear layers, activations.

Feature maps of B models lie side by side, as the channels of one image each: (N, B·C, H, W). Then a convolution of all
models is one with groups, and pooling and batch normalisation, which treat channels apart, need nothing new. All the
rest is (B, N, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunelab.lottery.stacking.leaves import Leaf
from prunelab.lottery.stacking.losses import Slopes
from prunelab.lottery.stacking.stack import Stack

_CONVOLUTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d}
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
_ELEMENTWISE = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Identity, nn.LeakyReLU, nn.LogSigmoid,
    nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.Sigmoid, nn.SiLU, nn.Softplus, nn.Softsign, nn.Tanh,
)  # fmt: skip


class Trained:
    """What networks whose backward pass is autograd's have in common; `outputs` is theirs."""

    stack: Stack
    outputs: Callable[[Tensor], Tensor]

    def gradients(self, x: Tensor, targets: Tensor, slopes: Slopes) -> Tensor:
        """Write every model's gradient into the stack, and return the losses, (B,); see `losses.slopes_of`."""
        assert self.stack.vector.grad is not None
        self.stack.vector.grad.zero_()
        with torch.enable_grad():
            outputs = self.outputs(x)  # (B, N, ...)
        losses, slope = slopes(outputs.detach(), targets)
        outputs.backward(slope)  # adds to the gradients where they lie
        return losses


class Chain(Trained):
    """B networks, each a chain of known layers."""

    def __init__(self, stack: Stack, leaves: Sequence[Leaf], *, training: bool = True) -> None:
        self.stack = stack
        self.layers = [_MAKERS[type(leaf.module)](stack, leaf, training) for leaf in leaves]

    @staticmethod
    def fits(leaves: Sequence[Leaf]) -> bool:
        """Whether every module is one of those known here."""
        return all(type(leaf.module) in _MAKERS and _is_usual(leaf.module) for leaf in leaves)

    def outputs(self, x: Tensor) -> Tensor:
        """(B, N, ...) → (B, N, ...)."""
        beside = False
        for layer in self.layers:
            if layer.beside is not None and layer.beside != beside:
                x, beside = _beside(x) if layer.beside else _stacked(x, self.stack.models), layer.beside
            x = layer(x)
        return _stacked(x, self.stack.models) if beside else x


def _beside(x: Tensor) -> Tensor:
    """(B, N, C, ...) → (N, B·C, ...)."""
    return x.transpose(0, 1).flatten(1, 2)


def _stacked(x: Tensor, models: int) -> Tensor:
    """(N, B·C, ...) → (B, N, C, ...)."""
    return x.unflatten(1, (models, -1)).transpose(0, 1)


def _is_usual(module: nn.Module) -> bool:
    """Settings that change what is returned, or where a layer looks, are left to the loop."""
    if type(module) in _CONVOLUTIONS:
        return module.padding_mode == "zeros"
    if isinstance(module, nn.Flatten):
        return (module.start_dim, module.end_dim) == (1, -1)
    if isinstance(module, _NORMS):
        return module.momentum is not None and module.track_running_stats
    return not getattr(module, "return_indices", False)


class _Layer:
    """A layer of all models; `beside`: whether it wants channels side by side, None where it takes either."""

    beside: bool | None = None

    def __init__(self, stack: Stack, leaf: Leaf, training: bool) -> None:
        self.module, self.training = leaf.module, training
        self.own: dict[str, Any] = {
            name: stack.buffers[known] if known in stack.buffers else stack.tensor(known)
            for name, known in leaf.names.items()
        }

    def __call__(self, x: Tensor) -> Tensor:
        return self.module(x)

    def joined(self, name: str) -> Tensor | None:
        """A tensor (B, C, ...) of all models as one of (B·C, ...)."""
        return self.own[name].flatten(0, 1) if name in self.own else None


class _Pool(_Layer):
    beside = True


class _Flatten(_Layer):
    beside = False

    def __call__(self, x: Tensor) -> Tensor:
        return x.flatten(2)


class _Linear(_Layer):
    beside = False

    def __call__(self, x: Tensor) -> Tensor:
        weight = self.own["weight"].transpose(1, 2)  # (B, I, O)
        rows = x.flatten(1, -2)  # (B, rows, I)
        bias = self.own.get("bias")
        out = torch.bmm(rows, weight) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, weight)
        return out.view(*x.shape[:-1], -1)


class _Convolution(_Layer):
    beside = True

    def __call__(self, x: Tensor) -> Tensor:
        module: Any = self.module
        models = len(self.own["weight"])
        settings = (module.stride, module.padding, module.dilation, models * module.groups)
        return _CONVOLUTIONS[type(module)](x, self.joined("weight"), self.joined("bias"), *settings)


class _Norm(_Layer):
    beside = True

    def __call__(self, x: Tensor) -> Tensor:
        module: Any = self.module
        if self.training:
            self.own["num_batches_tracked"] += 1
        return F.batch_norm(
            x, self.joined("running_mean"), self.joined("running_var"), self.joined("weight"), self.joined("bias"),
            self.training, module.momentum, module.eps,
        )  # fmt: skip


_MAKERS: dict[type[nn.Module], type[_Layer]] = {
    nn.Linear: _Linear,
    nn.Flatten: _Flatten,
    **dict.fromkeys(_CONVOLUTIONS, _Convolution),
    **dict.fromkeys(_NORMS, _Norm),
    **dict.fromkeys(_POOLS, _Pool),
    **dict.fromkeys(_ELEMENTWISE, _Layer),
}
