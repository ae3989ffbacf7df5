"""Automated gradual pruning."""

from __future__ import annotations

from dataclasses import dataclass

from prunelab.schedule.ramp import Ramp


@dataclass(frozen=True)
class AGP(Ramp):
    """Automated gradual pruning: a cubic, fast while there is much to lose, slow at the end (Zhu & Gupta 2018, eq. 1).

    s(t) = final + (initial - final) * (1 - (t - start) / (end - start)) ** 3      for start <= t <= end

    >>> schedule = AGP(final=0.8, start=0, end=1000, every=50)
    >>> [round(schedule(step), 4) for step in (0, 50, 500, 1000, 2000)]
    [0.0, 0.1141, 0.7, 0.8, 0.8]
    >>> schedule.due(50), schedule.due(51), schedule.due(1000), schedule.due(1050)
    (True, False, True, False)
    """

    final: float
    start: int
    end: int
    every: int = 1
    initial: float = 0.0

    def curve(self, position: float) -> float:
        left = 1 - position
        return self.final + (self.initial - self.final) * (left * left * left)
