"""q2, code: the curve of automated gradual pruning."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong
from prunelab.schedule import AGP

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `agp(step, start, end, initial, final)`: the sparsity of automated gradual pruning at `step`, a number from 0 to
1. Until `start` it is `initial`, from `end` on `final`; in between it follows the cubic of this chapter.
"""

STARTER = '''\
def agp(step, start, end, initial, final):
    """The sparsity of automated gradual pruning at `step`: a float."""
    ...'''

SOLUTION = '''\
def agp(step, start, end, initial, final):
    """The sparsity of automated gradual pruning at `step`: a float."""
    done = (step - start) / (end - start)  # the share of the way that is done
    left = 1 - min(max(done, 0.0), 1.0)  # the share that is still to go, 1 before start and 0 after end
    return final + (initial - final) * left**3'''

HINTS = (
    "Begin with the share of the way from `start` to `end` that is done: 0 at `start`, 1 at `end`. What does it become "
    "before and after, and what should it be there?",
    "The cube belongs to the share of the way that is still to go. What is it at `start`, and what does the formula "
    "give there?",
    "Walk from `final` backwards: the sparsity is `final`, plus the whole way back to `initial` times the cube of the "
    "share that is still to go.",
)

TAKEAWAY = (
    "A schedule is a plain function of the step. This one does seven eighths of its work in the first half: while the "
    "network has many weights to spare, and much training ahead."
)

Curve = Callable[[float, float, float], float]


def _along(curve: Curve, *, clamp: bool = True) -> Callable[..., Tensor]:
    """The answer of someone with another curve(done, initial, final)."""

    def answer(step: int, start: int, end: int, initial: float, final: float) -> Tensor:
        done = (step - start) / (end - start)
        if clamp and not 0 < done < 1:
            return _number(final if done >= 1 else initial)
        return _number(curve(done, initial, final))

    return answer


def _number(value: float) -> Tensor:
    return torch.tensor(float(value), dtype=torch.float64)


def _cubic(done: float, initial: float, final: float) -> float:
    return final + (initial - final) * (1 - done) ** 3


def _reference(step: int, start: int, end: int, initial: float, final: float) -> Tensor:
    """The library's own answer."""
    return _number(AGP(final, start, end, initial=initial)(step))


def _from_the_first_step(step: int, end: int, initial: float, final: float, **_: int) -> Tensor:
    return _number(_cubic(step / end, initial, final))


def _nothing_before(step: int, start: int, end: int, initial: float, final: float) -> Tensor:
    return _number(0.0) if step < start else _reference(step, start, end, initial, final)


