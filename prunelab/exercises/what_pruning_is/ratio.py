"""q2, code: the compression ratio of a network, from its masks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake
from prunelab.exercises.core import Material, Question
from prunelab.exercises.number import read_number
from prunelab.exercises.outcome import Wrong
from prunelab.masks import Masks

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `compression_ratio(model, masks)`: what the compression ratio of `model` will be once it is pruned with `masks`.
The masks map names of parameters to bool tensors, True = kept; they have not been applied yet, and no parameter of the
model is zero. A parameter that they do not name is kept whole, and counts. If nothing at all is left, the ratio is
infinite: return `float("inf")`.
"""

STARTER = '''\
def compression_ratio(model, masks):
    """Parameters of the dense network / those left with `masks` applied."""
    ...'''

SOLUTION = '''\
def compression_ratio(model, masks):
    """Parameters of the dense network / those left with `masks` applied."""
    total = sum(parameter.numel() for parameter in model.parameters())
    gone = sum(int((~mask).sum()) for mask in masks.values())
    return total / (total - gone) if gone < total else float("inf")'''

HINTS = (
    "Two counts make the ratio: all parameters of the model, and those that stay. The masks know only of the "
    "parameters that were pruned; who else is there?",
    "A mask is True where a parameter is kept, so its sum counts what is kept, and the sum of its opposite what goes. "
    "All parameters less those that go are those that stay: then the parameters without a mask come by themselves.",
    "`sum(p.numel() for p in model.parameters())` counts all parameters. Subtract the number of False in all masks, "
    "and divide the first number by the difference. Look out for a difference of zero.",
)

TAKEAWAY = (
    "Original / new, over all parameters. Biases and layers that nobody prunes set a limit: even with every weight "
    "gone the ratio of a network is no more than all its parameters divided by those."
)


def _counts(model: nn.Module, masks: Masks) -> tuple[int, int, int]:
    """(all parameters, those with a mask, those that go)."""
    return sum(p.numel() for p in model.parameters()), masks.total, masks.removed


def _reference(model: nn.Module, masks: Masks) -> float:
    total, _, gone = _counts(model, masks)
    return _over(total, total - gone)


def _over(dense: float, left: float) -> float:
    return dense / left if left else math.inf


def _mean_of_ratios(_model: nn.Module, masks: Masks) -> float:
    ratios = [_over(mask.numel(), int(mask.sum())) for mask in masks.values()]
    return sum(ratios) / len(ratios) if ratios else 1.0


def _layers_of_masks(model: nn.Module, masks: Masks) -> float:
    """All parameters against those that the masks keep: what has no mask is forgotten in one of the two."""
    return _over(_counts(model, masks)[0], masks.total - masks.removed)


def _by(answer: Any) -> Any:
    """A misconception as a tensor, which is what `name_mistake` compares."""
    return lambda model, masks: torch.tensor(float(answer(model, masks)), dtype=torch.float64)


