"""The rank of what a filter puts out: a feature map of low rank carries little information."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from prunelab.criteria.base import Criterion
from prunelab.criteria.members import finest
from prunelab.criteria.watching import Call, Probe
from prunelab.granularity import Filter, Granularity


@dataclass(frozen=True)
class HRank(Criterion):
    """The average rank of a filter's feature map (H, W) over the examples (Lin et al. 2020).

    The map is the activated one: after the batch normalisation and the activation function that follow the convolution
    directly. Its rank is the number of singular values above max(H, W) * eps * the largest one, where eps is the
    machine epsilon of the dtype that the network computes in, so that rounding errors do not count. A map of zeros has
    rank 0; one with NaN or infinities has rank NaN.

    >>> HRank().score(torch.empty(2, 3), None, torch.tensor([3.5, 4.0]))       # the statistic is the average rank
    tensor([3.5000, 4.0000])

    Layers without maps (Linear, convolutions in one or three dimensions) are refused: leave them out with `exclude=`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"data"})
    granularities: ClassVar[tuple[type[Granularity], ...]] = (Filter,)

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        return statistics

    def probe(self) -> Probe:
        return AverageRank()


class AverageRank(Probe):
    """The rank of each channel's map, averaged over examples: float64 (O,). A batch's maps are kept until its end."""

    last_only = True  # ranks are slow: only those of the activated maps are computed

    def __init__(self) -> None:
        self._ranks: Tensor | float = 0.0
        self._maps = 0

    def emit(self, module: nn.Module, outputs: Tensor) -> Tensor | None:
        if not isinstance(module, _ConvNd) or module.weight.dim() != 4:
            return None
        # A copy: what comes next in the network may work in place.
        return outputs.clone() if outputs.dim() == 4 else outputs[None].clone()

    def add(self, calls: Sequence[Call], examples: int) -> None:
        for call in calls:
            maps = call.emitted[-1]  # (N, O, H, W)
            if maps is None:
                raise ValueError("puts out no feature maps (H, W), which have a rank; leave it out with exclude=[...]")
            self._ranks, self._maps = self._ranks + _ranks(maps).sum(0), self._maps + len(maps)

    def result(self, labels: Any) -> Tensor:
        return torch.as_tensor(self._ranks) / self._maps


def _ranks(maps: Tensor) -> Tensor:
    """(N, O, H, W) -> (N, O): the rank of each map; NaN where a value is not finite, which has no singular values."""
    finite = maps.isfinite().all(-1).all(-1)
    tolerance = max(maps.shape[-2:]) * torch.finfo(maps.dtype).eps
    values = maps.to(torch.promote_types(maps.dtype, torch.float32)).where(finite[..., None, None], 0)
    ranks = torch.linalg.matrix_rank(values, rtol=tolerance)
    return ranks.to(finest(maps.device)).where(finite, torch.nan)
