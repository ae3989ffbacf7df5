"""A table that a learner fills in with True and False: a dictionary whose rows are dictionaries of the same columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from numbers import Integral
from typing import Any

from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import NotAttempted, Wrong

__all__ = ["compare_truths", "turned_round"]

Table = Mapping[str, Mapping[str, bool]]


def compare_truths(answer: Any, right: Table, why: Mapping[tuple[str, str], str]) -> None:
    """Report the first cell that differs from `right`, with what `why` says of it.

    Raises NotAttempted for the stub, Wrong for anything else than the stub's dictionary, filled in rightly.
    """
    columns = list(next(iter(right.values())))
    found = _read(answer, right, columns)
    differing = [(row, column) for row in right for column in columns if found[row][column] != right[row][column]]
    if differing:
        row, column = differing[0]
        rows = len(right) - len({row for row, _ in differing})
        raise Wrong(f"{rows} of {len(right)} rows are right. Look at `{row}`, {column}: {why[row, column]}")


def _read(answer: Any, rows: Collection[str], columns: Sequence[str]) -> dict[str, dict[str, bool]]:
    """The answer as bools, or why it is none."""
    if not isinstance(answer, Mapping):
        raise Wrong(f"The answer is {describe(answer)}; it should be the dictionary of the stub, filled in.")
    missing = [row for row in rows if row not in answer]
    if missing:
        raise Wrong(f"The row `{missing[0]}` is missing. The keys are those of the stub.")
    extra = [row for row in answer if row not in rows]
    if extra:
        raise Wrong(f"Nobody asked for the row that is called {describe(extra[0])}; the keys are those of the stub.")
    cells = {row: _cells(row, answer[row], columns) for row in rows}
    still = [row for row, line in cells.items() if any(value is Ellipsis for value in line.values())]
    if len(still) == len(cells):
        raise NotAttempted("The answer is still the stub. Replace each `...` by True or False and run it again.")
    if still:
        raise Wrong(f"The row `{still[0]}` is still open: replace its `...`.")
    return {row: {column: bool(value) for column, value in line.items()} for row, line in cells.items()}


def _cells(row: str, line: Any, columns: Sequence[str]) -> dict[str, Any]:
    if not isinstance(line, Mapping) or set(line) != set(columns):
        named = f"{', '.join(columns[:-1])} and {columns[-1]}"
        raise Wrong(f"The row `{row}` holds {describe(line)}; it should be a dict of {named}.")
    for column in columns:
        value = line[column]
        if value is not Ellipsis and not (isinstance(value, Integral) and value in (0, 1)):
            raise Wrong(f"The row `{row}` says {describe(value)} of its {column}; it should say True or False.")
    return {column: line[column] for column in columns}


def turned_round(solution: str, row: str, column: str, value: str = "") -> str:
    """The text of a solution with one cell turned round, or replaced: a wrong answer for the tests."""
    lines = []
    for line in solution.splitlines():
        if line.startswith(f'    "{row}"'):
            now = "True" if f"{column}=True" in line else "False"
            line = line.replace(f"{column}={now}", f"{column}={value or ('False' if now == 'True' else 'True')}")
        lines.append(line)
    return "\n".join(lines)
