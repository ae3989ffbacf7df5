"""q3, code: which sparsity to ask for, given how many parameters may be left."""

from __future__ import annotations

import math
from typing import Any

import torch

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake
from prunelab.exercises.core import Material, Question
from prunelab.exercises.number import read_number
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
A network has `weights` parameters that can be pruned and `others` that never are, such as biases. A device has room for
`budget` parameters that are not zero, and that is enough for the others. Write `sparsity_for(weights, others, budget)`:
the sparsity to ask `prunelab.prune` for, so that the network fits and no more goes than has to. `prune` removes
`round(sparsity * weights)` weights. If there is room for everything, nothing has to go.
"""

STARTER = '''\
def sparsity_for(weights, others, budget):
    """A sparsity of the weights at which the network just fits."""
    ...'''

SOLUTION = '''\
def sparsity_for(weights, others, budget):
    """A sparsity of the weights at which the network just fits."""
    too_many = weights + others - budget
    return max(too_many, 0) / weights'''

HINTS = (
    "How many parameters does the network have in all, and how many of them are too many for the device? So many have "
    "to become zero.",
    "Only weights can go, and the sparsity that `prune` takes is a fraction of the *weights*. The room that the others "
    "need is not there for weights.",
    "Divide the number of parameters that are too many by the number of weights. If none are too many that number is "
    "zero or negative, and the sparsity is 0.",
)

TAKEAWAY = (
    "What is never pruned comes out of the budget first, so the weights have to be sparser than the network: for a "
    "tenth of all parameters a sparsity of 0.9 is not enough."
)


def _reference(weights: int, others: int, budget: int) -> float:
    return max(weights + others - budget, 0) / weights


def _by(answer: Any) -> Any:
    """A misconception as a tensor, which is what `name_mistake` compares."""
    return lambda weights, others, budget: torch.tensor(float(answer(weights, others, budget)), dtype=torch.float64)


MISTAKES = (
    Mistake(
        _by(lambda weights, _others, budget: 1 - budget / weights),
        "The whole budget goes to the weights. The others need room in it as well.",
    ),
    Mistake(
        _by(lambda weights, others, budget: (budget - others) / weights),
        "This is the fraction of the weights that may *stay*. Sparsity is the fraction that goes.",
    ),
    Mistake(
        _by(lambda weights, _others, budget: budget / weights),
        "This is a fraction that stays, and the others have been forgotten as well. Sparsity is what goes.",
    ),
    Mistake(
        _by(lambda weights, others, budget: budget / (weights + others)),
        "This is the fraction of all parameters that may stay. Sparsity is the fraction that goes, of the weights.",
    ),
    Mistake(
        _by(lambda weights, others, budget: 1 - budget / (weights + others)),
        "This is a fraction of *all* parameters. `prune` takes its sparsity as a fraction of the weights alone.",
    ),
    Mistake(
        _by(lambda weights, others, budget: 100 * _reference(weights, others, budget)),
        "This is a percentage. `prune` would refuse it: sparsity is a fraction of 1.",
    ),
    Mistake(
        _by(lambda weights, others, budget: weights + others - budget),
        "This is how *many* weights have to go. Which fraction of the weights is that?",
    ),
    Mistake(
        _by(lambda weights, others, budget: (weights + others) / budget),
        "This is the compression ratio that the device asks for. Which sparsity of the weights leads to it?",
    ),
    Mistake(
        _by(lambda weights, others, budget: (weights + others - budget) / budget),
        "The number that has to go is divided by the budget. It is a fraction of the weights.",
    ),
    Mistake(
        _by(lambda weights, others, budget: (weights + others - budget) / weights),
        "There is room for everything here, and a sparsity below 0 would be refused.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="sparsity_for")


def _judge(found: Any, weights: int, others: int, budget: int) -> None:
    sparsity, expected = read_number(found, "sparsity_for"), _reference(weights, others, budget)
    if math.isclose(sparsity, expected, rel_tol=1e-12, abs_tol=1e-12):
        return
    as_tensor = torch.tensor(expected, dtype=torch.float64)
    sizes = {"weights": weights, "others": others, "budget": budget}
    name_mistake(torch.tensor(sparsity, dtype=torch.float64), as_tensor, MISTAKES, **sizes)
    if not 0 <= sparsity <= 1:
        raise Wrong(f"A sparsity of {sparsity:.6g}: a fraction lies between 0 and 1.")
    left = weights + others - round(sparsity * weights)
    if left > budget:
        raise Wrong(f"At a sparsity of {sparsity:.6g} {left:,} parameters are left: too many for the device.")
    if left < budget and sparsity > expected:
        raise Wrong(f"At a sparsity of {sparsity:.6g} {left:,} parameters are left: fewer than there is room for.")


def _cases() -> list[Case]:
    tries = {
        "LeNet-300-100 on 8 × 8 digits, and room for 4,000": (50_200, 410, 4_000),
        "the same network, and room for a tenth": (50_200, 410, 5_061),
        "a network without biases": (1_000, 0, 250),
        "more others than weights": (300, 700, 800),
        "room for everything but one": (1_000, 50, 1_049),
        "room for just everything": (1_000, 50, 1_050),
        "more room than parameters": (1_000, 50, 5_000),
        "room for the others, and for nothing else": (1_000, 50, 50),
        "a large network": (700_001, 12_345, 70_007),
    }
    return [
        Case(about, dict(zip(("weights", "others", "budget"), sizes, strict=True))) for about, sizes in tries.items()
    ]


def _returning(expression: str) -> str:
    return f"def sparsity_for(weights, others, budget):\n    return {expression}"


WRONG = (
    (_returning("max(1 - budget / weights, 0)"), "The whole budget goes to the weights"),
    (_returning("(budget - others) / weights"), "that may .stay.. Sparsity"),
    (_returning("budget / weights"), "the others have been forgotten as well"),
    (_returning("budget / (weights + others)"), "of all parameters that may stay"),
    (_returning("max(1 - budget / (weights + others), 0)"), "a fraction of .all. parameters"),
    (_returning("100 * max(weights + others - budget, 0) / weights"), "This is a percentage"),
    (_returning("max(weights + others - budget, 0)"), "how .many. weights have to go"),
    (_returning("(weights + others) / budget"), "the compression ratio that the device asks for"),
    (_returning("(weights + others - budget) / budget"), "divided by the budget"),
    (_returning("(weights + others - budget) / weights"), "a sparsity below 0 would be refused"),
    (_returning("round(max(weights + others - budget, 0) / weights, 1)"), "too many for the device"),
    (_returning("min(1, max(weights + others - budget, 0) / weights + 0.05)"), "fewer than there is room for"),
    (_returning("2 * (weights + others - budget) / weights"), "between 0 and 1"),
    (_returning("(weights + others - budget, weights)"), "returns the tuple"),
    (_returning("'0.9'"), "returns the str"),
    (_returning("(weights + others - budget) / (weights - weights)"), "raised ZeroDivisionError"),
    ("def sparsity_for(weights, others, budget):\n    sparsity = 0.9", "Is a `return` missing"),
    ("def sparsity_for(model, budget):\n    return 0.9", r"yours takes `\(model, budget\)`"),
    ("sparsity_for = 0.9", "needs the function itself"),
)

QUESTION = Question(
    name="q3",
    kind="code",
    title="A sparsity for a budget",
    task=TASK,
    answer="sparsity_for",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
