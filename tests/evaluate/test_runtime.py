"""Ways to run a pruned layer: each computes what it should, none is left out in silence, and where each begins to pay."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from prunelab.evaluate import Run, SparseRuntime, sparse_runtime, ways
from prunelab.evaluate.ways import Prepared, Problem

WAYS = ["zeros", "CSR", "block-CSR", "removed channels"]


def prepare(way: str, problem: Problem, sparsity: float, block: int = 4) -> Prepared:
    draw = torch.Generator().manual_seed(0)
    return {
        "zeros": lambda: ways.zeros(problem, sparsity, draw),
        "CSR": lambda: ways.csr(problem, sparsity, draw),
        "block-CSR": lambda: ways.block_csr(problem, sparsity, draw, block),
        "removed channels": lambda: ways.removed_channels(problem, sparsity),
    }[way]()


def linear(outputs: int, inputs: int) -> Problem:
    """With the unit matrix as input, so that the output is the weight that was really used, transposed."""
    return Problem(torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(1)), torch.eye(inputs))


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("way", ["zeros", "CSR", "block-CSR"])
def test_what_is_left_are_the_weights_themselves(way: str, sparsity: float) -> None:
    problem = linear(12, 20)
    prepared = prepare(way, problem, sparsity)
    used = prepared.run().t()
    gone = used == 0
    assert torch.equal(used[~gone], problem.weight[~gone])
    units = gone.reshape(3, 4, 5, 4).transpose(1, 2).flatten(2) if way == "block-CSR" else gone.reshape(-1, 1)
    assert torch.equal(units.any(-1), units.all(-1))  # whole blocks
    assert int(units.all(-1).sum()) == round(sparsity * units[..., 0].numel())
    assert prepared.removed == pytest.approx(float(gone.float().mean()))


def test_zeros_and_csr_have_the_same_zeros() -> None:
    assert torch.equal(prepare("zeros", linear(12, 20), 0.7).run(), prepare("CSR", linear(12, 20), 0.7).run())


@pytest.mark.parametrize(("sparsity", "kept"), [(0.0, (12, 20)), (0.75, (6, 10)), (0.5, (8, 14)), (1.0, (1, 1))])
def test_removed_channels_leave_a_smaller_layer(sparsity: float, kept: tuple[int, int]) -> None:
    """The root of 1 - sparsity is left of both sides: half of each at 0.75, 8.49 of 12 and 14.1 of 20 at 0.5."""
    problem = linear(12, 20)
    prepared = prepare("removed channels", problem, sparsity)
    assert torch.equal(prepared.run().t()[:, : kept[1]], problem.weight[: kept[0], : kept[1]])
    assert prepared.run().shape == (20, kept[0])
    assert prepared.removed == pytest.approx(1 - kept[0] * kept[1] / 240)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_convolution_computes_the_same(way: str, sparsity: float, dtype: torch.dtype, device: torch.device) -> None:
    draw = torch.Generator().manual_seed(2)
    weight = torch.randn(8, 8, 3, 3, generator=draw).to(device, dtype)
    x = torch.randn(5, 8, 4, 6, generator=draw).to(device, dtype)
    prepared = prepare(way, Problem(weight, x), sparsity)
    assert prepared.run().shape == prepared.expected.shape == (5, len(prepared.expected[0]), 4, 6)
    assert prepared.error() < (1e-4 if dtype == torch.float32 else 1e-12)


def test_the_sparse_product_of_a_convolution_is_the_convolution() -> None:
    weight, x = torch.randn(6, 4, 3, 3, dtype=torch.float64), torch.randn(2, 4, 5, 7, dtype=torch.float64)
    problem = Problem(weight, x)
    torch.testing.assert_close(problem.product(weight.flatten(1)), F.conv2d(x, weight, padding=1))
    torch.testing.assert_close(problem.dense(weight, x), F.conv2d(x, weight, padding=1))


def test_the_error_is_the_largest_deviation_over_the_largest_output() -> None:
    expected = torch.tensor([[2.0, -8.0]], dtype=torch.float64)
    assert Prepared(lambda: torch.tensor([[3.0, -8.0]]), expected, 0.0).error() == 1 / 8
    assert Prepared(lambda: torch.tensor([[0.5]]), torch.zeros(1, 1), 0.0).error() == 0.5
    assert math.isnan(Prepared(lambda: torch.tensor([[torch.nan]]), torch.ones(1, 1), 0.0).error())


def test_what_two_of_four_needs() -> None:
    with pytest.raises(ValueError, match=r"needs an NVIDIA GPU.*not cpu"):
        ways.two_of_four(linear(4, 4))


@pytest.mark.parametrize("shape", [(3, 8), (3, 10), (2, 3, 3, 3)])
def test_half_of_a_weight_has_the_pattern(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape)
    half = ways.half_of(weight)
    assert all(int((group != 0).sum()) == min(2, len(group)) for row in half.flatten(1) for group in row.split(4))
    assert torch.equal(half[half != 0], weight[half != 0])


# --- the whole ----------------------------------------------------------------------------------------------------------

runtime = import_module("prunelab.evaluate.runtime")


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Instead of measuring: what ran in turn; each way takes a second more than the one before it."""
    seen: list[list[str]] = []

    def interleave(calls: dict[str, Any], *, seconds: float) -> dict[str, tuple[float, ...]]:
        seen.append(list(calls))
        for call in calls.values():
            call.run()
        return {name: (float(i),) * 7 for i, name in enumerate(calls, start=1)}

    monkeypatch.setattr(runtime, "interleave", interleave)
    return seen


