"""q4, investigate: how much of what is left a schedule takes at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake, same
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong
from prunelab.schedule import AGP, Iterative

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Four rounds take a network to a sparsity of 0.96: linear ones, `Iterative(0.96, rounds=4)`, and geometric ones, with
`law="geometric"`. Predict first, and note it down: which fraction of the weights that are still there does each
round remove? Which of the eight rounds is the hardest?

Then compute it. Write `bites(sparsities)`: given the sparsities after each pruning, in order, return a list with the
fraction that each pruning removed of what was left before it. The network is dense before the first. Where nothing was
left, nothing can be removed: then the fraction is 0.0.
"""

STARTER = '''\
def bites(sparsities):
    """The fraction of what was left that each pruning removed: a list."""
    ...'''

SOLUTION = '''\
def bites(sparsities):
    """The fraction of what was left that each pruning removed: a list."""
    fractions = []
    before = 0.0  # the sparsity of the dense network
    for after in sparsities:
        left = 1 - before
        fractions.append((after - before) / left if left > 0 else 0.0)
        before = after
    return fractions'''

HINTS = (
    "From a sparsity of 0.5 to one of 0.75: how many of a hundred weights were left before, how many of these went? "
    "The difference of the sparsities alone is not the answer.",
    "What a pruning removes is the difference of two sparsities; what was left before it is one minus the earlier "
    "one. Divide.",
    "Walk along the list and remember the sparsity before each pruning; before the first it is zero. Guard the "
    "division: at a sparsity of one nothing is left.",
)

TAKEAWAY = (
    "Apply it to `[plan(step) for step in plan.steps()]` and compare with your prediction. The linear rounds take "
    "24 %, 32 %, 46 % and then 86 % of what is left; geometric rounds take 55 % each time. The last linear round is "
    "the hardest of the eight, and it comes when the least training remains."
)


def _walk(bite: Callable[[float, float], float], sparsities: Sequence[float]) -> Tensor:
    before = [0.0, *sparsities]
    return torch.tensor([bite(b, a) for b, a in zip(before, sparsities, strict=False)], dtype=torch.float64)


def _reference(sparsities: Sequence[float]) -> Tensor:
    return _walk(lambda before, after: (after - before) / (1 - before) if before < 1 else 0.0, sparsities)


def _safe(number: float, by: float) -> float:
    return number / by if by else 0.0


MISTAKES = (
    Mistake(
        lambda sparsities: _walk(lambda before, after: after - before, sparsities),
        "Those are fractions of all weights. The question is about those that were still there.",
    ),
    Mistake(
        lambda sparsities: _walk(lambda before, after: _safe(after - before, after), sparsities),
        "Each is a fraction of what is gone by then; take it of what was left before.",
    ),
    Mistake(
        lambda sparsities: _walk(lambda before, after: _safe(after - before, 1 - after), sparsities),
        "Each is divided by what is left after the pruning; take what was left before it.",
    ),
    Mistake(
        lambda sparsities: _walk(lambda before, after: 1 - _safe(after - before, 1 - before), sparsities),
        "Those are the fractions that survive each pruning; the task asks for what is removed.",
    ),
    Mistake(lambda sparsities: 100 * _reference(sparsities), "Those are percentages; return fractions."),
    Mistake(
        lambda sparsities: _reference(sparsities)[1:],
        "The first pruning is missing. Before it the network is dense.",
    ),
    Mistake(lambda sparsities: _reference(sparsities).max(), "That is the largest alone; the task asks for all."),
    Mistake(lambda sparsities: _reference(sparsities).flip(0), "The list is in the wrong order: first things first."),
    Mistake(
        lambda sparsities: torch.tensor(list(sparsities), dtype=torch.float64),
        "Those are the sparsities themselves.",
    ),
    Mistake(
        lambda sparsities: torch.tensor([1 - s for s in sparsities], dtype=torch.float64),
        "That is what is left after each pruning, of all weights.",
    ),
)  # fmt: skip


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="bites")


