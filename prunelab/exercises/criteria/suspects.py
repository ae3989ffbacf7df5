"""q5, investigate: what does a function that is called gradient pruning really compute?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Several libraries offer "gradient pruning". Their documentation does not say what it computes, and you may not read
their code, only call it: `score(weights, gradients)` takes two float tensors (units, members) and returns one number a
unit. Predict first: how many calls will you need?

Then write `identify(score)`. It returns which of these the function computes: `"magnitude"`, the sum of |w|;
`"gradient"`, the sum of |g|; `"taylor"`, |the sum of w · g|; `"members"`, the sum of |w · g|; `"signed"`, the sum of
w · g. Some libraries scale their scores by a positive number, which may depend on the whole layer (so that its largest
|score| is 1, say); it is the same for all units of one call. Where all scores are zero, they stay zero.
"""

STARTER = '''\
def identify(score):
    """Which of the five scores this is: its name."""
    ...'''

SOLUTION = '''\
def identify(score):
    """Which of the five scores this is: its name."""
    weights = torch.tensor([[1.0, 1], [2, 2], [1, 1], [1, 1], [1, 1]])
    gradients = torch.tensor([[1.0, 1], [1, 1], [2, 2], [1, -1], [-1, -1]])
    plain, heavier, steeper, cancelling, turned = score(weights, gradients).tolist()
    if steeper == plain:
        return "magnitude"  # blind to gradients
    if heavier == plain:
        return "gradient"  # blind to weights
    if turned < 0:
        return "signed"
    return "taylor" if cancelling == 0 else "members"'''

HINTS = (
    "It is the proof of the table again: change one argument, hold the other. Which of the five scores stay the same "
    "when only the gradients change, and which when only the weights do?",
    "Three of them depend on both. Find inputs on which those three differ: what happens to each when all gradients of "
    "a unit change their sign, and what when the products w · g of a unit's members cancel?",
    "The scale may differ from call to call, so compare units within one call. Five units of two members are enough: a "
    "plain one, one with larger weights, one with larger gradients, one whose products cancel, and one with all "
    "gradients turned round.",
)

TAKEAWAY = (
    "One call is enough, if its units are chosen well. This is how this chapter proves its table, and how to read a "
    "library whose names you do not trust: what is sold as gradient pruning is mostly |w · g|, at times the signed sum."
)

KINDS = ("magnitude", "gradient", "taylor", "members", "signed")


@dataclass(frozen=True, repr=False)
class Suspect:
    """A score of one kind, times `scale`; `relative` divides by the layer's largest |score| first."""

    kind: str
    scale: float = 1.0
    relative: bool = False

    def __call__(self, weights: Tensor, gradients: Tensor) -> Tensor:
        scores = self._scores(weights, gradients)
        largest = scores.abs().amax() if self.relative and scores.numel() else scores.new_ones(())
        return self.scale * scores / largest.where(largest > 0, 1)

    def _scores(self, weights: Tensor, gradients: Tensor) -> Tensor:
        if self.kind == "magnitude":
            return weights.abs().sum(1)
        if self.kind == "gradient":
            return gradients.abs().sum(1)
        products = weights * gradients
        if self.kind == "members":
            return products.abs().sum(1)
        return products.sum(1) if self.kind == "signed" else products.sum(1).abs()

    def __repr__(self) -> str:
        return "a_library"


BOTH = ("magnitude", "gradient")  # those that do not depend on both
# What was named, and what it is → what to try on it: an experiment, not the name.
WHY = {
    ("magnitude", *KINDS[1:]): "The sum of |w| stays the same whatever the gradients are. Does this score?",
    ("gradient", "magnitude", *KINDS[2:]): "The sum of |g| stays the same whatever the weights are. Does this score?",
    (
        "taylor",
        *BOTH,
    ): "|The sum of w · g| changes with the weights *and* with the gradients. Change one at a time here.",
    ("taylor", "members"): "|The sum of w · g| is zero for a unit whose products cancel. Is this score?",
    ("taylor", "signed"): "|The sum of w · g| is never below zero. Can you make this score negative?",
    ("members", *BOTH): "The sum of |w · g| changes with both arguments. Change one of them, and hold the other.",
    ("members", "taylor"): "The sum of |w · g| is zero only if every product is. Is that so for this score?",
    ("members", "signed"): "The sum of |w · g| is never below zero. Look for a unit that scores less than zero here.",
    ("signed", *BOTH): "The sum of w · g depends on both arguments. Is there one that this score does not look at?",
    ("signed", "taylor", "members"): (
        "The sum of w · g changes its sign when all gradients of a unit do. Turn the gradients round and look."
    ),
}


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="identify")


