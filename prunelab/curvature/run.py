"""What a second-order pruning run remembers: a record of each deletion, and the network after each."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunelab.curvature.places import Places
from prunelab.masks import Masks
from prunelab.targets import named_parameters


@dataclass(frozen=True)
class Step:
    """One deletion. Increases are those of the objective, mean loss + λ/2 · ‖w‖², in the loss's unit.

    Attributes:
        parameter: the parameter that was deleted from.
        index: of the weight in it, so that `model.get_parameter(parameter)[index]` is the weight; of a larger unit its
            number there. Where several units went at once, those of the first.
        predicted_increase: what the method expected of the deletion.
        measured_increase: what it was: after deleting (and, with OBS, updating the others), before retraining.
        weights_left: entries that are not deleted.
        objective: its value at the end of the step, after retraining where there was any.
        removed: entries that went in this step.
        shift: what was added to the Hessian's diagonal because it was not positive definite; mostly 0.0.
        accuracy: what the function given as `accuracy` said at the end of the step; None without one.
    """

    parameter: str
    index: tuple[int, ...]
    predicted_increase: float
    measured_increase: float
    weights_left: int
    objective: float
    removed: int = 1
    shift: float = 0.0
    accuracy: float | None = None


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The entries that are left after a step, and the rest of the model where retraining may have changed it."""

    kept: Tensor
    others: Mapping[str, Tensor]


class Run:
    """A second-order pruning run: its steps, and the network at each of them.

    Attributes:
        steps: one record a deletion, in order.
        objective: its value at the beginning.
    """

    def __init__(self, model: nn.Module, places: Places, objective: float) -> None:
        self.steps: list[Step] = []
        self.objective = objective
        self._template, self._places = model, places
        self._snapshots: list[Snapshot] = []
        self._gone = torch.zeros(places.size, dtype=torch.long)  # the step at which an entry went; 0: it is there

    def record(self, removed: Tensor, snapshot: Snapshot, step: Step | None) -> None:
        """Note a step, the positions (k,) that went in it and what was left; before the first step, what there is."""
        self._snapshots.append(snapshot)
        if step is not None:
            self.steps.append(step)
            self._gone[removed.cpu()] = len(self.steps)

    @property
    def weights(self) -> int:
        """Entries at the beginning."""
        return self._places.size

    @property
    def weights_left(self) -> int:
        """Entries that are left in the end."""
        return self.steps[-1].weights_left if self.steps else self.weights

    @property
    def model(self) -> nn.Module:
        """The network as it is in the end: a new copy."""
        return self._model(len(self.steps))

    @property
    def masks(self) -> Masks:
        """What is left in the end, of every parameter that was looked at."""
        return self._masks(len(self.steps))

    def model_at(self, weights_left: int) -> nn.Module:
        """The network as it was with so many weights left: a new copy, deleted entries exactly zero.

        Raises ValueError for a number that the run did not pass.
        """
        return self._model(self._step_with(weights_left))

    def masks_at(self, weights_left: int) -> Masks:
        """What was left when so many weights were left."""
        return self._masks(self._step_with(weights_left))

    def _step_with(self, weights_left: int) -> int:
        counts = [self.weights, *(step.weights_left for step in self.steps)]
        if weights_left not in counts:
            raise ValueError(
                f"this run never had {weights_left!r} weights left: it went from {self.weights} to "
                f"{self.weights_left}; [step.weights_left for step in run.steps] says how"
            )
        return counts.index(weights_left)

    def _left(self, step: int) -> Tensor:
        left = (self._gone == 0) | (self._gone > step)
        return left.to(self._snapshots[step].kept.device)

    def _masks(self, step: int) -> Masks:
        return Masks({name: mask.clone() for name, mask in self._places.split(self._left(step)).items()})

    @torch.no_grad()
    def _model(self, step: int) -> nn.Module:
        model, state = copy.deepcopy(self._template), self._snapshots[step]
        vector = state.kept.new_zeros(self.weights).masked_scatter_(self._left(step), state.kept)
        parameters = named_parameters(model)
        known = {**parameters, **dict(model.named_buffers())}
        for name, values in state.others.items():
            known[name].copy_(values)
        for name, values in self._places.split(vector).items():
            parameters[name].copy_(values)
        return model

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        end = self.steps[-1].objective if self.steps else self.objective
        return (
            f"Run({len(self.steps)} deletions, {self.weights} to {self.weights_left} weights; "
            f"objective {self.objective:.6g} to {end:.6g})"
        )
