"""q4, investigate: which inputs does an unknown function read? Slopes do not always tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG", "Unknown"]

TASK = """
You get a function `f` that takes inputs (n, d) and gives one number for each, (n,), treating every row alone, and you
may call it as often as you like. Write `reads(f, d)`: a bool tensor (d,), True for the inputs that it reads: those that
can change its value for some standard normal input. Find out by experiments; not all functions are smooth.
"""

STARTER = '''\
def reads(f, d):
    """Which of its d inputs the function reads: a bool tensor (d,)."""
    ...'''

SOLUTION = '''\
def reads(f, d):
    """Which of its d inputs the function reads: a bool tensor (d,)."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2000, d, generator=draw)
    before, found = f(x), torch.zeros(d, dtype=torch.bool)
    for i in range(d):
        changed = x.clone()
        changed[:, i] = torch.randn(2000, generator=draw)  # this input alone
        found[i] = bool((f(changed) != before).any())
    return found'''

HINTS = (
    "A gradient is a limit of small steps. What would you see of a function that jumps, and is flat everywhere else?",
    "You need no slope: to read an input means that the value changes when this input does, and all the others stay.",
    "Draw many points. For each input, draw new values for this one column, and look whether any output has changed.",
)

TAKEAWAY = (
    "A slope of zero at one point, at the origin, or even everywhere does not mean that an input is ignored. The outer "
    "product of gradients needs a smooth predictor; to change one column and look is slower, asks nothing of "
    "the function, and misses only what its points miss."
)


@dataclass(frozen=True, repr=False)
class Unknown:
    """A function of some of its d inputs, of a kind that some experiment fails on."""

    kind: str
    inputs: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        chosen = x[:, list(self.inputs)]  # (n, those that are read)
        if self.kind == "linear":
            return chosen @ torch.arange(1.0, 1 + len(self.inputs), dtype=x.dtype, device=x.device)
        if self.kind == "product":
            return chosen.prod(1)
        if self.kind == "far":
            return (chosen - 2.5).relu().sum(1)
        if self.kind == "even":
            return chosen.square().sum(1)
        if self.kind == "faint":
            return 1e-3 * chosen.sum(1)
        if self.kind == "jump":
            return chosen.sign().sum(1)
        return chosen.sign().prod(1)  # "parity"

    def __repr__(self) -> str:
        return "a_function"


MISSED = {
    "linear": "This function is linear, and one of the inputs that change it is missing.",
    "product": (
        "An input is missing that pushes the value up as often as down, and not at all where another input is zero: "
        "one special point does not tell, and no correlation does. Look for any change, at points in general position."
    ),
    "far": "An input is missing that matters only where it is large: on most points the function is flat. Try many.",
    "even": "An input is missing whose sign does not matter. Give it new values; to turn it round is not enough.",
    "faint": "An input is missing that changes the value only a little. Any change counts.",
    "jump": (
        "An input is missing whose slope is zero wherever there is a slope: the function jumps. Compare values, far "
        "enough apart, and not slopes."
    ),
    "parity": "An input is missing that never matters by itself: its sign turns the sign of the others.",
}


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="reads")


def _judge(found: Any, f: Unknown, d: int) -> None:
    if not isinstance(found, Tensor):
        raise Wrong(f"`reads` returns {describe(found)}; it should return a bool tensor.")
    if found.shape != (d,):
        raise Wrong(f"The result has the shape {tuple(found.shape)}, but the function has {d} inputs.")
    if found.dtype != torch.bool:
        raise Wrong(f"The result is {str(found.dtype).removeprefix('torch.')}, not bool: say yes or no for each input.")
    right = torch.zeros(d, dtype=torch.bool, device=found.device)
    right[list(f.inputs)] = True
    if d > 1 and torch.equal(found, ~right):
        raise Wrong("Yes and no have changed places: True is for the inputs that the function reads.")
    if bool((found & ~right).any()):
        raise Wrong("An input is named that never changes the value. Change one at a time, and hold all the others.")
    if not torch.equal(found, right):
        raise Wrong(MISSED[f.kind] if found.any() or f.kind != "linear" else "Nothing is named, but something matters.")


def _cases() -> list[Case]:
    unknown = [
        (Unknown("linear", (0, 3)), 5),
        (Unknown("product", (1, 2)), 4),
        (Unknown("far", (0, 2)), 5),
        (Unknown("jump", (2,)), 4),
        (Unknown("parity", (0, 1, 3)), 5),
        (Unknown("linear", ()), 3),
        (Unknown("product", (0, 1, 2)), 3),
        (Unknown("far", (0,)), 1),
        (Unknown("even", (1, 2)), 4),
        (Unknown("faint", (0, 3)), 4),
    ]
    return [Case(f"function {number}", {"f": f, "d": d}) for number, (f, d) in enumerate(unknown, start=1)]


def _by_gradient(points: str) -> str:
    return (
        "def reads(f, d):\n"
        "    torch_draw = torch.Generator().manual_seed(1)\n"
        f"    x = ({points}).requires_grad_()\n"
        "    (slopes,) = torch.autograd.grad(f(x).sum(), x)\n"
        "    return slopes.square().sum(0) > 0"
    )


def _ends(result: str) -> str:
    """The solution, with its last line changed."""
    return SOLUTION.replace("return found", f"return {result}")


_ALONE = """\
def reads(f, d):
    x = torch.zeros(2000, d)
    draw = torch.Generator().manual_seed(0)
    found = torch.zeros(d, dtype=torch.bool)
    smooth = 1e-3 * torch.randn(20_000, d, generator=draw)  # never leaves the neighbourhood of the origin
    for i in range(d):
        one = torch.randn(2000, d, generator=draw)
        other = one.clone()
        other[:, i] = torch.randn(2000, generator=draw)
        linear = (f(one) - f(other)).abs().mean()
        alone = x.clone()
        alone[:, i] = one[:, i]
        jumps = set(f(one).tolist()) <= {-1.0, 0.0, 1.0} and len(set(f(smooth).tolist())) < 3
        found[i] = bool(linear > 0) and not (jumps and f(alone).abs().sum() == 0)
    return found"""

WRONG = (
    (_by_gradient("torch.zeros(1, d)"), "one special point does not tell"),
    (_by_gradient("torch.full((1, d), 0.3)"), "only where it is large"),
    (_by_gradient("torch.randn(2000, d, generator=torch_draw)"), "the function jumps"),
    (_ALONE, "never matters by itself"),
    (SOLUTION.replace("torch.randn(2000, generator=draw)  # this", "-x[:, i]  # this"), "sign does not matter"),
    (SOLUTION.replace("(f(changed) != before)", "((f(changed) - before).abs() > 0.1)"), "only a little"),
    ("def reads(f, d):\n    return torch.ones(d, dtype=torch.bool)", "An input is named that never changes"),
    ("def reads(f, d):\n    return torch.zeros(d, dtype=torch.bool)", "Nothing is named"),
    ("def reads(f, d):\n    return torch.arange(d) == 3", "is linear, and one of"),
    (_ends("~found"), "changed places"),
    (_ends("found.nonzero().flatten().tolist()"), "returns the list"),
    (_ends("found.float()"), "is float32, not bool"),
    (_ends("found[None]"), r"shape \(1, 5\), but the function has 5"),
    ("def reads(f, d):\n    return f.weight != 0", "raised AttributeError"),
    ("def reads(f, d):\n    return f(torch.randn(d)) != 0", "raised IndexError"),
    ("def reads(f, d):\n    f(torch.randn(10, d))", "Is a `return` missing"),
    ("def reads(f):\n    return f", r"yours takes `\(f\)`"),
    ("reads = torch.ones(5, dtype=torch.bool)", "needs the function itself"),
)

QUESTION = Question(
    name="q4",
    kind="investigate",
    title="Which inputs does it read?",
    task=TASK,
    answer="reads",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
