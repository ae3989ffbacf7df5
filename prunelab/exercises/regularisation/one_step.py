"""q1, recall: what one proximal step of L2, L1 and group lasso makes of a few weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong
from prunelab.exercises.pairs import Pair, read_pairs
from prunelab.granularity import Filter
from prunelab.regularize import L1, L2, GroupLasso

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Three units of four weights each: *large* (6, 8, 0, 0), *mixed* (0.7, -2.4, 0, 0) and *small* (0.3, 0.4, 0, 0). Their
norms are 10, 2.5 and 0.5. Each takes one proximal step with learning rate times strength t = 1. What do the first two
weights become? Without running anything: fill in the pairs (two decimals are enough). Group lasso sees all four weights
as one unit.
"""

STARTER = """\
after = {  # regulariser, unit: its first two weights after the step
    "L2, large": (..., ...),
    "L1, large": (..., ...),
    "group lasso, large": (..., ...),
    "L2, mixed": (..., ...),
    "L1, mixed": (..., ...),
    "group lasso, mixed": (..., ...),
    "L2, small": (..., ...),
    "L1, small": (..., ...),
    "group lasso, small": (..., ...),
}"""

SOLUTION = """\
after = {  # regulariser, unit: its first two weights after the step
    "L2, large": (6 / 2, 8 / 2),  # divided by 1 + t
    "L1, large": (6 - 1, 8 - 1),  # t less
    "group lasso, large": (6 * (1 - 2 / 10), 8 * (1 - 2 / 10)),  # the length 10 loses t times the root of 4
    "L2, mixed": (0.7 / 2, -2.4 / 2),
    "L1, mixed": (0.0, -2.4 + 1),  # the first is within the threshold
    "group lasso, mixed": (0.7 * (1 - 2 / 2.5), -2.4 * (1 - 2 / 2.5)),
    "L2, small": (0.3 / 2, 0.4 / 2),
    "L1, small": (0.0, 0.0),
    "group lasso, small": (0.0, 0.0),  # the length is less than what it would lose
}"""

HINTS = (
    "Three rules: L2 takes the same *share* of every weight, L1 the same *amount* of every weight, group lasso an "
    "amount of the *length* of the unit.",
    "L2 divides by one plus t. L1 moves each weight towards zero by t and stops there. Group lasso shortens the unit "
    "by t times the root of the number of its weights; the zeros are weights of the unit too.",
    "To shorten a vector without turning it, multiply all of it by new length / old length. If it is to lose more than "
    "its whole length, nothing is left of it.",
)

TAKEAWAY = (
    "L2 made nothing zero. L1 decided weight by weight and split the mixed unit. Group lasso kept the direction of "
    "each unit, or ended all of it."
)

_VALUES = {"large": (6.0, 8.0, 0.0, 0.0), "mixed": (0.7, -2.4, 0.0, 0.0), "small": (0.3, 0.4, 0.0, 0.0)}
_RULES: dict[str, L1 | L2 | GroupLasso] = {"L2": L2(1.0), "L1": L1(1.0), "group lasso": GroupLasso(1.0, Filter())}
_ROWS = [f"{rule}, {unit}" for unit in _VALUES for rule in _RULES]


def _right(row: str) -> Pair:
    """What the library's own step makes of the unit."""
    rule, unit = row.split(", ")
    layer = nn.utils.skip_init(nn.Linear, 4, 1, bias=False, dtype=torch.float64, device="cpu")
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([_VALUES[unit]], device="cpu"))
    _RULES[rule].proximal_(layer, lr=1.0)
    first, second, *_ = layer.weight[0].tolist()
    return first, second


def examine(answer: Any) -> None:
    """Compare every pair with the library's step; report the first that differs, and why if that is known."""
    pairs = read_pairs(answer, _ROWS, "(first, second)")
    right = {row: _right(row) for row in _ROWS}
    differing = [row for row in _ROWS if not _close(pairs[row], right[row])]
    if differing:
        row = differing[0]
        score = f"{len(right) - len(differing)} of {len(right)} rows are right."
        raise Wrong(f"{score} Look at `{row}`: {_why(row, pairs[row], right[row])}")


def _close(found: Pair, expected: Pair) -> bool:
    return all(abs(one - other) <= 5e-3 for one, other in zip(found, expected, strict=True))


