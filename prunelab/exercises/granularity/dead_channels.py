"""q4, investigate: what a zero filter is worth, counted over a chain of layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG", "removable"]

Readable = nn.Conv2d | nn.Linear
T = TypeVar("T", nn.Conv2d, nn.Linear)

TASK = """
One network loses half of its single weights, another half of the filters of every convolution. Predict first: what
fraction of the parameters can be deleted for good from each, so that smaller dense layers compute the same?

Then count. Write `removable(layers, masks)`: the number of parameters, biases included, that can be deleted from a
chain of layers in which each reads what the one before it made (a ReLU in between keeps zero at zero). A filter, or a
Linear layer's output neuron, is dead if its mask keeps none of its weights. It goes with its bias; so does every weight
of the next layer that reads it. After a Flatten a channel is several neighbouring input features of the Linear layer.
"""

STARTER = '''\
def removable(layers, masks):
    """How many parameters of a chain of layers can be deleted: an int.

    layers: a list of Conv2d (groups=1) and Linear modules in a chain.
    masks: a list of bool masks of the layers' weights; True = kept.
    """
    ...'''

SOLUTION = '''\
def removable(layers, masks):
    """How many parameters of a chain of layers can be deleted: an int.

    layers: a list of Conv2d (groups=1) and Linear modules in a chain.
    masks: a list of bool masks of the layers' weights; True = kept.
    """
    count = 0
    dead = torch.zeros(1, dtype=torch.bool)  # the image: nothing of it is dead
    for layer, mask in zip(layers, masks):
        matrix = mask.flatten(1)  # (O, columns): one row a filter
        columns = dead.repeat_interleave(matrix.shape[1] // len(dead))  # those that read a dead channel
        dead = ~matrix.any(dim=1)  # (O,)
        count += int((dead[:, None] | columns).sum())  # "or": a weight that dies twice is deleted once
        if layer.bias is not None:
            count += int(dead.sum())
    return count'''

HINTS = (
    "When is a filter dead? Look at its row in the matrix view of the *mask*: is there anything left? How often does "
    "that happen if half of the single weights go?",
    "Walk along the chain and remember which channels died. For each layer draw its matrix (O, columns), and colour "
    "the rows of its dead filters and the columns that read dead channels. How many cells have a colour?",
    "The colours overlap: a weight in a dead row and a dead column is one parameter. With `dead_rows[:, None] | "
    "dead_columns` each counts once. A channel owns `columns // channels` neighbouring columns, for a convolution and "
    "after a Flatten alike.",
)

TAKEAWAY = (
    "Where a layer loses half of its filters and half of its inputs, a quarter of its weights stay: 1 - (1 - s)² go. "
    "Of half of the single weights nothing goes for good: the zeros stay in their dense tensors, and only storage or "
    "special hardware can profit. That is the price of a fine granularity."
)


def removable(
    layers: Sequence[nn.Module],
    masks: Sequence[Tensor],
    *,
    rows: bool = True,
    columns: bool = True,
    once: bool = True,
    biases: bool = True,
    spread: bool = True,
) -> int:
    """The right count; each switch that is turned off is a misconception.

    rows: dead filters go. columns: so do the weights of the next layer that read them. once: a weight in both counts
    once. biases: a dead filter's bias goes. spread: a channel owns several features after a Flatten.
    """
    count = 0
    dead = torch.zeros(1, dtype=torch.bool)
    for layer, mask in zip(layers, masks, strict=True):
        matrix = mask.flatten(1)
        width = matrix.shape[1] // len(dead) if spread or mask.dim() > 2 else 1
        reads = torch.zeros(matrix.shape[1], dtype=torch.bool)
        reads[: len(dead) * width] = dead.repeat_interleave(width)
        dead = ~matrix.any(dim=1)
        down, across = (dead & rows)[:, None].expand_as(matrix), (reads & columns).expand_as(matrix)
        count += int((down | across).sum()) if once else int(down.sum()) + int(across.sum())
        count += int(dead.sum()) if biases and layer.bias is not None else 0
    return count


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="removable")


def _judge(found: Any, layers: list[nn.Module], masks: list[Tensor]) -> None:
    count = _whole_number(found)
    if count != removable(layers, masks):
        raise Wrong(_why(count, layers, masks))


def _whole_number(found: Any) -> int:
    """The count, also from a tensor with one value and from a float without a fraction."""
    try:
        number = float(found)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = math.nan
    if isinstance(found, str) or not number.is_integer():
        raise Wrong(f"The function returns {describe(found)}; it should return a count, an int.")
    return int(number)


def _why(count: int, layers: list[nn.Module], masks: list[Tensor]) -> str:
    """What kind of mistake leads to this count."""
    parameters = sum(parameter.numel() for layer in layers for parameter in layer.parameters())
    zeros = sum(int((~mask).sum()) for mask in masks)
    explanations = [
        (
            zeros,
            "That is the number of zero weights. A zero inside a dense tensor still takes its place: only whole rows "
            "and columns can be cut out of the matrix.",
        ),
        (
            removable(layers, masks, columns=False),
            "Only the dead filters themselves are counted. What becomes of the next layer's weights that read them?",
        ),
        (
            removable(layers, masks, rows=False, biases=False),
            "Only the readers of dead channels are counted; the dead filters themselves go too.",
        ),
        (
            removable(layers, masks, once=False),
            "Some parameters count twice: a dead filter's weight that also reads a dead channel is one parameter.",
        ),
        (removable(layers, masks, biases=False), "The biases are missing: a dead filter takes its bias along."),
        (
            removable(layers, masks, spread=False),
            "After the Flatten each channel is several input features, but only one is counted for each dead channel.",
        ),
        (parameters - removable(layers, masks), "That is what stays; the task asks what can be deleted."),
    ]
    for explained, message in explanations:
        if count == explained:
            return message
    if count > parameters:
        return f"The count {count} is larger than the number of parameters, so something is counted more than once."
    return f"The count {count} is {'too small' if count < removable(layers, masks) else 'too large'}."


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(4)

    def conv(inputs: int, filters: int, kernel: int, *, bias: bool = True) -> nn.Conv2d:
        # skip_init draws no random numbers: a check must leave the learner's random state alone.
        return _filled(nn.utils.skip_init(nn.Conv2d, inputs, filters, kernel, bias=bias))

    def linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
        return _filled(nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias))

    def alive(layer: Readable) -> Tensor:
        return torch.ones(layer.weight.shape, dtype=torch.bool)

    def filters(layer: Readable, count: int) -> Tensor:
        mask = alive(layer)
        mask[torch.randperm(len(mask), generator=draw)[:count]] = False
        return mask

    def scattered(layer: Readable) -> Tensor:
        mask = torch.rand(layer.weight.shape, generator=draw) < 0.5
        mask[:, 0] = True  # no row is all False by chance
        return mask

    network: list[Readable] = [conv(3, 6, 3), conv(6, 10, 3), linear(10 * 4, 5)]
    halves = [filters(network[0], 3), filters(network[1], 5), alive(network[2])]
    mlp: list[Readable] = [linear(7, 6), linear(6, 9, bias=False), linear(9, 4)]
    plain: list[Readable] = [conv(2, 4, 3, bias=False), conv(4, 8, 1, bias=False)]
    tries: list[tuple[str, list[Readable], list[Tensor]]] = [
        ("half of the filters of two convolutions, then Flatten and Linear", network, halves),
        ("half of the single weights of the same network", network, [scattered(layer) for layer in network]),
        ("nothing is pruned", network, [alive(layer) for layer in network]),
        ("dead filters among scattered zeros", network, [halves[0] & scattered(network[0]), *halves[1:]]),
        ("convolutions without biases", plain, [filters(plain[0], 1), filters(plain[1], 3)]),
        ("three Linear layers, the middle one without a bias", mlp, [filters(layer, 2) for layer in mlp]),
        ("every filter of the first layer is dead", network, [filters(network[0], 6), *map(alive, network[1:])]),
        ("a single layer", network[:1], halves[:1]),
    ]
    return [Case(about, {"layers": layers, "masks": masks}) for about, layers, masks in tries]


def _filled(layer: T) -> T:
    for parameter in layer.parameters():
        nn.init.ones_(parameter)
    return layer


def _counting(change: str, by: str) -> str:
    """The solution with one place changed: a wrong answer for the tests."""
    if change not in SOLUTION:
        raise ValueError(f"the solution has no {change!r}")
    return SOLUTION.replace(change, by)


WRONG = (
    ("def removable(layers, masks):\n    return sum(int((~mask).sum()) for mask in masks)", "number of zero weights"),
    (_counting("(dead[:, None] | columns).sum()", "dead.sum() * matrix.shape[1]"), "Only the dead filters themselves"),
    (
        _counting("(dead[:, None] | columns).sum()", "columns.sum() * len(dead)").replace("is not None", "is False"),
        "Only the readers of dead channels",
    ),
    (
        _counting("(dead[:, None] | columns).sum()", "dead.sum() * matrix.shape[1] + columns.sum() * len(dead)"),
        "Some parameters count twice",
    ),
    (_counting("is not None", "is False"), "The biases are missing"),
    (
        _counting(
            "columns = dead.repeat_interleave(matrix.shape[1] // len(dead))",
            "columns = dead.repeat_interleave(mask[0, 0].numel())\n"
            "        columns = torch.cat([columns, torch.zeros(matrix.shape[1], dtype=torch.bool)])[: matrix.shape[1]]",
        ),
        "After the Flatten",
    ),
    (
        _counting("return count", "return sum(p.numel() for layer in layers for p in layer.parameters()) - count"),
        "That is what stays",
    ),
    (_counting("return count", "return 5 * count"), "larger than the number of parameters"),
    (_counting("return count", "return max(count - 1, 0)"), "too small"),
    (_counting("return count", "return count + 1"), "too large"),
    (_counting("return count", "return count / 1000"), "returns the float"),
    (_counting("return count", "return dead"), "returns a bool Tensor"),
    (_counting("matrix = mask.flatten(1)", "mask[0] = False; matrix = mask.flatten(1)"), "modified its input `masks`"),
    (_counting("if layer.bias is not None:", "if layer.bias.sum():"), "raised AttributeError"),
    (_counting("return count", "count"), "Is a `return` missing"),
    ("removable = 0.75", "needs the function itself"),
)

QUESTION = Question(
    name="q4",
    kind="investigate",
    title="What a dead filter is worth",
    task=TASK,
    answer="removable",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
