"""q3, code: the proximal step of group lasso."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake, require_form, same
from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `proximal(matrix, t)`: the proximal step of group lasso for a matrix of units × members, where t is the learning
rate times the strength. Each unit gets shorter by t times the root of its number of members, or ends. The result is a
new matrix of the same shape; a unit that ends is exactly zero, and a unit that was zero stays zero, also at t = 0.
"""

STARTER = '''\
def proximal(matrix, t):
    """The proximal step of group lasso: (units, members) -> the same shape.

    t: learning rate times strength, a number from 0 on.
    """
    ...'''

SOLUTION = '''\
def proximal(matrix, t):
    """The proximal step of group lasso: (units, members) -> the same shape.

    t: learning rate times strength, a number from 0 on.
    """
    length = matrix.norm(dim=1, keepdim=True)  # (units, 1)
    shorter = (length - t * matrix.shape[1] ** 0.5).clamp(min=0)
    return matrix * (shorter / length).nan_to_num()  # 0 / 0 where a unit was zero already'''

HINTS = (
    "First find one number a unit: its length. Keep the dimension (`keepdim=True`), and it can be multiplied with the "
    "matrix later.",
    "The new length is the old one minus t times the root of the number of members, and never below zero.",
    "Multiply each row by new length / old length. Where the old length is zero that is 0 / 0: what should it be?",
)

TAKEAWAY = (
    "A unit keeps its direction and loses length, or it ends, exactly. Compare with the soft threshold: the same "
    "formula, with the length of a unit in the place of the size of a weight."
)


def _shortened(matrix: Tensor, by: float | Tensor, length: Tensor) -> Tensor:
    return matrix * (1 - by / length).clamp(min=0).nan_to_num(0, 0, 0)


def _lengths(matrix: Tensor) -> Tensor:
    return matrix.norm(dim=1, keepdim=True)


def _root(matrix: Tensor) -> float:
    return math.sqrt(matrix.shape[1])


def _expected(matrix: Tensor, t: float) -> Tensor:
    return _shortened(matrix, t * _root(matrix), _lengths(matrix))


