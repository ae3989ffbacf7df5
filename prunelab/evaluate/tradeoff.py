"""Trade-off curves of a sweep: what is kept of a score, against what is removed."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from prunelab.chart import COLOURS, FAINT, INK, Chart, chart, label_ends, looks, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def draw(summary: pd.DataFrame, value: str, against: str, confidence: float, title: str) -> Chart:
    """One panel a granularity, one line an arm, the dense network across; `summary` is that of `Sweep.summary`."""
    known = summary.dropna(subset=["mean"])
    dense, curves = known[known["kind"] == "dense"], known[known["kind"] != "dense"]
    names = list(dict.fromkeys(curves.loc[curves["kind"] == "method", "method"]))
    if len(names) > len(COLOURS):
        raise ValueError(f"{len(names)} methods, but only {len(COLOURS)} can be told apart; sweep fewer for one chart")
    if not len(curves):
        raise ValueError("no pruned network has a score, so there is no curve to draw; see .failures")
    # Functions of one's own do not say what they prune: their panel has no title, and chance is drawn there, too.
    shown = set(curves.loc[curves["kind"] == "method", "granularity"])
    if shown == {""}:
        curves = curves.assign(granularity="")
    panels = list(dict.fromkeys(curves["granularity"]))
    said = [title or f"{value} against {against}", f"Mean over up to {known['count'].max()} seeds"]
    said[-1] += f" with {confidence:.0%} confidence intervals"
    with style():
        figure = chart(3.2 * len(panels) + 0.3, alt="")
        grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
        said += [f"dense: {_said(row)}" for _, row in dense.iterrows()]
        ends = [
            _draw_panel(axes, curves[curves["granularity"] == panel], dense, against, names, said)
            for axes, panel in zip(grid, panels, strict=True)
        ]
        for axes, panel in zip(grid, panels, strict=True):
            axes.set(title=panel, ylabel=value)
            axes.grid(axis="y")
        grid[-1].set_xlabel(against)
        if title:
            figure.suptitle(title)
        for axes, labels in zip(grid, ends, strict=True):
            label_ends(figure, axes, labels)
    figure.prunelab_alt = ". ".join(said) + "."
    return figure


def _draw_panel(
    axes: Axes, curves: pd.DataFrame, dense: pd.DataFrame, against: str, names: list[str], said: list[str]
) -> list[tuple[float, str, str]]:
    """Draw the arms of one granularity, tell of them in `said`, and return the ends of their lines, to be labelled."""
    ends = []
    for _, row in dense.iterrows():
        axes.axhspan(row["low"], row["high"], color="#c9ced6", zorder=0, linewidth=0)
        axes.axhline(row["mean"], color=INK, linewidth=1.2, zorder=1)
        ends.append((row["mean"], "dense", INK))
    arms = list(curves.groupby(["method", "scope"], sort=False))
    for (name, scope), points in arms:
        shared = sum(other == name for (other, _), _ in arms) > 1
        label = f"{name}, {scope}" if shared else str(name)
        look = _look(names, name)
        half = points["high"] - points["mean"]  # NaN where there is one seed: no bar is drawn then
        axes.errorbar(points[against], points["mean"], yerr=half, capsize=3, elinewidth=1.3, **look)
        ends.append((points["mean"].iloc[-1], label, look["color"]))
        place = f" ({points['granularity'].iloc[0]})" if points["granularity"].iloc[0] else ""
        listed = ", ".join(f"{_said(row)} at {row[against]:.3g}" for _, row in points.iterrows())
        said.append(f"{label}{place}: {listed}")
    return ends


def _look(names: list[str], name: Hashable) -> dict[str, Any]:
    """A method looks the same in every panel; chance is grey."""
    if name not in names:
        return {"color": FAINT, "marker": "x", "linestyle": (0, (2, 2))}
    return looks(len(names))[names.index(str(name))]


def _said(row: pd.Series) -> str:
    half = row["high"] - row["mean"]
    return f"{row['mean']:.3f} ± {half:.3f}" if half == half else f"{row['mean']:.3f}"  # not NaN
