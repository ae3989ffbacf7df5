"""q4, investigate: what a zero filter is worth, counted over a chain of layers."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.granularity.dead_channels_count import removable, why
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

Readable = nn.Conv2d | nn.Linear
T = TypeVar("T", nn.Conv2d, nn.Linear)

TASK = """
One network loses half of its single weights, another half of the filters of every convolution. Predict first, and note
it down: what fraction of the weights between two convolutions can be deleted for good from each, so that smaller dense
layers compute the same?

Then count. Write `removable(layers, masks)`: the number of parameters, biases included, that can be deleted from a
chain of layers in which each reads what the one before it made (a ReLU in between keeps zero at zero). A filter, or a
Linear layer's output neuron, is dead if its own mask keeps none of its weights; count the last layer's dead outputs
too. It goes with its bias; so does every weight of the next layer that reads it. After a Flatten a channel is several
neighbouring input features of the Linear layer.

Nothing else counts as dead: not a filter whose kept weights read only dead channels (its bias still makes a constant),
and not one that nobody reads (it could go as well; leave it aside here).
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
    "Compare with your prediction: between two layers that each lose a share s of their filters, about 1 - (1 - s)² of "
    "the weights go, three quarters for a half; a layer that is pruned on one side only, like the first, loses s. Of "
    "half of the single weights nothing goes for good: the zeros stay in their dense tensors, and only storage or "
    "special hardware can profit. That is the price of a fine granularity."
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="removable")


def _judge(found: Any, layers: list[nn.Module], masks: list[Tensor]) -> None:
    count = _whole_number(found)
    if count != removable(layers, masks):
        raise Wrong(why(count, layers, masks))


def _whole_number(found: Any) -> int:
    """The count, also from a tensor with one value and from a float without a fraction."""
    try:
        number = float(found)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = math.nan
    if isinstance(found, str) or not number.is_integer():
        raise Wrong(f"The function returns {describe(found)}; it should return a count, an int.")
    return int(number)


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(4)
    network: list[Readable] = [_conv(3, 6, 3), _conv(6, 10, 3), _linear(10 * 4, 5)]
    halves = [_dead(network[0], 3, draw), _dead(network[1], 5, draw), _alive(network[2])]
    living = halves[0].flatten(1).any(1)  # (6,): the filters of the first convolution that are left
    mlp: list[Readable] = [_linear(7, 6), _linear(6, 9, bias=False), _linear(9, 4)]
    plain: list[Readable] = [_conv(2, 4, 3, bias=False), _conv(4, 8, 1, bias=False)]
    tries: list[tuple[str, list[Readable], list[Tensor]]] = [
        ("half of the filters of two convolutions, then Flatten and Linear", network, halves),
        ("half of the single weights of the same network", network, [_scattered(layer, draw) for layer in network]),
        ("nothing is pruned", network, [_alive(layer) for layer in network]),
        ("dead filters among scattered zeros", network, [halves[0] & _scattered(network[0], draw), *halves[1:]]),
        ("convolutions without biases", plain, [_dead(plain[0], 1, draw), _dead(plain[1], 3, draw)]),
        ("three Linear layers, the middle one without a bias", mlp, [_dead(layer, 2, draw) for layer in mlp]),
        (
            "a filter of the second convolution keeps only weights that read dead channels",
            network,
            [halves[0], _without(network[1], (3, living)), _alive(network[2])],
        ),
        (
            "the second convolution keeps no weight that reads channel 2, which is alive",
            network,
            [_without(network[0], (4,)), _without(network[1], (slice(None), 2)), _alive(network[2])],
        ),
        ("every filter of the first layer is dead", network, [_dead(network[0], 6, draw), *map(_alive, network[1:])]),
        ("a single layer", network[:1], halves[:1]),
    ]
    return [Case(about, {"layers": layers, "masks": masks}) for about, layers, masks in tries]


# skip_init draws no random numbers: a check must leave the learner's random state alone.
def _conv(inputs: int, filters: int, kernel: int, *, bias: bool = True) -> nn.Conv2d:
    return _filled(nn.utils.skip_init(nn.Conv2d, inputs, filters, kernel, bias=bias))


def _linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    return _filled(nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias))


def _alive(layer: Readable) -> Tensor:
    return torch.ones(layer.weight.shape, dtype=torch.bool)


def _dead(layer: Readable, count: int, draw: torch.Generator) -> Tensor:
    """A mask that removes `count` filters."""
    return _without(layer, (torch.randperm(len(layer.weight), generator=draw)[:count],))


def _scattered(layer: Readable, draw: torch.Generator) -> Tensor:
    """A mask that removes about half of the single weights, and no filter."""
    mask = torch.rand(layer.weight.shape, generator=draw) < 0.5
    mask[:, 0] = True  # no row is all False by chance
    return mask


def _without(layer: Readable, where: tuple[int | slice | Tensor, ...]) -> Tensor:
    mask = _alive(layer)
    mask[where] = False
    return mask


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
    (
        _counting("zip(layers, masks)", "[pair for pair in zip(layers, masks) if isinstance(pair[0], nn.Conv2d)]"),
        "Only the convolutions are counted",
    ),
    (
        _counting("dead = ~matrix.any(dim=1)", "dead = ~matrix.any(dim=1) & (layer is not layers[-1])"),
        "The last layer's dead outputs are not counted",
    ),
    (_counting("dead = ~matrix.any(dim=1)", "dead = ~(matrix & ~columns).any(dim=1)"), "this one still passes on"),
    (
        _counting(
            "dead = ~matrix.any(dim=1)  # (O,)",
            "dead = ~matrix.any(dim=1)\n"
            "        later = masks[[layer is one for one in layers].index(True) + 1 :]\n"
            "        if later:\n"
            "            dead = dead | ~later[0].flatten(1).any(0).reshape(len(dead), -1).any(1)",
        ),
        "because nobody reads it",
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
