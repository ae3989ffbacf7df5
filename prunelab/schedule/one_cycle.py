"""One-cycle pruning."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prunelab.schedule.base import check_step
from prunelab.schedule.ramp import Ramp


@dataclass(frozen=True)
class OneCycle(Ramp):
    """One-cycle pruning: a logistic curve over the whole training (Hubens 2021; Hubens et al. 2022).

    s(t) = initial + (final - initial) * (1 + exp(-alpha + beta)) / (1 + exp(-alpha * p + beta)),
    p = (t - start) / (end - start),                                        for start <= t <= end

    `beta` moves the steep part, which lies at p = beta / alpha: the post that introduced the schedule has alpha = 14
    and beta = 5, as here; the same author's library fasterai later has beta = 6.

    The formula does not begin at `initial`: at `start` it has gone (1 + exp(beta - alpha)) / (1 + exp(beta)) of the
    way, 0.7 % with these values. It is kept as printed, so there is a small jump at `start`; it ends exactly at
    `final`.

    >>> schedule = OneCycle(0.95, start=0, end=1000)
    >>> [round(schedule(step), 4) for step in (0, 100, 357, 500, 1000)]
    [0.0064, 0.0253, 0.4746, 0.8369, 0.95]
    """

    final: float
    start: int
    end: int
    every: int = 1
    alpha: float = 14
    beta: float = 5
    initial: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("alpha", 0), ("beta", -700)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} must be a number, not {value!r}")
            if not least <= value <= 700 or (name == "alpha" and value == 0):
                at_least = "more than 0" if name == "alpha" else f"at least {least}"
                raise ValueError(f"{name} must be {at_least} and at most 700, where exp overflows, not {value!r}")

    def curve(self, position: float) -> float:
        share = (1 + math.exp(-self.alpha + self.beta)) / (1 + math.exp(-self.alpha * position + self.beta))
        return self.initial + (self.final - self.initial) * share

    def __call__(self, step: int) -> float:
        if check_step(step) == self.start < self.end:
            return self._rounded(self.curve(0.0))  # not quite `initial`: see above
        return super().__call__(step)
