"""q2, code: the MACs of any convolution, from its settings and the shape of its input."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake
from prunelab.exercises.core import Material, Question
from prunelab.exercises.number import read_number
from prunelab.exercises.outcome import Wrong
from prunelab.trace import trace

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `conv_macs(conv, shape)`: the MACs of an `nn.Conv2d` on an input of the shape (N, C, H, W), all N images together.
Its kernel, stride, padding and dilation may differ between the two directions (`conv.kernel_size`, `conv.stride`,
`conv.padding` and `conv.dilation` are pairs of numbers), and it may have groups. The output has, in each direction, as
many positions as the kernel has room for: dilated kernels reach further. You may compute this, or find out.
"""

STARTER = '''\
def conv_macs(conv, shape):
    """Multiply-adds of a convolution on an input (N, C, H, W): an int."""
    ...'''

SOLUTION = '''\
def conv_macs(conv, shape):
    """Multiply-adds of a convolution on an input (N, C, H, W): an int."""
    positions = shape[0]  # every image has its own
    for axis in (0, 1):
        reach = conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1
        room = shape[2 + axis] + 2 * conv.padding[axis] - reach
        positions *= room // conv.stride[axis] + 1
    return positions * conv.weight.numel()  # every weight once at each position'''

HINTS = (
    "Two numbers make the product: how many weights the layer has, and how many positions the output has, counted over "
    "all images. The tensor of weights knows about groups already.",
    "Along one direction: padding is added at both ends. A kernel of 3 with dilation 2 reaches over 5 inputs. A stride "
    "of 2 leaves out every second position, and what does not fit at the end is not computed.",
    "If you would rather find out than compute: put something of the given shape through the layer, and look at the "
    "shape of what comes out.",
)

TAKEAWAY = (
    "The whole kernel is applied once at every output position of every image. So MACs shrink with the stride and with "
    "the image, and parameters do not: why the same layer weighs so differently in the two ratios."
)


def _outputs(conv: nn.Conv2d, height: int, width: int, **other: Any) -> int:
    """Positions of the output for one image, with some of the settings replaced."""
    settings = {
        "kernel_size": conv.kernel_size, "stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation,
    } | other  # fmt: skip
    positions = 1
    for axis, side in enumerate((height, width)):
        reach = settings["dilation"][axis] * (settings["kernel_size"][axis] - 1) + 1
        padding = settings.get("ends", 2) * int(settings["padding"][axis])
        exact = (side + padding - reach) / settings["stride"][axis]
        positions *= (math.ceil(exact) if settings.get("up") else math.floor(exact)) + 1
    return positions


def _macs(conv: nn.Conv2d, shape: tuple[int, ...], **other: Any) -> int:
    return shape[0] * _outputs(conv, *shape[2:], **other) * conv.weight.numel()


def _reference(conv: nn.Conv2d, shape: tuple[int, ...]) -> int:
    """What the library counts on a real forward."""
    return trace(conv, torch.zeros(shape)).macs


def _by(answer: Any) -> Any:
    """A misconception as a tensor, which is what `name_mistake` compares."""
    return lambda conv, shape: torch.tensor(float(answer(conv, shape)), dtype=torch.float64)


def _dense_weights(conv: nn.Conv2d) -> int:
    return conv.out_channels * conv.in_channels * math.prod(conv.kernel_size)


MISTAKES = (
    Mistake(
        _by(lambda conv, shape: _macs(conv, shape) / shape[0]),
        "This is one image. All images of the batch are multiplied.",
    ),
    Mistake(
        _by(lambda conv, shape: shape[0] * math.prod(shape[2:]) * conv.weight.numel()),
        "The kernel is applied at the positions of the *output*, and you took those of the input.",
    ),
    Mistake(
        _by(lambda conv, shape: _macs(conv, shape, dilation=(1, 1))),
        "The dilation is missing: a dilated kernel reaches further, and there is room for fewer of it.",
    ),
    Mistake(
        _by(lambda conv, shape: _macs(conv, shape, padding=(0, 0))),
        "The padding is missing: with it the kernel has more room.",
    ),
    Mistake(
        _by(lambda conv, shape: _macs(conv, shape, ends=1)),
        "Padding is added at both ends of each direction; you added it once.",
    ),
    Mistake(
        _by(lambda conv, shape: _macs(conv, shape, stride=(1, 1))),
        "The stride is missing: not every position is computed.",
    ),
    Mistake(
        _by(lambda conv, shape: _macs(conv, shape, up=True)),
        "Where the stride does not come out even, what is left at the end is no position. You rounded up.",
    ),
    Mistake(
        _by(lambda conv, shape: shape[0] * _outputs(conv, *shape[2:]) * _dense_weights(conv)),
        "With groups, a filter reads only the channels of its own group; you let it read all of them.",
    ),
    Mistake(
        _by(
            lambda conv, shape: _macs(
                conv, shape,
                **{name: (getattr(conv, name)[0],) * 2 for name in ("kernel_size", "stride", "padding", "dilation")},
            )
        ),
        "You took the settings of the first direction for both. Kernels, strides and paddings need not be square.",
    ),
    Mistake(
        _by(lambda conv, shape: 2 * _macs(conv, shape)),
        "One MAC is a multiplication *and* its addition. You counted them as two.",
    ),
    Mistake(
        _by(
            lambda conv, shape: _macs(conv, shape)
            + (conv.bias is not None) * shape[0] * conv.out_channels * _outputs(conv, *shape[2:])
        ),
        "The biases are counted as well. They are added, not multiplied.",
    ),
    Mistake(
        _by(lambda conv, shape: shape[0] * conv.out_channels * _outputs(conv, *shape[2:])),
        "This is the number of outputs. How many multiplications does each of them take?",
    ),
    Mistake(_by(lambda conv, _shape: conv.weight.numel()), "This is the number of weights. How often is each used?"),
)  # fmt: skip


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="conv_macs")


