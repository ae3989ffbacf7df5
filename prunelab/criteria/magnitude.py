"""Weight magnitude, which at the granularity of filters is the filter norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from prunelab.criteria.base import Criterion, Evidence
from prunelab.criteria.members import finest, precise

_REDUCTIONS = ("sum", "mean")
_NORMALIZATIONS = (None, "layer", "lamp")


@dataclass(frozen=True)
class Magnitude(Criterion):
    """The p-norm of a unit: (sum over members |w|^p)^(1/p), in the unit of the weights.

    p = 1 sums absolute values, p = 2 is Euclidean, p = inf takes the largest. For single weights every p is |w| (Han et
    al. 2015); for filters it is the filter norm, with p = 1 the score of Li et al. 2017, section 3.1. Norms of several
    weights are summed in float64 (float32 on MPS), where no square of a float32 over- or underflows, and returned in
    the weights' type, or in float32 where that is half precision.

    >>> Magnitude(p=2).score(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), None, None)
    tensor([5., 1.])

    `reduction="mean"` takes the mean over the unit's members in place of the sum, (sum |w|^p / members)^(1/p), so that
    large units do not win by their size; the padding of short groups is not counted.

    `normalize` makes the layers comparable when they compete (scope "global"); it keeps the order within a layer:

    - "layer" divides the norms by their Euclidean length over the layer's units (Molchanov et al. 2017);
    - "lamp" gives unit u its norm squared as a share of what would be left of the layer if all units below it had gone:
      s_u^2 / sum of s_v^2 over the units v from u on, in the order in which they go (Lee et al. 2021). The best
      unit of every layer gets 1, so no layer is emptied before all others are down to one unit.

    >>> Magnitude(normalize="lamp").score(torch.tensor([[1.0], [-2.0], [2.0]]), None, None)
    tensor([0.1111, 0.5000, 1.0000], dtype=torch.float64)

    Normalised scores are float64. A layer of zeros scores zero. Where a weight is infinite, the units that have one
    share the layer's length and the others score zero: the limit of a weight that grows.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"weights"})

    p: float = 1
    reduction: str = "sum"
    normalize: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.p, bool) or not isinstance(self.p, Real) or not self.p > 0:
            raise ValueError(f"Magnitude(p={self.p!r}): the order of the norm is a number above 0, or math.inf")
        if self.reduction not in _REDUCTIONS:
            raise ValueError(f"Magnitude(reduction={self.reduction!r}): use one of {', '.join(map(repr, _REDUCTIONS))}")
        if self.normalize not in _NORMALIZATIONS:
            choices = ", ".join(map(repr, _NORMALIZATIONS))
            raise ValueError(f"Magnitude(normalize={self.normalize!r}): use one of {choices}")
        object.__setattr__(self, "p", float(self.p))

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        return self._score(weights, weights.shape[1])

    def scores(self, evidence: Mapping[str, Evidence]) -> dict[str, Tensor]:
        return {
            # One number of weights a unit is the matrix's own width; a tensor tells of short blocks that were padded.
            name: self._score(one.weights, one.sizes if isinstance(one.sizes, Tensor) else one.weights.shape[1])
            for name, one in evidence.items()
        }

    def _score(self, weights: Tensor, sizes: int | Tensor) -> Tensor:
        norms = self._norms(weights, sizes)
        if self.normalize is None:
            return norms.to(
                torch.promote_types(weights.dtype, torch.float32) if weights.shape[1] > 1 else weights.dtype
            )
        return _layer_normalized(norms) if self.normalize == "layer" else _lamp(norms)

    def _norms(self, weights: Tensor, sizes: int | Tensor) -> Tensor:
        precision = finest(weights.device)
        if weights.shape[1] == 0:
            return weights.new_zeros(weights.shape[0])
        if weights.shape[1] == 1:
            return weights[:, 0].abs()  # exact, where a power and a root would round
        norms = torch.linalg.vector_norm(weights, self.p, dim=1, dtype=precision)
        if self.reduction == "sum":
            return norms
        return norms / torch.as_tensor(sizes, dtype=precision, device=weights.device) ** (1 / self.p)


def _layer_normalized(norms: Tensor) -> Tensor:
    shares = _shares(norms)
    length = torch.linalg.vector_norm(shares)
    return shares / length.where(length != 0, 1)


def _lamp(norms: Tensor) -> Tensor:
    squares, order = _shares(norms).square().sort(stable=True)  # of equals the first by position goes first
    left = squares.flip(0).cumsum(0).flip(0)  # (units,) what is left of the layer when this unit's turn comes
    return torch.empty_like(squares).scatter_(0, order, squares / left.where(left != 0, 1))


def _shares(norms: Tensor) -> Tensor:
    """The norms as fractions of the largest, so that no square over- or underflows."""
    norms = precise(norms)
    if norms.numel() == 0:
        return norms
    largest = norms.max()
    if largest.isinf():
        return norms.isinf().to(norms.dtype)
    return norms / largest.where(largest != 0, 1)
