"""One-shot pruning."""

from __future__ import annotations

from dataclasses import dataclass, field

from prunelab.schedule.base import Schedule, check_sparsity, check_step


@dataclass(frozen=True)
class OneShot(Schedule):
    """Everything at once (Hubens 2020, "Scheduling").

    s(t) = 0 for t < at, and `final` from `at` on.

    >>> schedule = OneShot(0.9, at=100)
    >>> schedule(99), schedule(100), schedule.due(100), schedule.due(101)
    (0.0, 0.9, True, False)
    """

    final: float
    at: int = 0
    end: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "final", check_sparsity(self.final, "final"))
        object.__setattr__(self, "at", check_step(self.at, "at"))
        object.__setattr__(self, "end", self.at)

    def __call__(self, step: int) -> float:
        return self.final if check_step(step) >= self.at else 0.0

    def due(self, step: int) -> bool:
        return check_step(step) == self.at
