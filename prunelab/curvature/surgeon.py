"""Optimal Brain Surgeon: delete one weight, and let all the others make up for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from prunelab.criteria.measuring import Batches, Loss
from prunelab.curvature.hessians import inverse_from_samples
from prunelab.curvature.inverse import ShrinkingInverse, positive_inverse
from prunelab.curvature.loop import Accuracy, Care, Choice, Patient, Retrain, admit, delete_until
from prunelab.curvature.objective import check_number
from prunelab.curvature.run import Run
from prunelab.granularity import Granularity
from prunelab.names import Exclude
from prunelab.schedule import check_step


@torch.inference_mode(False)  # derivatives need tensors that autograd knows
def obs(
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
    refresh: int | None = 1,
    method: Literal["exact", "samples"] = "exact",
    damping: float = 0.0,
    accuracy: Accuracy | None = None,
    progress: bool = True,
) -> Run:
    """Optimal Brain Surgeon (Hassibi & Stork 1993): delete the weight that costs least, and update all the others.

    At a minimum the loss rises by ½ δwᵀ H δw. Under the condition that weight q becomes zero the least rise, and the
    step that has it, are

        L_q = w_q² / (2 [H⁻¹]_qq)          δw = - w_q / [H⁻¹]_qq · H⁻¹ e_q

    The weight with the smallest L_q goes, the step is taken, and the loop begins again with the Hessian of what is
    left. No retraining is needed. For a unit R of several weights [H⁻¹]_qq becomes the block [H⁻¹]_RR:
    L_R = ½ w_Rᵀ [H⁻¹]_RR⁻¹ w_R.

    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> model.weight.data = torch.tensor([[2.0, 0.5]])
    >>> inputs = torch.tensor([[1.0, 1.0], [1.0, 0.0]])                # fitted exactly
    >>> data = [(inputs, inputs @ model.weight.data.T)]
    >>> run = obs(model, data, torch.nn.functional.mse_loss, weights_left=1)
    >>> run.steps[0].parameter, run.steps[0].index, run.model_at(1).weight.tolist()      # the other makes up for it
    ('weight', (0, 1), [[2.25, 0.0]])

    Args:
        model: a trained network, at a minimum of the objective. It is left as it is: the run works on a copy.
        data: batches (inputs, targets), something that can be iterated more than once.
        loss: loss(outputs, targets) → scalar, the mean over a batch.
        weights_left: where to stop. Units of several weights go while at least so many are left.
        weight_decay: λ of the objective, mean loss + λ/2 · ‖w‖², to which both increases refer: give the one that the
            network was trained with.
        retrain: retrain(model, masks), called after each deletion to train the copy in place; what is deleted is zero
            again afterwards, and `masks.hold(model, optimizer)` keeps it so.
        granularity: what is deleted at once: single weights by default, of all parameters, biases too. Larger units go
            with their biases.
        parameters: names or globs of the parameters that may be deleted or updated; by default all.
        exclude: parameters from which nothing is deleted; they are updated.
        refresh: compute the inverse Hessian anew after so many deletions, and in between take rows and columns out of
            the one there is; None: only once.
        method: "exact", the exact Hessian; where it is indefinite or singular, it is shifted so that its smallest
            eigenvalue is 1e-4, and the step says by how much. "samples": the Gauss-Newton matrix of the paper, by its
            recursion over samples, which needs damping or weight_decay.
        damping: added to the Hessian's diagonal, and not part of the objective.
        accuracy: accuracy(model) → float, recorded at every step.
        progress: show how far it is, where it takes more than two seconds.

    Returns:
        a `Run`: `steps`, one record a deletion, and `model_at(weights_left)`.

    Raises:
        TypeError, ValueError: an argument that makes no sense, or a Hessian with NaN.
    """
    surgeon = Surgeon(method, damping, refresh)
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
    return delete_until(weights_left, patient, surgeon, care, "Optimal Brain Surgeon")


class Surgeon:
    """Chooses by the inverse Hessian, and keeps it up to date."""

    def __init__(self, method: str, damping: float, refresh: int | None) -> None:
        if method not in {"exact", "samples"}:
            raise ValueError(f"method must be 'exact' or 'samples', not {method!r}")
        self._method, self._damping = method, check_number("damping", damping)
        self._refresh = None if refresh is None else check_step(refresh, "refresh", least=1)
        self._inverse: ShrinkingInverse | None = None
        self._deletions = 0  # since the inverse was computed
        self._shift = 0.0

    def choose(self, patient: Patient, budget: int, at_once: bool) -> Choice:  # noqa: ARG002  # one by one, always
        inverse = self._up_to_date(patient)
        fits = patient.fitting(budget)
        cheapest = self._cheapest_weight if patient.units.single else self._cheapest
        unit, cost = cheapest(patient, inverse, fits)
        positions = patient.units.positions(unit)
        local = self._local[positions]
        change = torch.zeros_like(patient.vector)
        change[self._here] = -inverse.remove(local, patient.vector[positions])
        self._deletions += 1
        return Choice(torch.tensor([unit], device=change.device), change, cost, self._shift)

    def _up_to_date(self, patient: Patient) -> ShrinkingInverse:
        """The inverse Hessian over the weights that are left, computed anew where it is due."""
        inverse = self._inverse
        # Rounding may have eaten up an inverse that was shrunk many times: then it is due early.
        if inverse is None or self._deletions == self._refresh or bool((inverse.diagonal <= 0).any()):
            self._here = patient.left.nonzero()[:, 0]
            self._local = torch.zeros_like(patient.left, dtype=torch.long)
            self._local[self._here] = torch.arange(len(self._here), device=self._here.device)
            matrix, self._shift = self._invert(patient)
            inverse = self._inverse = ShrinkingInverse(matrix)
            self._deletions = 0
        return inverse

    def _invert(self, patient: Patient) -> tuple[Tensor, float]:
        objective = patient.objective
        if self._method == "exact":
            return positive_inverse(objective.hessian(patient.vector, self._here), self._damping)
        damping = self._damping + objective.weight_decay
        return inverse_from_samples(objective, patient.vector, damping, self._here), 0.0

    def _cheapest_weight(self, patient: Patient, inverse: ShrinkingInverse, fits: Tensor) -> tuple[int, float]:
        """The unit with the smallest L_q, the first of equals, and L_q."""
        costs = patient.vector.new_full((patient.units.count,), torch.inf)
        owners = patient.units.owner[self._here]
        saliency = patient.vector[self._here].square() / (2 * inverse.diagonal)
        costs[owners[owners >= 0]] = saliency[owners >= 0]
        costs.masked_fill_(~fits, torch.inf)
        unit = int(costs.argmin())
        return unit, float(costs[unit])

    def _cheapest(self, patient: Patient, inverse: ShrinkingInverse, fits: Tensor) -> tuple[int, float]:
        """The same for units of several weights: L_R of each, by its block of the inverse."""
        found = []
        for unit in fits.nonzero()[:, 0].tolist():
            positions = patient.units.positions(unit)
            factor = torch.linalg.cholesky(inverse.block(self._local[positions]))
            share = torch.linalg.solve_triangular(factor, patient.vector[positions][:, None], upper=False)
            found.append((float(share.square().sum()) / 2, unit))
        cost, unit = min(found)
        return unit, cost
