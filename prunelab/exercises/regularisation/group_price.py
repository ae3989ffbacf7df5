"""q2, code: the group lasso price of a convolution's filters, with their biases."""

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
Write `group_lasso(weight, bias)`: the group lasso price of a convolution's filters at strength 1, as one number. The
weight has the shape (O, I/g, kH, kW). The bias of a filter belongs to its unit: `bias` has the shape (O,), or is None.
Two common mistakes give L1, or L2, whatever the units are.
"""

STARTER = '''\
def group_lasso(weight, bias):
    """The group lasso price of a convolution's filters: one number.

    weight: (O, I/g, kH, kW); bias: (O,), or None if there is none.
    """
    ...'''

SOLUTION = '''\
def group_lasso(weight, bias):
    """The group lasso price of a convolution's filters: one number.

    weight: (O, I/g, kH, kW); bias: (O,), or None if there is none.
    """
    squares = weight.square().sum(dim=(1, 2, 3))  # (O,)
    size = weight[0].numel()
    if bias is not None:
        squares = squares + bias.square()
        size = size + 1
    return size**0.5 * squares.sqrt().sum()'''

HINTS = (
    "List the members of one unit first: all the weights of a filter, and its bias if there is one. How many are they?",
    "Three nested operations: square and add *inside* a unit, take the root *of each unit*, and only then add the "
    "units. The square of the bias is one more number to add inside.",
    "The root of the size is the same for all filters of a layer, so it can stand in front of the sum. The size is "
    "I/g · kH · kW, and one more if there are biases.",
)

TAKEAWAY = (
    "The root stands between two sums. Without it the sums merge into one, and the units are gone from the formula: "
    "that is L2. With the absolute value in the place of the square they merge as well: that is L1. And a bias inside "
    "the root ends with its filter, so that a unit at zero outputs zero."
)


def _rows(weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """units × members."""
    rows = weight.reshape(weight.shape[0], math.prod(weight.shape[1:]))
    return rows if bias is None else torch.cat([rows, bias[:, None]], 1)


def _price(matrix: Tensor) -> Tensor:
    return math.sqrt(matrix.shape[1]) * matrix.norm(dim=1).sum()


def _lengths(weight: Tensor, bias: Tensor | None) -> Tensor:
    return _rows(weight, bias).norm(dim=1).sum()


def _sum_of(bias: Tensor | None) -> Tensor | float:
    return 0.0 if bias is None else bias.abs().sum()


MISTAKES = (
    Mistake(
        lambda weight, bias: _rows(weight, bias).abs().sum(),
        "This is the sum of all magnitudes: L1, whatever the units are. Inside a unit the norm is Euclidean.",
    ),
    Mistake(
        lambda weight, bias: math.sqrt(_rows(weight, bias).shape[1]) * _rows(weight, bias).abs().sum(),
        "These are L1 norms times the root of the size: again L1, only stronger. Inside a unit the norm is Euclidean.",
    ),
    Mistake(
        lambda weight, bias: _rows(weight, bias).square().sum(),
        "This is the sum of all squares: L2, whatever the units are. A root is missing.",
    ),
    Mistake(
        lambda weight, bias: math.sqrt(_rows(weight, bias).shape[1]) * _rows(weight, bias).square().sum(),
        "The norms are squared. A squared norm fades near zero, so no unit would ever end.",
    ),
    Mistake(
        lambda weight, **_: _price(_rows(weight)),
        "The biases are missing. The bias of a filter is one more member of its unit.",
    ),
    Mistake(
        lambda weight, bias: math.sqrt(_rows(weight).shape[1]) * _lengths(weight, bias),
        "The biases are inside the norms, but the size of a unit does not count them.",
    ),
    Mistake(
        lambda weight, bias: math.sqrt(_rows(weight, bias).shape[1]) * _lengths(weight, None),
        "The size of a unit counts its bias, but the norm leaves it out.",
    ),
    Mistake(
        lambda weight, bias: _price(_rows(weight)) + _sum_of(bias),
        "Each bias pays for itself, as a unit of its own. It belongs inside the norm of its filter.",
    ),
    Mistake(
        lambda weight, bias: math.sqrt(_rows(weight, bias).shape[1]) * (_lengths(weight, None) + _sum_of(bias)),
        "The biases are added to the lengths. They belong inside: square, add, and take the root only then.",
    ),
    Mistake(
        lambda weight, bias: math.sqrt(weight[0].numel() + 1) * _lengths(weight, bias),
        "Without a bias the size of a unit is the number of its weights, and no more.",
    ),
    Mistake(
        lambda weight, bias: _lengths(weight, bias),
        "The factor for the size of the units is missing: large units would be cheap.",
    ),
    Mistake(
        lambda weight, bias: _rows(weight, bias).shape[1] * _lengths(weight, bias),
        "The factor is the *root* of the size, not the size.",
    ),
    Mistake(
        lambda weight, bias: math.sqrt(weight.shape[0]) * _lengths(weight, bias),
        "The size of a unit is the number of its members; you took the number of units.",
    ),
    Mistake(
        lambda weight, bias: _rows(weight, bias).numel() ** 0.5 * _rows(weight, bias).norm(),
        "There is one root around everything: that makes the whole layer one unit.",
    ),
    Mistake(
        lambda weight, bias: _price(_rows(weight, bias)) / weight.shape[0],
        "This is the mean over the units. The price is a sum: more units cost more.",
    ),
    Mistake(
        lambda weight, **_: _price(_rows(weight.transpose(0, 1))),
        "These are the units of the second dimension: everything that reads one *input* channel.",
    ),
    Mistake(
        lambda weight, **_: _price(weight.flatten(0, 1).flatten(1)),
        "These are kernels; a filter has several of them.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="group_lasso")


def _judge(found: Any, weight: Tensor, bias: Tensor | None) -> None:
    weight = weight.detach().cpu().float()
    bias = None if bias is None else bias.detach().cpu().float()
    value, expected = read_number(found, "group_lasso"), _price(_rows(weight, bias))
    name_mistake(torch.tensor(value), expected, MISTAKES, weight=weight, bias=bias)
    if not math.isfinite(value):
        raise Wrong("The result is not finite. Does it divide by something that is zero here?")
    if abs(value - expected.item()) > 1e-5 * expected.item():
        much = "large" if value > expected.item() else "small"
        raise Wrong(f"The price is too {much}. Work it out by hand for one filter of two weights and a bias.")


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(8, 4, 3, 5, generator=draw), 3 * torch.randn(8, generator=draw)
    order = torch.randperm(8, generator=draw)
    kept = (torch.arange(8) % 3 > 0).float()
    grouped = torch.randn(6, 2, 3, 3, generator=draw)
    single = torch.randn(1, 5, 1, 1, generator=draw)
    tries: dict[str, tuple[Tensor, Tensor | None]] = {
        "a random weight (8, 4, 3, 5) with biases": (weight, bias),
        "the same filters in another order": (weight[order], bias[order]),
        "the same weight without biases": (weight, None),
        "all of it times -100": (-100 * weight, -100 * bias),
        "a grouped convolution: 6 filters that each read 2 of the 4 input channels": (grouped, bias[:6].clone()),
        "a 1 × 1 convolution with a single filter, without a bias": (single, None),
        "filters some of which are zero, biases and all": (weight * kept.reshape(8, 1, 1, 1), bias * kept),
        "filters some of which are zero, and say their bias": (weight * kept.reshape(8, 1, 1, 1), bias),
        "a weight of zeros": (torch.zeros(3, 2, 3, 3), torch.zeros(3)),
        "a weight in double precision": (torch.randn(4, 3, 3, 3, generator=draw).double(), bias[:4].double()),
    }
    if torch.cuda.is_available():
        tries["a weight on the GPU"] = (weight.cuda(), bias.cuda())
    return [Case(about, {"weight": weight, "bias": bias}) for about, (weight, bias) in tries.items()]


def _returning(expression: str) -> str:
    return (
        "def group_lasso(weight, bias):\n"
        "    w = weight.flatten(1)\n"
        "    rows = w if bias is None else torch.cat([w, bias[:, None]], 1)\n"
        "    n = rows.shape[1]\n"
        f"    return {expression}"
    )


WRONG = (
    (_returning("rows.abs().sum()"), "L1, whatever the units are"),
    (_returning("n**0.5 * rows.abs().sum()"), "again L1, only stronger"),
    (_returning("rows.square().sum()"), "L2, whatever the units are"),
    (_returning("n**0.5 * rows.square().sum()"), "The norms are squared"),
    (_returning("w.shape[1]**0.5 * w.norm(dim=1).sum()"), "The biases are missing"),
    (_returning("w.shape[1]**0.5 * rows.norm(dim=1).sum()"), "the size of a unit does not count them"),
    (_returning("n**0.5 * w.norm(dim=1).sum()"), "but the norm leaves it out"),
    (_returning("60**0.5 * w.norm(dim=1).sum() + bias.abs().sum()"), "as a unit of its own"),
    (_returning("n**0.5 * (w.norm(dim=1) + bias.abs()).sum()"), "The biases are added to the lengths"),
    (_returning("(weight[0].numel() + 1)**0.5 * rows.norm(dim=1).sum()"), "Without a bias the size of a unit"),
    (_returning("rows.norm(dim=1).sum()"), "The factor for the size of the units is missing"),
    (_returning("n * rows.norm(dim=1).sum()"), "the .root. of the size"),
    (_returning("len(weight)**0.5 * rows.norm(dim=1).sum()"), "you took the number of units"),
    (_returning("rows.numel()**0.5 * rows.norm()"), "the whole layer one unit"),
    (_returning("n**0.5 * rows.norm(dim=1).mean()"), "the mean over the units"),
    (_returning("120**0.5 * torch.linalg.vector_norm(weight, dim=(0, 2, 3)).sum()"), "one .input. channel"),
    (_returning("15**0.5 * weight.norm(dim=(2, 3)).sum()"), "These are kernels"),
    (_returning("n**0.5 * rows.norm(dim=1)"), "it should return one number"),
    (_returning("n**0.5 * rows.norm(dim=1).sum() + 1"), "too large"),
    (_returning("n**0.5 * rows.norm(dim=1)[1:].sum()"), "too small"),
    (_returning("(p := n**0.5 * rows.norm(dim=1).sum()) * rows.norm() / rows.norm()"), "The result is not finite"),
    (_returning("weight.square_().sum()"), "modified its input `weight` in place"),
    (_returning("rows.norm(dim=7).sum()"), "raised IndexError"),
    (
        "def group_lasso(weight, bias):\n    return 61**0.5 * (weight.square().sum((1, 2, 3)) + bias**2).sqrt().sum()",
        "raised TypeError",
    ),
    ("def group_lasso(weight, bias):\n    price = weight.norm()", "Is a `return` missing"),
    ("def group_lasso(weight):\n    return weight", r"yours takes `\(weight\)`"),
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
