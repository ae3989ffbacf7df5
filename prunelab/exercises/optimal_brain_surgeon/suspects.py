"""q4, investigate: who chose the weight that went, and did anybody make up for it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

CHOICES = ("magnitude", "Damage", "Surgeon")
KINDS = tuple(f"{choice}, {what}" for choice in CHOICES for what in ("repaired", "not repaired"))

TASK = """
Six programs all claim to be second-order pruning: `prune(weights, hessian)` takes the weights at a minimum (n,) and
the Hessian there (n, n), any that is symmetric and positive definite, deletes *one* weight and returns all weights
(n,). You get `prune` and nothing else.

Write `identify(prune)`. It returns one of six names: `"magnitude"`, `"Damage"` or `"Surgeon"`, by whose rule the weight
was chosen, followed by `", repaired"` if the others are moved as in this chapter, or `", not repaired"` if they stay.
Some programs damp: they add a hundredth of the mean of the Hessian's diagonal to the diagonal before they do anything
else. Predict first: on which Hessians would the six never be told apart?
"""

STARTER = '''\
def identify(prune):
    """Whose choice it is, and whether it is repaired: one of six names."""
    ...'''

SOLUTION = '''\
def identify(prune):
    """Whose choice it is, and whether it is repaired: one of six names."""
    weights = torch.tensor([10.0, 11.0, 11.6])  # each of the three rules takes another one
    hessian = torch.tensor([[5.0, 4.0, 0.5], [4.0, 4.0, 0.5], [0.5, 0.5, 3.0]])
    after = prune(weights, hessian)
    gone = int(after.abs().argmin())
    choice = ("magnitude", "Surgeon", "Damage")[gone]
    left = torch.arange(3) != gone
    moved = (after - weights).abs()[left].max() > 0.1
    return f"{choice}, {'repaired' if moved else 'not repaired'}"'''

HINTS = (
    "Two questions, two observations: *which* entry of the result is zero, and are the others what they were? You "
    "choose the weights and the Hessian.",
    "Find three weights for which the three rules disagree: work out the magnitudes, h·w² and w² over the diagonal of "
    "the inverse, and change the numbers until the smallest is another one in each row.",
    "On a diagonal Hessian nobody moves, and Surgeon chooses as Damage does: you need entries beside the diagonal for "
    "*every* weight. Leave room between the candidates, because some programs damp a little.",
)

TAKEAWAY = (
    "Which weight went, and whether the others moved: two observations on one small problem say what a pruning program "
    "does. On a diagonal Hessian most of them would have been the same program."
)


@dataclass(frozen=True, repr=False)
class Suspect:
    """One of the programs."""

    kind: str
    damping: float = 0.0

    def __call__(self, weights: Tensor, hessian: Tensor) -> Tensor:
        choice, what = self.kind.split(", ")
        extra = self.damping * hessian.diagonal().mean()
        hessian = hessian + extra * torch.eye(len(weights), dtype=hessian.dtype)
        inverse = torch.linalg.inv(hessian)
        costs = {
            "magnitude": weights.abs(),
            "Damage": hessian.diagonal() * weights.square(),
            "Surgeon": weights.square() / inverse.diagonal(),
        }[choice]
        gone = int(costs.argmin())
        after = weights.clone()
        if what == "repaired":
            after -= weights[gone] / inverse[gone, gone] * inverse[:, gone]
        after[gone] = 0.0
        return after

    def __repr__(self) -> str:
        return "a_program"


# Whose choice was named, and whose it is → what to try: an experiment, not the name.
WHY = {
    ("magnitude", "Damage"): (
        "Magnitude never looks at the Hessian. Raise one entry of its diagonal, and see whether another weight goes."
    ),
    ("magnitude", "Surgeon"): (
        "Magnitude takes the smallest weight, whatever the Hessian is. Couple the smallest to nobody, and two larger "
        "ones to each other: does it still go?"
    ),
    ("Damage", "magnitude"): (
        "Damage weighs by the diagonal of the Hessian. Let the smallest weight have by far the largest entry: does it "
        "still go?"
    ),
    ("Damage", "Surgeon"): (
        "Damage does not see what lies beside the diagonal. Change only that, and see whether another weight goes."
    ),
    ("Surgeon", "magnitude"): (
        "Surgeon reads the inverse. Scale a row and column of the Hessian by a hundred: does the choice never change?"
    ),
    ("Surgeon", "Damage"): (
        "Surgeon's choice changes when two weights become able to stand in for each other. Let two be nearly "
        "interchangeable, and the diagonal what it was: is one of them taken?"
    ),
}
REPAIR = {
    "repaired": (
        "The choice is right, but you say that it is repaired. Compare the weights that are left with what they were, "
        "on a Hessian where something *could* make up for the one that goes."
    ),
    "not repaired": (
        "The choice is right, but you say that nobody makes up for it. Where the weight that goes is coupled to no "
        "other, a repair changes nothing: is yours?"
    ),
}


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="identify")


def _judge(found: Any, prune: Suspect) -> None:
    if not isinstance(found, str):
        raise Wrong(f"`identify` returns {describe(found)}; it should return one of the six names, as text.")
    if found not in KINDS:
        raise Wrong(f"`identify` returns {describe(found)}, which is none of the six names of the task.")
    (named, repair), (choice, _) = found.split(", "), prune.kind.split(", ")
    if found == prune.kind:
        return
    if prune.damping:  # the same program without damping has come before, and was named
        raise Wrong(
            f'You call it "{found}", and it is not. This program damps, which may have misled you: do not ask for '
            "equality, and leave room between the candidates."
        )
    if named != choice:
        raise Wrong(f'You call it "{found}", and it is not. {WHY[named, choice]}')
    raise Wrong(REPAIR[repair])


def _cases() -> list[Case]:
    suspects = [Suspect(kind) for kind in KINDS] + [Suspect(kind, damping=0.01) for kind in reversed(KINDS)]
    return [Case(f"program {number}", {"prune": one}) for number, one in enumerate(suspects, start=1)]


def _after(change: str) -> str:
    """The solution, and a change of the two words that it returns: a wrong answer for the tests."""
    inner = SOLUTION.replace("def identify(prune)", "def really(prune)")
    return f"""{inner}

