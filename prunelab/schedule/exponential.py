"""Pruning at a constant rate of what is left."""

from __future__ import annotations

from dataclasses import dataclass

from prunelab.schedule.ramp import Ramp


@dataclass(frozen=True)
class Exponential(Ramp):
    """The kept fraction falls exponentially: each step removes the same fraction of what is left.

    1 - s(t) = (1 - initial) ** (1 - p) * (1 - final) ** p,
    p = (t - start) / (end - start),                               for start <= t <= end

    It is the limit of many small geometric rounds (`Iterative`). No exponential reaches zero: with final = 1 all goes
    at the first step after `start`.

    >>> schedule = Exponential(0.99, start=0, end=100, every=10)
    >>> [round(schedule(step), 3) for step in (0, 25, 50, 75, 100)]
    [0.0, 0.684, 0.9, 0.968, 0.99]
    """

    final: float
    start: int
    end: int
    every: int = 1
    initial: float = 0.0

    def curve(self, position: float) -> float:
        return 1 - (1 - self.initial) ** (1 - position) * (1 - self.final) ** position
