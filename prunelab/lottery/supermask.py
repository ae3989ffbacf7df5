"""Supermasks: subnetworks of a random network that work although no weight was ever trained."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from prunelab.evaluate.seeding import seeded
from prunelab.granularity import Filter
from prunelab.lottery.recipe import Recipe
from prunelab.lottery.ticket import MakeModel, make
from prunelab.lottery.training import Train
from prunelab.masks import Masks
from prunelab.memory import memory_of
from prunelab.names import Exclude
from prunelab.selection import keep_largest
from prunelab.targets import Target, find_targets

Initialisation = Literal["signed constant", "kaiming"]


class Search(ABC):
    """How a mask is learned: one number for every weight, trained, and a gate that is 0 or 1 made of it."""

    @abstractmethod
    def start(self, shape: Sequence[int], fan_in: int, generator: torch.Generator) -> Tensor:
        """The numbers at first: float32 of the weight's shape."""

    @abstractmethod
    def gate(self, numbers: Tensor, training: bool) -> Tensor:
        """The gates, 0 or 1, of the shape of `numbers`; their gradient reaches `numbers` although they are a step."""

    @abstractmethod
    def mask(self, numbers: Tensor) -> Tensor:
        """What is kept in the end: bool, True = kept."""


@dataclass(frozen=True)
class EdgePopup(Search):
    """Each weight has a score; those with the largest |score| of their layer are the network (Ramanujan et al. 2020).

    Exactly `keep` of every layer, `round(keep * weights)`, is in use at each forward, ties in order of position: the
    first of equals goes first. Backwards the selection counts as the identity (straight through), so that a score
    moves by what its weight would do for the loss, in use or not:

        score -= learning rate * ∂L/∂(weight in use) * weight * sign(score)

    Scores start as the authors' code has them, uniform in ±1/√fan_in.

    >>> EdgePopup(0.5).mask(torch.tensor([0.3, -0.9, 0.1, -0.4])).tolist()
    [False, True, False, True]
    """

    keep: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.keep, bool) or not isinstance(self.keep, int | float) or not 0 < self.keep <= 1:
            raise ValueError(f"EdgePopup(keep={self.keep!r}): the fraction to keep, above 0 and at most 1")

    def start(self, shape: Sequence[int], fan_in: int, generator: torch.Generator) -> Tensor:
        return (2 * torch.rand(tuple(shape), generator=generator) - 1) / math.sqrt(fan_in)

    def gate(self, numbers: Tensor, training: bool) -> Tensor:  # noqa: ARG002 - others read it
        sizes = numbers.abs()
        return self.mask(numbers).to(numbers.dtype) + (sizes - sizes.detach())

    def mask(self, numbers: Tensor) -> Tensor:
        removed = numbers.numel() - round(self.keep * numbers.numel())
        return keep_largest([numbers], removed, magnitude=True)[0].reshape(numbers.shape)


