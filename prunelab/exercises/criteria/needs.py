"""q1, recall: which criterion depends on weights, on gradients, and on data."""

from __future__ import annotations

from typing import Any

from prunelab.criteria import (
    Criterion,
    FilterCorrelation,
    GradientMagnitude,
    Magnitude,
    MutualInformation,
    Random,
    Taylor,
    Wanda,
    table,
)
from prunelab.exercises.core import Material, Question
from prunelab.exercises.truths import compare_truths, turned_round

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
What does the score of each criterion read directly: the weights, the gradients? And can it be computed without data?
Without looking at the table: fill in True or False. "Directly" means: change this one argument, hold all the others,
and the score changes. Activations and gradients are arguments of their own, though they come from the weights.
"""

STARTER = """\
needs = {
    "Weight Magnitude": dict(weights=..., gradients=..., data=...),
    "Filter Correlation": dict(weights=..., gradients=..., data=...),
    "Gradient Magnitude": dict(weights=..., gradients=..., data=...),
    "Taylor Expansion": dict(weights=..., gradients=..., data=...),
    "Mutual Information": dict(weights=..., gradients=..., data=...),
    "Gradients, Hubens 2020": dict(weights=..., gradients=..., data=...),
    "Wanda": dict(weights=..., gradients=..., data=...),
    "Random": dict(weights=..., gradients=..., data=...),
}"""

SOLUTION = """\
needs = {
    "Weight Magnitude": dict(weights=True, gradients=False, data=False),
    "Filter Correlation": dict(weights=True, gradients=False, data=False),
    "Gradient Magnitude": dict(weights=False, gradients=True, data=True),
    "Taylor Expansion": dict(weights=True, gradients=True, data=True),
    "Mutual Information": dict(weights=False, gradients=False, data=True),
    "Gradients, Hubens 2020": dict(weights=True, gradients=True, data=True),
    "Wanda": dict(weights=True, gradients=False, data=True),
    "Random": dict(weights=False, gradients=False, data=False),
}"""

HINTS = (
    "Write each score down as a formula first. Which letters stand in it: `V`, `G`, or what flows through the network?",
    "A gradient is the derivative of a loss, and a loss is that of some examples. So a score with a gradient in it "
    "cannot be had without them.",
    "Two rows have nearly the same name. In the table of this course the gradient stands alone; in the post of 2020 it "
    "multiplies something before the norm is taken.",
)

TAKEAWAY = (
    "Two columns are about the formula, the third about what it takes to fill the formula in. The name of a criterion "
    "is no help: two rows share one, and differ in the first column."
)

COLUMNS = ("weights", "gradients", "data")
# What is wrong, by row and column; a question that leads on, not the answer.
WHY = {
    ("Weight Magnitude", "weights"): "its other name is the filter norm. The norm of what?",
    (
        "Weight Magnitude",
        "gradients",
    ): "a norm of weights is computed before any loss is. Which gradient could it read?",
    (
        "Weight Magnitude",
        "data",
    ): "take a network from a file, without a single image. Can you sort its weights by size?",
    (
        "Filter Correlation",
        "weights",
    ): "this one correlates filters with each other, not feature maps. What is a filter?",
    ("Filter Correlation", "gradients"): "the Gram matrix is a product of normalised rows. Of which matrix?",
    (
        "Filter Correlation",
        "data",
    ): "feature maps have correlations too, but this criterion compares the filters themselves.",
    ("Gradient Magnitude", "weights"): (
        "hold the gradient and change the weight. That the gradient was once computed at some weight does not count."
    ),
    ("Gradient Magnitude", "gradients"): "read its name once more.",
    ("Gradient Magnitude", "data"): "which examples is the loss the loss of?",
    ("Taylor Expansion", "weights"): "removing a weight is a step. From where to where, and how long is it?",
    ("Taylor Expansion", "gradients"): "which derivative does the first term of a Taylor expansion hold?",
    ("Taylor Expansion", "data"): "it expands the loss. Of which examples?",
    ("Mutual Information", "weights"): (
        "the activations depend on the weights, but hold the activations: does the score still see a weight?"
    ),
    ("Mutual Information", "gradients"): "it counts how often values and labels meet. Is anything differentiated?",
    ("Mutual Information", "data"): "information of what with what? Where do the two come from?",
    ("Gradients, Hubens 2020", "weights"): (
        "in the post, the gradients are not alone when the L1 norm is taken; the section on the disagreement quotes it."
    ),
    ("Gradients, Hubens 2020", "gradients"): "it is weight magnitude with *one* change. Which one?",
    (
        "Gradients, Hubens 2020",
        "data",
    ): "no change can be had for nothing: a backward pass starts from a loss.",
    ("Wanda", "weights"): "its name is short for pruning by *weights* and activations.",
    ("Wanda", "gradients"): "it was made for models so large that a backward pass costs too much.",
    ("Wanda", "data"): "the norms of the inputs are the norms of somebody's inputs.",
    ("Random", "weights"): "a die does not look at what it decides about.",
    ("Random", "gradients"): "chance computes no derivatives.",
    ("Random", "data"): "which data would a seed need?",
}

_CRITERIA: dict[str, type[Criterion]] = {
    "Weight Magnitude": Magnitude,
    "Filter Correlation": FilterCorrelation,
    "Gradient Magnitude": GradientMagnitude,
    "Taylor Expansion": Taylor,
    "Mutual Information": MutualInformation,
    "Gradients, Hubens 2020": Taylor,  # with the sum outside: the same arguments
    "Wanda": Wanda,
    "Random": Random,
}


def examine(answer: Any) -> None:
    """Compare every cell with what the classes declare; report the first that differs."""
    compare_truths(answer, _right(), WHY)


def _right() -> dict[str, dict[str, bool]]:
    declared = {row.criterion: row for row in table().rows}
    rows = {name: declared[kind.__name__] for name, kind in _CRITERIA.items()}
    return {name: {column: getattr(row, column) for column in COLUMNS} for name, row in rows.items()}


def _with(row: str, column: str, value: str = "") -> str:
    return turned_round(SOLUTION, row, column, value)


WRONG = (
    ("needs = [True, False]", "the list .*dictionary of the stub"),
    (
        "needs = {'Weight Magnitude': dict(weights=True, gradients=False, data=False)}",
        "`Filter Correlation` is missing",
    ),
    (
        SOLUTION.removesuffix("}") + '    "Magic": dict(weights=True, gradients=True, data=True),\n}',
        "Nobody asked for .*Magic",
    ),
    (_with("Wanda", "data", "..."), "`Wanda` is still open"),
    (_with("Random", "data", "'no'"), "`Random` says the str 'no' of its data"),
    (_with("Random", "weights", "3"), "`Random` says the int 3 of its weights"),
    (
        SOLUTION.replace("dict(weights=True, gradients=False, data=False)", "True", 1),
        "`Weight Magnitude` holds the bool",
    ),
    (_with("Weight Magnitude", "weights"), "The norm of what"),
    (_with("Weight Magnitude", "gradients"), "Which gradient could it read"),
    (_with("Weight Magnitude", "data"), "without a single image"),
    (_with("Filter Correlation", "weights"), "What is a filter"),
    (_with("Filter Correlation", "gradients"), "Of which matrix"),
    (_with("Filter Correlation", "data"), "compares the filters themselves"),
    (_with("Gradient Magnitude", "weights"), "was once computed at some weight"),
    (_with("Gradient Magnitude", "gradients"), "read its name once more"),
    (_with("Gradient Magnitude", "data"), "is the loss the loss of"),
    (_with("Taylor Expansion", "weights"), "how long is it"),
    (_with("Taylor Expansion", "gradients"), "the first term of a Taylor expansion"),
    (_with("Taylor Expansion", "data"), "it expands the loss"),
    (_with("Mutual Information", "weights"), "does the score still see a weight"),
    (_with("Mutual Information", "gradients"), "Is anything differentiated"),
    (_with("Mutual Information", "data"), "information of what with what"),
    (_with("Gradients, Hubens 2020", "weights"), "the section on the disagreement"),
    (_with("Gradients, Hubens 2020", "gradients"), "weight magnitude with .one. change"),
    (_with("Gradients, Hubens 2020", "data"), "a backward pass starts from a loss"),
    (_with("Wanda", "weights"), "its name is short for"),
    (_with("Wanda", "gradients"), "a backward pass costs too much"),
    (_with("Wanda", "data"), "somebody's inputs"),
    (_with("Random", "weights"), "a die does not look"),
    (_with("Random", "gradients"), "chance computes no derivatives"),
    (_with("Random", "data"), "which data would a seed need"),
)

QUESTION = Question(
    name="q1",
    kind="recall",
    title="What each criterion depends on",
    task=TASK,
    answer="needs",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
