"""q4, code: edge-popup, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import require_form, same
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `popup(weight, scores, keep, slope)`: edge-popup for one layer, without autograd. `weight` and `scores` are
tensors (O, I); `slope` (O, I) is the slope of the loss in the weights *in use*, as if all of them could move. It
returns two tensors (O, I): the weights in use at the forward (zero where they are out of use), and the gradient of the
loss in the scores, with the choice let through as in the chapter's equation.

Exactly `round(keep * N)` of the layer's N weights are in use, those with the largest |score|; of equals the first goes
out of use first. Nothing is written to what is given.
"""

STARTER = '''\
def popup(weight, scores, keep, slope):
    """(weights in use, gradient of the scores), each (O, I)."""
    ...'''

SOLUTION = '''\
def popup(weight, scores, keep, slope):
    """(weights in use, gradient of the scores), each (O, I)."""
    order = scores.abs().flatten().argsort(stable=True)
    used = torch.zeros_like(scores).flatten()
    used[order[len(order) - round(keep * len(order)) :]] = 1
    return weight * used.reshape(weight.shape), slope * weight * scores.sign()'''

HINTS = (
    "Forwards: sort all |scores| of the layer together, stably, and use the weights of the last ones. Count how many "
    "that are before you slice.",
    "Backwards: if a gate of 0 or 1 multiplies the weight, what is the slope of the loss in the gate? The chain rule "
    "needs one factor more than `slope`.",
    "The gate is let through as |s|, and that has a derivative of its own. A weight out of use has a slope too: the "
    "choice plays no part backwards.",
)

TAKEAWAY = (
    "A weight out of use still hears what it would do for the loss, so its score can bring it back. That is all there "
    "is to it: the weights never move."
)


def _used(scores: Tensor, keep: float, count: Callable[[float], int] = round, *, flip: bool = False) -> Tensor:
    sizes = scores.abs().flatten().tolist()
    order = sorted(range(len(sizes)), key=lambda i: (sizes[i], -i if flip else i))
    used = torch.zeros(len(sizes), dtype=scores.dtype)
    used[order[len(order) - min(len(order), max(0, count(keep * len(order)))) :]] = 1
    return used.reshape(scores.shape)


def _forward(weight: Tensor, scores: Tensor, keep: float, slope: Tensor) -> Tensor:
    return weight * _used(scores, keep)


def _backward(weight: Tensor, scores: Tensor, keep: float, slope: Tensor) -> Tensor:
    return slope * weight * scores.sign()


def _by_row(scores: Tensor, keep: float) -> Tensor:
    return torch.stack([_used(row, keep) for row in scores])


def _threshold(scores: Tensor, keep: float) -> Tensor:
    """All that are at least as large as the last in use."""
    used = _used(scores, keep).bool()
    return (scores.abs() >= scores.abs()[used].min()).to(scores.dtype) if used.any() else used.to(scores.dtype)


Wrongly = Callable[[Tensor, Tensor, float, Tensor], Tensor]

