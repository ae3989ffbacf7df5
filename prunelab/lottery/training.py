"""Training by a recipe or by a function, of one network or of many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Protocol

import torch
from torch import nn

from prunelab.evaluate.seeding import seeded
from prunelab.lottery.recipe import Recipe
from prunelab.lottery.state import State, weights_of
from prunelab.masks import Masks

Train = Recipe | Callable[[nn.Module, Masks, int], Any]


class Task(Protocol):
    """What is known of a network that is to be trained; a `Ticket` is one."""

    @property
    def masks(self) -> Masks: ...
    @property
    def seed(self) -> int: ...
    @property
    def start(self) -> State: ...


def train_all(train: Train, models: Sequence[nn.Module], tasks: Sequence[Task], stop: int | None = None) -> list[State]:
    """Train the models in place, each with its masks, seed and start; a function knows no start and no stop.

    Its `State` has as its only loss what it returned, if that was a number.
    """
    if isinstance(train, Recipe):
        return [
            train.train(model, task.masks, task.seed, resume=task.start, stop=stop)
            for model, task in zip(models, tasks, strict=True)
        ]
    states = []
    for model, task in zip(models, tasks, strict=True):
        with seeded(task.seed):
            returned = train(model, task.masks, task.seed)
        known = [float(returned)] if isinstance(returned, Real) and not isinstance(returned, bool) else []
        states.append(State(weights_of(model), losses=torch.tensor(known)))
    return states
