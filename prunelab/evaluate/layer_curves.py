"""The chart of a sensitivity analysis: one line a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping

from prunelab.chart import INK, Chart, chart, label_ends, looks, style
from prunelab.evaluate.interval import Interval


def draw(curves: Mapping[str, Mapping[float, Interval]], dense: Interval, title: str) -> Chart:
    """Score against sparsity for each layer; `curves` is layer → sparsity → score. See `Sensitivity.plot`."""
    said = [title or "Score against the sparsity of one layer, the others as they are", f"dense: {dense}"]
    with style():
        figure = chart(3.4 + 0.18 * max(0, len(curves) - 12), alt="")
        axes = figure.add_subplot(xlabel="sparsity of the layer", ylabel="score", title=title)
        axes.axhline(dense.mean, color=INK, linewidth=1.0, zorder=0)
        ends = []
        for (layer, points), look in zip(curves.items(), looks(len(curves)), strict=True):
            means = [dense.mean, *(interval.mean for interval in points.values())]
            halves = [math.nan, *(interval.half for interval in points.values())]  # NaN draws no bar
            axes.errorbar([0.0, *points], means, yerr=halves, capsize=2, elinewidth=1, **look)
            ends.append((means[-1], layer, look["color"]))
            listed = ", ".join(f"{interval} at {sparsity:.3g}" for sparsity, interval in points.items())
            said.append(f"{layer}: {listed or 'nothing could be removed'}")
        axes.grid(axis="y")
        label_ends(figure, axes, ends, size=10.5 if len(curves) <= 12 else 8.5)
    figure.prunelab_alt = ". ".join(said) + "."
    return figure
