"""q3, code: the best values for the weights that a mask has left."""

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
A layer computes `inputs @ weight.T`. A mask has been chosen, and it stays. Write `refit(weight, inputs, mask)`: the
weights that make the layer's outputs on these inputs as close to the old ones as they can be (least squares), a tensor
like `weight` that is 0 wherever the mask is False. `weight` and the bool `mask` are (O, I), `inputs` is (samples, I),
with more samples than inputs, and no input is a combination of others. Rows may keep different numbers of weights, or
none. Change none of the arguments.
"""

STARTER = '''\
def refit(weight, inputs, mask):
    """The weights on this mask whose outputs are closest to the old ones."""
    ...'''

SOLUTION = '''\
def refit(weight, inputs, mask):
    """The weights on this mask whose outputs are closest to the old ones."""
    found = torch.zeros_like(weight)
    for row, kept in enumerate(mask):
        if kept.any():
            wanted = inputs @ weight[row]  # what this output was, (samples,)
            found[row, kept] = torch.linalg.lstsq(inputs[:, kept], wanted[:, None]).solution[:, 0]
    return found'''

HINTS = (
    "Each row of the weight makes one output, and its mask is its own: solve one row after the other.",
    "For one row: which columns of the inputs does it still read, and what did it put out before? These are the matrix "
    "and the right-hand side of a least-squares problem.",
    "`torch.linalg.lstsq(a, b).solution` solves for a matrix b: give the old output one column, and write the solution "
    "to the places that are kept. A row that keeps nothing has nothing to solve.",
)

TAKEAWAY = (
    "For a fixed mask this is the best that can be done for one layer. SparseGPT comes near it in one pass over the "
    "columns, without a system of equations for every row."
)


def _refitted(weight: Tensor, inputs: Tensor, mask: Tensor, wanted: Tensor | None = None) -> Tensor:
    """By the normal equations, in double precision: of H v = H w only the rows and columns of the mask."""
    x, w = inputs.double(), weight.double()
    outputs = x @ w.T if wanted is None else wanted
    found = torch.zeros_like(w)
    for row, kept in enumerate(mask):
        part = x[:, kept]
        found[row, kept] = torch.linalg.solve(part.T @ part, part.T @ outputs[:, row])
    return found


def _ridge(weight: Tensor, inputs: Tensor, mask: Tensor) -> Tensor:
    """With a hundredth of the mean of the diagonal added."""
    x, w = inputs.double(), weight.double()
    hessian = x.T @ x
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=x.dtype, device=x.device)
    found = torch.zeros_like(w)
    for row, kept in enumerate(mask):
        found[row, kept] = torch.linalg.solve(damped[kept][:, kept], (hessian @ w[row])[kept])
    return found


def _shared(weight: Tensor, inputs: Tensor, mask: Tensor) -> Tensor:
    """Everybody fits on the first row's mask."""
    return _refitted(weight, inputs, mask[:1].expand(mask.shape))


def _mistake(answer: Callable[[Tensor, Tensor, Tensor], Tensor], message: str) -> Mistake:
    return Mistake(lambda weight, inputs, mask: answer(weight.double(), inputs.double(), mask), message)


