"""q3, code: the proximal step of group lasso, for units of several sizes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake, require_form, same
from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `proximal(matrix, sizes, t)`: the proximal step of group lasso for units of *different* sizes. They are the rows
of a matrix (units, members), short ones filled up with zeros that are no weights of the unit: `sizes`, int (units,),
says how many members each one really has. t is the learning rate times the strength. Each unit gets shorter by t times
the root of its own size, or ends. The result is a new matrix of the same shape; a unit that ends is exactly zero, and a
unit that was zero stays zero, also at t = 0.
"""

STARTER = '''\
def proximal(matrix, sizes, t):
    """The proximal step of group lasso: (units, members) -> the same shape.

    sizes: int (units,); t: learning rate times strength, from 0 on.
    """
    ...'''

SOLUTION = '''\
def proximal(matrix, sizes, t):
    """The proximal step of group lasso: (units, members) -> the same shape.

    sizes: int (units,); t: learning rate times strength, from 0 on.
    """
    length = matrix.norm(dim=1)  # (units,): zeros add nothing to it
    shorter = (length - t * sizes**0.5).clamp(min=0)
    factor = (shorter / length).nan_to_num()  # 0 / 0 where a unit was zero already
    return matrix * factor[:, None]'''

HINTS = (
    "First find one number a unit: its length. Do the zeros at the end of a short unit change it? Do they change the "
    "unit's size?",
    "The new length is the old one minus t times the root of the unit's size, and never below zero. Lengths and sizes "
    "are both of the shape (units,), so this is one line.",
    "Multiply each row by new length / old length: `factor[:, None]` makes a column of them. Where the old length is "
    "zero that is 0 / 0: what should it be?",
)

TAKEAWAY = (
    "A unit keeps its direction and loses length, or it ends, exactly. Compare with the soft threshold: the same "
    "formula, with the length of a unit in the place of the size of a weight. And the size is that of the unit, not "
    "that of the matrix it happens to lie in."
)


def _shortened(matrix: Tensor, by: float | Tensor, length: Tensor) -> Tensor:
    return matrix * (1 - by / length).clamp(min=0).nan_to_num(0, 0, 0)


def _lengths(matrix: Tensor) -> Tensor:
    return matrix.norm(dim=1, keepdim=True)


def _roots(matrix: Tensor, sizes: Tensor) -> Tensor:
    """The root of the size of each unit, (units, 1)."""
    return sizes.to(matrix.dtype).sqrt()[:, None]


def _expected(matrix: Tensor, sizes: Tensor, t: float) -> Tensor:
    return _shortened(matrix, t * _roots(matrix, sizes), _lengths(matrix))


def _soft(matrix: Tensor, by: float | Tensor) -> Tensor:
    return matrix.sign() * (matrix.abs() - by).clamp(min=0)