MISTAKES = (
    Mistake(
        _by(lambda model, masks: 1 / _reference(model, masks)),
        "This is upside down, new / original. The chapter's ratio says how many times smaller the network has become.",
    ),
    Mistake(
        _by(lambda _model, masks: _over(masks.total, masks.total - masks.removed)),
        "Only the parameters with a mask are counted. The others, biases for instance, are part of the network too.",
    ),
    Mistake(
        _by(_layers_of_masks),
        "What has no mask is missing among the parameters that stay, although it counts among those of the dense "
        "network.",
    ),
    Mistake(
        _by(lambda model, masks: _over(*_counts(model, masks)[::2])),
        "The parameters that *go* are in the denominator. Divide by those that stay.",
    ),
    Mistake(_by(lambda _model, masks: masks.sparsity), "This is the sparsity of the masks, not a ratio of sizes."),
    Mistake(
        _by(lambda model, masks: masks.removed / _counts(model, masks)[0]),
        "This is the fraction of the parameters that goes, not a ratio of sizes.",
    ),
    Mistake(
        _by(lambda _model, _masks: 1.0),
        "This compares the network with itself: the masks have not been applied, so counting zeros in the model finds "
        "none. Count by the masks.",
    ),
    Mistake(
        _by(_mean_of_ratios),
        "This is the mean of the ratios of single parameters. Count over the whole network first, and divide once.",
    ),
    Mistake(
        _by(lambda model, masks: 100 * _reference(model, masks)), "This is a percentage; the ratio itself is asked for."
    ),
    Mistake(
        _by(lambda model, masks: _reference(model, masks) // 1),
        "The ratio is cut off to a whole number: `//` or `int`.",
    ),
    Mistake(_by(lambda model, masks: round(_reference(model, masks), 2)), "The ratio is rounded. Return all of it."),
    Mistake(
        _by(lambda model, masks: _counts(model, masks)[0] - masks.removed),
        "This is the number of parameters that stay. What is it in relation to the dense network?",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="compression_ratio")


def _judge(found: Any, model: nn.Module, masks: Masks) -> None:
    ratio, expected = read_number(found, "compression_ratio"), _reference(model, masks)
    if ratio == expected or abs(ratio - expected) <= 1e-6 * expected < math.inf:
        return
    if math.isfinite(expected):
        as_tensor = torch.tensor(expected, dtype=torch.float64)
        name_mistake(torch.tensor(ratio, dtype=torch.float64), as_tensor, MISTAKES, model=model, masks=masks)
        total, _, gone = _counts(model, masks)
        raise Wrong(f"The ratio is not right: of {total} parameters these masks remove {gone}.")
    raise Wrong("Here nothing is left, and the task says what to return then.")


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(0)

    def masks(model: nn.Module, *names: str, keep: float) -> Masks:
        parameters = dict(model.named_parameters())
        return Masks({name: torch.rand(parameters[name].shape, generator=draw) < keep for name in names}, model)

    net, plain = _network(True), _network(False)
    conv = _filled(nn.Sequential(nn.utils.skip_init(nn.Conv2d, 3, 6, 3), nn.utils.skip_init(nn.Conv2d, 6, 4, 3)))
    every = [name for name, _ in net.named_parameters()]
    tries = [
        ("a network with biases, all weights with masks", net, masks(net, "0.weight", "2.weight", keep=0.3)),
        ("the same network, a mask for one layer only", net, masks(net, "0.weight", keep=0.2)),
        ("masks that keep everything", net, masks(net, "0.weight", "2.weight", keep=2)),
        ("no masks at all", net, Masks({})),
        ("masks for weights and biases", net, masks(net, *every, keep=0.5)),
        ("a network without biases", plain, masks(plain, "0.weight", "2.weight", keep=0.1)),
        ("convolutions", conv, masks(conv, "0.weight", "1.weight", keep=0.25)),
        ("every weight goes, the biases stay", net, masks(net, "0.weight", "2.weight", keep=-1)),
        ("every parameter goes", net, masks(net, *every, keep=-1)),
    ]
    return [Case(about, {"model": model, "masks": masks}) for about, model, masks in tries]


def _network(bias: bool) -> nn.Sequential:
    layers = (nn.utils.skip_init(nn.Linear, *shape, bias=bias) for shape in ((8, 6), (6, 3)))
    first, second = layers
    return _filled(nn.Sequential(first, nn.ReLU(), second))


def _filled(model: nn.Sequential) -> nn.Sequential:
    """No parameter is zero, and none is drawn: a check must leave the learner's random state alone."""
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    return model


_COUNTS = """\
def compression_ratio(model, masks):
    total = sum(p.numel() for p in model.parameters())
    masked = sum(mask.numel() for mask in masks.values())
    gone = sum(int((~mask).sum()) for mask in masks.values())
    inf = float("inf")
    """


def _returning(expression: str) -> str:
    return f"{_COUNTS}return {expression}"


WRONG = (
    (_returning("(total - gone) / total"), "upside down"),
    (_returning("masked / (masked - gone) if gone < masked else inf"), "Only the parameters with a mask"),
    (_returning("total / (masked - gone) if gone < masked else inf"), "What has no mask is missing"),
    (_returning("total / gone if gone else inf"), "The parameters that .go. are in the denominator"),
    (_returning("gone / masked if masked else 0.0"), "the sparsity of the masks"),
    (_returning("gone / total"), "the fraction of the parameters that goes"),
    (_returning("total / sum(int((p != 0).sum()) for p in model.parameters())"), "compares the network with itself"),
    (
        _returning("sum(m.numel() / max(int(m.sum()), 1) for m in masks.values()) / max(len(masks), 1)"),
        "mean of the ratios",
    ),
    (_returning("100 * total / (total - gone) if gone < total else inf"), "a percentage"),
    (_returning("total // (total - gone) if gone < total else inf"), "cut off to a whole number"),
    (_returning("round(total / (total - gone), 2) if gone < total else inf"), "The ratio is rounded"),
    (_returning("total - gone"), "number of parameters that stay"),
    (_returning("total / (total - gone) if gone < total else 0"), "Here nothing is left"),
    (_returning("total / (total - gone)"), "raised ZeroDivisionError"),
    (_returning("total / (total - gone) + 1 if gone < total else inf"), "of 75 parameters these masks remove"),
    (_returning("{'ratio': total}"), "returns the dict"),
    (_returning("str(total / (total - gone))"), "returns the str"),
    (
        "def compression_ratio(model, masks):\n    model[0].weight.data.zero_()\n    return 1",
        "modified its input `model`",
    ),
    ("def compression_ratio(model, masks):\n    ratio = len(masks)", "Is a `return` missing"),
    ("def compression_ratio(masks):\n    return 1", r"yours takes `\(masks\)`"),
    ("compression_ratio = 10", "needs the function itself"),
)

QUESTION = Question(
    name="q2",
    kind="code",
    title="A ratio from masks",
    task=TASK,
    answer="compression_ratio",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
