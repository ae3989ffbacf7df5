"""The course's pictures. Each function returns a matplotlib figure whose `prunelab_alt` says in words what it shows.

They are light cards, readable on light and dark pages (see `prunelab.lab.figure`), in colours that colour-blind readers
can tell apart; where several series meet, they also differ in marker and line style.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from prunelab.lab.extras import lab_extra
from prunelab.lab.figure import COLOURS, FAINT, GROUND, INK, LINES, MARKERS, Picture, picture, style

with lab_extra():
    import pandas as pd
    from matplotlib.colors import ListedColormap
    from matplotlib.ticker import MaxNLocator, PercentFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from prunelab.lab.history import History

GAP = 1  # pixels between kernels in a tiled picture
KEPT, PRUNED, BETWEEN = 2, 1, 0
PALE = "#cfdae4"


def weights(values: Tensor, *, title: str = "", limit: float | None = None) -> Picture:
    """A weight tensor as a heat map: blue negative, white zero, orange positive.

    Args:
        values: (O, I) of a linear layer, drawn as it is; or (O, I, kH, kW) of a convolution, drawn as O rows of I
            kernels; (O, I, k) likewise.
        title: above the picture and at the start of the alt text.
        limit: the magnitude of the darkest colours; give the same to pictures that are compared. Default: the largest.
    """
    matrix = _floats(values, "values")
    largest = float(np.abs(matrix).max()) if limit is None else float(limit)
    if not largest >= 0 or not np.isfinite(largest):
        raise ValueError(f"limit={largest}: the colours need a finite, non-negative magnitude; look for NaN or inf")
    tiled, gaps = _tile(matrix)
    zeros = float((matrix == 0).mean())
    alt = (
        f"{title or 'Weights'}: heat map of a {_shape(values)} tensor, from {matrix.min():.2g} to {matrix.max():.2g}; "
        f"{zeros:.0%} are exactly zero."
    )
    with style():
        figure = picture(_height(tiled), alt=alt, layout="compressed")
        axes = figure.add_subplot()
        image = axes.imshow(
            np.where(gaps, np.nan, tiled),
            cmap=_diverging(),
            vmin=-largest or -1,
            vmax=largest or 1,
            interpolation="none",
        )
        _frame(axes, title, values.dim())
        figure.colorbar(image, ax=axes, label="weight", shrink=0.8)
    return figure


def mask(kept: Tensor, *, title: str = "") -> Picture:
    """A mask as a picture: dark where a weight is kept, pale where it is pruned.

    Args:
        kept: bool, (O, I) or (O, I, kH, kW), True = kept, as in `Masks`.
        title: above the picture and at the start of the alt text.
    """
    if kept.dtype != torch.bool:
        raise TypeError(f"kept is a tensor of {kept.dtype}; give the bool mask itself, such as masks['fc1.weight']")
    matrix = _floats(kept, "kept")
    sparsity = 1 - float(matrix.mean())
    alt = f"{title or 'Mask'}: a {_shape(kept)} mask with sparsity {sparsity:.3f}. {_whole_rows(matrix)}"
    with style():
        figure = picture(_height(_tile(matrix)[0]), alt=alt, layout="compressed")
        axes = figure.add_subplot()
        _draw_mask(axes, matrix)
        _frame(axes, title, kept.dim())
        handles = [axes.plot([], [], "s", color=c, markeredgecolor=FAINT)[0] for c in (COLOURS[0], PALE)]
        figure.legend(
            handles, [f"kept {1 - sparsity:.1%}", f"pruned {sparsity:.1%}"], loc="outside lower center", ncols=2
        )
    return figure


def masks(kept: Mapping[str, Tensor], *, alt: str, columns: int = 3) -> Picture:
    """Several masks side by side, each under its name: dark where kept, pale where pruned.

    Args:
        kept: title -> bool tensor, (O, I) or (O, I, kH, kW), True = kept.
        alt: what the pictures show together.
        columns: how many stand in a row.
    """
    rows = math.ceil(len(kept) / columns)
    with style():
        figure = picture(1.75 * rows + 0.2, alt=alt, layout="compressed")
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for axes in panels:
            axes.set_axis_off()
        for axes, (title, one) in zip(figure.axes, kept.items(), strict=False):
            _draw_mask(axes, _floats(one, title))
            axes.set_title(title)
    return figure


def sparsity_per_layer(masks: Mapping[str, Tensor], *, title: str = "Sparsity per layer") -> Picture:
    """The fraction pruned of each parameter in `masks` as bars, with the overall sparsity as a line.

    Args:
        masks: parameter name -> bool tensor, True = kept, such as `prunelab.Masks`.
    """
    if not masks:
        raise ValueError("masks is empty; there is no layer to draw")
    names = list(masks)
    sizes = np.array([masks[name].numel() for name in names])
    gone = np.array([int((~masks[name]).sum()) for name in names])
    each, overall = gone / np.maximum(sizes, 1), gone.sum() / max(sizes.sum(), 1)
    listed = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, each, strict=True))
    with style():
        figure = picture(1.3 + 0.36 * len(names), alt=f"{title}: {listed}; overall {overall:.3f}.")
        axes = figure.add_subplot()
        bars = axes.barh(names, each, color=COLOURS[0], height=0.62)
        labels = [f"{value:.1%} of {size:,}" for value, size in zip(each, sizes, strict=True)]
        axes.bar_label(bars, labels, padding=4, bbox={"facecolor": GROUND, "edgecolor": "none", "pad": 1})
        axes.axvline(overall, color=COLOURS[1], linestyle="--", label=f"overall {overall:.1%}")
        axes.invert_yaxis()
        axes.set(xlim=(0, 1.5), xlabel="sparsity", title=title)
        axes.set_xticks(np.linspace(0, 1, 5))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        figure.legend(loc="outside lower center")
    return figure


def accuracy_against_sparsity(
    results: pd.DataFrame,
    *,
    dense: Sequence[float] | None = None,
    arms: Sequence[str] | None = None,
    title: str = "",
    accuracy: str = "accuracy",
) -> Picture:
    """Arms against each other: mean accuracy at each sparsity, seeds as error bars, the dense network as a band.

    Args:
        results: tidy, one row a run, with the columns `arm`, `sparsity` (fraction), `seed` and `accuracy`. Bars are the
            standard deviation over seeds (n - 1), the dense band likewise.
        dense: accuracies of the dense network, one a seed.
        arms: the order of the arms. Give two pictures the same list, and an arm looks the same in both, even where
            `results` lacks some of them; by default the order in `results`.
        accuracy: the column to draw, if it has another name.

    Raises:
        ValueError: a column is missing or holds NaN, an (arm, sparsity, seed) occurs twice, or `arms` lacks an arm.
    """
    _check_results(results, accuracy)
    arms = list(dict.fromkeys(results["arm"] if arms is None else arms))
    if missing := set(results["arm"]) - set(arms):
        raise ValueError(f"results has the arms {sorted(missing)}, which arms={arms} does not name")
    if len(arms) > len(COLOURS):
        raise ValueError(f"{len(arms)} arms, but only {len(COLOURS)} can be told apart; draw fewer in one picture")
    seeds = results["seed"].nunique()
    said = [title or f"{accuracy.capitalize()} against sparsity, mean and standard deviation over {seeds} seeds"]
    with style():
        figure = picture(4.0 + 0.22 * (len(arms) // 2), alt="")
        axes = figure.add_subplot()
        if dense is not None:
            said.append(_draw_dense(axes, np.asarray(dense, dtype=float)))
        for index, arm in enumerate(arms):
            runs = results[results["arm"] == arm].groupby("sparsity")[accuracy]
            if not len(runs):
                continue
            mean, spread = runs.mean(), runs.std().fillna(0.0)
            # A slight shift keeps the bars of arms at the same sparsity from hiding each other.
            shift = (index - (len(arms) - 1) / 2) * 0.004 * np.ptp(results["sparsity"])
            axes.errorbar(
                mean.index.to_numpy() + shift, mean, yerr=spread, color=COLOURS[index], marker=MARKERS[index],
                linestyle=LINES[index], capsize=3, elinewidth=1.3, label=str(arm),
            )  # fmt: skip
            points = ", ".join(f"{mean[at]:.3f} ± {spread[at]:.3f} at {at:.3g}" for at in mean.index)
            said.append(f"{arm}: {points}")
        axes.set(xlabel="sparsity", ylabel=accuracy, title=title)
        axes.grid(axis="y")
        figure.legend(loc="outside lower center", ncols=2)
    figure.prunelab_alt = ". ".join(said) + "."
    return figure


def history(run: History) -> Picture:
    """Loss and accuracy of a training run against its epochs, training and validation."""
    epochs = [record.epoch for record in run.epochs]
    if not epochs:
        raise ValueError("the history is empty; train first")
    columns = {
        "loss": ([r.train_loss for r in run.epochs], [r.val_loss for r in run.epochs]),
        "accuracy": ([r.train_accuracy for r in run.epochs], [r.val_accuracy for r in run.epochs]),
    }
    with style():
        figure = picture(4.6, alt=f"Loss and accuracy against epoch. {run}.")
        for panel, (name, (train, val)) in zip(figure.subplots(2, 1, sharex=True), columns.items(), strict=True):
            panel.plot(epochs, train, color=COLOURS[0], marker=_dots(epochs), label="training")
            if val[0] is not None:
                panel.plot(epochs, val, color=COLOURS[1], linestyle="--", marker=_dots(epochs, "s"), label="validation")
            if run.restored is not None:
                panel.axvline(run.restored, color=FAINT, linestyle=":", label="weights restored")
            panel.set_ylabel(name)
            panel.grid(axis="y")
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _draw_dense(axes: Axes, dense: np.ndarray) -> str:
    if not dense.size or not np.isfinite(dense).all():
        raise ValueError(f"dense={dense.tolist()}: give the finite accuracies of the dense network, one a seed")
    mean, spread = dense.mean(), dense.std(ddof=1) if dense.size > 1 else 0.0
    axes.axhspan(mean - spread, mean + spread, color="#c9ced6", zorder=0, linewidth=0)
    axes.axhline(mean, color=INK, linewidth=1.2, label="dense", zorder=1)
    return f"dense: {mean:.3f} ± {spread:.3f}"


def _check_results(results: pd.DataFrame, accuracy: str) -> None:
    wanted = ["arm", "sparsity", "seed", accuracy]
    missing = [name for name in wanted if name not in results.columns]
    if missing:
        raise ValueError(f"results lacks the columns {missing}; it needs {wanted} and has {list(results.columns)}")
    if not len(results) or results[wanted].isna().any().any():
        raise ValueError("results is empty or holds NaN; every run needs its arm, sparsity, seed and accuracy")
    twice = results.duplicated(["arm", "sparsity", "seed"])
    if twice.any():
        run = results.loc[twice, ["arm", "sparsity", "seed"]].iloc[0].to_dict()
        raise ValueError(f"the run {run} occurs twice; one row a run, or the spread over seeds is wrong")


def _floats(values: Tensor, name: str) -> np.ndarray:
    """The tensor as (O, I) or (O, I, kH, kW) numbers."""
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} is a {type(values).__name__}; give a tensor")
    if values.dim() not in {2, 3, 4} or not values.numel():
        raise ValueError(f"{name} has the shape {tuple(values.shape)}; give (O, I), (O, I, k) or (O, I, kH, kW)")
    matrix = values.detach().cpu().double().numpy()
    return matrix[:, :, None, :] if values.dim() == 3 else matrix


def _tile(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lay kernels out as O rows of I, gaps between them; return the picture and where the gaps are."""
    if matrix.ndim == 2:
        return matrix, np.zeros(matrix.shape, dtype=bool)
    outputs, inputs, high, wide = matrix.shape
    pad = [(0, 0), (0, 0), (0, GAP), (0, GAP)]
    gaps = np.pad(np.zeros(matrix.shape, dtype=bool), pad, constant_values=True)
    shape = (outputs * (high + GAP), inputs * (wide + GAP))
    tiled = np.pad(matrix, pad).transpose(0, 2, 1, 3).reshape(shape)
    return tiled[:-GAP, :-GAP], gaps.transpose(0, 2, 1, 3).reshape(shape)[:-GAP, :-GAP]


