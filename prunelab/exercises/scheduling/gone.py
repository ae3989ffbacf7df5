"""q1, recall: how many weights are gone, halfway and in the end."""

from __future__ import annotations

import math
from typing import Any

from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong
from prunelab.exercises.pairs import Pair, read_pairs
from prunelab.schedule import AGP, DSD, Cosine, Exponential, Iterative, Linear, OneShot, Schedule

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
A layer has 1000 weights and is trained for 100 steps; in the end 96 % of the weights are to be gone. How many are gone
after step 50, and how many after step 100? Without running anything: fill in `(gone at 50, gone at 100)` for each
schedule. Everything works out in your head.
"""

STARTER = """\
gone = {  # schedule: (weights gone at step 50, weights gone at step 100)
    "OneShot(0.96, at=40)": (..., ...),
    "Iterative(0.96, rounds=4, start=0, every=25)": (..., ...),
    "Linear(0.96, start=0, end=100)": (..., ...),
    "Cosine(0.96, start=0, end=100)": (..., ...),
    "Exponential(0.96, start=0, end=100)": (..., ...),
    "AGP(0.96, start=0, end=100)": (..., ...),
    "AGP(0.96, start=20, end=60)": (..., ...),
    "DSD(0.96, start=40, end=80)": (..., ...),
}"""

SOLUTION = """\
gone = {  # schedule: (weights gone at step 50, weights gone at step 100)
    "OneShot(0.96, at=40)": (960, 960),
    "Iterative(0.96, rounds=4, start=0, every=25)": (3 * 960 // 4, 960),  # rounds at 0, 25, 50 and 75
    "Linear(0.96, start=0, end=100)": (960 // 2, 960),
    "Cosine(0.96, start=0, end=100)": (960 // 2, 960),  # the middle of the way, where it is fastest
    "Exponential(0.96, start=0, end=100)": (1000 - 200, 960),  # the square root of 0.04 is left
    "AGP(0.96, start=0, end=100)": (960 - 960 // 2**3, 960),  # half of the way: 1/8 is still to go
    "AGP(0.96, start=20, end=60)": (960 - 960 // 4**3, 960),  # three quarters of the way: 1/64 is still to go
    "DSD(0.96, start=40, end=80)": (960, 0),  # dense again
}"""

HINTS = (
    "For the ramps one question decides: which share of the way from `start` to `end` is covered at step 50? In one of "
    "them it is not one half.",
    "AGP is a cubic in what is still to go. An exponential works on what is left: after half of the way its square "
    "root. Which of them asks you to look at the 4 % that stay?",
    "`Iterative` counts its rounds from the first, which comes at `start`: write down at which steps the four rounds "
    "come. And what does the last D of DSD stand for?",
)

TAKEAWAY = (
    "Halfway a straight line has removed half of what is to go, AGP seven eighths of it: schedules with the same end "
    "differ in how much training the network still gets when the damage is done."
)

_PLANS: dict[str, Schedule] = {
    "OneShot(0.96, at=40)": OneShot(0.96, at=40),
    "Iterative(0.96, rounds=4, start=0, every=25)": Iterative(0.96, rounds=4, start=0, every=25),
    "Linear(0.96, start=0, end=100)": Linear(0.96, start=0, end=100),
    "Cosine(0.96, start=0, end=100)": Cosine(0.96, start=0, end=100),
    "Exponential(0.96, start=0, end=100)": Exponential(0.96, start=0, end=100),
    "AGP(0.96, start=0, end=100)": AGP(0.96, start=0, end=100),
    "AGP(0.96, start=20, end=60)": AGP(0.96, start=20, end=60),
    "DSD(0.96, start=40, end=80)": DSD(0.96, start=40, end=80),
}


def examine(answer: Any) -> None:
    """Compare every pair with the library's own schedules; report the first that differs, and why if that is known."""
    pairs = read_pairs(answer, _PLANS, "(gone at 50, gone at 100)")
    right = {row: (round(1000 * plan(50)), round(1000 * plan(100))) for row, plan in _PLANS.items()}
    differing = [row for row in right if not _close(pairs[row], right[row])]
    if differing:
        row = differing[0]
        score = f"{len(right) - len(differing)} of {len(right)} rows are right."
        raise Wrong(f"{score} Look at `{row}`: {_why(row, pairs[row], right[row])}")


def _close(found: Pair, right: tuple[float, float]) -> bool:
    return all(math.isclose(one, other, abs_tol=1e-6) for one, other in zip(found, right, strict=True))


def _why(row: str, found: Pair, right: tuple[int, int]) -> str:
    """What kind of mistake leads from the right pair to the one found."""
    if _close(found, (1000 - right[0], 1000 - right[1])):
        return "that is what is left; the table asks what is gone."
    if _close(found, (right[0] / 1000, right[1] / 1000)):
        return "those are fractions; the table asks for numbers of weights."
    if _close(found, (right[1], right[0])):
        return "the two steps have changed places."
    if row.startswith("DSD"):
        return "its sparse phase lies between `start` and `end`; before and after it the network is dense."
    if not _close(found[1:] * 2, right[1:] * 2):
        return "a schedule ends at exactly its final sparsity, so the second number needs no formula."
    half = found[0]
    if row.startswith("Iterative"):
        if math.isclose(half, 480):
            return "the first round comes at `start` itself, not one `every` later. Count the rounds again."
        if math.isclose(half, 960):
            return "the last round has not come yet. At which step is it?"
    if row.startswith("AGP") and math.isclose(half, 480):
        return "that is a straight line."
    if row.startswith("AGP") and (math.isclose(half, 120) or math.isclose(half, 405)):
        return "the cube is taken of the share that is done; take it of the share that is still to go."
    if row.startswith("AGP") and (math.isclose(half, 720) or math.isclose(half, 900)):
        return "that is a parabola; this curve has another power."
    if row == "AGP(0.96, start=20, end=60)" and math.isclose(half, 840):
        return "the way does not begin at the first step and end at the last here. Which share of it is done?"
    if row == "AGP(0.96, start=20, end=60)" and math.isclose(half, 960 - 960 / 6**3, abs_tol=0.6):
        return "the way is measured from the first step of the training; it begins at `start`."
    if row.startswith("Exponential") and math.isclose(half, 480):
        return "that is a straight line in what is gone. Here it is the logarithm of what is left that falls evenly."
    if row.startswith("Exponential"):
        return "after half of the way the kept fraction is the square root of what it is in the end."
    if row.startswith("OneShot") and math.isclose(half, 0):
        return "when has its moment come?"
    return "the first number is not what this schedule says."


def _with(row: str, pair: str) -> str:
    """The solution with one row changed: a wrong answer for the tests."""
    lines = [f'    "{row}": {pair},' if line.startswith(f'    "{row}') else line for line in SOLUTION.splitlines()]
    return "\n".join(lines)


_LINEAR, _SHORT = "Linear(0.96, start=0, end=100)", "AGP(0.96, start=20, end=60)"
_ROUNDS, _AGP = "Iterative(0.96, rounds=4, start=0, every=25)", "AGP(0.96, start=0, end=100)"

WRONG = (
    ("gone = [1, 2]", "the list .*dictionary of the stub"),
    ("gone = {'OneShot(0.96, at=40)': (960, 960)}", "`Iterative.*` is missing"),
    (_with("DSD(0.96, start=40, end=80)", "(..., ...)"), "`DSD.*` is still open"),
    (_with(_LINEAR, "0.48"), "holds the float .*a pair"),
    (_with(_LINEAR, "(520, 40)"), "that is what is left"),
    (_with(_LINEAR, "(0.48, 0.96)"), "those are fractions"),
    (_with(_LINEAR, "(960, 480)"), "have changed places"),
    (_with("DSD(0.96, start=40, end=80)", "(960, 960)"), "before and after it the network is dense"),
    (_with(_LINEAR, "(480, 1000)"), "ends at exactly its final sparsity"),
    (_with(_ROUNDS, "(480, 960)"), "the first round comes at `start` itself"),
    (_with(_ROUNDS, "(960, 960)"), "the last round has not come yet"),
    (_with(_AGP, "(480, 960)"), "that is a straight line\\."),
    (_with(_AGP, "(120, 960)"), "the cube is taken of the share that is done"),
    (_with(_AGP, "(720, 960)"), "that is a parabola"),
    (_with(_SHORT, "(840, 960)"), "Which share of it is done"),
    (_with(_SHORT, "(956, 960)"), "measured from the first step of the training"),
    (_with("Exponential(0.96, start=0, end=100)", "(480, 960)"), "a straight line in what is gone"),
    (_with("Exponential(0.96, start=0, end=100)", "(900, 960)"), "the kept fraction is the square root"),
    (_with("OneShot(0.96, at=40)", "(0, 960)"), "when has its moment come"),
    (_with("Cosine(0.96, start=0, end=100)", "(679, 960)"), "is not what this schedule says"),
)

QUESTION = Question(
    name="q1",
    kind="recall",
    title="What is gone by now",
    task=TASK,
    answer="gone",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
