"""SNIP: connection sensitivity, before training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from prunelab.criteria.base import Criterion, Evidence
from prunelab.criteria.members import gradients_of, member_sums, precise


@dataclass(frozen=True)
class SNIP(Criterion):
    """The sensitivity of the loss to a unit's mask, as a share of the network's (Lee et al. 2019, eqs. 6 and 7).

    With a mask c that multiplies the weights, all ones now, a unit's sensitivity is g = ∂L(c · w)/∂c, which is
    the sum of w · ∂L/∂w over its members: the sum comes before the absolute value. The score is |g| / sum of |g| over
    the units of all parameters, so scores sum to 1 over the network. They rank as those of `Taylor()` do: SNIP is
    its use before training, on one batch or more.

    >>> import torch
    >>> weights, gradients = torch.tensor([[1.0], [2.0]]), torch.tensor([[-3.0], [0.5]])
    >>> SNIP().score(weights, gradients, None)                        # one parameter's |g|, not yet normalised
    tensor([3., 1.])
    >>> SNIP().scores({"fc.weight": Evidence(weights, gradients)})
    {'fc.weight': tensor([0.7500, 0.2500], dtype=torch.float64)}
    """

    needs: ClassVar[frozenset[str]] = frozenset({"weights", "gradients", "data"})

    def probe(self) -> None:
        return None

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        return member_sums(weights * gradients_of("SNIP", gradients)).abs()

    def scores(self, evidence: Mapping[str, Evidence]) -> dict[str, Tensor]:
        sensitivities = {name: precise(scores) for name, scores in super().scores(evidence).items()}
        total = math.fsum(float(scores.sum()) for scores in sensitivities.values())
        return {name: scores / (total or 1) for name, scores in sensitivities.items()}
