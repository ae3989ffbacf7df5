"""q2, code: the average gradient outer product from the Jacobians of the examples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake, require_form, same
from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `outer_product(jacobians)`: the average gradient outer product. Row k of `jacobians[i]` is the gradient of output
k at example i, so the tensor has the shape (n, k, d). The result has the shape (d, d), and the dtype and device of the
Jacobians.
"""

STARTER = '''\
def outer_product(jacobians):
    """The AGOP from the Jacobian of every example: (n, k, d) -> (d, d)."""
    ...'''

SOLUTION = '''\
def outer_product(jacobians):
    """The AGOP from the Jacobian of every example: (n, k, d) -> (d, d)."""
    rows = jacobians.flatten(0, 1)  # (n * k, d): one gradient a row
    return rows.T @ rows / len(jacobians)'''

HINTS = (
    "For one example and one output: which product of a gradient with itself has the shape (d, d)?",
    "Examples are averaged, outputs are added up. Both sums can be taken at once.",
    "Lay all gradients below each other, as the rows of one matrix. Its transpose times itself is a sum. Of what?",
)

TAKEAWAY = (
    "One product of matrices adds up all outer products. It never needs the (n, d, d) tensor; the other way round it "
    "would compare examples, not inputs."
)


def _total(jacobians: Tensor) -> Tensor:
    return torch.einsum("nki,nkj->ij", jacobians, jacobians)


def _of_rows(rows: Tensor) -> Tensor:
    return torch.einsum("ni,nj->ij", rows, rows) / max(1, len(rows))


