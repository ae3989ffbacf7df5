"""Filter correlation: a unit that another one nearly repeats is redundant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunelab.criteria.base import Criterion
from prunelab.criteria.members import precise
from prunelab.granularity import Channel, Filter, Granularity, Group, Head, Kernel

_MEASURES = ("pearson", "cosine")
_VARIANTS = ("pairs", "mean")

# Correlations are rounded to this many bits after the point (2e-12): what differs by rounding only ties, and the sum of
# as many as `_PAIRED` is exact in float64, in whatever order they are added and taken away again.
_BITS = 39
_COMPARED = 1 << 16  # most units of one layer that are compared at all: minutes
_PAIRED = 1 << 14  # most units of which "pairs" holds the whole matrix: 2 GiB
_BLOCK = 1 << 24  # correlations that "mean" holds at a time


@dataclass(frozen=True)
class FilterCorrelation(Criterion):
    """1 - |correlation| of a unit with others of its layer: from 0, another one repeats it, to 1, it is like no other.

    One matrix product of the normalised units gives all correlations. Their sign does not count: up to its sign a
    filter and its negative are one; behind a ReLU they cannot replace each other.

    `measure` is "pearson", or "cosine", which is the same without taking away each unit's mean first.
    `variant` says which others:

    - "pairs" removes greedily (after Singh et al. 2020): of the most correlated pair among the units that are left, the
      one whose mean |correlation| with all that are left is larger goes, and its twin stays. Of equals the first by
      position goes. The score is 1 - |correlation| of the pair when it is removed, and 1 for the last unit left, so the
      k lowest scores are k greedy steps. Where equal scores would go in another order than they were found in, they
      are told apart by the smallest steps that a float can make.
    - "mean" is 1 - the mean |correlation| with all other units (after Wang et al. 2019). Both of a pair score low.

    A unit that does not vary (all weights equal for "pearson", all zero for "cosine") has no correlation. Any other
    unit can stand in for it, times zero and plus a constant: it scores 0, and is left out when the others
    are compared. So removed units do not count when a pruned layer is pruned again. A unit that holds NaN or infinity
    scores NaN. Scores are float64 (float32 on MPS). The padding of short groups is compared like weights that are zero.

    >>> weights = torch.tensor([[1.0, 2.0, 3.0], [-2.0, -4.0, -6.0], [1.0, -2.0, 1.0]])
    >>> FilterCorrelation().score(weights, None, None)                 # the first two are one filter, and go to one
    tensor([0., 1., 1.], dtype=torch.float64)
    >>> FilterCorrelation(variant="mean").score(weights, None, None)
    tensor([0.5000, 0.5000, 1.0000], dtype=torch.float64)
    """

    needs: ClassVar[frozenset[str]] = frozenset({"weights"})
    granularities: ClassVar[tuple[type[Granularity], ...]] = (Group, Kernel, Filter, Channel, Head)

    measure: str = "pearson"
    variant: str = "pairs"

    def __post_init__(self) -> None:
        for name, value, choices in (("measure", self.measure, _MEASURES), ("variant", self.variant, _VARIANTS)):
            if value not in choices:
                raise ValueError(f"FilterCorrelation({name}={value!r}): use one of {', '.join(map(repr, choices))}")

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        if weights.shape[1] < 2:
            raise ValueError(
                f"FilterCorrelation compares the members of units, and here a unit has {weights.shape[1]}: use "
                "Filter(), Channel(), a Group(...) or Kernel() of more than one weight, or leave the layer out with "
                "exclude=[...]"
            )
        directions, varies = _directions(weights, centred=self.measure == "pearson")
        broken = ~weights.isfinite().all(1)
        compared = varies & ~broken
        if self.variant == "pairs":
            found = _greedy(_matrix(directions[compared]))
        else:
            found = 1 - _mean_with_others(directions[compared])
        scores = torch.zeros_like(directions[:, 0])
        scores[compared] = found.to(scores)
        return scores.masked_fill(broken, torch.nan)


def _directions(weights: Tensor, *, centred: bool) -> tuple[Tensor, Tensor]:
    """The units at length 1, (units, members), their mean taken away where `centred`; and which of them vary, bool."""
    rows = precise(weights)
    rows = rows / rows.abs().amax(1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)  # no square overflows
    varies = rows.amax(1) != rows.amin(1) if centred else rows.any(1)
    if centred:
        rows = rows - rows.mean(1, keepdim=True)
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / lengths.where(lengths != 0, 1), varies


def _rounded(correlations: Tensor) -> Tensor:
    scale = 2.0**_BITS
    return correlations.abs().clamp(max=1).mul(scale).round() / scale


def _mean_with_others(directions: Tensor) -> Tensor:
    """(units,) the mean |correlation| of each unit with all others; 0 for one that has no others."""
    units = len(directions)
    if units > _COMPARED:
        raise ValueError(
            f"FilterCorrelation compares all pairs, and {units} units have {units**2:.0e}: use units that are larger, "
            "such as Filter(), or leave the layer out with exclude=[...]"
        )
    blocks = directions.split(max(1, _BLOCK // max(1, units)))
    sums = torch.cat([_rounded(block @ directions.T).sum(1) for block in blocks])
    return (sums - 1).clamp(min=0) / max(1, units - 1)  # 1 is the unit with itself


def _matrix(directions: Tensor) -> NDArray[np.float64]:
    """|correlation| of every pair, (units, units), exactly symmetric, 0 on the diagonal."""
    units = len(directions)
    if units > _PAIRED:
        raise ValueError(
            f'FilterCorrelation(variant="pairs") holds the correlations of all pairs, and {units} units would take '
            f'{8 * units**2 / 2**30:.0f} GiB: use variant="mean", or units that are larger, such as Filter()'
        )
    product = _rounded(directions @ directions.T).double()
    matrix = torch.maximum(product, product.T).cpu().numpy()  # a product's two halves may differ in the last bit
    np.fill_diagonal(matrix, 0)
    return matrix


def _greedy(matrix: NDArray[np.float64]) -> Tensor:
    """(units,) the scores of the variant "pairs". `matrix` is used up.

    `bound[i]` is at least the largest correlation of unit i with one that is left, and exactly that while the unit that
    it was found with, `nearest[i]`, is left: a row is searched again only when it comes up with its nearest gone.
    """
    units = len(matrix)
    scores = np.ones(units)
    if units < 2:
        return torch.from_numpy(scores)
    totals = matrix.sum(1)
    np.fill_diagonal(matrix, -1)
    left = np.ones(units, dtype=bool)
    nearest, bound = matrix.argmax(1), matrix.max(1)
    last, score = -1, 0.0
    for _ in range(units - 1):
        first = int(bound.argmax())
        while not left[nearest[first]]:
            nearest[first] = matrix[first].argmax()
            bound[first] = matrix[first, nearest[first]]
            first = int(bound.argmax())
        twin = int(nearest[first])
        gone = first if totals[first] >= totals[twin] else twin
        # Scores never fall; of equal ones the first by position goes first, which may not be the order found here.
        score = max(score, 1 - bound[first])
        if gone < last and score == scores[last]:
            score = np.nextafter(score, np.inf)
        scores[gone], last = score, gone
        left[gone] = False
        totals -= matrix[gone]
        matrix[:, gone] = bound[gone] = -1
    stays = int(left.argmax())
    scores[stays] = max(1.0, score if stays > last else np.nextafter(score, np.inf))
    return torch.from_numpy(scores)