def test_every_way_at_every_sparsity_is_measured_in_turn_with_dense(timed: list[list[str]]) -> None:
    found = sparse_runtime([8, 16], 8, sparsities=[0.9, 0.5], batch=[2, 3], image=4, block=4, device="cpu")
    assert timed == [["dense", *WAYS]] * (3 * 2 * 2)  # layers, batches, sparsities
    assert found.layers == [
        "Linear(8, 8), batch 2", "Linear(8, 8), batch 3", "Linear(16, 16), batch 2", "Linear(16, 16), batch 3",
        "Conv2d(8, 8, 3), batch 2 of 4 × 4", "Conv2d(8, 8, 3), batch 3 of 4 × 4",
    ]  # fmt: skip
    assert found.ways == [*WAYS, "2:4"]
    first = [run for run in found.records if run.layer == "Linear(8, 8), batch 2"]
    assert [(run.sparsity, run.way) for run in first] == [
        *((0.5, way) for way in WAYS), (0.5, "2:4"), *((0.9, way) for way in WAYS),
    ]  # fmt: skip
    zeros, csr = first[:2]
    assert (zeros.seconds, zeros.dense_seconds, zeros.speedup, zeros.low, zeros.high) == (2.0, 1.0, 0.5, 0.5, 0.5)
    assert (csr.first_quartile, csr.third_quartile, csr.speedup) == (3.0, 3.0, 1 / 3)
    assert csr.removed == 0.5
    assert csr.error < 1e-5


def test_two_of_four_is_named_where_it_cannot_run(timed: list[list[str]]) -> None:
    """Also where nobody asked for one half: then alone, and nothing is timed for it."""
    found = sparse_runtime(8, (), sparsities=0.9, batch=2, block=4, device="cpu")
    assert [(run.way, run.sparsity, run.speedup) for run in found.records if run.way == "2:4"] == [("2:4", 0.5, None)]
    assert timed == [["dense", *WAYS]]
    assert "2:4 not available for Linear(8, 8), batch 2: needs an NVIDIA GPU" in str(found)


def test_blocks_that_do_not_fit_are_named(timed: list[list[str]]) -> None:
    found = sparse_runtime(10, (), sparsities=0.9, block=4, device="cpu")
    assert timed == [["dense", "zeros", "CSR", "removed channels"]]
    note = next(run.note for run in found.records if run.way == "block-CSR")
    assert note == "a matrix of 10 × 10 has no whole blocks of 4 × 4"


