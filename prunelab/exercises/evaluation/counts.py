"""q1, recall: how many parameters a layer holds, and how many MACs it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong
from prunelab.exercises.pairs import Pair, read_pairs
from prunelab.trace import trace

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
How many parameters does each of these layers hold, and how many MACs does it run? The input is one image of 10 × 10
pixels, or one vector, unless the row says otherwise. Layers have biases unless the row says otherwise. Without running
anything: fill in `(parameters, MACs)`.
"""

STARTER = """\
counts = {  # layer: (parameters, MACs)
    "Linear(20, 5)": (..., ...),
    "Linear(20, 5, bias=False), 7 vectors": (..., ...),
    "Conv2d(4, 8, 3, padding=1)": (..., ...),
    "Conv2d(4, 8, 3)": (..., ...),
    "Conv2d(4, 8, 3, padding=1, stride=2)": (..., ...),
    "Conv2d(4, 8, 3, padding=1, groups=4)": (..., ...),
    "Conv2d(4, 8, 1), half of its weights zero": (..., ...),
    "BatchNorm2d(8)": (..., ...),
}"""

SOLUTION = """\
counts = {  # layer: (parameters, MACs)
    "Linear(20, 5)": (5 * 20 + 5, 5 * 20),
    "Linear(20, 5, bias=False), 7 vectors": (5 * 20, 7 * 5 * 20),
    "Conv2d(4, 8, 3, padding=1)": (8 * 4 * 9 + 8, 8 * 4 * 9 * 100),  # 10 × 10 outputs
    "Conv2d(4, 8, 3)": (8 * 4 * 9 + 8, 8 * 4 * 9 * 64),  # 8 × 8 outputs: the rim has no neighbours
    "Conv2d(4, 8, 3, padding=1, stride=2)": (8 * 4 * 9 + 8, 8 * 4 * 9 * 25),  # 5 × 5 outputs
    "Conv2d(4, 8, 3, padding=1, groups=4)": (8 * 1 * 9 + 8, 8 * 1 * 9 * 100),  # each filter reads 4 / 4 channels
    "Conv2d(4, 8, 1), half of its weights zero": (8 * 4 + 8, 8 * 4 * 100),  # zeros are held, and multiplied
    "BatchNorm2d(8)": (8 + 8, 0),  # a scale and a shift for each channel; no products of matrices
}"""

HINTS = (
    "Count the weights of each layer first. A bias adds one parameter for each output channel, and no MAC: it is "
    "added, not multiplied.",
    "Every weight of a convolution is used once at each position of the *output*. How large is the output with "
    "padding, without, and with a stride? And with groups: how many channels does one filter read?",
    "A Linear layer uses each weight once for each vector. What a layer holds and runs does not depend on the values "
    "of its weights. A normalisation has a scale and a shift for each channel, and is not counted among the MACs.",
)

TAKEAWAY = (
    "Parameters are what a layer holds, MACs are how often it uses them: once a vector in a Linear layer, once an "
    "output position in a convolution. Neither sees the values, so zeros alone make neither smaller."
)

_IMAGE = (1, 4, 10, 10)
_LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Linear(20, 5)": (lambda: nn.Linear(20, 5), (1, 20)),
    "Linear(20, 5, bias=False), 7 vectors": (lambda: nn.Linear(20, 5, bias=False), (7, 20)),
    "Conv2d(4, 8, 3, padding=1)": (lambda: nn.Conv2d(4, 8, 3, padding=1), _IMAGE),
    "Conv2d(4, 8, 3)": (lambda: nn.Conv2d(4, 8, 3), _IMAGE),
    "Conv2d(4, 8, 3, padding=1, stride=2)": (lambda: nn.Conv2d(4, 8, 3, padding=1, stride=2), _IMAGE),
    "Conv2d(4, 8, 3, padding=1, groups=4)": (lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4), _IMAGE),
    "Conv2d(4, 8, 1), half of its weights zero": (lambda: nn.Conv2d(4, 8, 1), _IMAGE),
    "BatchNorm2d(8)": (lambda: nn.BatchNorm2d(8), (1, 8, 10, 10)),
}


def examine(answer: Any) -> None:
    """Compare every pair with what the library counts; report the first that differs, and why if that is known."""
    pairs = read_pairs(answer, _LAYERS, "(parameters, MACs)")
    right = {row: _counted(row) for row in _LAYERS}
    differing = [row for row in right if pairs[row] != right[row]]
    if differing:
        row = differing[0]
        score = f"{len(right) - len(differing)} of {len(right)} rows are right."
        raise Wrong(f"{score} Look at `{row}`: {_why(row, pairs[row], right[row])}")


def _counted(row: str) -> tuple[int, int]:
    make, shape = _LAYERS[row]
    with torch.device("meta"):  # nothing is drawn, and nothing computed
        layer, inputs = make(), torch.empty(shape)
    return sum(p.numel() for p in layer.parameters()), trace(layer, inputs).macs


