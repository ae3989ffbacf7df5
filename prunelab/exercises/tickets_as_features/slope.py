"""q3, code: the gradient of a Laplace kernel predictor at one point, its tip included."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake, require_form, same
from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `slope(x, centres, coefficients, bandwidth)`: the gradient, at the point x (d,), of the predictor that adds up
coefficient times exp(-distance / bandwidth) over the centres (n, d), with the plain Euclidean distance. Coefficients
are (n,). Where x is a centre, that centre's term is left out. The result has the shape (d,), and the dtype and device
of x.
"""

STARTER = '''\
def slope(x, centres, coefficients, bandwidth):
    """∇f at one point, M = I: (d,), (n, d), (n,), float -> (d,)."""
    ...'''

SOLUTION = '''\
def slope(x, centres, coefficients, bandwidth):
    """∇f at one point, M = I: (d,), (n, d), (n,), float -> (d,)."""
    towards = centres - x  # (n, d)
    distance = towards.norm(dim=1)  # (n,)
    height = coefficients * torch.exp(-distance / bandwidth) / bandwidth
    pull = height / distance.where(distance > 0, torch.inf)  # nothing at the tip
    return pull @ towards'''

HINTS = (
    "First for one centre: which way does the term grow, towards the centre or away from it? The derivative of the "
    "distance is a vector of length one.",
    "The chain rule gives four factors: the coefficient, the kernel, one over the bandwidth, and that vector.",
    "At a centre the vector of length one is zero divided by zero. Put something into the place of the distance that "
    "makes the quotient zero.",
)

TAKEAWAY = (
    "Every centre pulls along the straight line to it, with a force that depends on the distance alone. At the tip "
    "there is no direction, and the term is left out: one NaN would spoil the whole outer product."
)


def _pulls(x: Tensor, centres: Tensor, bandwidth: float) -> tuple[Tensor, Tensor, Tensor]:
    towards = centres - x
    distance = towards.norm(dim=1)
    return towards, distance, torch.exp(-distance / bandwidth)


def _right(x: Tensor, centres: Tensor, coefficients: Tensor, bandwidth: float, power: int = 1) -> Tensor:
    """`power` is that of the distance that the step is divided by."""
    towards, distance, kernel = _pulls(x, centres, bandwidth)
    weight = coefficients * kernel / (bandwidth * distance**power)
    return torch.where(distance > 0, weight, 0) @ towards


def _without(what: str) -> Any:
    def answer(x: Tensor, centres: Tensor, coefficients: Tensor, bandwidth: float) -> Tensor:
        towards, distance, kernel = _pulls(x, centres, bandwidth)
        weight = torch.where(distance > 0, 1 / (bandwidth * distance), 0)
        if what != "kernel":
            weight = weight * kernel
        if what != "coefficients":
            weight = weight * coefficients
        return weight @ towards

    return answer


def _gaussian(x: Tensor, centres: Tensor, coefficients: Tensor, bandwidth: float) -> Tensor:
    towards = centres - x
    return (coefficients * torch.exp(-towards.square().sum(1) / bandwidth) * 2 / bandwidth) @ towards


def _product(x: Tensor, centres: Tensor, coefficients: Tensor, bandwidth: float) -> Tensor:
    towards = centres - x
    return (coefficients * torch.exp(-towards.abs().sum(1) / bandwidth) / bandwidth) @ towards.sign()


