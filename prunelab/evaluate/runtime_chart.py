"""The chart of `SparseRuntime`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import LogFormatter

from prunelab.chart import INK, Chart, chart, looks, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from prunelab.evaluate.runtime_result import SparseRuntime


class _Times(LogFormatter):
    """0.5×, 2×: the ticks that a logarithmic axis names, those between its decades too where it spans few."""

    def __call__(self, value: float, position: int | None = None) -> str:
        return f"{value:g}×" if super().__call__(value, position) else ""


def draw(found: SparseRuntime) -> Chart:
    """Speedup against sparsity: one panel a layer, one line a way, intervals as bars, break-even as hollow circles."""
    said = [f"Speedup over the dense layer against sparsity, measured on {found.device}"]
    with style():
        figure = chart(3.0 * len(found.layers) + 0.6, alt="")
        panels = figure.subplots(len(found.layers), 1, squeeze=False)[:, 0]
        for axes, layer in zip(panels, found.layers, strict=True):
            said.append(f"{layer}: {_draw_panel(axes, found, layer)}")
        panels[0].plot([], [], "o", markersize=13, fillstyle="none", color=INK, label="faster from here")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        panels[-1].set_xlabel("sparsity")
    figure.prunelab_alt = ". ".join(said) + "."
    return figure


def _draw_panel(axes: Axes, found: SparseRuntime, layer: str) -> str:
    """Draw one layer, and return what is seen."""
    # Sparsities stand at equal distances: what matters happens between 0.9 and 1.
    sparsities = sorted({run.sparsity for run in found.records if run.layer == layer})
    places = np.arange(len(sparsities))
    said = []
    axes.axhline(1, color=INK, linewidth=1.2, zorder=1)
    for way, look in zip(found.ways, looks(len(found.ways)), strict=True):
        runs = [run for run in found.of(layer, way) if run.speedup is not None]
        if not runs:
            axes.plot([], [], " ", label=f"{way}: not available")
            said.append(f"{way} not available")
            continue
        x = np.interp([run.sparsity for run in runs], sparsities, places)
        middle, low, high = (np.array([getattr(run, name) for run in runs]) for name in ("speedup", "low", "high"))
        axes.errorbar(x, middle, yerr=[middle - low, high - middle], capsize=3, elinewidth=1.3, label=way, **look)
        start = found.break_even[layer][way]
        if start is not None:
            at = float(np.interp(start, sparsities, places))
            height = float(middle[0]) if start == runs[0].sparsity else 1.0
            axes.plot(at, height, "o", markersize=13, fillstyle="none", color=look["color"])
        points = ", ".join(f"{run.speedup:.2g} at {run.sparsity:g}" for run in runs)
        said.append(f"{way} {points}, {'never faster' if start is None else f'faster from {start:.2g}'}")
    axes.set(title=layer, ylabel="speedup over dense", yscale="log")
    axes.yaxis.set_major_formatter(_Times())
    axes.yaxis.set_minor_formatter(_Times())
    axes.set_xticks(places, [f"{s:g}" for s in sparsities])
    axes.grid(axis="y")
    return "; ".join(said)
