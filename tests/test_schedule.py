"""Schedules: values by hand, and what is refused."""

from __future__ import annotations

import pytest

from prunelab.schedule import OneShot


def test_one_shot() -> None:
    schedule = OneShot(0.9, at=3)
    assert [schedule(step) for step in range(6)] == [0, 0, 0, 0.9, 0.9, 0.9]
    assert [step for step in range(6) if schedule.due(step)] == [3]
    assert OneShot(1)(0) == 1.0
    assert OneShot(0.5) == OneShot(0.5, at=0)


@pytest.mark.parametrize(
    ("final", "kind"), [(1.5, ValueError), (-0.1, ValueError), ("0.5", TypeError), (None, TypeError)]
)
def test_refuses_what_is_no_sparsity(final: object, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="final must"):
        OneShot(final)  # type: ignore[arg-type]


@pytest.mark.parametrize("at", [-1, 1.5, True, "3"])
def test_refuses_what_is_no_step(at: object) -> None:
    with pytest.raises(ValueError, match="at must be a whole number"):
        OneShot(0.5, at=at)  # type: ignore[arg-type]


def test_plot_shows_the_step() -> None:
    (axes,) = OneShot(0.9, at=4).plot(until=8).axes
    (line,) = axes.lines
    assert list(line.get_xdata()) == list(range(9))
    assert list(line.get_ydata()) == [0] * 4 + [0.9] * 5
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "sparsity")
