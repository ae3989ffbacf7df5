"""Dense-sparse-dense training."""

from __future__ import annotations

from dataclasses import dataclass

from prunelab.schedule.base import Schedule, check_sparsity, check_step


@dataclass(frozen=True)
class DSD(Schedule):
    """Dense, sparse, dense again: pruning as a regulariser, and not to make a network smaller (Han et al. 2017).

    s(t) = final for start <= t < end, and 0 before and after

    The one schedule here that falls: from `end` on the weights that were removed train again, from zero.

    >>> schedule = DSD(0.5, start=100, end=200)
    >>> [schedule(step) for step in (99, 100, 199, 200)]
    [0.0, 0.5, 0.5, 0.0]
    >>> list(schedule.steps())
    [100, 200]
    """

    final: float
    start: int
    end: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "final", check_sparsity(self.final, "final"))
        for name in ("start", "end"):
            object.__setattr__(self, name, check_step(getattr(self, name), name))
        if self.start >= self.end:
            raise ValueError(f"start={self.start} and end={self.end} leave no sparse phase; end must come after start")

    def __call__(self, step: int) -> float:
        return self.final if self.start <= check_step(step) < self.end else 0.0

    def due(self, step: int) -> bool:
        return check_step(step) in (self.start, self.end)
