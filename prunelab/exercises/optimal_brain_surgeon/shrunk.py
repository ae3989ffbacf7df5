"""q3, code: an inverse that loses a row and a column without being inverted again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import isfunction
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake, require_form
from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `shrunk(inverse, gone)`: `inverse` is the inverse (n, n) of a symmetric positive definite H, `gone` a position.
Return the inverse of H without that row and column, (n - 1, n - 1), the others in their order. It is called once for
each deleted weight, so it must not invert or solve anything: n² operations are enough.
"""

STARTER = '''\
def shrunk(inverse, gone):
    """The inverse of H without one row and column: (n - 1, n - 1)."""
    ...'''

SOLUTION = '''\
def shrunk(inverse, gone):
    """The inverse of H without one row and column: (n - 1, n - 1)."""
    column = inverse[:, gone]
    smaller = inverse - column.outer(column) / column[gone]
    left = torch.arange(len(inverse)) != gone
    return smaller[left][:, left]'''

HINTS = (
    "Try two by two on paper: H without its second row and column is one number. What is its inverse, and which "
    "entry of the 2 × 2 inverse is it *not*?",
    "The correction has rank one: a column times itself. After it, the row and the column that go are zero, which "
    "tells what it must be divided by.",
    "`column.outer(column)` makes the (n, n) matrix. Which of the column's own entries turns its diagonal entry into "
    "what has to be taken away? Drop the row and the column last.",
)

TAKEAWAY = (
    "Deleting a row and column of H means *minimising* over nothing more there, and costs a rank-one correction of the "
    "inverse. This is why hundreds of deletions need one inversion, as long as H itself stays the same."
)


def _reference(inverse: Tensor, gone: int) -> Tensor:
    """By the definition."""
    return torch.linalg.inv(_dropped(torch.linalg.inv(inverse), gone))


def _dropped(matrix: Tensor, gone: int) -> Tensor:
    left = torch.arange(len(matrix)) != gone
    return matrix[left][:, left]


def _corrected(inverse: Tensor, gone: int, by: Tensor | float) -> Tensor:
    column = inverse[:, gone]
    return _dropped(inverse - column.outer(column) * by, gone)


MISTAKES = (
    Mistake(
        lambda inverse, gone: _dropped(inverse, gone),
        "The row and column of the *inverse* are dropped, and nothing is corrected: that is the inverse of something "
        "else, in which the weight may still move.",
    ),
    Mistake(
        lambda inverse, gone: _dropped(torch.linalg.inv(inverse), gone),
        "That is H without its row and column, not the inverse of it.",
    ),
    Mistake(
        lambda inverse, gone: _corrected(inverse, gone, -1 / inverse[gone, gone]),
        "The correction is added. Without a weight that can make up for others, moves get costlier: the inverse "
        "becomes smaller.",
    ),
    Mistake(
        lambda inverse, gone: _corrected(inverse, gone, 1.0),
        "The correction is the column times itself, and not divided by anything.",
    ),
    Mistake(
        lambda inverse, gone: _corrected(inverse, gone, inverse[gone, gone]),
        "The correction is multiplied by what should divide it.",
    ),
    Mistake(
        lambda inverse, gone: _corrected(inverse, gone, 1 / inverse[gone, gone] ** 2),
        "The correction is divided twice.",
    ),
    Mistake(
        lambda inverse, gone: _corrected(inverse, gone, torch.linalg.inv(inverse)[gone, gone]),
        "One over the diagonal of the inverse is not the diagonal of H.",
    ),
    Mistake(
        lambda inverse, gone: _corrected(inverse, gone, 1 / inverse.diagonal()[None, :]),
        "Each column is divided by its own diagonal entry; the whole correction has one divisor.",
    ),
    Mistake(
        lambda inverse, gone: _dropped(
            inverse - inverse[:, gone].outer(inverse[:, gone]) / inverse[gone, gone], len(inverse) - 1
        ),
        "The correction is right, but the last row and column were dropped and not those that go.",
    ),
)


_CUBIC = (
    "linalg_inv",
    "linalg_solve",
    "linalg_lu",
    "linalg_ldl",
    "cholesky",
    "svd",
    "eig",
    "qr",
    "lstsq",
    "triangular",
)


class _Watch(TorchDispatchMode):
    """Notes whether a matrix is inverted, factored or solved with."""

    def __init__(self) -> None:
        super().__init__()
        self.solved = False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.solved |= any(word in func.name() for word in _CUBIC)
        return func(*args, **(kwargs or {}))


