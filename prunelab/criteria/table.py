"""The table of criteria: what each one depends on, as its class declares it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from prunelab.criteria.base import Criterion

# The five criteria of the course, in its order and under its names; all others stand under the name of their class.
TITLES = {
    "Magnitude": "Weight Magnitude = Filter Norm",
    "FilterCorrelation": "Filter Correlation",
    "GradientMagnitude": "Gradient Magnitude",
    "Taylor": "Taylor Expansion",
    "MutualInformation": "Mutual Information",
}
_COLUMNS = ("weights", "gradients", "data")
_HEADINGS = ("criterion", "depends on weights", "depends on gradients", "requires input data")
_CAPTION = "What the pruning criteria depend on"


@dataclass(frozen=True)
class Row:
    """One criterion. `weights` and `gradients`: the score reads them directly; `data`: it needs a data set to be made.

    `criterion` is the name of its class, `title` what the table calls it, `reads` what it depends on beside the three.
    """

    title: str
    criterion: str
    weights: bool
    gradients: bool
    data: bool
    reads: str = ""


@dataclass(frozen=True, repr=False)
class Table:
    """The rows of `table()`: text in a terminal, a table on a page, and numbers in `rows` and `to_dict()`."""

    rows: tuple[Row, ...]

    @property
    def footnotes(self) -> tuple[str, ...]:
        """What the rows read beside weights, gradients and data, each once."""
        return tuple(dict.fromkeys(row.reads for row in self.rows if row.reads))

    def to_dict(self) -> dict[str, dict[str, bool]]:
        """{title: {"weights": bool, "gradients": bool, "data": bool}}, in the order of the rows."""
        return {row.title: {column: getattr(row, column) for column in _COLUMNS} for row in self.rows}

    def __str__(self) -> str:
        cells = [_HEADINGS, *((f"{row.title}{self._mark(row, ' [{}]')}", *_answers(row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        head, *body = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
        notes = [f"[{number}] depends on {note}" for number, note in enumerate(self.footnotes, start=1)]
        return "\n".join([head, "-" * (sum(widths) + 2 * len(widths) - 2), *body, *([""] if notes else []), *notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        # Colours are the page's own; on a narrow screen the table scrolls by itself, and the focus lets the keyboard
        # do it.
        head = "".join(f'<th scope="col" style="text-align:left">{heading}</th>' for heading in _HEADINGS)
        rows = "".join(f"<tr>{self._html_cells(row)}</tr>" for row in self.rows)
        notes = "".join(
            f'<p style="margin:0.2em 0"><sup>{number}</sup> depends on {escape(note)}</p>'
            for number, note in enumerate(self.footnotes, start=1)
        )
        return (
            f'<div class="prunelab-criteria"><div role="region" aria-label="{_CAPTION}" tabindex="0" '
            f'style="overflow-x:auto"><table><caption>{_CAPTION}</caption><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>{notes}</div>"
        )

    def _html_cells(self, row: Row) -> str:
        title = f"{escape(row.title)}{self._mark(row, '<sup>{}</sup>')}"
        data = "".join(f'<td style="text-align:left">{answer}</td>' for answer in _answers(row))
        return f'<th scope="row" style="text-align:left">{title}</th>{data}'

    def _mark(self, row: Row, form: str) -> str:
        return form.format(self.footnotes.index(row.reads) + 1) if row.reads else ""


def table(*others: type[Criterion] | Criterion) -> Table:
    """What every criterion of the library depends on, and below them `others`: classes of your own.

    The first five rows are the course's. "Weights" and "gradients" mean that the score reads them directly: with all
    else held, the scores change when they do. "Data" means that the criterion cannot be measured without a data set;
    gradients take one, whatever the score does with it. Raises TypeError for what is no criterion.

    >>> class LargestGradient(Criterion):
    ...     needs = {"gradients"}
    ...     def score(self, weights, gradients, statistics):
    ...         return gradients.abs().amax(1)
    >>> found = table(LargestGradient).to_dict()
    >>> found["LargestGradient"]
    {'weights': False, 'gradients': True, 'data': True}
    >>> found["Weight Magnitude = Filter Norm"]
    {'weights': True, 'gradients': False, 'data': False}
    """
    own = sorted(_library(), key=lambda kind: _place(kind.__name__))
    return Table(tuple(_row(kind, TITLES.get(kind.__name__, kind.__name__)) for kind in own) + tuple(map(_row, others)))


def _library() -> list[type[Criterion]]:
    """The criteria that the package exports, by name."""
    from prunelab import criteria  # not before now: it is the package that this module is a part of

    exported = [getattr(criteria, name) for name in criteria.__all__]
    return [one for one in exported if isinstance(one, type) and issubclass(one, Criterion) and one is not Criterion]


def _place(name: str) -> tuple[int, str]:
    titles = list(TITLES)
    return (titles.index(name) if name in TITLES else len(titles)), name.lower()


def _row(criterion: Any, title: str = "") -> Row:
    kind = criterion if isinstance(criterion, type) else type(criterion)
    if not issubclass(kind, Criterion):
        raise TypeError(f"table() shows criteria, classes that derive from criteria.Criterion, not {criterion!r:.60}")
    return Row(
        title=title or kind.__name__,
        criterion=kind.__name__,
        weights="weights" in criterion.needs,
        gradients="gradients" in criterion.needs,
        data=not {"gradients", "data"}.isdisjoint(criterion.needs),
        reads=criterion.reads,
    )


def _answers(row: Row) -> tuple[str, ...]:
    return tuple("yes" if getattr(row, column) else "no" for column in _COLUMNS)
