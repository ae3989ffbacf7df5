"""The loss as a function of the network's outputs: its first and second derivatives, and the latter as columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def checked_outputs(outputs: Any, examples: int) -> Tensor:
    """The outputs, if they are one tensor with a row for every example; raises ValueError if not."""
    if not isinstance(outputs, Tensor) or outputs.dim() == 0 or len(outputs) != examples:
        got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(
            f"the model must return one tensor with a row for each of the {examples} examples of a batch; it returned "
            f"{got}"
        )
    return outputs


def output_derivatives(loss: Callable[[Tensor], Tensor], outputs: Tensor) -> tuple[Tensor, Tensor]:
    """First (N, K) and second (N, K, K) derivatives of a batch's mean loss in the K outputs of each of N examples.

    The loss must be a mean over examples that do not know of each other.
    """
    flat = outputs.detach().reshape(len(outputs), -1).requires_grad_()
    value = loss(flat.reshape(outputs.shape))
    slope = torch.autograd.grad(value, flat, create_graph=True)[0]
    if not slope.requires_grad:  # a linear loss
        return slope, flat.new_zeros(*flat.shape, flat.shape[1])
    # The same output of all examples is differentiated at once.
    picks = torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device)[:, None].expand(-1, len(flat), -1)
    rows = torch.autograd.grad(slope, flat, picks, is_grads_batched=True)[0]  # (K, N, K)
    return slope.detach(), rows.transpose(0, 1)


def factor(curvature: Tensor) -> tuple[Tensor, Tensor | None]:
    """Symmetric matrices (N, K, K) as Σ_c s_c v_c v_cᵀ: columns v (C, N, K), signs s (C, N) or None where all are 1.

    By Cholesky's factors of matrices raised by as much as rounding may have taken from them; where one is indefinite
    nevertheless, by the eigenvectors of all.
    """
    rounding = torch.finfo(curvature.dtype).eps
    largest = curvature.diagonal(dim1=1, dim2=2).abs().amax(1)  # (N,)
    raise_by = rounding * (curvature.shape[1] * largest + largest.amax())
    lower, failed = torch.linalg.cholesky_ex(
        curvature + torch.diag_embed(raise_by[:, None].expand(curvature.shape[:2]))
    )
    if not bool(failed.any()):
        return lower.permute(2, 0, 1), None
    values, vectors = torch.linalg.eigh(curvature)
    signs = values.sign().T.contiguous()
    return (vectors * values.abs().sqrt()[:, None]).permute(2, 0, 1), None if bool((signs >= 0).all()) else signs
