"""Folding batch normalisation into the layer before it: one layer less, the same function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from prunelab.anatomy import Anatomy
from prunelab.surgery.rebuild import copied
from prunelab.surgery.verifying import NotEqual, check
from prunelab.targets import unwrap
from prunelab.trace import Op, trace


def fold_batch_norm(model: nn.Module, example_inputs: Any, *, verify: bool = True) -> nn.Module:
    """A copy of `model`, in evaluation mode, whose batch normalisations are part of the layers before them.

    With y = γ·(W∗x + b − μ)/√(σ² + ε) + β a convolution or Linear layer and the normalisation behind it are one layer
    of weight W·γ/√(σ² + ε) and bias (b − μ)·γ/√(σ² + ε) + β, one number an output channel. Which normalisation follows
    which layer is seen in one forward: a normalisation is folded where nothing else reads what the layer returns, and
    both run once. The others stay. For use, not for training: the running statistics are gone.

    Raises NotEqual where the outputs differ by more than rounding.

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()).eval()
    >>> [type(module).__name__ for module in fold_batch_norm(model, torch.randn(2, 1, 8, 8))]
    ['Conv2d', 'Identity', 'ReLU']
    """
    network = unwrap(model)
    folded = copied(Anatomy(network)).eval()
    for layer, norm in _pairs(network, example_inputs):
        one, other = folded.get_submodule(layer), folded.get_submodule(norm)
        assert isinstance(one, nn.Linear | _ConvNd)
        assert isinstance(other, _BatchNorm)
        _fold(one, other)
        for path, module in list(folded.named_modules(remove_duplicate=False)):
            if module is other:  # under each of its names
                parent, _, name = path.rpartition(".")
                setattr(folded.get_submodule(parent), name, nn.Identity())
    if verify:
        result = check(network, folded, example_inputs)
        if not result.holds:
            raise NotEqual(f"folding changed the outputs by {result.error:.2e}, allowed {result.tolerance:.0e}")
    return folded


def _pairs(model: nn.Module, example_inputs: Any) -> list[tuple[str, str]]:
    """(layer, normalisation) where the second does nothing but read the first."""
    record = trace(model, example_inputs)
    ops = record.ops
    modules = dict(model.named_modules())
    first = {id(module): path for path, module in reversed(modules.items())}
    runs = Counter(first[id(modules[op.module])] for op in ops if _makes(op) or _normalises(op))
    readers = Counter([*(value.id for op in ops for value in op.inputs), *(value.id for value in record.outputs)])
    weights = {value.id: name for name, value in record.parameters.items()}
    weights |= {
        op.outputs[0].id: weights[op.inputs[0].id] for op in ops if op.name == "aten::t" and op.inputs[0].id in weights
    }
    uses = Counter(
        weights[value.id] for op in ops if op.name != "aten::t" for value in op.inputs if value.id in weights
    )
    made = {op.outputs[0].id: op.module for op in ops if _makes(op) and _plainly(op, weights)}
    found = []
    for op in ops:
        layer = made.get(op.inputs[0].id) if _normalises(op) and op.inputs else None
        if (
            layer is None
            or readers[op.inputs[0].id] > 1
            or max(runs[layer], runs[op.module], uses[f"{layer}.weight"]) > 1
        ):
            continue
        one, other = modules[layer], modules[op.module]
        plain = isinstance(one, nn.Linear | _ConvNd) and "weight" in one._parameters and "bias" in one._parameters
        if plain and isinstance(other, _BatchNorm) and other.track_running_stats and other.running_mean is not None:
            found.append((layer, op.module))
    return found


def _makes(op: Op) -> bool:
    return op.name.partition(".")[0] in {"aten::convolution", "aten::addmm", "aten::mm", "aten::linear"}


def _plainly(op: Op, weights: Mapping[int, str]) -> bool:
    """Whether the layer's weight is read as it stands, not first computed from it."""
    weight = op.args[-1] if op.name.partition(".")[0] in {"aten::mm", "aten::addmm"} else op.args[1]
    return weights.get(weight.id) == f"{op.module}.weight".lstrip(".")


def _normalises(op: Op) -> bool:
    return "batch_norm" in op.name


@torch.no_grad()
def _fold(layer: nn.Linear | _ConvNd, norm: _BatchNorm) -> None:
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None
    assert var is not None
    weight = layer.weight
    scale = _wide(norm.weight, mean, 1.0) / (var.double() + norm.eps).sqrt()  # (O,)
    shift = (_wide(layer.bias, mean, 0.0) - mean.double()) * scale + _wide(norm.bias, mean, 0.0)
    rows = scale
    if isinstance(layer, _ConvTransposeNd):  # (I, O/g, ...): the outputs of a group lie along dimension 1
        per_group = scale.reshape(layer.groups, -1).repeat_interleave(weight.shape[0] // layer.groups, 0)  # (I, O/g)
        rows = per_group.reshape(*per_group.shape, *[1] * (weight.dim() - 2))
    else:
        rows = scale.reshape(-1, *[1] * (weight.dim() - 1))
    layer.weight = nn.Parameter((weight.double() * rows).to(weight.dtype), weight.requires_grad)
    layer.bias = nn.Parameter(shift.to(weight.dtype), weight.requires_grad)


def _wide(values: Tensor | None, like: Tensor, default: float) -> Tensor:
    return torch.full_like(like, default, dtype=torch.float64) if values is None else values.double()
