"""A table that a learner fills in: a dictionary whose rows hold a pair of numbers each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from typing import Any

from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import NotAttempted, Wrong

__all__ = ["Pair", "read_pairs"]

Pair = tuple[float, float]


def read_pairs(answer: Any, rows: Collection[str], what: str) -> dict[str, Pair]:
    """The answer as a pair of numbers for each of `rows`; `what` says what a pair holds, as in "(units, members)".

    Raises NotAttempted for the stub, Wrong for anything else than the stub's dictionary, filled in.
    """
    if not isinstance(answer, Mapping):
        raise Wrong(f"The answer is {describe(answer)}; it should be the dictionary of the stub, filled in.")
    missing = [row for row in rows if row not in answer]
    if missing:
        raise Wrong(f"The row `{missing[0]}` is missing. The keys are those of the stub.")
    extra = [key for key in answer if key not in rows]
    if extra:
        raise Wrong(f"Nobody asked for the row that is called {describe(extra[0])}; the keys are those of the stub.")
    if all(_is_open(answer[row]) for row in rows):
        raise NotAttempted("The answer is still the stub. Replace each `...` by a number and run it again.")
    open_rows = [row for row in rows if _is_open(answer[row])]
    if open_rows:
        raise Wrong(f"The row `{open_rows[0]}` is still open: replace its `...`.")
    return {row: _pair(row, answer[row], what) for row in rows}


def _is_open(value: Any) -> bool:
    return value is None or value is Ellipsis or (isinstance(value, tuple | list) and any(v is Ellipsis for v in value))


def _pair(row: str, value: Any, what: str) -> Pair:
    """Two numbers in an order, of whatever types: not text, which `float` would read, and no set or dictionary."""
    try:
        if isinstance(value, str | bytes | Set | Mapping):
            raise TypeError
        numbers = tuple(value)
        if any(isinstance(number, str | bytes) for number in numbers):
            raise TypeError
        first, second = map(float, numbers)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise Wrong(f"The row `{row}` holds {describe(value)}; it should hold a pair of numbers `{what}`.") from None
    return first, second