def _judge(found: Any, conv: nn.Conv2d, shape: tuple[int, ...]) -> None:
    macs, expected = read_number(found, "conv_macs"), _reference(conv, shape)
    if macs == expected:
        return
    as_tensors = [torch.tensor(float(number), dtype=torch.float64) for number in (macs, expected)]
    name_mistake(as_tensors[0], as_tensors[1], MISTAKES, conv=conv, shape=shape)
    raise Wrong("This is not what this layer runs. Count its weights and its output positions one after the other.")


def _cases() -> list[Case]:
    tries: list[tuple[str, nn.Conv2d, tuple[int, ...]]] = [
        ("a 3 × 3 convolution without padding", _conv(3, 8, 3), (1, 3, 10, 10)),
        ("five images", _conv(3, 8, 3, bias=False), (5, 3, 9, 9)),
        ("padding", _conv(3, 8, 3, padding=1), (2, 3, 10, 10)),
        ("a stride that comes out even", _conv(4, 6, 3, stride=2), (2, 4, 11, 11)),
        ("a stride that does not", _conv(4, 6, 3, stride=2), (2, 4, 10, 10)),
        ("groups", _conv(4, 6, 3, groups=2), (2, 4, 8, 8)),
        ("a depthwise convolution", _conv(6, 6, 3, padding=1, groups=6), (1, 6, 12, 12)),
        ("dilation", _conv(2, 3, 3, dilation=2), (2, 2, 12, 12)),
        ("an image that is wider than high", _conv(2, 3, 3), (2, 2, 7, 12)),
        ("everything in two directions", _conv(4, 6, (3, 5), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
         (3, 4, 13, 20)),
        ("a 1 × 1 convolution", _conv(5, 7, 1), (1, 5, 4, 4)),
        ("a kernel as large as the image", _conv(2, 3, 6), (1, 2, 6, 6)),
    ]  # fmt: skip
    return [Case(about, {"conv": conv, "shape": shape}) for about, conv, shape in tries]


def _conv(inputs: int, outputs: int, kernel: int | tuple[int, int], **settings: Any) -> nn.Conv2d:
    """Half of its weights are zero, and none is drawn: a check must leave the learner's random state alone."""
    conv = nn.utils.skip_init(nn.Conv2d, inputs, outputs, kernel, **settings)
    for parameter in conv.parameters():
        nn.init.ones_(parameter)
        parameter.data.flatten()[::2] = 0
    return conv


_SIDES = """\
def conv_macs(conv, shape):
    n, _, *sides = shape
    k, s, p, d = conv.kernel_size, conv.stride, conv.padding, conv.dilation
    weights, filters = conv.weight.numel(), conv.out_channels
    def fits(k=k, s=s, p=p, d=d, ends=2, up=0):
        return [(sides[i] + ends * p[i] - d[i] * (k[i] - 1) - 1 + up * (s[i] - 1)) // s[i] + 1 for i in (0, 1)]
    rows, columns = fits()
    """


def _returning(expression: str) -> str:
    return f"{_SIDES}return {expression}"


WRONG = (
    (_returning("rows * columns * weights"), "This is one image"),
    (_returning("n * sides[0] * sides[1] * weights"), "positions of the .output."),
    (_returning("n * weights * fits(d=(1, 1))[0] * fits(d=(1, 1))[1]"), "dilation is missing"),
    (_returning("n * weights * fits(p=(0, 0))[0] * fits(p=(0, 0))[1]"), "padding is missing"),
    (_returning("n * weights * fits(ends=1)[0] * fits(ends=1)[1]"), "at both ends"),
    (_returning("n * weights * fits(s=(1, 1))[0] * fits(s=(1, 1))[1]"), "stride is missing"),
    (_returning("n * weights * fits(up=1)[0] * fits(up=1)[1]"), "You rounded up"),
    (_returning("n * rows * columns * filters * conv.in_channels * k[0] * k[1]"), "With groups, a filter"),
    (
        _returning(
            "n * weights * fits(p=p[:1] * 2, s=s[:1] * 2, k=k[:1] * 2, d=d[:1] * 2)[0]"
            " * fits(p=p[:1] * 2, s=s[:1] * 2, k=k[:1] * 2, d=d[:1] * 2)[1]"
        ),
        "settings of the first direction",
    ),
    (_returning("2 * n * rows * columns * weights"), "counted them as two"),
    (
        _returning("n * rows * columns * (weights + (0 if conv.bias is None else filters))"),
        "The biases are counted as well",
    ),
    (_returning("n * filters * rows * columns"), "This is the number of outputs"),
    (_returning("weights"), "This is the number of weights"),
    (_returning("n * rows * columns * int(conv.weight.count_nonzero())"), "not what this layer runs"),
    (_returning("n * rows * rows * weights, 'MACs'"), "returns the tuple"),
    (_returning("str(n * rows * columns * weights)"), "returns the str"),
    (_returning("conv(torch.zeros(shape[1:]))[0].shape"), "returns the Size"),
    (_returning("conv(shape)"), "raised TypeError"),
    ("def conv_macs(conv, shape):\n    conv.weight.data.zero_()\n    return 0", "modified its input `conv`"),
    ("def conv_macs(conv, shape):\n    macs = conv.weight.numel()", "Is a `return` missing"),
    ("def conv_macs(conv):\n    return 1", r"yours takes `\(conv\)`"),
    ("conv_macs = 100", "needs the function itself"),
)

QUESTION = Question(
    name="q2",
    kind="code",
    title="What a convolution runs",
    task=TASK,
    answer="conv_macs",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