MISTAKES = (
    Mistake(_total, "This grows with the number of examples: it is a sum, not a mean."),
    Mistake(
        lambda jacobians: _total(jacobians) / (jacobians.shape[0] * jacobians.shape[1]),
        "You divide by the number of outputs too. Examples are averaged; outputs are added up.",
    ),
    Mistake(
        lambda jacobians: jacobians.mean(0).T @ jacobians.mean(0),
        "The gradients are averaged before they are multiplied, so that those of opposite sign cancel.",
    ),
    Mistake(
        lambda jacobians: _of_rows(jacobians.sum(1)),
        "The gradients of the outputs are added up before they are multiplied: that is one of the summed output.",
    ),
    Mistake(
        lambda jacobians: _of_rows(jacobians[:, 0]),
        "Only the first output counts here.",
    ),
    Mistake(
        lambda jacobians: torch.diag(_total(jacobians).diagonal()) / len(jacobians),
        "The diagonal is right, but what inputs do together stands beside it.",
    ),
    Mistake(
        lambda jacobians: _total(jacobians).diagonal() / len(jacobians),
        "This is the diagonal alone; the whole matrix is asked for.",
    ),
    Mistake(
        lambda jacobians: torch.einsum("nki,nli->kl", jacobians, jacobians) / len(jacobians),
        "The sum runs over the inputs: this matrix has a row for each *output*.",
    ),
    Mistake(
        lambda jacobians: torch.einsum("nki,nkj->nij", jacobians, jacobians),
        "Each example still has its own matrix. Average them.",
    ),
    Mistake(
        lambda jacobians: _total(jacobians.abs()) / len(jacobians),
        "The gradients lost their signs before the product, and the entries off the diagonal need them.",
    ),
    Mistake(
        lambda jacobians: _total(jacobians - jacobians.mean(0)) / len(jacobians),
        "This is the covariance of the gradients: their mean was taken off, and a linear function would get zero.",
    ),
    Mistake(
        lambda jacobians: _total(nn.functional.normalize(jacobians, dim=2)) / len(jacobians),
        "Every gradient was scaled to length one, so that steep and flat places count alike.",
    ),
    Mistake(
        lambda jacobians: _total(jacobians) / max(1, len(jacobians) - 1),
        "You divide by one less than the number of examples, as for a variance; no mean was estimated here.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="outer_product")


def _judge(found: Any, jacobians: Tensor) -> None:
    expected = _total(jacobians) / len(jacobians)
    name_mistake(found, expected, MISTAKES, jacobians=jacobians)
    require_form(found, like=expected, per="pair of inputs")
    if not same(found, expected):
        if not torch.isfinite(found).all():
            raise Wrong("The result has NaN or infinite values. Does it divide by something that is zero here?")
        raise Wrong("This is not the mean of the outer products, added up over the outputs.")


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randint(-128, 129, shape, generator=draw) / 64

    some = drawn(6, 3, 4)
    tries = {
        "six examples, three outputs, four inputs": some,
        "the same examples in another order": some.flip(0),
        "as many outputs as inputs": drawn(5, 4, 4),
        "one output": drawn(7, 1, 3),
        "one example": drawn(1, 2, 5),
        "a function that ignores two of its inputs": some * torch.tensor([1.0, 0.0, 1.0, 0.0]),
        "a linear function: all Jacobians are equal": drawn(1, 2, 3).expand(4, 2, 3).clone(),
        "a constant function": torch.zeros(4, 2, 3),
        "double precision": drawn(4, 2, 3).double(),
    }
    if torch.cuda.is_available():
        tries["a tensor on the GPU"] = some.cuda()
    return [Case(about, {"jacobians": one}) for about, one in tries.items()]


def _answer(result: str) -> str:
    return f"def outer_product(jacobians):\n    J = jacobians\n    return {result}"


_ALL = "torch.einsum('nki,nkj->ij', J, J)"

WRONG = (
    (_answer(_ALL), "it is a sum, not a mean"),
    (_answer(f"{_ALL} / J.shape[0] / J.shape[1]"), "outputs are added up.$"),
    (_answer("J.mean(0).T @ J.mean(0)"), "those of opposite sign cancel"),
    (_answer("J.sum(1).T @ J.sum(1) / len(J)"), "one of the summed output"),
    (_answer("J[:, 0].T @ J[:, 0] / len(J)"), "Only the first output"),
    (_answer(f"torch.diag({_ALL}.diagonal()) / len(J)"), "stands beside it"),
    (_answer("J.square().sum((0, 1)) / len(J)"), "the diagonal alone"),
    (_answer("torch.einsum('nki,nli->kl', J, J) / len(J)"), "for each .output."),
    (_answer("J.transpose(1, 2) @ J"), "its own matrix"),
    (_answer("torch.einsum('nki,nkj->ij', J.abs(), J.abs()) / len(J)"), "lost their signs"),
    (_answer("torch.einsum('nki,nkj->ij', J - J.mean(0), J - J.mean(0)) / len(J)"), "the covariance of the gradients"),
    (
        _answer("(lambda U: torch.einsum('nki,nkj->ij', U, U) / len(U))(torch.nn.functional.normalize(J, dim=2))"),
        "scaled to length one",
    ),
    (_answer(f"{_ALL} / (len(J) - 1)"), "as for a variance"),
    (_answer(f"{_ALL}.sqrt() / len(J)"), "NaN or infinite"),
    (_answer(f"{_ALL} / len(J) + torch.eye(J.shape[2])"), "not the mean of the outer products"),
    (_answer(f"({_ALL} / len(J)).double()"), "float64; it should be float32"),
    (_answer(f"({_ALL} / len(J)).tolist()"), "it should return a tensor"),
    (_answer(f"({_ALL} / len(J))[None]"), "with one value for each pair of inputs"),
    (_answer("J.T @ J / len(J)"), "raised RuntimeError"),
    (_answer("J.grad.T @ J.grad"), "raised AttributeError"),
    ("def outer_product(jacobians):\n    jacobians.T", "Is a `return` missing"),
    ("def outer_product(model, inputs):\n    return inputs", r"yours takes `\(model, inputs\)`"),
    ("outer_product = torch.eye(3)", "needs the function itself"),
)

QUESTION = Question(
    name="q2",
    kind="code",
    title="The average gradient outer product",
    task=TASK,
    answer="outer_product",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
