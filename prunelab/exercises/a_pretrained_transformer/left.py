"""q1, recall: parameters of a transformer's layers, held and nonzero, after a pattern and after a removal."""

from __future__ import annotations

from typing import Any

from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong
from prunelab.exercises.pairs import Pair, read_pairs

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
A block of a transformer reads and makes 64 numbers a token. Its attention has 8 heads of 8 numbers each; `query` is
`Linear(64, 64)`, and so is `output`, which reads all heads. The feed-forward part is `inner = Linear(64, 256)` and
`outer = Linear(256, 64)`. All layers have biases. Once their weights (not their biases) are pruned 2:4, with no weight
zero before. Another time 2 of the 8 heads and half of the 256 inner neurons are *removed*, as `shrink` does it. How
many parameters does each layer then hold, biases included, and how many of them are not zero? No bias is zero. Without
running anything: fill in `(held, nonzero)`.
"""

STARTER = """\
left = {  # layer: (parameters held, nonzero)
    "query, 2:4": (..., ...),
    "query, removed": (..., ...),
    "output, 2:4": (..., ...),
    "output, removed": (..., ...),
    "inner, 2:4": (..., ...),
    "inner, removed": (..., ...),
    "outer, 2:4": (..., ...),
    "outer, removed": (..., ...),
}"""

SOLUTION = """\
left = {  # layer: (parameters held, nonzero)
    "query, 2:4": (64 * 64 + 64, 64 * 64 // 2 + 64),
    "query, removed": (64 * 48 + 48, 64 * 48 + 48),  # it makes 6 heads of 8 numbers
    "output, 2:4": (64 * 64 + 64, 64 * 64 // 2 + 64),
    "output, removed": (48 * 64 + 64, 48 * 64 + 64),  # it reads them, and makes all 64 numbers
    "inner, 2:4": (64 * 256 + 256, 64 * 256 // 2 + 256),
    "inner, removed": (64 * 128 + 128, 64 * 128 + 128),
    "outer, 2:4": (256 * 64 + 64, 256 * 64 // 2 + 64),
    "outer, removed": (128 * 64 + 64, 128 * 64 + 64),
}"""

HINTS = (
    "A pattern writes zeros into tensors that keep their shapes. A removal makes the tensors smaller, and writes none.",
    "A layer holds one weight for each pair of an input and an output, and one bias for each output. Of a removed head "
    "or neuron, which layer makes the numbers, and which reads them?",
    "`query` and `inner` make what is removed: they lose outputs, with their biases. `output` and `outer` read it: "
    "they lose inputs, and what they make stays, biases too.",
)

TAKEAWAY = (
    "After 2:4 a network holds as much as before, and needs a storage that leaves out zeros. After a removal it is a "
    "smaller ordinary network. Here both leave a little over half of the four layers' parameters nonzero, and only the "
    "removal makes the tensors smaller."
)

_LAYERS = {"query": (64, 64), "output": (64, 64), "inner": (64, 256), "outer": (256, 64)}  # inputs, outputs
_SMALL = {"query": (64, 48), "output": (48, 64), "inner": (64, 128), "outer": (128, 64)}
_ROWS = tuple(f"{layer}, {how}" for layer in _LAYERS for how in ("2:4", "removed"))


def _right(row: str) -> Pair:
    layer, how = row.split(", ")
    inputs, outputs = (_LAYERS if how == "2:4" else _SMALL)[layer]
    held = inputs * outputs + outputs
    return held, held - inputs * outputs // 2 if how == "2:4" else held


def examine(answer: Any) -> None:
    """Report the first row that differs, and why if that is known."""
    pairs = read_pairs(answer, _ROWS, "(held, nonzero)")
    differing = [row for row in _ROWS if pairs[row] != _right(row)]
    if differing:
        row = differing[0]
        score = f"{len(_ROWS) - len(differing)} of {len(_ROWS)} rows are right."
        why = _why_pattern if row.endswith("2:4") else _why_removed
        raise Wrong(f"{score} Look at `{row}`: {why(row.split(', ')[0], pairs[row])}")


def _why_pattern(layer: str, found: Pair) -> str:
    inputs, outputs = _LAYERS[layer]
    held, nonzero = _right(f"{layer}, 2:4")
    weights = inputs * outputs
    if found == (nonzero, held):
        return "held and nonzero have changed places."
    if found[0] == nonzero:
        return "a pattern writes zeros, but the tensor that holds them is as large as before."
    if found[0] == weights and found[1] == weights / 2:
        return "the biases are missing."
    if found[1] == held / 2:
        return "the pattern has taken biases too."
    if found[1] == weights / 4 + outputs:
        return "of every group of weights too few are left; what do the two numbers of the pattern say?"
    if found[1] == held:
        return "the zeros are counted as nonzero."
    if found[0] != held:
        return "what it holds is not what such a layer holds."
    return "what it holds is right; count the weights that the pattern leaves, and all biases."


def _why_removed(layer: str, found: Pair) -> str:
    inputs, outputs = _SMALL[layer]
    wide_in, wide_out = _LAYERS[layer]
    held = inputs * outputs + outputs
    if found[0] == wide_in * wide_out + wide_out:
        return "nothing is gone from what it holds, but a removal makes tensors smaller."
    if found[0] == held:
        return "a removal leaves no zeros behind."
    if found[0] == inputs * outputs:
        return "the biases are gone, but those of outputs that are left stay."
    if found[0] == inputs * outputs + wide_out and wide_out != outputs:
        return "an output that is removed takes its bias with it."
    if found[0] in _both_sides(layer):
        return "both sides have shrunk, but what the block reads and makes for other blocks stays whole."
    if found[0] in _other_share(layer):
        return "this is the share of what is removed, or that of the other part of the block."
    if found[0] == inputs * outputs + inputs:
        return "a bias belongs to an output, and here they were counted for the inputs."
    return "which of its two sides is made of heads, or of inner neurons?"


def _both_sides(layer: str) -> set[float]:
    inside = 48 if layer in ("query", "output") else 128
    narrow = 48 if layer in ("query", "output") else 32
    small_in, small_out = (inside, narrow) if layer in ("output", "outer") else (narrow, inside)
    return {small_in * small_out + small_out}


def _other_share(layer: str) -> set[float]:
    """Two heads kept, or half of the heads; two of eight parts of the neurons removed, or kept."""
    inside = (16, 32) if layer in ("query", "output") else (64, 192)
    made = layer in ("query", "inner")
    return {64 * size + (size if made else 64) for size in inside}


def _with(row: str, pair: str) -> str:
    """The solution with one row changed: a wrong answer for the tests."""
    lines = [f'    "{row}": {pair},' if line.startswith(f'    "{row}":') else line for line in SOLUTION.splitlines()]
    return "\n".join(lines)


WRONG = (
    ("left = 3", "the int 3.*dictionary of the stub"),
    ("left = {'query, 2:4': (4160, 2112)}", "`query, removed` is missing"),
    (_with("outer, removed", "(..., ...)"), "`outer, removed` is still open"),
    (_with("outer, removed", "17"), "`outer, removed` holds the int .*a pair"),
    (SOLUTION.replace("}", '    "key, 2:4": (1, 2),\n}'), "Nobody asked for .*'key, 2:4'"),
    (_with("query, 2:4", "(2112, 4160)"), "changed places"),
    (_with("query, 2:4", "(2112, 2112)"), "as large as before"),
    (_with("output, 2:4", "(4096, 2048)"), "the biases are missing"),
    (_with("inner, 2:4", "(16640, 8320)"), "taken biases too"),
    (_with("outer, 2:4", "(16448, 4160)"), "what do the two numbers"),
    (_with("outer, 2:4", "(16448, 16448)"), "counted as nonzero"),
    (_with("outer, 2:4", "(16640, 8256)"), "not what such a layer holds"),
    (_with("query, 2:4", "(4160, 100)"), "count the weights that the pattern leaves"),
    (_with("query, removed", "(4160, 3120)"), "nothing is gone"),
    (_with("inner, removed", "(8320, 4160)"), "leaves no zeros behind"),
    (_with("inner, removed", "(8192, 8192)"), "biases are gone"),
    (_with("query, removed", "(3136, 3136)"), "takes its bias with it"),
    (_with("output, removed", "(2352, 2352)"), "both sides have shrunk"),
    (_with("query, removed", "(1040, 1040)"), "share of what is removed"),
    (_with("outer, removed", "(8320, 8320)"), "belongs to an output"),
    (_with("outer, removed", "(50, 50)"), "which of its two sides"),
)

QUESTION = Question(
    name="q1",
    kind="recall",
    title="What a pattern and a removal leave",
    task=TASK,
    answer="left",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
