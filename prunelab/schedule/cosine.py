"""Pruning along half a cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prunelab.schedule.ramp import Ramp


@dataclass(frozen=True)
class Cosine(Ramp):
    """Half a cosine: slow at both ends, fastest in the middle.

    s(t) = final + (initial - final) * (1 + cos(pi * (t - start) / (end - start))) / 2      for start <= t <= end

    >>> schedule = Cosine(0.8, start=0, end=100, every=10)
    >>> [round(schedule(step), 3) for step in (0, 10, 50, 90, 100)]
    [0.0, 0.02, 0.4, 0.78, 0.8]
    """

    final: float
    start: int
    end: int
    every: int = 1
    initial: float = 0.0

    def curve(self, position: float) -> float:
        return self.final + (self.initial - self.final) * (1 + math.cos(math.pi * position)) / 2
