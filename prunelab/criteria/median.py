"""The geometric median: which unit the others could best stand in for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from prunelab.criteria.base import Criterion
from prunelab.criteria.members import precise
from prunelab.granularity import Channel, Filter, Granularity, Group, Head, Kernel

_DISTANCES = 1 << 24  # so many distances are held at a time
_COMPARED = 1 << 16  # most units of one layer that are compared: minutes


@dataclass(frozen=True)
class GeometricMedian(Criterion):
    """The sum of a unit's Euclidean distances to the other units of its layer, in the unit of the weights (FPGM).

    The point with the smallest sum is the geometric median of the units; the units nearest to it go first, because
    what is left can best stand in for them (He et al. 2019). Unlike the correlation, a distance tells a filter from its
    negative, and from itself at another scale.

    The sums are float64 (float32 on MPS), each distance taken from the difference of the two units: |x|² + |y|² - 2xy
    would lose the small distances, the ones that matter. The cost is units² x members.

    >>> GeometricMedian().score(torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]), None, None)
    tensor([15., 10., 15.], dtype=torch.float64)
    """

    needs: ClassVar[frozenset[str]] = frozenset({"weights"})
    granularities: ClassVar[tuple[type[Granularity], ...]] = (Group, Kernel, Filter, Channel, Head)

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        if len(weights) > _COMPARED:
            raise ValueError(
                f"GeometricMedian measures the distances of all pairs, and {len(weights)} units have "
                f"{len(weights) ** 2:.0e}: use units that are larger, such as Filter(), or leave the layer out with "
                "exclude=[...]"
            )
        points = precise(weights)  # (units, members)
        sums = [
            torch.cdist(part, points, compute_mode="donot_use_mm_for_euclid_dist").sum(1)
            for part in points.split(max(1, _DISTANCES // max(1, len(points))))
        ]
        return torch.cat(sums)  # (units,)
