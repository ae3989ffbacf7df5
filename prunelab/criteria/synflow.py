"""Synaptic flow: how much of a signal of ones passes through each weight. No data, and no layer is cut off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from prunelab.criteria.base import Criterion, Subject
from prunelab.criteria.measuring import differentiable, measuring
from prunelab.criteria.members import finest, member_sums, precise
from prunelab.criteria.watching import FOLLOWERS, PerWeight
from prunelab.targets import unwrap
from prunelab.trace import call_arguments, device_of, map_tensors

ACTIVATIONS = FOLLOWERS - {"batch_norm"}


@dataclass(frozen=True, eq=False)
class SynFlow(Criterion):
    """|∂R/∂w · w| with R = 1ᵀ (Π |W_l|) 1: the synaptic flow through a unit's weights (Tanaka et al. 2020).

    R is the sum of the network's outputs for an input of ones, in eval mode, with every parameter replaced by its
    absolute value, everything that is added (biases, the shifts and running means of normalisations) by zero, and every
    activation function by the identity. Of `example_inputs` (a tensor, a tuple of positional or a dict of keyword
    arguments) only the shape is used; integers, such as token numbers, are passed on. R is computed in float64.

    The flow is conserved: in a network without skip connections the scores of each layer sum to R, and what comes into
    a hidden neuron goes out of it. Removed in many small `rounds`, with the scores measured anew in each, the last
    weights of a layer are therefore too valuable to go while other layers have many.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 1, bias=False))
    >>> model[0].weight.data = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
    >>> model[1].weight.data = torch.tensor([[5.0, -1.0]])
    >>> import prunelab
    >>> scores = prunelab.score(model, SynFlow(torch.empty(1, 2)))  # R = 15 + 7
    >>> scores["0.weight"].tolist(), scores["1.weight"].tolist()
    ([5.0, 10.0, 3.0, 4.0], [15.0, 7.0])
    """

    needs: ClassVar[frozenset[str]] = frozenset({"weights"})
    reads: ClassVar[str] = "the network's structure: the flow through each weight, which depends on all the others"

    example_inputs: Any = field(repr=False)
    rounds: int = 100

    def __post_init__(self) -> None:
        if isinstance(self.rounds, bool) or not isinstance(self.rounds, Integral) or self.rounds < 1:
            raise ValueError(f"SynFlow(rounds={self.rounds!r}): a whole number of rounds, at least 1")

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        return member_sums(precise(weights).abs() * statistics)

    def observe(self, subject: Subject) -> Mapping[str, PerWeight]:
        """∂R/∂|w| of every weight, float64, by parameter name."""
        model = unwrap(subject.model)
        device = device_of(model)
        precision = finest(device)
        with measuring(model), differentiable([]), _Linear():
            values = {parameter: _positive(name, parameter, precision) for name, parameter in model.named_parameters()}
            state = {name: values[parameter] for name, parameter in model.named_parameters()}
            state |= {name: _unshifted(name, buffer, precision) for name, buffer in model.named_buffers()}
            positional, named = map_tensors(partial(_ones, precision), call_arguments(self.example_inputs, device))
            total = _total(functional_call(model, state, positional, named))
            weights = [values[target.weight] for target in subject.targets]
            flows = torch.autograd.grad(total, weights, allow_unused=True, materialize_grads=True)
        return {target.name: PerWeight(flow) for target, flow in zip(subject.targets, flows, strict=True)}


class _Linear(TorchFunctionMode):
    """Inside, activation functions are the identity."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "").rstrip("_") in ACTIVATIONS:
            return args[0] if args else kwargs["input"]
        return func(*args, **(kwargs or {}))


def _positive(name: str, parameter: Tensor, precision: torch.dtype) -> Tensor:
    """What stands for a parameter: its absolute value, or zero where it is added to something."""
    value = parameter.detach().to(precision).abs()
    return (value.zero_() if "bias" in name.rpartition(".")[2] else value).requires_grad_()


def _unshifted(name: str, buffer: Tensor, precision: torch.dtype) -> Tensor:
    """What stands for a buffer: zero for a running mean, which is taken away from something."""
    if not buffer.is_floating_point():
        return buffer
    return torch.zeros_like(buffer, dtype=precision) if name.endswith("running_mean") else buffer.to(precision)


def _ones(precision: torch.dtype, tensor: Tensor) -> Tensor:
    return torch.ones_like(tensor, dtype=precision) if tensor.is_floating_point() else tensor


def _total(outputs: Any) -> Tensor:
    """R: the sum of all that the network puts out."""
    sums: list[Tensor] = []

    def add(tensor: Tensor) -> Tensor:
        sums.append(tensor.sum())
        return tensor

    map_tensors(add, outputs)
    total = torch.stack(sums).sum() if sums else torch.zeros(())
    if not total.requires_grad:
        raise ValueError(
            "SynFlow: no tensor that the model returns depends on its weights, so there is no flow to follow; it finds "
            "tensors in tuples, lists and dicts"
        )
    if not total.isfinite():
        raise ValueError(
            f"SynFlow: the flow through the network is {total.item()}, so no weight has a share of it: a weight is not "
            "finite, or the network is too deep for float64"
        )
    return total
