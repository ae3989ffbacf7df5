"""The chart of a report: theory beside practice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from prunelab.chart import COLOURS, INK, Chart, chart, style

if TYPE_CHECKING:
    from prunelab.evaluate.report import Report

Bar: TypeAlias = tuple[str, float, tuple[float, float] | None]  # name, ratio, interval


def draw(report: Report) -> Chart:
    """Four bars: what should become of size and speed, and what does, as ratios to the dense network."""
    latency = report.latency
    bars: list[Bar] = [
        ("compression ratio\n(theory)", report.compression_ratio, None),
        ("file, zeros left out\n(practice)", report.bytes_ratio, None),
        ("theoretical speedup\n(theory)", report.theoretical_speedup, None),
    ]
    if latency.against:
        speedup = latency.speedup
        bars.append(("measured speedup\n(practice)", speedup.paired, (speedup.low, speedup.high)))
    finite = [value for _, value, _ in bars if math.isfinite(value)]
    longest = 1.15 * max([1.0, *finite])  # stands for a ratio without bound
    title = f"{report.model}: dense / this network"
    with style():
        figure = chart(0.9 + 0.6 * len(bars), alt=f"{title}. {_said(bars)}. Latency: {latency.conditions}.")
        axes = figure.add_subplot()
        for place, (_, value, interval) in enumerate(bars):
            theory = place % 2 == 0
            error = None if interval is None else [[value - interval[0]], [interval[1] - value]]
            axes.barh(place, min(value, longest), xerr=error, height=0.62, capsize=4, edgecolor=INK,
                      color=COLOURS[0] if theory else COLOURS[5], hatch="" if theory else "//")  # fmt: skip
            end = min(value, longest) if interval is None else interval[1]
            axes.annotate(_times(value), (end, place), (5, 0), textcoords="offset points", va="center")
        axes.axvline(1, color=INK, linewidth=1.2)
        axes.set_yticks(range(len(bars)), [name for name, _, _ in bars])
        axes.invert_yaxis()
        axes.set(title=title, xlim=(0, 1.15 * longest), xlabel="ratio (1 is the dense network)")
    return figure


def _said(bars: Sequence[Bar]) -> str:
    parts = []
    for name, value, interval in bars:
        between = "" if interval is None else f", interval {interval[0]:.2f} to {interval[1]:.2f}"
        parts.append(f"{name.replace(chr(10), ' ')} {_times(value)}{between}")
    return "; ".join(parts)


def _times(ratio: float) -> str:
    return f"{ratio:,.2f}×"
