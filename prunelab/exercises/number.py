"""A learner's result that should be one number."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["read_number"]


def read_number(found: Any, name: str) -> float:
    """What the function `name` returned, as a float, also from a tensor with one value; Wrong for anything else."""
    try:
        if isinstance(found, bool | str | bytes) or (isinstance(found, Tensor) and found.dim() > 0):
            raise TypeError
        return float(found.detach() if isinstance(found, Tensor) else found)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise Wrong(f"`{name}` returns {describe(found)}; it should return one number.") from None
