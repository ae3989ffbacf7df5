"""Timing, with a clock that the tests wind: who runs when, how often, and what the numbers say of each other."""

from __future__ import annotations

import gc
import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats

from prunelab.evaluate import Speedup, timing
from prunelab.evaluate.timing import Call, interleave, median_interval, threads_of

CPU = torch.device("cpu")


class Clock:
    """Stands still until it is told that time has passed."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[str] = []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: float) -> Call:
        """A call that takes so long by this clock."""

        def run() -> None:
            self.ran.append(name)
            self.now += seconds

        return Call(run, CPU)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing, "clock", made)
    return made


def test_calls_run_in_turn_and_the_order_turns(clock: Clock) -> None:
    calls = {name: clock.work(name, 1.0) for name in "abc"}
    interleave(calls, repeats=3, warmup=2)
    assert "".join(clock.ran) == "abcabc" + "abc" + "cba" + "abc"


def test_each_call_gets_its_own_time(clock: Clock) -> None:
    samples = interleave({"fast": clock.work("fast", 0.25), "slow": clock.work("slow", 2.0)}, repeats=4, warmup=1)
    assert samples == {"fast": (0.25,) * 4, "slow": (2.0,) * 4}


@pytest.mark.parametrize(
    ("seconds", "rounds"),
    [
        (0.5, 7),  # a round takes one second: at least 7
        (20.0, 20),
        (1e6, 501),  # at most 501
    ],
)
def test_as_many_rounds_as_fit(clock: Clock, seconds: float, rounds: int) -> None:
    samples = interleave({"a": clock.work("a", 0.5), "b": clock.work("b", 0.5)}, seconds=seconds)
    assert len(samples["a"]) == len(samples["b"]) == rounds


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_the_garbage_collector_is_off_meanwhile(clock: Clock, enabled: bool, fails: bool) -> None:
    seen = []

    def run() -> None:
        seen.append(gc.isenabled())
        if fails and len(seen) == 4:
            raise ZeroDivisionError

    (gc.enable if enabled else gc.disable)()
    try:
        try:
            interleave({"a": Call(run, CPU)}, repeats=5, warmup=1)
        except ZeroDivisionError:
            assert fails
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
    assert not any(seen[1:])


def test_on_a_gpu_the_time_is_until_it_is_done(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is queued, and the queue is empty only after waiting: before the clock starts and before it stops."""
    queued = [7.0]  # of somebody else

    def wait(device: torch.device) -> None:
        assert device == torch.device("cuda", 1)
        clock.now += sum(queued)
        queued.clear()

    monkeypatch.setattr(torch.accelerator, "synchronize", wait)
    call = Call(lambda: queued.append(3.0), torch.device("cuda", 1))
    assert [call.seconds(), call.seconds()] == [3.0, 3.0]


# --- what the numbers say -----------------------------------------------------------------------------------------------


def test_the_speedup_of_pairs() -> None:
    """In a round that another process slows down, both are slow: the paired ratio does not see it."""
    this, other = [1.0, 1.0, 10.0, 1.0, 1.0], [2.0, 2.0, 20.0, 3.0, 2.0]
    speedup = Speedup.of(this, other)
    assert (speedup.ratio, speedup.paired, speedup.low, speedup.high) == (2.0, 2.0, 2.0, 3.0)
    assert speedup.confidence == 1 - 2 / 2**5
    assert str(speedup) == "2.00× (2.00 to 3.00)"
    drift = Speedup.of([1.0, 2.0, 4.0], [2.0, 4.0, 8.0])
    assert (drift.paired, drift.low, drift.high) == (2.0, 2.0, 2.0)


# Ranks k of the two-sided 95 % interval (x_k, x_{n+1-k}), as tabled in textbooks for the sign test.
@pytest.mark.parametrize(("n", "k"), [(6, 1), (8, 1), (9, 2), (10, 2), (12, 3), (15, 4), (20, 6), (25, 8), (30, 10), (50, 18)])  # fmt: skip
def test_ranks_of_the_interval(n: int, k: int) -> None:
    low, high, confidence = median_interval(list(range(1, n + 1)))
    assert (low, high) == (k, n + 1 - k)
    assert confidence == pytest.approx(1 - 2 * stats.binom.cdf(k - 1, n, 0.5))
    assert confidence >= 0.95


@pytest.mark.parametrize("n", range(1, 60))
@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95, 0.99])
def test_the_narrowest_interval_with_that_confidence(n: int, confidence: float) -> None:
    low, high, reached = median_interval(list(range(1, n + 1)), confidence)
    wide_enough = [
        k for k in range(1, (n + 1) // 2 + 1) if 1 - 2 * stats.binom.cdf(k - 1, n, 0.5) >= confidence - 1e-12
    ]
    assert low == max(wide_enough, default=1)
    assert high == n + 1 - low
    assert reached == pytest.approx(1 - 2 * stats.binom.cdf(low - 1, n, 0.5))


def test_the_interval_covers_the_median_by_brute_force() -> None:
    """Of all 2^n ways in which n values can fall below or above the true median, the interval covers it in `reached`."""
    n = 9
    covered = 0
    for above in product([0.0, 1.0], repeat=n):  # the median is 0.5
        low, high, reached = median_interval(above)
        covered += low <= 0.5 <= high
    assert covered / 2**n == reached


def test_a_confidence_outside_of_zero_to_one_is_refused() -> None:
    with pytest.raises(ValueError, match="95"):
        median_interval([1.0], 95)


# --- conditions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [True, False])
def test_threads_are_put_back(fails: bool) -> None:
    before = torch.get_num_threads()
    try:
        with threads_of(before + 1) as count:
            assert count == torch.get_num_threads() == before + 1
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert torch.get_num_threads() == before
    with threads_of(None) as count:
        assert count == before


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(4.5e-8, "0.045 µs"), (1.234e-5, "12.3 µs"), (9.994e-4, "999 µs"), (9.996e-4, "1 ms"), (0.0456, "45.6 ms"), (2, "2 s"), (0.9996, "1 s")],
)  # fmt: skip
def test_durations(seconds: float, shown: str) -> None:
    assert timing.duration(seconds) == shown


def test_devices_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA X")
    assert timing.describe(torch.device("cuda", 0)) == "cuda:0 (NVIDIA X)"
    assert timing.describe(CPU) == "cpu"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repeats": 0}, "repeats must be a whole number, 1 or more"),
        ({"repeats": 2.5}, "repeats must be"),
        ({"warmup": -1}, "warmup must be a whole number, 0 or more"),
        ({"seconds": 0}, "seconds must be a positive number, not 0"),
        ({"seconds": math.inf}, "seconds must be a positive number"),
        ({"seconds": math.nan}, "seconds must be a positive number"),
        ({"seconds": True}, "seconds must be a positive number"),
        ({"seconds": "1"}, "seconds must be a positive number"),
        ({"threads": 0}, "threads must be a whole number, 1 or more"),
    ],
)
def test_settings_that_measure_nothing_are_refused(change: dict, message: str) -> None:
    settings = {"repeats": None, "warmup": 3, "seconds": 1.0, "threads": None} | change
    with pytest.raises(ValueError, match=message):
        timing.check_settings(**settings)


def test_good_settings_pass() -> None:
    timing.check_settings(np.int64(3), 0, 1, 2)
    timing.check_settings(None, 0, 0.1, None)
