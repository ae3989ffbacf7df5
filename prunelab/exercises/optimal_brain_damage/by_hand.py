"""q1, recall: what the saliencies predict for two weights, and what the loss does."""

from __future__ import annotations

import math
from typing import Any

from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong
from prunelab.exercises.pairs import Pair, read_pairs

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
A loss is exactly a parabola in two weights, with the Hessian H = ((2, 1), (1, 4)). The weights are w = (3, 1), and they
are at the minimum, unless the row says otherwise: a gradient of (1, -2), for example. What do the saliencies of Optimal
Brain Damage predict when weights are deleted, and what does the loss really do? Without running anything: fill in
`(predicted, real)` for each row. In the last row the objective is the loss plus λ/2 · ‖w‖², the weights are at the
minimum of that sum, and both numbers are about the sum.
"""

STARTER = """\
increase = {  # (predicted by the saliencies, real)
    "w1 goes": (..., ...),
    "w2 goes": (..., ...),
    "both go": (..., ...),
    "both go, w = (3, -1)": (..., ...),
    "w1 goes, gradient (1, 0)": (..., ...),
    "both go, gradient (1, -2)": (..., ...),
    "w1 goes, weight decay 2": (..., ...),
}"""

SOLUTION = """\
increase = {  # (predicted by the saliencies, real)
    "w1 goes": (2 * 3**2 / 2, 2 * 3**2 / 2),
    "w2 goes": (4 * 1**2 / 2, 4 * 1**2 / 2),
    "both go": (9 + 2, 9 + 2 + 1 * 3 * 1),  # h12 · w1 · w2
    "both go, w = (3, -1)": (9 + 2, 9 + 2 - 1 * 3 * 1),
    "w1 goes, gradient (1, 0)": (9, 9 - 1 * 3),  # a step of -3 along a slope of 1
    "both go, gradient (1, -2)": (9 + 2, 14 - 1 * 3 + 2 * 1),
    "w1 goes, weight decay 2": ((2 + 2) * 3**2 / 2, (2 + 2) * 3**2 / 2),
}"""

HINTS = (
    "Each saliency looks at one weight and at one entry on the diagonal. Compute the two of them once; most of the "
    "first numbers follow.",
    "The real increase of a parabola has two parts: slope times step, and half of the step times H times the step. "
    "Deleting a weight is a step of minus the weight. How often does an off-diagonal entry occur in the second part?",
    "Three rows have a first number that differs from the second, because of one dropped term, and one row because of "
    "two. And a second derivative of λ/2 · w² is λ.",
)

TAKEAWAY = (
    "For a single weight at a minimum the saliency of a parabola is exact. What it misses in the other rows are two "
    "terms, the slope times the step and the product of two weights, and each may have either sign."
)

_WEIGHTS: dict[str, Pair] = {"both go, w = (3, -1)": (3, -1)}
_SLOPES: dict[str, Pair] = {"w1 goes, gradient (1, 0)": (1, 0), "both go, gradient (1, -2)": (1, -2)}
_ROWS = (
    "w1 goes",
    "w2 goes",
    "both go",
    "both go, w = (3, -1)",
    "w1 goes, gradient (1, 0)",
    "both go, gradient (1, -2)",
    "w1 goes, weight decay 2",
)


def examine(answer: Any) -> None:
    """Compare every pair with the parabola's; report the first that differs, and why if that is known."""
    pairs = read_pairs(answer, _ROWS, "(predicted, real)")
    right = {row: _increase(row) for row in _ROWS}
    differing = [row for row in _ROWS if not _close(pairs[row], right[row])]
    if differing:
        row = differing[0]
        score = f"{len(right) - len(differing)} of {len(right)} rows are right."
        raise Wrong(f"{score} Look at `{row}`: {_why(row, pairs[row], right[row])}")


def _close(found: Pair, right: Pair) -> bool:
    return all(math.isclose(one, other, abs_tol=1e-6) for one, other in zip(found, right, strict=True))


def _parts(row: str) -> tuple[float, float, float]:
    """The sum of the saliencies, what the slope adds, and what the two weights have to do with each other."""
    decay = 2 if "decay" in row else 0
    first, second = _WEIGHTS.get(row, (3, 1))
    first, second = 0 if row.startswith("w2") else first, 0 if row.startswith("w1") else second
    g1, g2 = _SLOPES.get(row, (0, 0))
    saliencies = (2 + decay) * first**2 / 2 + (4 + decay) * second**2 / 2
    return saliencies, -g1 * first - g2 * second, first * second


