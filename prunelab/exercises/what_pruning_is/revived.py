"""q5, investigate: which pruned weights have come back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.number import read_number
from prunelab.exercises.outcome import Wrong
from prunelab.masks import Masks
from prunelab.pruner import prune

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Somebody hands you a network and the masks it was pruned with, and has trained it further in a way you do not know.
Predict first, and note it down, for three cases that the chapter's table does not show. Do pruned weights come back ...

(a) with momentum, their gradients set to zero, if the optimizer is made anew right after pruning?

(b) with plain SGD and the masks held, if they are let go before the last step?

(c) with plain SGD and nothing else, if they read an input that is always zero?

Then find out. Write `revived(masks, model)`: a dictionary that gives, for the name of each mask, how many of the
entries that the mask removed are not zero any more. The check calls it on networks that were really trained in these
ways.
"""

STARTER = '''\
def revived(masks, model):
    """How many removed entries of each parameter are not zero: {name: int}.

    masks: name -> bool tensor, True = kept; model: a torch.nn.Module.
    """
    ...'''

SOLUTION = '''\
def revived(masks, model):
    """How many removed entries of each parameter are not zero: {name: int}.

    masks: name -> bool tensor, True = kept; model: a torch.nn.Module.
    """
    parameters = dict(model.named_parameters())
    return {name: int((parameters[name][~mask] != 0).sum()) for name, mask in masks.items()}'''

HINTS = (
    "Two things must be true of an entry that has come back: the mask removed it, and it is not zero now. Each is a "
    "bool tensor of the parameter's shape.",
    "`model.named_parameters()` gives the parameters by the names that the masks use. `~mask` is True where something "
    "was removed; used as an index it picks just those entries.",
    "`(parameter[~mask] != 0).sum()` counts them for one parameter. Put the count, as an int, into a dictionary under "
    "the name, for each name that the masks have.",
)

TAKEAWAY = (
    "Compare with your prediction. (a) No: zeroed gradients fail against momentum from *before* pruning alone, and a "
    "new optimizer remembers nothing. (b) Yes: masks that are let go hold nothing, and one step is enough. (c) No: "
    "plain SGD revives a weight only where its gradient is not zero, and here it is. A mask is a decision, not a "
    "promise: whoever reports a sparsity should count it."
)

Count = Callable[[Tensor, Tensor], Any]


def _counts(masks: Masks, model: nn.Module, count: Count) -> dict[str, float]:
    """What `count(values, mask)` says of each parameter with a mask."""
    return {name: float(count(model.get_parameter(name).detach(), mask)) for name, mask in masks.items()}


def _right(values: Tensor, mask: Tensor) -> Tensor:
    return (values[~mask] != 0).sum()


MISTAKES: tuple[tuple[Count, str], ...] = (
    (
        lambda values, mask: (values[mask] == 0).sum(),
        "These are the entries that the mask *keeps* and that happen to be zero. Look at those that it removed.",
    ),
    (
        lambda values, mask: (values[mask] != 0).sum(),
        "These are the entries that the mask keeps. True means kept: what it removed is where it is False.",
    ),
    (lambda values, _mask: (values != 0).sum(), "These are all entries that are not zero, also those that were kept."),
    (
        lambda values, mask: (values[~mask] == 0).sum(),
        "These are the removed entries that are *still* zero. The others are those that have come back.",
    ),
    (lambda _values, mask: (~mask).sum(), "This is how many the mask removed. How many of them are not zero now?"),
    (
        lambda values, mask: (values[~mask] > 0).sum(),
        "Weights that came back with a negative sign are missing: they are not zero either.",
    ),
    (
        lambda values, mask: (values[~mask].abs() > 1e-3).sum(),
        "Weights that came back small are missing. A pruned weight is *exactly* zero, so no tolerance is needed.",
    ),
    (
        lambda values, mask: values[~mask].abs().sum(),
        "This is how *much* has come back, a sum of magnitudes. The task asks how many.",
    ),
    (
        lambda values, mask: (values[~mask] != 0).float().mean() if (~mask).any() else 0.0,
        "This is a fraction of the removed entries. The task asks how many.",
    ),
    (
        lambda values, mask: bool((values[~mask] != 0).any()),
        "This says whether any has come back. The task asks how many.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="revived")


def _judge(found: Any, masks: Masks, model: nn.Module) -> None:
    counts, right = _read(found, masks), _counts(masks, model, _right)
    if counts == right:
        return
    for count, message in MISTAKES:
        mistaken = _counts(masks, model, count)
        if mistaken != right and all(abs(counts[name] - mistaken[name]) <= 1e-5 * mistaken[name] for name in counts):
            raise Wrong(message)
    name = next(name for name in counts if counts[name] != right[name])
    much = "large" if counts[name] > right[name] else "small"
    raise Wrong(f"The count for {name!r} is too {much}. How many entries did its mask remove, and what are they now?")


def _read(found: Any, masks: Masks) -> dict[str, float]:
    """The learner's dictionary as numbers, with just the names of the masks."""
    if not isinstance(found, Mapping):
        raise Wrong(f"`revived` returns {describe(found)}; it should return a dictionary, name -> count.")
    missing = [name for name in masks if name not in found]
    if missing:
        raise Wrong(f"The dictionary lacks {missing[0]!r}. Each mask has its count, also where it is 0.")
    extra = [name for name in found if name not in masks]
    if extra:
        raise Wrong(f"The dictionary has an entry for {describe(extra[0])}, which no mask names.")
    return {name: read_number(found[name], f"revived[{name!r}]") for name in masks}


def _cases() -> list[Case]:
    momentum = {"lr": 0.2, "momentum": 0.9}
    tries = {
        "plain SGD and nothing else": _trained({"lr": 0.2}),
        "momentum, and gradients set to zero": _trained(momentum, gradients=True),
        "momentum, and the masks held": _trained(momentum, held=True),
        "momentum, gradients set to zero, and an optimizer made after pruning": _trained(
            momentum, gradients=True, renewed=True
        ),
        "plain SGD, and the masks held until the last step": _trained({"lr": 0.2}, held=True, let_go=True),
        "plain SGD, and gradients set to zero": _trained({"lr": 0.2}, gradients=True),
        "a tiny learning rate": _trained({"lr": 1e-5}),
        "momentum and nothing else": _trained(momentum),
        "a mask for one of the layers only": _trained({"lr": 0.2}, parameters=["2.weight"]),
        "weights that were kept, and are zero": _trained({"lr": 0.2}, held=True, emptied=True),
        "masks that remove nothing": _trained({"lr": 0.2}, sparsity=0.0),
    }
    return [Case(about, {"masks": masks, "model": model}) for about, (masks, model) in tries.items()]


def _trained(
    settings: dict[str, Any],
    *,
    gradients: bool = False,
    held: bool = False,
    renewed: bool = False,
    let_go: bool = False,
    emptied: bool = False,
    sparsity: float = 0.75,
    parameters: list[str] | None = None,
) -> tuple[Masks, nn.Module]:
    """Two steps of SGD, pruning, and a few more, on data and weights that a generator of its own draws."""
    draw = torch.Generator().manual_seed(7)
    layers = (nn.utils.skip_init(nn.Linear, 8, 6), nn.Tanh(), nn.utils.skip_init(nn.Linear, 6, 3))
    model = nn.Sequential(*layers)
    for parameter in model.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=draw) / 2)
    inputs = torch.randn(16, 8, generator=draw)
    inputs[:, :3] = 0  # what reads a silent input has no gradient, and stays at zero
    targets = torch.randint(3, (16,), generator=draw)
    optimizer = torch.optim.SGD(model.parameters(), **settings)
    _steps(model, optimizer, inputs, targets, 2, Masks({}))
    masks = prune(model, sparsity, parameters=parameters)
    if renewed:
        optimizer = torch.optim.SGD(model.parameters(), **settings)
    handle = masks.hold(model, optimizer) if held else None
    _steps(model, optimizer, inputs, targets, 3, masks if gradients else Masks({}))
    if handle is not None:
        handle.release()
    if let_go:
        _steps(model, optimizer, inputs, targets, 1, Masks({}))
    if emptied:
        layers[0].weight.data[:3] = 0
    for parameter in model.parameters():
        parameter.grad = None
    return masks, model


