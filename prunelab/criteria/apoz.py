"""Zeros: a channel that a rectifier silences for most inputs says little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prunelab.criteria.base import Criterion
from prunelab.criteria.members import finest
from prunelab.criteria.watching import Call, Probe, by_example
from prunelab.granularity import Filter, Granularity

# Those of the functions followed that put out exact zeros. nn.ReLU6 is a hardtanh from 0 to 6.
RECTIFIERS = frozenset({"relu", "relu6", "hardtanh", "hardsigmoid", "hardswish", "clamp_min"})


@dataclass(frozen=True)
class APoZ(Criterion):
    """1 - APoZ: the fraction of a filter's activated outputs that are not zero (Hu et al. 2016).

    APoZ, the "average percentage of zeros", is a fraction from 0 to 1 here: zeros among all outputs of the channel,
    over the examples and their positions, counted after the rectifier. Filters that are often zero go first. -0.0 is
    zero; NaN is passed on.

    >>> APoZ().score(torch.empty(2, 3), None, torch.tensor([0.75, 0.0]))       # zero three times in four, and never
    tensor([0.2500, 1.0000])

    A layer that no rectifier follows directly is refused, because all its filters would score 1 and position alone
    would decide: leave the last layer, and those before a residual addition, out with `exclude=`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"data"})
    granularities: ClassVar[tuple[type[Granularity], ...]] = (Filter,)

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        return 1 - statistics

    def probe(self) -> Probe:
        return ZeroFraction()


class ZeroFraction(Probe):
    """Zeros among the activated outputs of each channel, as a fraction: float64 (O,)."""

    def __init__(self) -> None:
        self._nonzero: Tensor | float = 0.0
        self._outputs = 0

    def emit(self, module: nn.Module, outputs: Tensor) -> tuple[Tensor, int]:
        values = by_example(module, outputs)  # (N, O, positions)
        precision = finest(values.device)
        nonzero = (values != 0).to(precision).masked_fill(values.isnan(), torch.nan)
        return nonzero.sum((0, 2)), values[:, 0].numel()

    def add(self, calls: Sequence[Call], examples: int) -> None:
        for call in calls:
            if not RECTIFIERS.intersection(name for name, _ in call.applied):
                raise ValueError(
                    "is not followed directly by an activation function that puts out zeros (such as relu), so there "
                    "are none to count; leave it out with exclude=[...]"
                )
            nonzero, outputs = call.emitted[-1]
            self._nonzero, self._outputs = self._nonzero + nonzero, self._outputs + outputs

    def result(self, labels: Any) -> Tensor:
        return 1 - torch.as_tensor(self._nonzero) / self._outputs
