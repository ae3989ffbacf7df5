"""q3, code: from which step on is a network stable?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake, require_form, same
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Two runs part at each of several steps of the training, and the error is measured at points along the line between
their ends. Write `stability(steps, errors, limit)`: `steps` is an ascending list of the steps at which the runs part,
`errors` a tensor (steps, points) whose first and last column are the two ends, and `limit` a number. It returns two
things: the error barrier of each row, a tensor (steps,); and the first of the steps from which on, *at it and at all
later ones*, the barrier is below the limit, or -1 if there is none.
"""

STARTER = '''\
def stability(steps, errors, limit):
    """(barriers (steps,), the step from which on all are low, or -1)."""
    ...'''

SOLUTION = '''\
def stability(steps, errors, limit):
    """(barriers (steps,), the step from which on all are low, or -1)."""
    barriers = errors.amax(dim=1) - (errors[:, 0] + errors[:, -1]) / 2
    answer = -1
    for step, height in zip(reversed(steps), reversed(barriers.tolist())):
        if height >= limit:
            break
        answer = step
    return barriers, answer'''

HINTS = (
    "First the barrier of each row: what is compared with what? The definition is in the section on stability.",
    "The ends belong to the line: its worst point may be one of them. And the yardstick is not the better end or the "
    "worse one, but something between.",
    "One barrier below the limit is not enough, if a later one is above it again. Go through the steps from the last "
    "to the first, and stop at the first that is too high.",
)

TAKEAWAY = (
    "The barrier compares the worst point of the line with the mean of both ends, so two ends that differ make one by "
    "themselves. Stability is a statement about all later steps: single rows are noisy."
)


def _barriers(errors: Tensor) -> Tensor:
    return errors.amax(1) - _ends(errors)


def _ends(errors: Tensor) -> Tensor:
    return (errors[:, 0] + errors[:, -1]) / 2


def _reference(steps: list[int], barriers: Tensor, limit: float) -> int:
    """The first step from which on all are below."""
    below = (barriers < limit).tolist()
    return next((step for position, step in enumerate(steps) if all(below[position:])), -1)


