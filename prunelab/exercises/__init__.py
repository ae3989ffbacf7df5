"""Exercises that check themselves: one module a chapter, each with its questions q1, q2, ...

>>> from prunelab.exercises import granularity as ex
>>> print(ex.q2.check(...))
NOT ATTEMPTED  ex.q2: The norm of a filter
The answer is still the stub. Replace the `...` and run it again.

A question has `check(answer)`, `hint()` and `solution()`; they return objects that show themselves as text or HTML.
Each question is a module that exports STARTER, SOLUTION, WRONG (answers to reject, each with the message it must
get) and QUESTION; its chapter lists it in `__all__`, and `tests/exercises/test_questions.py` proves all of it.

Importing this package loads neither torch nor numpy; a chapter is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunelab.exercises import (
        a_cnn_to_a_latency_budget,
        a_pretrained_transformer,
        criteria,
        evaluation,
        granularity,
        lottery_tickets,
        optimal_brain_damage,
        optimal_brain_surgeon,
        regularisation,
        scheduling,
        structured_vs_unstructured,
        tickets_as_features,
        what_pruning_is,
    )
    from prunelab.exercises.core import Question

__all__ = [
    "CHAPTERS",
    "a_cnn_to_a_latency_budget",
    "a_pretrained_transformer",
    "criteria",
    "evaluation",
    "granularity",
    "lottery_tickets",
    "optimal_brain_damage",
    "optimal_brain_surgeon",
    "questions",
    "regularisation",
    "scheduling",
    "structured_vs_unstructured",
    "tickets_as_features",
    "what_pruning_is",
]

CHAPTERS = (
    "what_pruning_is",
    "structured_vs_unstructured",
    "regularisation",
    "granularity",
    "scheduling",
    "criteria",
    "evaluation",
    "optimal_brain_damage",
    "optimal_brain_surgeon",
    "lottery_tickets",
    "tickets_as_features",
    "a_cnn_to_a_latency_budget",
    "a_pretrained_transformer",
)  # in the order of the book


def questions(chapter: str | None = None) -> Iterator[Question]:
    """Every question of a chapter, or of all chapters, in the order of the book."""
    if chapter is not None and chapter not in CHAPTERS:
        raise ValueError(f"there are no exercises for the chapter {chapter!r}; there are for {', '.join(CHAPTERS)}")
    for name in CHAPTERS if chapter is None else [chapter]:
        module = importlib.import_module(f"prunelab.exercises.{name}")
        for exported in module.__all__:
            yield getattr(module, exported)


def __getattr__(name: str) -> ModuleType:
    if name in CHAPTERS:
        return importlib.import_module(f"prunelab.exercises.{name}")
    raise AttributeError(
        f"module 'prunelab.exercises' has no attribute {name!r}; its chapters are {', '.join(CHAPTERS)}"
    )


def __dir__() -> list[str]:
    return sorted(__all__)
