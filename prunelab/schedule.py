"""When units go: a schedule maps a training step to the sparsity to have by then."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["OneShot", "Schedule", "check_sparsity"]


def check_sparsity(value: float, name: str = "sparsity") -> float:
    """`value` as a float in [0, 1]; anything else is refused with the reason."""
    given = value
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:  # NumPy and torch scalars
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number between 0 and 1, not {given!r}; half of the units is 0.5")
    if not 0 <= value <= 1:
        percent = f"; did you mean {value / 100:g}? It is a fraction, not a percentage" if 1 < value <= 100 else ""
        raise ValueError(f"{name} must lie between 0 and 1, not {value!r}{percent}")
    return float(value)


def _check_step(value: int, name: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} must be a whole number of steps, 0 or more, not {value!r}")


class Schedule(ABC):
    """An integer step, counted from 0, → the sparsity to have at that step, in [0, 1]."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The sparsity to have at `step`."""

    @abstractmethod
    def due(self, step: int) -> bool:
        """Is there something to prune at `step`?"""

    @property
    @abstractmethod
    def end(self) -> int:
        """The first step from which on the sparsity no longer changes."""

    def plot(self, until: int | None = None) -> Figure:
        """Sparsity against step, up to `until` (by default a little past the end). Needs the extra `lab`."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError('plots need matplotlib: pip install "prunelab[lab]"') from error
        last = until if until is not None else max(10, round(1.1 * self.end))
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.add_subplot(xlabel="step", ylabel="sparsity", ylim=(-0.02, 1.02), title=repr(self))
        axes.step(range(last + 1), [self(step) for step in range(last + 1)], where="post")
        return figure


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "final", check_sparsity(self.final, "final"))
        _check_step(self.at, "at")

    def __call__(self, step: int) -> float:
        return self.final if step >= self.at else 0.0

    def due(self, step: int) -> bool:
        return step == self.at

    @property
    def end(self) -> int:
        return self.at