def _why(row: str, found: Pair, right: tuple[int, int]) -> str:
    """What kind of mistake leads from the right pair to the one found."""
    (params, macs), (right_params, right_macs) = found, right
    if found == right[::-1]:
        return "parameters and MACs have changed places."
    if params != right_params:
        return _why_params(row, params, right_params)
    weights = right_params - 8  # of the convolutions, which have 8 biases
    if macs == 2 * right_macs:
        return "one multiplication and its addition are *one* MAC; you counted two."
    if row.startswith("BatchNorm"):
        return "a MAC is a product inside a matrix product or a convolution; a normalisation has none."
    if "zero" in row and macs == right_macs / 2:
        return "nothing skips the zeros: an ordinary layer multiplies by them like by any other number."
    if "vectors" in row and macs * 7 == right_macs:
        return "that is one vector; each of them is multiplied by every weight."
    if row.startswith("Conv") and macs == weights:
        return "that is one output position; the kernel is applied at all of them."
    if row.startswith("Conv") and macs == weights * 100:
        return "you took the positions of the input. How many positions has the *output*?"
    if "groups" in row and macs == 4 * right_macs:
        return "you forgot the groups: a filter multiplies only the channels of its own group."
    if macs == right_params * (right_macs // max(weights, 1)) or macs == right_params:
        return "you counted the biases among the MACs. They are added, not multiplied."
    return "the parameters are right; the MACs are not."


def _why_params(row: str, params: float, right: int) -> str:
    if "bias=False" in row and params == right + 5:
        return "this one has no bias."
    if row.startswith("BatchNorm") and params == right / 2:
        return "that is half of it: each channel has a scale *and* a shift."
    if row.startswith("BatchNorm") and params == right * 2:
        return "running statistics are buffers: they are stored, but nothing trains them, and they are no parameters."
    if "zero" in row and params == 8 * 4 / 2 + 8:
        return "the layer still holds its zeros. They are in its tensor like any other number."
    if "groups" in row and params == 8 * 4 * 9 + 8:
        return "you forgot the groups: the weight's second dimension is what *one* filter reads."
    if params in (right - 8, right - 5):
        return "the biases are missing among the parameters."
    return "the number of parameters is not right."


def _with(row: str, pair: str) -> str:
    """The solution with one row changed: a wrong answer for the tests."""
    lines = [f'    "{row}": {pair},' if line.startswith(f'    "{row}":') else line for line in SOLUTION.splitlines()]
    return "\n".join(lines)


_CONV, _GROUPED = "Conv2d(4, 8, 3)", "Conv2d(4, 8, 3, padding=1, groups=4)"
_ZEROS = "Conv2d(4, 8, 1), half of its weights zero"
_VECTORS = "Linear(20, 5, bias=False), 7 vectors"

WRONG = (
    ("counts = [1, 2]", "the list .*dictionary of the stub"),
    ("counts = {'Linear(20, 5)': (105, 100)}", "`Linear.20, 5, bias=False., 7 vectors` is missing"),
    (_with("BatchNorm2d(8)", "(..., ...)"), "`BatchNorm2d.8.` is still open"),
    (_with("BatchNorm2d(8)", "16"), "holds the int .*a pair"),
    (_with("Linear(20, 5)", "(100, 105)"), "have changed places"),
    (_with(_VECTORS, "(105, 700)"), "this one has no bias"),
    (_with("BatchNorm2d(8)", "(8, 0)"), "a scale .and. a shift"),
    (_with("BatchNorm2d(8)", "(32, 0)"), "running statistics are buffers"),
    (_with("BatchNorm2d(8)", "(16, 800)"), "a normalisation has none"),
    (_with(_ZEROS, "(24, 3200)"), "still holds its zeros"),
    (_with(_ZEROS, "(40, 1600)"), "nothing skips the zeros"),
    (_with(_GROUPED, "(296, 28800)"), "what .one. filter reads"),
    (_with(_GROUPED, "(80, 28800)"), "only the channels of its own group"),
    (_with(_CONV, "(288, 18432)"), "biases are missing among the parameters"),
    (_with(_CONV, "(296, 28800)"), "positions of the input"),
    (_with(_CONV, "(296, 288)"), "that is one output position"),
    (_with(_CONV, "(296, 18944)"), "counted the biases among the MACs"),
    (_with(_CONV, "(296, 36864)"), "you counted two"),
    (_with(_VECTORS, "(100, 100)"), "that is one vector"),
    (_with("Linear(20, 5)", "(105, 99)"), "the MACs are not"),
    (_with("Linear(20, 5)", "(7, 100)"), "the number of parameters is not right"),
)

QUESTION = Question(
    name="q1",
    kind="recall",
    title="Held and run",
    task=TASK,
    answer="counts",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
