"""q1, recall: what a layer holds and runs when half of it is zero, and when half of it is gone."""

from __future__ import annotations

import math
from typing import Any

from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong
from prunelab.exercises.pairs import Pair, read_pairs

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
A dense layer `nn.Linear(20, 10)` in float32, with its biases, is pruned in two ways. Once half of its *weights* are set
to zero. Once half of its *outputs* are removed for good: what is left is an `nn.Linear(20, 5)`. How large is each, and
what are the two ratios to the dense layer? MACs are those of one example. Without running anything: fill in
`(zeroed, removed)`.
"""

STARTER = """\
sizes = {  # (half of its weights zeroed, half of its outputs removed)
    "parameters held": (..., ...),
    "parameters not zero": (..., ...),
    "bytes stored": (..., ...),
    "MACs run": (..., ...),
    "compression ratio": (..., ...),
    "theoretical speedup": (..., ...),
}"""

SOLUTION = """\
sizes = {  # (half of its weights zeroed, half of its outputs removed)
    "parameters held": (20 * 10 + 10, 20 * 5 + 5),  # a zero is held like any other number
    "parameters not zero": (20 * 10 // 2 + 10, 20 * 5 + 5),  # no bias is pruned
    "bytes stored": (4 * (20 * 10 + 10), 4 * (20 * 5 + 5)),
    "MACs run": (20 * 10, 20 * 5),
    "compression ratio": ((20 * 10 + 10) / (20 * 10 // 2 + 10), (20 * 10 + 10) / (20 * 5 + 5)),
    "theoretical speedup": ((20 * 10) / (20 * 10 // 2), (20 * 10) / (20 * 5)),  # as if zeros cost nothing
}"""

HINTS = (
    "In the left column the layer is still an `nn.Linear(20, 10)`: the same tensors, of the same shapes. Which rows of "
    "the table look at the shapes, and which at the values?",
    "A Linear layer has a weight of outputs × inputs and one bias for each output. Nobody has pruned a bias on the "
    "left; on the right each output took its own along. A float32 number has 32 bits.",
    "Each weight is one MAC for each example, and a bias is none. Both ratios are dense / pruned. "
    "The first counts all parameters that are not zero, the second MACs whose weight is not zero.",
)

TAKEAWAY = (
    "Zeros change what a layer *could* cost, and nothing that it does cost: shapes decide the latter. Biases are the "
    "reason why half of the weights is not quite a compression ratio of two."
)

_DENSE = (210, 200)  # parameters, MACs
_RIGHT: dict[str, Pair] = {
    "parameters held": (210, 105),
    "parameters not zero": (110, 105),
    "bytes stored": (840, 420),
    "MACs run": (200, 100),
    "compression ratio": (210 / 110, 210 / 105),
    "theoretical speedup": (2.0, 2.0),
}
_RATIOS = ("compression ratio", "theoretical speedup")


def examine(answer: Any) -> None:
    """Compare every pair with the right one; report the first that differs, and why if that is known."""
    pairs = read_pairs(answer, _RIGHT, "(zeroed, removed)")
    differing = [row for row in _RIGHT if not _agree(row, pairs[row])]
    if differing:
        row = differing[0]
        score = f"{len(_RIGHT) - len(differing)} of {len(_RIGHT)} rows are right."
        raise Wrong(f"{score} Look at `{row}`: {_why(row, pairs[row])}")


def _agree(row: str, found: Pair) -> bool:
    """Counts exactly, ratios as a reader rounds them."""
    return all(
        math.isclose(f, r, rel_tol=0.006 if row in _RATIOS else 0) for f, r in zip(found, _RIGHT[row], strict=True)
    )


def _why(row: str, found: Pair) -> str:
    """What kind of mistake leads from the right pair to the one found."""
    right = _RIGHT[row]
    if right[0] != right[1] and found == (right[1], right[0]):
        return "the two have changed places. Zeroed comes first, removed second."
    return _why_ratio(row, found) if row in _RATIOS else _why_count(row, found)


def _why_count(row: str, found: Pair) -> str:
    zeroed, removed = found
    right, (parameters, macs) = _RIGHT[row], _DENSE
    if row == "parameters held" and found == (200, 100):
        return "these are the weights alone. The layer has biases, and they are parameters too."
    if row == "parameters not zero" and found == (100, 100):
        return "these are the weights alone. Are the biases zero?"
    if row == "parameters not zero" and zeroed == parameters / 2:
        return "in the first case the biases are not pruned: only weights are zeroed."
    if row == "bytes stored" and found == (parameters, parameters / 2):
        return "that is the number of parameters. A float32 number takes more than one byte."
    if row == "bytes stored" and found == (32 * parameters, 16 * parameters):
        return "these are bits."
    if row == "MACs run" and found == (parameters, parameters / 2):
        return "adding a bias multiplies nothing, so it is no MAC."
    if row == "MACs run" and removed == macs:
        return "an output that is removed for good is not computed any more."
    if row != "parameters not zero" and zeroed < right[0] and removed == right[1]:
        return "a zero is a number like any other: it is held, stored and multiplied as before."
    return "work it out from the shapes of the two layers, weights and biases."


def _why_ratio(row: str, found: Pair) -> str:
    right = _RIGHT[row]
    if all(math.isclose(f, 1 / r, rel_tol=0.02) for f, r in zip(found, right, strict=True)):
        return "this is new / original: upside down. Both ratios are original / new, so that more is better."
    if row == "theoretical speedup" and found[0] == 1:
        return (
            "that is how much faster the zeros make it in PyTorch today. The *theoretical* speedup supposes a machine "
            "that skips every zero at no cost."
        )
    if row == "compression ratio" and found == (2, 2):
        return "that counts weights alone. The ratio is about all parameters, also those that nobody prunes."
    if row == "compression ratio" and found[0] == 1:
        return "the ratio divides by the parameters that are not *zero*, and not by those that are held."
    return "divide what the dense layer has by what counts here: for one ratio parameters, for the other MACs."


def _with(row: str, pair: str) -> str:
    """The solution with one row changed: a wrong answer for the tests."""
    lines = [f'    "{row}": {pair},' if line.startswith(f'    "{row}":') else line for line in SOLUTION.splitlines()]
    return "\n".join(lines)


WRONG = (
    ("sizes = [1, 2]", "the list .*dictionary of the stub"),
    ("sizes = {'parameters held': (7, 8)}", "`parameters not zero` is missing"),
    (_with("MACs run", "(..., ...)"), "`MACs run` is still open"),
    (SOLUTION.replace("}", '    "latency": (1, 2),\n}'), "Nobody asked for .*'latency'"),
    (_with("MACs run", "300"), "`MACs run` holds the int .*a pair"),
    (_with("bytes stored", '("few", "fewer")'), "`bytes stored` holds the tuple .*a pair of numbers"),
    (_with("parameters held", "(105, 210)"), "`parameters held`: the two have changed places"),
    (_with("parameters held", "(200, 100)"), "and they are parameters too"),
    (_with("parameters held", "(110, 105)"), "`parameters held`: a zero is a number like any other"),
    (_with("parameters not zero", "(100, 100)"), "Are the biases zero"),
    (_with("parameters not zero", "(105, 105)"), "the biases are not pruned"),
    (_with("bytes stored", "(210, 105)"), "more than one byte"),
    (_with("bytes stored", "(6720, 3360)"), "these are bits"),
    (_with("bytes stored", "(440, 420)"), "`bytes stored`: a zero is a number like any other"),
    (_with("MACs run", "(210, 105)"), "it is no MAC"),
    (_with("MACs run", "(200, 200)"), "is not computed any more"),
    (_with("MACs run", "(100, 100)"), "`MACs run`: a zero is a number like any other"),
    (_with("MACs run", "(10, 5)"), "from the shapes of the two layers"),
    (_with("compression ratio", "(110 / 210, 105 / 210)"), "`compression ratio`: this is new / original: upside down"),
    (_with("compression ratio", "(2, 2)"), "that counts weights alone"),
    (_with("compression ratio", "(1, 2)"), "and not by those that are held"),
    (_with("theoretical speedup", "(0.5, 0.5)"), "`theoretical speedup`: this is new / original: upside down"),
    (_with("theoretical speedup", "(1, 2)"), "in PyTorch today"),
    (_with("theoretical speedup", "(20, 20)"), "for one ratio parameters, for the other MACs"),
)

QUESTION = Question(
    name="q1",
    kind="recall",
    title="Zeroed or removed",
    task=TASK,
    answer="sizes",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