@dataclass(frozen=True)
class BernoulliMask(Search):
    """Each weight is kept by chance, with the learned probability σ(logit) (Zhou et al. 2019).

    A new sample is drawn at each forward in training mode; its gradient is that of the probability. In eval mode, and
    in the end, a weight is kept where its probability is above one half, so how many are kept is learned too. `initial`
    is the probability at first. Logits need a learning rate that is large beside those of weights.

    >>> BernoulliMask().mask(torch.tensor([0.3, -0.9, 0.0])).tolist()
    [True, False, False]
    """

    initial: float = 0.6

    def __post_init__(self) -> None:
        if isinstance(self.initial, bool) or not isinstance(self.initial, float) or not 0 < self.initial < 1:
            raise ValueError(f"BernoulliMask(initial={self.initial!r}): a probability between 0 and 1")

    def start(self, shape: Sequence[int], fan_in: int, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - others read it
        return torch.full(tuple(shape), math.log(self.initial / (1 - self.initial)))

    def gate(self, numbers: Tensor, training: bool) -> Tensor:
        if not training:
            return self.mask(numbers).to(numbers.dtype)
        chance = numbers.sigmoid()
        return torch.bernoulli(chance.detach()) + (chance - chance.detach())

    def mask(self, numbers: Tensor) -> Tensor:
        return numbers > 0


@dataclass(frozen=True)
class Supermask:
    """A subnetwork found without training: its `masks`, and a `model` with all other weights zero and these as they
    were drawn from `seed`."""

    masks: Masks
    model: nn.Module
    seed: int


def supermask(
    make_model: MakeModel,
    train: Train,
    search: Search | None = None,
    *,
    seed: int = 0,
    initialisation: Initialisation | None = "signed constant",
    parameters: Iterable[str] | None = None,
    exclude: Exclude | None = None,
) -> Supermask:
    """Learn which weights of a random network to keep; the weights themselves stay as they were drawn.

    While the mask is learned every weight to be masked is multiplied by a gate made of a number of its own, and these
    numbers are the only parameters that require a gradient: biases, normalisations and weights that are left out stay
    as `make_model` made them. (Running statistics of normalisations are no parameters: a training loop updates them.)

    Args:
        make_model: make_model(seed) → a fresh network.
        train: a `Recipe`, or a function (model, masks, seed) that trains the model in place; the masks are empty.
            Its learning rate is that of the scores or logits, which are not weights: look for a good one.
        search: `EdgePopup(keep)`, the default, or `BernoulliMask()`.
        seed: of the network, of the first scores, and handed to `train`.
        initialisation: what the weights to be masked are, once drawn. "signed constant": the sign of each and one size
            a layer, √(2 / fan_in), the standard deviation of Kaiming's initialisation for rectifiers; "kaiming": drawn
            anew from the normal distribution of that deviation; None: as `make_model` drew them. With `EdgePopup` the
            best choice of the paper is the signed constant (Ramanujan et al. 2020).
        parameters, exclude: which weights to mask, as for `prunelab.prune`; by default those of all Linear and
            convolution modules.

    Returns:
        the masks and the masked model, in training mode or not as `train` left it, with its parameters plain again.

    Raises:
        TypeError, ValueError: a bad argument, a weight that cannot be gated, scores that became NaN, or a `train` that
            changed a weight. The gates are taken off in all of these cases, and when `train` raises.
    """
    search = EdgePopup() if search is None else search
    if not isinstance(search, Search):
        raise TypeError(f"search must be EdgePopup(keep) or BernoulliMask(), not {search!r:.60}")
    if initialisation not in ("signed constant", "kaiming", None):
        raise ValueError(f"initialisation={initialisation!r}: 'signed constant', 'kaiming' or None (as they are drawn)")
    run = train.train if isinstance(train, Recipe) else train
    if not callable(run):
        raise TypeError(f"train must be a Recipe or a function (model, masks, seed), not {type(train).__name__}")
    model = make(make_model, seed)
    targets = find_targets(model, parameters, exclude)
    generator = torch.Generator().manual_seed(seed)
    _draw_(targets, initialisation, generator)
    drawn = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with _gated(model, targets, search, generator) as gates:
        with seeded(seed):
            run(model, Masks({}), seed)
        masks = Masks({name: gate.kept() for name, gate in gates.items()})
    _refuse_trained(model, drawn)
    masks.apply_(model)
    return Supermask(masks, model, seed)


@torch.no_grad()
def _draw_(targets: Sequence[Target], initialisation: Initialisation | None, generator: torch.Generator) -> None:
    for target in targets if initialisation else ():
        weight, deviation = target.weight, math.sqrt(2 / _fan_in(target))
        if initialisation == "kaiming":
            weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)
        else:
            weight.copy_(torch.where(weight < 0, -deviation, deviation))


def _fan_in(target: Target) -> int:
    """How many weights a filter has."""
    return max(1, Filter().units(target.weight.shape, target.layout)[1])


class _Gate(nn.Module):
    """A parametrization: the weight times its gates. `numbers` are trained, the weight is not."""

    def __init__(self, search: Search, numbers: Tensor) -> None:
        super().__init__()
        self.search, self.numbers = search, nn.Parameter(numbers)

    def forward(self, weight: Tensor) -> Tensor:
        return (weight * self.search.gate(self.numbers, self.training)).to(weight.dtype)

    @torch.no_grad()
    def kept(self) -> Tensor:
        if not bool(self.numbers.isfinite().all()):
            raise ValueError("the scores of a mask are not finite any more; lower the learning rate")
        return self.search.mask(self.numbers.detach())


@contextmanager
def _gated(
    model: nn.Module, targets: Sequence[Target], search: Search, generator: torch.Generator
) -> Iterator[dict[str, _Gate]]:
    """Inside, the targets are gated and nothing but the gates is trained; outside, all is as it was."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    places = [(target, *place) for target in targets for place in _places(model, target)]
    orders = {module: tuple(module._parameters) for _, module, _ in places}
    gates: dict[str, _Gate] = {}
    put: list[tuple[nn.Module, str]] = []
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        for target in targets:
            numbers = search.start(target.weight.shape, _fan_in(target), generator)
            gates[target.name] = _Gate(search, numbers.to(target.weight.device))
        for target, module, name in places:
            # Unsafe: torch's check of what comes out would draw a sample, and use up chance.
            parametrize.register_parametrization(module, name, gates[target.name], unsafe=True)
            put.append((module, name))
        yield gates
    finally:
        for module, name in put:
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        for module, order in orders.items():
            for name in order:  # torch puts the one that it gives back at the end
                module._parameters[name] = module._parameters.pop(name)
        for parameter in trained:
            parameter.requires_grad_(True)


def _places(model: nn.Module, target: Target) -> list[tuple[nn.Module, str]]:
    """The modules on which a weight hangs, and its name there."""
    places = [
        (module, name)
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None and memory_of(parameter) == memory_of(target.weight)
    ]
    for module, name in places:
        if module._parameters[name] is not target.weight or isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            raise ValueError(
                f"{target.name!r} cannot be gated: {type(module).__name__} reads it past the gate, or it is shared as "
                "several Parameter objects; leave it out with exclude=[...]"
            )
    return places


def _refuse_trained(model: nn.Module, drawn: dict[str, Tensor]) -> None:
    """A supermask whose weights were trained would prove nothing."""
    for name, parameter in model.named_parameters():
        if not torch.equal(parameter.detach(), drawn[name]):
            raise ValueError(
                f"train changed {name!r}, and no weight of a supermask is trained: it must train the parameters that "
                "require a gradient, and no others"
            )
