"""q2, code: the saliency of parameters that many connections share."""

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
In a convolution many connections share one parameter. Write `saliencies(curvature, owner, u)`: `curvature` (C,) holds
∂²E/∂w² of each *connection*, as LeCun's recursion finds them; `owner` (C,), int64, says which parameter each
connection uses; `u` (P,) are the parameters. The result is the saliency of each parameter, (P,), in the dtype and on
the device of `u`. A parameter that no connection uses has the saliency zero.
"""

STARTER = '''\
def saliencies(curvature, owner, u):
    """What deleting each parameter costs, at a minimum: (P,)."""
    ...'''

SOLUTION = '''\
def saliencies(curvature, owner, u):
    """What deleting each parameter costs, at a minimum: (P,)."""
    h = torch.zeros_like(u).index_add(0, owner, curvature.to(u))  # all uses of a parameter
    return h * u.square() / 2'''

HINTS = (
    "Two steps: from the connections to the second derivative of each parameter, and from there to the saliency. The "
    "chapter has an equation for each.",
    "If a parameter moves, all connections that use it move with it. Their second derivatives are added up, in the "
    "approximation of the paper.",
    "`index_add`, `scatter_add` and `bincount(..., weights=..., minlength=...)` each add up by number. Start from one "
    "zero for each *parameter*, so that unused ones get theirs.",
)

TAKEAWAY = (
    "A shared parameter is used often, so that its second derivative is large and a small value may still matter: by "
    "magnitude alone a convolution's few weights look no different from the many of a linear layer."
)


def _sums(curvature: Tensor, owner: Tensor, u: Tensor) -> Tensor:
    found = [curvature[owner == number].double().sum() for number in range(len(u))]
    return torch.stack(found).to(u) if found else torch.zeros_like(u)


def _uses(owner: Tensor, u: Tensor) -> Tensor:
    return torch.stack([(owner == number).sum() for number in range(len(u))]).to(u).clamp(min=1)


def _largest(curvature: Tensor, owner: Tensor, u: Tensor) -> Tensor:
    return torch.stack(
        [curvature[owner == n].amax() if bool((owner == n).any()) else u.new_zeros(()) for n in range(len(u))]
    )


def _last(curvature: Tensor, owner: Tensor, u: Tensor) -> Tensor:
    h = torch.zeros_like(u)
    for value, number in zip(curvature, owner.tolist(), strict=True):
        h[number] = value
    return h


MISTAKES = (
    Mistake(
        lambda curvature, owner, u: _sums(curvature, owner, u) * u.square(),
        "The half of the second-order term is missing. The order is the same, but this is not the increase.",
    ),
    Mistake(
        lambda curvature, owner, u: _sums(curvature, owner, u) / _uses(owner, u) * u.square() / 2,
        "This is the mean over the connections. They all move when the parameter does.",
    ),
    Mistake(
        lambda curvature, owner, u: _largest(curvature, owner, u) * u.square() / 2,
        "Only the largest second derivative of each parameter counts here. What about its other uses?",
    ),
    Mistake(
        lambda curvature, owner, u: _last(curvature, owner, u) * u.square() / 2,
        "Each connection overwrites the one before: writing to `h[owner]` keeps one value a parameter.",
    ),
    Mistake(
        lambda curvature, owner, u: _sums(curvature, owner, u) * u / 2,
        "The parameter enters squared: the step has its length, and so has the slope at its end.",
    ),
    Mistake(
        lambda curvature, owner, u: _sums(curvature, owner, u) * u.abs() / 2,
        "The parameter's size is there once; it takes its square.",
    ),
    Mistake(
        lambda curvature, owner, u: _sums(curvature, owner, u),
        "These are the second derivatives of the parameters. How far does each of them move?",
    ),
    Mistake(
        lambda curvature, owner, u: _sums(curvature, owner, u) / 2,
        "The curvature alone says how steep the loss becomes, not how far the parameter moves.",
    ),
    Mistake(
        lambda curvature, owner, u: u.square() / 2,
        "This is magnitude: it does not look at the curvature at all.",
    ),
    Mistake(
        lambda curvature, owner, u: _uses(owner, u) * u.square() / 2,
        "This counts the uses of each parameter, as if each had a second derivative of one.",
    ),
    Mistake(
        lambda curvature, owner, u: _sums(curvature.abs(), owner, u) * u.square() / 2,
        "A negative second derivative has lost its sign. What it takes off, the others do not.",
    ),
    Mistake(
        lambda curvature, owner, u: _sums(curvature.clamp(min=0), owner, u) * u.square() / 2,
        "Negative second derivatives are left out. Levenberg and Marquardt never meet them; here they are given.",
    ),
    Mistake(
        lambda curvature, owner, u: (_sums(curvature, owner, u) * u).square() / 2,
        "The curvature is squared too. Only the step is.",
    ),
    Mistake(
        lambda curvature, owner, u: curvature * u[owner].square() / 2,
        "There is one saliency for each *connection*. A connection cannot be deleted without the others of its "
        "parameter.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="saliencies")


def _judge(found: Any, curvature: Tensor, owner: Tensor, u: Tensor) -> None:
    expected = _sums(curvature, owner, u) * u.square() / 2
    name_mistake(found, expected, MISTAKES, curvature=curvature, owner=owner, u=u)
    require_form(found, like=expected, per="parameter")
    if not same(found, expected):
        if not torch.isfinite(found).all():
            raise Wrong("The result has NaN or infinite values. Does it divide by the number of uses, which may be 0?")
        wrong = sum(not same(one, other) for one, other in zip(found, expected, strict=True))
        raise Wrong(f"{wrong} of the {len(expected)} saliencies are not what deleting the parameter costs.")


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(0)

    def case(connections: int, parameters: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
        # Multiples of 1/64 add up exactly in any order.
        curvature = torch.randint(-100, 400, (connections,), generator=draw) / 64
        owner = torch.randint(parameters, (connections,), generator=draw)
        u = torch.randint(-256, 257, (parameters,), generator=draw) / 64
        return curvature.to(dtype), owner, u.to(dtype)

    curvature, owner, u = case(40, 6)
    tries = {
        "40 connections that share 6 parameters": (curvature, owner, u),
        "the same connections in another order": (curvature.flip(0), owner.flip(0), u),
        "every parameter used once, as in a linear layer": (
            *case(7, 7)[:1],
            torch.randperm(7, generator=draw),
            case(7, 7)[2],
        ),
        "the last two parameters are not used": (curvature, owner.clamp(max=3), u),
        "a parameter that is zero already": (curvature, owner, u * torch.tensor([1, 0, 1, 1, 1, 1])),
        "no connection at all": (curvature[:0], owner[:0], u),
        "double precision": case(30, 5, torch.float64),
    }
    if torch.cuda.is_available():
        tries["tensors on the GPU"] = (curvature.cuda(), owner.cuda(), u.cuda())
    return [Case(about, dict(zip(("curvature", "owner", "u"), given, strict=True))) for about, given in tries.items()]


def _answer(result: str, *before: str) -> str:
    lines = ["def saliencies(curvature, owner, u):", *(f"    {line}" for line in before), f"    return {result}"]
    return "\n".join(lines)


_H = "h = torch.zeros_like(u).scatter_add(0, owner, curvature)"
_N = "n = torch.zeros_like(u).scatter_add(0, owner, torch.ones_like(curvature)).clamp(min=1)"

WRONG = (
    (_answer("h * u**2", _H), "half of the second-order term"),
    (_answer("h / n * u**2 / 2", _H, _N), "the mean over the connections"),
    (
        _answer("torch.zeros_like(u).scatter_reduce(0, owner, curvature, 'amax', include_self=False) * u**2 / 2"),
        "Only the largest",
    ),
    (
        _answer("h * u**2 / 2", "h = torch.zeros_like(u)", "for c, k in zip(curvature, owner): h[k] = c"),
        "overwrites the one before",
    ),
    (_answer("h * u / 2", _H), "The parameter enters squared"),
    (_answer("h * u.abs() / 2", _H), "it takes its square"),
    (_answer("h + 0", _H), "second derivatives of the parameters"),
    (_answer("h / 2", _H), "how steep the loss becomes"),
    (_answer("u**2 / 2"), "This is magnitude"),
    (_answer("n * u**2 / 2", _N), "counts the uses"),
    (_answer("h * u**2 / 2", _H.replace("curvature", "curvature.abs()")), "has lost its sign"),
    (
        _answer("h * u**2 / 2", _H.replace("curvature", "curvature.clamp(min=0)")),
        "Negative second derivatives are left",
    ),
    (_answer("(h * u)**2 / 2", _H), "The curvature is squared too"),
    (_answer("curvature * u[owner]**2 / 2"), "each .connection."),
    (
        _answer("(h / n) * n * u**2 / 2", _H, _N.removesuffix(".clamp(min=1)")),
        "which may be 0",
    ),
    (
        _answer("torch.bincount(owner, weights=curvature).to(u) * u[:owner.max() + 1]**2 / 2"),
        r"shape \(4,\); with one value for each parameter",
    ),
    (_answer("(h * u**2 / 2).double()", _H), "float64; it should be float32"),
    (_answer("(h * u**2 / 2).tolist()", _H), "should return a tensor"),
    (_answer("s / s.max()", _H, "s = h * u**2 / 2"), "of the 6 saliencies are not"),
    (_answer("u.square_() * h / 2", _H), "modified its input `u` in place"),
    (_answer("curvature @ u**2 / 2"), "raised RuntimeError"),
    (_answer("curvature.sum_by(owner) * u**2 / 2"), "raised AttributeError"),
    ("def saliencies(curvature, owner, u):\n    u**2 / 2", "Is a `return` missing"),
    ("def saliencies(curvature, u):\n    return u", r"yours takes `\(curvature, u\)`"),
    ("saliencies = torch.ones(6)", "needs the function itself"),
)

QUESTION = Question(
    name="q2",
    kind="code",
    title="A parameter that is used often",
    task=TASK,
    answer="saliencies",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
