"""Training by a recipe or by a function, of one network or of many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any, Protocol

import torch
from torch import nn

from prunelab.evaluate.engine import Engine
from prunelab.evaluate.seeding import seeded
from prunelab.lottery.recipe import Recipe
from prunelab.lottery.stacked import train_stacked
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


def train_all(
    train: Train,
    models: Sequence[nn.Module],
    tasks: Sequence[Task],
    *,
    stop: int | None = None,
    jobs: int = 1,
    engine: Engine | None = None,
) -> list[State]:
    """Train the models in place, each with its masks, seed and start; a function knows no start and no stop.

    Its `State` has as its only loss what it returned, if that was a number.
    """
    if isinstance(train, Recipe):
        if len(models) == 1 and jobs == 1 and engine is None:
            return [train.train(models[0], tasks[0].masks, tasks[0].seed, resume=tasks[0].start, stop=stop)]
        masks, seeds = [task.masks for task in tasks], [task.seed for task in tasks]
        starts = [task.start for task in tasks]
        return train_stacked(models, train, masks, seeds, stop, starts, jobs=jobs, engine=engine)
    states = []
    for model, task in zip(models, tasks, strict=True):
        with seeded(task.seed):
            returned = train(model, task.masks, task.seed)
        known = [float(returned)] if isinstance(returned, Real) and not isinstance(returned, bool) else []
        states.append(State(weights_of(model), losses=torch.tensor(known, dtype=torch.float64)))
    return states


def check_train(train: Train, starts: Iterable[State] = ()) -> None:
    """Raises TypeError for what cannot train, and ValueError for a function that is to start at a later step."""
    if not isinstance(train, Recipe) and not callable(train):
        raise TypeError(f"train must be a lottery.Recipe or a function train(model, masks, seed), not {train!r:.60}")
    last = max((start.step for start in starts), default=0)
    if last and not isinstance(train, Recipe):
        raise ValueError(
            f"the training is to start at step {last}, but a function that trains can only train from the beginning: "
            "give a lottery.Recipe, which can stop at a step and go on from there"
        )
    if isinstance(train, Recipe) and last >= train.steps:
        raise ValueError(f"the training is to start at step {last}, but the recipe has only {train.steps} steps")
