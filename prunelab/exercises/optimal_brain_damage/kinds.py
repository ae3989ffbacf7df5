"""q4, investigate: which kind of second derivatives does a function compute?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from prunelab.curvature import hessian_diagonal
from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Five libraries compute "the Hessian's diagonal" and do not say which. You may only call them: `diagonal(model, data)`
takes a model of `nn.Linear` layers and `nn.Tanh()`, and batches (inputs, targets) of shapes (N, I) and (N, O), and
returns {parameter name: tensor of its shape} for the loss `torch.nn.functional.mse_loss`. Predict first: on which
network would two of them agree, and on which not?

Then write `identify(diagonal)`. It returns `"exact"`; `"gauss-newton"`, without the curvature of the network itself;
`"lecun"`, the recursion, which treats each unit of a layer by itself; `"levenberg-marquardt"`, the recursion without
f''; or `"fisher"`, the mean squared gradient of single examples.
"""

STARTER = '''\
def identify(diagonal):
    """Which kind of second derivatives this is: its name."""
    ...'''

SOLUTION = '''\
def identify(diagonal):
    """Which kind of second derivatives this is: its name."""
    model = nn.Sequential(nn.Linear(1, 1), nn.Tanh(), nn.Linear(1, 2), nn.Linear(2, 1))
    for number, weights in ((0, [[0.5]]), (2, [[2.0], [-1.0]]), (3, [[1.0, 1.0]])):
        model[number].weight.data = torch.tensor(weights)
        model[number].bias.data.zero_()
    x = torch.ones(1, 1)
    right = diagonal(model, [(x, model(x).detach())])["0.weight"]  # the target is met: no gradient
    if right.item() == 0:
        return "fisher"
    missed = diagonal(model, [(x, 5 * x)])["0.weight"]
    bends = not torch.allclose(missed, right)  # f'' comes with the gradient
    slope = 1 - torch.tanh(torch.tensor(0.5)) ** 2
    alone = right.item() > 1.5 * 2 * slope**2  # 2² + 1² where it should be (2 - 1)²
    if alone:
        return "lecun" if bends else "levenberg-marquardt"
    return "exact" if bends else "gauss-newton"'''

HINTS = (
    "You choose the network, the inputs and the targets. First look for one experiment that sets the mean squared "
    "gradient apart from all others: when are all gradients zero, and the curvature is not?",
    "The term with f'' is multiplied by a slope of the loss. With squared errors the targets enter nowhere else: so "
    "compare targets that are met with targets that are missed.",
    "Two kinds differ in what they do where one unit reaches the output through two others. Give the two paths weights "
    "of opposite sign, and compute by hand what (a + b)² and a² + b² would give.",
)

TAKEAWAY = (
    "Three questions tell five kinds apart: is anything left without gradients, do the targets matter, and do two "
    "paths cancel? The last two are the two approximations of the recursion."
)

KINDS = ("exact", "gauss-newton", "lecun", "levenberg-marquardt", "fisher")
BENDS = ("exact", "lecun")  # those that see f''
ALONE = ("lecun", "levenberg-marquardt")  # those that treat each unit by itself


@dataclass(frozen=True, repr=False)
class Suspect:
    """Second derivatives of one kind."""

    kind: str

    def __call__(self, model: nn.Module, data: Any) -> dict[str, Tensor]:
        if self.kind != "fisher":
            return hessian_diagonal(model, data, mse_loss, self.kind)  # type: ignore[arg-type]  # one of its names
        names, weights = zip(*model.named_parameters(), strict=True)
        pairs = [(x[None], y[None]) for inputs, targets in data for x, y in zip(inputs, targets, strict=True)]
        found = [torch.autograd.grad(mse_loss(model(x), y), weights) for x, y in pairs]
        return {
            name: torch.stack(each).square().mean(0) for name, each in zip(names, zip(*found, strict=True), strict=True)
        }

    def __repr__(self) -> str:
        return "a_library"


def examine(answer: Any) -> None:
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights
        try_cases(answer, _cases, _judge, name="identify")


def _judge(found: Any, diagonal: Suspect) -> None:
    if not isinstance(found, str):
        raise Wrong(f"`identify` returns {describe(found)}; it should return one of the five names, as text.")
    if found not in KINDS:
        raise Wrong(f"`identify` returns {describe(found)}, which is none of the five names of the task.")
    if found != diagonal.kind:
        raise Wrong(f'You call it "{found}", and it is not. {_why(found, diagonal.kind)}')


def _why(named: str, kind: str) -> str:
    """What to try: an experiment, not the name."""
    if named == "fisher":
        return "The mean squared gradient vanishes where every target is met. Does this?"
    if kind == "fisher":
        return "Let the network meet every target. What is left of the gradients then, and what does this library say?"
    if (named in BENDS) != (kind in BENDS):
        if named in BENDS:
            return (
                "What you named sees f'', which comes with the loss's slope. Change the targets only: does this notice?"
            )
        return "What you named does not know the targets, with squared errors. Change them, and look."
    if named in ALONE:
        return "What you named adds up the squares of all paths. Let two of them cancel: does this still see them?"
    return "What you named adds up the paths first, and squares then. Let two of them cancel: is nothing left here?"


def _cases() -> list[Case]:
    order = ("lecun", "gauss-newton", "exact", "levenberg-marquardt", "fisher")
    return [Case(f"library {number}", {"diagonal": Suspect(kind)}) for number, kind in enumerate(order, start=1)]


def _taking(kind: str, for_: str) -> str:
    """The solution with one kind taken for another."""
    inner = SOLUTION.replace("def identify(diagonal)", "def really(diagonal)")
    swap = f"{{{kind!r}: {for_!r}}}"
    return f"{inner}\n\ndef identify(diagonal):\n    found = really(diagonal)\n    return {swap}.get(found, found)"


_LINEAR = """\
def identify(diagonal):
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    x = torch.ones(1, 1)
    found = diagonal(model, [(x, model(x).detach())])["0.weight"]
    return "fisher" if found.item() == 0 else "exact"
"""

WRONG = (
    (_taking("exact", "fisher"), "vanishes where every target is met"),
    (_taking("fisher", "exact"), "What is left of the gradients"),
    (_taking("gauss-newton", "exact"), "does this notice"),
    (_taking("exact", "gauss-newton"), "Change them, and look"),
    (_taking("exact", "lecun"), "does this still see them"),
    (_LINEAR, "is nothing left here"),
    ('def identify(diagonal):\n    return "hutchinson"', "none of the five names"),
    ("def identify(diagonal):\n    return 3", "returns the int 3"),
    ("def identify(diagonal):\n    return diagonal.kind_of_library", "raised AttributeError"),
    ("def identify(diagonal):\n    return diagonal(nn.Linear(1, 1))", "raised TypeError"),
    (
        "def identify(diagonal):\n    return diagonal(nn.Linear(1, 1), [(torch.ones(1, 1), torch.ones(1, 1))])['bias']",
        "returns a float32 Tensor",
    ),
    (
        "def identify(diagonal):\n    diagonal(nn.Linear(1, 1), [(torch.ones(1, 1), torch.ones(1, 1))])",
        "`return` missing",
    ),
    ('def identify(model, data):\n    return "exact"', r"yours takes `\(model, data\)`"),
    ('identify = "exact"', "needs the function itself"),
)

QUESTION = Question(
    name="q4",
    kind="investigate",
    title="Five diagonals",
    task=TASK,
    answer="identify",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