def _why(row: str, found: Pair, right: Pair) -> str:
    """What kind of mistake leads from the right pair to the one found."""
    rule, unit = row.split(", ")
    v = _VALUES[unit][:2]
    if _close(found, (right[1], right[0])):
        return "the two weights have changed places."
    if _close((abs(found[0]), abs(found[1])), (abs(right[0]), abs(right[1]))):
        return "the sizes are right, but a step towards zero never changes the sign of a weight."
    for other in _RULES:
        if other != rule and _close(found, _right(f"{other}, {unit}")) and not _close(found, (0, 0)):
            return f"that is what {other} does."
    if _close(found, v):
        return "nothing has changed. What survives the step is shrunk by it, too."
    if rule == "L2":
        if _close(found, (0, 0)):
            return "that is v - t · v, a gradient step. The minimum that the proximal step looks for is not there."
        return "L2 divides each weight by the same number, which t alone decides."
    if rule == "L1":
        if any(one * start < 0 for one, start in zip(found, v, strict=True)):
            return "a weight has crossed zero. The step stops there: the price rises again on the other side."
        return "L1 moves each weight towards zero by the same amount, whatever the others are."
    return _why_group(found, v, math.hypot(*v))


def _why_group(found: Pair, v: tuple[float, ...], length: float) -> str:
    def shortened(by: float) -> Pair:
        return v[0] * (1 - by / length), v[1] * (1 - by / length)

    if found[0] * v[0] < 0 or found[1] * v[1] < 0:
        return "the unit has turned round: it cannot lose more than its whole length."
    if _close(found, shortened(1)):
        return "the factor for the size of the unit is missing."
    if _close(found, shortened(4)):
        return "the factor for the size is the root of the number of weights, not the number itself."
    if _close(found, shortened(math.sqrt(2))):
        return "the zeros of the unit count as well: it has the size that it has, whatever its weights are."
    if abs(found[0] * v[1] - found[1] * v[0]) > 5e-2:
        return "the unit has changed its direction. All of its weights are multiplied by the same factor."
    return "the direction is right, but the length is not."


def _with(row: str, pair: str) -> str:
    """The solution with one row changed: a wrong answer for the tests."""
    lines = [f'    "{row}": {pair},' if line.startswith(f'    "{row}":') else line for line in SOLUTION.splitlines()]
    return "\n".join(lines)


WRONG = (
    ("after = [1, 2]", "the list .*dictionary of the stub"),
    ("after = {'L2, large': (3, 4)}", "`L1, large` is missing"),
    (_with("L1, small", "(..., ...)"), "`L1, small` is still open"),
    (SOLUTION.replace("}", '    "L3": (1, 2),\n}'), "Nobody asked for .*'L3'"),
    (_with("L1, small", "0"), "`L1, small` holds the int .*a pair"),
    (_with("L1, large", "(8 - 1, 6 - 1)"), "have changed places"),
    (_with("L1, mixed", "(0, 1.4)"), "never changes the sign"),
    (_with("L1, large", "(6 / 2, 8 / 2)"), "that is what L2 does"),
    (_with("group lasso, large", "(6 - 1, 8 - 1)"), "that is what L1 does"),
    (_with("L1, large", "(6 * 0.8, 8 * 0.8)"), "that is what group lasso does"),
    (_with("L1, large", "(6, 8)"), "nothing has changed"),
    (_with("L2, large", "(6 - 6, 8 - 8)"), "a gradient step"),
    (_with("L2, mixed", "(0.7 / 3, -2.4 / 3)"), "L2 divides each weight by the same number"),
    (_with("L1, small", "(0.3 - 1, 0.4 - 1)"), "a weight has crossed zero"),
    (_with("L1, mixed", "(0.7, -2.4 + 1)"), "by the same amount"),
    (_with("group lasso, small", "(0.3 * -3, 0.4 * -3)"), "has turned round"),
    (_with("group lasso, large", "(6 * 0.9, 8 * 0.9)"), "the factor for the size of the unit is missing"),
    (_with("group lasso, large", "(6 * 0.6, 8 * 0.6)"), "not the number itself"),
    (_with("group lasso, large", "(6 * (1 - 2**0.5 / 10), 8 * (1 - 2**0.5 / 10))"), "the zeros of the unit count"),
    (_with("group lasso, large", "(6 * 0.8, 8 * 0.7)"), "changed its direction"),
    (_with("group lasso, mixed", "(0.7 * 0.1, -2.4 * 0.1)"), "but the length is not"),
)

QUESTION = Question(
    name="q1",
    kind="recall",
    title="One step towards zero",
    task=TASK,
    answer="after",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
