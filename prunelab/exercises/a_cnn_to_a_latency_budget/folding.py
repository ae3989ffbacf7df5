"""q2, code: a batch normalisation folded into the convolution before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake, require_form, same
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
In use, a batch normalisation computes γ · (x - mean) / √(var + eps) + β for each channel, with numbers that no longer
change. Write `fold(weight, bias, gamma, beta, mean, var, eps)`: the weight and the bias of the one convolution that
computes what the convolution and its normalisation compute together, as a pair. `weight` has the shape
(O, I/g, kH, kW), `bias`, `gamma`, `beta`, `mean` and `var` have the shape (O,), and `eps` is a number. Change none of
the arguments.
"""

STARTER = '''\
def fold(weight, bias, gamma, beta, mean, var, eps):
    """Weight and bias of a convolution that normalises by itself."""
    ...'''

SOLUTION = '''\
def fold(weight, bias, gamma, beta, mean, var, eps):
    """Weight and bias of a convolution that normalises by itself."""
    scale = gamma / torch.sqrt(var + eps)  # (O,): one factor a filter
    return weight * scale.reshape(-1, 1, 1, 1), beta + (bias - mean) * scale'''

HINTS = (
    "The normalisation multiplies each channel by one number and adds another. What happens to a channel when all the "
    "weights of its filter are multiplied by a number?",
    "Write the output of the convolution as `w * x + bias`, put it into the formula of the task, and sort: what stands "
    "before x is the new weight, and everything else is the new bias.",
    "The factor is γ / √(var + eps). The old bias passes through the normalisation like all the rest: the mean is "
    "taken off, then it is multiplied, then β is added. The factor needs a shape that lines up with the filters.",
)

TAKEAWAY = (
    "In use, a normalisation after a convolution is free: it is a convolution with other numbers. Fold last, after "
    "fine-tuning: folded statistics do not adapt any more."
)

Folded = tuple[Tensor, Tensor]


def _scaled(weight: Tensor, scale: Tensor) -> Tensor:
    return weight * scale.reshape(-1, 1, 1, 1)


def _mistake(answer: Callable[..., Folded], message: str) -> Mistake:
    def flat(weight: Tensor, bias: Tensor, **others: Any) -> Tensor:
        scale = others["gamma"] / (others["var"] + others["eps"]).sqrt()
        return _flat(*answer(w=weight, b=bias, s=scale, **others))

    return Mistake(flat, message)


def _with_scale(scale: Callable[..., Tensor], message: str) -> Mistake:
    """The right formulae with another factor."""
    return _mistake(
        lambda w, b, s, beta, mean, **o: (
            _scaled(w, scale(**o)),
            beta + (b - mean) * scale(**o),
        ),
        message,
    )


def _with_bias(bias: Callable[..., Tensor], message: str) -> Mistake:
    """The right weight with another bias."""
    return _mistake(lambda w, s, **o: (_scaled(w, s), bias(s=s, **o)), message)


def _flat(weight: Tensor, bias: Tensor) -> Tensor:
    return torch.cat([weight.flatten(), bias.flatten()])


