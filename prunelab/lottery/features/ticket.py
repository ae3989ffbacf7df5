"""The feature lottery ticket: the input coordinates that a feature matrix says matter."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prunelab.selection import keep_largest

THRESHOLD = 0.05


def feature_ticket(importance: Tensor, keep: float | None = None, threshold: float | None = None) -> Tensor:
    """Which input coordinates stay: those of the largest importance, the diagonal of a feature matrix.

    With `keep`, a fraction, exactly round(keep · d) coordinates stay, and of equals the first go. With `threshold` the
    importance is scaled to 0 … 1, (F − min) / (max − min), and coordinates strictly above it stay; 0.05 is what the
    code of Radhakrishnan et al. 2022 takes, and the default where neither is given.

    >>> feature_ticket(torch.tensor([0.0, 9.0, 0.1, 4.0])), feature_ticket(torch.tensor([2.0, 2.0, 2.0, 1.0]), keep=0.5)
    (tensor([False,  True, False,  True]), tensor([False,  True,  True, False]))

    Args:
        importance: finite floats of any shape (such as that of an image), one a coordinate.
        keep: the fraction of the coordinates to keep, from 0 to 1.
        threshold: from 0 to 1.

    Returns:
        bool, of the shape of `importance`, True = kept.

    Raises TypeError or ValueError for a bad argument, and for a threshold where all coordinates are equally important.
    """
    if not isinstance(importance, Tensor) or not importance.is_floating_point():
        raise TypeError("importance must be a tensor of floats, such as RecursiveFeatureMachine.importance")
    if not importance.numel() or not importance.isfinite().all():
        raise ValueError("importance is empty, or holds NaN or infinity; there must be a finite number a coordinate")
    if keep is not None and threshold is not None:
        raise ValueError(
            "keep= says how many coordinates stay, threshold= how important they must be; give one of them"
        )
    if keep is not None:
        remove = importance.numel() - round(_fraction("keep", keep) * importance.numel())
        return keep_largest([importance], remove)[0].reshape(importance.shape)
    limit = _fraction("threshold", THRESHOLD if threshold is None else threshold)
    values = importance.detach().to(torch.promote_types(importance.dtype, torch.float32))
    low, high = values.min(), values.max()
    if low == high:
        raise ValueError("all coordinates are equally important, so no threshold parts them; give keep=")
    return (values - low) / (high - low) > limit


def kept_only(inputs: Tensor, ticket: Tensor) -> Tensor:
    """The kept coordinates of every input: (n, ...) and a bool ticket of the shape (...) or (d,) → (n, kept).

    Raises ValueError where the ticket has not one entry a coordinate.
    """
    flat = inputs.flatten(1)
    if ticket.dtype != torch.bool or ticket.numel() != flat.shape[1]:
        raise ValueError(
            f"a ticket of {ticket.dtype} and {ticket.numel()} entries for inputs of {flat.shape[1]} coordinates; it "
            "needs a bool for each"
        )
    return flat[:, ticket.flatten().to(flat.device)]


def _fraction(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise ValueError(f"{name}={value!r}: a fraction, from 0 to 1")
    return float(value)