MISTAKES = (
    Mistake(
        lambda matrix, t: F.softshrink(matrix, t),
        "This is the soft threshold of single weights: the step of L1. Here a unit is kept or ended as a whole.",
    ),
    Mistake(
        lambda matrix, t: F.softshrink(matrix, t * _root(matrix)),
        "The soft threshold is right, but you apply it to single weights. Apply it to the length of each unit.",
    ),
    Mistake(lambda matrix, t: matrix / (1 + t), "This is the step of L2: everything shrinks, and nothing ends."),
    Mistake(
        lambda matrix, t: _shortened(matrix, t, _lengths(matrix)),
        "The units get shorter by t. The root of the number of members is missing.",
    ),
    Mistake(
        lambda matrix, t: _shortened(matrix, t * matrix.shape[1], _lengths(matrix)),
        "The factor is the *root* of the number of members, not the number.",
    ),
    Mistake(
        lambda matrix, t: _shortened(matrix, t * math.sqrt(matrix.shape[0]), _lengths(matrix)),
        "The factor is the root of the number of *members*; you took the number of units.",
    ),
    Mistake(
        lambda matrix, t: (matrix * (1 - t * _root(matrix) / _lengths(matrix))).nan_to_num(0, 0, 0),
        "Units that should end have turned round and point the other way. A length stops at zero.",
    ),
    Mistake(
        lambda matrix, t: matrix * (_lengths(matrix) > t * _root(matrix)),
        "The right units end, but the others have not changed: this is a hard threshold.",
    ),
    Mistake(
        lambda matrix, t: _shortened(matrix, t * _root(matrix), matrix.norm(dim=0, keepdim=True)),
        "These are the lengths of the columns. A unit is a row.",
    ),
    Mistake(
        lambda matrix, t: _shortened(matrix, t * _root(matrix), matrix.norm()),
        "There is one length for the whole matrix; each unit has its own.",
    ),
    Mistake(
        lambda matrix, t: _shortened(matrix, t * _root(matrix), matrix.abs().sum(1, keepdim=True)),
        "The length of a unit is its Euclidean norm; you took the sum of magnitudes.",
    ),
    Mistake(
        lambda matrix, t: matrix - _expected(matrix, t),
        "This is what the step takes away. The task asks for what is left.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="proximal")


def _judge(found: Any, matrix: Tensor, t: float) -> None:
    expected = _expected(matrix, t)
    name_mistake(found, expected, MISTAKES, matrix=matrix, t=t)
    require_form(found, like=expected, per="member of each unit")
    if not torch.isfinite(found).all():
        raise Wrong("The result has NaN or infinite values. What does a unit of length zero become?")
    ended = (expected == 0).all(1)
    if found[ended].any():
        raise Wrong("A unit that ends is exactly zero; here it is only small.")
    if not same(found, expected):
        wrong = sum(not same(one, other) for one, other in zip(found, expected, strict=True))
        raise Wrong(f"{wrong} of the {len(expected)} units are not what the step makes of them.")


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(0)
    scale = torch.tensor([3.0, 0.1, 1.0, 0.5, 0.02, 2.0, 0.3])[:, None]
    matrix = scale * torch.randn(7, 5, generator=draw)
    zeroed = matrix * torch.tensor([1.0, 1, 0, 1, 1, 0, 1])[:, None]
    tries: dict[str, tuple[Tensor, float]] = {
        "7 random units of 5 members, t = 0.4": (matrix, 0.4),
        "the same units with the opposite sign": (-matrix, 0.4),
        "the same units, t = 0": (matrix, 0.0),
        "two units that are zero already": (zeroed, 0.4),
        "two units that are zero already, t = 0": (zeroed, 0.0),
        "the same units, and t so large that all end": (matrix, 100.0),
        "units of one member": (matrix[:, :1].clone(), 0.4),
        "a single unit": (matrix[:1].clone(), 0.4),
        "a matrix in double precision": (matrix.double(), 0.4),
    }
    if torch.cuda.is_available():
        tries["a matrix on the GPU"] = (matrix.cuda(), 0.4)
    return [Case(about, {"matrix": matrix, "t": t}) for about, (matrix, t) in tries.items()]


def _returning(expression: str, before: str = "pass") -> str:
    return f"def proximal(matrix, t):\n    {before}\n    n = matrix.norm(dim=1, keepdim=True)\n    return {expression}"


WRONG = (
    (_returning("torch.nn.functional.softshrink(matrix, t)"), "single weights: the step of L1"),
    (_returning("torch.nn.functional.softshrink(matrix, t * 5**0.5)"), "you apply it to single weights"),
    (_returning("matrix / (1 + t)"), "This is the step of L2"),
    (_returning("matrix * (1 - t / n).clamp(min=0)"), "The root of the number of members is missing"),
    (_returning("matrix * (1 - t * matrix.shape[1] / n).clamp(min=0)"), "not the number"),
    (_returning("matrix * (1 - t * len(matrix)**0.5 / n).clamp(min=0)"), "you took the number of units"),
    (_returning("matrix * (1 - t * matrix.shape[1]**0.5 / n)"), "have turned round"),
    (_returning("matrix * (n > t * matrix.shape[1]**0.5)"), "a hard threshold"),
    (_returning("matrix * (1 - t * 5**0.5 / matrix.norm(dim=0)).clamp(min=0)"), "lengths of the columns"),
    (_returning("matrix * (1 - t * 5**0.5 / matrix.norm()).clamp(min=0)"), "one length for the whole matrix"),
    (
        _returning("matrix * (1 - t * 5**0.5 / matrix.abs().sum(1, keepdim=True)).clamp(min=0)"),
        "you took the sum of magnitudes",
    ),
    (
        _returning("matrix - matrix * (1 - t * matrix.shape[1]**0.5 / n).clamp(min=0)"),
        "This is what the step takes away",
    ),
    (_returning("matrix * (1 - t * matrix.shape[1]**0.5 / n).clamp(min=0)"), "What does a unit of length zero become"),
    (
        _returning("matrix * (1 - t * matrix.shape[1]**0.5 / (n + 1e-12)).clamp(min=1e-6)"),
        "here it is only small",
    ),
    (
        _returning("matrix * (1 - 2 * t * matrix.shape[1]**0.5 / (n + 1e-12)).clamp(min=0)"),
        r"\d of the 7 units are not",
    ),
    (_returning("(1 - t * matrix.shape[1]**0.5 / n).clamp(min=0)"), r"shape \(7, 1\); with one value for each member"),
    (
        _returning("(matrix * (1 - t * matrix.shape[1]**0.5 / n).clamp(min=0)).double()"),
        "float64; it should be float32",
    ),
    (_returning("(matrix * (1 - t * matrix.shape[1]**0.5 / n).clamp(min=0)).tolist()"), "returns the list"),
    (
        _returning("matrix.mul_((1 - t * matrix.shape[1]**0.5 / n).clamp(min=0))"),
        "modified its input `matrix` in place",
    ),
    (_returning("matrix * n.reshape(5, 1)"), "raised RuntimeError"),
    ("def proximal(matrix, t):\n    shorter = matrix - t", "Is a `return` missing"),
    ("def proximal(matrix):\n    return matrix", r"yours takes `\(matrix\)`"),
    ("proximal = torch.ones(7, 5)", "needs the function itself"),
)

QUESTION = Question(
    name="q3",
    kind="code",
    title="Shorter, or gone",
    task=TASK,
    answer="proximal",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
