"""The loop of Optimal Brain Damage and Surgeon: choose what to delete, delete it, measure, retrain, and again."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from prunelab.criteria.measuring import Batches, Loss
from prunelab.curvature.objective import Objective
from prunelab.curvature.progress import Progress
from prunelab.curvature.run import Run, Snapshot, Step
from prunelab.curvature.units import Units, units_of
from prunelab.granularity import Granularity
from prunelab.masks import Masks
from prunelab.names import Exclude
from prunelab.schedule import check_step
from prunelab.targets import named_parameters, unwrap

Retrain = Callable[[nn.Module, Masks], object]
Accuracy = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Choice:
    """Which units go, what that adds to the vector of parameters (n,), and what the loss is expected to do."""

    units: Tensor
    change: Tensor
    predicted: float
    shift: float = 0.0


class Method(Protocol):
    """What tells Optimal Brain Damage from Optimal Brain Surgeon."""

    def choose(self, patient: Patient, budget: int, at_once: bool) -> Choice:
        """What to delete next: one unit of at most `budget` entries (there is one), or `at_once` all that fit."""


@dataclass(frozen=True)
class Care:
    """What may happen beside the deletions: training after each, and a look at the accuracy."""

    retrain: Retrain | None = None
    accuracy: Accuracy | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        for name, call, example in (
            ("retrain", self.retrain, "retrain(model, masks), which trains in place"),
            ("accuracy", self.accuracy, "accuracy(model) → float"),
        ):
            if call is not None and not callable(call):
                raise TypeError(f"{name} must be a function {example}, not {call!r:.60}")


@dataclass(eq=False)
class Patient:
    """The network in the middle of the run, as a vector of its parameters.

    Attributes:
        objective: the loss to keep low.
        units: what may be deleted.
        model: a copy of the caller's model, with the present weights.
        vector: (n,) the present weights; 0.0 where they are deleted.
        left: bool (n,), what is not deleted.
        alive: bool (units,).
    """

    objective: Objective
    units: Units
    model: nn.Module
    vector: Tensor = field(init=False)
    left: Tensor = field(init=False)
    alive: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.vector = self.objective.start.clone()
        self.left = torch.ones_like(self.vector, dtype=torch.bool)
        self.sizes = self.units.sizes()
        self.alive = self.sizes > 0

    @property
    def weights_left(self) -> int:
        return int(self.left.sum())

    def fitting(self, budget: int) -> Tensor:
        """bool (units,): those that are alive and have at most so many entries."""
        return self.alive & (self.sizes <= budget)

    def delete(self, choice: Choice) -> Tensor:
        """Change the weights as chosen; returns the positions (k,) that went."""
        self.alive[choice.units] = False
        gone = torch.isin(self.units.owner, choice.units)
        self.left &= ~gone
        self.vector = (self.vector + choice.change).masked_fill_(~self.left, 0)
        self._write()
        return gone.nonzero()[:, 0]

    def retrain(self, retrain: Retrain) -> None:
        """Let the caller train the present network; what was deleted stays zero."""
        with torch.enable_grad():
            retrain(self.model, self.masks())
        self.vector = self.objective.vector_of(self.model).masked_fill_(~self.left, 0)
        self._write()
        self.objective.adopt(self.model)

    def masks(self) -> Masks:
        return Masks({name: mask.clone() for name, mask in self.objective.places.split(self.left).items()})

    def snapshot(self, retrained: bool) -> Snapshot:
        """What there is now; the rest of the model is noted where training may have changed it."""
        mine = set(self.objective.places.names) if retrained else set()
        known = {**named_parameters(self.model), **dict(self.model.named_buffers())} if retrained else {}
        others = {name: tensor.detach().clone() for name, tensor in known.items() if name not in mine}
        return Snapshot(self.vector[self.left].to(self.objective.dtype), others)

    def _write(self) -> None:
        """Put the vector into the model."""
        parameters = named_parameters(self.model)
        for name, values in self.objective.places.split(self.vector).items():
            parameters[name].detach().copy_(values)


def admit(
    model: nn.Module,
    data: Batches,
    loss: Loss,
    *,
    weight_decay: float,
    granularity: Granularity | None,
    parameters: Iterable[str] | None,
    exclude: Exclude | None,
) -> Patient:
    """A patient that has lost nothing yet; the caller's model is not touched, now or later."""
    units = units_of(model, granularity, parameters, exclude)
    objective = Objective(model, data, loss, units.places.names, weight_decay)
    units = replace(units, owner=units.owner.to(objective.device))
    return Patient(objective, units, copy.deepcopy(unwrap(model)))


@torch.no_grad()
def delete_until(
    weights_left: int, patient: Patient, method: Method, care: Care, what: str, counts: Iterable[int] | None = None
) -> Run:
    """Delete unit after unit while at least so many entries stay; with `counts`, in rounds that end with so many."""
    weights_left = _checked(weights_left, patient)
    objective = patient.objective
    run = Run(copy.deepcopy(patient.model), objective.places, objective.value(patient.vector))
    run.record(patient.left.new_zeros(0, dtype=torch.long), patient.snapshot(False), None)
    value, begin = run.objective, patient.weights_left
    with Progress(what, begin - weights_left, care.progress) as progress:
        for target in counts or itertools.repeat(weights_left):
            budget = patient.weights_left - target
            if not bool(patient.fitting(budget).any()):
                if counts is None:
                    break
                continue
            choice = method.choose(patient, budget, counts is not None)
            gone = patient.delete(choice)
            reached = objective.value(patient.vector)
            if care.retrain is not None:
                patient.retrain(care.retrain)
            after = reached if care.retrain is None else objective.value(patient.vector)
            parameter, index = patient.units.where(int(choice.units[0]))
            step = Step(
                parameter=parameter,
                index=index,
                predicted_increase=choice.predicted,
                measured_increase=reached - value,
                weights_left=patient.weights_left,
                objective=after,
                removed=len(gone),
                shift=choice.shift,
                accuracy=None if care.accuracy is None else float(care.accuracy(patient.model)),
            )
            run.record(gone, patient.snapshot(care.retrain is not None), step)
            value = after
            progress.show(begin - patient.weights_left)
    return run


def _checked(weights_left: int, patient: Patient) -> int:
    count, there = check_step(weights_left, "weights_left"), patient.weights_left
    if count > there:
        raise ValueError(f"weights_left={count}, but there are only {there} weights to begin with")
    stay = there - int(patient.sizes.sum())
    if count < stay:
        raise ValueError(
            f"weights_left={count}, but {stay} of the {there} weights belong to no unit that may be deleted; keep at "
            "least so many, or name what may go with granularity=, parameters= or exclude="
        )
    return count
