"""Tickets and races as charts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelab.chart import FAINT, INK, Chart, chart, label_ends, looks, style
from prunelab.evaluate.interval import Interval

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from prunelab.lottery.ticket import Ticket


def draw_race(means: pd.DataFrame, title: str, score: str) -> Chart:
    """One line an arm, of the mean against the fraction kept, on a logarithmic axis that runs towards less."""
    dense, curves = means[means["arm"] == "dense"], means[means["arm"] != "dense"]
    names = list(dict.fromkeys(curves["arm"]))
    said = [title or f"Mean {score} against the fraction of weights kept, over {means['count'].max()} seeds"]
    ends = []
    with style():
        figure = chart(3.6, alt="")
        axes = figure.subplots()
        for _, row in dense.iterrows():
            axes.axhspan(row["low"], row["high"], color="#c9ced6", zorder=0, linewidth=0)
            axes.axhline(row["mean"], color=INK, linewidth=1.2, zorder=1)
            ends.append((row["mean"], "dense", INK))
            said.append(f"dense: {_said(row)}")
        for name, look in zip(names, looks(len(names)), strict=True):
            points = curves[curves["arm"] == name].sort_values("kept", ascending=False)
            half = points["high"] - points["mean"]  # NaN where there is one seed: no bar is drawn then
            at = _beside(points["round"], curves)  # small networks have no masks: they stand where the ticket does
            axes.errorbar(at, points["mean"], yerr=half, capsize=3, elinewidth=1.3, **look)
            ends.append((points["mean"].iloc[-1], name, look["color"]))
            listed = ", ".join(f"{_said(row)} at {x:.3g}" for x, (_, row) in zip(at, points.iterrows(), strict=True))
            said.append(f"{name}: {listed}")
        _kept_axis(axes)
        axes.set(ylabel=score, title=title)
        label_ends(figure, axes, ends)
    figure.prunelab_alt = ". ".join(said) + "."
    return figure


def draw_ticket(found: Ticket, title: str) -> Chart:
    """What is kept of each parameter after each round; and, where it is known, the score of each round's network."""
    rounds = [one.number for one in found.rounds]
    curves = {
        name: [one.kept_by_parameter[name] / max(1, mask.numel()) for one in found.rounds]
        for name, mask in found.whole.items()
    }
    scores = [one.score for one in found.rounds]
    known = any(score is not None for score in scores)
    said = [title or f"{found!r}. Fraction kept of each parameter, by round"]
    with style():
        figure = chart(3.4 + 2.2 * known, alt="")
        panels = figure.subplots(1 + known, 1, squeeze=False, sharex=True)[:, 0]
        ends = []
        for (name, kept), look in zip(curves.items(), looks(len(curves)), strict=True):
            panels[0].plot([0, *rounds], [1.0, *kept], **look)
            ends.append((kept[-1] if kept else 1.0, name, look["color"]))
            said.append(f"{name}: {', '.join(f'{one:.3g}' for one in kept)}")
        panels[0].set(ylabel="fraction kept", ylim=(-0.03, 1.03), title=title)
        panels[0].grid(axis="y")
        if known:
            # A round's network was trained with the masks of the round before.
            panels[1].plot([one - 1 for one in rounds], scores, color=FAINT, marker="o")
            panels[1].set(ylabel="score")
            panels[1].grid(axis="y")
            said.append("score of the network trained with what the round before had left: ")
            said[-1] += ", ".join(f"{one:.3g}" for one in scores if one is not None)
        panels[-1].set_xlabel("round")
        label_ends(figure, panels[0], ends)
    figure.prunelab_alt = ". ".join(said) + "."
    return figure


def _beside(numbers: pd.Series, curves: pd.DataFrame) -> list[float]:
    """The fraction kept after each of these rounds, by the arms that have masks."""
    return [float(curves.loc[curves["round"] == number, "kept"].min()) for number in numbers]


def _kept_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xlabel("fraction of the weights kept")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if str(f"{x:g}")[-1] in "25" else "")
    axes.grid(axis="y")


def _said(row: pd.Series) -> str:
    return str(Interval(row["mean"], row["high"] - row["mean"], int(row["count"])))
