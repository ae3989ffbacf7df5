"""The second derivatives of a loss, exactly or nearly, and their inverse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from prunelab.criteria.measuring import Batches, Loss
from prunelab.curvature.inverse import inverse_of_outer_products, positive_inverse
from prunelab.curvature.matrices import Exact, Factored, check_size
from prunelab.curvature.objective import Objective, check_number, running
from prunelab.curvature.outputs import checked_outputs, factor, output_derivatives
from prunelab.trace import map_tensors

Parameters = Iterable[str] | None
# Examples whose derivatives are held at once.
EXAMPLES = 64


@torch.inference_mode(False)  # derivatives need tensors that autograd knows
def hessian(
    model: nn.Module, data: Batches, loss: Loss, parameters: Parameters = None, weight_decay: float = 0.0
) -> Tensor:
    """The exact Hessian of the mean loss + λ/2 · ‖w‖², (n, n), in the model's dtype, float32 at least.

    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> inputs = torch.tensor([[1.0, 1.0], [1.0, -3.0]])
    >>> hessian(model, [(inputs, torch.zeros(2, 1))], torch.nn.functional.mse_loss)      # 2 · mean of x xᵀ
    tensor([[ 2., -2.],
            [-2., 10.]])

    Args:
        model: any module; it is left as it is.
        data: batches (inputs, targets), something that can be iterated more than once.
        loss: loss(outputs, targets) → scalar, the mean over a batch.
        parameters: names or globs; by default all parameters, biases too, in the model's order. The rows of the matrix
            are theirs, each flattened.
        weight_decay: λ.

    Raises:
        TypeError, ValueError: an argument that makes no sense, or more parameters than a matrix can be built for.
    """
    found = exact(model, data, loss, parameters, weight_decay)
    return found.matrix().to(found.objective.dtype)


@torch.inference_mode(False)  # derivatives need tensors that autograd knows
def inverse_hessian(
    model: nn.Module,
    data: Batches,
    loss: Loss,
    damping: float = 0.0,
    method: Literal["exact", "samples"] = "exact",
    *,
    parameters: Parameters = None,
    weight_decay: float = 0.0,
) -> Tensor:
    """The inverse of the Hessian of the mean loss + λ/2 · ‖w‖², plus `damping` on its diagonal, (n, n).

    Args:
        model, data, loss, parameters, weight_decay: as for `hessian`.
        damping: added to the diagonal.
        method: "exact" inverts the exact Hessian; where it is indefinite or singular, it is shifted so that its
            smallest eigenvalue is 1e-4. "samples" is the recursion of Hassibi & Stork 1993 over the outer products that
            make up the Gauss-Newton matrix, which is never built; it starts from damping + weight_decay, which must be
            above 0 (they use 1e-8 to 1e-4).
    """
    start = check_number("damping", damping) + check_number("weight_decay", weight_decay)
    objective = Objective(model, data, loss, parameters, weight_decay)
    check_size(objective.places.size)
    if method == "exact":
        inverse = positive_inverse(objective.hessian(objective.start), damping)[0]
    elif method == "samples":
        inverse = inverse_from_samples(objective, objective.start, start)
    else:
        raise ValueError(f"method must be 'exact' or 'samples', not {method!r}")
    return inverse.to(objective.dtype)


@torch.inference_mode(False)  # derivatives need tensors that autograd knows
def exact(
    model: nn.Module, data: Batches, loss: Loss, parameters: Parameters = None, weight_decay: float = 0.0
) -> Exact:
    """The exact Hessian as a `Curvature`: `H @ v` without building it, blocks, inverse columns. As for `hessian`."""
    return Exact(Objective(model, data, loss, parameters, weight_decay))


@torch.inference_mode(False)  # derivatives need tensors that autograd knows
def gauss_newton(
    model: nn.Module, data: Batches, loss: Loss, parameters: Parameters = None, weight_decay: float = 0.0
) -> Factored:
    """The Gauss-Newton matrix, mean of Jᵀ S J + λ I: the Hessian without the curvature of the network itself.

    J are the derivatives of an example's outputs, S = ∂²L/∂outputs² of its loss. It is never indefinite where the loss
    is convex in the outputs. It is the Hessian where the loss does not change with the outputs any more (a perfect fit)
    or the outputs are linear in the parameters; in a piecewise linear network it has the Hessian's diagonal. For the
    squared error ½ ‖t - o‖² it is the mean of X Xᵀ of Hassibi & Stork 1993; for the cross-entropy, and wherever the
    loss is the negative log-likelihood of a distribution in its natural parameters, it is the Fisher information.

    Takes memory for one row of n numbers for each output of each example. As for `hessian`; raises ValueError where the
    loss is not convex in the outputs, and for outputs that are no single tensor (examples, ...).
    """
    objective = Objective(model, data, loss, parameters, weight_decay)
    rows = torch.cat(list(gauss_newton_rows(objective, objective.start)))
    return Factored(objective.places, rows, objective.weight_decay)


@torch.inference_mode(False)  # derivatives need tensors that autograd knows
def empirical_fisher(
    model: nn.Module, data: Batches, loss: Loss, parameters: Parameters = None, weight_decay: float = 0.0
) -> Factored:
    """The empirical Fisher matrix, mean of g gᵀ + λ I over the gradients g of single examples.

    What WoodFisher prunes with (Singh & Alistarh 2020). It is no good stand-in for the Hessian where the network fits
    its data: with the gradients it goes to zero. As for `gauss_newton`.
    """
    objective = Objective(model, data, loss, parameters, weight_decay)
    rows = torch.cat(list(_gradient_rows(objective, objective.start)))
    return Factored(objective.places, rows, objective.weight_decay)


def inverse_from_samples(objective: Objective, point: Tensor, damping: float, kept: Tensor | None = None) -> Tensor:
    """The inverse of the Gauss-Newton matrix + damping · I, by the recursion over its outer products.

    With `kept`, positions (k,), that of its rows and columns there, (k, k).
    """
    if not damping > 0:
        raise ValueError(
            "the recursion over samples starts from damping · I: give damping above 0 (Hassibi and Stork use 1e-8 to "
            "1e-4), or a weight_decay"
        )
    rows = gauss_newton_rows(objective, point)
    chosen = rows if kept is None else (several[:, kept] for several in rows)
    return inverse_of_outer_products(chosen, len(point) if kept is None else len(kept), damping)


def gauss_newton_rows(objective: Objective, point: Tensor) -> Iterator[Tensor]:
    """Matrices (any number, n) whose rows x add up, as Σ x xᵀ, to the Gauss-Newton matrix without weight decay."""
    for jacobian, outputs, labels, share in _jacobians(objective, point):
        curvature = output_derivatives(objective.loss, outputs, labels)[1]  # (N, K, K)
        columns, signs = factor(curvature)  # (C, N, K), (C, N)
        if signs is not None:
            below = columns.square().sum(2) * (signs < 0)
            if float(below.amax()) > 1e-6 * float(columns.square().sum(2).amax()):
                raise ValueError(
                    "the loss is not convex in the outputs, so its Gauss-Newton matrix is indefinite: let the model "
                    "end before, or in, the function that bends it (for ½ ‖t - sigmoid(o)‖² put the sigmoid into the "
                    "model)"
                )
            columns = columns * (signs > 0)[..., None]
        rows = columns.transpose(0, 1) @ jacobian  # (N, C, n)
        yield share**0.5 * rows.flatten(0, 1)


def _gradient_rows(objective: Objective, point: Tensor) -> Iterator[Tensor]:
    """Matrices (examples, n) of the gradients of single examples, over the root of their number."""
    for jacobian, outputs, labels, share in _jacobians(objective, point):
        slope = output_derivatives(objective.loss, outputs, labels)[0]  # (N, K), of the batch's mean
        examples = len(outputs)
        yield (share * examples) ** 0.5 * (slope[:, None] @ jacobian)[:, 0]


def _jacobians(objective: Objective, point: Tensor) -> Iterator[tuple[Tensor, Tensor, Any, float]]:
    """Of each batch: derivatives of every output of every example (N, K, n), outputs (N, ...), targets, and the batch's
    share of all examples."""
    total = sum(count for *_, count in objective.runs(point))
    with running(objective.model):
        for arguments, labels, named, count in objective.runs(point):
            outputs = checked_outputs(objective.outputs(named, arguments), count)
            yield _jacobian(objective, point, arguments), outputs.detach(), labels, count / total


def _jacobian(objective: Objective, point: Tensor, arguments: tuple[Any, Mapping[str, Any]]) -> Tensor:
    tensors: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    map_tensors(note, arguments)

    def outputs_of(vector: Tensor, *example: Tensor) -> Tensor:
        parts = iter(example)
        one = map_tensors(lambda _: next(parts)[None], arguments)
        return objective.outputs(objective.named(vector), one).reshape(-1)

    dims = (None, *([0] * len(tensors)))
    return vmap(jacrev(outputs_of), in_dims=dims, chunk_size=EXAMPLES)(point.detach(), *tensors)