def examine(answer: Any) -> None:
    watch = _Watch()

    def judge(found: Any, inverse: Tensor, gone: int) -> None:
        _judge(found, inverse, gone)
        if watch.solved:
            raise Wrong(
                "The result is right, but a matrix is inverted or solved with on the way: n³ operations for every "
                "deleted weight. A correction that costs n² is enough."
            )

    try_cases(_watched(answer, watch) if isfunction(answer) else answer, _cases, judge, name="shrunk")


def _watched(answer: Callable[..., Any], watch: _Watch) -> Callable[..., Any]:
    @wraps(answer)  # the check looks at the signature, and at the code where nothing is returned
    def call(*given: Any) -> Any:
        with watch:
            return answer(*given)

    return call


def _judge(found: Any, inverse: Tensor, gone: int) -> None:
    expected = _reference(inverse, gone)
    if isinstance(found, Tensor) and found.shape == inverse.shape:
        raise Wrong("The result is as large as before: the row and the column are still there.")
    require_form(found, expected, "pair of weights that are left")
    if found.isnan().any():
        raise Wrong("The result has NaN in it.")
    name_mistake(found, expected, MISTAKES, inverse=inverse, gone=gone)
    if not torch.allclose(found, expected, rtol=1e-8, atol=1e-9):
        raise Wrong("This is not the inverse of H without that row and column.")


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(3)

    def case(about: str, n: int, gone: int) -> Case:
        factor = torch.randn(n, 3 * n, generator=draw, dtype=torch.float64)
        return Case(about, {"inverse": torch.linalg.inv(factor @ factor.T / n + 0.5), "gone": gone})

    return [
        case("four weights, the second goes", 4, 1),
        case("the first of six", 6, 0),
        case("the last of five", 5, 4),
        case("one of two", 2, 1),
        case("the only one", 1, 0),
        case("one of forty", 40, 17),
    ]


def _changed(change: str, by: str) -> str:
    """The solution with a piece changed: a wrong answer for the tests."""
    if change not in SOLUTION:
        raise ValueError(f"the solution has no {change!r}")
    return SOLUTION.replace(change, by)


_CORRECTION = "column.outer(column) / column[gone]"

WRONG = (
    (_changed(f"inverse - {_CORRECTION}", "inverse"), "nothing is corrected"),
    (_changed(f"inverse - {_CORRECTION}", "torch.linalg.inv(inverse)"), "not the inverse of it"),
    (_changed("inverse - column", "inverse + column"), "The correction is added"),
    (_changed(" / column[gone]", ""), "not divided by anything"),
    (_changed("/ column[gone]", "* column[gone]"), "multiplied by what should divide"),
    (_changed("/ column[gone]", "/ column[gone] ** 2"), "divided twice"),
    (_changed("/ column[gone]", "* torch.linalg.inv(inverse)[gone, gone]"), "not the diagonal of H"),
    (_changed("/ column[gone]", "/ inverse.diagonal()"), "has one divisor"),
    (_changed("!= gone", "!= len(inverse) - 1"), "the last row and column were dropped"),
    (_changed("smaller[left][:, left]", "smaller"), "as large as before"),
    (_changed("smaller[left][:, left]", "smaller[left]"), r"has the shape \(3, 4\)"),
    (_changed("smaller[left][:, left]", "smaller[left][:, left].float()"), "The result is float32"),
    (_changed("smaller[left][:, left]", "smaller[left][:, left].tolist()"), "it should return a tensor"),
    (_changed("smaller[left][:, left]", "smaller[left][:, left] * float('nan')"), "NaN in it"),
    (_changed("smaller[left][:, left]", "smaller[left][:, left] * 1.2"), "This is not the inverse of H without"),
    (
        _changed("smaller[left][:, left]", "torch.linalg.inv(torch.linalg.inv(inverse)[left][:, left])"),
        "a matrix is inverted",
    ),
    (_changed("return", "pass  # "), "Is a `return` missing"),
    (_changed("inverse - column.outer(column)", "inverse.sub_(column.outer(column))"), "modified its input"),
    ("def shrunk(inverse, gone):\n    return inverse @ gone", "raised TypeError"),
    ("def shrunk(inverse):\n    return inverse[1:, 1:]", r"yours takes `\(inverse\)`"),
    ("shrunk = torch.eye(3)", "needs the function itself"),
)

QUESTION = Question(
    name="q3",
    kind="code",
    title="Smaller without inverting",
    task=TASK,
    answer="shrunk",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
