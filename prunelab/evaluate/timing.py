"""Timing calls against each other: in turn, warm, without the garbage collector, and with an interval for the ratio."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from prunelab.evaluate.interval import check_confidence
from prunelab.schedule.base import check_step

LEAST, MOST = 7, 501  # rounds where their number is not given; of fewer than 6, no interval has 95 % confidence
clock = time.perf_counter


@dataclass(frozen=True)
class Call:
    """What is timed: `run` does the work on `device`."""

    run: Callable[[], object]
    device: torch.device

    def seconds(self) -> float:
        """The time of one call: from when the device is idle until it is idle again."""
        self._settle()
        start = clock()
        self.run()
        self._settle()
        return clock() - start

    def _settle(self) -> None:
        if self.device.type != "cpu":  # there, work has been queued but not done when a call returns
            torch.accelerator.synchronize(self.device)


@dataclass(frozen=True)
class Speedup:
    """How many times as fast one thing was as another that ran in turn with it: > 1 is faster.

    - `ratio`: the other's median time / this one's.
    - `paired`: the median of the ratios round by round. What slows a whole round, such as another process, leaves it
      alone.
    - `low`, `high`: an interval for `paired` from order statistics (`median_interval`), of `confidence`.
    """

    ratio: float
    paired: float
    low: float
    high: float
    confidence: float

    @classmethod
    def of(cls, this: Sequence[float], other: Sequence[float]) -> Speedup:
        """From the seconds of both, in the same rounds."""
        ratios = np.divide(other, this)
        low, high, confidence = median_interval(ratios.tolist())
        return cls(float(np.median(other) / np.median(this)), float(np.median(ratios)), low, high, confidence)

    def __str__(self) -> str:
        return f"{self.paired:.2f}× ({self.low:.2f} to {self.high:.2f})"


def interleave(
    calls: Mapping[str, Call], *, repeats: int | None = None, warmup: int = 3, seconds: float = 1.5
) -> dict[str, tuple[float, ...]]:
    """The seconds of each call, round by round: in a round each runs once, in an order that turns every time.

    First come `warmup` rounds that do not count. With `repeats=None`, there are as many rounds as fit into `seconds`,
    but at least 7 and at most 501. The garbage collector is off while they run.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for _ in range(warmup):
        for name in names:
            calls[name].seconds()
    rounds, start = 0, clock()
    with _no_garbage_collection():
        while rounds < repeats if repeats is not None else _more(rounds, clock() - start, seconds):
            for name in names:
                samples[name].append(calls[name].seconds())
            names.reverse()
            rounds += 1
    return {name: tuple(times) for name, times in samples.items()}


def _more(rounds: int, passed: float, seconds: float) -> bool:
    return rounds < LEAST or (rounds < MOST and passed < seconds)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """(low, high, confidence reached) of an interval for the median of what `values` were drawn from.

    With the n values in order, the k-th smallest and the k-th largest: the true median lies outside with probability
    2 · P(Binomial(n, 1/2) < k), whatever the distribution, if the values are independent and it is continuous. k is the
    largest that leaves `confidence`; where none does (n < 6 at 0.95), the smallest and the largest value, and less
    confidence.

    >>> median_interval([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])
    (1, 6, 0.978515625)
    """
    check_confidence(confidence)
    ordered = sorted(values)
    n = len(ordered)
    k, outside = 1, 2 * 0.5**n
    while k < n // 2:
        more = outside + 2 * math.comb(n, k) * 0.5**n
        if more > 1 - confidence:
            break
        k, outside = k + 1, more
    return ordered[k - 1], ordered[n - k], 1 - outside


def check_settings(repeats: int | None, warmup: int, seconds: float, threads: int | None) -> None:
    """Raises ValueError or TypeError for settings that make no measurement."""
    if repeats is not None:
        check_step(repeats, "repeats", least=1)
    check_step(warmup, "warmup")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise ValueError(f"seconds must be a positive number, not {seconds!r}; it is what measuring may take")
    if threads is not None:
        check_step(threads, "threads", least=1)


@contextmanager
def threads_of(count: int | None) -> Iterator[int]:
    """Run inside with `count` threads an operation (None: as many as now); yields the number."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def describe(device: torch.device) -> str:
    """The device, and the name of the GPU: "cpu", "cuda:0 (NVIDIA H100)"."""
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"


def duration(seconds: float) -> str:
    """Seconds with three digits, in the unit that suits: "12.3 µs", "4.56 ms"."""
    for unit, size in (("µs", 1e-6), ("ms", 1e-3)):
        if seconds < 999.5 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