def _steps(
    model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor, count: int, zeroed: Masks
) -> None:
    """A few steps; the gradients of what `zeroed` removes are set to zero before each."""
    for _ in range(count):
        optimizer.zero_grad()
        with torch.enable_grad():  # the learner may have switched gradients off
            F.cross_entropy(model(inputs), targets).backward()
        for name, mask in zeroed.items():
            gradient = model.get_parameter(name).grad
            if gradient is not None:
                gradient *= mask
        optimizer.step()


def _counting(expression: str) -> str:
    return (
        "def revived(masks, model):\n"
        "    p = dict(model.named_parameters())\n"
        f"    return {{name: {expression} for name, mask in masks.items()}}"
    )


WRONG = (
    (_counting("int((p[name][mask] == 0).sum())"), "the mask .keeps. and that happen to be zero"),
    (_counting("int((p[name][mask] != 0).sum())"), "True means kept"),
    (_counting("int((p[name] != 0).sum())"), "also those that were kept"),
    (_counting("int((p[name][~mask] == 0).sum())"), "are .still. zero"),
    (_counting("int((~mask).sum())"), "This is how many the mask removed"),
    (_counting("int((p[name][~mask] > 0).sum())"), "with a negative sign are missing"),
    (_counting("int((p[name][~mask].abs() > 1e-3).sum())"), "no tolerance is needed"),
    (_counting("p[name][~mask].abs().sum().item()"), "a sum of magnitudes"),
    (_counting("float((p[name][~mask] != 0).float().mean())"), "a fraction of the removed entries"),
    (_counting("int((p[name][~mask] != 0).any())"), "whether any has come back"),
    (_counting("int((p[name][~mask] != 0).sum()) + 1"), "is too large"),
    (_counting("int((p[name][~mask] != 0).sum()) // 2"), "is too small"),
    (_counting("p[name][~mask] != 0"), "returns a bool Tensor"),
    (
        "def revived(masks, model):\n"
        "    p = dict(model.named_parameters())\n"
        "    return sum(int((p[name][~mask] != 0).sum()) for name, mask in masks.items())",
        "returns the int .*a dictionary",
    ),
    (
        "def revived(masks, model):\n"
        "    p = dict(model.named_parameters())\n"
        "    found = {name: int((p[name][~mask] != 0).sum()) for name, mask in masks.items()}\n"
        "    return {name: count for name, count in found.items() if count}",
        "Each mask has its count, also where it is 0",
    ),
    (
        "def revived(masks, model):\n    return {name: 0 for name, _ in model.named_parameters()}",
        "which no mask names",
    ),
    (
        "def revived(masks, model):\n    masks.apply_(model)\n    return {name: 0 for name in masks}",
        "modified its input",
    ),
    (_counting("int((model[name][~mask] != 0).sum())"), "raised TypeError"),
    ("def revived(masks, model):\n    counts = {}", "Is a `return` missing"),
    ("def revived(model):\n    return {}", r"yours takes `\(model\)`"),
    ("revived = {}", "needs the function itself"),
)

QUESTION = Question(
    name="q5",
    kind="investigate",
    title="Back from the dead",
    task=TASK,
    answer="revived",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
