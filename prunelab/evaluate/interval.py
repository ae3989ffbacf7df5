"""A mean over seeds, and how far it can be trusted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from scipy.special import stdtrit


@dataclass(frozen=True)
class Interval:
    """The mean of `count` numbers, and half the width of its confidence interval.

    `mean` is NaN where there are no numbers, `half` where there are fewer than two: one number says nothing of its
    spread.
    """

    mean: float
    half: float
    count: int

    @property
    def low(self) -> float:
        """The lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The upper end."""
        return self.mean + self.half

    def __str__(self) -> str:
        """As "mean ± half", which no line break may part; without the half where it is not known."""
        if math.isnan(self.half):
            return f"{self.mean:.3f}" if self.count else "–"
        return f"{self.mean:.3f}\u00a0±\u00a0{self.half:.3f}"


def t_interval(values: Iterable[float], confidence: float = 0.95) -> Interval:
    """The mean of `values`, with Student's t-interval: mean ± t · s / √n, s the standard deviation (n - 1).

    In `confidence` of all repetitions the interval covers the true mean, if the values are independent and roughly
    normal. NaN among the values makes everything NaN.

    >>> interval = t_interval([0.90, 0.92, 0.94])
    >>> round(interval.mean, 3), round(interval.half, 4)                # t = 4.303 with 2 degrees of freedom
    (0.92, 0.0497)
    """
    check_confidence(confidence)
    numbers = [float(value) for value in values]
    count = len(numbers)
    if not all(map(math.isfinite, numbers)):  # infinities have a mean, but no spread
        return Interval(sum(numbers) / count, math.nan, count)
    mean = math.fsum(numbers) / count if count else math.nan
    if count < 2:
        return Interval(mean, math.nan, count)
    t = float(stdtrit(count - 1, (1 + confidence) / 2))
    return Interval(mean, t * statistics.stdev(numbers) / math.sqrt(count), count)


def check_confidence(confidence: float) -> None:
    """Raises ValueError for what is no confidence level."""
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, such as 0.95, not {confidence!r}")
