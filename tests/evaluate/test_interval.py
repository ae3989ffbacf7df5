"""Means with t-intervals, against scipy and values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prunelab.evaluate.interval import t_interval

NUMBERS = st.floats(-1e6, 1e6)


@given(st.lists(NUMBERS, min_size=2, max_size=12), st.sampled_from([0.5, 0.8, 0.95, 0.99]))
def test_the_interval_is_scipys(values: list[float], confidence: float) -> None:
    ours = t_interval(values, confidence)
    assert ours.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9)
    if np.std(values) > 1e-9 * max(map(abs, values)):  # scipy gives NaN for no spread
        low, high = stats.t.interval(confidence, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
        assert (ours.low, ours.high) == pytest.approx((low, high), rel=1e-6, abs=1e-6)
    assert ours.count == len(values)


def test_by_hand() -> None:
    # 1, 2, 3: s = 1, t(0.975; 2) = 4.302653; half = 4.302653 / sqrt(3)
    interval = t_interval([1.0, 2.0, 3.0])
    assert (interval.mean, interval.half) == pytest.approx((2.0, 2.484138), abs=1e-6)


def test_equal_numbers_have_no_spread() -> None:
    assert t_interval([0.1] * 3).half == 0.0


def test_one_number_says_nothing_of_its_spread() -> None:
    one = t_interval([0.5])
    assert one.mean == 0.5
    assert math.isnan(one.half)
    assert str(one) == "0.500"


def test_no_number_at_all() -> None:
    none = t_interval([])
    assert math.isnan(none.mean)
    assert none.count == 0
    assert str(none) == "–"


@pytest.mark.parametrize(("odd", "mean"), [(math.nan, math.nan), (math.inf, math.inf)])
def test_what_is_not_finite_is_not_hidden(odd: float, mean: float) -> None:
    interval = t_interval([1.0, odd, 2.0])
    assert repr(interval.mean) == repr(mean)
    assert math.isnan(interval.half)


@pytest.mark.parametrize("confidence", [0, 1, 95, -0.5, True, "0.95", math.nan])
def test_what_is_no_confidence_is_refused(confidence: object) -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1, such as 0.95"):
        t_interval([1.0, 2.0], confidence)
