"""Weight magnitude, which at the granularity of filters is the filter norm."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor

from prunelab.criteria.activations import Activations
from prunelab.criteria.base import Criterion


@dataclass(frozen=True)
class Magnitude(Criterion):
    """The p-norm of a unit: (sum over members |w|^p)^(1/p), in the unit of the weights.

    p = 1 sums absolute values, p = 2 is Euclidean, p = inf takes the largest. For single weights every p is |w| (Han et
    al. 2015); for filters it is the filter norm, with p = 1 the score of Li et al. 2017, section 3.1. Norms of several
    weights are summed in float64 (float32 on MPS), where no square of a float32 over- or underflows, and returned in
    the weights' type, or in float32 where that is half precision.

    >>> Magnitude(p=2).score(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), None, None)
    tensor([5., 1.])
    """

    needs: ClassVar[frozenset[str]] = frozenset({"weights"})

    p: float = 1

    def __post_init__(self) -> None:
        if isinstance(self.p, bool) or not isinstance(self.p, Real) or not self.p > 0:
            raise ValueError(f"Magnitude(p={self.p!r}): the order of the norm is a number above 0, or math.inf")
        object.__setattr__(self, "p", float(self.p))

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Activations | None) -> Tensor:
        if weights.shape[1] == 1:
            return weights[:, 0].abs()  # exact, where a power and a root would round
        if weights.shape[1] == 0:
            return weights.new_zeros(weights.shape[0])
        precision = torch.float32 if weights.device.type == "mps" else torch.float64
        norms = torch.linalg.vector_norm(weights, self.p, dim=1, dtype=precision)
        return norms.to(torch.promote_types(weights.dtype, torch.float32))
