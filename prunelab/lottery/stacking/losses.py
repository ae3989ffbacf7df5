"""The loss of each model of a stack, and its slope in the outputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


Slopes = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def slopes_of(loss: Loss, targets: Tensor) -> Slopes:
    """A function (outputs, targets) → the mean loss of each model over its own batch, (B,), and ∂loss/∂outputs.

    Cross-entropy with class numbers and the mean squared error are computed for all models at once, any other loss one
    model at a time. What the function takes has no graph: outputs (B, N, ...) and targets (B, N, ...).

    Args:
        loss: loss(outputs, targets) → scalar. The function raises ValueError for one that is no scalar.
        targets: (n, ...) of all examples: what they are decides whether cross-entropy is the plain one.
    """

    def slopes(outputs: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        if classes and outputs.dim() == 3:
            return _cross_entropy(outputs, wanted)
        if loss is F.mse_loss and outputs.shape == wanted.shape and outputs.dtype == wanted.dtype:
            return _squares(outputs, wanted)
        return _one_by_one(loss, outputs, wanted)

    # A negative class is one to ignore (-100), or a mistake: torch's own function knows.
    numbers = targets.dim() == 1 and targets.dtype == torch.int64
    classes = loss is F.cross_entropy and numbers and int(targets.min()) >= 0
    return slopes


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
