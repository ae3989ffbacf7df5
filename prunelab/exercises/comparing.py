"""Compare a learner's tensor with what it should be, and name the misconception behind a difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["Mistake", "name_mistake", "require_form", "same"]


@dataclass(frozen=True)
class Mistake:
    """A misconception: the answer it leads to, as a function of the arguments, and what to tell whoever has it."""

    answer: Callable[..., Any]
    message: str


def same(found: Any, expected: Any) -> bool:
    """Equal up to the order of summation; shapes and devices must agree, kinds of number need not."""
    if not isinstance(found, Tensor) or not isinstance(expected, Tensor) or found.shape != expected.shape:
        return False
    if found.is_complex() or found.device != expected.device:
        return False
    expected = expected.double()
    relative = 1e-12 if found.dtype == torch.float64 else 1e-5
    absolute = relative * float(expected.abs().max()) if expected.numel() else 0.0
    return torch.allclose(found.detach().double(), expected, rtol=relative, atol=absolute)


def name_mistake(found: Any, expected: Tensor, mistakes: Sequence[Mistake], **arguments: Any) -> None:
    """Raise `Wrong` with the message of the first misconception that leads to just this answer.

    One that leads to the expected answer on these arguments (no ties, nothing to round) explains nothing here.
    """
    for mistake in mistakes:
        answer = mistake.answer(**arguments)
        if same(found, answer) and not same(answer, expected):
            raise Wrong(mistake.message)


def require_form(found: Any, like: Tensor, per: str) -> None:
    """Raise `Wrong` unless `found` is a tensor of the shape, dtype and device of `like`. `per`: what a value is for."""
    if not isinstance(found, Tensor):
        raise Wrong(f"The function returns {describe(found)}; it should return a tensor.")
    if found.shape != like.shape:
        raise Wrong(
            f"The result has the shape {tuple(found.shape)}; with one value for each {per} it is {tuple(like.shape)}."
        )
    if found.dtype != like.dtype:
        raise Wrong(f"The result is {_name(found.dtype)}; it should be {_name(like.dtype)}.")
    if found.device != like.device:
        raise Wrong(f"The result is on {found.device}, but the input is on {like.device}. Create new tensors there.")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
