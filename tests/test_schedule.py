"""Schedules: values by hand and by closed form, when something is due, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunelab import schedule
from prunelab.schedule import AGP, DSD, Cosine, Exponential, Iterative, Linear, OneCycle, OneShot, Schedule

RAMPS = (AGP, Linear, Exponential, Cosine, OneCycle)


def values(plan: Schedule, until: int) -> list[float]:
    return [plan(step) for step in range(until + 1)]


# --- values -------------------------------------------------------------------------------------------------------------


def test_one_shot() -> None:
    plan = OneShot(0.9, at=3)
    assert values(plan, 5) == [0, 0, 0, 0.9, 0.9, 0.9]
    assert list(plan.steps()) == [3]
    assert not plan.due(2)
    assert not plan.due(10**9)
    assert OneShot(1)(0) == 1.0
    assert OneShot(0.5) == OneShot(0.5, at=0)
    assert repr(OneShot(0.5)) == "OneShot(final=0.5, at=0)"


def test_iterative_is_a_staircase() -> None:
    plan = Iterative(0.8, rounds=4, start=2, every=3)
    assert values(plan, 12) == pytest.approx([0, 0, 0.2, 0.2, 0.2, 0.4, 0.4, 0.4, 0.6, 0.6, 0.6, 0.8, 0.8])
    assert list(plan.steps()) == [2, 5, 8, 11]
    assert plan.end == 11
    assert Iterative(0.9, rounds=5).end == 400
    assert values(Iterative(0.3, rounds=1, start=1), 2) == [0, 0.3, 0.3]


def test_geometric_rounds_keep_the_same_fraction_each_time() -> None:
    """Frankle & Carbin's own numbers: 20 % of what is left, a round, leaves 51.2 % after three and 10.7 % after ten."""
    three, ten = (Iterative(1 - 0.8**n, rounds=n, every=1, law="geometric") for n in (3, 10))
    assert values(three, 2) == pytest.approx([0.2, 0.36, 0.488])
    assert 1 - ten(9) == pytest.approx(0.107, abs=5e-4)
    kept = [1 - s for s in values(ten, 9)]
    assert [b / a for a, b in pairwise(kept)] == pytest.approx([0.8] * 9)


# (schedule, the sparsities at steps 0, 25, 50, 75 and 100 of 0 to 100, worked out by hand)
BY_HAND: dict[Schedule, list[float]] = {
    AGP(0.8, 0, 100): [0, 0.8 * 37 / 64, 0.7, 0.8 * 63 / 64, 0.8],
    AGP(0.9, 0, 100, initial=0.5): [0.5, 0.5 + 0.4 * 37 / 64, 0.85, 0.5 + 0.4 * 63 / 64, 0.9],
    Linear(0.8, 0, 100): [0, 0.2, 0.4, 0.6, 0.8],
    Exponential(0.9375, 0, 100): [0, 0.5, 0.75, 0.875, 0.9375],
    Exponential(0.9375, 0, 100, initial=0.75): [0.75, 1 - 0.25 / 2**0.5, 0.875, 1 - 0.125 / 2**0.5, 0.9375],
    Cosine(0.8, 0, 100): [0, 0.4 - 0.2 * 2**0.5, 0.4, 0.4 + 0.2 * 2**0.5, 0.8],
}


@pytest.mark.parametrize(("plan", "expected"), BY_HAND.items(), ids=repr)
def test_curves_by_hand(plan: Schedule, expected: list[float]) -> None:
    assert [plan(step) for step in (0, 25, 50, 75, 100)] == pytest.approx(expected, abs=1e-12)


