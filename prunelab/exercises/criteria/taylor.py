"""q2, code: the Taylor score of each filter, the sum inside the absolute value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunelab.criteria import Taylor
from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake, require_form, same
from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong
from prunelab.granularity import Filter

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `taylor_scores(weight, gradient)`: by how much the loss changes, to first order and with the sign left out, when
a filter of a convolution is removed. Both tensors have the shape (O, I/g, kH, kW), `gradient` is that of the mean loss
with respect to `weight`; the result has the shape (O,), and the weight's dtype and device.
"""

STARTER = '''\
def taylor_scores(weight, gradient):
    """|change of the loss| without each filter, first order: (O,)."""
    ...'''

SOLUTION = '''\
def taylor_scores(weight, gradient):
    """|change of the loss| without each filter, first order: (O,)."""
    change = -weight * gradient  # of the loss, if this weight alone goes to zero
    return change.flatten(1).sum(dim=1).abs()  # a filter's weights go together'''

HINTS = (
    "Removing a weight moves it by minus itself. To first order the loss changes by slope times step.",
    "A filter's weights all go at once. What one of them adds to the loss another may take off: add their changes up "
    "with their signs, over everything that belongs to the filter.",
    "Three steps: multiply elementwise, add up over all dimensions but the first, and leave the sign out last.",
)

TAKEAWAY = (
    "The members of a unit go together, so their predicted changes add up before the sign is dropped. Scaling the "
    "weights by c and their gradients by 1/c leaves the score as it is."
)


def _sums(weight: Tensor, gradient: Tensor) -> Tensor:
    return (weight * gradient).flatten(1).sum(1)


