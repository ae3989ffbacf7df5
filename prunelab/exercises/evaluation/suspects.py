"""q4, investigate: what a library's "compression" really counts, found out from the outside."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

KINDS = ("compression ratio", "kept fraction", "sparsity", "percent removed", "weights only", "mean of ratios")

TASK = """
Six libraries report a number called "compression" for a Linear layer: `metric(weight, bias)` takes its two tensors, of
any size (O, I) and (O,), and returns a number. You get `metric` and nothing else. Predict first: which of the six agree
on a layer without zeros, and which never differ by more than one?

Then write `identify(metric)`. It returns which number this is: `"compression ratio"`, all parameters / nonzero
parameters, as in this chapter; `"kept fraction"`, its inverse; `"sparsity"`, the fraction of all parameters that is
zero; `"percent removed"`, the same as a percentage; `"weights only"`, the compression ratio as if there were no biases;
`"mean of ratios"`, the compression ratio of each of the two tensors by itself, and their mean. Some libraries round
what they return to one decimal.
"""

STARTER = '''\
def identify(metric):
    """Which of the six numbers this is: its name."""
    ...'''

SOLUTION = '''\
def identify(metric):
    """Which of the six numbers this is: its name."""
    weight, bias = torch.zeros(10, 10), torch.ones(10)
    weight[0, 0] = 1  # 110 parameters, 11 of them not zero
    found = float(metric(weight, bias))
    expected = {
        "compression ratio": 110 / 11,
        "kept fraction": 11 / 110,
        "sparsity": 99 / 110,
        "percent removed": 100 * 99 / 110,
        "weights only": 100 / 1,
        "mean of ratios": (100 / 1 + 10 / 10) / 2,
    }
    return min(expected, key=lambda name: abs(expected[name] - found))'''

HINTS = (
    "You choose the tensors, so choose them such that no two of the six numbers are near each other. Work the six out "
    "on paper for a small layer of your own before you call anything.",
    "Ratios of the parts of a layer only differ if its parts differ: let nearly all weights be zero and no bias. Make "
    "the weight much larger than the bias, or the mean of two ratios may come out like the ratio of the whole.",
    "Do not ask whether a number *equals* what you worked out: it may be rounded. Ask which of the six it is nearest "
    "to, and see that the distances are large.",
)

TAKEAWAY = (
    "One layer that you understand completely tells you what a number means; its name does not. Try that layer on "
    "every tool and table that you are about to compare."
)


@dataclass(frozen=True, repr=False)
class Suspect:
    """One of the libraries."""

    kind: str
    decimals: int | None = None

    def __call__(self, weight: Tensor, bias: Tensor) -> float:
        counts = [(tensor.numel(), int(tensor.count_nonzero())) for tensor in (weight, bias)]
        total, left = (sum(column) for column in zip(*counts, strict=True))
        number = {
            "compression ratio": lambda: _over(total, left),
            "kept fraction": lambda: left / total,
            "sparsity": lambda: 1 - left / total,
            "percent removed": lambda: 100 * (1 - left / total),
            "weights only": lambda: _over(*counts[0]),
            "mean of ratios": lambda: (_over(*counts[0]) + _over(*counts[1])) / 2,
        }[self.kind]()
        return number if self.decimals is None else round(number, self.decimals)

    def __repr__(self) -> str:
        return "a_library"


def _over(total: float, left: float) -> float:
    return total / left if left else math.inf


RATIOS = ("compression ratio", "weights only", "mean of ratios")
SHARES = ("kept fraction", "sparsity")
# What was named, and what it is → what to try: an experiment, not the name.
WHY = {
    (
        "compression ratio",
        "weights only",
    ): "A compression ratio counts all parameters. Change the bias: does it notice?",
    ("compression ratio", "mean of ratios"): (
        "In a compression ratio every parameter counts once. Let the weight be far larger than the bias, and look "
        "whether the small tensor weighs as much as the large one."
    ),
    ("compression ratio", *SHARES): "A compression ratio is original / new and never below one. Is this ever?",
    ("compression ratio", "percent removed"): "The compression ratio of a layer without zeros is one. What is this?",
    ("kept fraction", *RATIOS): "The kept fraction is never above one. Is this ever?",
    ("kept fraction", "sparsity", "percent removed"): (
        "The kept fraction *falls* when more becomes zero. Let more become zero here."
    ),
    ("sparsity", "percent removed"): "The sparsity is a fraction. How large does this one become?",
    ("sparsity", "kept fraction"): "The sparsity *grows* when more becomes zero. Let more become zero here.",
    ("sparsity", *RATIOS): "The sparsity of a layer without zeros is nought, and this one's?",
    ("percent removed", "sparsity"): "Nine zeros in ten parameters are ninety percent. What does this make of them?",
    ("percent removed", "kept fraction"): "A percentage of what is removed grows with the zeros. Does this?",
    ("percent removed", *RATIOS): "Nothing is removed from a layer without zeros. Does this say so?",
    ("weights only", "compression ratio", "mean of ratios"): "This one should not care about biases. Does it?",
    ("weights only", *SHARES): "The ratio of the weights is never below one. Look for a layer where this is.",
    ("weights only", "percent removed"): "The ratio of the weights is one where none of them is zero. Try that.",
    ("mean of ratios", "compression ratio"): (
        "Both tensors have an equal say in a mean of two ratios. Take a weight that is much larger than the bias, and "
        "see who decides here."
    ),
    ("mean of ratios", "weights only"): "A mean of two ratios changes with either tensor. Hold one, change the other.",
    ("mean of ratios", *SHARES): "A mean of two ratios is never below one. Can you push this one there?",
    ("mean of ratios", "percent removed"): "A mean of two ratios begins at one, where nothing is zero. And this?",
}


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="identify")


def _judge(found: Any, metric: Suspect) -> None:
    if not isinstance(found, str):
        raise Wrong(f"`identify` returns {describe(found)}; it should return one of the six names, as text.")
    if found not in KINDS:
        raise Wrong(f"`identify` returns {describe(found)}, which is none of the six names of the task.")
    if found != metric.kind:
        if metric.decimals is not None:  # the same number without rounding has come before, and was named
            raise Wrong(
                f'You call it "{found}", and it is not. This library rounds to one decimal, which may have misled you: '
                "do not ask for equality, and choose a layer on which the six are far apart."
            )
        reason = next(why for (named, *kinds), why in WHY.items() if named == found and metric.kind in kinds)
        raise Wrong(f'You call it "{found}", and it is not. {reason}')


def _cases() -> list[Case]:
    order = ("sparsity", "weights only", "percent removed", "mean of ratios", "kept fraction", "compression ratio")
    suspects = [Suspect(kind) for kind in order] + [Suspect(kind, decimals=1) for kind in reversed(order)]
    return [Case(f"library {number}", {"metric": one}) for number, one in enumerate(suspects, start=1)]


def _taking(kind: str, for_: str) -> str:
    """The solution with one kind taken for another."""
    inner = SOLUTION.replace("def identify(metric)", "def really(metric)")
    swap = f"{{{kind!r}: {for_!r}}}"
    return f"{inner}\n\ndef identify(metric):\n    found = really(metric)\n    return {swap}.get(found, found)"


_EXACT = '''\
def identify(metric):
    weight, bias = torch.ones(4, 4), torch.ones(4)
    weight[0] = 0
    names = {20 / 16: "compression ratio", 16 / 20: "kept fraction", 0.2: "sparsity", 20.0: "percent removed"}
    names |= {16 / 12: "weights only"}
    found = min(names, key=lambda value: abs(value - metric(weight, bias)))
    return names[found] if abs(found - metric(weight, bias)) < 1e-6 else "mean of ratios"'''

WRONG = (
    (_taking("weights only", "compression ratio"), "Change the bias: does it notice"),
    (_taking("mean of ratios", "compression ratio"), "whether the small tensor weighs as much"),
    (_taking("sparsity", "compression ratio"), "original / new and never below one"),
    (_taking("percent removed", "compression ratio"), "compression ratio of a layer without zeros is one"),
    (_taking("compression ratio", "kept fraction"), "never above one"),
    (_taking("sparsity", "kept fraction"), "kept fraction .falls."),
    (_taking("percent removed", "sparsity"), "How large does this one become"),
    (_taking("kept fraction", "sparsity"), "sparsity .grows."),
    (_taking("compression ratio", "sparsity"), "without zeros is nought"),
    (_taking("sparsity", "percent removed"), "ninety percent"),
    (_taking("kept fraction", "percent removed"), "of what is removed grows"),
    (_taking("weights only", "percent removed"), "Nothing is removed"),
    (_taking("compression ratio", "weights only"), "should not care about biases"),
    (_taking("sparsity", "weights only"), "Look for a layer where this is"),
    (_taking("percent removed", "weights only"), "one where none of them is zero"),
    (_taking("compression ratio", "mean of ratios"), "see who decides here"),
    (_taking("weights only", "mean of ratios"), "changes with either tensor"),
    (_taking("kept fraction", "mean of ratios"), "push this one there"),
    (_taking("percent removed", "mean of ratios"), "begins at one"),
    (_EXACT, "rounds to one decimal"),
    ('def identify(metric):\n    return "density"', "none of the six names"),
    ("def identify(metric):\n    return metric(torch.ones(2, 2), torch.ones(2))", "returns the float"),
    ("def identify(metric):\n    return metric.name_of_it", "raised AttributeError"),
    ("def identify(metric):\n    return metric(torch.ones(2, 2))", "raised TypeError"),
    ("def identify(metric):\n    metric(torch.ones(2, 2), torch.ones(2))", "Is a `return` missing"),
    ('def identify(weight, bias):\n    return "sparsity"', r"yours takes `\(weight, bias\)`"),
    ('identify = "sparsity"', "needs the function itself"),
)

QUESTION = Question(
    name="q4",
    kind="investigate",
    title="The usual ratios",
    task=TASK,
    answer="identify",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