def test_agp_is_the_published_cubic() -> None:
    """Zhu & Gupta, eq. 1, in their variables: s_t = s_f + (s_i - s_f)(1 - (t - t0) / (n Δt))³ at t0 + k Δt."""
    s_i, s_f, t0, n, delta = 0.25, 0.875, 30, 14, 7
    plan = AGP(s_f, start=t0, end=t0 + n * delta, every=delta, initial=s_i)
    for t in range(t0, t0 + n * delta + 1):
        assert plan(t) == pytest.approx(s_f + (s_i - s_f) * (1 - (t - t0) / (n * delta)) ** 3, abs=1e-15)
    assert list(plan.steps()) == [t0 + k * delta for k in range(n + 1)]


def test_one_cycle_is_the_published_logistic() -> None:
    """The function as Hubens printed it, and the sparsities (in %) that his run reported at the ends of ten epochs."""

    def printed(start: float, end: float, pos: float, α: float = 14, β: float = 5) -> float:
        out = (1 + np.exp(-α + β)) / (1 + (np.exp((-α * pos) + β)))
        return start + (end - start) * out

    plan = OneCycle(0.95, start=0, end=1000)
    assert values(plan, 1000) == pytest.approx([printed(0, 0.95, t / 1000) for t in range(1001)], abs=1e-14)
    assert plan(0) == pytest.approx(0.0064, abs=5e-5)  # not zero: the formula is kept as printed
    reported = [2.53, 9.48, 29.46, 61.34, 83.69, 91.94, 94.24, 94.82, 94.96, 95.00]
    assert [100 * plan(100 * epoch) for epoch in range(1, 11)] == pytest.approx(reported, abs=0.02)
    later = OneCycle(0.95, 10, 20, alpha=10, beta=6, initial=0.3)
    assert [later(t) for t in range(10, 21)] == pytest.approx([printed(0.3, 0.95, t / 10, 10, 6) for t in range(11)])
    assert later(9) == 0.3


def test_dense_sparse_dense_gives_back() -> None:
    plan = DSD(0.5, start=2, end=4)
    assert values(plan, 6) == [0, 0, 0.5, 0.5, 0, 0, 0]
    assert list(plan.steps()) == [2, 4]
    assert plan.end == 4


# --- properties ---------------------------------------------------------------------------------------------------------

fractions = st.floats(0, 1)
steps = st.integers(0, 60)


@st.composite
def ramps(draw: Callable[[Any], Any]) -> Any:
    kind = draw(st.sampled_from(RAMPS))
    initial, final = sorted(draw(st.tuples(fractions, fractions)))
    start, end = sorted(draw(st.tuples(steps, steps)))
    shape = {"alpha": draw(st.floats(0.1, 30)), "beta": draw(st.floats(-10, 30))} if kind is OneCycle else {}
    return kind(final, start, end, draw(st.integers(1, 80)), initial=initial, **shape)


@st.composite
def staircases(draw: Callable[[Any], Any]) -> Any:
    if draw(st.booleans()):
        return OneShot(draw(fractions), draw(steps))
    law = draw(st.sampled_from(["linear", "geometric"]))
    return Iterative(draw(fractions), draw(st.integers(1, 12)), draw(steps), draw(st.integers(1, 9)), law)


@given(ramps() | staircases())
def test_rises_from_its_start_to_exactly_its_final_sparsity(plan: Any) -> None:
    curve = values(plan, plan.end + 3)
    assert all(a <= b for a, b in pairwise(curve))
    assert all(0 <= value <= 1 for value in curve)
    assert curve[plan.end] == curve[-1] == plan(10**12) == plan.final
    start = getattr(plan, "at", getattr(plan, "start", 0))
    if start:
        assert curve[start - 1] == getattr(plan, "initial", 0.0)


@given(ramps() | staircases() | st.just(DSD(0.3, 5, 9)))
def test_something_is_due_from_the_start_to_the_end_and_never_after(plan: Any) -> None:
    due = [step for step in range(plan.end + 100) if plan.due(step)]
    assert due == list(plan.steps())
    assert due[0] == getattr(plan, "at", getattr(plan, "start", 0))
    assert due[-1] == plan.end
    if hasattr(plan, "every"):
        assert all(gap == plan.every for gap in (b - a for a, b in pairwise(due[:-1])))
    changes = {step for step in range(1, plan.end + 3) if plan(step) != plan(step - 1)}
    if isinstance(plan, OneShot | Iterative | DSD):
        assert changes <= set(due)


