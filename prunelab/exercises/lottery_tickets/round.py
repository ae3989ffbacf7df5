"""q2, code: one round of the search as the paper's small networks had it, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
On this page all weights compete. In their small networks, Frankle and Carbin prune *layer by layer*: in every round
each layer loses the fraction `share` of the weights that it still has, and the output layer, which is the last, half of
that fraction. Write `next_round(initial, trained, masks, share)`. The first three are lists with one tensor a layer:
the weights before training, those after it (zero where the mask is False), and the bool masks that were held (True =
kept). It returns two lists, the new masks and the weights at which the next round starts: those of `initial` where they
are kept, zero elsewhere.

A layer with n weights left loses exactly `round(fraction * n)` of them, those with the smallest magnitude after
training; the first of equals goes first. What is gone stays gone.
"""

STARTER = '''\
def next_round(initial, trained, masks, share):
    """One round: (masks, weights to start from), a list each."""
    ...'''

SOLUTION = '''\
def next_round(initial, trained, masks, share):
    """One round: (masks, weights to start from), a list each."""
    new_masks, starts = [], []
    for layer, (first, last, mask) in enumerate(zip(initial, trained, masks)):
        fraction = share / 2 if layer == len(masks) - 1 else share
        left = mask.flatten().nonzero().flatten()  # positions
        order = last.flatten()[left].abs().argsort(stable=True)
        kept = mask.flatten().clone()
        kept[left[order[: round(fraction * len(left))]]] = False
        new_masks.append(kept.reshape(mask.shape))
        starts.append(torch.where(new_masks[-1], first, 0.0))
    return new_masks, starts'''

HINTS = (
    "One layer at a time. Look only at the weights that its mask still keeps: how many are they, and where?",
    "`mask.nonzero()` tells the positions that are left. Rank the trained weights at these positions alone; then "
    "what is gone cannot come back, even if a weight that is left was trained to exactly zero.",
    "Take the order with `argsort(stable=True)`, so that equals keep theirs. Half the fraction applies to one layer "
    "only. The weights to start from are not the trained ones.",
)

TAKEAWAY = (
    "Counting from what is left makes the rounds geometric, and ranking only what is left makes the masks nest. The "
    "output layer is small and every class depends on it, so the paper spares it."
)

Round = tuple[list[Tensor], list[Tensor]]


def _round(
    initial: Sequence[Tensor],
    trained: Sequence[Tensor],
    masks: Sequence[Tensor],
    share: float,
    *,
    fraction: Callable[[float, int, int], float] = lambda share, layer, layers: share / (1 + (layer == layers - 1)),
    count: Callable[[float, int, int], int] = lambda part, left, _: round(part * left),
    size: Callable[[Tensor, Tensor], Tensor] = lambda last, first: last.abs(),
    last_first: bool = False,
    nested: bool = True,
    start: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda kept, first, last: torch.where(kept, first, 0.0),
) -> Round:
    """The reference, by sorting a list; the keywords make a misconception of it."""
    found: Round = ([], [])
    for layer, (first, last, mask) in enumerate(zip(initial, trained, masks, strict=True)):
        alive = [i for i, one in enumerate(mask.flatten().tolist()) if one or not nested]
        sizes = size(last, first).flatten().tolist()
        alive.sort(key=lambda i: (sizes[i], -i if last_first else i))
        gone = len(alive) - int(mask.sum())  # those that are gone already and compete nevertheless
        going = gone + count(fraction(share, layer, len(masks)), len(alive) - gone, mask.numel())
        kept = torch.zeros(mask.numel(), dtype=torch.bool)
        kept[alive[max(0, going) :]] = True
        kept = kept.reshape(mask.shape)
        found[0].append(kept)
        found[1].append(start(kept, first, last))
    return found


def _reference(initial: Sequence[Tensor], trained: Sequence[Tensor], masks: Sequence[Tensor], share: float) -> Round:
    return _round(initial, trained, masks, share)


def _of_all(part: float, left: int, total: int) -> int:
    """As many as the fraction of all weights, those that are gone included."""
    return min(left, round(part * total))


def _half_first(share: float, layer: int, layers: int) -> float:
    return share / 2 if layer == 0 else share