# Where two mistakes give the same number, the simpler explanation comes first.
MISTAKES = (
    Mistake(
        lambda **arguments: 1 - _reference(**arguments), "That is the fraction that is kept, not the one that is gone."
    ),
    Mistake(lambda **arguments: 100 * _reference(**arguments), "That is a percentage; sparsities are fractions."),
    Mistake(_along(lambda done, i, f: i + (f - i) * done), "That is a straight line: the cube is missing."),
    Mistake(_along(lambda done, i, f: f + (i - f) * (1 - done) ** 2), "That is a parabola; AGP has another power."),
    Mistake(
        _along(lambda done, i, f: i + (f - i) * done**3),
        "The curve begins slowly and ends fast. The cube belongs to the share that is still to go.",
    ),
    Mistake(
        _along(lambda done, i, f: i + (f - i) * (1 - done) ** 3),
        "The curve runs backwards: it begins at `final` and comes down to `initial`.",
    ),
    Mistake(
        _along(lambda done, _, f: f * (1 - (1 - done) ** 3)),
        "The curve begins at zero, as if `initial` were not there.",
    ),
    Mistake(
        _along(lambda done, i, f: f + i * (1 - done) ** 3),
        "The curve comes down from above `final`. Which way is it from `final` back to `initial`?",
    ),
    Mistake(
        _along(lambda done, i, f: i + f * (1 - (1 - done) ** 3)),
        "The curve climbs above `final`: it goes the whole height of `final` on top of `initial`.",
    ),
    Mistake(_from_the_first_step, "The way is measured from the first step of the training, not from `start`."),
    Mistake(
        _along(lambda _done, i, _f: i),
        "The curve does not move between `start` and `end`. Does a `//` cut the share to a whole number?",
    ),
    Mistake(_nothing_before, "Before `start` the sparsity is `initial`, not zero."),
    Mistake(
        _along(_cubic, clamp=False),
        "Outside of `start` and `end` the cubic runs on; there the sparsity stands still.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="agp")


def _judge(found: Any, **arguments: Any) -> None:
    value = found.item() if isinstance(found, Tensor) and found.numel() == 1 else found
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong(f"`agp` returns {describe(found)}; it should return one number.")
    if math.isnan(value):
        raise Wrong("`agp` returns NaN. Does it divide zero by zero here?")
    expected = _reference(**arguments)
    if math.isclose(value, float(expected), abs_tol=1e-6):
        return
    name_mistake(_number(value), expected, MISTAKES, **arguments)
    raise Wrong(f"{value:.6g} is not the sparsity at this step.")


def _cases() -> list[Case]:
    names = ("step", "start", "end", "initial", "final")
    cases = {
        "three tenths of the way, from 0.1 to 0.84": (34, 10, 90, 0.1, 0.84),
        "nine tenths of the way": (82, 10, 90, 0.1, 0.84),
        "before the start": (4, 10, 90, 0.1, 0.84),
        "after the end": (130, 10, 90, 0.1, 0.84),
        "the first step of the curve": (10, 10, 90, 0.1, 0.84),
        "the last step of the curve": (90, 10, 90, 0.1, 0.84),
        "from nothing to everything, halfway": (50, 0, 100, 0.0, 1.0),
        "initial and final the same": (50, 0, 100, 0.5, 0.5),
        "a long training": (123_456, 1_000, 1_000_000, 0.0, 0.9),
        "a curve of one step": (7, 7, 8, 0.1, 0.9),
    }
    return [Case(about, dict(zip(names, values, strict=True))) for about, values in cases.items()]


def _changed(change: str, by: str) -> str:
    """The solution with a piece changed: a wrong answer for the tests."""
    if change not in SOLUTION:
        raise ValueError(f"the solution has no {change!r}")
    return SOLUTION.replace(change, by)


_RETURN = "final + (initial - final) * left**3"

WRONG = (
    (_changed(_RETURN, f"1 - ({_RETURN})"), "the fraction that is kept"),
    (_changed(_RETURN, f"100 * ({_RETURN})"), "That is a percentage"),
    (_changed("left**3", "left"), "a straight line"),
    (_changed("left**3", "left**2"), "a parabola"),
    (_changed(_RETURN, "initial + (final - initial) * (1 - left) ** 3"), "begins slowly and ends fast"),
    (_changed(_RETURN, "initial + (final - initial) * left**3"), "runs backwards"),
    (_changed(_RETURN, "final * (1 - left**3) if left < 1 else initial"), "as if `initial` were not there"),
    (_changed(_RETURN, "final + initial * left**3 if left < 1 else initial"), "comes down from above"),
    (_changed(_RETURN, "initial + final * (1 - left**3) if left else final"), "climbs above"),
    (_changed("(step - start) / (end - start)", "step / end"), "from the first step of the training"),
    (_changed("(step - start) / (end - start)", "(step - start) // (end - start)"), "does not move"),
    (_changed("return ", "return 0.0 if step < start else "), "is `initial`, not zero"),
    (_changed("min(max(done, 0.0), 1.0)", "done"), "Outside of `start` and `end`"),
    (_changed("left**3", "left**4"), "is not the sparsity at this step"),
    (_changed("return ", "return [1] + "), "raised TypeError"),
    (_changed("return ", "return 'about', "), "it should return one number"),
    (_changed("return ", "return float('nan') * "), "returns NaN"),
    (_changed("return ", ""), "Is a `return` missing"),
    ("def agp(step, start, end):\n    return step / end", r"yours takes `\(step, start, end\)`"),
    ("agp = 0.7", "needs the function itself"),
)  # fmt: skip

QUESTION = Question(
    name="q2",
    kind="code",
    title="The cubic",
    task=TASK,
    answer="agp",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
