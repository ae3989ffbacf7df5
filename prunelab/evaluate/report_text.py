"""A report as text for the terminal and as tables for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelab.evaluate.table import html_lines, html_table, size, text_table
from prunelab.evaluate.timing import duration

if TYPE_CHECKING:
    from prunelab.evaluate.report import Layer, Report

_RATIOS = ("ratio", "kind", "dense", "this network", "dense / this")
_LAYERS = ("layer", "type", "parameters", "nonzero", "sparsity", "MACs", "nonzero MACs", "file", "encoding")


def to_text(report: Report) -> str:
    """The headline; theory and practice in one table; then one line for each layer and one for their sum."""
    *layers, total = _layers(report)
    ratios = text_table(_RATIOS, _ratios(report), left=2)
    return "\n".join([*_headline(report), "", *ratios, "", *text_table(_LAYERS, layers, left=2, total=total)])


def to_html(report: Report) -> str:
    """The same for a page. The headline, which says the most, wraps on a narrow screen; the tables scroll."""
    *layers, total = _layers(report)
    ratios = html_table(_RATIOS, _ratios(report), label=f"Theory and practice of {report.model}", left=2)
    table = html_table(_LAYERS, layers, label=f"Size of {report.model}, layer by layer", left=2, total=total)
    return f'<div class="prunelab-report">{html_lines(_headline(report))}{ratios}{table}</div>'


def _headline(report: Report) -> list[str]:
    lines = [
        f"{report.model}: {report.params:,} parameters, {report.nonzero:,} nonzero, "
        f"{report.macs:,} MACs, {size(report.bytes)}",
        f"compression ratio {_times(report.compression_ratio)}, "
        f"theoretical speedup {_times(report.theoretical_speedup)}"
        f" (dense: {report.dense_params:,} parameters, {report.dense_macs:,} MACs)",
    ]
    if report.measured:
        lines.append(f"latency: {report.latency.conditions}")
    else:
        lines.append("latency: measured when asked for, by .latency or report(..., measure=True)")
    if report.uncounted:
        lines.append(f"not counted in the MACs (unknown operations): {', '.join(report.uncounted)}")
    return lines


def _ratios(report: Report) -> list[tuple[str, ...]]:
    """Theory, what the zeros would give at no cost; practice, what a file and this machine make of them."""
    dense, here = size(report.dense_bytes), size(report.bytes)
    stored = report.dense_bytes / report.bytes if report.bytes else 1.0
    return [
        ("compression ratio (nonzero parameters)", "theory", f"{report.dense_params:,}", f"{report.nonzero:,}",
         _times(report.compression_ratio)),
        ("theoretical speedup (nonzero MACs)", "theory", f"{report.dense_macs:,}", f"{report.nonzero_macs:,.0f}",
         _times(report.theoretical_speedup)),
        ("file, zeros stored", "practice", dense, here, _times(stored)),
        ("file, zeros left out", "practice", dense, size(report.sparse_bytes), _times(report.bytes_ratio)),
        ("measured speedup (latency)", "practice", *_latency(report)),
    ]  # fmt: skip


def _latency(report: Report) -> tuple[str, str, str]:
    if not report.measured:
        return "–", "–", "not measured"
    latency = report.latency
    if not latency.against:
        return "–", duration(latency.median), "–"
    return duration(latency.against["dense"].median), duration(latency.median), str(latency.speedup)


def _layers(report: Report) -> list[tuple[str, ...]]:
    layers = [(part.name or "(the model itself)", part.kind, *_counts(part), part.encoding) for part in report.layers]
    return [*layers, ("total", "", *_counts(report), "")]


def _counts(part: Layer | Report) -> tuple[str, ...]:
    return (
        f"{part.params:,}",
        f"{part.nonzero:,}",
        f"{part.sparsity:.3f}",
        f"{part.macs:,}",
        f"{part.nonzero_macs:,.0f}",
        size(part.sparse_bytes),
    )


def _times(ratio: float) -> str:
    return f"{ratio:,.2f}×"
