"""Tables as text for the terminal and as HTML for the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

Row = Sequence[str]


def text_table(headings: Row, rows: Sequence[Row], *, left: int, total: Row | None = None) -> list[str]:
    """The lines of a table whose first `left` columns are names, to the left; numbers stand to the right."""
    every = [headings, *rows, *([total] if total else [])]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    drawn = [
        "  ".join(
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in every
    ]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    end = [rule, drawn[-1]] if total else []
    return [drawn[0], rule, *drawn[1 : 1 + len(rows)], *end]


def html_table(headings: Row, rows: Iterable[Row], *, label: str, left: int, total: Row | None = None) -> str:
    """The same for a page. Colours are the page's own, so that it reads in light and dark.

    On a narrow screen the table scrolls by itself; the focus lets the keyboard scroll.
    """

    def look(column: int) -> str:
        return f'style="padding:0.2em 0.6em;text-align:{"left" if column < left else "right"}"'

    def drawn(row: Row) -> str:
        name, *rest = map(escape, row)
        cells = "".join(f"<td {look(i)}>{cell}</td>" for i, cell in enumerate(rest, start=1))
        return f'<tr><th scope="row" {look(0)}>{name}</th>{cells}</tr>'

    head = "".join(f'<th scope="col" {look(i)}>{escape(h)}</th>' for i, h in enumerate(headings))
    label = escape(label, quote=True)
    return (
        f'<div role="region" aria-label="{label}" tabindex="0" style="overflow-x:auto">'
        f'<table style="font-variant-numeric:tabular-nums" aria-label="{label}">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(map(drawn, rows))}</tbody>"
        f"{f'<tfoot>{drawn(total)}</tfoot>' if total else ''}</table></div>"
    )


def html_lines(lines: Iterable[str]) -> str:
    """Lines of prose, each a paragraph of its own."""
    return "".join(f'<p style="margin:0.2em 0">{escape(line)}</p>' for line in lines)


def size(count: float) -> str:
    """A number of bytes with three digits, in the unit that suits."""
    for unit in ("bytes", "kB", "MB"):
        if count < 999.5:  # where three digits would round up to 1000
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
