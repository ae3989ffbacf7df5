"""q4, investigate: of which layers do the calibration data say too little?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
SparseGPT with four sentences was worse than Wanda, and nothing warned. You want a check that runs before any pruning.
Predict first: is it enough that a layer was given more samples than it has inputs?

Then write `undetermined(inputs)`. It gets a list with one tensor X, (samples, I), for each layer: what that layer was
given. It returns the positions in the list, in order, of those layers whose outputs do *not* determine their weights:
there is another weight that puts out the same on all of these samples. In other words: XᵀX cannot be inverted. Values
that agree within rounding, at the precision that X has, count as equal.
"""

STARTER = '''\
def undetermined(inputs):
    """Positions of the layers whose samples leave their weights open."""
    ...'''

SOLUTION = '''\
def undetermined(inputs):
    """Positions of the layers whose samples leave their weights open."""
    return [place for place, x in enumerate(inputs) if torch.linalg.matrix_rank(x) < x.shape[1]]'''

HINTS = (
    "Two weights put out the same on all samples if their difference d has Xd = 0. When is d = 0 the only solution?",
    "Fewer samples than inputs leave d open for certain. But many samples that are copies of few say no more than "
    "those few, and an input that is the sum of two others can be exchanged for them.",
    "It is a question of the rank of X: it must be as large as the number of inputs. `torch.linalg.matrix_rank` finds "
    "it, within rounding.",
)

TAKEAWAY = (
    "Not the number of samples counts but how many directions they span. Sentences that repeat each other, and layers "
    "whose inputs depend on each other, need damping however long the list is. A rank that is full may still be full "
    "by a hair, so the last word have sentences that were not used."
)

Places = list[int]
Layers = Sequence[Tensor]


def _open(inputs: Layers, rank: Callable[[Tensor], int]) -> Places:
    return [place for place, x in enumerate(inputs) if rank(x.double()) < x.shape[1]]


def _rank(x: Tensor) -> int:
    """By singular values; those of the cases are far from the limit on either side."""
    values = torch.linalg.svdvals(x)
    return int((values > 1e-5 * values.amax()).sum()) if values.numel() else 0


def _right(inputs: Layers) -> Places:
    return _open(inputs, _rank)


def _constant(x: Tensor) -> int:
    return int((x.std(0) > 0).sum()) if len(x) > 1 else 0


def _twins(x: Tensor) -> int:
    """The inputs that are not a copy of one before."""
    return len({tuple(column.tolist()) for column in x.T})


