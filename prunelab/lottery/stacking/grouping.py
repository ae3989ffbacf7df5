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

# What follows was measured (benchmarks/lottery.py) on chains of Linear layers and on small convolutional networks, on
# one thread of a CPU, against the same training one model at a time.
_TOGETHER = 1 << 19  # weights in a stack: with more, the vectors that each step goes through leave the cache
_TOGETHER_CUDA = 1 << 26  # there it is memory that ends it
_DENSE = 1 << 20  # weights of one model up to which a chain of Linear layers gains; alone, too
_OTHER = 1 << 15  # and others, of which
_FEW = 5  # so many are needed
_THREADED = 1 << 17  # weights of one model up to which a product is over before a second thread has woken up


def pays(dense: bool, weights: int, models: int, device: torch.device) -> bool:
    """Whether `models` models with so many weights each train faster as one; `dense` for chains of Linear layers."""
    if device.type != "cpu":
        return models > 1
    return weights <= _DENSE if dense else weights <= _OTHER and models >= _FEW


def threads(weights: int) -> int:
    """How many threads train models with so many weights each: one, or as many as torch is set to use."""
    return 1 if weights <= _THREADED else torch.get_num_threads()


def training_groups(
    models: Sequence[nn.Module], recipe: Recipe, resume: Sequence[State | None], jobs: int
) -> list[list[int]]:
    """Positions of the models in groups to be stacked, of each kind in at least `jobs` if there are so many."""
    kinds: list[Hashable | None] = []
    for model, state in zip(models, resume, strict=True):
        begun = 0 if state is None else state.step
        kinds.append((architecture(model, recipe.inputs), begun, _momentum(state)) if fits(model, recipe) else None)
    return grouped(models, kinds, jobs)


def fits(model: nn.Module, recipe: Recipe) -> bool:
    """Whether the model can be in a stack, and be trained there by the recipe's optimizer."""
    return architecture(model, recipe.inputs) is not None and is_elementwise(recipe.make_optimizer(trainable(model)))


def grouped(models: Sequence[nn.Module], kinds: Sequence[Hashable | None], jobs: int = 1) -> list[list[int]]:
    """Positions of models of one kind, in parts of a size that is quick to step through; None is a kind of its own."""
    alike: dict[Hashable, list[int]] = {}
    for position, kind in enumerate(kinds):
        alike.setdefault(position if kind is None else kind, []).append(position)
    return [part for members in alike.values() for part in _parts(members, models[members[0]], jobs)]


def _parts(members: list[int], model: nn.Module, jobs: int) -> list[list[int]]:
    parameters = list(model.parameters())
    cuda = any(parameter.is_cuda for parameter in parameters)
    weights = sum(parameter.numel() for parameter in parameters)
    most = max(1, (_TOGETHER_CUDA if cuda else _TOGETHER) // max(1, weights))
    count = min(len(members), max(jobs, -(-len(members) // most)))
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
