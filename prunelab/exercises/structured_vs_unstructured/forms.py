"""q1, recall: what a pruned layer holds and runs, in each form of storage."""

from __future__ import annotations

from typing import Any

from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong
from prunelab.exercises.pairs import Pair, read_pairs

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
A Linear layer with 1000 inputs and 500 outputs, in float32 and without biases, is pruned. How many bytes does it hold
then, and how many MACs does it run for one example? Nine tenths of its weights are zero in the first three rows: kept
in place; in CSR; in block-CSR with blocks of 10 × 10 that are zero or kept as a whole. Every index, of columns and of
row starts, takes eight bytes. In the last two rows channels are removed for good. Without running anything: fill in
`(bytes, MACs)`.
"""

STARTER = """\
forms = {  # (bytes held, MACs run for one example)
    "zeros in place": (..., ...),
    "CSR": (..., ...),
    "block-CSR": (..., ...),
    "half of the outputs removed": (..., ...),
    "half of both removed": (..., ...),
}"""

SOLUTION = """\
forms = {  # (bytes held, MACs run for one example)
    "zeros in place": (500 * 1000 * 4, 500 * 1000),  # a zero is held and multiplied like any other number
    "CSR": (50_000 * (4 + 8) + (500 + 1) * 8, 50_000),
    "block-CSR": (50_000 * 4 + 500 * 8 + (50 + 1) * 8, 50_000),  # 500 blocks left, in 50 rows of blocks
    "half of the outputs removed": (250 * 1000 * 4, 250 * 1000),
    "half of both removed": (250 * 500 * 4, 250 * 500),
}"""

HINTS = (
    "Shapes decide in three of the five rows. Multiply out the shape of what is held: each element takes four bytes, "
    "and is multiplied once for each example.",
    "CSR has three lists: the weights that are left, one column number for each of them, and where each row starts. "
    "The last one has an entry more than there are rows.",
    "In block-CSR the rows and columns are those of blocks. How many blocks are there, how many are left, and how many "
    "rows do they make? A block that is left holds all of its weights.",
)

TAKEAWAY = (
    "In CSR the places take more bytes than the weights; in blocks they hardly count. And removing half of both sides "
    "leaves a quarter, in bytes and in MACs, without a word about places."
)

_DENSE: Pair = (2_000_000, 500_000)
_RIGHT: dict[str, Pair] = {
    "zeros in place": _DENSE,
    "CSR": (604_008, 50_000),
    "block-CSR": (204_408, 50_000),
    "half of the outputs removed": (1_000_000, 250_000),
    "half of both removed": (500_000, 125_000),
}
_BYTES = {  # bytes that a misconception leads to, by row
    "zeros in place": {
        200_000: "the zeros are held like all other numbers: a dense tensor has no other way.",
        500_000: "that is the number of weights. A float32 number takes more than one byte.",
        2_002_000: "there are no biases here.",
    },
    "CSR": {
        200_000: "those are the weights alone. CSR also has to say where they belong.",
        600_000: "the columns are there, but not where each row starts.",
        604_000: "one start for each row is not enough: the end of the last one is stored too.",
        402_004: "these indices take four bytes; here they take eight.",
        1_000_000: "a row number for each weight is another format (COO). CSR says where each row starts.",
        608_008: "the starts belong to the rows, which are the outputs, and not to the inputs.",
        204_008: "the starts are there, but not the column of each weight.",
    },
    "block-CSR": {
        604_008: "that is CSR. Here a whole block shares one index.",
        200_000: "those are the weights alone. The blocks need places too.",
        204_000: "the column of each block is there, but not where each row of blocks starts.",
        204_400: "one start for each row of blocks is not enough: the end of the last one is stored too.",
        208_008: "there are as many starts as rows of *blocks*, and one more.",
        200_408: "the starts are there, but not the column of each block.",
    },
    "half of the outputs removed": {
        2_000_000: "outputs that are removed for good are not held any more.",
        500_000: "only the outputs are halved here; each of those left still reads all inputs.",
        250_000: "that is the number of weights. A float32 number takes more than one byte.",
    },
    "half of both removed": {
        1_000_000: "half of one side leaves a half. Here both sides lose a half.",
        125_000: "that is the number of weights. A float32 number takes more than one byte.",
    },
}


def examine(answer: Any) -> None:
    """Compare every pair with the right one; report the first that differs, and why if that is known."""
    pairs = read_pairs(answer, _RIGHT, "(bytes, MACs)")
    differing = [row for row in _RIGHT if pairs[row] != _RIGHT[row]]
    if differing:
        row = differing[0]
        score = f"{len(_RIGHT) - len(differing)} of {len(_RIGHT)} rows are right."
        raise Wrong(f"{score} Look at `{row}`: {_why(row, pairs[row])}")


def _why(row: str, found: Pair) -> str:
    """What kind of mistake leads from the right pair to the one found."""
    held, run = found
    right = _RIGHT[row]
    if found == (right[1], right[0]):
        return "bytes and MACs have changed places."
    if held != right[0]:
        if held == 8 * right[0]:
            return "these are bits."
        return _BYTES[row].get(int(held), "count the bytes again, list by list.")
    if run == 2 * right[1]:
        return "a MAC is one multiplication *and* one addition; you counted them apart."
    if row == "zeros in place" and run < right[1]:
        return "the bytes are right, but the zeros are multiplied as well."
    if "CSR" in row and run == _DENSE[1]:
        return "the bytes are right, but what is not held is not multiplied."
    return "the bytes are right; how often is each weight that is held multiplied for one example?"


def _with(row: str, pair: str) -> str:
    """The solution with one row changed: a wrong answer for the tests."""
    lines = [f'    "{row}": {pair},' if line.startswith(f'    "{row}":') else line for line in SOLUTION.splitlines()]
    return "\n".join(lines)


WRONG = (
    ("forms = [1, 2]", "the list .*dictionary of the stub"),
    ("forms = {'zeros in place': (7, 8)}", "`CSR` is missing"),
    (_with("CSR", "(..., ...)"), "`CSR` is still open"),
    (SOLUTION.replace("\n}", '\n    "bitmap": (1, 2),\n}'), "Nobody asked for .*'bitmap'"),
    (_with("CSR", "7"), "`CSR` holds the int .*a pair of numbers"),
    (_with("zeros in place", "(200_000, 500_000)"), "zeros are held like all other numbers"),
    (_with("zeros in place", "(2_000_000, 50_000)"), "the zeros are multiplied as well"),
    (_with("zeros in place", "(500_000, 2_000_000)"), "have changed places"),
    (_with("zeros in place", "(16_000_000, 500_000)"), "these are bits"),
    (_with("zeros in place", "(2_002_000, 500_000)"), "no biases here"),
    (_with("CSR", "(200_000, 50_000)"), "CSR also has to say where they belong"),
    (_with("CSR", "(600_000, 50_000)"), "columns are there, but not where each row starts"),
    (_with("CSR", "(604_000, 50_000)"), "one start for each row is not enough"),
    (_with("CSR", "(402_004, 50_000)"), "take four bytes; here"),
    (_with("CSR", "(1_000_000, 50_000)"), "another format .COO."),
    (_with("CSR", "(608_008, 50_000)"), "rows, which are the outputs"),
    (_with("CSR", "(604_008, 500_000)"), "what is not held is not multiplied"),
    (_with("CSR", "(604_008, 100_000)"), "you counted them apart"),
    (_with("CSR", "(604_009, 50_000)"), "count the bytes again"),
    (_with("CSR", "(604_008, 7)"), "how often is each weight that is held"),
    (_with("block-CSR", "(604_008, 50_000)"), "that is CSR"),
    (_with("block-CSR", "(204_000, 50_000)"), "not where each row of blocks starts"),
    (_with("block-CSR", "(208_008, 50_000)"), "as many starts as rows of .blocks."),
    (_with("half of the outputs removed", "(2_000_000, 250_000)"), "not held any more"),
    (_with("half of the outputs removed", "(500_000, 125_000)"), "still reads all inputs"),
    (_with("half of both removed", "(1_000_000, 250_000)"), "both sides lose a half"),
    (_with("half of both removed", "(125_000, 125_000)"), "takes more than one byte"),
)

QUESTION = Question(
    name="q1",
    kind="recall",
    title="One layer, five forms",
    task=TASK,
    answer="forms",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
