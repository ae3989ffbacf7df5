"""q4, code: the mutual information of a contingency table."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
A table of counts says how often each bin of a channel's activation (rows) met each class (columns). Write
`mutual_information(counts)`: the mutual information of the two, in nats, as one number, estimated by taking the
frequencies for probabilities (no correction). `counts` is an int64 tensor (bins, classes) with at least one count;
cells, rows and columns may be empty, and an empty cell adds nothing.
"""

STARTER = '''\
def mutual_information(counts):
    """I(bin; class) in nats, from counts (bins, classes)."""
    ...'''

SOLUTION = '''\
def mutual_information(counts):
    """I(bin; class) in nats, from counts (bins, classes)."""
    joint = counts.double() / counts.sum()
    independent = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0, keepdim=True)
    some = joint > 0  # p ln p goes to 0 as p does
    return float((joint[some] * (joint[some] / independent[some]).log()).sum())'''

HINTS = (
    "Three sets of probabilities are needed: of each cell, of each row, and of each column. All come from the same "
    "counts, divided by the same total.",
    "If bin and class were independent, the probability of a cell would be that of its row times that of its column. "
    "Compare what is with what would be: the logarithm of the quotient, averaged over the cells as they occur.",
    "With `keepdim=True` the row sums and the column sums multiply to a table of the same shape. Take the sum over the "
    "cells that are not empty only: 0 · ln 0 counts as 0, but the computer says NaN.",
)

TAKEAWAY = (
    "Zero for independence, and at most the smaller of the two entropies. Bias grows with the number of occupied "
    "cells, which is why the library takes the Miller-Madow correction off and clamps at zero."
)


def _joint(counts: Tensor) -> Tensor:
    return counts.double() / counts.sum()


def _entropy(probabilities: Tensor) -> float:
    return -float(torch.xlogy(probabilities, probabilities).sum())


def _reference(counts: Tensor) -> float:
    """By entropies: H(bin) + H(class) - H(bin, class)."""
    joint = _joint(counts)
    return _entropy(joint.sum(1)) + _entropy(joint.sum(0)) - _entropy(joint)


def _corrected(counts: Tensor) -> float:
    occupied = int((counts > 0).sum()) - int(counts.any(1).sum()) - int(counts.any(0).sum()) + 1
    return _reference(counts) - occupied / (2 * int(counts.sum()))


def _smoothed(counts: Tensor) -> float:
    return _reference(counts + 1)


def _chi_square(counts: Tensor) -> float:
    joint = _joint(counts)
    chance = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return float(((joint - chance).square() / chance.where(chance > 0, 1)).sum())


def _pointwise(counts: Tensor) -> float:
    """The sum of the logarithms, not weighted by how often a cell occurs."""
    joint = _joint(counts)
    chance = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return float((joint / chance).where(joint > 0, 1).log().sum())


def _uniform(counts: Tensor) -> float:
    """The divergence from equal cells, in place of the product of row and column."""
    return math.log(counts.numel()) - _entropy(_joint(counts))