MISTAKES = (
    _with_scale(lambda gamma, var, eps: gamma / (var + eps), "The factor divides by the variance, without the root."),
    _with_scale(lambda gamma, var, eps: gamma / (var.sqrt() + eps), "`eps` stands outside the root here."),
    _with_scale(
        lambda gamma, var, eps: gamma / (var + eps).square(),
        "The factor divides by the square of the variance; what the task asks for is a root.",
    ),
    _with_scale(lambda gamma, var, eps: gamma * (var + eps).sqrt(), "The factor multiplies by the deviation."),
    _with_scale(lambda gamma, var, eps: 1 / (var + eps).sqrt(), "γ is missing."),
    _with_bias(lambda b, mean, s, **o: (b - mean) * s, "β is missing in the bias."),
    _with_bias(
        lambda b, mean, s, beta, **o: beta - mean * s,
        "The convolution's own bias is lost: it passes through the normalisation too.",
    ),
    _with_bias(
        lambda b, mean, s, beta, **o: beta + b - mean * s,
        "The convolution's own bias is added as it was; the normalisation multiplies it like everything else.",
    ),
    _with_bias(
        lambda b, mean, s, beta, **o: beta + b * s,
        "The mean is not taken off.",
    ),
    _with_bias(
        lambda b, mean, s, beta, **o: beta + b * s - mean,
        "The mean is taken off after the multiplication; the normalisation does it before.",
    ),
    _with_bias(
        lambda b, mean, s, beta, **o: beta + (b + mean) * s,
        "The mean has the wrong sign.",
    ),
    _with_bias(
        lambda b, mean, s, beta, **o: (beta + b - mean) * s,
        "β is multiplied too, but it is added last.",
    ),
    _with_bias(lambda b, **o: b, "The bias is the old one."),
    _mistake(
        lambda w, b, s, beta, mean, **o: (w, beta + (b - mean) * s),
        "The weight is the old one: each filter has to be multiplied by its factor.",
    ),
    _mistake(
        lambda w, b, s, beta, mean, **o: (
            w * s.reshape(1, -1, 1, 1) if w.shape[1] == len(s) else _scaled(w, s),
            beta + (b - mean) * s,
        ),
        "The factors multiply the *input* channels. A factor belongs to what a filter makes, not to what it reads.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="fold")


def _judge(found: Any, weight: Tensor, bias: Tensor, **numbers: Any) -> None:
    expected = _reference(weight, bias, **numbers)
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise Wrong(f"`fold` returns {describe(found)}; it should return a pair, the weight and the bias.")
    first, second = found
    require_form(first, like=weight, per="weight")
    if isinstance(second, Tensor) and second.shape != bias.shape:
        raise Wrong(f"The bias has the shape {tuple(second.shape)}; each filter has one number.")
    require_form(second, like=bias, per="filter")
    name_mistake(_flat(first, second), _flat(*expected), MISTAKES, weight=weight, bias=bias, **numbers)
    if not same(first, expected[0]):
        raise Wrong("The weight is not that of a convolution which normalises by itself.")
    if not same(second, expected[1]):
        raise Wrong("The weight is right, and the bias is not.")


def _reference(weight: Tensor, bias: Tensor, **numbers: Any) -> Folded:
    """torch's own normalisation, asked: it is affine, so its values at zero and at each weight say everything."""
    weight, bias = weight.double(), bias.double()

    def normalised(values: Tensor) -> Tensor:  # (N, O) -> (N, O)
        mean, var, gamma, beta = (numbers[name].double() for name in ("mean", "var", "gamma", "beta"))
        return F.batch_norm(values, mean, var, gamma, beta, eps=numbers["eps"])

    shift = normalised(torch.zeros(1, len(bias), dtype=torch.float64))[0]
    members = weight.flatten(1).T  # (members, O)
    return (normalised(members) - shift).T.reshape(weight.shape), normalised(bias[None])[0]


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(0)

    def case(about: str, *shape: int, dtype: torch.dtype = torch.float32, **others: Any) -> Case:
        filters = shape[0]
        weight = torch.randn(shape, generator=draw)
        bias, gamma, beta, mean = torch.randn(4, filters, generator=draw)
        var = torch.rand(filters, generator=draw) * 3 + 0.2
        tensors = {"weight": weight, "bias": bias, "gamma": gamma, "beta": beta, "mean": mean, "var": var} | others
        return Case(about, {name: tensor.to(dtype) for name, tensor in tensors.items()} | {"eps": 0.25})

    return [
        case("8 filters that read 8 channels, eps 0.25", 8, 8, 3, 3),
        case("12 filters of 5 × 1, 3 input channels", 12, 3, 5, 1),
        case("a depthwise convolution", 6, 1, 3, 3),
        case("a convolution whose bias is zero", 8, 8, 1, 1, bias=torch.zeros(8)),
        case("two channels whose scale is zero, as after pruning", 4, 2, 3, 3, gamma=torch.tensor([1.0, 0, -2, 0])),
        case("a channel that never varied", 3, 2, 1, 1, var=torch.tensor([1.0, 0.0, 2.0])),
        case("a single filter", 1, 4, 3, 3),
        case("double precision", 5, 4, 3, 3, dtype=torch.float64),
    ]


def _changed(change: str, by: str) -> str:
    """The solution with a piece changed: a wrong answer for the tests."""
    if change not in SOLUTION:
        raise ValueError(f"the solution has no {change!r}")
    return SOLUTION.replace(change, by)


_SCALE, _BIAS, _WEIGHT = "torch.sqrt(var + eps)", "beta + (bias - mean) * scale", "weight * scale.reshape(-1, 1, 1, 1)"

WRONG = (
    (_changed(_SCALE, "(var + eps)"), "without the root"),
    (_changed(_SCALE, "(torch.sqrt(var) + eps)"), "outside the root"),
    (_changed(_SCALE, "(var + eps) ** 2"), "square of the variance"),
    (_changed("gamma / torch", "gamma * torch"), "multiplies by the deviation"),
    (_changed("gamma / torch", "1 / torch"), "γ is missing"),
    (_changed(_BIAS, "(bias - mean) * scale"), "β is missing"),
    (_changed(_BIAS, "beta - mean * scale"), "own bias is lost"),
    (_changed(_BIAS, "beta + bias - mean * scale"), "added as it was"),
    (_changed(_BIAS, "beta + bias * scale"), "mean is not taken off"),
    (_changed(_BIAS, "beta + bias * scale - mean"), "after the multiplication"),
    (_changed(_BIAS, "beta + (bias + mean) * scale"), "wrong sign"),
    (_changed(_BIAS, "(beta + bias - mean) * scale"), "it is added last"),
    (_changed(_BIAS, "bias"), "The bias is the old one"),
    (_changed(_WEIGHT, "weight"), "The weight is the old one"),
    (_changed(_WEIGHT, "weight * scale.reshape(1, -1, 1, 1)"), "multiply the .input. channels"),
    (_changed(_WEIGHT, "weight * scale"), "raised RuntimeError"),
    (_changed(_WEIGHT, "(weight * scale.reshape(-1, 1, 1, 1)).flatten(1)"), "with one value for each weight"),
    (_changed(_BIAS, "(beta + (bias - mean) * scale).mean()"), "each filter has one number"),
    (_changed(_WEIGHT, "-weight * scale.reshape(-1, 1, 1, 1)"), "not that of a convolution which normalises"),
    (_changed(_BIAS, "beta + (bias - mean) * scale * 1.5"), "The weight is right, and the bias is not"),
    (_changed(_WEIGHT + ", " + _BIAS, _WEIGHT), "it should return a pair"),
    (_changed(_BIAS, "(beta + (bias - mean) * scale).double()"), "float64; it should be float32"),
    (_changed(_BIAS, "(beta + (bias - mean) * scale).tolist()"), "returns the list"),
    (_changed("return weight *", "return weight.mul_(2) *"), "modified its input `weight` in place"),
    (_changed("    return", "   "), "Is a `return` missing"),
    ("def fold(weight, bn):\n    return weight, bn", r"yours takes `\(weight, bn\)`"),
    ("fold = nn.BatchNorm2d(3).eval().eps", "needs the function itself"),
)

QUESTION = Question(
    name="q2",
    kind="code",
    title="Fold a batch normalisation",
    task=TASK,
    answer="fold",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
