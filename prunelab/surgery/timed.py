"""How much must go for a measured latency: bisection on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from prunelab.evaluate.latency import latency

_STEPS = 7
_SECONDS = 0.6  # each measurement


def fraction_for_latency(
    dense: nn.Module, example_inputs: Any, share: float, build: Callable[[float], nn.Module]
) -> float:
    """The smallest fraction found at which the small network takes at most `share` of the dense one's time.

    Each candidate is built and timed in turn with the dense network. Raises ValueError, with the fastest that was seen,
    where even the smallest network takes longer.
    """

    # `speedup` of the dense network over the small one: its time in units of the dense one's.
    def time(fraction: float) -> float:
        return latency(dense, example_inputs, against=build(fraction), seconds=_SECONDS).speedup.paired

    if share >= 1:
        return 0.0
    if (least := time(1.0)) > share:
        raise ValueError(
            f"budget=('latency', {share}) cannot be reached: with one channel left in every group the network still "
            f"takes {least:.2f} of the dense one's time here; give a larger budget or larger inputs"
        )
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if time(middle) <= share else (middle, high)
    return high
