"""q1, recall: which of three weights goes, and what it costs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong
from prunelab.exercises.pairs import Pair, read_pairs

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
A loss has its minimum at the weights (10, 11, 12). Its second derivatives, and their inverse, are

    H   = [[5, 4, 0], [4, 4, 0], [0, 0, 3]]
    H⁻¹ = [[1, -1, 0], [-1, 5/4, 0], [0, 0, 1/3]]

One weight is deleted. Without running anything: fill in `(which weight goes, how much the loss rises)`, with the
weights counted from 1. "Repaired" means that the others make up for it as well as they can. The last row asks for
something else, the values of weights 1 and 3 once Surgeon is done.
"""

STARTER = """\
outcome = {  # method: (which weight goes, rise of the loss)
    "magnitude": (..., ...),
    "Damage": (..., ...),
    "Surgeon": (..., ...),
    "magnitude's choice, repaired": (..., ...),
    "Damage's choice, repaired": (..., ...),
    "Surgeon's choice, not repaired": (..., ...),
    "weights 1 and 3 after Surgeon": (..., ...),
}"""

SOLUTION = """\
outcome = {  # method: (which weight goes, rise of the loss)
    "magnitude": (1, 5 * 10**2 / 2),
    "Damage": (3, 3 * 12**2 / 2),  # of 250, 242 and 216
    "Surgeon": (2, 11**2 / (2 * 5 / 4)),  # of 50, 48.4 and 216
    "magnitude's choice, repaired": (1, 10**2 / (2 * 1)),
    "Damage's choice, repaired": (3, 3 * 12**2 / 2),  # no other weight can make up for it
    "Surgeon's choice, not repaired": (2, 4 * 11**2 / 2),
    "weights 1 and 3 after Surgeon": (10 + 11 / (5 / 4), 12 + 0),
}"""

HINTS = (
    "Write down three rows of three numbers first: the magnitudes, the saliencies by the diagonal of H, and those by "
    "the diagonal of its inverse. The smallest of each row goes.",
    "What the loss really does depends on what moves. Where the others stay, only the diagonal of H counts, whoever "
    "made the choice; where they move, only that of the inverse.",
    "A weight whose row of H is zero beside the diagonal has nobody to stand in for it. And the update is a multiple "
    "of a column of the inverse: the one that turns the deleted weight's own entry into minus its value.",
)

TAKEAWAY = (
    "Three methods, three weights: the cheapest to delete is not the smallest, and the cheapest with a repair is "
    "another one again. A repair is worth as much as the weights depend on each other; an independent weight gains "
    "nothing."
)

_WEIGHTS = (10.0, 11.0, 12.0)
_HESSIAN = ((5.0, 4.0, 0.0), (4.0, 4.0, 0.0), (0.0, 0.0, 3.0))
_LAST = "weights 1 and 3 after Surgeon"
_WHO = {
    "magnitude": "magnitude looks at nothing but the size of the weights.",
    "Damage": "Damage takes the smallest product of a diagonal entry of H and the weight's square.",
    "Surgeon": "Surgeon takes the smallest square of a weight over its diagonal entry of the *inverse*.",
}


def examine(answer: Any) -> None:
    """Compare every pair with what the formulae give; report the first that differs, and why if that is known."""
    right = _right()
    pairs = read_pairs(answer, right, "(weight, rise)")
    differing = [row for row in right if not _same(pairs[row], right[row])]
    if differing:
        row = differing[0]
        score = f"{len(right) - len(differing)} of {len(right)} rows are right."
        raise Wrong(f"{score} Look at `{row}`: {_why(row, pairs[row], right[row])}")


def _same(found: Pair, right: Pair) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(found, right, strict=True))


def _problem() -> tuple[Tensor, Tensor]:
    """The weights (3,) and the Hessian (3, 3), on the CPU whatever the learner's default is."""
    weights, hessian = (torch.tensor(one, dtype=torch.float64, device="cpu") for one in (_WEIGHTS, _HESSIAN))
    return weights, hessian


def _right() -> dict[str, Pair]:
    w, hessian = _problem()
    inverse = torch.linalg.inv(hessian)
    stays = hessian.diagonal() * w**2 / 2  # the rise where the others stay
    moves = w**2 / inverse.diagonal() / 2  # and where they make up for it
    first, cheap, best = int(w.abs().argmin()), int(stays.argmin()), int(moves.argmin())
    after = w - w[best] / inverse[best, best] * inverse[best]
    rows = {
        "magnitude": (first, stays),
        "Damage": (cheap, stays),
        "Surgeon": (best, moves),
        "magnitude's choice, repaired": (first, moves),
        "Damage's choice, repaired": (cheap, moves),
        "Surgeon's choice, not repaired": (best, stays),
    }
    return {row: (q + 1.0, float(cost[q])) for row, (q, cost) in rows.items()} | {
        _LAST: (float(after[0]), float(after[2]))
    }


