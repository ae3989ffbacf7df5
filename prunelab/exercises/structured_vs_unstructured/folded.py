"""q4, investigate: the constant of a dead filter behind a BatchNorm, moved into the bias of what reads it."""

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
A network ends with a convolution without bias, a BatchNorm, a ReLU, the mean over all pixels, and a Linear layer. The
weights of some filters are all zero, and somebody wants to remove these channels. Predict first, and note it down: of
the channels with zero filters, which can go without any further care?

Then write `folded_bias(norm, dead, reader)`: the bias (P,) that the Linear layer needs after the channels in `dead`
have gone, so that the network computes the same in evaluation mode. `norm` is the `nn.BatchNorm2d` of C channels with
the statistics of training, `dead` (C,) is bool, and `reader` is the `nn.Linear(C, P)`, which may have no bias. All of
the channels may be dead, or none.
"""

STARTER = '''\
def folded_bias(norm, dead, reader):
    """The bias that `reader` needs once the channels in `dead` have gone.

    norm: nn.BatchNorm2d(C); dead: (C,) bool; reader: nn.Linear(C, P).
    """
    ...'''

SOLUTION = '''\
def folded_bias(norm, dead, reader):
    """The bias that `reader` needs once the channels in `dead` have gone.

    norm: nn.BatchNorm2d(C); dead: (C,) bool; reader: nn.Linear(C, P).
    """
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()  # (C,)
    says = (norm.bias - scale * norm.running_mean).relu()  # (C,): what a dead channel says
    own = 0 if reader.bias is None else reader.bias
    return own + reader.weight[:, dead] @ says[dead]'''

HINTS = (
    "A filter of zeros makes a map of zeros. Follow this zero through the norm in evaluation mode, the ReLU and the "
    "mean: which number arrives at the Linear layer, for every image?",
    "The norm subtracts the running mean, divides by the root of the running variance plus eps, multiplies by its "
    "weight and adds its bias. Do that with 0. What the ReLU then stops is gone.",
    "Each dead channel adds its number, times the Linear layer's weight for it, to each output. All of that together "
    "is one vector (P,); add it to the bias that is there already.",
)

TAKEAWAY = (
    "Compare with your prediction: only the channels whose constant the ReLU stops are silent, and a zero shift is no "
    "guarantee for it. The others can go as well, if what they said is kept. Where a zero-padded convolution reads "
    "them, no single bias would do, because at the border the constant is not read."
)


def _constants(norm: nn.BatchNorm2d, eps: float | None = None) -> Tensor:
    """What the norm makes of 0, for each channel."""
    mean, variance = _statistics(norm)
    spread = (variance + (norm.eps if eps is None else eps)).sqrt()
    return (norm.bias - norm.weight / spread * mean).detach()


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def _added(reader: nn.Linear, says: Tensor, dead: Tensor) -> Tensor:
    return reader.weight.detach()[:, dead] @ says[dead]


def _own(reader: nn.Linear) -> Tensor:
    return torch.zeros(reader.out_features) if reader.bias is None else reader.bias.detach()


def _right(norm: nn.BatchNorm2d, dead: Tensor, reader: nn.Linear) -> Tensor:
    return _own(reader) + _added(reader, _constants(norm).relu(), dead)


def _saying(constants: Any) -> Any:
    """The answer of somebody who takes other constants, before the ReLU."""
    return lambda norm, dead, reader: _own(reader) + _added(reader, constants(norm).relu(), dead)


MISTAKES = (
    Mistake(
        lambda reader, **_: _own(reader),
        "This is the bias as it was: the dead channels would take along what they say.",
    ),
    Mistake(
        lambda norm, dead, reader: _added(reader, _constants(norm).relu(), dead),
        "This is what has to be added. The Linear layer's own bias is missing.",
    ),
    Mistake(
        lambda norm, dead, reader: _own(reader) + _added(reader, _constants(norm), dead),
        "Between the norm and the Linear layer there is a ReLU.",
    ),
    Mistake(
        _saying(lambda norm: norm.bias.detach()),
        "That is the norm's shift alone. In evaluation mode a norm subtracts its running mean, also from a zero.",
    ),
    Mistake(
        _saying(lambda norm: _constants(norm, eps=0.0)),
        "Nearly: the norm adds its `eps` to the variance.",
    ),
    Mistake(
        _saying(lambda norm: norm.bias.detach() - norm.weight.detach() * norm.running_mean),
        "The norm also divides, by the standard deviation.",
    ),
    Mistake(
        _saying(lambda norm: (norm.bias - norm.weight / (norm.running_var + norm.eps) * norm.running_mean).detach()),
        "The norm divides by the root of the variance, not by the variance.",
    ),
    Mistake(
        _saying(lambda norm: 2 * norm.bias.detach() - _constants(norm)),
        "There is a sign: the running mean is subtracted.",
    ),
    Mistake(
        lambda norm, dead, reader: _own(reader) + _added(reader, _constants(norm).relu(), ~dead),
        "These are the constants of the channels that stay.",
    ),
    Mistake(
        lambda norm, dead, reader: _own(reader) + _added(reader, _constants(norm).relu(), dead | True),
        "All channels enter. Only those in `dead` go.",
    ),
    Mistake(
        lambda norm, dead, reader: _own(reader) - _added(reader, _constants(norm).relu(), dead),
        "What the channels said is taken away a second time: it has to be added.",
    ),
    Mistake(
        lambda norm, dead, reader: _own(reader) + _constants(norm).relu()[dead].sum(),
        "Each output hears a channel with a weight of its own.",
    ),
    Mistake(
        lambda dead, reader, **_: _own(reader) + _added(reader, torch.ones(len(dead)), dead),
        "The weights that read the dead channels are added, but not times what these say.",
    ),
    Mistake(
        lambda norm, dead, reader: _own(reader) + (reader.weight[:, dead] @ _constants(norm)[dead]).detach().relu(),
        "The ReLU comes before the Linear layer: channel by channel, not after the sum.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="folded_bias")


def _judge(found: Any, norm: nn.BatchNorm2d, dead: Tensor, reader: nn.Linear) -> None:
    expected = _right(norm, dead, reader)
    require_form(found, expected, "output")
    found = found.detach()
    name_mistake(found, expected, MISTAKES, norm=norm, dead=dead, reader=reader)
    if not same(found, expected):
        gap = float((found.double() - expected.double()).abs().max())
        raise Wrong(f"The network would not compute the same: its outputs would be off by up to {gap:.2g}.")


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(1)

    def case(dead: list[bool], *, bias: bool = True, eps: float = 1e-5, shift: float = 0.0) -> dict[str, Any]:
        norm = nn.BatchNorm2d(len(dead), eps=eps).eval()
        reader = nn.utils.skip_init(nn.Linear, len(dead), 4, bias=bias)
        mean, variance = _statistics(norm)
        mean.copy_(torch.randn(len(dead), generator=draw))
        variance.copy_(torch.rand(len(dead), generator=draw) + 0.2)
        for parameter in (*norm.parameters(), *reader.parameters()):
            parameter.data.copy_(torch.randn(parameter.shape, generator=draw))
        norm.bias.data.add_(shift)
        return {"norm": norm, "dead": torch.tensor(dead), "reader": reader}

    some = [True, False, True, True, False, True, False]
    tries = {
        "7 channels, 4 of them dead": case(some),
        "all of the dead channels say something": case(some, shift=4.0),
        "all of the dead channels are silent": case(some, shift=-6.0),
        "a Linear layer without a bias": case(some, bias=False),
        "a norm with a large eps": case(some, eps=0.5),
        "no filter is dead": case([False] * 5),
        "every filter is dead": case([True] * 5),
    }
    return [Case(about, arguments) for about, arguments in tries.items()]


def _saying_so(
    says: str = "(b - w / (v + norm.eps).sqrt() * m).relu()",
    result: str = "own + W[:, dead] @ says[dead]",
) -> str:
    return (
        "def folded_bias(norm, dead, reader):\n"
        "    w, b, m, v, W = norm.weight, norm.bias, norm.running_mean, norm.running_var, reader.weight\n"
        "    own = torch.zeros(len(W)) if reader.bias is None else reader.bias\n"
        f"    says = {says}\n"
        f"    return {result}"
    )


WRONG = (
    (_saying_so(result="own"), "the bias as it was"),
    (_saying_so(result="W[:, dead] @ says[dead]"), "own bias is missing"),
    (_saying_so("b - w / (v + norm.eps).sqrt() * m"), "there is a ReLU"),
    (_saying_so("b.relu()"), "the norm's shift alone"),
    (_saying_so("(b - w / v.sqrt() * m).relu()"), "adds its `eps`"),
    (_saying_so("(b - w * m).relu()"), "also divides"),
    (_saying_so("(b - w / (v + norm.eps) * m).relu()"), "not by the variance"),
    (_saying_so("(b + w / (v + norm.eps).sqrt() * m).relu()"), "There is a sign"),
    (_saying_so(result="own + W[:, ~dead] @ says[~dead]"), "the channels that stay"),
    (_saying_so(result="own + W @ says"), "All channels enter"),
    (_saying_so(result="own - W[:, dead] @ says[dead]"), "taken away a second time"),
    (_saying_so(result="own + says[dead].sum()"), "a weight of its own"),
    (_saying_so(result="own + W[:, dead].sum(1)"), "but not times what these say"),
    (
        _saying_so("b - w / (v + norm.eps).sqrt() * m", "own + (W[:, dead] @ says[dead]).relu()"),
        "channel by channel, not after the sum",
    ),
    (_saying_so(result="own + 0.5 * (W[:, dead] @ says[dead])"), "would be off by up to"),
    (_saying_so(result="(own + W[:, dead] @ says[dead])[:2]"), "with one value for each output"),
    (_saying_so(result="(own + W[:, dead] @ says[dead]).double()"), "should be float32"),
    (_saying_so(result="reader.bias + W[:, dead] @ says[dead]"), "raised TypeError"),
    (
        "def folded_bias(norm, dead, reader):\n    norm.weight.data[dead] = 0\n    return reader.bias",
        "modified its input `norm` in place",
    ),
    ("def folded_bias(norm, dead, reader):\n    bias = reader.bias", "Is a `return` missing"),
    ("def folded_bias(norm, reader):\n    return reader.bias", r"yours takes `\(norm, reader\)`"),
    ("folded_bias = 0.5", "needs the function itself"),
)

QUESTION = Question(
    name="q4",
    kind="investigate",
    title="What a dead filter still says",
    task=TASK,
    answer="folded_bias",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
