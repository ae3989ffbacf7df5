"""q2, code: the curves of gradual pruning, whatever their power."""

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

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `gradual(step, start, end, initial, final, power)`: the sparsity of gradual pruning at `step`, a number from 0 to
1. Until `start` it is `initial`, from `end` on `final`; in between the sparsity that is still missing shrinks as in the
chapter's derivation, with `power` for m. It is more than 0 and need not be whole; 3 is automated gradual pruning.
"""

STARTER = '''\
def gradual(step, start, end, initial, final, power):
    """The sparsity of gradual pruning at `step`: a float."""
    ...'''

SOLUTION = '''\
def gradual(step, start, end, initial, final, power):
    """The sparsity of gradual pruning at `step`: a float."""
    done = (step - start) / (end - start)  # the share of the way that is done
    left = 1 - min(max(done, 0.0), 1.0)  # the share that is still to go, 1 before start and 0 after end
    return final + (initial - final) * left**power'''

HINTS = (
    "Begin with the share of the way from `start` to `end` that is done: 0 at `start`, 1 at `end`. What does it become "
    "before and after, and what should it be there?",
    "The power belongs to the share of the way that is still to go. What is that at `start`, and what does the formula "
    "give there?",
    "Walk from `final` backwards: the sparsity is `final`, plus the whole way back to `initial` times the share that "
    "is still to go, raised to `power`.",
)

TAKEAWAY = (
    "A schedule is a plain function of the step. With the power 3 it does seven eighths of its work in the first half: "
    "while the network has many weights to spare, and much training ahead."
)

Curve = Callable[[float, float, float, float], float]


def _along(curve: Curve, *, clamp: bool = True) -> Callable[..., Tensor]:
    """The answer of someone with another curve(done, initial, final, power)."""

    def answer(step: int, start: int, end: int, initial: float, final: float, power: float) -> Tensor:
        done = (step - start) / (end - start)
        if clamp and not 0 < done < 1:
            return _number(final if done >= 1 else initial)
        return _number(curve(done, initial, final, power))

    return answer


def _number(value: float | complex) -> Tensor:
    """`value` as a tensor; NaN, which is like no answer, for a root of a negative number."""
    return torch.tensor(math.nan if isinstance(value, complex) else float(value), dtype=torch.float64)


def _curve(done: float, initial: float, final: float, power: float) -> float:
    return final + (initial - final) * (1 - done) ** power


_reference = _along(_curve)  # the library's AGP is its cubic: the tests compare


def _from_the_first_step(step: int, end: int, initial: float, final: float, power: float, **_: int) -> Tensor:
    return _number(_curve(step / end, initial, final, power))


def _nothing_before(step: int, start: int, **others: Any) -> Tensor:
    return _number(0.0) if step < start else _reference(step=step, start=start, **others)


# Where two mistakes give the same number, the simpler explanation comes first.
MISTAKES = (
    Mistake(
        lambda **arguments: 1 - _reference(**arguments), "That is the fraction that is kept, not the one that is gone."
    ),
    Mistake(lambda **arguments: 100 * _reference(**arguments), "That is a percentage; sparsities are fractions."),
    Mistake(_along(lambda done, i, f, _: i + (f - i) * done), "That is a straight line: the power is missing."),
    Mistake(
        _along(lambda done, i, f, _: f + (i - f) * (1 - done) ** 3), "That is the cubic; here the power is an argument."
    ),
    Mistake(
        _along(lambda done, i, f, m: f + (i - f) * (1 - done) * m), "The share is multiplied by the power, not raised."
    ),
    Mistake(
        _along(lambda done, i, f, m: i + (f - i) * done**m),
        "The curve begins slowly and ends fast. The power belongs to the share that is still to go.",
    ),
    Mistake(
        _along(lambda done, i, f, m: i + (f - i) * (1 - done) ** m),
        "The curve runs backwards: it begins at `final` and comes down to `initial`.",
    ),
    Mistake(
        _along(lambda done, _, f, m: f * (1 - (1 - done) ** m)),
        "The curve begins at zero, as if `initial` were not there.",
    ),
    Mistake(
        _along(lambda done, i, f, m: f + i * (1 - done) ** m),
        "The curve comes down from above `final`. Which way is it from `final` back to `initial`?",
    ),
    Mistake(
        _along(lambda done, i, f, m: i + f * (1 - (1 - done) ** m)),
        "The curve climbs above `final`: it goes the whole height of `final` on top of `initial`.",
    ),
    Mistake(_from_the_first_step, "The way is measured from the first step of the training, not from `start`."),
    Mistake(
        _along(lambda _done, i, _f, _m: i),
        "The curve does not move between `start` and `end`. Does a `//` cut the share to a whole number?",
    ),
    Mistake(_nothing_before, "Before `start` the sparsity is `initial`, not zero."),
    Mistake(
        _along(_curve, clamp=False),
        "Outside of `start` and `end` the curve runs on; there the sparsity stands still.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="gradual")


def _judge(found: Any, **arguments: Any) -> None:
    value = found.item() if isinstance(found, Tensor) and found.numel() == 1 else found
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong(f"`gradual` returns {describe(found)}; it should return one number.")
    if math.isnan(value):
        raise Wrong("`gradual` returns NaN. Does it divide zero by zero here?")
    expected = _reference(**arguments)
    if math.isclose(value, float(expected), abs_tol=1e-6):
        return
    name_mistake(_number(value), expected, MISTAKES, **arguments)
    raise Wrong(f"{value:.6g} is not the sparsity at this step.")


def _cases() -> list[Case]:
    names = ("step", "start", "end", "initial", "final", "power")
    cases = {
        "three tenths of the way, from 0.1 to 0.84, with the power 2": (34, 10, 90, 0.1, 0.84, 2),
        "nine tenths of the way, automated gradual pruning": (82, 10, 90, 0.1, 0.84, 3),
        "before the start": (4, 10, 90, 0.1, 0.84, 2),
        "after the end": (130, 10, 90, 0.1, 0.84, 2),
        "the first step of the curve": (10, 10, 90, 0.1, 0.84, 3),
        "the last step of the curve": (90, 10, 90, 0.1, 0.84, 3),
        "a straight line": (34, 10, 90, 0.1, 0.84, 1),
        "a power that is not whole": (34, 10, 90, 0.1, 0.84, 1.5),
        "not whole, and after the end": (130, 10, 90, 0.1, 0.84, 1.5),
        "slow at first: a power below one": (34, 10, 90, 0.1, 0.84, 0.5),
        "from nothing to everything, halfway": (50, 0, 100, 0.0, 1.0, 3),
        "initial and final the same": (50, 0, 100, 0.5, 0.5, 3),
        "a long training": (123_456, 1_000, 1_000_000, 0.0, 0.9, 3),
        "a curve of one step": (7, 7, 8, 0.1, 0.9, 3),
    }
    return [Case(about, dict(zip(names, values, strict=True))) for about, values in cases.items()]


def _changed(change: str, by: str) -> str:
    """The solution with a piece changed: a wrong answer for the tests."""
    if change not in SOLUTION:
        raise ValueError(f"the solution has no {change!r}")
    return SOLUTION.replace(change, by)


_RETURN = "final + (initial - final) * left**power"

WRONG = (
    (_changed(_RETURN, f"1 - ({_RETURN})"), "the fraction that is kept"),
    (_changed(_RETURN, f"100 * ({_RETURN})"), "That is a percentage"),
    (_changed("left**power", "left"), "a straight line"),
    (_changed("left**power", "left**3"), "That is the cubic"),
    (_changed("left**power", "(left * power if left < 1 else 1)"), "multiplied by the power"),
    (_changed(_RETURN, "initial + (final - initial) * (1 - left) ** power"), "begins slowly and ends fast"),
    (_changed(_RETURN, "initial + (final - initial) * left**power"), "runs backwards"),
    (_changed(_RETURN, "final * (1 - left**power) if left < 1 else initial"), "as if `initial` were not there"),
    (_changed(_RETURN, "final + initial * left**power if left < 1 else initial"), "comes down from above"),
    (_changed(_RETURN, "initial + final * (1 - left**power) if left else final"), "climbs above"),
    (_changed("(step - start) / (end - start)", "step / end"), "from the first step of the training"),
    (_changed("(step - start) / (end - start)", "(step - start) // (end - start)"), "does not move"),
    (_changed("return ", "return 0.0 if step < start else "), "is `initial`, not zero"),
    (_changed("min(max(done, 0.0), 1.0)", "done"), "Outside of `start` and `end`"),
    (_changed("left**power", "left ** (power + 1.5)"), "is not the sparsity at this step"),
    (_changed("return ", "return [1] + "), "raised TypeError"),
    (_changed("return ", "return 'about', "), "it should return one number"),
    (_changed("return ", "return float('nan') * "), "returns NaN"),
    (_changed("return ", ""), "Is a `return` missing"),
    ("def gradual(step, start, end):\n    return step / end", r"yours takes `\(step, start, end\)`"),
    ("gradual = 0.7", "needs the function itself"),
)  # fmt: skip

QUESTION = Question(
    name="q2",
    kind="code",
    title="One rule, many curves",
    task=TASK,
    answer="gradual",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
