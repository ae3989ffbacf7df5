"""q2, code: which weights of a layer stay when n of every m do, by Wanda's scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake, require_form
from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `pattern_mask(weight, inputs, n, m)`: a bool tensor of the shape of `weight` (O, I), True for the weights that
stay, when of every m consecutive weights of a row the n with the largest scores |W_ij| · ‖X_j‖₂ stay. `inputs` is X,
(samples, I), and m divides I. No two scores of a group are equal. Change none of the arguments.
"""

STARTER = '''\
def pattern_mask(weight, inputs, n, m):
    """n of every m weights of a row, by |weight| times norm of its input."""
    ...'''

SOLUTION = '''\
def pattern_mask(weight, inputs, n, m):
    """n of every m weights of a row, by |weight| times norm of its input."""
    scores = weight.abs() * inputs.norm(dim=0)  # (O, I)
    groups = scores.reshape(-1, m)  # rows are consecutive in memory, and m divides their length
    best = groups.topk(n, dim=1).indices
    mask = torch.zeros_like(groups, dtype=torch.bool)
    return mask.scatter(1, best, True).reshape(weight.shape)'''

HINTS = (
    "First the scores, one for each weight. A norm of an input is taken over the samples: there is one for each column "
    "of the weight.",
    "Then reshape the scores so that the competitors stand in a row of their own. The weights of a row follow each "
    "other in memory, so that a matrix with m columns holds one group in each row.",
    "`topk(n, dim=1).indices` says where the winners of each group are; `scatter` writes True at these places of a "
    "tensor of False. At the end comes the shape of the weight again.",
)

TAKEAWAY = (
    "A pattern is not a score: it says who competes with whom. The same scores with rows as groups are Wanda as it was "
    "published first, and with one group it would be a mask of the whole layer."
)


def _chosen(scores: Tensor, n: int, m: int) -> Tensor:
    """By counting: a weight stays if fewer than n of its group have a larger score."""
    groups = scores.double().reshape(scores.shape[0], -1, m)
    larger = groups[..., None, :] > groups[..., :, None]  # (O, groups, of this one, the others)
    return (larger.sum(-1) < n).reshape(scores.shape)


def _scores(weight: Tensor, inputs: Tensor) -> Tensor:
    return weight.double().abs() * inputs.double().square().sum(0).sqrt()


def _mask(weight: Tensor, inputs: Tensor, n: int, m: int) -> Tensor:
    return _chosen(_scores(weight, inputs), n, m)


def _best(scores: Tensor, count: int) -> Tensor:
    """The `count` largest of each row."""
    return scores.argsort(dim=1).argsort(dim=1) >= scores.shape[1] - count


def _with_scores(scores: Callable[[Tensor, Tensor], Tensor], message: str) -> Mistake:
    """The right competition with other scores."""
    return Mistake(lambda weight, inputs, n, m: _chosen(scores(weight.double(), inputs.double()), n, m), message)


def _strided(weight: Tensor, inputs: Tensor, n: int, m: int) -> Tensor:
    """Groups of weights that stand I / m apart."""
    scores = _scores(weight, inputs).reshape(weight.shape[0], m, -1).mT
    return _chosen(scores.reshape(len(weight), -1), n, m).reshape(scores.shape).mT.reshape(weight.shape)


def _down(weight: Tensor, inputs: Tensor, n: int, m: int) -> Tensor:
    """Groups down the columns; the mask itself where the rows do not divide."""
    if weight.shape[0] % m:
        return _mask(weight, inputs, n, m)
    return _chosen(_scores(weight, inputs).T, n, m).T


