"""q4, investigate: which channels slimming has switched off, and which of those still say something."""

from __future__ import annotations

import copy
import functools
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
from prunelab.regularize import Slimming

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
A network is slimmed: proximal steps have made some scales of its batch normalisation exactly zero. Behind the
normalisation stands a ReLU. Predict first, and note it down: of the channels with a zero scale, do all output zero,
some, or none?

Then find out. Write `slimmed(norm)`: a dictionary that counts the channels of a `BatchNorm2d` whose output behind the
ReLU, in eval mode, depends on the input ("alive"), is the same positive number for every input ("constant"), or is
always zero ("silent"). The check calls it on normalisations of networks that were really slimmed.
"""

STARTER = '''\
def slimmed(norm):
    """How many channels are alive, constant and silent behind a ReLU.

    norm: a torch.nn.BatchNorm2d
    returns {"alive": int, "constant": int, "silent": int}
    """
    ...'''

SOLUTION = '''\
def slimmed(norm):
    """How many channels are alive, constant and silent behind a ReLU.

    norm: a torch.nn.BatchNorm2d
    returns {"alive": int, "constant": int, "silent": int}
    """
    off = norm.weight == 0  # (channels,): only the shift is left
    return {
        "alive": int((~off).sum()),
        "constant": int((off & (norm.bias > 0)).sum()),
        "silent": int((off & (norm.bias <= 0)).sum()),
    }'''

HINTS = (
    "A channel is normalised, multiplied by its scale, `norm.weight`, and its shift, `norm.bias`, is added. What is "
    "left of that where the scale is zero?",
    "A negative scale is not small: it turns the channel round, and the output still depends on the input.",
    "Where the scale is zero the shift is what the ReLU gets. Which shifts does it let through? Each channel belongs "
    "to exactly one of the three kinds.",
)

TAKEAWAY = (
    "Compare with your prediction. A zero scale makes a channel constant, not silent. Only silent channels can go "
    "without a trace; the constant of the others has to be added to the bias of the next layer first."
)

KINDS = ("alive", "constant", "silent")
Kinds = tuple[Tensor, Tensor, Tensor]
Sort = Callable[[Tensor, Tensor], Kinds]


def _right(scale: Tensor, shift: Tensor) -> Kinds:
    off = scale == 0
    return ~off, off & (shift > 0), off & (shift <= 0)


MISTAKES: tuple[tuple[Sort, str], ...] = (
    (
        lambda scale, shift: (scale > 0, (scale <= 0) & (shift > 0), (scale <= 0) & (shift <= 0)),
        "Channels with a negative scale are missing among the living: they are turned round, not switched off.",
    ),
    (
        lambda scale, shift: (
            scale.abs() > 1e-2,
            (scale.abs() <= 1e-2) & (shift > 0),
            (scale.abs() <= 1e-2) & (shift <= 0),
        ),
        "Channels with a small scale are alive. A slimmed scale is *exactly* zero, so no tolerance is needed.",
    ),
    (
        lambda scale, _shift: (scale != 0, torch.zeros_like(scale, dtype=torch.bool), scale == 0),
        "You call every channel with a zero scale silent. What does the shift add to nothing?",
    ),
    (
        lambda scale, _shift: (scale != 0, scale == 0, torch.zeros_like(scale, dtype=torch.bool)),
        "You call every channel with a zero scale constant. What does a ReLU make of a negative shift?",
    ),
    (
        lambda scale, shift: (scale != 0, (scale == 0) & (shift != 0), (scale == 0) & (shift == 0)),
        "Channels with a negative shift are among your constant ones. They do not get past the ReLU.",
    ),
    (
        lambda scale, shift: (scale != 0, (scale == 0) & (shift >= 0), (scale == 0) & (shift < 0)),
        "A channel whose shift is exactly 0 is among your constant ones. A shift of exactly 0 gives 0: silent.",
    ),
    (
        lambda scale, shift: (scale != 0, (scale == 0) & (shift < 0), (scale == 0) & (shift >= 0)),
        "Constant and silent have changed places: a ReLU lets positive numbers through.",
    ),
    (
        lambda scale, shift: (scale != 0, shift > 0, (scale == 0) & (shift <= 0)),
        "You counted a positive shift as constant although the scale is not zero: some channels are counted twice.",
    ),
    (
        lambda scale, shift: (scale == 0, (scale != 0) & (shift > 0), (scale != 0) & (shift <= 0)),
        "The living and the switched off have changed places.",
    ),
    (
        lambda scale, shift: (shift != 0, (shift == 0) & (scale > 0), (shift == 0) & (scale <= 0)),
        "You took the shift for the scale: a batch normalisation calls its scale `weight`, its shift `bias`.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="slimmed")


def _judge(found: Any, norm: nn.BatchNorm2d) -> None:
    counts = _read(found)
    scale, shift = norm.weight.detach(), norm.bias.detach()
    right = [int(kind.sum()) for kind in _right(scale, shift)]
    if counts == right:
        return
    for sort, message in MISTAKES:
        mistaken = [int(kind.sum()) for kind in sort(scale, shift)]
        if counts == mistaken != right:
            raise Wrong(message)
    channels = len(scale)
    if counts == [count / channels for count in right]:
        raise Wrong("These are fractions of the channels. The task asks how many.")
    if sum(counts) != channels:
        raise Wrong("The three counts do not add up to the number of channels. Each channel is of exactly one kind.")
    kind = next(kind for kind, count, wanted in zip(KINDS, counts, right, strict=True) if count != wanted)
    raise Wrong(f"The counts add up, but the count of the {kind} channels is not right.")


def _read(found: Any) -> list[float]:
    """The learner's dictionary as numbers, in the order of `KINDS`."""
    if not isinstance(found, Mapping):
        raise Wrong(f"`slimmed` returns {describe(found)}; it should return a dictionary, kind -> count.")
    missing = [kind for kind in KINDS if kind not in found]
    if missing:
        raise Wrong(f"The dictionary lacks {missing[0]!r}. Each kind has its count, also where there is none.")
    extra = [kind for kind in found if kind not in KINDS]
    if extra:
        raise Wrong(f"The dictionary has an entry for {describe(extra[0])}, which is none of the three kinds.")
    return [read_number(found[kind], f"slimmed[{kind!r}]") for kind in KINDS]