def _increase(row: str) -> Pair:
    saliencies, slope, cross = _parts(row)
    return saliencies, saliencies + slope + cross


def _why(row: str, found: Pair, right: Pair) -> str:
    """What kind of mistake leads from the right pair to the one found."""
    predicted, real = found
    saliencies, slope, cross = _parts(row)
    if found == (right[1], right[0]):
        return "the prediction and the truth have changed places."
    if not math.isclose(predicted, saliencies, abs_tol=1e-6):
        return _why_predicted(row, predicted, right)
    for gone, reason in (
        (real == saliencies, "the saliencies leave something out here, and you left it out of the truth as well."),
        (
            real == saliencies - slope + cross,
            "the slope counts the wrong way: deleting is a step of *minus* the weight.",
        ),
        (cross and real == saliencies + slope, "the slope is there, but the two weights also meet off the diagonal."),
        (real == saliencies + cross, "the weights meet off the diagonal, but there is a slope as well."),
        (
            real == saliencies + slope + 2 * cross,
            "an off-diagonal entry occurs twice in H, and the half is still there.",
        ),
        (real == saliencies + slope + cross / 2, "an off-diagonal entry stands in H twice, not once."),
        (real == saliencies + slope - cross, "mind the signs: the product of two steps has that of the two weights."),
    ):
        if gone:
            return reason
    return "the prediction is right; what does the parabola really do?"


def _why_predicted(row: str, predicted: float, right: Pair) -> str:
    saliencies = right[0]
    if predicted == 2 * saliencies:
        return "the half of the second-order term is missing."
    if predicted == right[1]:
        return "that is what the loss really does; the saliencies leave something out."
    if "decay" in row and predicted == 9:
        return "that is the saliency of the loss alone. The price on the weights has a second derivative too."
    if row.startswith("w") and predicted in {3, 6} and "w2" not in row:
        return "the weight enters squared."
    if predicted == 0:
        return "at a minimum the slope is zero, and the curvature is not."
    return "add up one half of h · w², with the entries on the diagonal, over the weights that go."


def _with(row: str, pair: str) -> str:
    """The solution with one row changed: a wrong answer for the tests."""
    lines = [f'    "{row}": {pair},' if line.startswith(f'    "{row}":') else line for line in SOLUTION.splitlines()]
    return "\n".join(lines)


WRONG = (
    ("increase = [1, 2]", "the list .*dictionary of the stub"),
    ("increase = {'w1 goes': (9, 9)}", "`w2 goes` is missing"),
    (SOLUTION.replace("\n}", '\n    "w3 goes": (1, 2),\n}'), "Nobody asked for .*w3"),
    (_with("both go", "(..., ...)"), "`both go` is still open"),
    (_with("both go", "11"), "`both go` holds the int .*a pair of numbers"),
    (_with("w1 goes", "(18, 18)"), "half of the second-order term is missing"),
    (_with("w1 goes", "(3, 9)"), "enters squared"),
    (_with("w2 goes", "(0, 2)"), "at a minimum the slope is zero"),
    (_with("w2 goes", "(7, 2)"), "add up one half"),
    (_with("w2 goes", "(2, 7)"), "what does the parabola really do"),
    (_with("both go", "(14, 11)"), "have changed places"),
    (_with("both go", "(14, 14)"), "that is what the loss really does"),
    (_with("both go", "(11, 11)"), "left it out of the truth as well"),
    (_with("both go", "(11, 17)"), "the half is still there"),
    (_with("both go", "(11, 12.5)"), "stands in H twice, not once"),
    (_with("both go, w = (3, -1)", "(11, 14)"), "has that of the two weights"),
    (_with("w1 goes, gradient (1, 0)", "(9, 12)"), "the slope counts the wrong way"),
    (_with("both go, gradient (1, -2)", "(11, 10)"), "also meet off the diagonal"),
    (_with("both go, gradient (1, -2)", "(11, 14)"), "there is a slope as well"),
    (_with("w1 goes, weight decay 2", "(9, 18)"), "has a second derivative too"),
)

QUESTION = Question(
    name="q1",
    kind="recall",
    title="Two weights, seven deletions",
    task=TASK,
    answer="increase",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
