"""q4, investigate: which parameters of a network does this optimizer not train?"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
A network was made smaller, training went on, no error was raised, and the loss does not fall. You suspect the
optimizer. Predict first: of the parameters of `small.model`, how many does the optimizer of the original train, before
`small.carry(optimizer)` and after it?

Then write `untrained(model, optimizer)`: the names of the model's parameters that no step of this optimizer can change
although they ask for a gradient, as a list in the order of `model.named_parameters()`. Take every group of the
optimizer to have a learning rate that is not zero.
"""

STARTER = '''\
def untrained(model, optimizer):
    """Names of the parameters that the optimizer does not know."""
    ...'''

SOLUTION = '''\
def untrained(model, optimizer):
    """Names of the parameters that the optimizer does not know."""
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in known]'''

HINTS = (
    "An optimizer knows no names and no model. It holds a list of parameter objects, in `optimizer.param_groups`, and "
    "changes just those objects.",
    "So the question is one of identity: is this very object in one of the groups? Equal numbers or equal shapes are "
    "no answer, and `p in params` compares numbers.",
    "Collect `id(p)` over all groups into a set, and go through the model's named parameters. Those that ask for no "
    "gradient are frozen on purpose.",
)

TAKEAWAY = (
    "Surgery makes new parameters, and the optimizer holds the old ones: before `carry` it trains none of the small "
    "network, after it all. Nothing fails when that is forgotten. Two lines that ask for it cost less than a lost run."
)

Names = list[str]


def _held(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _untrained(model: nn.Module, known: Iterable[Any], key: Callable[[Tensor], Any], frozen: bool = False) -> Names:
    there = {key(parameter) for parameter in known}
    asked = [(name, p) for name, p in model.named_parameters() if p.requires_grad or frozen]
    return [name for name, parameter in asked if key(parameter) not in there]


def _names(model: nn.Module, optimizer: torch.optim.Optimizer) -> Names:
    return _untrained(model, _held(optimizer), id)


def _trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> Names:
    missing = _names(model, optimizer)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad and name not in missing]


def _values(parameter: Tensor) -> tuple[Any, ...]:
    return tuple(parameter.shape), tuple(parameter.detach().flatten().tolist())


def _without_gradient(model: nn.Module, optimizer: torch.optim.Optimizer) -> Names:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]


def _without_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> Names:
    return _untrained(model, optimizer.state, id)


Misconception = tuple[Callable[[nn.Module, torch.optim.Optimizer], Names], str]
MISTAKES: tuple[Misconception, ...] = (
    (
        lambda model, optimizer: _untrained(model, optimizer.param_groups[0]["params"], id),
        "Only the first group of the optimizer was looked at.",
    ),
    (
        lambda model, optimizer: _untrained(model, _held(optimizer), id, frozen=True),
        "A parameter that asks for no gradient is frozen on purpose; it is not a mistake of the optimizer.",
    ),
    (
        lambda model, optimizer: _untrained(model, _held(optimizer), _values),
        "You compare numbers. A copy has the same numbers, and training one leaves the other where it is.",
    ),
    (
        lambda model, optimizer: _untrained(model, _held(optimizer), lambda p: tuple(p.shape)),
        "You compare shapes. The optimizer may well hold another parameter of the same shape.",
    ),
    (_without_state, "You look for the optimizer's state. It has none before its first step, and then trains all."),
    (_without_gradient, "You look for gradients, but whether a backward pass has run says nothing of the optimizer."),
    (_trained, "These are the ones that it does train."),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="untrained")


