"""L0: a price on every parameter that is not zero, made differentiable by gates that open by chance."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Real
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from prunelab.granularity import Filter, Granularity
from prunelab.masks import Masks
from prunelab.memory import memory_of
from prunelab.regularize.base import Regularizer, total
from prunelab.regularize.gates import SHIFT, Gated, Gates
from prunelab.regularize.units import Piece, unit_pieces
from prunelab.targets import Memory, Target, unwrap


@dataclass(frozen=True)
class HardConcrete(Regularizer):
    """strength · the expected number of parameters whose gate is open (Louizos et al. 2018).

    `attach_` multiplies every unit by a gate between 0 and 1, a sample of which is drawn at each forward in training
    mode, one for all examples. Its chance to be open is learned (`log_alpha`, parameters of the model: attach the gates
    before the optimizer is made). In eval mode the gates are settled, and many are exactly 0. `bake_` multiplies them
    in and removes them without a trace. `initial` is the probability, at first, that a gate is open. A gate closes the
    unit's biases too, where they belong to it, and counts all its parameters; frozen ones can be closed as well.

    >>> layer = torch.nn.Linear(4, 3)
    >>> l0 = HardConcrete(0.01, initial=0.5)
    >>> l0.attach_(layer)
    >>> round(l0.penalty(layer).item(), 4)                      # 0.01 · 0.5 · 15 parameters
    0.075
    >>> l0.bake_(layer)
    Masks(2 parameters, 0 of 15 entries removed, 0.0000)
    >>> list(layer.state_dict())
    ['weight', 'bias']
    """

    granularity: Granularity = field(default_factory=Filter)
    initial: float = field(default=0.9, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.granularity, Granularity):
            raise TypeError(f"granularity must be a Granularity such as Filter(), not {self.granularity!r}")
        if isinstance(self.initial, bool) or not isinstance(self.initial, Real) or not 0 < self.initial < 1:
            raise ValueError(f"initial={self.initial!r}: the probability of an open gate lies between 0 and 1")

    def attach_(self, model: nn.Module) -> None:
        """Put gates on the model. Raises ValueError, and changes nothing, where a unit cannot be gated."""
        if _attached(model):
            raise ValueError("the model has gates already; multiply them in with bake_ first")
        found = unit_pieces(model, self.granularity, self.parameters, self.exclude)
        holders = _holders(model)
        for target, pieces in found:
            _check(target, pieces, holders)
        orders = {module: tuple(module._parameters) for module in unwrap(model).modules()}
        log_alpha = math.log(self.initial / (1 - self.initial)) + SHIFT
        for _, pieces in found:
            gates = Gates(pieces, self.granularity, log_alpha)
            for position, piece in enumerate(pieces):
                for module, name in holders[memory_of(piece.values)]:
                    gated = Gated(gates, piece, self.granularity, draws=position == 0, order=orders[module])
                    # Unsafe: torch's check of what comes out would run the gates, and use up chance.
                    parametrize.register_parametrization(module, name, gated, unsafe=True)

    def penalty(self, model: nn.Module) -> Tensor:
        """strength times the expected number of open parameters: a scalar tensor that has a gradient."""
        gates = dict.fromkeys(one.gated.gates for one in _required(model))
        return total([(one.open() * one.sizes).sum() for one in gates], model) * self.strength

    @torch.no_grad()
    def masks(self, model: nn.Module) -> Masks:
        """Which entries the settled gates leave open, under the names that the parameters have without gates."""
        masks: dict[Memory, tuple[str, Tensor]] = {}
        for one in _required(model):
            masks.setdefault(memory_of(one.original), (one.name, one.factors() > 0))
        return Masks(dict(masks.values()))

    @torch.no_grad()
    def bake_(self, model: nn.Module) -> Masks:
        """Multiply the settled gates into the parameters, remove the gates, and return the masks of what they left.

        The parameters stay the same objects, so an optimizer still trains them; nothing holds the zeros then but
        `Masks.hold`. Raises ValueError for a model without gates.
        """
        masks, baked = self.masks(model), set()
        for one in _required(model):
            _own_class(one.module)
            parametrize.remove_parametrizations(one.module, one.attribute, leave_parametrized=False)
            stored = one.module._parameters
            for name in one.gated.order:  # torch puts it at the end
                if name in stored:
                    stored[name] = stored.pop(name)
            if memory_of(one.original) not in baked:
                baked.add(memory_of(one.original))
                one.original.mul_(one.factors().to(one.original.dtype))
        masks.apply_(model)
        return Masks(masks, model)


def _own_class(module: nn.Module) -> None:
    """A deep copy shares the class that torch made for the original, and torch takes the weight out of the class."""
    made = type(module)
    module.__class__ = type(made.__name__, made.__bases__, dict(vars(made)))


@dataclass(frozen=True)
class _Attachment:
    """A gated parameter: where it is, what it was called, and its gates."""

    module: nn.Module
    attribute: str
    name: str
    original: nn.Parameter
    gated: Gated

    def factors(self) -> Tensor:
        """The settled gates at every entry of the parameter."""
        return self.gated.spread(self.gated.gates.settled()).reshape(self.original.shape)


def _attached(model: nn.Module) -> list[_Attachment]:
    found = []
    for path, module in unwrap(model).named_modules():
        if not parametrize.is_parametrized(module):
            continue
        for attribute, chain in cast("nn.ModuleDict", module.parametrizations).items():
            name = f"{path}.{attribute}".lstrip(".").replace("_orig_mod.", "")
            for gated in (one for one in cast("nn.ModuleList", chain) if isinstance(one, Gated)):
                original = cast("nn.Parameter", chain.original)
                found.append(_Attachment(module, attribute, name, original, gated))
    return found


def _required(model: nn.Module) -> list[_Attachment]:
    found = _attached(model)
    if not found:
        raise ValueError(f"{type(model).__name__} has no gates; put them on with attach_ first")
    return found


def _holders(model: nn.Module) -> dict[Memory, list[tuple[nn.Module, str]]]:
    """Every place where a parameter hangs: the modules and the names that it has there."""
    holders: dict[Memory, list[tuple[nn.Module, str]]] = {}
    for module in unwrap(model).modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                holders.setdefault(memory_of(parameter), []).append((module, name))
    return holders


def _check(target: Target, pieces: list[Piece], holders: dict[Memory, list[tuple[nn.Module, str]]]) -> None:
    if target.obstacle:
        raise ValueError(f"{target.name!r} {target.obstacle}; leave it out with exclude=[...]")
    for piece in pieces:
        for module, attribute in holders[memory_of(piece.values)]:
            if module._parameters[attribute] is not piece.values:
                raise ValueError(
                    f"{piece.name!r} is shared as several Parameter objects, which gates would tear apart; tie the "
                    "layers by one object, or leave it out with exclude=[...]"
                )
            if isinstance(module, nn.RNNBase):
                raise ValueError(
                    f"{piece.name!r} belongs to {type(module).__name__}, which keeps its own list of weights and would "
                    "not see the gates; leave it out with exclude=[...]"
                )
