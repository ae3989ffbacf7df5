from __future__ import annotations

import sys
from base64 import b64decode
from collections.abc import Callable
from io import BytesIO

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from prunelab.lab import figure, plots
from prunelab.lab.figure import Picture
from prunelab.lab.history import Epoch, History

MASK = torch.tensor([[True, False, False, False], [False] * 4])


def runs() -> pd.DataFrame:
    rows = [
        {"arm": arm, "sparsity": sparsity, "seed": seed, "accuracy": value + 0.01 * seed}
        for arm, values in {"weight": (0.9, 0.8), "filter": (0.7, 0.5)}.items()
        for sparsity, value in zip((0.5, 0.9), values, strict=True)
        for seed in range(3)
    ]
    return pd.DataFrame(rows)


ALL: dict[str, Callable[[], Picture]] = {
    "weights": lambda: plots.weights(torch.randn(3, 4)),
    "convolution": lambda: plots.weights(torch.randn(3, 4, 2, 2), title="conv"),
    "zeros": lambda: plots.weights(torch.zeros(3, 4)),
    "mask": lambda: plots.mask(MASK),
    "mask1d": lambda: plots.mask(torch.rand(3, 2, 5) > 0.5),
    "layers": lambda: plots.sparsity_per_layer({"fc1.weight": MASK, "fc2.weight": ~MASK}),
    "tradeoff": lambda: plots.accuracy_against_sparsity(runs(), dense=[0.95, 0.96]),
    "history": lambda: plots.history(History([Epoch(1, 5, 1.0, 0.5)])),
}


@pytest.mark.parametrize("name", ALL)
def test_every_picture_says_what_it_shows_and_leaves_no_trace(name: str) -> None:
    before = dict(mpl.rcParams)
    drawn = ALL[name]()
    assert dict(mpl.rcParams) == before
    assert drawn.prunelab_alt.endswith(".")
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()
    bundle, metadata = drawn._repr_mimebundle_()
    image = Image.open(BytesIO(b64decode(bundle["image/png"])))
    shown = metadata["image/png"]
    assert image.size == (shown["width"] * 2, shown["height"] * 2)
    assert f'width="{shown["width"]}"' in bundle["text/html"]
    assert 'alt="' in bundle["text/html"]
    # A light card: opaque, and light at the corner, whatever the page's theme.
    assert image.convert("RGBA").getpixel((0, 0)) == (253, 253, 252, 255)


def test_alt_text_is_escaped() -> None:
    bundle, _ = plots.mask(MASK, title='a "<b>"')._repr_mimebundle_()
    assert 'alt="a &quot;&lt;b&gt;&quot;: a 2 × 4 mask with sparsity 0.875. 1 of 2 rows' in bundle["text/html"]


def test_the_alt_text_has_the_numbers() -> None:
    assert "sparsity 0.875" in plots.mask(MASK).prunelab_alt
    layers = plots.sparsity_per_layer({"a": MASK, "b": torch.ones(8, dtype=torch.bool)}).prunelab_alt
    assert "a 0.875, b 0.000; overall 0.438" in layers  # 7 of 16
    alt = plots.accuracy_against_sparsity(runs(), dense=[0.95, 0.97]).prunelab_alt
    assert "over 3 seeds" in alt
    assert "dense: 0.960 ± 0.014" in alt
    assert "filter: 0.710 ± 0.010 at 0.5, 0.510 ± 0.010 at 0.9" in alt


def test_kernels_are_tiled_filter_by_row_channel_by_column() -> None:
    kernels = torch.arange(2 * 3 * 2 * 2.0).reshape(2, 3, 2, 2)
    tiled, gaps = plots._tile(kernels.numpy())
    assert tiled.shape == (2 * 3 - 1, 3 * 3 - 1)
    assert (tiled[3:5, 6:8] == kernels[1, 2].numpy()).all()
    assert gaps[2].all()
    assert gaps[:, 5].all()
    assert gaps.sum() == 40 - 24


def test_error_bars_are_the_standard_deviation_over_seeds() -> None:
    drawn = plots.accuracy_against_sparsity(runs())
    axes = drawn.axes[0]
    container = axes.containers[0]
    line, _, (bars,) = container.lines
    np.testing.assert_allclose(line.get_ydata(orig=False), [0.91, 0.81])
    for segment in bars.get_segments():
        assert segment[1, 1] - segment[0, 1] == pytest.approx(2 * 0.01)  # sd of 0, 1, 2 is 1


def luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_ink_has_the_contrast_that_wcag_asks_for() -> None:
    ground = luminance(figure.GROUND) + 0.05
    for colour, ratio in ((figure.INK, 7), (figure.FAINT, 4.5), (figure.COLOURS[0], 4.5), (figure.COLOURS[1], 3)):
        assert ground / (luminance(colour) + 0.05) >= ratio
    assert len({*figure.MARKERS}) == len({*map(str, figure.LINES)}) == len({*figure.COLOURS})


def test_a_transparent_figure_gets_the_light_card() -> None:
    from matplotlib.figure import Figure

    clear = Figure(figsize=(1, 1), facecolor="none", layout="constrained")
    png, size = figure.to_png(clear)
    assert size == (110, 110)
    assert Image.open(BytesIO(png)).convert("RGB").getpixel((50, 50)) == (253, 253, 252)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plots.weights(torch.zeros(3)), ValueError, r"shape \(3,\)"),
        (lambda: plots.weights([1.0]), TypeError, "values is a list"),
        (lambda: plots.weights(torch.full((2, 2), float("nan"))), ValueError, "NaN"),
        (lambda: plots.mask(torch.ones(2, 2)), TypeError, r"torch\.float32.*bool mask"),
        (lambda: plots.sparsity_per_layer({}), ValueError, "empty"),
        (lambda: plots.history(History()), ValueError, "train first"),
        (lambda: plots.accuracy_against_sparsity(runs().drop(columns="seed")), ValueError, r"lacks.*\['seed'\]"),
        (lambda: plots.accuracy_against_sparsity(pd.concat([runs(), runs()])), ValueError, "occurs twice"),
        (lambda: plots.accuracy_against_sparsity(runs(), dense=[]), ValueError, "dense="),
        (lambda: plots.accuracy_against_sparsity(runs().assign(accuracy=float("nan"))), ValueError, "NaN"),
    ],
)
def test_errors_say_what_would_work(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_an_arm_looks_the_same_in_every_picture_with_the_same_arms() -> None:
    def lines(results: pd.DataFrame, arms: list[str] | None) -> dict[str, tuple[object, object]]:
        (axes,) = plots.accuracy_against_sparsity(results, arms=arms).axes
        return {bars.get_label(): (bars[0].get_color(), bars[0].get_marker()) for bars in axes.containers}

    filters = runs().query("arm == 'filter'")
    both, alone = lines(runs(), ["weight", "filter"]), lines(filters, ["weight", "filter"])
    assert set(both) == {"weight", "filter"}
    assert alone == {"filter": both["filter"]}
    assert lines(filters, None) == {"filter": both["weight"]}  # without the list it takes the first place
    with pytest.raises(ValueError, match=r"results has the arms \['weight'\]"):
        plots.accuracy_against_sparsity(runs(), arms=["filter"])


def test_masks_stand_side_by_side_under_their_names() -> None:
    shown = plots.masks({"one": MASK, "other": ~MASK, "conv": torch.rand(2, 3, 2, 2) > 0.5}, alt="three", columns=2)
    assert [axes.get_title() for axes in shown.axes] == ["one", "other", "conv", ""]
    assert [axes.images[0].get_array().shape for axes in shown.axes[:3]] == [(2, 4), (2, 4), (5, 8)]
    kept = [axes.images[0].get_array() == plots.KEPT for axes in shown.axes[:2]]
    assert kept[0].tolist() == MASK.tolist()
    assert kept[1].tolist() == (~MASK).tolist()
    assert shown.prunelab_alt == "three"


def test_a_caption_stands_below_its_picture_and_is_escaped() -> None:
    bundle, _ = plots.weights(torch.randn(3, 4)).captioned("1 < 2")._repr_mimebundle_()
    assert "<figcaption>1 &lt; 2</figcaption></figure>" in bundle["text/html"]
    assert "figcaption" not in plots.weights(torch.randn(3, 4))._repr_mimebundle_()[0]["text/html"]
