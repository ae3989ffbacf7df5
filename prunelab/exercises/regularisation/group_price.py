"""q2, code: the group lasso price of a convolution's filters."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake
from prunelab.exercises.core import Material, Question
from prunelab.exercises.number import read_number
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `group_lasso(weight)`: the group lasso price of a convolution's filters at strength 1, as one number. The weight
has the shape (O, I/g, kH, kW), the layer has no bias. Two mistakes have been made often enough to have names: a sum
that is L1 whatever the units are, and one that is L2.
"""

STARTER = '''\
def group_lasso(weight):
    """The group lasso price of a convolution's filters: one number.

    weight: (O, I/g, kH, kW)
    """
    ...'''

SOLUTION = '''\
def group_lasso(weight):
    """The group lasso price of a convolution's filters: one number.

    weight: (O, I/g, kH, kW)
    """
    matrix = weight.reshape(weight.shape[0], -1)  # (O, I/g·kH·kW): units × members
    return matrix.shape[1] ** 0.5 * matrix.square().sum(dim=1).sqrt().sum()'''

HINTS = (
    "View the weight as the matrix of units × members first: one row a filter. What is the size of a unit then?",
    "Three nested operations: square and add *inside* a row, take the root *of each row*, and only then add the rows.",
    "The root of the size is the same for all filters of a layer, so it can stand in front of the sum.",
)

TAKEAWAY = (
    "The root stands between two sums. Without it the sums merge into one, and the units are gone from the formula: "
    "that is L2. With the absolute value in the place of the square they merge as well: that is L1."
)


def _rows(weight: Tensor) -> Tensor:
    return weight.reshape(weight.shape[0], math.prod(weight.shape[1:]))


def _price(matrix: Tensor) -> Tensor:
    return math.sqrt(matrix.shape[1]) * matrix.norm(dim=1).sum()


