"""q3, code: train with momentum, and keep what was removed at zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake, require_form, same
from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong
from prunelab.masks import Masks

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
A vector of weights has just been pruned, in the middle of its training with momentum. Write
`train_held(weight, buffer, mask, A, b, steps)`: the weight after so many more steps, with what the mask removes
(False) at exactly zero from now on, before the first step and after every one.

The gradient at a weight w is `A @ w - b`. A step of gradient descent with momentum 0.9 and learning rate 0.1 is: the
buffer becomes 0.9 times itself plus the gradient; the weight moves by minus 0.1 times the buffer. `buffer` holds the
momentum of the training so far, of the removed weights too. Change none of the arguments.
"""

STARTER = '''\
def train_held(weight, buffer, mask, A, b, steps):
    """The weight (N,) after `steps` steps with momentum, held at zero."""
    ...'''

SOLUTION = '''\
def train_held(weight, buffer, mask, A, b, steps):
    """The weight (N,) after `steps` steps with momentum, held at zero."""
    weight = weight * mask
    for _ in range(steps):
        gradient = A @ weight - b
        buffer = 0.9 * buffer + gradient
        weight = (weight - 0.1 * buffer) * mask  # whatever moved it: gradient, momentum, decay
    return weight'''

HINTS = (
    "Write the training without pruning first: gradient, buffer, weight, in this order, `steps` times. Then ask where "
    "a removed weight can come back to life.",
    "A gradient of zero does not stop a weight from moving: its buffer still pushes. So masking gradients is not "
    "enough.",
    "Multiply the weight by the mask once before the first step and again at the end of every step. The gradient of "
    "the next step is then that of the pruned network.",
)

TAKEAWAY = (
    "Whatever moves a weight (gradient, momentum, weight decay), setting it back to zero after the step holds it, and "
    "the other weights train as in a network that never had it. That is all that `Masks.hold` does."
)

Held = Callable[..., Tensor]


def _train(
    *, before: bool = True, each: bool = True, after: bool = True, gradients: bool = False, fresh: bool = False
) -> Held:
    """What someone gets who masks the weight `before` the first step, at the end of `each`, `after` the last; who masks
    the `gradients`, or begins with a `fresh` buffer."""

    def answer(weight: Tensor, buffer: Tensor, mask: Tensor, A: Tensor, b: Tensor, steps: int) -> Tensor:
        weight = weight * mask if before else weight
        buffer = torch.zeros_like(buffer) if fresh else buffer
        for _ in range(steps):
            gradient = A @ weight - b
            buffer = 0.9 * buffer + (gradient * mask if gradients else gradient)
            weight = weight - 0.1 * buffer
            weight = weight * mask if each else weight
        return weight * mask if after else weight

    return answer


def _stepping(move: Callable[..., tuple[Tensor, Tensor]]) -> Held:
    """What someone gets whose step is another: move(weight, buffer, gradient) → weight and buffer."""

    def answer(weight: Tensor, buffer: Tensor, mask: Tensor, A: Tensor, b: Tensor, steps: int) -> Tensor:
        weight = weight * mask
        for _ in range(steps):
            weight, buffer = move(weight, buffer, A @ weight - b)
            weight = weight * mask
        return weight

    return answer


def _upside_down(mask: Tensor, **arguments: Any) -> Tensor:
    return _train()(mask=~mask, **arguments)


