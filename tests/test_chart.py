"""Charts: alt text, labels that do not overlap, and looks that can be told apart without colour."""

from __future__ import annotations

import subprocess
import sys
from base64 import b64decode
from itertools import pairwise

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunelab.chart import apart, chart, label_ends, looks, style

PLACES = st.lists(st.floats(-50, 150), min_size=1, max_size=12)


@given(PLACES, st.floats(0.1, 30))
def test_places_apart(wanted: list[float], gap: float) -> None:
    places = apart(wanted, gap, 0.0, 100.0)
    needed = min(gap, 100 / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    ranked = [places[index] for index in order]
    assert all(b - a >= needed - 1e-6 for a, b in pairwise(ranked))
    assert all(-1e-6 <= place <= 100 + 1e-6 for place in places)


def test_a_crowd_pushes_its_neighbour() -> None:
    # Without the gaps 3.5 5 3 1; 5 and 3 share 4, with 1 they share 3, which is below 3.5: all share 3.125.
    assert apart([3.5, 7.0, 7.0, 7.0], 2.0, 0.0, 100.0) == [3.125, 5.125, 7.125, 9.125]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=8, unique=True))
def test_places_that_have_room_stay(wanted: list[int]) -> None:
    assert apart([5.0 * one for one in wanted], 5.0, 0.0, 100.0) == pytest.approx([5.0 * one for one in wanted])


@given(st.lists(st.floats(20, 80), min_size=2, max_size=6))
def test_places_move_no_more_than_they_must(wanted: list[float]) -> None:
    """The sum of squared moves is least: no other places with the same gaps are nearer (checked by a solver)."""
    from scipy.optimize import minimize

    places, order = apart(wanted, 4.0, 0.0, 100.0), sorted(range(len(wanted)), key=lambda index: wanted[index])
    gaps = [{"type": "ineq", "fun": lambda x, a=a, b=b: x[b] - x[a] - 4.0} for a, b in pairwise(order)]
    start = [4.0 * order.index(index) + 20 for index in range(len(wanted))]
    best = minimize(lambda x: sum((a - b) ** 2 for a, b in zip(x, wanted, strict=True)), start, constraints=gaps)
    assert sum((a - b) ** 2 for a, b in zip(places, wanted, strict=True)) <= best.fun + 1e-4


@pytest.mark.parametrize("count", [1, 7, 8, 30])
def test_lines_can_be_told_apart_without_colour(count: int) -> None:
    drawn = looks(count)
    assert len(drawn) == count
    assert len({(look["marker"], str(look["linestyle"])) for look in drawn}) == count
    assert len({look["color"] for look in drawn}) == count


def contrast(colour: str) -> float:
    """With the ground of the chart, as WCAG 2 defines it."""

    def luminance(name: str) -> float:
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in mpl.colors.to_rgb(name)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(colour), luminance("#fdfdfc")))
    return (light + 0.05) / (dark + 0.05)


def test_labels_are_dark_and_lines_are_not_too_pale() -> None:
    with style():
        figure = chart(3, alt="two lines")
        axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1))
        label_ends(figure, axes, [(0.5, "one", "#e69f00"), (0.5, "two", "#0072b2")])
        one, two = axes.texts
        assert min(contrast(text.get_color()) for text in (one, two)) > 7
        boxes = [text.get_window_extent() for text in (one, two)]
        assert boxes[0].y1 <= boxes[1].y0 + 1  # pixels: they do not lie on each other
        figure.draw_without_rendering()
        assert all(text.get_window_extent().x1 <= figure.bbox.x1 + 1 for text in (one, two))
    assert min(contrast(look["color"]) for look in looks(20)) > 1.6


def test_a_notebook_gets_the_alt_text_and_the_caption() -> None:
    figure = chart(2, alt='a "quoted" <b> line').captioned("Look & see")
    data, metadata = figure._repr_mimebundle_()
    assert 'alt="a &quot;quoted&quot; &lt;b&gt; line"' in data["text/html"]
    assert "<figcaption>Look &amp; see</figcaption>" in data["text/html"]
    assert data["text/plain"] == '[figure: a "quoted" <b> line]'
    assert b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == 'a "quoted" <b> line'
    assert "figure class" not in chart(2, alt="bare")._repr_mimebundle_()[0]["text/html"]


def test_the_readers_own_settings_are_back_afterwards() -> None:
    before = dict(mpl.rcParams)
    with style():
        assert mpl.rcParams["axes.spines.top"] is False
    assert dict(mpl.rcParams) == before


def test_what_is_missing_is_said_by_the_name_that_needs_it() -> None:
    """Without the extra `lab`: importing works, and what needs it names the command."""
    code = """
import sys
for name in ("matplotlib", "pandas", "tqdm", "joblib", "cloudpickle"):
    sys.modules[name] = None
from prunelab.evaluate.engine import Processes
from prunelab.evaluate.layerwise import Reading, Sensitivity
from prunelab.evaluate.sensitivity import sensitivity
from prunelab.evaluate.sweep import sweep
result = Sensitivity((Reading("a", 0.5, 0, 0.5, 0.9),), {0: 1.0}, {"a": ("a",)})
print(result.threshold(0.2), "0.900" in result._repr_html_())
import torch
for attempt in (result.plot, result.frame, lambda: list(Processes(2).map(abs, [1])), lambda: sensitivity(torch.nn.Linear(1, 1), id)):
    try:
        attempt()
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    way_out = 'which is not installed: pip install "prunelab[lab]"'
    assert done.stdout.splitlines() == [
        "{'a': 0.5} True",
        f"a plot needs matplotlib, {way_out}",
        f"a table needs pandas, {way_out}",
        f"jobs > 1 needs cloudpickle, {way_out}",
        f"a progress bar needs tqdm, {way_out}",
    ]