MISTAKES = (
    Mistake(
        lambda matrix, t, **_: _shortened(matrix, t * math.sqrt(matrix.shape[1]), _lengths(matrix)),
        "Every unit pays for as many members as the matrix has columns. The zeros at the end of a short unit are none "
        "of its members; its size is in `sizes`.",
    ),
    Mistake(
        lambda matrix, t, **_: _shortened(matrix, t * (matrix != 0).sum(1, keepdim=True).sqrt(), _lengths(matrix)),
        "You counted the members that are not zero. A weight that is zero is still a member; the sizes are in `sizes`.",
    ),
    Mistake(
        lambda matrix, t, **_: _soft(matrix, t),
        "This is the soft threshold of single weights: the step of L1. Here a unit is kept or ended as a whole.",
    ),
    Mistake(
        lambda matrix, sizes, t: _soft(matrix, t * _roots(matrix, sizes)),
        "The soft threshold is right, but you apply it to single weights. Apply it to the length of each unit.",
    ),
    Mistake(lambda matrix, t, **_: matrix / (1 + t), "This is the step of L2: everything shrinks, and nothing ends."),
    Mistake(
        lambda matrix, t, **_: _shortened(matrix, t, _lengths(matrix)),
        "The units get shorter by t. The root of the number of members is missing.",
    ),
    Mistake(
        lambda matrix, sizes, t: _shortened(matrix, t * _roots(matrix, sizes) ** 2, _lengths(matrix)),
        "The factor is the *root* of the number of members, not the number.",
    ),
    Mistake(
        lambda matrix, t, **_: _shortened(matrix, t * math.sqrt(matrix.shape[0]), _lengths(matrix)),
        "The factor is the root of the number of *members*; you took the number of units.",
    ),
    Mistake(
        lambda matrix, sizes, t: (matrix * (1 - t * _roots(matrix, sizes) / _lengths(matrix))).nan_to_num(0, 0, 0),
        "Units that should end have turned round and point the other way. A length stops at zero.",
    ),
    Mistake(
        lambda matrix, sizes, t: matrix * (_lengths(matrix) > t * _roots(matrix, sizes)),
        "The right units end, but the others have not changed: this is a hard threshold.",
    ),
    Mistake(
        lambda matrix, sizes, t: _shortened(matrix, t * _roots(matrix, sizes), matrix.norm(dim=0, keepdim=True)),
        "These are the lengths of the columns. A unit is a row.",
    ),
    Mistake(
        lambda matrix, t, **_: _shortened(matrix, t * math.sqrt(matrix.shape[0]), matrix.norm(dim=0, keepdim=True)),
        "These are the lengths of the columns, and the number of rows. A unit is a row, and its size is in `sizes`.",
    ),
    Mistake(
        lambda matrix, sizes, t: _shortened(matrix, t * _roots(matrix, sizes), matrix.norm()),
        "There is one length for the whole matrix; each unit has its own.",
    ),
    Mistake(
        lambda matrix, sizes, t: _shortened(matrix, t * _roots(matrix, sizes), matrix.abs().sum(1, keepdim=True)),
        "The length of a unit is its Euclidean norm; you took the sum of magnitudes.",
    ),
    Mistake(
        lambda matrix, sizes, t: matrix - _expected(matrix, sizes, t),
        "This is what the step takes away. The task asks for what is left.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="proximal")


def _judge(found: Any, matrix: Tensor, sizes: Tensor, t: float) -> None:
    expected = _expected(matrix, sizes, t)
    name_mistake(found, expected, MISTAKES, matrix=matrix, sizes=sizes, t=t)
    require_form(found, like=expected, per="member of each unit")
    if not torch.isfinite(found).all():
        raise Wrong("The result has NaN or infinite values. What does a unit of length zero become?")
    ended = (expected == 0).all(1)
    if found[ended].any():
        only_small = float(found[ended].abs().max()) < 1e-3
        raise Wrong(
            "A unit that ends is exactly zero; here it is only small."
            if only_small
            else "A unit that should end is still there."
        )
    found, expected = found.float(), expected.float()  # the root of an int tensor is float32, whatever the matrix is
    if same(found, expected):
        return
    if torch.allclose(found, expected, rtol=1e-3, atol=0):
        raise Wrong(
            "Every unit is a little off. An ε added to every length changes every unit; only a length of zero needs "
            "care."
        )
    wrong = sum(not same(one, other) for one, other in zip(found, expected, strict=True))
    raise Wrong(f"{wrong} of the {len(expected)} units are not what the step makes of them.")


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(0)
    scale = torch.tensor([3.0, 0.1, 1.0, 0.5, 0.02, 2.0, 0.85])[:, None]
    sizes = torch.tensor([5, 3, 5, 2, 4, 3, 1])
    padded = scale * torch.randn(7, 5, generator=draw) * (torch.arange(5) < sizes[:, None])
    padded[0, 1] = 0  # a weight of the unit that is zero
    zeroed = padded * torch.tensor([1.0, 1, 0, 1, 1, 0, 1])[:, None]
    alike = torch.full((7,), 5)
    full = scale * torch.randn(7, 5, generator=draw)
    tries: dict[str, tuple[Tensor, Tensor, float]] = {
        "7 units of 1 to 5 members, t = 0.4": (padded, sizes, 0.4),
        "the same units with the opposite sign": (-padded, sizes, 0.4),
        "the same units, t = 0": (padded, sizes, 0.0),
        "two units that are zero already": (zeroed, sizes, 0.4),
        "two units that are zero already, t = 0": (zeroed, sizes, 0.0),
        "the same units, and t so large that all end": (padded, sizes, 100.0),
        "units of equal size": (full, alike, 0.4),
        "units of one member": (full[:, :1].clone(), torch.ones(7, dtype=torch.int64), 0.4),
        "a single unit": (padded[:1].clone(), sizes[:1].clone(), 0.4),
        "a matrix in double precision": (padded.double(), sizes, 0.4),
    }
    if torch.cuda.is_available():
        tries["a matrix on the GPU"] = (padded.cuda(), sizes.cuda(), 0.4)
    return [Case(about, {"matrix": matrix, "sizes": sizes, "t": t}) for about, (matrix, sizes, t) in tries.items()]


def _returning(expression: str, root: str = "sizes[:, None] ** 0.5") -> str:
    return (
        "def proximal(matrix, sizes, t):\n"
        f"    by = t * {root}\n"
        "    n = matrix.norm(dim=1, keepdim=True)\n"
        f"    return {expression}"
    )


_STEP = "matrix * (1 - by / n.clamp(min=1e-30)).clamp(min=0)"

WRONG = (
    (_returning(_STEP, root="matrix.shape[1] ** 0.5"), "as many members as the matrix has columns"),
    (_returning(_STEP, root="(matrix != 0).sum(1, keepdim=True) ** 0.5"), "the members that are not zero"),
    (_returning("torch.nn.functional.softshrink(matrix, t)"), "single weights: the step of L1"),
    (_returning("matrix.sign() * (matrix.abs() - by).relu()"), "you apply it to single weights"),
    (_returning("matrix / (1 + t)"), "This is the step of L2"),
    (_returning(_STEP, root="1"), "The root of the number of members is missing"),
    (_returning(_STEP, root="sizes[:, None]"), "not the number"),
    (_returning(_STEP, root="len(matrix) ** 0.5"), "you took the number of units"),
    (_returning("matrix * (1 - by / n)"), "have turned round"),
    (_returning("matrix * (n > by)"), "a hard threshold"),
    (_returning("matrix * (1 - by / matrix.norm(dim=0)).clamp(min=0)"), "lengths of the columns. A unit"),
    (
        _returning("matrix * (1 - by / matrix.norm(dim=0)).clamp(min=0)", root="len(matrix) ** 0.5"),
        "and the number of rows",
    ),
    (_returning("matrix * (1 - by / matrix.norm()).clamp(min=0)"), "one length for the whole matrix"),
    (
        _returning("matrix * (1 - by / matrix.abs().sum(1, keepdim=True)).clamp(min=0)"),
        "you took the sum of magnitudes",
    ),
    (_returning(f"matrix - {_STEP}"), "This is what the step takes away"),
    (_returning("matrix * (1 - by / n).clamp(min=0)"), "What does a unit of length zero become"),
    (_returning("matrix * (1 - by / (n + 1e-12)).clamp(min=1e-6)"), "here it is only small"),
    (_returning("matrix - by"), "should end is still there"),
    (_returning("matrix * (1 - by / (n + 1e-4)).clamp(min=0)"), "An ε added to every length"),
    (_returning("matrix * (1 - 2 * by / (n + 1e-12)).clamp(min=0)"), r"\d of the 7 units are not"),
    (_returning("(1 - by / n).clamp(min=0)"), r"shape \(7, 1\); with one value for each member"),
    (_returning("(matrix * (1 - by / n).clamp(min=0)).double()"), "float64; it should be float32"),
    (_returning("(matrix * (1 - by / n).clamp(min=0)).tolist()"), "returns the list"),
    (_returning("matrix.mul_((1 - by / n).clamp(min=0))"), "modified its input `matrix` in place"),
    (_returning("matrix * n.reshape(5, 1)"), "raised RuntimeError: shape"),
    (_returning(_STEP, root="sizes ** 0.5"), "raised RuntimeError: The size of tensor"),
    ("def proximal(matrix, sizes, t):\n    shorter = matrix - t", "Is a `return` missing"),
    ("def proximal(matrix, t):\n    return matrix", r"yours takes `\(matrix, t\)`"),
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
