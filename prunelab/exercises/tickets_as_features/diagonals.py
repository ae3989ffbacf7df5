"""q1, recall: the diagonal of the average gradient outer product, by hand."""

from __future__ import annotations

from typing import Any

from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong
from prunelab.exercises.pairs import Pair, read_pairs

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
The inputs `x1` and `x2` are independent and standard normal. What is the diagonal of the average gradient outer product
of each function, (G11, G22), with infinitely many examples? Without a computer: fill in the numbers.
"""

STARTER = """\
diagonals = {  # function: (G11, G22), for standard normal x1 and x2
    "3 * x1": (..., ...),
    "x1 * x2": (..., ...),
    "x1 ** 2": (..., ...),
    "2 * x1 + x1 * x2": (..., ...),
    "(x1 + x2) ** 2": (..., ...),
    "relu(x1)": (..., ...),
    "sign(x1)": (..., ...),
    "outputs x1 and x1 + x2": (..., ...),
}"""

SOLUTION = """\
diagonals = {  # function: (G11, G22), for standard normal x1 and x2
    "3 * x1": (3**2, 0),
    "x1 * x2": (1, 1),
    "x1 ** 2": (2**2, 0),
    "2 * x1 + x1 * x2": (2**2 + 1, 1),
    "(x1 + x2) ** 2": (2**2 * 2, 2**2 * 2),
    "relu(x1)": (1 / 2, 0),
    "sign(x1)": (0, 0),
    "outputs x1 and x1 + x2": (1 + 1, 1),
}"""

HINTS = (
    "Write down both partial derivatives first. The diagonal holds the mean of the square of each.",
    "The mean of a square is the variance plus the square of the mean. A standard normal variable has variance one and "
    "mean zero, and independent variances add up.",
    "With several outputs each has its own gradient; square and average each of them, and add up at the end.",
)

TAKEAWAY = (
    "The diagonal is the mean *squared* slope: it sees inputs whose mean slope is zero, and nothing of a function that "
    "only jumps."
)

RIGHT: dict[str, Pair] = {
    "3 * x1": (9, 0),
    "x1 * x2": (1, 1),
    "x1 ** 2": (4, 0),
    "2 * x1 + x1 * x2": (5, 1),
    "(x1 + x2) ** 2": (8, 8),
    "relu(x1)": (0.5, 0),
    "sign(x1)": (0, 0),
    "outputs x1 and x1 + x2": (2, 1),
}
# Pairs that a known mistake leads to, and what to tell whoever has made it.
KNOWN: dict[tuple[str, Pair], str] = {
    ("3 * x1", (3, 0)): "that is the slope itself; an outer product multiplies it with itself.",
    ("x1 * x2", (0, 0)): "the mean slope vanishes, but the square is taken before the mean.",
    ("x1 ** 2", (2, 0)): "a slope that is twice as steep counts more than twice.",
    ("x1 ** 2", (1, 0)): "the factor that differentiation brings down is missing.",
    ("2 * x1 + x1 * x2", (4, 0)): "you took the mean of the slopes first; their spread counts too.",
    ("2 * x1 + x1 * x2", (4, 1)): "along the first input the spread of the slope is missing.",
    ("2 * x1 + x1 * x2", (9, 1)): "the terms of that slope do not always have the same sign.",
    ("(x1 + x2) ** 2", (4, 4)): "the sum of two independent inputs has another variance than one of them.",
    ("relu(x1)", (1, 0)): "on part of the inputs this function is flat.",
    ("relu(x1)", (0.25, 0)): "that is the square of the mean slope, not the mean of its square.",
    ("outputs x1 and x1 + x2", (1, 0.5)): "outer products are averaged over examples, and *added up* over outputs.",
    ("outputs x1 and x1 + x2", (4, 1)): "add up the outer products of the outputs, not their slopes.",
}
ELSE = {
    "3 * x1": "its slope is the same everywhere, so there is nothing to average.",
    "x1 * x2": "the slope along each input is the other input. What is the mean of its square?",
    "x1 ** 2": "its slope grows with the input. Square the slope, and take the mean.",
    "2 * x1 + x1 * x2": "the slope along the first input is a constant plus the second input.",
    "(x1 + x2) ** 2": "both slopes are the same: a multiple of the sum of the inputs.",
    "relu(x1)": "its slope takes only two values. How often each?",
    "sign(x1)": "look at the slope where there is one, not at the jump.",
    "outputs x1 and x1 + x2": "each output has a constant gradient; square its entries.",
}


def examine(answer: Any) -> None:
    """Compare every pair with the closed form; report the first that differs, and why if that is known."""
    pairs = read_pairs(answer, RIGHT, "(G11, G22)")
    differing = [row for row in RIGHT if pairs[row] != RIGHT[row]]
    if differing:
        row = differing[0]
        score = f"{len(RIGHT) - len(differing)} of {len(RIGHT)} rows are right."
        raise Wrong(f"{score} Look at `{row}`: {_why(row, pairs[row])}")


def _why(row: str, found: Pair) -> str:
    if (row, found) in KNOWN:
        return KNOWN[row, found]
    if found == RIGHT[row][::-1]:
        return "the inputs have changed places."
    if min(found) < 0:
        return "a mean of squares is never negative."
    return ELSE[row]


def _with(row: str, pair: str) -> str:
    """The solution with one row changed: a wrong answer for the tests."""
    lines = [f'    "{row}": {pair},' if line.startswith(f'    "{row}":') else line for line in SOLUTION.splitlines()]
    return "\n".join(lines)


WRONG = (
    ("diagonals = [9, 0]", "the list .*dictionary of the stub"),
    ("diagonals = {'3 * x1': (9, 0)}", "`x1 . x2` is missing"),
    (_with("sign(x1)", "(..., ...)"), "`sign.x1.` is still open"),
    (SOLUTION.replace("}", '    "tanh(x)": (1, 2),\n}'), "Nobody asked for .*tanh"),
    (_with("sign(x1)", "0"), "`sign.x1.` holds the int"),
    *((_with(row, str(pair)), message[:30].replace("*", ".")) for (row, pair), message in KNOWN.items()),
    (_with("relu(x1)", "(0, 0.5)"), "changed places"),
    (_with("relu(x1)", "(-0.5, 0)"), "never negative"),
    *((_with(row, "(7, 6)"), message[:30].replace("*", ".")) for row, message in ELSE.items()),
)

QUESTION = Question(
    name="q1",
    kind="recall",
    title="Outer products by hand",
    task=TASK,
    answer="diagonals",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