BARRIERS = (
    Mistake(
        lambda errors: errors.amax(1) - errors[:, [0, -1]].amax(1),
        "The worst point is compared with the worse end. Then ends that differ make no barrier.",
    ),
    Mistake(
        lambda errors: errors.amax(1) - errors[:, [0, -1]].amin(1),
        "The worst point is compared with the better end; the definition takes the mean of both.",
    ),
    Mistake(lambda errors: errors.amax(1) - errors.amin(1), "This is the range of the line: its worst minus its best."),
    Mistake(
        lambda errors: errors.amax(1) - errors.mean(1),
        "The worst point is compared with the mean of the whole line, and not of its two ends.",
    ),
    Mistake(
        lambda errors: errors[:, errors.shape[1] // 2] - _ends(errors),
        "Only the middle of the line is looked at. The worst point may lie elsewhere.",
    ),
    Mistake(
        lambda errors: errors.mean(1) - _ends(errors),
        "The mean of the line is compared with the ends. Look for its worst point.",
    ),
    Mistake(lambda errors: errors.amax(1), "This is the worst error itself: subtract what the ends have."),
    Mistake(
        lambda errors: errors[:, 1:-1].amax(1) - _ends(errors) if errors.shape[1] > 2 else _barriers(errors),
        "The ends are left out of the line. They belong to it, and one of them may be its worst point.",
    ),
    Mistake(
        lambda errors: errors.amin(1) - _ends(errors),
        "The *best* point of the line is compared with the ends. For errors, the worst is the largest.",
    ),
    Mistake(lambda errors: -_barriers(errors), "The sign is turned round: a barrier is above its ends."),
)

Choice = Callable[[list[int], list[float], float], int]


def _position(steps: list[int], barriers: list[float], limit: float) -> int:
    found = _reference(steps, torch.tensor(barriers, dtype=torch.float64), limit)
    return steps.index(found) if found in steps else -1


def _equal(steps: list[int], barriers: list[float], limit: float) -> int:
    return _reference(steps, torch.tensor(barriers, dtype=torch.float64), math.nextafter(limit, math.inf))


STEPS: tuple[tuple[Choice, str], ...] = (
    (_equal, "A barrier that equals the limit is not below it."),
    (
        lambda steps, barriers, limit: next((s for s, b in zip(steps, barriers, strict=True) if b < limit), -1),
        "You stop at the first barrier that is below the limit. A later one is above it again.",
    ),
    (
        lambda steps, barriers, limit: max([-1, *(s for s, b in zip(steps, barriers, strict=True) if b >= limit)]),
        "This is the last step at which the network is still *unstable*.",
    ),
    (
        lambda steps, barriers, limit: max([-1, *(s for s, b in zip(steps, barriers, strict=True) if b < limit)]),
        "This is the *last* step at which the barrier is below the limit.",
    ),
    (_position, "This is the position of the step in the list; the task asks for the step."),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="stability")


def _judge(found: Any, steps: list[int], errors: Tensor, limit: float) -> None:
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise Wrong(f"`stability` returns {describe(found)}; it should return two things, the barriers and a step.")
    barriers, step = found
    expected = _barriers(errors)
    if not same(barriers, expected):
        name_mistake(barriers, expected, BARRIERS, errors=errors)
        require_form(barriers, like=expected, per="step")
        raise Wrong("These are not the error barriers.")
    step = step.item() if isinstance(step, Tensor) and step.numel() == 1 else step
    right = _reference(steps, expected, limit)
    if isinstance(step, bool) or not isinstance(step, int | float):
        raise Wrong(f"The second result is {describe(step)}; it should be one of the steps, or -1.")
    if step == right:
        return
    for choice, message in STEPS:
        if step == choice(steps, expected.tolist(), limit):
            raise Wrong(message)
    if step not in (*steps, -1):
        raise Wrong(f"{describe(step)} is none of the steps, and not -1.")
    if step == -1:
        raise Wrong("There is a step from which on all barriers are below the limit.")
    raise Wrong("From this step on, some barrier is not below the limit, or an earlier step would do.")


def _cases() -> list[Case]:
    steps = [10, 50, 200, 800]
    level = [0.25, 0.25, 0.25, 0.25, 0.25]

    def case(*rows: list[float], limit: float = 0.125) -> dict[str, Any]:
        return {"steps": steps[: len(rows)], "errors": torch.tensor(rows, dtype=torch.float64), "limit": limit}

    hill, edge = [0.25, 0.5, 0.875, 0.5, 0.25], [0.25, 0.75, 0.375, 0.25, 0.25]
    slope, tilted = [0.0, 0.125, 0.1875, 0.25, 0.5], [0.25, 0.25, 0.25, 0.375, 0.375]
    valley = [0.5, 0.25, 0.125, 0.25, 0.5]
    return [
        Case("two high barriers, then two low ones", case(hill, hill, level, level)),
        Case("the barrier goes up again", case(hill, level, hill, level)),
        Case("a barrier that equals the limit", case(hill, [0.25, 0.375, 0.25, 0.25, 0.25], level)),
        Case("the last barrier is high", case(level, level, level, hill)),
        Case("all are low", case(level, level)),
        Case("the worst point is not in the middle", case(hill, edge, level)),
        Case("the line is better than both ends", case(hill, valley, valley)),
        Case("the two ends differ", case(hill, slope, level)),
        Case("the ends differ a little", case(hill, tilted, level)),
        Case("two points: the ends alone", case([0.5, 0.125], [0.375, 0.25], limit=0.1)),
        Case("a single step, and it is high", case(hill)),
    ]


def _answer(
    *,
    barriers: str = "errors.amax(dim=1) - (errors[:, 0] + errors[:, -1]) / 2",
    high: str = "height >= limit",
    result: str = "answer",
    stop: str = "break",
) -> str:
    """The solution with one step changed."""
    return f"""\
def stability(steps, errors, limit):
    barriers = {barriers}
    answer = -1
    for step, height in zip(reversed(steps), reversed(barriers.tolist())):
        if {high}:
            {stop}
        answer = step
    return barriers, {result}"""


_ENDS = "(errors[:, 0] + errors[:, -1]) / 2"
_PAIRS = "zip(steps, barriers.tolist())"

WRONG = (
    (_answer(barriers="errors.amax(1) - errors[:, [0, -1]].amax(1)"), "compared with the worse end"),
    (_answer(barriers="errors.amax(1) - errors[:, [0, -1]].amin(1)"), "compared with the better end"),
    (_answer(barriers="errors.amax(1) - errors.amin(1)"), "This is the range of the line"),
    (_answer(barriers="errors.amax(1) - errors.mean(1)"), "the mean of the whole line"),
    (_answer(barriers=f"errors[:, errors.shape[1] // 2] - {_ENDS}"), "Only the middle of the line"),
    (_answer(barriers=f"errors.mean(1) - {_ENDS}"), "The mean of the line is compared"),
    (_answer(barriers="errors.amax(1)"), "subtract what the ends have"),
    (_answer(barriers=f"errors[:, 1:-1].amax(1) - {_ENDS}"), "The ends are left out"),
    (_answer(barriers=f"errors.amin(1) - {_ENDS}"), "The .best. point of the line"),
    (_answer(barriers=f"{_ENDS} - errors.amax(1)"), "a barrier is above its ends"),
    (_answer(barriers="errors.amax(1) * 2"), "These are not the error barriers"),
    (_answer(stop="continue"), "A later one is above it again"),
    (_answer(result=f"max([-1] + [s for s, b in {_PAIRS} if b >= limit])"), "still .unstable."),
    (_answer(high="height > limit"), "that equals the limit"),
    (_answer(result=f"max([-1] + [s for s, b in {_PAIRS} if b < limit])"), "This is the .last. step"),
    (_answer(result="steps.index(answer) if answer in steps else -1"), "the position of the step"),
    (_answer(result="answer + 1"), "is none of the steps"),
    (_answer(result="-1"), "There is a step from which"),
    (_answer(result="steps[0]"), "or an earlier step would do"),
    (_answer(result="None"), "The second result is the NoneType"),
    (_answer(barriers="errors.amax(0)"), "with one value for each step"),
    (_answer(barriers="errors.amax(7)"), "Dimension out of range"),
    ("def stability(steps, errors):\n    return 0", r"yours takes `\(steps, errors\)`"),
    ("def stability(steps, errors, limit):\n    return steps[0]", "should return two things"),
    ("def stability(steps, errors, limit):\n    errors - limit", "Is a `return` missing"),
    ("def stability(steps, errors, limit):\n    errors -= limit\n    return steps[0]", "modified its input `errors`"),
)

QUESTION = Question(
    name="q3",
    kind="code",
    title="Stable from when on?",
    task=TASK,
    answer="stability",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
