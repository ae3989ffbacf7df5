"""q2, code: delete a whole group of weights, and let the others make up for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake, require_form
from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `without_group(weights, inverse, group)`: the weights after the members of a group were deleted at once and all
the others have moved so that the loss rises least. `weights` is (n,), `inverse` the inverse of the Hessian at their
minimum (n, n), `group` an int64 tensor of positions (k,), k at least 1, each of them once, in any order. The result is
(n,), and the deleted weights are exactly zero.
"""

STARTER = '''\
def without_group(weights, inverse, group):
    """All weights (n,) once those of the group are gone."""
    ...'''

SOLUTION = '''\
def without_group(weights, inverse, group):
    """All weights (n,) once those of the group are gone."""
    block = inverse[group][:, group]  # (k, k)
    share = torch.linalg.solve(block, weights[group])  # (k,): one multiplier for each member
    after = weights - inverse[:, group] @ share
    after[group] = 0.0  # exactly, whatever rounding left
    return after'''

HINTS = (
    "There is one condition for each member, so there is one multiplier for each member too. They are found together: "
    "k equations for k unknowns.",
    "The update is a sum of the members' columns of the inverse, each times its multiplier. What must the update be at "
    "the members themselves? That gives the equations.",
    "`torch.linalg.solve` with the rows *and* columns of the inverse that belong to the group, and the group's weights "
    "on the right-hand side. Write the zeros yourself afterwards: rounding leaves 1e-17.",
)

TAKEAWAY = (
    "Deleting a group is one small linear system, of the size of the group. The members' columns must be weighted "
    "together: each of them would otherwise repair with weights that are about to go."
)


def _reference(weights: Tensor, inverse: Tensor, group: Tensor) -> Tensor:
    """By another way than the solution: the minimum of the quadratic over those that are left."""
    hessian = torch.linalg.inv(inverse)
    left = torch.ones(len(weights), dtype=torch.bool)
    left[group] = False
    after = torch.zeros_like(weights)
    after[left] = weights[left] + torch.linalg.solve(hessian[left][:, left], hessian[left][:, group] @ weights[group])
    return after


def _zeroed(after: Tensor, group: Tensor) -> Tensor:
    return after.index_fill(0, group, 0.0)


def _single(weights: Tensor, inverse: Tensor, group: Tensor) -> Tensor:
    """Each member repaired as if it went alone."""
    return weights - inverse[:, group] @ (weights[group] / inverse.diagonal()[group])


def _in_turn(weights: Tensor, inverse: Tensor, group: Tensor) -> Tensor:
    """One after the other, with the inverse of all of them each time."""
    for q in group.tolist():
        weights = weights - weights[q] / inverse[q, q] * inverse[:, q]
    return weights


def _times(weights: Tensor, inverse: Tensor, group: Tensor) -> Tensor:
    return weights - inverse[:, group] @ (inverse[group][:, group] @ weights[group])


def _by_hessian(weights: Tensor, inverse: Tensor, group: Tensor) -> Tensor:
    block = torch.linalg.inv(inverse)[group][:, group]
    return weights - inverse[:, group] @ (block @ weights[group])