FORWARDS: tuple[tuple[Wrongly, str], ...] = (
    (lambda w, s, k, g: w * _used(w, k), "The weights are chosen by their own size. The scores choose."),
    (
        lambda w, s, k, g: w * _used((s - s.min()).double(), k).to(w),
        "The largest scores are in use, with their sign. It is |score| that counts.",
    ),
    (lambda w, s, k, g: w * _by_row(s, k), "Each row has its own choice. All weights of the layer compete."),
    (lambda w, s, k, g: w * (1 - _used(s, 1 - k)), "Those with the *smallest* |score| are in use."),
    (lambda w, s, k, g: w * _used(s, 1 - k), "As many are out of use as should be in use."),
    (
        lambda w, s, k, g: w * _used(s, k, flip=True),
        "Of equal scores the last goes out of use first. Is your sort stable?",
    ),
    (
        lambda w, s, k, g: w * _threshold(s, k),
        "More are in use than should be: all that equal the smallest of them are. A threshold cannot split ties.",
    ),
    (lambda w, s, k, g: w * _used(s, k, int), "One too few is in use: the number is cut off, not rounded."),
    (lambda w, s, k, g: w * _used(s, k, lambda n: round(n) + 1), "One too many is in use."),
    (lambda w, s, k, g: _used(s, k), "These are the gates themselves. Multiply the weights by them."),
    (
        lambda w, s, k, g: w * s * _used(s, k),
        "The scores scale the weights. They only choose: a weight in use is used as it is.",
    ),
    (lambda w, s, k, g: w, "All weights are in use."),
)
BACKWARDS: tuple[tuple[Wrongly, str], ...] = (
    (
        lambda w, s, k, g: g * w * s.sign() * _used(s, k),
        "Scores of weights out of use get no gradient, so these weights could never come back.",
    ),
    (lambda w, s, k, g: g * w, "The derivative of |score| is missing: scores below zero move the wrong way."),
    (lambda w, s, k, g: g * s.sign(), "The gradient does not know the weight that the gate multiplies."),
    (lambda w, s, k, g: -g * w * s.sign(), "The sign is turned round. This is the step downhill, not the gradient."),
    (
        lambda w, s, k, g: g * w * s,
        "The gradient has the score as a factor, where the derivative of |score| has its sign.",
    ),
    (lambda w, s, k, g: g * w * w.sign(), "The sign is that of the weight. Which number is inside the absolute value?"),
    (lambda w, s, k, g: g * w * s.abs(), "The gradient has |score| itself as a factor, not its derivative."),
    (lambda w, s, k, g: g, "This is the slope in the weights, and not yet in the scores."),
    (lambda w, s, k, g: (g * w).abs(), "The gradient is never negative here, so that scores could only fall."),
    (lambda w, s, k, g: torch.zeros_like(s), "The gradient is zero: that of a step function. Let the choice through."),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="popup")


def _judge(found: Any, **given: Any) -> None:
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise Wrong(f"`popup` returns {describe(found)}; it should return two tensors, for forwards and backwards.")
    values = tuple(given.values())
    for half, right, mistakes in (
        (found[0], _forward(**given), FORWARDS),
        (found[1], _backward(**given), BACKWARDS),
    ):
        if same(half, right) and half.dtype == right.dtype:
            continue
        for mistake, message in mistakes:
            wrong = mistake(*values)
            if same(half, wrong) and not same(wrong, right):
                raise Wrong(message)
        require_form(half, like=right, per="weight")
        if half is found[0]:
            raise Wrong("The first tensor does not hold the weights in use.")
        raise Wrong("The second tensor is not the gradient of the scores.")


def _cases() -> list[Case]:
    def case(rows: int, columns: int, keep: float, seed: int, decimals: int = 4) -> dict[str, Any]:
        draw = torch.Generator().manual_seed(seed)
        weight, scores, slope = (torch.randn(rows, columns, generator=draw) for _ in range(3))
        return {"weight": weight, "scores": scores.round(decimals=decimals), "keep": keep, "slope": slope}

    double = case(3, 3, 0.4, 5)
    double = {k: v.double() if isinstance(v, Tensor) else v for k, v in double.items()}
    return [
        Case("a layer (4, 5), of which 0.3 is kept", case(4, 5, 0.3, 0)),
        Case("0.55 of 3 × 7, which has to be rounded", case(3, 7, 0.55, 1)),
        Case("many scores are equal", case(5, 6, 0.45, 2, decimals=0)),
        Case("everything is kept", case(3, 4, 1.0, 3)),
        Case("nothing is kept", case(3, 4, 0.0, 4)),
        Case("double precision", double),
    ]


def _answer(
    *,
    order: str = "scores.abs().flatten().argsort(stable=True)",
    start: str = "len(order) - round(keep * len(order))",
    used: str = "weight * used.reshape(weight.shape)",
    gradient: str = "slope * weight * scores.sign()",
) -> str:
    """The solution with one step changed."""
    return f"""\
def popup(weight, scores, keep, slope):
    order = {order}
    used = torch.zeros_like(scores).flatten()
    used[order[{start}:]] = 1
    return {used}, {gradient}"""