def _nesterov(weight: Tensor, buffer: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    buffer = 0.9 * buffer + gradient
    return weight - 0.1 * (0.9 * buffer + gradient), buffer


def _reference(weight: Tensor, buffer: Tensor, mask: Tensor, A: Tensor, b: Tensor, steps: int) -> Tensor:
    """The library's own answer: torch's optimizer, held."""
    model = nn.Module()
    model.weight = nn.Parameter(weight.clone())
    optimizer = torch.optim.SGD([model.weight], lr=0.1, momentum=0.9)
    optimizer.state[model.weight]["momentum_buffer"] = buffer.clone()
    with Masks({"weight": mask}).hold(model, optimizer):
        for _ in range(steps):
            model.weight.grad = (A @ model.weight - b).detach()
            optimizer.step()
    return model.weight.detach()


# Where two mistakes give the same weights, the simpler explanation comes first.
MISTAKES = (
    Mistake(
        _train(before=False, each=False, after=False),
        "Nothing is pruned: the weights are those of a training without the mask.",
    ),
    Mistake(
        _train(before=False, each=False, after=False, gradients=True),
        "Only the gradients are masked: the removed weights keep their values, and their momentum moves them on.",
    ),
    Mistake(
        _train(each=False, after=False, gradients=True),
        "Removed weights come back although they have no gradient: what moves them is their momentum.",
    ),
    Mistake(
        _train(each=False, after=False),
        "Removed weights come back: they were set to zero before the first step and not held after it.",
    ),
    Mistake(
        _train(each=False),
        "The zeros are right, but the other weights trained beside removed ones that were alive in between: hold them "
        "after every step, not only at the end.",
    ),
    Mistake(
        _train(before=False, each=False),
        "The mask comes only at the very end: until then a network trained that was never pruned.",
    ),
    Mistake(
        _train(before=False),
        "The first step sees the removed weights: they go before it, so that its gradient is the pruned network's.",
    ),
    Mistake(
        _train(fresh=True), "The momentum starts anew. The weights that are kept go on with the buffer that they have."
    ),
    Mistake(_upside_down, "The mask is upside down: True means kept, and here those weights are gone."),
    Mistake(
        _stepping(lambda w, v, g: (w - 0.1 * v, 0.9 * v + g)),
        "The weight moves by the buffer of the step before: the gradient enters the buffer first.",
    ),
    Mistake(_stepping(lambda w, v, g: (w - 0.1 * g, v)), "This is gradient descent without momentum."),
    Mistake(
        _stepping(lambda w, v, g: (w + 0.1 * (0.9 * v + g), 0.9 * v + g)), "The weight moves uphill: check the sign."
    ),
    Mistake(
        _stepping(lambda w, v, g: (w - 0.1 * (0.9 * v + 0.1 * g), 0.9 * v + 0.1 * g)),
        "The gradient enters the buffer damped; in the task it enters whole.",
    ),
    Mistake(_stepping(_nesterov), "This is Nesterov's momentum; the task has the plain one."),
    Mistake(
        lambda steps, **arguments: _train()(steps=steps + 1, **arguments), "It takes one step more than it was asked."
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="train_held")


def _judge(found: Any, weight: Tensor, mask: Tensor, **others: Any) -> None:
    expected = _reference(weight=weight, mask=mask, **others)
    name_mistake(found, expected, MISTAKES, weight=weight, mask=mask, **others)
    require_form(found, like=expected, per="weight")
    if found.detach()[~mask].any():
        raise Wrong("Some removed weights are not exactly zero in the end.")
    if not same(found, expected):
        raise Wrong("The removed weights are zero, but the others are not where these steps lead.")


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(0)

    def case(about: str, size: int, kept: list[bool], steps: int, dtype: torch.dtype = torch.float32) -> Case:
        mix = torch.randn(size, size, generator=draw).to(dtype)
        vectors = [torch.randn(size, generator=draw).to(dtype) for _ in range(3)]
        arguments = {"weight": vectors[0], "buffer": vectors[1], "mask": torch.tensor(kept),
                     "A": mix @ mix.T / size, "b": vectors[2], "steps": steps}  # fmt: skip
        return Case(about, arguments)

    half = [True, False, True, True, False, False]
    return [
        case("six weights, half of them removed, five steps", 6, half, 5),
        case("one step", 6, half, 1),
        case("no step at all: the weights as they were pruned", 6, half, 0),
        case("nothing removed", 4, [True] * 4, 3),
        case("everything removed", 4, [False] * 4, 3),
        case("one weight", 1, [True], 4),
        case("double precision", 6, half[::-1], 10, torch.float64),
    ]


def _changed(change: str, by: str) -> str:
    """The solution with a piece changed: a wrong answer for the tests."""
    if change not in SOLUTION:
        raise ValueError(f"the solution has no {change!r}")
    return SOLUTION.replace(change, by)


_HELD = "(weight - 0.1 * buffer) * mask"
_BUFFER = "0.9 * buffer + gradient"

WRONG = (
    (_changed("weight = weight * mask\n", "mask = torch.ones_like(mask)\n"), "Nothing is pruned"),
    (
        _changed("    weight = weight * mask\n", "")
        .replace(_HELD, "weight - 0.1 * buffer")
        .replace(_BUFFER, "0.9 * buffer + gradient * mask"),
        "Only the gradients are masked",
    ),
    (
        _changed(_HELD, "weight - 0.1 * buffer").replace(_BUFFER, "0.9 * buffer + gradient * mask"),
        "although they have no gradient",
    ),
    (_changed(_HELD, "weight - 0.1 * buffer"), "were set to zero before the first step and not held"),
    (_changed(_HELD, "weight - 0.1 * buffer").replace("return weight", "return weight * mask"), "alive in between"),
    (
        _changed(_HELD, "weight - 0.1 * buffer")
        .replace("    weight = weight * mask\n", "")
        .replace("return weight", "return weight * mask"),
        "only at the very end",
    ),
    (_changed("    weight = weight * mask\n", ""), "The first step sees the removed weights"),
    (_changed("    for _", "    buffer = torch.zeros_like(buffer)\n    for _"), "starts anew"),
    (_changed("    weight = weight * mask\n", "    mask = ~mask\n    weight = weight * mask\n"), "upside down"),
    (
        _changed(f"buffer = {_BUFFER}", "old = buffer").replace(
            "  # whatever moved it: gradient, momentum, decay", f"; buffer = {_BUFFER}"
        ),
        "the buffer of the step before",
    ),
    (_changed(_BUFFER, "gradient"), "without momentum"),
    (_changed("weight - 0.1", "weight + 0.1"), "uphill"),
    (_changed(_BUFFER, "0.9 * buffer + 0.1 * gradient"), "enters the buffer damped"),
    (_changed("weight - 0.1 * buffer", "weight - 0.1 * (0.9 * buffer + gradient)"), "Nesterov"),
    (_changed("range(steps)", "range(steps + 1)"), "one step more"),
    (_changed(_HELD, "weight - 0.1 * buffer - (weight - 0.1 * buffer) * ~mask * 0.999"), "not exactly zero"),
    (_changed("0.1 * buffer", "0.2 * buffer"), "the others are not where"),
    (_changed("weight = weight * mask\n", "weight *= mask\n"), "modified its input `weight` in place"),
    (_changed("return weight", "return weight.tolist()"), "returns the list"),
    (_changed("return weight", "return weight[mask]"), "with one value for each weight"),
    (_changed("return weight", "return weight.double()"), "float64; it should be float32"),
    (_changed("A @ weight", "A @ weight[mask]"), "raised RuntimeError"),
    (_changed("return weight", ""), "Is a `return` missing"),
    ("def train_held(weight, mask):\n    return weight * mask", r"yours takes `\(weight, mask\)`"),
    ("train_held = torch.ones(6)", "needs the function itself"),
)

QUESTION = Question(
    name="q3",
    kind="code",
    title="Hold it",
    task=TASK,
    answer="train_held",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