@given(st.floats(0, 1), st.integers(1, 40))
def test_many_geometric_rounds_are_an_exponential(final: float, rounds: int) -> None:
    staircase = Iterative(final, rounds, start=1, every=1, law="geometric")
    curve = Exponential(final, start=0, end=rounds)
    assert values(staircase, rounds) == pytest.approx(values(curve, rounds), abs=1e-12)


@pytest.mark.parametrize("kind", RAMPS)
def test_a_ramp_of_no_length_goes_at_once(kind: type[Any]) -> None:
    plan = kind(0.9, start=7, end=7, every=5, initial=0.2)
    assert [plan(6), plan(7), plan(8)] == [0.2, 0.9, 0.9]
    assert list(plan.steps()) == [7]


@pytest.mark.parametrize("kind", RAMPS)
def test_the_end_is_due_also_where_the_steps_pass_over_it(kind: type[Any]) -> None:
    assert list(kind(0.9, start=10, end=25, every=10).steps()) == [10, 20, 25]
    assert list(kind(0.9, start=10, end=25, every=100).steps()) == [10, 25]
    assert list(kind(0.9, start=10, end=12).steps()) == [10, 11, 12]


def test_a_curve_that_is_flat_stays_exact() -> None:
    for kind in RAMPS:
        assert set(values(kind(0.7, 0, 10, initial=0.7), 12)) == {0.7}
        assert set(values(kind(1, 0, 10, initial=1), 12)) == {1.0}


def test_all_schedules_are_plain_values() -> None:
    for plan in (*BY_HAND, OneCycle(0.9, 0, 10), OneShot(0.9), Iterative(0.9, 3), DSD(0.9, 0, 1)):
        assert eval(repr(plan), vars(schedule)) == plan
        assert hash(plan) == hash(eval(repr(plan), vars(schedule)))
        with pytest.raises(AttributeError):
            plan.final = 0.1  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [np.int64, np.uint8, lambda n: torch.tensor(n)], ids=["int64", "uint8", "torch"])
def test_integers_of_other_libraries_are_integers(kind: Callable[[int], Any]) -> None:
    plan = AGP(0.8, start=kind(0), end=kind(100), every=kind(50))
    assert plan == AGP(0.8, 0, 100, 50)
    assert repr(plan) == repr(AGP(0.8, 0, 100, 50))
    assert plan(kind(50)) == plan(50) == pytest.approx(0.7)
    assert plan.due(kind(50))
    assert Iterative(np.float32(0.5), kind(2), kind(3), kind(4)) == Iterative(0.5, 2, 3, 4)
    assert OneShot(0.5, kind(4))(kind(4)) == 0.5


# --- refused ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("final", "kind", "message"),
    [
        (1.5, ValueError, "final must lie between 0 and 1, not 1.5; did you mean 0.015"),
        (-0.1, ValueError, "final must lie"),
        (90, ValueError, r"did you mean 0\.9\? It is a fraction, not a percentage"),
        (math.nan, ValueError, "not nan"),
        (math.inf, ValueError, "not inf"),
        ("0.5", TypeError, "final must be a number"),
        (None, TypeError, "final must be a number"),
        (True, TypeError, "final must be a number"),
    ],
)
def test_refuses_what_is_no_sparsity(final: Any, kind: type[Exception], message: str) -> None:
    for make in (
        OneShot,
        lambda f: Iterative(f, 3),
        lambda f: DSD(f, 0, 1),
        *(lambda f, c=c: c(f, 0, 1) for c in RAMPS),
    ):
        with pytest.raises(kind, match=message):
            make(final)


NO_STEPS = (-1, 1.5, 2.0, True, "3", None, np.array([1, 2]))


