"""The loss of each model of a stack, and its slope in the outputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


def losses_and_slopes(loss: Loss, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The mean loss of each model over its own batch, (B,), and ∂loss/∂outputs, of the shape of the outputs.

    Args:
        loss: loss(outputs, targets) → scalar. Cross-entropy with class numbers and the mean squared error are computed
            for all models at once, any other one model at a time.
        outputs: (B, N, ...), without a graph.
        targets: (B, N, ...).

    Raises ValueError for a loss that is no scalar.
    """
    if loss is F.cross_entropy and outputs.dim() == 3 and targets.dim() == 2 and not targets.is_floating_point():
        return _cross_entropy(outputs, targets)
    if loss is F.mse_loss and outputs.shape == targets.shape and outputs.dtype == targets.dtype:
        return _squares(outputs, targets)
    return _one_by_one(loss, outputs, targets)


def _cross_entropy(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Of logits (B, N, classes) and class numbers (B, N): slope (softmax - one-hot) / N."""
    logs = torch.log_softmax(outputs, 2)
    own = targets.unsqueeze(2)  # (B, N, 1)
    losses = logs.gather(2, own).mean((1, 2)).neg_()
    slopes = logs.exp_().scatter_add_(2, own, torch.full_like(own, -1, dtype=outputs.dtype))
    return losses, slopes.div_(outputs.shape[1])


def _squares(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    differences = outputs - targets
    losses = differences.square().flatten(1).mean(1)
    return losses, differences.mul_(2 / max(1, outputs[0].numel()))


def _one_by_one(loss: Loss, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        leaf = outputs.detach().requires_grad_()
        losses = torch.stack([loss(own, wanted) for own, wanted in zip(leaf, targets, strict=True)])
        if losses.dim() != 1:
            raise ValueError(f"loss must give a scalar, the mean over a batch, not {tuple(losses.shape[1:])} numbers")
        (slopes,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), slopes