# Where two mistakes give the same numbers, the simpler explanation comes first.
MISTAKES = (
    Mistake(
        lambda weights, group, **_: _zeroed(weights, group),
        "The group is gone, but the others are where they were: nobody makes up for it.",
    ),
    Mistake(
        lambda weights, inverse, group: _reference(weights, inverse, group) - weights,
        "That is the change of the weights; the function returns the weights themselves.",
    ),
    Mistake(
        lambda weights, inverse, group: _zeroed(2 * weights - _reference(weights, inverse, group), group),
        "The others move the wrong way.",
    ),
    Mistake(
        lambda weights, inverse, group: 2 * weights - _reference(weights, inverse, group),
        "The update has the wrong sign: even the members of the group grow.",
    ),
    Mistake(
        lambda weights, inverse, group: _zeroed(_single(weights, inverse, group), group),
        "Each member is repaired as if it went alone. But whoever is to make up for it may be about to go as well.",
    ),
    Mistake(_single, "These are the updates for single weights, added up: members of the group are not even zero."),
    Mistake(
        lambda weights, inverse, group: _zeroed(_in_turn(weights, inverse, group), group),
        "One goes after the other, but the inverse is still that of all of them: it has to lose a row and a column "
        "each time, or all go at once.",
    ),
    Mistake(_in_turn, "Those that went first have come back to life when the next one was repaired."),
    Mistake(
        lambda weights, inverse, group: _zeroed(_times(weights, inverse, group), group),
        "The block of the inverse multiplies where it should divide.",
    ),
    Mistake(_times, "The block of the inverse is multiplied by, not solved for, and nothing becomes zero."),
    Mistake(
        lambda weights, inverse, group: _zeroed(_by_hessian(weights, inverse, group), group),
        "A block of an inverse, inverted, is not the block of the matrix itself: the others had to be minimised over.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="without_group")


def _judge(found: Any, weights: Tensor, inverse: Tensor, group: Tensor) -> None:
    expected = _reference(weights, inverse, group)
    if isinstance(found, Tensor) and found.shape == (len(weights) - len(group),) != expected.shape:
        raise Wrong("Only those that are left came back; the result has a place for every weight.")
    require_form(found, expected, "weight")
    if found.isnan().any():
        raise Wrong("The result has NaN in it.")
    name_mistake(found, expected, MISTAKES, weights=weights, inverse=inverse, group=group)
    if not torch.allclose(found, expected, rtol=1e-8, atol=1e-8):
        raise Wrong("These are not the weights for which the loss rises least.")
    if found[group].any():
        raise Wrong(
            f"The deleted weights are nearly zero (up to {float(found[group].abs().max()):.0e}), and have to be "
            "exactly zero: a mask is read from them."
        )


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(5)

    def case(about: str, n: int, group: list[int], diagonal: bool = False) -> Case:
        factor = torch.randn(n, 3 * n, generator=draw, dtype=torch.float64)
        hessian = factor @ factor.T / n + 0.5
        if diagonal:
            hessian = hessian.diagonal().diag()
        weights = torch.randn(n, generator=draw, dtype=torch.float64)
        arguments = {"weights": weights, "inverse": torch.linalg.inv(hessian), "group": torch.tensor(group)}
        return Case(about, arguments)

    return [
        case("two of five weights", 5, [1, 3]),
        case("three of seven, not in order", 7, [6, 0, 2]),
        case("a group of one", 4, [2]),
        case("all but one", 6, [0, 1, 2, 4, 5]),
        case("all of them", 3, [0, 1, 2]),
        case("weights that have nothing to do with each other", 5, [0, 4], diagonal=True),
    ]


def _changed(change: str, by: str) -> str:
    """The solution with a piece changed: a wrong answer for the tests."""
    if change not in SOLUTION:
        raise ValueError(f"the solution has no {change!r}")
    return SOLUTION.replace(change, by)


_ZERO = "    after[group] = 0.0  # exactly, whatever rounding left\n"
_SOLVE = "torch.linalg.solve(block, weights[group])"
_ALONE = "weights[group] / inverse.diagonal()[group]"
_TURN = """\
def without_group(weights, inverse, group):
    after = weights
    for q in group:
        after = after - after[q] / inverse[q, q] * inverse[:, q]
"""

WRONG = (
    (_changed("weights - inverse[:, group] @ share", "weights.clone()"), "nobody makes up for it"),
    (_changed("return after", "return after - weights"), "That is the change of the weights"),
    (_changed("weights - inverse", "weights + inverse"), "move the wrong way"),
    (_changed("weights - inverse", "weights + inverse").replace(_ZERO, ""), "even the members of the group grow"),
    (_changed(_SOLVE, _ALONE), "as if it went alone"),
    (_changed(_SOLVE, _ALONE).replace(_ZERO, ""), "single weights, added up"),
    (_TURN + "    after[group] = 0\n    return after", "has to lose a row and a column"),
    (_TURN + "    return after", "come back to life"),
    (_changed(_SOLVE, "block @ weights[group]"), "multiplies where it should divide"),
    (_changed(_SOLVE, "block @ weights[group]").replace(_ZERO, ""), "not solved for, and nothing"),
    (
        _changed("inverse[group][:, group]", "torch.linalg.inv(torch.linalg.inv(inverse)[group][:, group])"),
        "not the block of the matrix itself",
    ),
    (_changed(_ZERO, "    after = after + 1e-12\n"), "exactly zero: a mask"),
    (_changed("return after", "return after[after != 0]"), "Only those that are left came back"),
    (_changed("return after", "return after.float()"), "The result is float32"),
    (_changed("return after", "return after.tolist()"), "it should return a tensor"),
    (_changed("return after", "return after * float('nan')"), "NaN in it"),
    (_changed("return after", "return 1.5 * after"), "for which the loss rises least"),
    (_changed("    return after", ""), "Is a `return` missing"),
    ("def without_group(weights, inverse, group):\n    return weights.index_fill_(0, group, 0.0)", "in place"),
    ("def without_group(weights, inverse, group):\n    return weights @ group", "raised RuntimeError"),
    ("def without_group(weights, inverse):\n    return weights", r"yours takes `\(weights, inverse\)`"),
    ("without_group = torch.zeros(3)", "needs the function itself"),
)

QUESTION = Question(
    name="q2",
    kind="code",
    title="A whole group at once",
    task=TASK,
    answer="without_group",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