def _judge(found: Any, score: Suspect) -> None:
    if not isinstance(found, str):
        raise Wrong(f"`identify` returns {describe(found)}; it should return one of the five names, as text.")
    if found not in KINDS:
        raise Wrong(f"`identify` returns {describe(found)}, which is none of the five names of the task.")
    if found != score.kind:
        if score.relative:  # the other libraries come first, so that nothing but the scale is left to explain it
            raise Wrong(
                f'You call it "{found}", and it is not. The scale of this one depends on the whole layer, so that two '
                "calls cannot be compared: put all that you want to compare into one."
            )
        if score.scale != 1:  # the same score without a scale has come before, and was named
            raise Wrong(
                f'You call it "{found}", and it is not. The scale may have misled you: do not compare with values of '
                "your own, compare the units of one call."
            )
        reason = next(why for (named, *kinds), why in WHY.items() if named == found and score.kind in kinds)
        raise Wrong(f'You call it "{found}", and it is not. {reason}')


def _cases() -> list[Case]:
    suspects = [Suspect(kind) for kind in ("members", "taylor", "magnitude", "signed", "gradient")]
    suspects += [Suspect(kind, scale=0.125) for kind in ("signed", "gradient", "members", "magnitude", "taylor")]
    suspects += [Suspect(kind, scale=4.0, relative=True) for kind in ("taylor", "signed", "members", *BOTH)]
    return [Case(f"library {number}", {"score": one}) for number, one in enumerate(suspects, start=1)]


def _taking(kind: str, for_: str) -> str:
    """The solution with one kind taken for another."""
    inner = SOLUTION.replace("def identify(score)", "def really(score)")
    swap = f"{{{kind!r}: {for_!r}}}"
    return f"{inner}\n\ndef identify(score):\n    found = really(score)\n    return {swap}.get(found, found)"


_ONE_BY_ONE = '''\
def identify(score):
    def at(*values):
        a, b, c, d = map(float, values)
        return float(score(torch.tensor([[a, b]]), torch.tensor([[c, d]])))

    if at(1, 1, 1, 1) == at(1, 1, 2, 2):
        return "magnitude"
    if at(1, 1, 1, 1) == at(2, 2, 1, 1):
        return "gradient"
    if at(1, 1, -1, -1) < 0:
        return "signed"
    return "taylor" if at(1, 1, 1, -1) == 0 else "members"'''

_OWN_VALUES = '''\
def identify(score):
    weights = torch.tensor([[1.0, 2], [-3, 1]])
    gradients = torch.tensor([[2.0, -3], [1, 2]])
    products, found = weights * gradients, score(weights, gradients)
    if torch.allclose(found, weights.abs().sum(1)):
        return "magnitude"
    if torch.allclose(found, gradients.abs().sum(1)):
        return "gradient"
    if torch.allclose(found, products.sum(1).abs()):
        return "taylor"
    return "signed" if (found < 0).any() else "members"'''

WRONG = (
    (_taking("taylor", "magnitude"), "whatever the gradients are"),
    (_taking("taylor", "gradient"), "whatever the weights are"),
    (_taking("magnitude", "taylor"), "Change one at a time here"),
    (_taking("members", "taylor"), "zero for a unit whose products cancel"),
    (_taking("signed", "taylor"), "Can you make this score negative"),
    (_taking("gradient", "members"), "Change one of them, and hold the other"),
    (_taking("taylor", "members"), "only if every product is"),
    (_taking("signed", "members"), "scores less than zero here"),
    (_taking("gradient", "signed"), "that this score does not look at"),
    (_taking("members", "signed"), "Turn the gradients round"),
    (_OWN_VALUES, "do not compare with values of your own"),
    (_ONE_BY_ONE, "calls cannot be compared"),
    ('def identify(score):\n    return "hubens"', "none of the five names"),
    ("def identify(score):\n    return score(torch.ones(2, 2), torch.ones(2, 2))", "returns a float32 Tensor"),
    ("def identify(score):\n    return 3", "returns the int 3"),
    ("def identify(score):\n    return score.kind_of_score", "raised AttributeError"),
    ("def identify(score):\n    return score(torch.ones(2, 2))", "raised TypeError"),
    ("def identify(score):\n    score(torch.ones(2, 2), torch.ones(2, 2))", "Is a `return` missing"),
    ('def identify(weights, gradients):\n    return "taylor"', r"yours takes `\(weights, gradients\)`"),
    ('identify = "taylor"', "needs the function itself"),
)

QUESTION = Question(
    name="q5",
    kind="investigate",
    title="The usual suspects",
    task=TASK,
    answer="identify",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