_GATES = "used.reshape(weight.shape)"
_ROWS = (
    "def popup(weight, scores, keep, slope):\n"
    "    used = torch.zeros_like(scores)\n"
    "    for row, gate in zip(scores.abs(), used):\n"
    "        gate[row.argsort(stable=True)[len(row) - round(keep * len(row)):]] = 1\n"
    "    return weight * used, slope * weight * scores.sign()"
)
_TIES = (
    "def popup(weight, scores, keep, slope):\n"
    "    size = scores.abs()\n"
    "    count = round(keep * scores.numel())\n"
    "    limit = size.flatten().sort(descending=True).values[count - 1] if count else 9e9\n"
    "    return weight * (size >= limit), slope * weight * scores.sign()"
)

WRONG = (
    (_answer(order="weight.abs().flatten().argsort(stable=True)"), "chosen by their own size"),
    (_answer(order="scores.flatten().argsort(stable=True)"), "with their sign"),
    (_ROWS, "Each row has its own choice"),
    (_answer(order="scores.abs().flatten().argsort(stable=True, descending=True)"), "Those with the .smallest."),
    (_answer(start="round(keep * len(order))"), "As many are out of use"),
    (
        _answer(order="len(weight.flatten()) - 1 - scores.abs().flatten().flip(0).argsort(stable=True)"),
        "Is your sort stable",
    ),
    (_TIES, "A threshold cannot split ties"),
    (_answer(start="len(order) - int(keep * len(order))"), "One too few is in use"),
    (_answer(start="max(0, len(order) - round(keep * len(order)) - 1)"), "One too many is in use"),
    (_answer(used=_GATES), "These are the gates themselves"),
    (_answer(used=f"weight * scores * {_GATES}"), "The scores scale the weights"),
    (_answer(used="weight"), "All weights are in use"),
    (_answer(used=f"2 * weight * {_GATES}"), "The first tensor does not hold"),
    (_answer(gradient=f"slope * weight * scores.sign() * {_GATES}"), "could never come back"),
    (_answer(gradient="slope * weight"), "The derivative of .score. is missing"),
    (_answer(gradient="slope * scores.sign()"), "does not know the weight"),
    (_answer(gradient="-slope * weight * scores.sign()"), "the step downhill"),
    (_answer(gradient="slope * weight * scores"), "has the score as a factor"),
    (_answer(gradient="slope * weight * weight.sign()"), "Which number is inside"),
    (_answer(gradient="slope * weight * scores.abs()"), "itself as a factor"),
    (_answer(gradient="slope"), "the slope in the weights"),
    (_answer(gradient="(slope * weight).abs()"), "could only fall"),
    (_answer(gradient="torch.zeros_like(scores)"), "that of a step function"),
    (_answer(gradient="slope * weight ** 2"), "The second tensor is not"),
    (_answer(used=f"(weight * {_GATES}).double()"), "float64; it should be float32"),
    (_answer(used=f"(weight * {_GATES}).flatten()"), "one value for each weight"),
    (_answer(gradient="slope[0, 0].item()"), "it should return a tensor"),
    (_answer(used="weight.mul_(0)"), "modified its input `weight`"),
    ("def popup(weight, scores, keep, slope):\n    return weight", "should return two tensors"),
    ("def popup(weight, scores, keep, slope):\n    weight + slope", "Is a `return` missing"),
    ("def popup(weight, scores):\n    return weight, scores", r"yours takes `\(weight, scores\)`"),
    (_answer(start="len(order) - keep * len(order)"), "raised TypeError"),
)

QUESTION = Question(
    name="q4",
    kind="code",
    title="Edge-popup, forwards and backwards",
    task=TASK,
    answer="popup",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