MISTAKES = (
    Mistake(
        lambda weight, gradient: (weight * gradient).abs().flatten(1).sum(1),
        "The absolute value comes too early: what the weights of one filter would cancel is added up instead.",
    ),
    Mistake(
        _sums,
        "The sign is still there. Sorted like this, the filters whose removal raises the loss most would go first.",
    ),
    Mistake(
        lambda weight, gradient: -_sums(weight, gradient),
        "This is the predicted change itself. Its sign is to be left out: a change either way means that the filter "
        "does something.",
    ),
    Mistake(
        lambda weight, gradient: _sums(weight, gradient).square(),
        "These are the squares. They rank alike, but the task asks for the change itself, in the unit of the loss.",
    ),
    Mistake(
        lambda weight, gradient: (weight * gradient).square().flatten(1).sum(1),
        "This squares the change of every single weight. The weights of a filter go together.",
    ),
    Mistake(
        lambda weight, gradient: _sums(weight.abs(), gradient).abs(),
        "The weight has lost its sign: the step is -w, not -|w|.",
    ),
    Mistake(
        lambda weight, gradient: gradient.abs().flatten(1).sum(1),
        "This is gradient magnitude. How far does each weight move when it is removed?",
    ),
    Mistake(
        lambda weight, gradient: gradient.flatten(1).sum(1).abs(),
        "The weights are missing: a slope alone is no change. How far does each weight move when it is removed?",
    ),
    Mistake(
        lambda weight, gradient: weight.abs().flatten(1).sum(1),
        "This is the filter norm; the slope is missing.",
    ),
    Mistake(
        lambda weight, gradient: (weight.flatten(1).sum(1) * gradient.flatten(1).sum(1)).abs(),
        "This multiplies two sums. Each weight has a slope of its own: multiply first, add up then.",
    ),
    Mistake(
        lambda weight, gradient: weight.flatten(1).norm(dim=1) * gradient.flatten(1).norm(dim=1),
        "This multiplies two norms: the most that such weights and gradients could do, not what they do.",
    ),
    Mistake(
        lambda weight, gradient: (weight * gradient).flatten(1).mean(1).abs(),
        "This is the mean over the filter's weights. The loss changes by their sum.",
    ),
    Mistake(
        lambda weight, gradient: (weight * gradient).sum((0, 2, 3)).abs(),
        "There is one score for each *input* channel: you summed over the dimension that counts the filters.",
    ),
    Mistake(
        lambda weight, gradient: (weight * gradient).sum((2, 3)).abs(),
        "There is one score for each *kernel*: a filter is all the kernels that make one output channel.",
    ),
    Mistake(
        lambda weight, gradient: (weight * gradient).sum((2, 3)).abs().sum(1),
        "The absolute value is taken kernel by kernel. All kernels of a filter go together.",
    ),
    Mistake(
        lambda weight, gradient: (weight * gradient).abs(),
        "There is one score for each single weight. What is the sum over?",
    ),
    Mistake(
        lambda weight, gradient: (weight * gradient).sum().abs(),
        "There is one score for the whole layer; each filter needs its own.",
    ),
    Mistake(
        lambda weight, gradient: (weight - gradient).flatten(1).sum(1).abs(),
        "This is a step of gradient descent. Removal is another step: it leads to zero.",
    ),
    Mistake(
        lambda weight, gradient: (weight * gradient).sum((1, 2, 3), keepdim=True).abs(),
        "The values are right, but the summed dimensions are still there, with length 1.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="taylor_scores")


def _judge(found: Any, weight: Tensor, gradient: Tensor) -> None:
    expected = Taylor().score(Filter().view(weight), Filter().view(gradient), None)
    name_mistake(found, expected, MISTAKES, weight=weight, gradient=gradient)
    require_form(found, like=expected, per="filter")
    if not same(found, expected):
        if not torch.isfinite(found).all():
            raise Wrong("The result has NaN or infinite values. Does it divide by something that is zero here?")
        wrong = sum(not same(one, other) for one, other in zip(found, expected, strict=True))
        raise Wrong(f"{wrong} of the {len(expected)} scores are not what removing the filter costs to first order.")


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(0)

    def pair(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        # Multiples of 1/64: their products add up exactly in any order, also where they cancel.
        first, second = torch.randint(-256, 257, (2, *shape), generator=draw) / 64
        return first.to(dtype), second.to(dtype)

    weight, gradient = pair(8, 4, 3, 5)
    order = torch.randperm(8, generator=draw)
    idle = gradient * torch.tensor([1, 0, 1, 1, 0, 0, 1, 1]).reshape(8, 1, 1, 1)
    cancel = torch.stack([weight[0], -weight[0]], dim=1)  # (4, 2, 3, 5): what one half adds, the other takes off
    tries = {
        "random tensors (8, 4, 3, 5)": (weight, gradient),
        "the same filters in another order": (weight[order], gradient[order]),
        "weights times -8, gradients divided by 8": (-8 * weight, gradient / 8),
        "a grouped convolution: 6 filters that each read 2 of the 4 input channels": pair(6, 2, 3, 3),
        "some filters have no gradient at all": (weight, idle),
        "in each filter one half cancels the other": (cancel, torch.ones_like(cancel)),
        "a single filter": pair(1, 5, 1, 1),
        "gradients of zero, as at a minimum": (weight, torch.zeros_like(weight)),
        "tensors in double precision": pair(4, 3, 3, 3, dtype=torch.float64),
    }
    if torch.cuda.is_available():
        tries["tensors on the GPU"] = (weight.cuda(), gradient.cuda())
    return [Case(about, {"weight": one, "gradient": other}) for about, (one, other) in tries.items()]


def _answer(result: str, before: str = "") -> str:
    line = f"    {before}\n" if before else ""
    return f"def taylor_scores(weight, gradient):\n{line}    return {result}"


WRONG = (
    (_answer("(weight * gradient).abs().sum((1, 2, 3))"), "comes too early"),
    (_answer("(weight * gradient).sum((1, 2, 3))"), "The sign is still there"),
    (_answer("(-weight * gradient).sum((1, 2, 3))"), "the predicted change itself"),
    (_answer("(weight * gradient).sum((1, 2, 3)) ** 2"), "They rank alike"),
    (_answer("((weight * gradient) ** 2).sum((1, 2, 3))"), "squares the change of every single weight"),
    (_answer("(weight.abs() * gradient).sum((1, 2, 3)).abs()"), "The weight has lost its sign"),
    (_answer("gradient.abs().sum((1, 2, 3))"), "This is gradient magnitude"),
    (_answer("gradient.sum((1, 2, 3)).abs()"), "The weights are missing"),
    (_answer("weight.abs().sum((1, 2, 3))"), "This is the filter norm"),
    (_answer("(weight.sum((1, 2, 3)) * gradient.sum((1, 2, 3))).abs()"), "multiplies two sums"),
    (_answer("weight.flatten(1).norm(dim=1) * gradient.flatten(1).norm(dim=1)"), "multiplies two norms"),
    (_answer("(weight * gradient).mean((1, 2, 3)).abs()"), "This is the mean over"),
    (_answer("(weight * gradient).sum((0, 2, 3)).abs()"), "each .input. channel"),
    (_answer("(weight * gradient).sum((2, 3)).abs()"), "each .kernel."),
    (_answer("(weight * gradient).sum((2, 3)).abs().sum(1)"), "kernel by kernel"),
    (_answer("(weight * gradient).abs()"), "each single weight"),
    (_answer("(weight * gradient).sum().abs()"), "one score for the whole layer"),
    (_answer("(weight - gradient).sum((1, 2, 3)).abs()"), "a step of gradient descent"),
    (_answer("(weight * gradient).sum((1, 2, 3), keepdim=True).abs()"), "with length 1"),
    (_answer("(weight * gradient).sum((1, 2, 3)).abs().double()"), "float64; it should be float32"),
    (_answer("(weight * gradient).sum((1, 2, 3)).abs().tolist()"), "it should return a tensor"),
    (_answer("(weight * gradient).sum((1, 2, 3)).abs()[1:]"), r"shape \(7,\); with one value for each filter"),
    (_answer("x / x.max()", "x = (weight * gradient).sum((1, 2, 3)).abs()"), "8 of the 8 scores|7 of the 8 scores"),
    (_answer("gradient.mul_(weight).sum((1, 2, 3)).abs()"), "modified its input `gradient` in place"),
    (_answer("(weight @ gradient).sum((1, 2, 3)).abs()"), "raised RuntimeError"),
    (_answer("weight.grad.sum((1, 2, 3))"), "raised AttributeError"),
    ("def taylor_scores(weight, gradient):\n    (weight * gradient).sum()", "Is a `return` missing"),
    ("def taylor_scores(weight):\n    return weight", r"yours takes `\(weight\)`"),
    ("taylor_scores = torch.ones(8)", "needs the function itself"),
)

QUESTION = Question(
    name="q2",
    kind="code",
    title="The Taylor score of a filter",
    task=TASK,
    answer="taylor_scores",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
