"""q3, code: the increase when several weights go together, with no term dropped but the cubic."""

from __future__ import annotations

import numbers
from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake, same
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `expected_increase(g, H, w, gone)`: by how much the loss changes when all weights with `gone` = True are deleted
at once, to second order, without the diagonal and without the extremal approximation. `g` (n,) is the gradient, `H`
(n, n) the Hessian, `w` (n,) the weights, `gone` (n,) bool. The result is one number, a float or a tensor with a single
value and no dimension.
"""

STARTER = '''\
def expected_increase(g, H, w, gone):
    """The change of the loss when weights go together, to second order."""
    ...'''

SOLUTION = '''\
def expected_increase(g, H, w, gone):
    """The change of the loss when weights go together, to second order."""
    step = -w * gone  # the others stay where they are
    return g @ step + step @ H @ step / 2'''

HINTS = (
    "Write down the step first, as a vector of n numbers: what is added to each weight? Most of it is zero.",
    "The expansion of the chapter has two terms up to second order: one with the gradient and one with the Hessian. "
    "Put the step into both.",
    "Both terms are products of vectors and matrices, for which Python has `@`. Mind the sign of the step in the first "
    "of them; the second does not notice it.",
)

TAKEAWAY = (
    "The whole second-order prediction is two products. What makes it expensive is H, with as many entries as pairs of "
    "weights: that is why Optimal Brain Damage keeps the diagonal only."
)


def _second(H: Tensor, w: Tensor) -> Tensor:
    return w @ H @ w / 2


def _correct(g: Tensor, H: Tensor, w: Tensor, gone: Tensor) -> Tensor:
    step = -w.double() * gone
    return g.double() @ step + step @ H.double() @ step / 2


def _mistake(compute: Any, message: str) -> Mistake:
    """`compute` gets g, H, and the weights: those that go with zeros elsewhere, all of them, those that stay."""
    return Mistake(lambda g, H, w, gone: compute(g, H, w * gone, w, w * ~gone), message)


MISTAKES = (
    _mistake(
        lambda g, H, d, w, s: g @ d + _second(H, d),
        "The gradient counts the wrong way: where the loss rises with a weight, taking a positive one away lowers it.",
    ),
    _mistake(
        lambda g, H, d, w, s: _second(H, d),
        "This takes the gradient for zero: the extremal approximation, which the task does not make.",
    ),
    _mistake(
        lambda g, H, d, w, s: -g @ d + (H.diag() * d.square()).sum() / 2,
        "Only the diagonal of H counts here. What of two weights that both go?",
    ),
    _mistake(
        lambda g, H, d, w, s: (H.diag() * d.square()).sum() / 2,
        "This is the sum of the saliencies: two approximations too many.",
    ),
    _mistake(
        lambda g, H, d, w, s: -g @ d + 2 * _second(H, d),
        "The second-order term is twice as large as it should be: where is the half?",
    ),
    _mistake(
        lambda g, H, d, w, s: -g @ d + 2 * _second(H, d) - (H.diag() * d.square()).sum() / 2,
        "The products of different weights count twice: each pair stands in H two times already, and has the half too.",
    ),
    _mistake(
        lambda g, H, d, w, s: -g @ d,
        "This is the first order only. Where is the curvature?",
    ),
    _mistake(
        lambda g, H, d, w, s: -g @ w + _second(H, w),
        "Here all weights go. Those with `gone` = False stay where they are.",
    ),
    _mistake(
        lambda g, H, d, w, s: -g @ s + _second(H, s),
        "The mask is the wrong way round: True means that a weight is deleted.",
    ),
    _mistake(
        lambda g, H, d, w, s: -g @ d + d @ H @ w / 2,
        "One side of H gets the step and the other all the weights. What stays does not move.",
    ),
    _mistake(
        lambda g, H, d, w, s: g @ d - _second(H, d),
        "This is what the loss falls by; the task asks for the increase.",
    ),
    _mistake(
        lambda g, H, d, w, s: (g * d).abs().sum() + _second(H, d),
        "The first-order terms have lost their signs. Each may lower the loss, when the network is not at a minimum.",
    ),
    _mistake(
        lambda g, H, d, w, s: -(g * (d != 0)).sum() + (H * (d != 0) * (d != 0)[:, None]).sum() / 2,
        "The weights are missing: this is a step of one for each that goes, whatever its size.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="expected_increase")


def _judge(found: Any, g: Tensor, H: Tensor, w: Tensor, gone: Tensor) -> None:
    if isinstance(found, bool) or not isinstance(found, numbers.Real | Tensor):
        raise Wrong(f"The function returns {describe(found)}; it should return one number.")
    found = found if isinstance(found, Tensor) else torch.tensor(float(found), dtype=w.dtype, device=w.device)
    if found.dim():
        raise Wrong(f"The result has the shape {tuple(found.shape)}; all that goes together costs one number.")
    expected = _correct(g, H, w, gone)
    given = {"g": g.double(), "H": H.double(), "w": w.double(), "gone": gone}
    name_mistake(found, expected, MISTAKES, **given)
    if not same(found, expected):
        if not torch.isfinite(found):
            raise Wrong("The result is NaN or infinite. Does it divide by something that is zero here?")
        raise Wrong("This is not the second-order change of the loss.")


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(0)

    def case(size: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # Small multiples of 1/8: everything is exact, in any order.
        g, w = torch.randint(-16, 17, (2, size), generator=draw) / 8
        half = torch.randint(-16, 17, (size, size), generator=draw) / 8
        gone = torch.rand(size, generator=draw) < 0.5
        return g.to(dtype), (half + half.T).to(dtype), w.to(dtype), gone

    g, H, w, _ = case(6)
    some = torch.tensor([True, False, True, True, False, False])
    tries = {
        "six weights, of which three go": (g, H, w, some),
        "one weight goes": (g, H, w, torch.arange(6) == 2),
        "at a minimum: the gradient is zero": (torch.zeros_like(g), H, w, some),
        "a Hessian with nothing off its diagonal": (g, H.diag().diag(), w, some),
        "a loss without curvature": (g, torch.zeros_like(H), w, some),
        "everything goes": (g, H, w, torch.ones(6, dtype=torch.bool)),
        "nothing goes": (g, H, w, torch.zeros(6, dtype=torch.bool)),
        "twenty weights in double precision": case(20, torch.float64),
    }
    if torch.cuda.is_available():
        tries["tensors on the GPU"] = (g.cuda(), H.cuda(), w.cuda(), some.cuda())
    return [Case(about, dict(zip(("g", "H", "w", "gone"), given, strict=True))) for about, given in tries.items()]


def _answer(result: str, before: str = "d = w * gone") -> str:
    return f"def expected_increase(g, H, w, gone):\n    {before}\n    return {result}"


WRONG = (
    (_answer("g @ d + d @ H @ d / 2"), "counts the wrong way"),
    (_answer("d @ H @ d / 2"), "takes the gradient for zero"),
    (_answer("-g @ d + (H.diag() * d**2).sum() / 2"), "Only the diagonal of H"),
    (_answer("(H.diag() * d**2).sum() / 2"), "This is the sum of the saliencies"),
    (_answer("-g @ d + d @ H @ d"), "where is the half"),
    (_answer("-g @ d + d @ H @ d - (H.diag() * d**2).sum() / 2"), "two times already"),
    (_answer("-g @ d"), "first order only"),
    (_answer("-g @ d + d @ H @ d / 2", "d = w"), "Here all weights go"),
    (_answer("-g @ d + d @ H @ d / 2", "d = w * ~gone"), "the wrong way round"),
    (_answer("-g @ d + d @ H @ w / 2"), "What stays does not move"),
    (_answer("g @ d - d @ H @ d / 2"), "what the loss falls by"),
    (_answer("(g * d).abs().sum() + d @ H @ d / 2"), "have lost their signs"),
    (_answer("-g @ d + d @ H @ d / 2", "d = gone.to(w)"), "The weights are missing"),
    (_answer("-g * d + (H @ d) * d / 2"), r"shape \(6,\); all that goes"),
    (_answer("[float(-g @ d + d @ H @ d / 2)]"), "returns the list .*one number"),
    (_answer("(-g @ d + d @ H @ d / 2) / d.norm() * d.norm()"), "NaN or infinite"),
    (_answer("-g @ d + d @ H @ d / 3"), "not the second-order change"),
    (_answer("g @ w + w @ H @ w / 2", "w *= gone"), "modified its input `w` in place"),
    (_answer("-g[gone] @ w + 0"), "raised RuntimeError"),
    (_answer("-g.dot_product(d)"), "raised AttributeError"),
    ("def expected_increase(g, H, w, gone):\n    g @ w", "Is a `return` missing"),
    ("def expected_increase(g, H, w):\n    return g @ w", r"yours takes `\(g, H, w\)`"),
    ("expected_increase = 3", "needs the function itself"),
)

QUESTION = Question(
    name="q3",
    kind="code",
    title="No term dropped but the cubic",
    task=TASK,
    answer="expected_increase",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