@pytest.mark.parametrize(
    ("broken", "note"),
    [
        (lambda *_: Prepared(lambda: torch.ones(64, 8), torch.zeros(64, 8), 0.5), "computes something else: relative error 1.0e+00"),
        (lambda *_: Prepared(lambda: torch.full((64, 8), math.nan), torch.ones(64, 8), 0.5), "computes something else: relative error nan"),
        (lambda *_: torch.ones(2) @ torch.ones(3), "inconsistent tensor size"),
    ],
)  # fmt: skip
def test_what_computes_something_else_or_fails_is_named_and_not_timed(
    broken: Callable[..., Any], note: str, timed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "csr", broken)
    found = sparse_runtime(8, (), sparsities=0.9, block=4, device="cpu")
    assert timed == [["dense", "zeros", "block-CSR", "removed channels"]]
    run = next(run for run in found.records if run.way == "CSR")
    assert note in run.note
    assert (run.speedup, run.seconds, run.error) == (None, None, None)
    assert found.break_even["Linear(8, 8), batch 64"]["CSR"] is None


def test_a_real_run(device: torch.device) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    found = sparse_runtime(64, 32, sparsities=[0.0, 0.5, 1.0], batch=2, image=4, device=device, threads=2, seconds=1e-3)
    assert (torch.get_num_threads(), found.threads) == (threads, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    measured = [run for run in found.records if run.way in WAYS]
    assert len(measured) == 2 * 3 * 4
    for run in measured:
        assert run.note == ""
        assert 0 < run.low <= run.speedup <= run.high
        assert 0 < run.first_quartile <= run.seconds <= run.third_quartile
        assert run.error < 2e-3 if found.dtype == "float32" else 1e-2


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"sizes": 0}, ValueError, "sizes must be a whole number, 1 or more"),
        ({"channels": [2.5]}, ValueError, "channels must be a whole number"),
        ({"batch": 0}, ValueError, "batch must be a whole number"),
        ({"image": 0}, ValueError, "image must be a whole number"),
        ({"block": 0}, ValueError, "block must be a whole number"),
        ({"sparsities": [50]}, ValueError, "a sparsity must lie between 0 and 1.*did you mean 0.5"),
        ({"sparsities": ["half"]}, TypeError, "a sparsity must be a number"),
        ({"sparsities": []}, ValueError, "there is nothing to measure"),
        ({"sizes": (), "channels": ()}, ValueError, "there is nothing to measure"),
        ({"batch": []}, ValueError, "there is nothing to measure"),
        ({"seconds": -1}, ValueError, "seconds must be a positive number"),
        ({"threads": 0}, ValueError, "threads must be"),
        ({"dtype": torch.int8}, ValueError, r"dtype must be one of torch.float64.*not torch.int8"),
    ],
)
def test_settings_that_measure_nothing_are_refused(settings: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        sparse_runtime(**{"device": "cpu"} | settings)


# --- what it says -------------------------------------------------------------------------------------------------------


def result(points: list[tuple[float, float, float]], way: str = "CSR", **fields: Any) -> SparseRuntime:
    """From (sparsity, speedup, low) of one way."""
    runs = [
        Run("L", way, s, removed=s, seconds=1 / v, first_quartile=0.9 / v, third_quartile=1.1 / v, dense_seconds=1.0,
            speedup=v, low=low, high=2 * v - low, error=1e-7)
        for s, v, low in points
    ]  # fmt: skip
    return SparseRuntime(tuple(runs), "cpu", 1, "float32", **fields)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(0.5, 0.5, 0.4), (0.9, 2.0, 1.9)], 0.7),  # half way: log ½ and log 2 are as far from 0
        ([(0.5, 0.25, 0.2), (0.8, 2.0, 1.9), (0.9, 4.0, 3.9)], 0.7),  # two thirds of the way
        ([(0.9, 2.0, 1.9), (0.5, 0.5, 0.4)], 0.7),  # in whatever order
        ([(0.5, 2.0, 1.9), (0.9, 4.0, 3.9)], 0.5),  # from the smallest measured
        ([(0.5, 0.5, 0.4), (0.9, 0.9, 0.8)], None),
        ([(0.5, 1.0, 0.99), (0.9, 1.02, 1.01)], None),  # less than five per cent is nothing
        ([(0.5, 0.5, 0.4), (0.9, 2.0, 0.9)], None),  # an interval that holds 1 says nothing
        ([(0.5, 2.0, 1.9), (0.8, 0.5, 0.4), (0.9, 2.0, 1.9)], 0.85),  # chance at one point does not count
        ([(0.5, 2.0, 1.9), (0.9, 0.5, 0.4)], None),
        ([(0.5, 1.2, 0.9), (0.9, 2.0, 1.9)], 0.5),  # slower nowhere, but sure from 0.9 on
        ([], None),
    ],
)
def test_break_even(points: list[tuple[float, float, float]], expected: float | None) -> None:
    found = result(points)
    even = found.break_even.get("L", {}).get("CSR")
    assert even == (expected if expected is None else pytest.approx(expected))