MISTAKES = (
    Mistake(
        lambda **given: -_right(**given),
        "The sign is turned round: with a positive coefficient the predictor grows *towards* the centre.",
    ),
    Mistake(
        lambda **given: _right(**given) * given["bandwidth"],
        "One factor is missing: the inner derivative of the exponent holds the bandwidth.",
    ),
    Mistake(
        lambda **given: _right(**given) / given["bandwidth"],
        "The bandwidth divides twice. It stands in the exponent once, so differentiation brings it down once.",
    ),
    Mistake(
        lambda **given: _right(**given, power=0),
        "The difference was not divided by its length: centres far away pull too hard.",
    ),
    Mistake(
        lambda **given: _right(**given, power=2),
        "The difference was divided by the square of its length; the distance is not squared here.",
    ),
    Mistake(_without("kernel"), "The kernel is missing: a centre far away pulls as hard as a near one."),
    Mistake(_without("coefficients"), "The coefficients are missing: every centre pulls alike."),
    Mistake(_gaussian, "This is the slope of a Gaussian kernel, which has the square of the distance in its exponent."),
    Mistake(_product, "This measures distances as sums of absolute differences; the task has the Euclidean distance."),
    Mistake(
        lambda **given: _right(**given) / len(given["centres"]),
        "This is the mean over the centres; the predictor adds them up.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="slope")


def _judge(found: Any, x: Tensor, centres: Tensor, coefficients: Tensor, bandwidth: float) -> None:
    expected = _right(x, centres, coefficients, bandwidth)
    given = {"x": x, "centres": centres, "coefficients": coefficients, "bandwidth": bandwidth}
    name_mistake(found, expected, MISTAKES, **given)
    require_form(found, like=expected, per="coordinate")
    if not same(found, expected):
        if not torch.isfinite(found).all():
            raise Wrong("The result has NaN or infinite values: the point is one of the centres. What is pulled where?")
        if bool((centres == x).all(1).any()):
            raise Wrong("Away from the centres this is right. Here the point is a centre, and one term is wrong.")
        if (centres - x).norm(dim=1).min() < 0.1:
            raise Wrong("Close to a centre its term is wrong: it counts fully, however small the distance is.")
        raise Wrong("This is not the gradient of the predictor. Compare it with a small step along each coordinate.")


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(0)
    centres, weights = torch.randn(6, 3, generator=draw), torch.randn(6, generator=draw)
    x = torch.randn(3, generator=draw)
    double = [one.double() for one in (x, centres, weights)]
    tries: dict[str, tuple[Tensor, Tensor, Tensor, float]] = {
        "six centres in three dimensions": (x, centres, weights, 2.0),
        "a narrow kernel": (x, centres, weights, 0.5),
        "one centre": (x, centres[:1], weights[:1], 2.0),
        "double precision": (double[0], double[1], double[2], 3.0),
        "a point close to a centre": (centres[2] + 0.003, centres, weights, 2.0),
        "the point is one of the centres": (centres[2], centres, weights, 2.0),
        "the point is the only centre": (x, x[None], weights[:1], 2.0),
    }
    if torch.cuda.is_available():
        tries["tensors on the GPU"] = (x.cuda(), centres.cuda(), weights.cuda(), 2.0)
    names = ("x", "centres", "coefficients", "bandwidth")
    return [Case(about, dict(zip(names, one, strict=True))) for about, one in tries.items()]


def _answer(result: str) -> str:
    return (
        "def slope(x, centres, coefficients, bandwidth):\n"
        "    t, a, L = centres - x, coefficients, bandwidth\n"
        "    r = t.norm(dim=1)\n"
        "    r = r.where(r > 0, torch.inf)\n"
        f"    return {result}"
    )


_K = "torch.exp(-r / L)"

WRONG = (
    (_answer(f"-(a * {_K} / L / r) @ t"), "The sign is turned round"),
    (_answer(f"(a * {_K} / r) @ t"), "One factor is missing"),
    (_answer(f"(a * {_K} / L**2 / r) @ t"), "divides twice"),
    (_answer(f"(a * {_K} / L) @ t"), "not divided by its length"),
    (_answer(f"(a * {_K} / L / r**2) @ t"), "divided by the square of its length"),
    (_answer("(a / L / r) @ t"), "The kernel is missing"),
    (_answer(f"({_K} / L / r) @ t"), "The coefficients are missing"),
    (_answer("(a * torch.exp(-t.square().sum(1) / L) * 2 / L) @ t"), "a Gaussian kernel"),
    (_answer("(a * torch.exp(-t.abs().sum(1) / L) / L) @ t.sign()"), "sums of absolute differences"),
    (_answer(f"(a * {_K} / L / r) @ t / len(a)"), "the mean over the centres"),
    (_answer(f"(a * {_K} / L / r.where(r > 0.01, torch.inf)) @ t"), "however small the distance"),
    (_answer(f"(a * {_K} / L / t.norm(dim=1)) @ t"), "What is pulled where"),
    (_answer("(a * torch.exp(-t.norm(dim=1) / L) / L / r) @ t + (r == torch.inf).any()"), "one term is wrong"),
    (_answer(f"(a * {_K} / L / r) @ t + x"), "a small step along each coordinate"),
    (_answer(f"(a * {_K} / L / r)[:, None] * t"), "with one value for each coordinate"),
    (_answer(f"((a * {_K} / L / r) @ t).half()"), "float16; it should be float32"),
    (_answer(f"((a * {_K} / L / r) @ t).tolist()"), "it should return a tensor"),
    (_answer(f"(a * {_K} / L / r) @ t.T"), "raised RuntimeError"),
    (_answer("x.grad.clone()"), "raised AttributeError"),
    ("def slope(x, centres, coefficients, bandwidth):\n    centres - x", "Is a `return` missing"),
    ("def slope(x, centres):\n    return x", r"yours takes `\(x, centres\)`"),
    ("slope = torch.ones(3)", "needs the function itself"),
)

QUESTION = Question(
    name="q3",
    kind="code",
    title="The slope of a kernel predictor",
    task=TASK,
    answer="slope",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
