"""Gradient magnitude: how fast the loss changes with a weight, whatever the weight is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from prunelab.criteria.base import Criterion
from prunelab.criteria.magnitude import Magnitude
from prunelab.criteria.members import gradients_of


@dataclass(frozen=True)
class GradientMagnitude(Criterion):
    """The p-norm of a unit's gradients: (sum over members |∂L/∂w|^p)^(1/p), in units of loss per weight.

    L is the mean loss over all the data. The weights themselves do not count. Hubens 2020 and others give this name to
    |w · ∂L/∂w|, which is what `Taylor` computes. p is any number above 0, or math.inf, as for `Magnitude`.

    >>> import torch
    >>> gradients = torch.tensor([[3.0, -4.0], [0.0, 1.0]])
    >>> GradientMagnitude(p=2).score(torch.zeros(2, 2), gradients, None)
    tensor([5., 1.])
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradients", "data"})

    p: float = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", Magnitude(self.p).p)

    def probe(self) -> None:
        return None

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        return Magnitude(self.p).score(gradients_of("GradientMagnitude", gradients), None, None)