MISTAKES = (
    Mistake(lambda weight, inputs, n, m: ~_mask(weight, inputs, n, m), "These are the weights that go: True is kept."),
    Mistake(
        lambda weight, inputs, n, m: _chosen(-_scores(weight, inputs), n, m),
        "The smallest scores of each group stay here.",
    ),
    Mistake(
        lambda weight, inputs, n, m: _chosen(_scores(weight, inputs), m - n, m),
        "The number that stays and the number that goes are exchanged.",
    ),
    _with_scores(lambda weight, inputs: weight.abs(), "The inputs do not matter to your mask."),
    _with_scores(lambda weight, inputs: inputs.norm(dim=0).expand(weight.shape), "The weights do not matter to it."),
    _with_scores(lambda weight, inputs: weight * inputs.norm(dim=0), "A large negative weight counts as a small one."),
    _with_scores(
        lambda weight, inputs: weight.abs() * inputs.square().sum(0), "The norm lacks its root: it weighs too much."
    ),
    _with_scores(
        lambda weight, inputs: weight.square() * inputs.norm(dim=0), "The weight is squared, and the norm is not."
    ),
    _with_scores(lambda weight, inputs: weight.abs() * inputs.abs().sum(0), "This is the sum of |x|, another norm."),
    _with_scores(lambda weight, inputs: weight.abs() * inputs.abs().amax(0), "This is the largest |x|, another norm."),
    _with_scores(
        lambda weight, inputs: weight.abs() * inputs.sum(0).abs(),
        "Samples of both signs cancel in a sum, and not in a norm.",
    ),
    _with_scores(
        lambda weight, inputs: weight.abs() * inputs.std(0) if len(inputs) > 1 else weight.abs(),
        "A deviation leaves out the mean of the input. An input that never changes is multiplied all the same.",
    ),
    _with_scores(lambda weight, inputs: weight.abs() / inputs.norm(dim=0), "The norms divide; they should multiply."),
    Mistake(
        lambda weight, inputs, n, m: _best(_scores(weight, inputs), weight.shape[1] * n // m),
        "All weights of a row compete here, so that some groups keep more than n.",
    ),
    Mistake(
        lambda weight, inputs, n, m: _best(_scores(weight, inputs).reshape(1, -1), weight.numel() * n // m).reshape(
            weight.shape
        ),
        "The whole layer competes here.",
    ),
    Mistake(_down, "The groups run down the columns; they should run along the rows."),
    Mistake(_strided, "The weights of a group do not stand side by side."),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="pattern_mask")


def _judge(found: Any, weight: Tensor, inputs: Tensor, n: int, m: int) -> None:
    expected = _mask(weight, inputs, n, m)
    require_form(found, like=expected, per="weight")
    name_mistake(found, expected, MISTAKES, weight=weight, inputs=inputs, n=n, m=m)
    if torch.equal(found, expected):
        return
    kept = found.reshape(-1, m).sum(1)
    if bool((kept != n).any()):
        raise Wrong(f"A group of {m} keeps {int(kept[kept != n][0])} weights; it should keep {n}.")
    raise Wrong("Every group keeps the right number of weights, but not those with the largest scores.")


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(0)

    def case(about: str, rows: int, columns: int, n: int, m: int, samples: int = 20, **others: Any) -> Case:
        weight = torch.randn(rows, columns, generator=draw)
        scales = torch.rand(columns, generator=draw) * 3 + 0.1
        inputs = torch.randn(samples, columns, generator=draw) * scales + scales.flip(0)
        values = {"weight": weight, "inputs": inputs} | others
        dtype = others.get("inputs", inputs).dtype
        return Case(about, {"weight": values["weight"].to(dtype), "inputs": values["inputs"], "n": n, "m": m})

    heavy = torch.randn(30, 8, generator=draw).cumsum(0)
    return [
        case("12 × 24 weights, 1:4", 12, 24, 1, 4),
        case("8 × 16 weights, 2:4", 8, 16, 2, 4),
        case("6 × 16 weights, 4:8", 6, 16, 4, 8),
        case("inputs with large outliers", 4, 8, 2, 4, inputs=heavy**3),
        case("a single row", 1, 12, 2, 3),
        case("a single sample", 5, 8, 2, 4, samples=1),
        case("all of a group stay", 3, 8, 4, 4),
        case("double precision", 4, 12, 1, 2, inputs=torch.randn(9, 12, generator=draw, dtype=torch.float64)),
    ]


def _changed(change: str, by: str) -> str:
    """The solution with a piece changed: a wrong answer for the tests."""
    if change not in SOLUTION:
        raise ValueError(f"the solution has no {change!r}")
    return SOLUTION.replace(change, by)


_SCORES, _NORM = "weight.abs() * inputs.norm(dim=0)", "inputs.norm(dim=0)"
_GROUPS, _BACK = "scores.reshape(-1, m)", "mask.scatter(1, best, True).reshape(weight.shape)"

WRONG = (
    (_changed(_BACK, f"~{_BACK}"), "These are the weights that go"),
    (_changed("groups.topk(n", "(-groups).topk(n"), "smallest scores"),
    (_changed("topk(n", "topk(m - n"), "are exchanged"),
    (_changed(_SCORES, "weight.abs()"), "The inputs do not matter"),
    (_changed(_SCORES, "inputs.norm(dim=0).expand(weight.shape)"), "The weights do not matter"),
    (_changed("weight.abs() *", "weight *"), "large negative weight"),
    (_changed(_NORM, "inputs.square().sum(0)"), "lacks its root"),
    (_changed("weight.abs() *", "weight.square() *"), "The weight is squared"),
    (_changed(_NORM, "inputs.abs().sum(0)"), r"sum of \|x\|"),
    (_changed(_NORM, "inputs.abs().amax(0)"), r"largest \|x\|"),
    (_changed(_NORM, "inputs.sum(0).abs()"), "both signs cancel"),
    (_changed(_NORM, "inputs.std(0)"), "A deviation leaves out"),
    (_changed("weight.abs() *", "weight.abs() /"), "The norms divide"),
    (
        _changed(_GROUPS, "scores").replace("topk(n", "topk(scores.shape[1] * n // m"),
        "All weights of a row compete",
    ),
    (
        _changed(_GROUPS, "scores.reshape(1, -1)").replace("topk(n", "topk(scores.numel() * n // m"),
        "The whole layer competes",
    ),
    (
        _changed(_GROUPS, "scores.T.reshape(-1, m)").replace(".reshape(weight.shape)", ".reshape(weight.T.shape).T"),
        "run down the columns",
    ),
    (
        _changed(_GROUPS, "scores.reshape(len(weight), m, -1).mT.reshape(-1, m)").replace(
            ".reshape(weight.shape)", ".reshape(len(weight), -1, m).mT.reshape(weight.shape)"
        ),
        "do not stand side by side",
    ),
    (_changed("topk(n", "topk(max(1, n - 1)"), "A group of 4 keeps 1 weights"),
    (_changed("weight.abs() *", "weight.abs() ** 3 *"), "not those with the largest scores"),
    (_changed("inputs.norm(dim=0)", "inputs.norm(dim=1)"), "raised RuntimeError"),
    (_changed(".reshape(weight.shape)", ""), r"the shape \(72, 4\)"),
    (_changed(".reshape(weight.shape)", ".reshape(weight.shape).float()"), "The result is float32"),
    (_changed("weight.abs()", "weight.abs_()"), "modified its input `weight` in place"),
    (_changed("    return", "   "), "Is a `return` missing"),
    ("def pattern_mask(weight, inputs):\n    return weight > 0", r"yours takes `\(weight, inputs\)`"),
    ("pattern_mask = torch.ones(3).mean()", "needs the function itself"),
)

QUESTION = Question(
    name="q2",
    kind="code",
    title="Two of four, by what the layer reads",
    task=TASK,
    answer="pattern_mask",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
