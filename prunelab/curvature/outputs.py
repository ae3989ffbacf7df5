"""The loss as a function of the network's outputs: its first and second derivatives, and the latter as columns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunelab.criteria.measuring import Loss, scalar


def checked_outputs(outputs: Any, examples: int) -> Tensor:
    """The outputs, if they are one tensor with a row for every example; raises ValueError if not."""
    if not isinstance(outputs, Tensor) or outputs.dim() == 0 or len(outputs) != examples:
        got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(
            f"the model must return one tensor with a row for each of the {examples} examples of a batch; it returned "
            f"{got}"
        )
    return outputs


def output_columns(loss: Loss, outputs: Tensor, labels: Any) -> tuple[Tensor, Tensor | None]:
    """The second derivatives of a batch's mean loss in the outputs as `factor` gives them, scaled for the mean."""
    if _is_cross_entropy(loss, outputs, labels):
        return cross_entropy_columns(outputs.detach()), None
    return factor(output_derivatives(loss, outputs, labels)[1])


def output_derivatives(loss: Loss, outputs: Tensor, labels: Any) -> tuple[Tensor, Tensor]:
    """First (N, K) and second (N, K, K) derivatives of a batch's mean loss in the K outputs of each of N examples.

    The loss must be a mean over examples that do not know of each other.
    """
    flat = outputs.detach().reshape(len(outputs), -1).requires_grad_()
    slope = torch.autograd.grad(scalar(loss(flat.reshape(outputs.shape), labels)), flat, create_graph=True)[0]
    if not slope.requires_grad:  # a linear loss
        return slope, flat.new_zeros(*flat.shape, flat.shape[1])
    # The same output of all examples is differentiated at once.
    picks = torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device)[:, None].expand(-1, len(flat), -1)
    rows = torch.autograd.grad(slope, flat, picks, is_grads_batched=True)[0]  # (K, N, K)
    return slope.detach(), rows.transpose(0, 1)


def output_slope(loss: Loss, outputs: Tensor, labels: Any) -> Tensor:
    """First derivatives of a batch's mean loss in the outputs, of their shape."""
    leaf = outputs.detach().requires_grad_()
    return torch.autograd.grad(scalar(loss(leaf, labels)), leaf)[0]


def factor(curvature: Tensor) -> tuple[Tensor, Tensor | None]:
    """Symmetric matrices (N, K, K) as Σ_c s_c v_c v_cᵀ: columns v (C, N, K), signs s (C, N) or None where all are 1.

    By Cholesky's factors; where a matrix is singular, of all raised by as much as rounding may have taken from them;
    where one is indefinite even so, by eigenvectors.
    """
    lower, failed = torch.linalg.cholesky_ex(curvature)
    if not bool(failed.any()):
        return lower.permute(2, 0, 1), None
    largest = curvature.diagonal(dim1=1, dim2=2).abs().amax(1)  # (N,)
    raise_by = torch.finfo(curvature.dtype).eps * (curvature.shape[1] * largest + largest.amax())
    lower, failed = torch.linalg.cholesky_ex(
        curvature + torch.diag_embed(raise_by[:, None].expand(curvature.shape[:2]))
    )
    if not bool(failed.any()):
        columns = lower.permute(2, 0, 1)
        # One that is nothing but what was raised, as the last of a cross-entropy, is not worth its way back.
        worth = (columns.square().sum(2) > 4 * curvature.shape[1] * raise_by).any(1)
        return columns[worth], None
    values, vectors = torch.linalg.eigh(curvature)
    signs = values.sign().T.contiguous()
    return (vectors * values.abs().sqrt()[:, None]).permute(2, 0, 1), None if bool((signs >= 0).all()) else signs


def cross_entropy_columns(logits: Tensor) -> Tensor:
    """The factor of the mean cross-entropy's second derivatives, (diag(p) - p pᵀ) / N: columns (K - 1, N, K).

    Cholesky's, in closed form: with the tails q_j = Σ_{i>j} p_i and t_j = q_j + p_j, column j is √(p_j q_j / t_j) at j,
    and -p_i · √(p_j / (q_j t_j)) below. No difference of nearly equal numbers occurs, however sure the network is.
    """
    p = logits.softmax(1)  # (N, K)
    tiny = torch.finfo(p.dtype).tiny  # what is smaller counts as nothing, and is not divided by
    t = p.flip(1).cumsum(1).flip(1)
    root = F.pad(t[:, 1:], (0, 1)).clamp_min_(tiny).sqrt_()  # √q
    share = (p / t.clamp_min(tiny)).sqrt_().div_(len(p) ** 0.5)
    columns = (share / root).neg_()[:, :, None] * p[:, None]  # (N, K, K): column, entry
    columns.triu_(1).diagonal(dim1=1, dim2=2).copy_(share * root)
    return columns[:, :-1].transpose(0, 1).contiguous()


def _is_cross_entropy(loss: Loss, outputs: Tensor, labels: Any) -> bool:
    """Whether the loss is the plain mean cross-entropy over classes, which has a closed form."""
    plain = loss is F.cross_entropy or (
        type(loss) is nn.CrossEntropyLoss
        and loss.weight is None
        and loss.reduction == "mean"  # label smoothing adds what is linear in the logits
    )
    classes = isinstance(labels, Tensor) and labels.dtype == torch.int64 and labels.dim() == 1 and outputs.dim() == 2
    return plain and classes and (not len(labels) or int(labels.min()) >= 0)  # others may be left out