def _cases() -> list[Case]:
    slim, slimmer = _trained(0.3), _trained(0.6)
    turned = copy.deepcopy(slim)
    turned.weight.data[::3] *= -1
    at_zero = copy.deepcopy(slimmer)
    at_zero.bias.data[::2] = 0
    norms = {
        "a network that was slimmed, with every other shift at zero": at_zero,
        "the same network, with the shifts it learned": slimmer,
        "one slimmed with half of that strength": slim,
        "the same with every third scale turned round": turned,
        "a network that was never slimmed": _trained(0.0),
        "scales that are small, and not zero": _made([1e-3, -1e-4, 0.0, 1.0], [0.1, 0.2, 0.3, -0.4]),
        "a layer of which nothing is left": _made([0.0, 0.0, -0.0], [-1.0, 0.0, -0.0]),
    }
    return [Case(about, {"norm": norm}) for about, norm in norms.items()]


def _made(scale: list[float], shift: list[float]) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(len(scale), device="cpu")
    norm.weight.data, norm.bias.data = torch.tensor(scale, device="cpu"), torch.tensor(shift, device="cpu")
    return norm.eval()


@functools.cache
def _trained(strength: float) -> nn.BatchNorm2d:
    """The normalisation of a small network that learned, with slimming, where a bright spot is in a noisy image."""
    draw = torch.Generator().manual_seed(3)
    conv = nn.utils.skip_init(nn.Conv2d, 1, 16, 3, bias=False, device="cpu")
    norm = nn.BatchNorm2d(16, device="cpu")
    last = nn.utils.skip_init(nn.Linear, 16 * 16, 4, bias=False, device="cpu")
    model = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), last)
    for parameter in (conv.weight, last.weight):
        parameter.data.copy_(torch.randn(parameter.shape, generator=draw) / 8)
    norm.bias.data.copy_(torch.randn(16, generator=draw) / 4)
    targets = torch.randint(4, (64,), generator=draw)
    images = torch.randn(64, 1, 6, 6, generator=draw)
    images[torch.arange(64), 0, targets // 2 * 3 + 1, targets % 2 * 3 + 1] += 4
    optimizer, price = torch.optim.SGD(model.parameters(), lr=0.1), Slimming(strength)
    for _ in range(40):
        optimizer.zero_grad()
        with torch.enable_grad():  # the learner may have switched gradients off
            F.cross_entropy(model(images), targets).backward()
        optimizer.step()
        price.proximal_(model, lr=0.1)
    for parameter in norm.parameters():
        parameter.grad = None
    return norm.eval()


def _counting(
    alive: str = "(w != 0)", constant: str = "(w == 0) & (b > 0)", silent: str = "(w == 0) & (b <= 0)"
) -> str:
    return (
        "def slimmed(norm):\n"
        "    w, b = norm.weight, norm.bias\n"
        f"    kinds = {{'alive': {alive}, 'constant': {constant}, 'silent': {silent}}}\n"
        "    return {kind: int(channels.sum()) for kind, channels in kinds.items()}"
    )


WRONG = (
    (_counting("w > 0", "(w <= 0) & (b > 0)", "(w <= 0) & (b <= 0)"), "turned round, not switched off"),
    (
        _counting("abs(w) > 1e-2", "(abs(w) <= 1e-2) & (b > 0)", "(abs(w) <= 1e-2) & (b <= 0)"),
        "no tolerance is needed",
    ),
    (_counting(constant="b * 0", silent="w == 0"), "every channel with a zero scale silent"),
    (_counting(constant="w == 0", silent="b * 0"), "every channel with a zero scale constant"),
    (_counting(constant="(w == 0) & (b != 0)", silent="(w == 0) & (b == 0)"), "They do not get past the ReLU"),
    (_counting(constant="(w == 0) & (b < 0)", silent="(w == 0) & (b >= 0)"), "Constant and silent have changed places"),
    (_counting(constant="b > 0"), "some channels are counted twice"),
    (_counting("w == 0", "(w != 0) & (b > 0)", "(w != 0) & (b <= 0)"), "The living and the switched off"),
    (_counting("b != 0", "(b == 0) & (w > 0)", "(b == 0) & (w <= 0)"), "You took the shift for the scale"),
    (_counting().replace("int(channels.sum())", "float(channels.double().mean())"), "These are fractions"),
    (_counting(silent="(w == 0) & (b < 0) & (w > 0)"), "do not add up to the number of channels"),
    (_counting(silent="(w == 0) & (b < 0)", constant="(w == 0) & (b >= 0)"), "A shift of exactly 0 gives 0"),
    (
        _counting(silent="(w == 0) & (b <= 0.25)", constant="(w == 0) & (b > 0.25)"),
        "the count of the constant channels is not right",
    ),
    (_counting().replace("int(channels.sum())", "channels"), "returns a bool Tensor"),
    ("def slimmed(norm):\n    return int((norm.weight == 0).sum())", "returns the int .*a dictionary"),
    ("def slimmed(norm):\n    return {'alive': 1, 'silent': 2}", "lacks 'constant'"),
    (
        "def slimmed(norm):\n    return {'alive': 1, 'constant': 2, 'silent': 3, 'dead': 0}",
        "none of the three kinds",
    ),
    ("def slimmed(norm):\n    norm.weight.data.zero_()\n    return {}", "modified its input"),
    ("def slimmed(norm):\n    return (norm.gamma == 0).sum()", "raised AttributeError"),
    ("def slimmed(norm):\n    off = norm.weight == 0", "Is a `return` missing"),
    ("def slimmed(norm, tolerance):\n    return {}", r"yours takes `\(norm, tolerance\)`"),
    ("slimmed = {}", "needs the function itself"),
)

QUESTION = Question(
    name="q4",
    kind="investigate",
    title="Switched off, and still talking",
    task=TASK,
    answer="slimmed",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