MISTAKES = (
    _mistake(
        lambda w, x, m: w * m,
        "The weights that stay have not moved. Was nothing fitted, or fitted to what the *masked* layer puts out?",
    ),
    _mistake(lambda w, x, m: w.clone(), "Nothing has been removed: this is the old weight."),
    _mistake(lambda w, x, m: _refitted(w, x, ~m), "It is fitted on what the mask removes: True is kept."),
    _mistake(
        lambda w, x, m: _refitted(w, x, m, x @ (w * ~m).T),
        "This is only what has to be added to the weights that stay.",
    ),
    _mistake(
        lambda w, x, m: w * m - _refitted(w, x, m, x @ (w * ~m).T),
        "What the weights that stay have to take over is subtracted; it should be added.",
    ),
    _mistake(_shared, "All rows are fitted on one row's mask; each has its own."),
    _mistake(lambda w, x, m: _shared(w, x, m) * m, "All rows are fitted with one row's inputs, and masked afterwards."),
    _mistake(
        lambda w, x, m: _refitted(w, x - x.mean(0), m),
        "The inputs' mean is taken off, but there is no bias to make up for it.",
    ),
    _mistake(_ridge, "Something was added to the diagonal. These inputs need no damping, and it moves the solution."),
    _mistake(
        lambda w, x, m: w * m * ((x @ w.T).norm(dim=0) / (x @ (w * m).T).norm(dim=0).clamp(min=1e-30))[:, None],
        "Each row is only scaled. Its weights may change one by one.",
    ),
    _mistake(
        lambda w, x, m: w * m * (w.abs().sum(1) / (w * m).abs().sum(1).clamp(min=1e-30))[:, None],
        "The size of the weights is restored, but the task asks for the outputs.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="refit")


def _judge(found: Any, weight: Tensor, inputs: Tensor, mask: Tensor) -> None:
    expected = _refitted(weight, inputs, mask)
    require_form(found, like=weight, per="weight")
    if not bool(found.isfinite().all()):
        raise Wrong("The result contains NaN or infinite values.")
    scale = float(weight.abs().max())
    tolerance = 1e-9 if weight.dtype == torch.float64 else 2e-3

    def close(one: Tensor, other: Tensor) -> bool:
        return bool((one.double() - other.double()).abs().max() <= tolerance * scale)

    if close(found, expected) and not bool(found[~mask].any()):
        return
    name_mistake(*_rounded(found, expected, MISTAKES, close, weight, inputs, mask))
    if bool(found[~mask].any()):
        raise Wrong("A weight that the mask removes is not 0.")
    raise Wrong("The mask is right, but other weights on it come closer to the old outputs.")


def _rounded(
    found: Tensor,
    expected: Tensor,
    mistakes: tuple[Mistake, ...],
    close: Callable[[Tensor, Tensor], bool],
    *arguments: Tensor,
) -> tuple[Tensor, Tensor, list[Mistake]]:
    """The misconceptions that lead to the answer within the tolerance of a least-squares solution, as exact ones."""
    weight, inputs, mask = arguments
    fitting = [
        Mistake(lambda: found, mistake.message)
        for mistake in mistakes
        if close(found, answer := mistake.answer(weight, inputs, mask)) and not close(answer, expected)
    ]
    return found, expected, fitting


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(0)

    def case(about: str, rows: int, columns: int, samples: int, keep: float, **others: Any) -> Case:
        dtype = others.pop("dtype", torch.float32)
        weight = torch.randn(rows, columns, generator=draw)
        mixing = torch.randn(columns, columns, generator=draw) * 0.4 + torch.eye(columns)
        inputs = torch.randn(samples, columns, generator=draw) @ mixing + 0.5
        mask = torch.rand(rows, columns, generator=draw) < keep
        values = {"weight": weight.to(dtype), "inputs": inputs.to(dtype), "mask": mask}
        return Case(about, values | others)

    none = torch.tensor([[True, False, True, False], [False] * 4, [False, True, True, True]])
    return [
        case("6 × 8 weights, half of them kept", 6, 8, 40, 0.5),
        case("1:2 in a single row", 1, 6, 30, 0.5, mask=torch.tensor([[True, False] * 3])),
        case("a row that keeps nothing", 3, 4, 25, 0.5, mask=none),
        case("all weights kept", 3, 5, 30, 1.1),
        case("no weight kept", 2, 5, 20, 0.0),
        case("double precision", 5, 10, 60, 0.6, dtype=torch.float64),
    ]


def _changed(change: str, by: str) -> str:
    """The solution with a piece changed: a wrong answer for the tests."""
    if change not in SOLUTION:
        raise ValueError(f"the solution has no {change!r}")
    return SOLUTION.replace(change, by)


def _answer(result: str) -> str:
    return f"def refit(weight, inputs, mask):\n    return {result}"


_WANTED = "inputs @ weight[row]"

WRONG = (
    (_answer("weight * mask"), "have not moved"),
    (_answer("weight.clone()"), "this is the old weight"),
    (_changed("enumerate(mask)", "enumerate(~mask)"), "on what the mask removes"),
    (_changed(_WANTED, "inputs @ (weight[row] * ~kept)"), "what has to be added"),
    (
        _changed(_WANTED, "inputs @ (weight[row] * ~kept)").replace("return found", "return weight * mask - found"),
        "it should be added",
    ),
    (_changed("in enumerate(mask):", "in enumerate(mask[:1].expand_as(mask)):"), "fitted on one row's mask"),
    (
        _changed("in enumerate(mask):", "in enumerate(mask[:1].expand_as(mask)):").replace(
            "return found", "return found * mask"
        ),
        "masked afterwards",
    ),
    (
        _changed("    found = torch", "    inputs = inputs - inputs.mean(0)\n    found = torch"),
        "inputs' mean is taken off",
    ),
    (
        "def refit(weight, inputs, mask):\n    h = inputs.T @ inputs\n"
        "    d = h + 0.01 * h.diagonal().mean() * torch.eye(len(h), dtype=h.dtype)\n"
        "    found = torch.zeros_like(weight)\n    for r, k in enumerate(mask):\n"
        "        found[r, k] = torch.linalg.solve(d[k][:, k], (h @ weight[r])[k])\n    return found",
        "added to the diagonal",
    ),
    (
        _answer(
            "weight * mask * ((inputs @ weight.T).norm(dim=0) / "
            "(inputs @ (weight * mask).T).norm(dim=0).clamp(min=1e-30))[:, None]"
        ),
        "only scaled",
    ),
    (
        _answer("weight * mask * (weight.abs().sum(1) / (weight * mask).abs().sum(1).clamp(min=1e-30))[:, None]"),
        "size of the weights is restored",
    ),
    (_changed("return found", "return found + 0.01 * ~mask"), "that the mask removes is not 0"),
    (_changed("return found", "return found * 1.1"), "come closer to the old outputs"),
    (_changed("return found", "return found / mask"), "NaN"),
    (_changed("return found", "return found.T"), r"the shape \(8, 6\)"),
    (_changed("return found", "return found.double()"), "float64; it should be float32"),
    (_changed("return found", "return found.tolist()"), "it should return a tensor"),
    (_changed("found = torch.zeros_like(weight)", "found = weight.mul_(mask)"), "modified its input `weight`"),
    (_changed("wanted[:, None]", "wanted"), "raised IndexError"),
    (_changed("    return found", "    found"), "Is a `return` missing"),
    ("def refit(weight, mask):\n    return weight * mask", r"yours takes `\(weight, mask\)`"),
    ("refit = torch.zeros(2, 2)", "needs the function itself"),
)

QUESTION = Question(
    name="q3",
    kind="code",
    title="Refit what is left",
    task=TASK,
    answer="refit",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
