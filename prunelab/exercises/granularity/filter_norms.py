"""q2, code: the L1 norm of each filter of a convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake, require_form, same
from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong
from prunelab.granularity import Filter

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `filter_norms(weight)`: the L1 norm of each filter of a convolution's weight. The weight has the shape
(O, I/g, kH, kW); the result has the shape (O,), and the weight's dtype and device.
"""

STARTER = '''\
def filter_norms(weight):
    """The L1 norm of each filter: weight (O, I/g, kH, kW) -> norms (O,)."""
    ...'''

SOLUTION = '''\
def filter_norms(weight):
    """The L1 norm of each filter: weight (O, I/g, kH, kW) -> norms (O,)."""
    matrix = weight.reshape(weight.shape[0], -1)  # (O, I/g·kH·kW): units × members
    return matrix.abs().sum(dim=1)'''

HINTS = (
    "A filter is everything that makes one output channel. Which dimension of the weight counts output channels? That "
    "one stays; the norm runs over all the others.",
    "View the weight as the matrix of units × members first: one row a filter, and however many columns that leaves.",
    "`reshape` with a -1 makes the matrix. The L1 norm of a row is the sum of the absolute values of its entries.",
)

TAKEAWAY = (
    "A filter norm is the weight magnitude, at another granularity: the same row norm of another view. Nothing in it "
    "depends on the order of the filters, and scaling the weight only scales the scores."
)

MISTAKES = (
    Mistake(lambda weight: weight.flatten(1).norm(dim=1), "These are L2 norms; the task asks for L1."),
    Mistake(
        lambda weight: weight.square().flatten(1).sum(1), "These are sums of squares; the L1 norm does not square."
    ),
    Mistake(
        lambda weight: weight.flatten(1).sum(1),
        "These are plain sums: weights of opposite sign cancel, and a filter of large weights can score zero.",
    ),
    Mistake(
        lambda weight: weight.flatten(1).sum(1).abs(),
        "The absolute value comes too late: weights of opposite sign have already cancelled in the sum.",
    ),
    Mistake(lambda weight: weight.abs().flatten(1).mean(1), "These are mean magnitudes; a norm does not divide."),
    Mistake(lambda weight: weight.abs().flatten(1).amax(1), "These are the largest magnitudes: the norm L∞, not L1."),
    Mistake(
        lambda weight: weight.abs().sum((0, 2, 3)),
        "There is one norm for each *input* channel: you summed over the dimension that counts the filters.",
    ),
    Mistake(
        lambda weight: weight.abs().sum((2, 3)),
        "There is one norm for each *kernel*: a filter is all the kernels that make one output channel.",
    ),
    Mistake(lambda weight: weight.abs().sum(1), "You summed over the input channels only; the kernel is left."),
    Mistake(lambda weight: weight.abs().sum(), "There is one norm for the whole layer; each filter needs its own."),
    Mistake(
        lambda weight: weight.abs().flatten(1).sum(0).amax(),
        "This is the matrix norm of the whole view: it needs a `dim` to be the norm of each row.",
    ),
    Mistake(
        lambda weight: weight.abs().sum((1, 2, 3), keepdim=True),
        "The values are right, but the summed dimensions are still there, with length 1.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="filter_norms")


def _judge(found: Any, weight: Tensor) -> None:
    expected = Filter().view(weight).norm(p=1, dim=1)
    name_mistake(found, expected, MISTAKES, weight=weight)
    require_form(found, like=expected, per="filter")
    if not same(found, expected):
        if not torch.isfinite(found).all():
            raise Wrong("The result has NaN or infinite values. Does it divide by something that is zero here?")
        wrong = sum(not same(one, other) for one, other in zip(found, expected, strict=True))
        raise Wrong(f"{wrong} of the {len(expected)} norms are not the L1 norms of the filters.")


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 4, 3, 5, generator=draw)
    zeroed = weight * torch.tensor([1, 0, 1, 1, 0, 0, 1, 1]).reshape(8, 1, 1, 1)
    weights = {
        "a random weight (8, 4, 3, 5)": weight,
        "the same filters in another order": weight[torch.randperm(8, generator=draw)],
        "the same weight times -1000": -1000 * weight,
        "a grouped convolution: 6 filters that each read 2 of the 4 input channels": torch.randn(
            6, 2, 3, 3, generator=draw
        ),
        "a 1 × 1 convolution with a single filter": torch.randn(1, 5, 1, 1, generator=draw),
        "a weight in which some filters are zero": zeroed,
        "a weight of zeros": torch.zeros(3, 2, 3, 3),
        "a weight in double precision": torch.randn(4, 3, 3, 3, generator=draw, dtype=torch.float64),
    }
    if torch.cuda.is_available():
        weights["a weight on the GPU"] = weight.cuda()
    return [Case(about, {"weight": weight}) for about, weight in weights.items()]


def _returning(expression: str) -> str:
    return f"def filter_norms(weight):\n    return {expression}"


WRONG = (
    (_returning("weight.flatten(1).norm(dim=1)"), "These are L2 norms"),
    (_returning("weight.square().flatten(1).sum(1)"), "sums of squares"),
    (_returning("weight.sum((1, 2, 3))"), "plain sums"),
    (_returning("weight.sum((1, 2, 3)).abs()"), "comes too late"),
    (_returning("weight.abs().mean((1, 2, 3))"), "mean magnitudes"),
    (_returning("weight.flatten(1).abs().amax(1)"), "largest magnitudes"),
    (_returning("weight.abs().sum((0, 2, 3))"), "each .input. channel"),
    (_returning("weight.abs().sum((2, 3))"), "each .kernel."),
    (_returning("weight.abs().sum(1)"), "the kernel is left"),
    (_returning("weight.abs().sum()"), "whole layer"),
    (_returning("torch.linalg.norm(weight.flatten(1), 1)"), "matrix norm"),
    (_returning("weight.abs().sum((1, 2, 3), keepdim=True)"), "still there, with length 1"),
    (_returning("weight.abs_().sum((1, 2, 3))"), "modified its input `weight` in place"),
    (_returning("weight.abs().sum((1, 2, 3)).tolist()"), "returns the list"),
    (_returning("weight.flatten(1).abs().sum(1)[:3]"), r"shape \(3,\); with one value for each filter"),
    (_returning("weight.double().abs().sum((1, 2, 3))"), "float64; it should be float32"),
    (_returning("weight.abs().sum((1, 2, 3)) / weight.abs().amax()"), "8 of the 8 norms"),
    (_returning("(n := weight.abs().sum((1, 2, 3))) * n.sum() / n.sum()"), "NaN or infinite"),
    (_returning("weight.abs().reshape(8, -1).sum(1)"), "raised RuntimeError"),
    (_returning("weight.abs().sum((1, 2, 3, 4))"), "raised IndexError"),
    ("def filter_norms(weight):\n    norms = weight.abs().sum((1, 2, 3))", "Is a `return` missing"),
    ("def filter_norms(weight, p):\n    return weight", r"yours takes `\(weight, p\)`"),
    ("filter_norms = torch.ones(8)", "needs the function itself"),
)

QUESTION = Question(
    name="q2",
    kind="code",
    title="The norm of a filter",
    task=TASK,
    answer="filter_norms",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
