"""q1, recall: parameters and multiply-adds of a small residual network, before and after a removal."""

from __future__ import annotations

from typing import Any

from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong
from prunelab.exercises.pairs import Pair, read_pairs

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
A network reads images (1, 8, 8): `x = relu(bn1(conv1(image)))`, then `x = relu(x + bn2(conv2(x)))`, the mean over all
positions, and `fc`. `conv1` is `Conv2d(1, 16, 3, padding=1, bias=False)`, `conv2` the same from 16 to 16 channels, `fc`
is `Linear(16, 10)`. Every second channel of `x` is removed, and all that goes with it. For each layer, before and
after: how many parameters has it, and how many multiply-adds does it take for one image? A normalisation holds a scale
and a shift for each channel, and counts no multiply-adds. Without running anything: fill in `(parameters, MACs)`.
"""

STARTER = """\
counts = {  # layer: (parameters, multiply-adds)
    "conv1, dense": (..., ...),
    "conv1, halved": (..., ...),
    "conv2, dense": (..., ...),
    "conv2, halved": (..., ...),
    "bn2, dense": (..., ...),
    "bn2, halved": (..., ...),
    "fc, dense": (..., ...),
    "fc, halved": (..., ...),
}"""

SOLUTION = """\
counts = {  # layer: (parameters, multiply-adds)
    "conv1, dense": (16 * 1 * 9, 16 * 1 * 9 * 8 * 8),
    "conv1, halved": (8 * 1 * 9, 8 * 1 * 9 * 8 * 8),  # the image keeps its channel
    "conv2, dense": (16 * 16 * 9, 16 * 16 * 9 * 8 * 8),
    "conv2, halved": (8 * 8 * 9, 8 * 8 * 9 * 8 * 8),  # both of its sides are channels of x
    "bn2, dense": (2 * 16, 0 * 16),
    "bn2, halved": (2 * 8, 0 * 8),
    "fc, dense": (16 * 10 + 10, 16 * 10),
    "fc, halved": (8 * 10 + 10, 8 * 10),  # the classes stay
}"""

HINTS = (
    "First find out what is tied: what `conv1` makes and what `conv2` makes are added, channel by channel. So which "
    "sides of which layers lose channels?",
    "A convolution has one number for each output channel, input channel and position of its kernel, and uses each of "
    "them once at every position of its output. With this padding the output is as large as the input.",
    "`conv2` reads `x` and makes what is added to `x`: it loses on both sides. The other layers lose on one: the image "
    "and the classes are not ours to remove.",
)

TAKEAWAY = (
    "A layer between two pruned sides keeps the square of the share that is kept, a layer at either end of the network "
    "only the share itself. Most layers lie in between, which is why halving the widths quarters the multiply-adds."
)

_AREA, _POSITIONS = 9, 64
_SIDES = {"conv1": (1, 16), "conv2": (16, 16), "fc": (16, 10)}  # input and output channels, dense
_LEFT = {"conv1": (1, 8), "conv2": (8, 8), "fc": (8, 10)}
_ROWS = tuple(f"{layer}, {state}" for layer in ("conv1", "conv2", "bn2", "fc") for state in ("dense", "halved"))


def _right(row: str) -> Pair:
    layer, state = row.split(", ")
    if layer == "bn2":
        return (32, 0) if state == "dense" else (16, 0)
    inputs, outputs = (_SIDES if state == "dense" else _LEFT)[layer]
    if layer == "fc":
        return inputs * outputs + outputs, inputs * outputs
    return inputs * outputs * _AREA, inputs * outputs * _AREA * _POSITIONS


def examine(answer: Any) -> None:
    """Report the first row that differs, and why if that is known."""
    pairs = read_pairs(answer, _ROWS, "(parameters, MACs)")
    differing = [row for row in _ROWS if pairs[row] != _right(row)]
    if differing:
        row = differing[0]
        score = f"{len(_ROWS) - len(differing)} of {len(_ROWS)} rows are right."
        raise Wrong(f"{score} Look at `{row}`: {_why(row, pairs[row])}")


def _why(row: str, found: Pair) -> str:
    """What kind of mistake leads from the right pair to the one found."""
    params, macs = _right(row)
    layer, state = row.split(", ")
    if found == (macs, params) and params != macs:
        return "parameters and multiply-adds have changed places."
    if layer == "bn2":
        return _why_norm(row, found)
    if state == "halved" and found == _right(f"{layer}, dense"):
        return "these are the dense layer's counts, but channels of `x` are on one of its sides."
    if layer == "conv2" and state == "halved" and found == (2 * params, 2 * macs):
        return "only one side has lost channels. What this layer makes is added to `x`, and what it reads is `x`."
    if state == "halved" and found in [(params / 2, macs / 2), ((params - 10) / 2 + 10, macs / 2)]:
        return "both sides have lost channels, but one of them is the image, or the classes."
    if layer == "fc" and found[0] == params - 10:
        return "the biases are missing: there is one for each class."
    if layer == "fc" and state == "halved" and found[0] == params - 5:
        return "the biases have been halved, but every class keeps its own."
    if layer == "fc" and found[1] == params:
        return "the multiply-adds contain the biases. A bias is added and multiplies nothing."
    if layer == "fc" and found[1] == macs * _POSITIONS:
        return "the mean over all positions comes first, so this layer runs once an image."
    if layer != "fc" and found[0] in (params + _outputs(row), params + _SIDES[layer][1]):
        return "a bias was counted, but the convolution is made without one."
    if found[0] == params and found[1] == params:
        return "the parameters are right; a convolution uses each of them at every position of its output."
    if found[0] == params and found[1] == 2 * macs:
        return "a multiplication with its addition is one multiply-add, not two operations."
    if found[0] == params:
        return "the parameters are right, the multiply-adds are not: at how many positions does the kernel stand?"
    return "the parameters are not those of a layer between these two sides."


def _why_norm(row: str, found: Pair) -> str:
    params, _ = _right(row)
    if found[0] == params / 2:
        return "there is more than a scale for each channel."
    if found[0] == 2 * params and found[1] == 0 and "dense" in row:
        return "the running statistics are buffers. Nobody trains them, so they are no parameters."
    if found[0] == params:
        return "the task says what a normalisation counts."
    return "it normalises what the convolution before it makes: it has as many channels as that."


def _outputs(row: str) -> int:
    layer, state = row.split(", ")
    return (_SIDES if state == "dense" else _LEFT)[layer][1]


def _with(row: str, pair: str) -> str:
    """The solution with one row changed: a wrong answer for the tests."""
    lines = [f'    "{row}": {pair},' if line.startswith(f'    "{row}":') else line for line in SOLUTION.splitlines()]
    return "\n".join(lines)


WRONG = (
    ("counts = 3", "the int 3.*dictionary of the stub"),
    ("counts = {'fc, dense': (170, 160)}", "`conv1, dense` is missing"),
    (_with("fc, dense", "(..., ...)"), "`fc, dense` is still open"),
    (_with("fc, dense", "17"), "`fc, dense` holds the int .*a pair"),
    (SOLUTION.replace("}", '    "bn1, dense": (1, 2),\n}'), "Nobody asked for .*'bn1, dense'"),
    (_with("conv2, dense", "(147456, 2304)"), "changed places"),
    (_with("conv1, halved", "(144, 9216)"), "the dense layer's counts"),
    (_with("conv2, halved", "(1152, 73728)"), "only one side has lost channels"),
    (_with("conv1, halved", "(36, 2304)"), "the image, or the classes"),
    (_with("fc, dense", "(160, 160)"), "biases are missing"),
    (_with("fc, halved", "(85, 80)"), "biases have been halved"),
    (_with("fc, dense", "(170, 170)"), "contain the biases"),
    (_with("fc, dense", "(170, 10240)"), "runs once an image"),
    (_with("conv1, dense", "(160, 9216)"), "made without one"),
    (_with("conv2, dense", "(2304, 2304)"), "uses each of them at every position"),
    (_with("conv2, dense", "(2304, 294912)"), "not two operations"),
    (_with("conv2, dense", "(2304, 82944)"), "at how many positions"),
    (_with("conv1, dense", "(16, 1024)"), "not those of a layer between"),
    (_with("bn2, dense", "(16, 0)"), "more than a scale"),
    (_with("bn2, dense", "(64, 0)"), "running statistics are buffers"),
    (_with("bn2, dense", "(32, 2048)"), "the task says what"),
    (_with("bn2, halved", "(32, 0)"), "as many channels as that"),
)

QUESTION = Question(
    name="q1",
    kind="recall",
    title="What half of the channels cost",
    task=TASK,
    answer="counts",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
