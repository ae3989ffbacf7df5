"""Random scores: the baseline that every criterion has to beat at the same budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

import torch
from torch import Tensor

from prunelab.criteria.activations import Activations
from prunelab.criteria.base import Criterion, Evidence


@dataclass(frozen=True)
class Random(Criterion):
    """A uniform random number for every unit, in [0, 1), independent of the weights' values.

    The same seed gives the same scores on every device; torch's own random state is neither read nor changed.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    reads: ClassVar[str] = "chance, from its seed"

    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.seed, Integral) or isinstance(self.seed, bool):
            raise TypeError(f"Random(seed={self.seed!r}): a seed is a whole number")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"Random(seed={self.seed}): a seed lies between 0 and 2**63 - 1")
        object.__setattr__(self, "seed", int(self.seed))

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Activations | None) -> Tensor:
        return self._draw(weights, torch.Generator().manual_seed(self.seed))

    def scores(self, evidence: Mapping[str, Evidence]) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)  # one stream: layers of equal size get different numbers
        return {name: self._draw(one.weights, generator) for name, one in evidence.items()}

    @staticmethod
    def _draw(weights: Tensor, generator: torch.Generator) -> Tensor:
        # Drawn on the CPU in float64: the same numbers on every device, and ties all but impossible.
        return torch.rand(weights.shape[0], generator=generator, dtype=torch.float64)
