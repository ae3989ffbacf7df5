"""Optimal Brain Damage: delete what the diagonal of the Hessian says is cheap, retrain, and again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from prunelab.criteria.measuring import Batches, Loss
from prunelab.curvature.diagonal import check_method, hessian_diagonal
from prunelab.curvature.loop import Accuracy, Care, Choice, Patient, Retrain, admit, delete_until
from prunelab.curvature.run import Run
from prunelab.granularity import Granularity
from prunelab.names import Exclude
from prunelab.schedule import check_step
from prunelab.selection import keep_within_budget


@torch.inference_mode(False)  # derivatives need tensors that autograd knows
def obd(
    model: nn.Module,
    data: Batches,
    loss: Loss,
    weights_left: int,
    *,
    weight_decay: float = 0.0,
    retrain: Retrain | None = None,
    granularity: Granularity | None = None,
    parameters: Iterable[str] | None = None,
    exclude: Exclude | None = None,
    rounds: int | None = None,
    method: Literal["exact", "gauss-newton", "lecun", "levenberg-marquardt", "hutchinson", "magnitude"] = "exact",
    accuracy: Accuracy | None = None,
    progress: bool = True,
) -> Run:
    """Optimal Brain Damage (LeCun et al. 1990): delete what the Hessian's diagonal says is cheap, retrain, repeat.

    At a minimum, and as far as weights have nothing to do with each other, the loss rises by the saliency

        s_k = h_kk · w_k² / 2,        h_kk = ∂²L/∂w_k²

    when weight k becomes zero. The saliency of a larger unit is the sum over its members. The others stay as they are,
    so that retraining matters: LeCun, Denker and Solla retrain after every deletion.

    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> model.weight.data = torch.tensor([[1.0, 0.5]])
    >>> inputs = torch.tensor([[1.0, 0.0], [0.0, 4.0]])                       # the second input is larger
    >>> data = [(inputs, inputs @ model.weight.data.T)]
    >>> run = obd(model, data, torch.nn.functional.mse_loss, weights_left=1)
    >>> run.steps[0].index, run.steps[0].predicted_increase, run.steps[0].measured_increase
    ((0, 0), 0.5, 0.5)

    Args:
        model: a trained network, at a minimum of the objective. It is left as it is: the run works on a copy.
        data: batches (inputs, targets), something that can be iterated more than once.
        loss: loss(outputs, targets) → scalar, the mean over a batch.
        weights_left: where to stop. Units of several weights go while at least so many are left.
        weight_decay: λ of the objective, mean loss + λ/2 · ‖w‖², to which both increases refer.
        retrain: retrain(model, masks), called after each step to train the copy in place; what is deleted is zero again
            afterwards, and `masks.hold(model, optimizer)` keeps it so.
        granularity: what is deleted at once: single weights by default, of all parameters, biases too. Larger units go
            with their biases.
        parameters: names or globs of the parameters that may be deleted; by default all.
        exclude: parameters from which nothing is deleted.
        rounds: None: one unit a step, with a new diagonal each time. Else so many steps: after k of n rounds a fraction
            (weights_left / weights)^(k/n) is left, as in `prune`.
        method: how the diagonal is computed, see `hessian_diagonal`. "magnitude" takes h = 1 for comparison, and its
            predictions are NaN.
        accuracy: accuracy(model) → float, recorded at every step.
        progress: show how far it is, where it takes more than two seconds.

    Returns:
        a `Run`: `steps`, one record a deletion, and `model_at(weights_left)`.

    Raises:
        TypeError, ValueError: an argument that makes no sense, a diagonal with NaN, or a module that the method cannot
            handle, by its name.
    """
    damage = Damage(data, loss, method)
    care = Care(retrain, accuracy, progress)
    patient = admit(
        model,
        data,
        loss,
        weight_decay=weight_decay,
        granularity=granularity,
        parameters=parameters,
        exclude=exclude,
    )
    counts = None if rounds is None else _counts(patient, weights_left, check_step(rounds, "rounds", least=1))
    return delete_until(weights_left, patient, damage, care, "Optimal Brain Damage", counts)


class Damage:
    """Chooses by h · w² / 2, with a diagonal of the Hessian computed at the present weights."""

    def __init__(self, data: Batches, loss: Loss, method: str) -> None:
        if method != "magnitude":
            check_method(method)
        self._data, self._loss, self._method = data, loss, method

    def choose(self, patient: Patient, budget: int, at_once: bool) -> Choice:
        saliency = self._diagonal(patient) * patient.vector.square() / 2
        if bool(saliency.isnan().any()):
            raise ValueError("the Hessian's diagonal has NaN: look for NaN or infinities in the weights and the data")
        costs = patient.units.sums(saliency)
        candidates = patient.fitting(budget).nonzero()[:, 0]
        if at_once:
            sizes = patient.sizes[candidates]
            units = candidates[~keep_within_budget(costs[candidates], sizes, budget)]
            units = units[costs[units].argsort(stable=True)]
        else:
            units = candidates[costs[candidates].argmin()][None]
        gone = torch.isin(patient.units.owner, units)
        predicted = torch.nan if self._method == "magnitude" else float(costs[units].sum())
        return Choice(units, -patient.vector * gone, predicted)

    def _diagonal(self, patient: Patient) -> Tensor:
        if self._method == "magnitude":
            return torch.ones_like(patient.vector)
        places = patient.objective.places
        found = hessian_diagonal(
            patient.model,
            self._data,
            self._loss,
            self._method,  # type: ignore[arg-type]  # checked when it was given
            parameters=places.names,
            weight_decay=patient.objective.weight_decay,
        )
        return places.join(found, patient.vector.dtype)


def _counts(patient: Patient, weights_left: int, rounds: int) -> Iterator[int]:
    """How many weights are left after each round."""
    begin = patient.weights_left
    for k in range(1, rounds):
        yield round(begin * (weights_left / begin) ** (k / rounds))
    yield weights_left
