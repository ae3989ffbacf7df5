"""What the regularisers have in common: a strength, a choice of parameters, and exact arithmetic."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from numbers import Real

import torch
from torch import Tensor, nn

from prunelab.names import Exclude
from prunelab.targets import find_targets


@dataclass(frozen=True)
class Regularizer(ABC):
    """A penalty on a model's weights.

    `strength` multiplies it: a number from 0 on, for the mean loss of a batch. `parameters` names the parameters it
    looks at and `exclude` leaves some out, as for `prune`; by default it looks at the weights of all Linear and
    convolution modules. A shared parameter counts once. A frozen one (`requires_grad=False`) is left alone. Sums are
    float32 at least.
    """

    strength: float
    parameters: Iterable[str] | None = field(default=None, kw_only=True)
    exclude: Exclude | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", checked_number(f"{type(self).__name__}(strength", self.strength))
        for name in ("parameters", "exclude"):
            value = getattr(self, name)
            if isinstance(value, Iterable) and not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))  # a list cannot be hashed, a generator read twice

    @abstractmethod
    def penalty(self, model: nn.Module) -> Tensor:
        """The penalty of the model's weights as they are: a scalar tensor on their device, which has a gradient."""


class Entrywise(Regularizer):
    """A regulariser that looks at each number alone."""

    def penalty(self, model: nn.Module) -> Tensor:
        return total([self._cost(precise(weight)) for weight in self._weights(model)], model) * self.strength

    @torch.no_grad()
    def proximal_(self, model: nn.Module, lr: float) -> None:
        """Move every weight v, in place, to the x that minimises ½(x - v)² + lr · penalty(x).

        `lr` is the learning rate of the step before. After a step of plain SGD this is proximal gradient descent;
        after Adam it shrinks all weights alike, whatever Adam's own step for them was, as AdamW's weight decay does.
        In half precision a weight stands still where the step is smaller than half the distance to its neighbour.
        """
        threshold = self.strength * checked_number("proximal_(lr", lr)
        for weight in self._weights(model) if threshold else ():
            store_(weight, self._shrunk(precise(weight), threshold))

    def _weights(self, model: nn.Module) -> list[nn.Parameter]:
        targets = find_targets(model, self.parameters, self.exclude)
        return [target.weight for target in targets if target.weight.requires_grad]

    @abstractmethod
    def _cost(self, values: Tensor) -> Tensor:
        """The penalty of these values at strength 1."""

    @abstractmethod
    def _shrunk(self, values: Tensor, threshold: float) -> Tensor:
        """Where the proximal step takes them."""


def precise(values: Tensor) -> Tensor:
    """Half precision as float32, everything else as it is; differentiable."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def store_(parameter: nn.Parameter, values: Tensor) -> None:
    """Write the values into the parameter, in its type. Every zero becomes +0.0, as masks write it."""
    parameter.copy_(values.to(parameter.dtype) + 0.0)


def total(terms: list[Tensor], model: nn.Module) -> Tensor:
    """The sum of scalars that may be on several devices; zero, on the model's device, where there are none."""
    if not terms:
        return torch.zeros((), device=next(model.parameters()).device)
    return torch.stack([term.to(terms[0].device) for term in terms]).sum()


def checked_number(call: str, value: float) -> float:
    """`value` as a float. `call` is the beginning of the message, such as `L1(strength`."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{call}={value!r}) is a {type(value).__name__}; give a number from 0 on, such as 1e-4")
    if not 0 <= value < math.inf:
        raise ValueError(f"{call}={value!r}) must be finite and not negative, such as 1e-4")
    return float(value)
