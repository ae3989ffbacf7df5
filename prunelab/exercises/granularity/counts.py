"""q1, recall: how many units a convolution has at each granularity, and how many members each unit has."""

from __future__ import annotations

import math
from typing import Any

from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong
from prunelab.exercises.pairs import Pair, read_pairs
from prunelab.granularity import Channel, Filter, Granularity, Group, Kernel, Layer, Layout, Weight

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Two layers: `nn.Conv2d(6, 8, kernel_size=3)`, whose weight has the shape (8, 6, 3, 3), and the same with `groups=2`,
whose weight has the shape (8, 3, 3, 3). View each weight as a matrix of units × members. How many units are there, and
how many members has each? Without running anything: fill in `(units, members)`.
"""

STARTER = """\
counts = {  # granularity: (units, members of one unit)
    "Weight": (..., ...),
    "Group(2, 3)": (..., ...),
    "Kernel": (..., ...),
    "Filter": (..., ...),
    "Channel": (..., ...),
    "Layer": (..., ...),
    "Kernel, groups=2": (..., ...),
    "Filter, groups=2": (..., ...),
    "Channel, groups=2": (..., ...),
}"""

SOLUTION = """\
counts = {  # granularity: (units, members of one unit)
    "Weight": (8 * 6 * 3 * 3, 1),
    "Group(2, 3)": ((8 // 2) * (6 * 3 * 3 // 3), 2 * 3),  # blocks of the matrix (8, 54)
    "Kernel": (8 * 6, 3 * 3),
    "Filter": (8, 6 * 3 * 3),
    "Channel": (6, 8 * 3 * 3),
    "Layer": (1, 8 * 6 * 3 * 3),
    "Kernel, groups=2": (8 * 3, 3 * 3),  # a filter reads only the 3 input channels of its group
    "Filter, groups=2": (8, 3 * 3 * 3),
    "Channel, groups=2": (6, 4 * 3 * 3),  # still 6 input channels, each read by the 4 filters of its group
}"""

HINTS = (
    "Every weight is in exactly one unit. So units × members is the number of weights of the layer, in each row of the "
    "table. Check each of your pairs against that first.",
    "A `Filter` makes one output channel, a `Channel` is everything that reads one input channel, a `Kernel` joins one "
    "input channel to one output channel. `Group(r, c)` cuts the matrix with one row a filter into blocks.",
    "With `groups=2` each filter reads only half of the input channels (that is why the weight's second dimension has "
    "halved), and each input channel is read by only half of the filters. The layer still has as many input channels.",
)

TAKEAWAY = (
    "Units × members is always the number of weights: a granularity moves weights between rows and columns and never "
    "loses one. Groups shrink what one filter reads, not the number of channels."
)

_PLAIN, _GROUPED = ((8, 6, 3, 3), Layout()), ((8, 3, 3, 3), Layout(groups=2))
_QUESTIONS: dict[str, tuple[Granularity, tuple[tuple[int, ...], Layout]]] = {
    "Weight": (Weight(), _PLAIN),
    "Group(2, 3)": (Group(2, 3), _PLAIN),
    "Kernel": (Kernel(), _PLAIN),
    "Filter": (Filter(), _PLAIN),
    "Channel": (Channel(), _PLAIN),
    "Layer": (Layer(), _PLAIN),
    "Kernel, groups=2": (Kernel(), _GROUPED),
    "Filter, groups=2": (Filter(), _GROUPED),
    "Channel, groups=2": (Channel(), _GROUPED),
}


def examine(answer: Any) -> None:
    """Compare every pair with the library's own `units`; report the first that differs, and why if that is known."""
    pairs = read_pairs(answer, _QUESTIONS, "(units, members)")
    right = {row: granularity.units(*layer) for row, (granularity, layer) in _QUESTIONS.items()}
    differing = [row for row in right if pairs[row] != right[row]]
    if differing:
        row = differing[0]
        score = f"{len(right) - len(differing)} of {len(right)} rows are right."
        raise Wrong(f"{score} Look at `{row}`: {_why(row, pairs[row], right[row])}")


def _why(row: str, found: Pair, right: tuple[int, int]) -> str:
    """What kind of mistake leads from the right pair to the one found."""
    units, members = right
    (shape, layout), area = _QUESTIONS[row][1], 9
    filters, inputs = shape[0], shape[1] * layout.groups
    if found == (members, units):
        return "units and members have changed places."
    if found == (units, members + 1):
        return "you counted the bias as a member. It goes along with its unit, but the view holds only weights."
    if "Channel" in row and found in [(filters, math.prod(shape[1:])), (filters, inputs * area)]:
        return "that is the view by filters (output channels). A channel is an *input* channel."
    if row == "Filter" and found == (inputs, filters * area):
        return "that is the view by input channels. A filter makes one *output* channel."
    if row == "Channel, groups=2" and found[0] == shape[1]:
        return "the layer still has all its input channels; the weight's second dimension is what one filter reads."
    if row == "Channel, groups=2" and found == (inputs, filters * area):
        return "you forgot the groups: an input channel is read only by the filters of its own group."
    if layout.groups > 1 and math.prod(found) == filters * inputs * area:
        return "you forgot the groups: a filter reads only the input channels of its own group."
    if row == "Group(2, 3)" and found == (filters * inputs * area / 6, 1):
        return "the number of blocks is right, but a block has more than one member."
    if row == "Group(2, 3)" and found[1] == members and found[0] == filters * inputs / 6:
        return "blocks are cut from the matrix with one row a filter, whose columns include the kernel's positions."
    if math.prod(found) != math.prod(right):
        return "units × members is not the number of weights of this layer, so weights are missing or counted twice."
    return "the product is right, but a unit of this kind holds another number of weights."


def _with(row: str, pair: str) -> str:
    """The solution with one row changed: a wrong answer for the tests."""
    lines = [f'    "{row}": {pair},' if line.startswith(f'    "{row}":') else line for line in SOLUTION.splitlines()]
    return "\n".join(lines)


WRONG = (
    ("counts = [1, 2]", "the list .*dictionary of the stub"),
    ("counts = {'Weight': (432, 1)}", "`Group.2, 3.` is missing"),
    (_with("Layer", "(..., ...)"), "`Layer` is still open"),
    (SOLUTION.replace("}", '    "Vector": (1, 2),\n}'), "Nobody asked for .*'Vector'"),
    (_with("Layer", "1"), "`Layer` holds the int .*a pair"),
    (_with("Weight", '("432", "1")'), "`Weight` holds the tuple .*a pair of numbers"),
    (_with("Weight", '"12"'), "`Weight` holds the str .*a pair of numbers"),
    (_with("Weight", "{432, 1}"), "`Weight` holds the set .*a pair of numbers"),
    (_with("Weight", "{432: 0, 1: 0}"), "`Weight` holds the dict .*a pair of numbers"),
    (_with("Kernel", "(9, 48)"), "`Kernel`: units and members have changed places"),
    (_with("Filter", "(8, 55)"), "counted the bias"),
    (_with("Channel", "(8, 54)"), "`Channel`: that is the view by filters"),
    (_with("Filter", "(6, 72)"), "`Filter`: that is the view by input channels"),
    (_with("Channel, groups=2", "(3, 72)"), "still has all its input channels"),
    (_with("Kernel, groups=2", "(48, 9)"), "`Kernel, groups=2`: you forgot the groups"),
    (_with("Filter, groups=2", "(8, 54)"), "`Filter, groups=2`: you forgot the groups"),
    (_with("Channel, groups=2", "(6, 72)"), "an input channel is read only by the filters of its own group"),
    (_with("Group(2, 3)", "(72, 1)"), "a block has more than one member"),
    (_with("Group(2, 3)", "(8, 6)"), "columns include the kernel's positions"),
    (_with("Kernel", "(48, 3)"), "`Kernel`: units × members is not the number of weights"),
    (_with("Layer", "(8, 54)"), "the product is right, but"),
)

QUESTION = Question(
    name="q1",
    kind="recall",
    title="Units and members",
    task=TASK,
    answer="counts",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
