"""q3, code: cut filters out of a convolution whose maps a Linear layer reads through a Flatten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake, same
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
A convolution, a ReLU, a Flatten, a Linear layer. Write `cut_through_flatten(weight, bias, reader, keep)`: the tensors
that are left when only the filters in `keep` stay, as a tuple `(weight, bias, reader)`. `weight` (O, I, kH, kW) and
`bias` (O,) are the convolution's; `reader` (P, O · S) is the weight of the Linear layer, where S is the number of
pixels of each map; `keep` (O,) is bool. The Linear layer's own bias loses nothing, so it is not asked for. The smaller
network must compute what the masked one computes.
"""

STARTER = '''\
def cut_through_flatten(weight, bias, reader, keep):
    """What is left of a convolution and of the Linear layer that reads it.

    weight: (O, I, kH, kW); bias: (O,); reader: (P, O * S); keep: (O,) bool.
    """
    ...'''

SOLUTION = '''\
def cut_through_flatten(weight, bias, reader, keep):
    """What is left of a convolution and of the Linear layer that reads it.

    weight: (O, I, kH, kW); bias: (O,); reader: (P, O * S); keep: (O,) bool.
    """
    maps = reader.reshape(len(reader), len(keep), reader.shape[1] // len(keep))  # (P, O, S)
    return weight[keep], bias[keep], maps[:, keep].flatten(1)'''

HINTS = (
    "Two of the three are one indexing operation each. For the third: in which order does Flatten write down a tensor "
    "of the shape (O, H, W)?",
    "Map after map, and inside a map pixel after pixel: the columns of one map stand side by side in `reader`, S of "
    "them. Which columns belong to map 0, which to map 1?",
    "Give the columns of `reader` back the two dimensions that Flatten has merged: (P, O · S) becomes (P, O, S). Then "
    "choose along the middle one, and merge again.",
)

TAKEAWAY = (
    "Flatten turns one channel into S neighbouring features, and all of them go with it. Forget that, and with a "
    "little luck the shapes fit and the numbers do not: compare with the masked network, always."
)

Parts = tuple[Tensor, Tensor, Tensor]
_NAMES = ("weight", "bias", "reader")


