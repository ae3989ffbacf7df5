"""Many models trained at once, as one batched model."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunelab.evaluate.engine import Engine, resolve
from prunelab.evaluate.seeding import torch_threads
from prunelab.lottery.recipe import Recipe
from prunelab.lottery.stacking.batches import batches
from prunelab.lottery.stacking.grouping import architecture, fits, grouped, threads, training_groups
from prunelab.lottery.stacking.losses import slopes_of
from prunelab.lottery.stacking.network import network_of
from prunelab.lottery.stacking.optimizers import join_states, optimizer_like, split_state
from prunelab.lottery.stacking.stack import Stack
from prunelab.lottery.state import State, check_seed, load, trainable, weights_of
from prunelab.masks import Masks
from prunelab.memory import memory_of
from prunelab.schedule.base import check_step
from prunelab.targets import first_names
from prunelab.trace.forward import device_of, undisturbed

_ROWS = 1024  # examples that are evaluated at once


def train_stacked(
    models: Sequence[nn.Module],
    recipe: Recipe,
    masks: Sequence[Masks | None] | None = None,
    seeds: Sequence[int] | None = None,
    stop: int | None = None,
    resume: Sequence[State | None] | None = None,
    *,
    jobs: int = 1,
    engine: Engine | None = None,
) -> list[State]:
    """Train many models in place as `recipe.train` would one after the other; small ones several times faster.

    Models of one architecture are run as one: their weights lie in one vector, their products are batched ones. Each
    has its own masks and its own order of the examples; no weight outside its mask moves. The numbers are those of
    `recipe.train` apart from rounding, and for networks of Linear layers the same bits in whatever company. Each step
    runs on one thread: on products as small as these, waiting for others takes longer than the work.

    What cannot be stacked, or would not gain by it, is trained by `recipe.train` itself: models that draw at random
    (dropout), whose code vmap refuses, or of another dtype than the inputs' float32 or float64; optimizers that do not
    treat each number alone; on a CPU, networks of Linear layers with more than a million weights, and any other with
    more than 32 thousand, or fewer than five of them.

    Args:
        models: of one or several architectures, no two of which share memory.
        recipe: how to train each.
        masks: for each model its pruned weights, or None.
        seeds: for each model the order of its examples; 0 for all by default, as in `recipe.train`.
        stop, resume: as in `recipe.train`; a state for each model, or None.
        jobs, engine: processes that share the models, as in `evaluate.sweep`: for large ones, or many.

    Returns:
        where each model stopped, in order.

    Raises TypeError or ValueError for a bad argument; no model is changed then.

    >>> data = torch.randn(100, 3)
    >>> recipe = Recipe(data, (data.sum(1) > 0).long(), steps=50, batch_size=20)
    >>> models = [nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(4)]
    >>> states = train_stacked(models, recipe, seeds=[0, 0, 1, 1])
    >>> [state.step for state in states]
    [50, 50, 50, 50]
    """
    job = _Job(
        models := list(models),
        recipe,
        _one_each(masks, None, len(models), "masks"),
        [check_seed(seed) for seed in _one_each(seeds, 0, len(models), "seeds")],
        _one_each(resume, None, len(models), "resume"),
        stop,
    )
    _check(job)
    chosen = resolve(jobs, engine)
    states: list[State | None] = [None] * len(models)
    count = (os.cpu_count() or 1) if jobs == -1 else jobs
    for members, reached in chosen.map(job, training_groups(models, recipe, job.resume, count)):
        for position, state in zip(members, reached, strict=True):
            states[position] = state
            if jobs != 1 or engine is not None:  # what was trained are copies
                load(models[position], state.weights)
    return [state for state in states if state is not None]


def accuracies(models: Sequence[nn.Module], inputs: Tensor, targets: Tensor) -> list[float]:
    """The fraction of the examples whose largest output is at the target, of each model, in eval mode.

    Small models of one architecture are run as one. Modes are restored.

    Args:
        models: each takes (n, ...) and gives (n, classes).
        inputs: (n, ...), n of at least 1.
        targets: (n,) class numbers.
    """
    if not len(inputs) or len(inputs) != len(targets):
        raise ValueError(f"there are {len(inputs)} inputs and {len(targets)} targets; give one target for each input")
    found = [0.0] * len(models)
    for members in grouped(models, [architecture(model, inputs) for model in models]):
        own = [models[position] for position in members]
        device = device_of(own[0])
        x, wanted = inputs.to(device), targets.to(device)
        for position, outputs in zip(members, _evaluated(own, x), strict=True):
            found[position] = float((outputs.argmax(1) == wanted).double().mean())
    return found


@torch.no_grad()
def _evaluated(models: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
    """The outputs (n, ...) of each model in eval mode."""
    if len(models) > 1:
        stack = _stack(models, [None] * len(models))
        several = x.expand(len(models), *x.shape)
        network = network_of(stack, models, several[:, :2], training=False)
        if network is not None:
            return list(torch.cat([network.outputs(part) for part in several.split(_ROWS, 1)], 1))
    return [_alone(model, x) for model in models]


def _alone(model: nn.Module, x: Tensor) -> Tensor:
    with undisturbed(model):
        return torch.cat([model(part) for part in x.split(_ROWS)])


def _one_each(given: Sequence[Any] | None, default: Any, count: int, name: str) -> list[Any]:
    if given is None:
        return [default] * count
    if isinstance(given, Mapping | State) or not isinstance(given, Sequence):
        raise TypeError(f"{name} must be a list with one entry a model, not {type(given).__name__}")
    if len(given) != count:
        raise ValueError(f"{name} has {len(given)} entries for {count} models; give one for each")
    return list(given)


def _check(job: _Job) -> None:
    """Everything that `recipe.train` would refuse of any model, before the first is changed."""
    seen: dict[tuple[Any, ...], int] = {}
    end = job.recipe.steps if job.stop is None else check_step(job.stop, "stop")
    for position, (model, masks, state) in enumerate(zip(job.models, job.masks, job.resume, strict=True)):
        for parameter in model.parameters():
            other = seen.setdefault(memory_of(parameter), position)
            if other != position:
                raise ValueError(f"models {other} and {position} share memory; give copies (copy.deepcopy)")
        begin = 0 if state is None else state.step
        if not begin <= end <= job.recipe.steps:
            raise ValueError(f"stop={end} must lie between where model {position} stands, {begin}, and "
                             f"steps={job.recipe.steps}")  # fmt: skip
        job.recipe.train(copy.deepcopy(model), masks, resume=state, stop=begin)  # no step: only its checks


@dataclass(frozen=True)
class _Job:
    """Training of some of the models; called with their positions, in this process or in another."""

    models: Sequence[nn.Module]
    recipe: Recipe
    masks: Sequence[Masks | None]
    seeds: Sequence[int]
    resume: Sequence[State | None]
    stop: int | None

    def __call__(self, members: list[int]) -> tuple[list[int], list[State]]:
        """The members again, and where each of them stopped."""
        first = self.models[members[0]]
        if fits(first, self.recipe):
            with torch_threads(threads(sum(parameter.numel() for parameter in first.parameters()))):
                states = self._stacked(members)
            if states is not None:
                return members, states
        return members, [self._alone(position) for position in members]

    def _alone(self, position: int) -> State:
        model, masks, seed = self.models[position], self.masks[position], self.seeds[position]
        return self.recipe.train(model, masks, seed, resume=self.resume[position], stop=self.stop)

    def _stacked(self, members: list[int]) -> list[State] | None:
        """None where these models cannot be run as one."""
        models = [self.models[position] for position in members]
        states = [self.resume[position] for position in members]
        seeds = [self.seeds[position] for position in members]
        begin = 0 if states[0] is None else states[0].step
        end = self.recipe.steps if self.stop is None else self.stop
        stack = _stack(models, states)
        stack.mask([self.masks[position] for position in members], first_names(models[0]))
        order = batches(self.recipe, seeds, begin, end, stack.vector.device)
        first = next(order, None)
        network = None if first is None else network_of(stack, models, first[0])
        if network is None:
            return None
        optimizer = optimizer_like(self.recipe.make_optimizer(trainable(models[0])), stack)
        rate = optimizer.param_groups[0]["lr"]
        if states[0] is not None and states[0].optimizer is not None:
            join_states([state.optimizer for state in states if state and state.optimizer], optimizer, stack)
        losses = torch.zeros(end - begin, len(models), device=stack.vector.device)
        slopes = slopes_of(self.recipe.loss, self.recipe.targets)
        order = batches(self.recipe, seeds, begin, end, stack.vector.device)
        for step, (inputs, targets) in enumerate(order, start=begin):
            optimizer.param_groups[0]["lr"] = rate * self.recipe.rate(step)
            losses[step - begin] = network.gradients(inputs, targets, slopes)
            optimizer.step()
            stack.hold()
        stack.write(models)
        moved = zip(models, split_state(optimizer, stack), losses.T.cpu(), strict=True)
        return [State(weights_of(model), momentum, end, own.clone()) for model, momentum, own in moved]


def _stack(models: Sequence[nn.Module], states: Sequence[State | None]) -> Stack:
    parameters = dict(models[0].named_parameters())
    trained = [name for name, parameter in parameters.items() if parameter.requires_grad]
    frozen = [name for name, parameter in parameters.items() if not parameter.requires_grad]
    weights = [
        {**dict(model.named_parameters()), **dict(model.named_buffers()), **(state.weights if state else {})}
        for model, state in zip(models, states, strict=True)
    ]
    detached = [{name: value.detach() for name, value in own.items()} for own in weights]
    return Stack(detached, trained, frozen, [name for name, _ in models[0].named_buffers()])