def _why(row: str, found: Pair, right: Pair) -> str:
    """What kind of mistake leads from the right pair to the one found."""
    if row == _LAST:
        return _why_moved(found, right)
    (which, rise), (right_which, right_rise) = found, right
    method = next(name for name in _WHO if row.startswith(name))
    if which + 1 == right_which and math.isclose(rise, right_rise, rel_tol=1e-3):
        return "the weights are counted from one here, not from nought."
    if which != right_which:
        return f"another weight goes; {_WHO[method]}"
    if math.isclose(rise, 2 * right_rise, rel_tol=1e-3):
        return "the second term of a Taylor expansion has a factor of one half."
    repaired = row == "Surgeon" or row.endswith(", repaired")
    other = _other(int(which), repaired)
    if math.isclose(rise, other, rel_tol=1e-3) and repaired:
        return "that is what it costs if the others stay where they are; here they move."
    if math.isclose(rise, other, rel_tol=1e-3):
        return "that is what it costs if the others make up for it; here nobody does."
    if method == "magnitude" and not repaired and math.isclose(rise, _WEIGHTS[int(which) - 1]):
        return "that is the size of the weight; by how much does the *loss* rise?"
    return "the weight is right; the rise is not."


def _other(which: int, repaired: bool) -> float:
    """The rise for a weight if it is repaired after all, or if it is not."""
    w, hessian = _problem()
    entry = hessian[which - 1, which - 1] if repaired else 1 / torch.linalg.inv(hessian)[which - 1, which - 1]
    return float(entry * w[which - 1] ** 2 / 2)


def _why_moved(found: Pair, right: Pair) -> str:
    before = _WEIGHTS[0]
    if math.isclose(found[0], 2 * before - right[0], rel_tol=1e-3):
        return "the first moved the wrong way: look at the sign of that entry of the inverse, and of the update."
    if math.isclose(found[0], right[0] - before, rel_tol=1e-3):
        return "that is by how much they move; where do they end?"
    if found == (before, _WEIGHTS[2]):
        return "Surgeon moves others, and one of these two has an entry in the column."
    if math.isclose(found[0], right[0], rel_tol=1e-3):
        return "the first is right. What does the column of the inverse say about the other?"
    return "these are not the values after the update."


def _with(row: str, pair: str) -> str:
    """The solution with one row changed: a wrong answer for the tests."""
    lines = [f'    "{row}": {pair},' if line.startswith(f'    "{row}":') else line for line in SOLUTION.splitlines()]
    return "\n".join(lines)


WRONG = (
    ("outcome = [1, 2]", "the list .*dictionary of the stub"),
    ("outcome = {'magnitude': (1, 250)}", "`Damage` is missing"),
    (_with("Damage", "(..., ...)"), "`Damage` is still open"),
    (_with("Surgeon", "48.4"), "holds the float .*a pair"),
    (_with("magnitude", "(0, 250)"), "not from nought"),
    (_with("magnitude", "(3, 216)"), "nothing but the size"),
    (_with("Damage", "(2, 242)"), "smallest product of a diagonal entry"),
    (_with("Surgeon", "(1, 50)"), "over its diagonal entry"),
    (_with("Damage", "(3, 432)"), "factor of one half"),
    (_with("Surgeon", "(2, 242)"), "here they move"),
    (_with("Surgeon's choice, not repaired", "(2, 48.4)"), "here nobody does"),
    (_with("magnitude", "(1, 10)"), "by how much does the .loss. rise"),
    (_with("Damage's choice, repaired", "(3, 100)"), "the rise is not"),
    (_with(_LAST, "(1.2, 12)"), "the wrong way"),
    (_with(_LAST, "(8.8, 0)"), "by how much they move"),
    (_with(_LAST, "(10, 12)"), "has an entry in the column"),
    (_with(_LAST, "(18.8, 15)"), "the first is right"),
    (_with(_LAST, "(7, 7)"), "not the values after the update"),
)

QUESTION = Question(
    name="q1",
    kind="recall",
    title="Three methods, three weights",
    task=TASK,
    answer="outcome",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
