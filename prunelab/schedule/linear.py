"""Pruning at a constant rate."""

from __future__ import annotations

from dataclasses import dataclass

from prunelab.schedule.ramp import Ramp


@dataclass(frozen=True)
class Linear(Ramp):
    """A straight line: each step removes as many units as the others.

    s(t) = initial + (final - initial) * (t - start) / (end - start)      for start <= t <= end

    >>> schedule = Linear(0.8, start=100, end=200, every=25)
    >>> [round(schedule(step), 3) for step in (0, 100, 125, 150, 200)]
    [0.0, 0.0, 0.2, 0.4, 0.8]
    """

    final: float
    start: int
    end: int
    every: int = 1
    initial: float = 0.0

    def curve(self, position: float) -> float:
        return self.initial + (self.final - self.initial) * position
