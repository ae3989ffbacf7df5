"""A report as text for the terminal and as a table for the page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunelab.evaluate.report import Layer, Report

_HEADINGS = ("layer", "type", "parameters", "nonzero", "sparsity", "MACs", "nonzero MACs")


def to_text(report: Report) -> str:
    """The headline, then one line for each layer and one for their sum, in columns."""
    rows = [_HEADINGS, *_rows(report)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        # Names to the left, numbers to the right.
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([*_headline(report), "", lines[0], rule, *lines[1:-1], rule, lines[-1]])


def to_html(report: Report) -> str:
    """The same as a table. Colours are the page's own, so that it reads in light and dark."""
    *body, total = _rows(report)
    said = "".join(f'<p style="margin:0.2em 0">{escape(line)}</p>' for line in _headline(report))
    head = "".join(f'<th scope="col" style="text-align:{_align(i)}">{h}</th>' for i, h in enumerate(_HEADINGS))
    rows = "".join(f"<tr>{_html_row(row)}</tr>" for row in body)
    label = escape(f"Size of {report.model}, layer by layer", quote=True)
    return (
        # On a narrow screen the table scrolls by itself, and the headline, which says the most, wraps instead of
        # scrolling along. The focus lets the keyboard scroll.
        f'<div class="prunelab-report">{said}'
        f'<div role="region" aria-label="{label}" tabindex="0" style="overflow-x:auto">'
        f'<table style="font-variant-numeric:tabular-nums" aria-label="{label}">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody><tfoot><tr>{_html_row(total)}</tr></tfoot></table></div>"
        "</div>"
    )


def _headline(report: Report) -> list[str]:
    lines = [
        f"{report.model}: {report.params:,} parameters, {report.nonzero:,} nonzero, "
        f"{report.macs:,} MACs, {_size(report.bytes)}",
        f"compression ratio {_times(report.compression_ratio)}, "
        f"theoretical speedup {_times(report.theoretical_speedup)}"
        f" (dense: {report.dense_params:,} parameters, {report.dense_macs:,} MACs)",
    ]
    if report.uncounted:
        lines.append(f"not counted in the MACs (unknown operations): {', '.join(report.uncounted)}")
    return lines


def _rows(report: Report) -> list[tuple[str, ...]]:
    layers = [(layer.name or "(the model itself)", layer.kind, *_counts(layer)) for layer in report.layers]
    return [*layers, ("total", "", *_counts(report))]


def _counts(part: Layer | Report) -> tuple[str, ...]:
    return (
        f"{part.params:,}",
        f"{part.nonzero:,}",
        f"{part.sparsity:.3f}",
        f"{part.macs:,}",
        f"{part.nonzero_macs:,.0f}",
    )


def _html_row(cells: tuple[str, ...]) -> str:
    name, *rest = map(escape, cells)
    data = "".join(f'<td style="text-align:{_align(i)}">{cell}</td>' for i, cell in enumerate(rest, start=1))
    return f'<th scope="row" style="text-align:left">{name}</th>{data}'


def _align(column: int) -> str:
    return "left" if column < 2 else "right"


def _times(ratio: float) -> str:
    return f"{ratio:,.2f}×"


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 999.5:  # where three digits would round up to 1000
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