def _judge(found: Any, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    expected = _names(model, optimizer)
    if not isinstance(found, list | tuple):
        raise Wrong(f"`untrained` returns {describe(found)}; it should return a list of names.")
    names = [name for name, _ in model.named_parameters()]
    if strange := [name for name in found if not isinstance(name, str) or name not in names]:
        raise Wrong(f"The result contains {describe(strange[0])}, which is no name of `model.named_parameters()`.")
    found = list(found)
    if found == expected:
        return
    if sorted(found) == sorted(expected):
        raise Wrong("These are the right names in another order.")
    for answer, message in MISTAKES:
        if found == answer(model, optimizer):
            raise Wrong(message)
    extra, missing = [n for n in found if n not in expected], [n for n in expected if n not in found]
    if extra:
        raise Wrong(f"`{extra[0]}` is on the list, but the optimizer trains it, or it is frozen.")
    if missing:
        raise Wrong(f"`{missing[0]}` is not on the list, and no step of this optimizer changes it.")
    raise Wrong("A name is on the list more than once.")


class _SGD(torch.optim.SGD):
    """Momentum, comparable: a check looks whether the learner's function has changed its arguments."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _SGD) or len(self.param_groups) != len(other.param_groups):
            return False
        ours, theirs = _held(self), _held(other)
        return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))

    __hash__ = torch.optim.SGD.__hash__


def _network(*widths: int) -> nn.Sequential:
    """Linear layers whose weights are 1, 2, 3, ...: nothing is drawn, and no two of them are equal."""
    layers = [nn.utils.skip_init(nn.Linear, a, b) for a, b in itertools.pairwise(widths)]
    first = 1.0
    for parameter in (parameter for layer in layers for parameter in layer.parameters()):
        values = torch.arange(first, first + parameter.numel())
        parameter.data = values.reshape(parameter.shape)
        first += parameter.numel()
    return nn.Sequential(*layers)


def _stepped(optimizer: _SGD) -> _SGD:
    """With the state that one step with zero gradients leaves behind."""
    for parameter in _held(optimizer):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def _sgd(parameters: Any) -> _SGD:
    return _SGD(parameters, lr=0.1, momentum=0.9)


def _cases() -> list[Case]:
    large, small = _network(4, 6, 6, 2), _network(4, 3, 3, 2)
    own, twin = copy.deepcopy(small), copy.deepcopy(small)
    swapped = copy.deepcopy(small)
    half = _stepped(_sgd(swapped.parameters()))
    swapped[1] = copy.deepcopy(swapped[1])  # surgery on one layer
    grouped = _network(4, 3, 3, 2)
    two = _sgd([{"params": grouped[0].parameters()}, {"params": grouped[1].parameters()}])
    frozen = _network(4, 3, 2)
    frozen[0].requires_grad_(False)
    square = _network(3, 3, 3)
    tries = {
        "the optimizer of the large network, and the small one": (small, _stepped(_sgd(large.parameters()))),
        "the network's own optimizer, in the middle of a training": (own, _stepped(_sgd(own.parameters()))),
        "an optimizer that has just been made for it": (twin, _sgd(twin.parameters())),
        "the optimizer of an exact copy": (small, _stepped(_sgd(twin.parameters()))),
        "one layer was replaced": (swapped, half),
        "an optimizer with two groups, and a third layer in neither": (grouped, _stepped(two)),
        "a frozen layer that the optimizer does not hold": (frozen, _stepped(_sgd(frozen[1].parameters()))),
        "two layers of one shape, one of them in the optimizer": (square, _stepped(_sgd(square[1].parameters()))),
    }
    return [Case(about, {"model": one, "optimizer": other}) for about, (one, other) in tries.items()]


_NAMED = "model.named_parameters()"


def _answer(known: str, keep: str) -> str:
    return (
        f"def untrained(model, optimizer):\n    held = [p for g in optimizer.param_groups for p in g['params']]\n"
        f"    known = {known}\n    return [n for n, p in {_NAMED} if {keep}]"
    )


_IDS = "{id(p) for p in held}"
_KEEP = "p.requires_grad and id(p) not in known"

WRONG = (
    (_answer(_IDS, "p.requires_grad and id(p) in known"), "does train"),
    (_answer("{id(p) for p in optimizer.param_groups[0]['params']}", _KEEP), "Only the first group"),
    (_answer(_IDS, "id(p) not in known"), "frozen on purpose"),
    (_answer("{p.shape for p in held}", "p.requires_grad and p.shape not in known"), "You compare shapes"),
    (
        _answer("held", "p.requires_grad and not any(p.shape == q.shape and bool((p == q).all()) for q in known)"),
        "You compare numbers",
    ),
    (_answer("{id(p) for p in optimizer.state}", _KEEP), "optimizer's state"),
    (_answer("0", "p.requires_grad and p.grad is None"), "You look for gradients"),
    (_answer(_IDS, _KEEP) + "[::-1]", "in another order"),
    (_answer(_IDS, _KEEP) + " * 2", "more than once"),
    (_answer(_IDS, f"{_KEEP} or n == '0.bias'"), "`0.bias` is on the list, but"),
    (_answer(_IDS, f"{_KEEP} and n != '0.bias'"), "`0.bias` is not on the list"),
    (_answer(_IDS, _KEEP).replace("return [n for", "return [p for"), "which is no name"),
    (_answer(_IDS, _KEEP).replace("return [n", "return len([n").replace("in known]", "in known])"), "returns the int"),
    (_answer("held", "p.requires_grad and p not in known"), "raised RuntimeError"),
    (_answer(_IDS, _KEEP).replace("optimizer.param_groups", "optimizer.parameters()"), "raised AttributeError"),
    (
        _answer(_IDS, _KEEP).replace("held = [", "optimizer.param_groups.clear(); held = ["),
        "modified its input `optimizer`",
    ),
    (_answer(_IDS, _KEEP).replace("return [", "["), "Is a `return` missing"),
    ("def untrained(model):\n    return []", r"yours takes `\(model\)`"),
    ("untrained = ['0.weight']", "needs the function itself"),
)

QUESTION = Question(
    name="q4",
    kind="investigate",
    title="The optimizer that trains nothing",
    task=TASK,
    answer="untrained",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