def shown() -> SparseRuntime:
    found = result([(0.5, 0.5, 0.4), (0.9, 2.0, 1.9)])
    zeros = result([(0.5, 1.0, 0.99), (0.9, 1.0, 0.98)], "zeros")
    missing = Run("L", "2:4", 0.5, note="needs <more>")
    return replace(found, records=(*zeros.records, *found.records, missing))


def test_as_text() -> None:
    assert str(shown()).splitlines() == [
        "L: dense 1 s",
        "speedup over dense   0.5  0.9  faster from  largest error",
        "---------------------------------------------------------",
        "zeros                 1×   1×        never          1e-07",
        "CSR                 0.5×   2×          0.7          1e-07",
        "2:4                  n/a                 –              –",
        "",
        "measured on cpu, 1 thread, float32; error: relative to the largest output of the dense product with the same zeros",
        "2:4 not available for L: needs <more>",
    ]


def test_as_table() -> None:
    html = shown()._repr_html_()
    assert html.count("<tr>") == 4
    assert "needs &lt;more&gt;" in html
    assert "measured on cpu, 1 thread" in html
    assert "color" not in html


def test_as_dictionary_and_frame() -> None:
    found = json.loads(json.dumps(shown().to_dict()))
    assert found["break_even"]["L"] == {"zeros": None, "CSR": pytest.approx(0.7), "2:4": None}
    assert found["records"][4]["note"] == "needs <more>"
    pytest.importorskip("pandas")
    frame = shown().frame()
    assert len(frame) == 5
    assert set(frame["device"]) == {"cpu"}
    assert frame.loc[frame["way"] == "CSR", "speedup"].tolist() == [0.5, 2.0]
    assert frame.loc[frame["way"] == "2:4", "speedup"].isna().all()


def test_nothing_but_ways_that_are_not_there() -> None:
    found = SparseRuntime((Run("L", "2:4", 0.5, note="no"),), "cpu", 1, "float32")
    assert "nothing could be measured" in str(found)
    assert found.break_even == {"L": {"2:4": None}}


def test_as_a_plot() -> None:
    pytest.importorskip("matplotlib")
    figure = shown().plot()
    figure.draw_without_rendering()
    assert "CSR 0.5 at 0.5, 2 at 0.9, faster from 0.7" in figure.prunelab_alt
    assert "zeros 1 at 0.5, 1 at 0.9, never faster" in figure.prunelab_alt
    assert "2:4 not available" in figure.prunelab_alt
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"zeros", "CSR", "2:4: not available", "faster from here"} == set(labels)
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["0.5", "0.9"]
    # The circle stands where the line crosses 1: half way between the two sparsities.
    circles = [line.get_xydata().tolist() for line in figure.axes[0].lines if line.get_markersize() == 13]
    assert [pytest.approx([0.5, 1.0])] in circles


@pytest.mark.parametrize(("slowest", "fastest"), [(0.6, 2.0), (0.02, 50.0)])
def test_every_label_of_the_speedup_axis_is_a_plain_number(slowest: float, fastest: float) -> None:
    pytest.importorskip("matplotlib")
    figure = result([(0.5, slowest, slowest * 0.9), (0.9, fastest, fastest * 0.9)]).plot()
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_ylim()
    ticks = [*figure.axes[0].yaxis.get_major_ticks(), *figure.axes[0].yaxis.get_minor_ticks()]
    labels = {t.label1.get_text() for t in ticks if low <= t.get_loc() <= high} - {""}
    assert "1×" in labels
    assert len(labels) >= 3
    assert all(re.fullmatch(r"[\d.]+×", label) for label in labels), labels


def test_the_same_seed_makes_the_same_layers(timed: list[list[str]]) -> None:
    first, second = (sparse_runtime(8, (), sparsities=0.9, block=4, device="cpu") for _ in range(2))
    assert first == second
