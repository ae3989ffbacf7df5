"""What schedules that rise along a curve have in common."""

from __future__ import annotations

from abc import abstractmethod

from prunelab.schedule.base import Schedule, check_sparsity, check_step


class Ramp(Schedule):
    """From `initial` at step `start` to `final` at step `end`, along a curve, with something due every `every` steps.

    A subclass gives the `curve`. Up to `start` the sparsity is `initial`, and from `end` on exactly `final`. Due are
    start, start + every, start + 2 every and so on, and always `end`. With start = end all goes at once.
    """

    final: float
    start: int
    every: int
    initial: float

    def __post_init__(self) -> None:
        for name in ("final", "initial"):
            object.__setattr__(self, name, check_sparsity(getattr(self, name), name))
        for name in ("start", "end"):
            object.__setattr__(self, name, check_step(getattr(self, name), name))
        object.__setattr__(self, "every", check_step(self.every, "every", least=1))
        if self.start > self.end:
            raise ValueError(f"start={self.start} comes after end={self.end}; a schedule cannot end before it starts")
        if self.initial > self.final:
            raise ValueError(
                f"initial={self.initial} is more than final={self.final}, and {type(self).__name__} only rises; "
                "schedule.DSD gives back"
            )

    @abstractmethod
    def curve(self, position: float) -> float:
        """The sparsity at `position` = (step - start) / (end - start), from 0 to 1."""

    def __call__(self, step: int) -> float:
        step = check_step(step)
        if step >= self.end:
            return self.final
        if step <= self.start:
            return self.initial
        return self._rounded(self.curve((step - self.start) / (self.end - self.start)))

    def _rounded(self, sparsity: float) -> float:
        """Rounding errors must not lead out of [initial, final]."""
        return min(max(sparsity, self.initial), self.final)

    def due(self, step: int) -> bool:
        step = check_step(step)
        return step == self.end or (self.start <= step < self.end and (step - self.start) % self.every == 0)
