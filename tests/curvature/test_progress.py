"""The progress line: silent when short, unwatched or built into a page; gone in the end."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from prunelab.curvature import progress
from prunelab.curvature.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watch(monkeypatch: pytest.MonkeyPatch, seconds: float, terminal: io.StringIO, shown: bool = True) -> str:
    """What a computation of 10 steps of so many seconds writes."""
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    with Progress("surgery", 10, shown) as line:
        for done in range(1, 11):
            now[0] += seconds
            line.show(done)
    return terminal.getvalue()


def test_it_says_how_far_it_is_and_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRUNELAB_BUILD", raising=False)
    written = watch(monkeypatch, 1.0, Terminal())
    lines = written.split("\r")
    assert "surgery: 1 of 10" not in written  # the first two seconds are silent
    assert "surgery: 2 of 10, 8 s to go" in lines
    assert "surgery: 9 of 10, 1 s to go" in lines
    assert lines[-2].strip() == lines[-1] == ""  # overwritten with blanks
    assert len(lines[-2]) == len(lines[-3])


@pytest.mark.parametrize(
    ("seconds", "terminal", "shown", "build"),
    [
        (0.1, Terminal(), True, ""),
        (9.0, io.StringIO(), True, ""),
        (9.0, Terminal(), False, ""),
        (9.0, Terminal(), True, "1"),
    ],
    ids=["short", "nobody watches", "not asked for", "a page is built"],
)
def test_it_is_silent(
    seconds: float, terminal: io.StringIO, shown: bool, build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNELAB_BUILD", build)
    assert watch(monkeypatch, seconds, terminal, shown) == ""


def test_frequent_steps_are_shown_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRUNELAB_BUILD", raising=False)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    written = watch(monkeypatch, 0.05, Terminal())
    assert written.count("surgery") == 3  # at 0.2 and 0.4 s, and the last