# About the masks.
MISTAKES: tuple[tuple[dict[str, Any], str], ...] = (
    (
        {"fraction": lambda share, layer, layers: share},
        "The last layer loses as much as the others. Half of the fraction is meant for it.",
    ),
    ({"fraction": _half_first}, "The *first* layer is the one that is spared here. The output layer is the last."),
    (
        {"fraction": lambda share, layer, layers: share / 2},
        "Every layer loses half of the fraction. That is for one of them only.",
    ),
    ({"count": _of_all}, "The fraction is taken of all the weights that a layer ever had, and not of those left."),
    (
        {"nested": False},
        "Weights that are gone compete again, as zeros, so that one that is left can take their place.",
    ),
    (
        {"count": lambda part, left, _: int(part * left)},
        "One weight too few goes here: the number is cut off, where the task rounds it.",
    ),
    (
        {"count": lambda part, left, _: -int(-part * left // 1)},
        "One weight too many goes here: the number is rounded up.",
    ),
    (
        {"count": lambda part, left, _: left - round(part * left)},
        "The fraction says what goes, and here it stays. (If this happens only where nothing should go: `x[-0:]` is "
        "all of x.)",
    ),
    ({"size": lambda last, first: -last.abs()}, "The largest weights go. The smallest should."),
    (
        {"size": lambda last, first: last},
        "The sign of the weights counts here: what goes first is what is most negative.",
    ),
    ({"size": lambda last, first: first.abs()}, "The weights are ranked by their size *before* training."),
    (
        {"size": lambda last, first: (last - first).abs()},
        "The weights are ranked by how far training has moved them, and not by their size.",
    ),
    ({"last_first": True}, "Of equal weights the last goes first. Is your sort stable?"),
)
# About where the next round starts.
STARTS: tuple[tuple[Callable[[Tensor, Tensor, Tensor], Tensor], str], ...] = (
    (
        lambda kept, first, last: torch.where(kept, last, 0.0),
        "The next round starts at the *trained* weights. Rewinding goes back to where they began.",
    ),
    (
        lambda kept, first, last: first,
        "The weights to start from are not masked: what is removed has to be zero.",
    ),
    (lambda kept, first, last: last, "The weights to start from are the trained ones, and not masked either."),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="next_round")


def _judge(found: Any, **given: Any) -> None:
    masks, starts = _lists(found, given["masks"])
    expected = _reference(**given)
    if not _equal(masks, expected[0]):
        for settings, message in MISTAKES:
            wrong = _round(**given, **settings)[0]
            if _equal(masks, wrong) and not _equal(wrong, expected[0]):
                raise Wrong(message)
        for layer, (mask, right, before) in enumerate(zip(masks, expected[0], given["masks"], strict=True)):
            if bool((mask & ~before).any()):
                raise Wrong(f"In layer {layer} weights are kept that were gone already.")
            if int(mask.sum()) != int(right.sum()):
                many = "many" if int(mask.sum()) > int(right.sum()) else "few"
                raise Wrong(f"Too {many} weights are left in layer {layer}.")
        raise Wrong("As many weights go as should, but not those with the smallest magnitude after training.")
    for start, message in STARTS:
        wrong = _round(**given, start=start)[1]
        if _equal(starts, wrong) and not _equal(wrong, expected[1]):
            raise Wrong(message)
    if not _equal(starts, expected[1]):
        raise Wrong("The masks are right, but the weights at which the next round starts are not.")


def _lists(found: Any, like: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise Wrong(f"The function returns {describe(found)}; it should return two lists, masks and weights.")
    for what, several in zip(("masks", "weights"), found, strict=True):
        if not isinstance(several, list | tuple) or len(several) != len(like):
            raise Wrong(f"The {what} are {describe(several)}; they should be a list with one tensor a layer.")
        for layer, (one, mask) in enumerate(zip(several, like, strict=True)):
            if not isinstance(one, Tensor) or one.shape != mask.shape:
                raise Wrong(
                    f"The {what} of layer {layer} are {describe(one)}; the layer's shape is {tuple(mask.shape)}."
                )
            if (one.dtype == torch.bool) != (what == "masks"):
                raise Wrong(f"The {what} of layer {layer} are {one.dtype}: masks are bool, and weights are not.")
    return list(found[0]), list(found[1])


def _equal(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return all(torch.equal(a.detach().to(b), b) for a, b in zip(found, expected, strict=True))


def _case(shapes: Sequence[tuple[int, ...]], share: float, gone: float, seed: int, decimals: int = 4) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(seed)
    initial = [torch.randn(shape, generator=draw) for shape in shapes]
    masks = [torch.rand(shape, generator=draw) >= gone for shape in shapes]
    moved = [(one + torch.randn(one.shape, generator=draw)).round(decimals=decimals) for one in initial]
    trained = [torch.where(mask, one, 0.0) for one, mask in zip(moved, masks, strict=True)]
    return {"initial": initial, "trained": trained, "masks": masks, "share": share}


def _cases() -> list[Case]:
    shapes = [(6, 8), (5, 6), (4, 5)]
    zeros = _case(shapes, 0.2, 0.4, 4)
    for one, mask in zip(zeros["trained"], zeros["masks"], strict=True):
        one[mask.nonzero()[-1].tolist()[0], mask.nonzero()[-1].tolist()[1]] = 0.0  # the last that is left
    return [
        Case("three layers of which nothing is gone yet, share 0.2", _case(shapes, 0.2, 0.0, 0)),
        Case("the same layers after some rounds", _case(shapes, 0.2, 0.5, 1)),
        Case("share 0.35, which has to be rounded", _case([(7, 9), (3, 7), (2, 3)], 0.35, 0.3, 2)),
        Case("weights with equal magnitudes", _case(shapes, 0.3, 0.3, 3, decimals=0)),
        Case("a weight that is left was trained to exactly zero", zeros),
        Case("a convolution before the output layer", _case([(3, 2, 3, 3), (4, 12)], 0.25, 0.2, 5)),
        Case("a single layer, which is the output layer", _case([(5, 5)], 0.4, 0.2, 6)),
        Case("a share of 0: nothing goes", _case(shapes, 0.0, 0.3, 7)),
    ]


def _answer(
    *,
    fraction: str = "share / 2 if layer == len(masks) - 1 else share",
    left: str = "mask.flatten().nonzero().flatten()",
    order: str = "last.flatten()[left].abs().argsort(stable=True)",
    going: str = "round(fraction * len(left))",
    start: str = "torch.where(new_masks[-1], first, 0.0)",
    result: str = "new_masks, starts",
    kept: str = "mask.flatten().clone()",
) -> str:
    """The solution with one step changed."""
    return f"""\
def next_round(initial, trained, masks, share):
    new_masks, starts = [], []
    for layer, (first, last, mask) in enumerate(zip(initial, trained, masks)):
        fraction = {fraction}
        left = {left}
        order = {order}
        kept = {kept}
        kept[left[order[:{going}]]] = False
        new_masks.append(kept.reshape(mask.shape))
        starts.append({start})
    return {result}"""


WRONG = (
    (_answer(fraction="share"), "The last layer loses as much"),
    (_answer(fraction="share if layer else share / 2"), "The .first. layer is the one"),
    (_answer(fraction="share / 2"), "Every layer loses half"),
    (_answer(going="round(fraction * mask.numel())"), "that a layer ever had"),
    (
        _answer(
            left="torch.arange(mask.numel())",
            going="int((~mask).sum()) + round(fraction * int(mask.sum()))",
            kept="torch.ones_like(mask).flatten()",
        ),
        "Weights that are gone compete",
    ),
    (_answer(kept="torch.ones_like(mask).flatten()"), "that were gone already"),
    (_answer(going="int(fraction * len(left))"), "One weight too few"),
    (_answer(going="-int(-fraction * len(left) // 1)"), "One weight too many"),
    (_answer(going="len(left) - round(fraction * len(left))"), "here it stays"),
    (_answer(order="last.flatten()[left].abs().argsort(stable=True, descending=True)"), "The largest weights go"),
    (_answer(order="last.flatten()[left].argsort(stable=True)"), "The sign of the weights counts"),
    (_answer(order="first.flatten()[left].abs().argsort(stable=True)"), "by their size .before. training"),
    (_answer(order="(last - first).flatten()[left].abs().argsort(stable=True)"), "how far training has moved"),
    (
        _answer(order="len(left) - 1 - last.flatten()[left].abs().flip(0).argsort(stable=True)"),
        "Is your sort stable",
    ),
    (_answer(start="torch.where(new_masks[-1], last, 0.0)"), "starts at the .trained. weights"),
    (_answer(start="first"), "are not masked: what is removed"),
    (_answer(start="last + 1"), "The masks are right, but"),
    (_answer(going="round(fraction * len(left)) + 2"), "Too few weights are left in layer 0"),
    (_answer(going="max(0, round(fraction * len(left)) - 2)"), "Too many weights are left in layer 0"),
    (_answer(order="torch.arange(len(left))"), "but not those with the smallest"),
    (_answer(result="new_masks"), "should return two lists"),
    (_answer(result="new_masks[:1], starts"), "one tensor a layer"),
    (_answer(result="[m.flatten() for m in new_masks], starts"), "the layer's shape is"),
    (_answer(result="[m.float() for m in new_masks], starts"), "masks are bool"),
    (_answer(kept="mask.view(-1)"), "modified its input `masks`"),
    (_answer(going="fraction * len(left)"), "raised TypeError"),
    (
        "def next_round(initial, trained, masks):\n    return masks, initial",
        r"yours takes `\(initial, trained, masks\)`",
    ),
    ("def next_round(initial, trained, masks, share):\n    list(masks)", "Is a `return` missing"),
)

QUESTION = Question(
    name="q2",
    kind="code",
    title="One round, layer by layer",
    task=TASK,
    answer="next_round",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