Misconception = tuple[Callable[[Layers], Places], str]
MISTAKES: tuple[Misconception, ...] = (
    (
        lambda inputs: _open(inputs, lambda x: int(torch.linalg.matrix_rank(x)) if x.numel() else 0),
        "You take the rank in double precision, where the rounding of single precision looks like news. Take it at the "
        "precision of X.",
    ),
    (
        lambda inputs: [place for place in range(len(inputs)) if place not in _right(inputs)],
        "These are the layers whose weights *are* determined.",
    ),
    (
        lambda inputs: _open(inputs, len),
        "You count samples. Samples can repeat each other, and inputs can depend on each other.",
    ),
    (
        lambda inputs: [place for place, x in enumerate(inputs) if len(x) <= x.shape[1]],
        "You count samples. As many as there are inputs can be enough, and more can be too few.",
    ),
    (
        lambda inputs: _open(inputs, lambda x: int((x != 0).any(0).sum())),
        "This finds inputs that are always zero, and little else: a determinant that is zero to the last bit, or an "
        "inverse that fails, does not show the others. An input can also be a combination of others.",
    ),
    (
        lambda inputs: _open(inputs, _constant),
        "You look for inputs that never change. One such input is as good as any other: there is no bias beside it.",
    ),
    (
        lambda inputs: _open(inputs, lambda x: len(x.unique(dim=0))),
        "You count different samples. Multiples and sums of the others say nothing new either.",
    ),
    (
        lambda inputs: _open(inputs, _twins),
        "You look for inputs that are copies of each other. An input can also be a sum of several.",
    ),
    (
        lambda inputs: _open(inputs, lambda x: _rank(x - x.mean(0)) if len(x) else 0),
        "You take off the mean first. A layer multiplies the inputs as they are, their mean too.",
    ),
    (
        lambda inputs: [place for place, x in enumerate(inputs) if _rank(x.double()) < len(x)],
        "You compare the rank with the number of samples; which number is that of the unknown weights?",
    ),
    (
        lambda inputs: [place for place, x in enumerate(inputs) if _rank(x.double()) < min(x.shape)],
        "A full rank of a matrix is that of its shorter side; here it has to be the number of inputs.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="undetermined")


def _judge(found: Any, inputs: list[Tensor]) -> None:
    expected = _right(inputs)
    if not isinstance(found, list | tuple):
        raise Wrong(f"`undetermined` returns {describe(found)}; it should return a list of positions.")
    places = range(len(inputs))
    if strange := [place for place in found if type(place) is not int or place not in places]:
        raise Wrong(f"The result contains {describe(strange[0])}, which is no position in the list.")
    found = list(found)
    if found == expected:
        return
    if sorted(found) == sorted(expected):
        raise Wrong("These are the right positions in another order.")
    for answer, message in MISTAKES:
        if found == answer(inputs):
            raise Wrong(message)
    if extra := [place for place in found if place not in expected]:
        raise Wrong(f"{_named(extra[0], inputs)} is on the list, but only one weight puts out the same on its samples.")
    if missing := [place for place in expected if place not in found]:
        raise Wrong(f"{_named(missing[0], inputs)} is not on the list, but another weight puts out the same there.")
    raise Wrong("A position is on the list more than once.")


def _named(place: int, inputs: Layers) -> str:
    return f"The layer at position {place}, with X of shape {tuple(inputs[place].shape)},"


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(0)

    def normal(samples: int, features: int) -> Tensor:
        return torch.randn(samples, features, generator=draw, dtype=torch.float64)

    plenty, few, square = normal(40, 6), normal(5, 8), normal(7, 7)
    repeated = normal(4, 6).repeat(20, 1)  # many samples, few different ones
    scaled = normal(4, 6).repeat(10, 1) * torch.arange(1.0, 41.0, dtype=torch.float64)[:, None]
    dead, constant, twin, total = (normal(30, 5) for _ in range(4))
    dead[:, 2] = 0
    constant[:, 1] = 3.0
    twin[:, 4] = twin[:, 0]
    total[:, 3] = total[:, 0] - 2 * total[:, 1]
    centred = normal(9, 8)
    tries = {
        "ten layers": [plenty, few, square, repeated, dead, constant, twin, total, scaled, centred],
        "many different samples": [plenty],
        "fewer samples than inputs, and as many": [few, square],
        "samples that were repeated": [repeated, plenty],
        "multiples of few samples": [scaled],
        "an input that is always zero": [dead, plenty],
        "an input that never changes": [constant],
        "two inputs that are the same": [twin, square],
        "an input that is a combination of two others": [plenty, total],
        "just enough samples": [centred, few],
        "single precision": [total.float(), plenty.float(), repeated.float()],
    }
    return [Case(about, {"inputs": layers}) for about, layers in tries.items()]


def _answer(condition: str) -> str:
    return f"def undetermined(inputs):\n    return [i for i, x in enumerate(inputs) if {condition}]"


_RANK = "torch.linalg.matrix_rank(x)"
_RIGHT = f"{_RANK} < x.shape[1]"

WRONG = (
    (_answer(f"{_RANK} == x.shape[1]"), r"whose weights \*are\* determined"),
    (_answer("len(x) < x.shape[1]"), "Samples can repeat each other"),
    (_answer("len(x) <= x.shape[1]"), "more can be too few"),
    (_answer("len(x) < x.shape[1] or (x == 0).all(0).any()"), "is not on the list, but another"),
    (_answer("(x == 0).all(0).any()"), "always zero"),
    (_answer("torch.linalg.matrix_rank(x.double()) < x.shape[1]"), "rank in double precision"),
    (_answer("(x.std(0) == 0).any()"), "inputs that never change"),
    (_answer("len(x.unique(dim=0)) < x.shape[1]"), "different samples"),
    (_answer("len(set(map(tuple, x.T.tolist()))) < x.shape[1]"), "copies of each other"),
    (_answer("torch.linalg.matrix_rank(x - x.mean(0)) < x.shape[1]"), "take off the mean"),
    (_answer(f"{_RANK} < len(x)"), "that of the unknown weights"),
    (_answer(f"{_RANK} < min(x.shape)"), "that of its shorter side"),
    (_answer(_RIGHT) + "[::-1]", "in another order"),
    (_answer(_RIGHT) + " * 2", "more than once"),
    (_answer(f"{_RIGHT} or i == 0"), "is on the list, but only one"),
    (_answer(_RIGHT).replace("[i for", "[x.sum() for"), "which is no position"),
    (_answer(_RIGHT).replace("return [", "return len([").replace("[1]]", "[1]])"), "returns the int"),
    (_answer("torch.linalg.inv(x.T @ x).isnan().any()"), "raised _LinAlgError"),
    (_answer(_RIGHT).replace("return [", "["), "Is a `return` missing"),
    (_answer("x.zero_().sum() == 0 and False"), "modified its input `inputs`"),
    ("def undetermined():\n    return []", r"yours takes `\(\)`"),
    ("undetermined = [0, 2]", "needs the function itself"),
)

QUESTION = Question(
    name="q4",
    kind="investigate",
    title="What the calibration data leave open",
    task=TASK,
    answer="undetermined",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