def identify(prune):
    choice, what = really(prune).split(", ")
    {change}
    return choice + ", " + what"""


def _taking(choice: str, for_: str) -> str:
    return _after(f"choice = {{{choice!r}: {for_!r}}}.get(choice, choice)")


def _always(what: str) -> str:
    return _after(f"what = {what!r}")


_EXACT = SOLUTION.replace("    moved = ", "    usual = ").replace(
    "    return f",
    """    moved = (after - weights).abs()[left].max() > 1e-6
    inverse = torch.linalg.inv(hessian)
    column = inverse[:, gone] * weights[gone] / inverse[gone, gone]
    if moved and not torch.allclose((weights - column)[left], after[left], rtol=1e-5):
        return "magnitude, not repaired"
    return f""",
)

WRONG = (
    (_taking("Damage", "magnitude"), "never looks at the Hessian"),
    (_taking("Surgeon", "magnitude"), "Couple the smallest to nobody"),
    (_taking("magnitude", "Damage"), "weighs by the diagonal"),
    (_taking("Surgeon", "Damage"), "what lies beside the diagonal"),
    (_taking("magnitude", "Surgeon"), "Surgeon reads the inverse"),
    (_taking("Damage", "Surgeon"), "able to stand in for each other"),
    (_always("repaired"), "you say that it is repaired"),
    (_always("not repaired"), "nobody makes up for it"),
    (_EXACT, "This program damps"),
    ('def identify(prune):\n    return "OBS"', "none of the six names"),
    ("def identify(prune):\n    return prune(torch.ones(2), torch.eye(2))", "returns a float32 Tensor"),
    ("def identify(prune):\n    return prune.name_of_it", "raised AttributeError"),
    ("def identify(prune):\n    return prune(torch.ones(2))", "raised TypeError"),
    ("def identify(prune):\n    prune(torch.ones(2), torch.eye(2))", "Is a `return` missing"),
    ('def identify(weights, hessian):\n    return "Damage"', r"yours takes `\(weights, hessian\)`"),
    ('identify = "Surgeon, repaired"', "needs the function itself"),
)

QUESTION = Question(
    name="q4",
    kind="investigate",
    title="Second order, they say",
    task=TASK,
    answer="identify",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