def _right(weight: Tensor, bias: Tensor, reader: Tensor, keep: Tensor) -> Parts:
    return weight[keep], bias[keep], reader[:, keep.repeat_interleave(reader.shape[1] // len(keep))]


def _columns(choose: Callable[[Tensor, int], Tensor]) -> Callable[..., Tensor]:
    """What a reader is when its columns are chosen in another way."""
    return lambda reader, keep, **_: reader[:, choose(keep, reader.shape[1] // len(keep))]


def _first(keep: Tensor, pixels: int) -> Tensor:
    return torch.arange(len(keep) * pixels) < int(keep.sum()) * pixels


MISTAKES = {
    "weight": (
        Mistake(lambda weight, **_: weight, "`weight` has lost nothing. Its filters are its first dimension."),
        Mistake(
            lambda weight, keep, **_: weight * keep[:, None, None, None],
            "`weight` still has all of its filters, some of them zero: that is masking.",
        ),
        Mistake(lambda weight, keep, **_: weight[~keep], "`weight` holds the filters that go."),
        Mistake(
            lambda weight, keep, **_: weight[: int(keep.sum())],
            "`weight` has the right number of filters, but they are the first ones and not those in `keep`.",
        ),
    ),
    "bias": (
        Mistake(lambda bias, **_: bias, "`bias` has lost nothing. Each filter takes its bias along."),
        Mistake(lambda bias, keep, **_: bias * keep, "`bias` still has an entry for each filter that went."),
        Mistake(lambda bias, keep, **_: bias[~keep], "`bias` holds the entries of the filters that go."),
        Mistake(
            lambda bias, keep, **_: bias[: int(keep.sum())],
            "`bias` has the right size, but it is its beginning and not the entries in `keep`.",
        ),
    ),
    "reader": (
        Mistake(lambda reader, **_: reader, "`reader` has lost nothing: it would read maps that nobody makes."),
        Mistake(
            _columns(lambda keep, pixels: keep.repeat(pixels)),
            "`reader` has the right shape, but its columns are chosen as if the maps took turns, pixel by pixel. "
            "Flatten writes one whole map after the other.",
        ),
        Mistake(_columns(lambda keep, pixels: ~keep.repeat_interleave(pixels)), "`reader` reads the maps that go."),
        Mistake(
            _columns(_first), "`reader` has the right shape, but it has kept its first columns, whatever `keep` says."
        ),
        Mistake(
            lambda reader, keep, **_: reader * keep.repeat_interleave(reader.shape[1] // len(keep)),
            "`reader` still has all of its columns, some of them zero: that is masking.",
        ),
        Mistake(
            lambda reader, keep, **_: reader.reshape(len(reader), len(keep), -1)[:, keep],
            "`reader` has the right columns, but still three dimensions. A Linear layer's weight has two.",
        ),
        Mistake(
            lambda reader, keep, **_: reader.reshape(len(reader), len(keep), -1)[:, keep].mean(2),
            "`reader` has one column for each map: you averaged over its pixels.",
        ),
        Mistake(
            lambda reader, keep, **_: reader.reshape(len(reader), len(keep), -1)[:, keep].transpose(1, 2).flatten(1),
            "`reader` has the right columns in another order: one whole map has to follow the other.",
        ),
    ),
}


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="cut_through_flatten")


def _judge(found: Any, **case: Tensor) -> None:
    if not isinstance(found, tuple | list) or len(found) != 3:
        raise Wrong(f"The function returns {describe(found)}; it should return a tuple of three tensors.")
    for name, part, expected in zip(_NAMES, found, _right(**case), strict=True):
        if not isinstance(part, Tensor):
            raise Wrong(f"The part `{name}` is {describe(part)}; each of the three should be a tensor.")
        name_mistake(part, expected, MISTAKES[name], **case)
        if part.shape != expected.shape:
            raise Wrong(
                f"`{name}` has the shape {tuple(part.shape)}, where {int(case['keep'].sum())} of {len(case['keep'])} "
                f"filters stay and it was {tuple(case[name].shape)}."
            )
        if not same(part, expected):
            raise Wrong(f"`{name}` has the right shape, but other numbers in it.")


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(3)

    def case(keep: list[bool], pixels: int, outputs: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        filters = len(keep)
        return {
            "weight": torch.randn(filters, 2, 3, 3, generator=draw).to(dtype),
            "bias": torch.randn(filters, generator=draw).to(dtype),
            "reader": torch.randn(outputs, filters * pixels, generator=draw).to(dtype),
            "keep": torch.tensor(keep),
        }

    tries = {
        "5 filters of which 2 stay, maps of 4 pixels": case([False, True, False, True, False], 4, 3),
        "the first two of 4 filters go, maps of 6 pixels": case([False, False, True, True], 6, 7),
        "maps of a single pixel": case([True, False, True, False, False, True], 1, 4),
        "everything stays": case([True, True, True], 4, 2),
        "one filter stays": case([False, False, True], 9, 5),
        "every filter goes": case([False, False], 4, 3),
        "double precision": case([False, True, True, False], 2, 3, torch.float64),
    }
    return [Case(about, arguments) for about, arguments in tries.items()]


def _returning(
    weight: str = "weight[keep]", bias: str = "bias[keep]", reader: str = "reader[:, keep.repeat_interleave(s)]"
) -> str:
    return (
        "def cut_through_flatten(weight, bias, reader, keep):\n"
        "    s, k = reader.shape[1] // len(keep), int(keep.sum())\n"
        "    maps = reader.reshape(len(reader), len(keep), s)\n"
        f"    return {weight}, {bias}, {reader}"
    )


WRONG = (
    (_returning(weight="weight"), "`weight` has lost nothing"),
    (_returning(weight="weight * keep[:, None, None, None]"), "all of its filters, some of them zero"),
    (_returning(weight="weight[~keep]"), "holds the filters that go"),
    (_returning(weight="weight[:k]"), "the first ones and not those in `keep`"),
    (_returning(weight="weight[:, :1]"), "`weight` has the shape"),
    (_returning(bias="bias"), "takes its bias along"),
    (_returning(bias="bias * keep"), "an entry for each filter that went"),
    (_returning(bias="bias[~keep]"), "the entries of the filters that go"),
    (_returning(bias="bias[:k]"), "it is its beginning"),
    (_returning(bias="None"), "The part `bias` is"),
    (_returning(reader="reader"), "it would read maps that nobody makes"),
    (_returning(reader="reader[:, keep.repeat(s)]"), "as if the maps took turns"),
    (_returning(reader="reader[:, ~keep.repeat_interleave(s)]"), "`reader` reads the maps that go"),
    (_returning(reader="reader[:, : k * s]"), "its first columns, whatever"),
    (_returning(reader="reader * keep.repeat_interleave(s)"), "all of its columns, some of them zero"),
    (_returning(reader="maps[:, keep]"), "still three dimensions"),
    (_returning(reader="maps[:, keep].mean(2)"), "you averaged over its pixels"),
    (_returning(reader="maps[:, keep].transpose(1, 2).flatten(1)"), "the right columns in another order"),
    (_returning(reader="maps[:, keep].flatten(1) * 2"), "but other numbers in it"),
    (_returning(reader="reader[keep]"), "raised IndexError"),
    (
        "def cut_through_flatten(weight, bias, reader, keep):\n    weight[~keep] = 0\n    return weight, bias, reader",
        "modified its input `weight` in place",
    ),
    ("def cut_through_flatten(weight, bias, reader, keep):\n    return weight[keep]", "a tuple of three tensors"),
    ("def cut_through_flatten(weight, bias, reader, keep):\n    small = weight[keep]", "Is a `return` missing"),
    ("def cut_through_flatten(weight, keep):\n    return weight", r"yours takes `\(weight, keep\)`"),
    ("cut_through_flatten = 3", "needs the function itself"),
)

QUESTION = Question(
    name="q3",
    kind="code",
    title="Through a Flatten",
    task=TASK,
    answer="cut_through_flatten",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