@pytest.mark.parametrize("bad", NO_STEPS, ids=repr)
def test_refuses_what_is_no_step(bad: Any) -> None:
    for make, name in (
        (lambda: OneShot(0.5, at=bad), "at"),
        (lambda: Iterative(0.5, 3, start=bad), "start"),
        (lambda: Iterative(0.5, 3, every=bad), "every"),
        (lambda: Iterative(0.5, rounds=bad), "rounds"),
        (lambda: DSD(0.5, bad, 10), "start"),
        (lambda: DSD(0.5, 0, bad), "end"),
        *((lambda c=c: c(0.5, bad, 10), "start") for c in RAMPS),
        *((lambda c=c: c(0.5, 0, bad), "end") for c in RAMPS),
        *((lambda c=c: c(0.5, 0, 10, bad), "every") for c in RAMPS),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be a whole number"):
            make()
    for plan in (OneShot(0.5), Iterative(0.5, 3), DSD(0.5, 0, 1), *(c(0.5, 0, 10) for c in RAMPS)):
        for use in (plan, plan.due):
            with pytest.raises(ValueError, match="step must be a whole number, 0 or more"):
                use(bad)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AGP(0.5, 0, 10, every=0), "every must be a whole number, 1 or more, not 0"),
        (lambda: Iterative(0.5, rounds=0), "rounds must be a whole number, 1 or more, not 0"),
        (lambda: AGP(0.5, 11, 10), "start=11 comes after end=10"),
        (lambda: Linear(0.5, 0, 10, initial=0.6), r"initial=0.6 is more than final=0.5, and Linear only rises.*DSD"),
        (lambda: Linear(0.5, 0, 10, initial=60), "initial must lie between 0 and 1, not 60"),
        (lambda: Iterative(0.5, 3, law="cubic"), "unknown law 'cubic'; choose 'linear' or 'geometric'"),
        (lambda: DSD(0.5, 10, 10), "start=10 and end=10 leave no sparse phase"),
        (lambda: OneCycle(0.5, 0, 10, alpha=0), "alpha must be more than 0"),
        (lambda: OneCycle(0.5, 0, 10, alpha=math.nan), "alpha must be more than 0"),
        (lambda: OneCycle(0.5, 0, 10, beta=1e4), "beta must be at least -700 and at most 700"),
        (lambda: OneShot(0.5).plot(until=-3), "until must be a whole number"),
    ],
)
def test_refuses_what_makes_no_schedule(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
    with pytest.raises(TypeError, match="beta must be a number, not '5'"):
        OneCycle(0.5, 0, 10, beta="5")  # type: ignore[arg-type]


# --- plots --------------------------------------------------------------------------------------------------------------


def test_plot_shows_the_step() -> None:
    (axes,) = OneShot(0.9, at=4).plot(until=8).axes
    (line,) = axes.lines
    assert list(line.get_xdata()) == list(range(9))
    assert list(line.get_ydata()) == [0] * 4 + [0.9] * 5
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "sparsity")


@pytest.mark.parametrize("plan", [*(c(0.9, 5, 50) for c in RAMPS), Iterative(0.9, 3), DSD(0.9, 1, 9)], ids=repr)
def test_every_schedule_plots_what_it_says(plan: Schedule) -> None:
    (axes,) = plan.plot().axes
    (line,) = axes.lines
    assert list(line.get_ydata()) == [plan(int(step)) for step in line.get_xdata()]
    assert max(line.get_xdata()) >= plan.end
    assert axes.get_title() == repr(plan)


def test_a_plot_says_what_it_shows_to_those_who_do_not_see_it() -> None:
    bundle, _ = Iterative(0.8, rounds=2, every=10).plot()._repr_mimebundle_()
    assert 'alt="Iterative(final=0.8, rounds=2,' in bundle["text/html"]
    assert "from 0.4 at step 0 to 0.8 at 11." in bundle["text/html"]