def _draw_mask(axes: Axes, matrix: np.ndarray) -> None:
    tiled, gaps = _tile(matrix)
    codes = np.where(gaps, BETWEEN, np.where(tiled > 0, KEPT, PRUNED))
    colours = ListedColormap([GROUND, PALE, COLOURS[0]])
    axes.imshow(codes, cmap=colours, vmin=BETWEEN, vmax=KEPT, interpolation="none")


def _height(tiled: np.ndarray) -> float:
    rows, columns = tiled.shape
    return float(np.clip(4.0 * rows / columns + 1.2, 2.0, 5.6))


def _frame(axes: Axes, title: str, dims: int) -> None:
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set(xlabel="input" if dims == 2 else "input channel", ylabel="output" if dims == 2 else "filter")


def _diverging() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    # Through white at zero, so that pruned weights vanish into the paper; the ends differ in hue for every eye.
    colours = LinearSegmentedColormap.from_list("prunelab", [COLOURS[0], "#8fc1e3", "#ffffff", "#f2ae7b", COLOURS[1]])
    return colours.with_extremes(bad=FAINT)


def _whole_rows(matrix: np.ndarray) -> str:
    empty = int((matrix.reshape(len(matrix), -1).max(1) == 0).sum())
    return f"{empty} of {len(matrix)} rows (filters or neurons) are pruned entirely."


def _shape(values: Tensor) -> str:
    return " × ".join(map(str, values.shape))


def _dots(epochs: list[int], marker: str = "o") -> str:
    return marker if len(epochs) <= 20 else ""
