"""Which models are trained together: those of one architecture, as many as a processor's cache likes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from prunelab.lottery.recipe import Recipe
from prunelab.lottery.stacking.optimizers import is_elementwise, settings_of, steps_of
from prunelab.lottery.state import State, trainable
from prunelab.memory import memory_of
from prunelab.targets import unwrap

_DTYPES = (torch.float32, torch.float64)  # in shorter ones, rounding in another order would show

# Measured (benchmarks/lottery.py): ...
WEIGHTS = 1 << 20


def training_groups(models: Sequence[nn.Module], recipe: Recipe, resume: Sequence[State | None]) -> list[list[int]]:
    """Positions of the models in groups: a group of several is stacked, one of one is trained alone."""
    kinds: list[Hashable | None] = []
    for model, state in zip(models, resume, strict=True):
        known = architecture(model, recipe.inputs)
        if known is not None and is_elementwise(recipe.make_optimizer(trainable(model))):
            kinds.append((known, 0 if state is None else state.step, _momentum(state)))
        else:
            kinds.append(None)
    return grouped(models, kinds)


def grouped(models: Sequence[nn.Module], kinds: Sequence[Hashable | None]) -> list[list[int]]:
    """Positions of models of one kind, in parts of a size that is quick to step through; None is a kind of its own."""
    alike: dict[Hashable, list[int]] = {}
    for position, kind in enumerate(kinds):
        alike.setdefault(position if kind is None else kind, []).append(position)
    return [part for members in alike.values() for part in _parts(members, models[members[0]])]


def _parts(members: list[int], model: nn.Module) -> list[list[int]]:
    weights = sum(parameter.numel() for parameter in model.parameters())
    most = max(1, WEIGHTS // max(1, weights))
    count = -(-len(members) // most)
    ends = [len(members) * part // count for part in range(count + 1)]
    return [members[begin:end] for begin, end in pairwise(ends)]


def architecture(model: nn.Module, inputs: Tensor) -> Hashable | None:
    """What models that can be stacked have in common; None for a model whose parameters cannot lie in one vector.

    They must be of one device, all float32 or all float64 as the inputs, and no two in the same memory.
    """
    parameters = dict(model.named_parameters())
    kinds = {(parameter.dtype, parameter.device) for parameter in parameters.values()}
    apart = len({memory_of(parameter) for parameter in parameters.values()}) == len(parameters)
    if len(kinds) != 1 or not apart or unwrap(model) is not model:
        return None
    if inputs.dtype not in _DTYPES or inputs.dtype != next(iter(kinds))[0]:
        return None
    shapes = tuple((name, parameter.shape, parameter.requires_grad) for name, parameter in parameters.items())
    return (type(model), repr(model), shapes, *kinds)


def _momentum(state: State | None) -> Hashable:
    """What optimizers that are resumed together have in common."""
    if state is None or state.optimizer is None:
        return None
    entries = tuple(tuple(own) for own in state.optimizer["state"].values())
    return str(settings_of(state.optimizer)), tuple(steps_of(state.optimizer)), entries
