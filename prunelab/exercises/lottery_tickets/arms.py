"""q1, recall: what each arm of the comparison shares with the ticket."""

from __future__ import annotations

from typing import Any

from prunelab.exercises.core import Material, Question
from prunelab.exercises.truths import compare_truths, turned_round

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
A ticket, and what it is raced against on this page. Fill in True or False: does the arm have the *ticket's mask*; do
its weights start at the values that they have in the *ticket's* network before training (those that it has at all);
and was a network *trained* to choose which of its weights to remove?
"""

STARTER = """\
arms = {
    "ticket": dict(mask=..., start=..., trained=...),
    "reinit": dict(mask=..., start=..., trained=...),
    "random": dict(mask=..., start=..., trained=...),
    "oneshot": dict(mask=..., start=..., trained=...),
    "small": dict(mask=..., start=..., trained=...),
    "SNIP": dict(mask=..., start=..., trained=...),
    "early bird": dict(mask=..., start=..., trained=...),
}"""

SOLUTION = """\
arms = {
    "ticket": dict(mask=True, start=True, trained=True),
    "reinit": dict(mask=True, start=False, trained=True),
    "random": dict(mask=False, start=True, trained=False),
    "oneshot": dict(mask=False, start=True, trained=True),
    "small": dict(mask=False, start=False, trained=False),
    "SNIP": dict(mask=False, start=True, trained=False),
    "early bird": dict(mask=False, start=True, trained=True),
}"""

HINTS = (
    "A ticket is a pair: a mask and initial weights. Ask of each arm which of the two it has taken over.",
    "A control changes one thing. Its name mostly says which: what is drawn anew in *reinit*, what in *random*?",
    "Several arms draw up a mask of their own for the ticket's initial weights. They differ in when they look: before "
    "the first step, after some epochs, or after the whole training.",
)

TAKEAWAY = (
    "Only one arm has the ticket's mask without its start: the difference to it is what the initial weights are worth. "
    "All arms with its start and another mask tell what the mask is worth, and what it costs to find one."
)

COLUMNS = ("mask", "start", "trained")
# What is wrong, by row and column; a question that leads on, not the answer.
WHY = {
    ("ticket", "mask"): "whose mask is it, if not its own?",
    ("ticket", "start"): "what is it that rewinding puts back?",
    ("ticket", "trained"): "weights are ranked by their size after something. After what?",
    ("reinit", "mask"): "its name says what is new in it. Is anything else?",
    ("reinit", "start"): "read its name once more.",
    ("reinit", "trained"): "it did not choose its mask itself; whoever did, how?",
    ("random", "mask"): "as many weights in each layer; but the same ones?",
    ("random", "start"): "one thing is left to chance here. Is it the weights or the mask?",
    ("random", "trained"): "a die decides which of a layer's weights go. What would it learn from training?",
    (
        "oneshot",
        "mask",
    ): "it ranks the weights of the dense network once. The ticket's last ranking is of other weights.",
    ("oneshot", "start"): "it is cut once, and then rewound like the ticket. To where?",
    ("oneshot", "trained"): "one cut, but of which network: a fresh one, or one that has learned?",
    ("small", "mask"): "how many neurons has it, and how would a mask of the large network fit it?",
    ("small", "start"): "its layers have other shapes. Whose values could it start at?",
    ("small", "trained"): "it was made small. Did anybody remove a weight from it?",
    ("SNIP", "mask"): "it makes a choice of its own, by another score.",
    ("SNIP", "start"): "what is pruned at initialisation is pruned there, and then trained from there.",
    ("SNIP", "trained"): "it measures a gradient. Does it take a step?",
    ("early bird", "mask"): "it is drawn after some epochs, from one ranking. Is that what the rounds arrive at?",
    ("early bird", "start"): "on this page, where do its weights go back to once the mask is drawn?",
    ("early bird", "trained"): "a few epochs are fewer than all. Are they none?",
}
_RIGHT = {
    "ticket": (True, True, True),
    "reinit": (True, False, True),
    "random": (False, True, False),
    "oneshot": (False, True, True),
    "small": (False, False, False),
    "SNIP": (False, True, False),
    "early bird": (False, True, True),
}


def examine(answer: Any) -> None:
    """Report the first cell that differs."""
    right = {row: dict(zip(COLUMNS, cells, strict=True)) for row, cells in _RIGHT.items()}
    compare_truths(answer, right, WHY)


def _with(row: str, column: str, value: str = "") -> str:
    return turned_round(SOLUTION, row, column, value)


WRONG = (
    ("arms = [True, False]", "the list .*dictionary of the stub"),
    ("arms = {'ticket': dict(mask=True, start=True, trained=True)}", "`reinit` is missing"),
    (
        SOLUTION.removesuffix("}") + '    "luck": dict(mask=True, start=True, trained=True),\n}',
        "Nobody asked for .*luck",
    ),
    (_with("SNIP", "mask", "..."), "`SNIP` is still open"),
    (_with("small", "mask", "'no'"), "`small` says the str 'no' of its mask"),
    (_with("small", "start", "3"), "`small` says the int 3 of its start"),
    (SOLUTION.replace("dict(mask=True, start=True, trained=True)", "True"), "`ticket` holds the bool"),
    (_with("ticket", "mask"), "whose mask is it"),
    (_with("ticket", "start"), "what is it that rewinding"),
    (_with("ticket", "trained"), "After what"),
    (_with("reinit", "mask"), "Is anything else"),
    (_with("reinit", "start"), "read its name once more"),
    (_with("reinit", "trained"), "whoever did, how"),
    (_with("random", "mask"), "but the same ones"),
    (_with("random", "start"), "Is it the weights or the mask"),
    (_with("random", "trained"), "What would it learn"),
    (_with("oneshot", "mask"), "last ranking is of other weights"),
    (_with("oneshot", "start"), "rewound like the ticket"),
    (_with("oneshot", "trained"), "or one that has learned"),
    (_with("small", "mask"), "how would a mask of the large"),
    (_with("small", "start"), "Whose values could it"),
    (_with("small", "trained"), "Did anybody remove"),
    (_with("SNIP", "mask"), "by another score"),
    (_with("SNIP", "start"), "is pruned there"),
    (_with("SNIP", "trained"), "Does it take a step"),
    (_with("early bird", "mask"), "what the rounds arrive at"),
    (_with("early bird", "start"), "once the mask is drawn"),
    (_with("early bird", "trained"), "Are they none"),
)

QUESTION = Question(
    name="q1",
    kind="recall",
    title="What each arm shares with the ticket",
    task=TASK,
    answer="arms",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
