"""The extension point: what a schedule is."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunelab.chart import Chart


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


def check_step(value: int, name: str = "step", *, least: int = 0) -> int:
    """`value` as an int of at least `least`, NumPy's integers too; anything else is refused with the reason."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(f"{name} must be a whole number, {least} or more, not {value!r}")
    return number


class Schedule(ABC):
    """An integer step, counted from 0, → the sparsity to have at that step, in [0, 1].

    A subclass also has the attribute `end`: the first step from which on the sparsity no longer changes.
    """

    end: int

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The sparsity to have at `step`."""

    @abstractmethod
    def due(self, step: int) -> bool:
        """Is there something to prune at `step`?"""

    def steps(self) -> Iterator[int]:
        """The steps at which something is due, in order.

        >>> from prunelab.schedule import Iterative
        >>> list(Iterative(0.9, rounds=3, start=50, every=100).steps())
        [50, 150, 250]
        """
        return (step for step in range(self.end + 1) if self.due(step))

    def plot(self, until: int | None = None) -> Chart:
        """Sparsity against step, up to `until` (by default a little past the end). Needs the extra `lab`."""
        from prunelab.chart import COLOURS, chart, style

        last = check_step(until, "until") if until is not None else max(10, round(1.1 * self.end))
        sparsity = [self(step) for step in range(last + 1)]
        alt = f"{self!r}: the sparsity at each step, from {sparsity[0]:.3g} at step 0 to {sparsity[-1]:.3g} at {last}."
        with style():
            figure = chart(2.8, alt=alt)
            axes = figure.add_subplot(xlabel="step", ylabel="sparsity", ylim=(-0.02, 1.02))
            axes.set_title(repr(self), fontsize=10.5, wrap=True)
            axes.step(range(last + 1), sparsity, where="post", color=COLOURS[0])
        return figure