MISTAKES: tuple[tuple[Any, str], ...] = (
    (lambda counts: _reference(counts) / math.log(2), "This is the information in bits. The task asks for nats."),
    (lambda counts: _reference(counts) / math.log(10), "The logarithm has base 10. Nats come from the natural one."),
    (lambda counts: -_reference(counts), "The sign is turned round: mutual information is never negative."),
    (
        lambda counts: _reference(counts) * int(counts.sum()),
        "The value is that of all samples together: it is weighted by counts in place of probabilities.",
    ),
    (
        lambda counts: _entropy(_joint(counts)),
        "This is the entropy of the whole table. How much of it do rows and columns share?",
    ),
    (
        lambda counts: _entropy(_joint(counts).sum(1)),
        "This is the entropy of the bins alone; the classes have no part in it.",
    ),
    (
        lambda counts: _entropy(_joint(counts).sum(0)),
        "This is the entropy of the classes alone; the bins have no part in it.",
    ),
    (
        lambda counts: _entropy(_joint(counts)) - _entropy(_joint(counts).sum(1)),
        "This is what stays unknown of the class once the bin is known; the information is what becomes known.",
    ),
    (
        lambda counts: _entropy(_joint(counts)) - _entropy(_joint(counts).sum(0)),
        "This is what stays unknown of the bin once the class is known; the information is what becomes known.",
    ),
    (_corrected, "The Miller-Madow correction has been taken off. Here the plain estimate is asked for."),
    (_smoothed, "One has been added to every cell, which invents samples. An empty cell adds nothing."),
    (
        _chi_square,
        "This is the mean square contingency, chi-square over N, a relative. Information takes a logarithm.",
    ),
    (_pointwise, "The logarithms are added up as they are. Weight each cell by how often it occurs."),
    (_uniform, "The cells are compared with equal cells, and not with what independence would give."),
    (
        lambda counts: _reference(counts) / max(_entropy(_joint(counts).sum(0)), 1e-300),
        "This is the information as a share of the entropy of the classes. The task asks for nats.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="mutual_information")


def _judge(found: Any, counts: Tensor) -> None:
    number, expected = _number(found), _reference(counts)
    if math.isnan(number) or math.isinf(number):
        empty = "an empty cell makes 0 · ln 0" if bool((counts == 0).any()) else "what is divided by what"
        raise Wrong(f"The result is {number}. Look for where it comes from: {empty}.")
    if _near(number, expected):
        return
    for mistake, message in MISTAKES:
        value = mistake(counts)
        if _near(number, value) and not _near(value, expected):
            raise Wrong(message)
    if number < -1e-9:
        raise Wrong("The result is negative, which mutual information never is.")
    if number > _entropy(_joint(counts).sum(0)) + 1e-6:
        raise Wrong("The result is larger than the entropy of the classes: there is no more to know than that.")
    raise Wrong(f"The result is too {'small' if number < expected else 'large'}.")


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= 2e-5 * max(1.0, abs(other))


def _number(found: Any) -> float:
    try:
        if isinstance(found, bool | str | bytes) or (isinstance(found, Tensor) and found.numel() != 1):
            raise TypeError
        return float(found)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise Wrong(f"The function returns {describe(found)}; it should return one number.") from None


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(0)
    full = torch.randint(1, 30, (4, 3), generator=draw)
    tries = {
        "a table without empty cells": full,
        "the same table with its rows in another order": full.flip(0),
        "a table that is larger": torch.randint(1, 9, (7, 10), generator=draw),
        "some cells are empty": torch.tensor([[5, 0, 2], [0, 8, 1], [3, 3, 0], [9, 0, 0]]),
        "an empty row and an empty column": torch.tensor([[4, 0, 1], [0, 0, 0], [2, 0, 7]]),
        "independent: every row is a multiple of the first": torch.tensor([[1, 2, 3], [2, 4, 6], [10, 20, 30]]),
        "the bin tells the class for certain": torch.tensor([[7, 0, 0], [0, 0, 11], [0, 5, 0]]),
        "a single sample": torch.tensor([[0, 0], [0, 1]]),
        "a single bin, which tells nothing": torch.tensor([[3, 4, 5]]),
    }
    return [Case(about, {"counts": counts}) for about, counts in tries.items()]


def _answer(
    *,
    joint: str = "counts.double() / counts.sum()",
    chance: str = "joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)",
    result: str = "float((joint[some] * (joint[some] / chance[some]).log()).sum())",
) -> str:
    """The solution with one step changed."""
    return f"""\
def mutual_information(counts):
    joint = {joint}
    chance = {chance}
    some = joint > 0
    return {result}"""


_ENTROPY = "-float(torch.xlogy({0}, {0}).sum())"
_TERMS = "(joint[some] * (joint[some] / chance[some]).log())"

WRONG = (
    (_answer(result="float((joint[some] * (joint[some] / chance[some]).log2()).sum())"), "information in bits"),
    (_answer(result="float((joint[some] * (joint[some] / chance[some]).log10()).sum())"), "base 10"),
    (_answer(result="float((joint[some] * (chance[some] / joint[some]).log()).sum())"), "sign is turned round"),
    (_answer(result="float((counts[some] * (joint[some] / chance[some]).log()).sum())"), "of all samples together"),
    (_answer(result=_ENTROPY.format("joint")), "entropy of the whole table"),
    (_answer(result=_ENTROPY.format("joint.sum(1)")), "entropy of the bins alone"),
    (_answer(result=_ENTROPY.format("joint.sum(0)")), "entropy of the classes alone"),
    (_answer(result="-float((joint * (joint / joint.sum(1, keepdim=True)).log()).sum())"), "unknown of the class"),
    (_answer(result="-float((joint * (joint / joint.sum(0, keepdim=True)).log()).sum())"), "unknown of the bin"),
    (
        _answer(
            result=f"float({_TERMS}.sum()) - float(some.sum() - counts.any(1).sum() - counts.any(0).sum() + 1)"
            " / (2 * int(counts.sum()))"
        ),
        "Miller-Madow correction has been taken off",
    ),
    (_answer(joint="(counts + 1).double() / (counts + 1).sum()"), "One has been added to every cell"),
    (_answer(result="float(((joint - chance) ** 2 / chance).sum())"), "mean square contingency"),
    (_answer(result="float((joint[some] / chance[some]).log().sum())"), "Weight each cell"),
    (_answer(chance="torch.full_like(joint, 1 / joint.numel())"), "compared with equal cells"),
    (
        _answer(result=f"float({_TERMS}.sum()) / -float(torch.xlogy(joint.sum(0), joint.sum(0)).sum())"),
        "a share of the entropy",
    ),
    (_answer(result="float((joint * (joint / chance).log()).sum())"), "an empty cell makes"),
    (_answer(joint="counts.double()"), "The result is negative"),
    (_answer(result=f"float({_TERMS}.abs().sum()) + 9"), "larger than the entropy of the classes"),
    (_answer(result=f"float({_TERMS}.sum()) / 2"), "too small"),
    (_answer(result=f"float({_TERMS}.abs().sum())"), "too large"),
    (_answer(result="joint"), "returns a float64 Tensor"),
    (_answer(result="joint.sum(5)"), "raised IndexError"),
    (_answer(joint="counts.log_()"), "raised RuntimeError"),
    (
        "def mutual_information(counts):\n    counts += 1\n    return float(counts.sum())",
        "modified its input `counts` in place",
    ),
    ("def mutual_information(counts):\n    counts / counts.sum()", "Is a `return` missing"),
    ("def mutual_information(x, y):\n    return 0.0", r"yours takes `\(x, y\)`"),
    ("mutual_information = 0.5", "needs the function itself"),
)

QUESTION = Question(
    name="q4",
    kind="code",
    title="The mutual information of a table",
    task=TASK,
    answer="mutual_information",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