def _judge(found: Any, sparsities: Sequence[float]) -> None:
    values = _numbers(found)
    expected = _reference(sparsities)
    if same(values, expected):
        return
    left = torch.tensor([before < 1 for before in [0.0, *sparsities[:-1]]])
    if values.shape == expected.shape and same(values[left], expected[left]):
        raise Wrong("Where nothing was left the fraction is 0.0.")
    if len(sparsities) > 1:  # with one pruning several mistakes are right
        name_mistake(values, expected, MISTAKES, sparsities=sparsities)
    if values.dim() != 1 or len(values) != len(expected):
        raise Wrong(f"There are {len(expected)} prunings, but your answer has the shape {tuple(values.shape)}.")
    if values.isnan().any():
        raise Wrong("The list has NaN. Does it divide zero by zero?")
    raise Wrong(f"Fraction number {int((values - expected).abs().argmax()) + 1} is not right.")


def _numbers(found: Any) -> Tensor:
    """The answer as a tensor of floats, whether it is a list, a tuple, an array or a tensor.

    In single precision, which is all that an answer computed in it can have.
    """
    try:
        if isinstance(found, str | bytes | dict | set | bool):
            raise TypeError
        values = torch.as_tensor(found, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"`bites` returns {describe(found)}; it should return a list of numbers.") from None
    return values.detach().cpu()


def _cases() -> list[Case]:
    def after(plan: Any) -> list[float]:
        return [plan(step) for step in plan.steps()]

    cases = {
        "0.5, then 0.75, then 0.8": [0.5, 0.75, 0.8],
        "three linear rounds": after(Iterative(0.9, rounds=3)),
        "geometric rounds": after(Iterative(0.9, rounds=4, law="geometric")),
        "gradual pruning, whose first step removes nothing": after(AGP(0.95, start=0, end=10, every=2)),
        "a single pruning": [0.7],
        "a pruning that removes nothing new": [0.6, 0.6],
        "everything goes, and is then asked to go again": [0.5, 1.0, 1.0],
        "nothing is ever pruned": [],
    }
    return [Case(about, {"sparsities": sparsities}) for about, sparsities in cases.items()]


def _changed(change: str, by: str) -> str:
    """The solution with a piece changed: a wrong answer for the tests."""
    if change not in SOLUTION:
        raise ValueError(f"the solution has no {change!r}")
    return SOLUTION.replace(change, by)


WRONG = (
    (_changed("left = 1 - before", "left = 1"), "fractions of all weights"),
    (_changed("left = 1 - before", "left = after"), "what is gone by then"),
    (_changed("left = 1 - before", "left = 1 - after"), "left after the pruning;"),
    (_changed("(after - before) / left", "1 - (after - before) / left"), "that survive each pruning"),
    (_changed("(after - before) / left", "100 * (after - before) / left"), "Those are percentages"),
    (_changed("return fractions", "return fractions[1:]"), "The first pruning is missing"),
    (_changed("return fractions", "return max(fractions)"), "the largest alone"),
    (_changed("return fractions", "return fractions[::-1]"), "in the wrong order"),
    (_changed("return fractions", "return list(sparsities)"), "the sparsities themselves"),
    (_changed("return fractions", "return [1 - s for s in sparsities]"), "left after each pruning, of all"),
    (_changed("return fractions", "return fractions + [0.5]"), "your answer has the shape"),
    (_changed("if left > 0 else 0.0", "if left > 0 else float('nan')"), "Where nothing was left"),
    (_changed("return fractions", "return [f if f else float('nan') for f in fractions]"), "divide zero by zero"),
    (
        _changed("return fractions", "return list(sparsities)[:1] + fractions[1:-1] + [1.0] * (len(fractions) > 1)"),
        "Fraction number 3 is not right",
    ),
    (_changed(" if left > 0 else 0.0", ""), "raised ZeroDivisionError"),
    (_changed("before = 0.0", "before = 0.1"), "Fraction number 1 is not right"),
    (_changed("before = 0.0", "sparsities.reverse(); before = 0.0"), "modified its input `sparsities` in place"),
    (_changed("return fractions", "return str(fractions)"), "it should return a list of numbers"),
    (_changed("return fractions", ""), "Is a `return` missing"),
    ("def bites(sparsities, rounds):\n    return sparsities", r"yours takes `\(sparsities, rounds\)`"),
    ("bites = [0.3, 0.5, 0.9]", "needs the function itself"),
)

QUESTION = Question(
    name="q4",
    kind="investigate",
    title="What a round takes",
    task=TASK,
    answer="bites",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