MISTAKES = (
    Mistake(
        lambda weight: weight.abs().sum(),
        "This is the sum of all magnitudes: L1, whatever the units are. Inside a unit the norm is Euclidean.",
    ),
    Mistake(
        lambda weight: math.sqrt(_rows(weight).shape[1]) * weight.abs().sum(),
        "These are L1 norms times the root of the size: again L1, only stronger. Inside a unit the norm is Euclidean.",
    ),
    Mistake(
        lambda weight: weight.square().sum(),
        "This is the sum of all squares: L2, whatever the units are. A root is missing.",
    ),
    Mistake(
        lambda weight: math.sqrt(_rows(weight).shape[1]) * weight.square().sum(),
        "The norms are squared. A squared norm fades near zero, so no unit would ever end.",
    ),
    Mistake(
        lambda weight: _rows(weight).norm(dim=1).sum(),
        "The factor for the size of the units is missing: large units would be cheap.",
    ),
    Mistake(
        lambda weight: _rows(weight).shape[1] * _rows(weight).norm(dim=1).sum(),
        "The factor is the *root* of the size, not the size.",
    ),
    Mistake(
        lambda weight: math.sqrt(weight.shape[0]) * _rows(weight).norm(dim=1).sum(),
        "The size of a unit is the number of its weights; you took the number of units.",
    ),
    Mistake(
        lambda weight: math.sqrt(weight[0, 0].numel()) * _rows(weight).norm(dim=1).sum(),
        "The size of a unit counts all of its weights, those of every input channel; you took the size of one kernel.",
    ),
    Mistake(
        lambda weight: _price(_rows(weight.transpose(0, 1))),
        "These are the units of the second dimension: everything that reads one *input* channel.",
    ),
    Mistake(lambda weight: _price(weight.flatten(0, 1).flatten(1)), "These are kernels; a filter has several of them."),
    Mistake(
        lambda weight: math.sqrt(weight.numel()) * weight.norm(),
        "There is one root around everything: that makes the whole layer one unit.",
    ),
    Mistake(
        lambda weight: _price(_rows(weight)) / weight.shape[0],
        "This is the mean over the units. The price is a sum: more units cost more.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="group_lasso")


def _judge(found: Any, weight: Tensor) -> None:
    value, expected = read_number(found, "group_lasso"), _price(_rows(weight.detach().cpu())).float()
    weight = weight.detach().cpu().float()
    name_mistake(torch.tensor(value), expected, MISTAKES, weight=weight)
    if not math.isfinite(value):
        raise Wrong("The result is not finite. Does it divide by something that is zero here?")
    if abs(value - expected.item()) > 1e-5 * expected.item():
        much = "large" if value > expected.item() else "small"
        raise Wrong(f"The price is too {much}. Work it out by hand for one filter of two weights.")


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 4, 3, 5, generator=draw)
    weights = {
        "a random weight (8, 4, 3, 5)": weight,
        "the same filters in another order": weight[torch.randperm(8, generator=draw)],
        "the same weight times -100": -100 * weight,
        "a grouped convolution: 6 filters that each read 2 of the 4 input channels": torch.randn(
            6, 2, 3, 3, generator=draw
        ),
        "a 1 × 1 convolution with a single filter": torch.randn(1, 5, 1, 1, generator=draw),
        "a weight in which some filters are zero": weight * (torch.arange(8) % 3 > 0).reshape(8, 1, 1, 1),
        "a weight of zeros": torch.zeros(3, 2, 3, 3),
        "a weight in double precision": torch.randn(4, 3, 3, 3, generator=draw, dtype=torch.float64),
    }
    if torch.cuda.is_available():
        weights["a weight on the GPU"] = weight.cuda()
    return [Case(about, {"weight": weight}) for about, weight in weights.items()]


def _returning(expression: str) -> str:
    return f"def group_lasso(weight):\n    rows = weight.flatten(1)\n    return {expression}"


WRONG = (
    (_returning("weight.abs().sum()"), "L1, whatever the units are"),
    (_returning("60**0.5 * rows.abs().sum()"), "again L1, only stronger"),
    (_returning("weight.square().sum()"), "L2, whatever the units are"),
    (_returning("60**0.5 * weight.square().sum()"), "The norms are squared"),
    (_returning("rows.norm(dim=1).sum()"), "The factor for the size of the units is missing"),
    (_returning("rows.shape[1] * rows.norm(dim=1).sum()"), "the .root. of the size"),
    (_returning("len(weight)**0.5 * rows.norm(dim=1).sum()"), "you took the number of units"),
    (_returning("15**0.5 * rows.norm(dim=1).sum()"), "you took the size of one kernel"),
    (_returning("120**0.5 * torch.linalg.vector_norm(weight, dim=(0, 2, 3)).sum()"), "one .input. channel"),
    (_returning("15**0.5 * weight.norm(dim=(2, 3)).sum()"), "These are kernels"),
    (_returning("weight.numel()**0.5 * weight.norm()"), "the whole layer one unit"),
    (_returning("rows.shape[1]**0.5 * rows.norm(dim=1).mean()"), "the mean over the units"),
    (_returning("rows.shape[1]**0.5 * rows.norm(dim=1)"), "it should return one number"),
    (_returning("rows.shape[1]**0.5 * rows.norm(dim=1).sum() + 1"), "too large"),
    (_returning("rows.shape[1]**0.5 * rows.norm(dim=1)[1:].sum()"), "too small"),
    (
        _returning("(p := rows.shape[1]**0.5 * rows.norm(dim=1).sum()) * rows.norm() / rows.norm()"),
        "The result is not finite",
    ),
    (_returning("weight.square_().sum()"), "modified its input `weight` in place"),
    (_returning("rows.norm(dim=7).sum()"), "raised IndexError"),
    ("def group_lasso(weight):\n    price = weight.norm()", "Is a `return` missing"),
    ("def group_lasso(weight, size):\n    return weight", r"yours takes `\(weight, size\)`"),
    ("group_lasso = 3.5", "needs the function itself"),
)

QUESTION = Question(
    name="q2",
    kind="code",
    title="The price of filters",
    task=TASK,
    answer="group_lasso",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
