"""What `sparse_runtime` found: a record for each way and sparsity, and the sparsity from which each way pays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from prunelab.evaluate.table import html_lines, html_table, text_table
from prunelab.evaluate.timing import duration
from prunelab.extras import extra

if TYPE_CHECKING:
    import pandas as pd

    from prunelab.chart import Chart

MARGIN = 1.05  # less than 5 % is what the place of a tensor in memory can do


@dataclass(frozen=True)
class Run:
    """One way to run one layer at one sparsity. `note` says why there is nothing measured; it is empty otherwise.

    - `sparsity`: the fraction of the weights that was to go, and `removed`: the one that went, as far as whole blocks
      and channels can meet it.
    - `seconds`, `first_quartile`, `third_quartile`: of the time of one run; `dense_seconds`: the median of the dense
      layer that ran in turn with it.
    - `speedup`: the median ratio of dense to this, round by round, and `low`, `high`: its interval of 95 % confidence.
    - `error`: the largest deviation from the dense product with the same zeros in float64, relative to its largest
      output.
    """

    layer: str
    way: str
    sparsity: float
    note: str = ""
    removed: float | None = None
    seconds: float | None = None
    first_quartile: float | None = None
    third_quartile: float | None = None
    dense_seconds: float | None = None
    speedup: float | None = None
    low: float | None = None
    high: float | None = None
    error: float | None = None


@dataclass(frozen=True, repr=False)
class SparseRuntime:
    """The records of `sparse_runtime`, and where they were measured."""

    records: tuple[Run, ...]
    device: str
    threads: int
    dtype: str

    @property
    def break_even(self) -> dict[str, dict[str, float | None]]:
        """For each layer and way the sparsity from which on it is faster than the dense layer; None where it never is.

        At a measured sparsity a way counts as faster where its whole interval lies above 1.05. The result lies between
        the first sparsity from which all are, and the one before: where the line through the logarithms of both
        speedups crosses 1. It is the smallest one measured where the way is faster from there on.
        """
        return {layer: {way: _break_even(self.of(layer, way)) for way in self.ways} for layer in self.layers}

    @property
    def layers(self) -> list[str]:
        return list(dict.fromkeys(run.layer for run in self.records))

    @property
    def ways(self) -> list[str]:
        return list(dict.fromkeys(run.way for run in self.records))

    def of(self, layer: str, way: str) -> list[Run]:
        """The records of one layer and one way, by sparsity."""
        return sorted(
            (run for run in self.records if (run.layer, run.way) == (layer, way)), key=lambda run: run.sparsity
        )

    def frame(self) -> pd.DataFrame:
        """One row a record, with the fields of `Run` and the device, threads and dtype. Needs the extra `lab`."""
        with extra("a data frame"):
            import pandas as pd
        frame = pd.DataFrame([asdict(run) for run in self.records])
        return frame.assign(device=self.device, threads=self.threads, dtype=self.dtype)

    def plot(self) -> Chart:
        """Speedup against sparsity, one panel a layer, one line a way, with the points of break-even."""
        with extra("a plot"):
            from prunelab.evaluate.runtime_chart import draw
        return draw(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything as numbers, strings, lists and dictionaries."""
        return asdict(self) | {"records": [asdict(run) for run in self.records], "break_even": self.break_even}

    def __repr__(self) -> str:
        tables = [
            "\n".join([f"{layer}: {self._dense(layer)}", *text_table(self._headings(layer), self._rows(layer), left=1)])
            for layer in self.layers
        ]
        return "\n\n".join([*tables, "\n".join(self._said())])

    def _repr_html_(self) -> str:
        tables = [
            html_lines([f"{layer}: {self._dense(layer)}"])
            + html_table(self._headings(layer), self._rows(layer), label=f"Speedup of {layer}", left=1)
            for layer in self.layers
        ]
        return f'<div class="prunelab-runtime">{"".join(tables)}{html_lines(self._said())}</div>'

    def _sparsities(self, layer: str) -> list[float]:
        return sorted({run.sparsity for run in self.records if run.layer == layer})

    def _headings(self, layer: str) -> list[str]:
        return ["speedup over dense", *(f"{s:g}" for s in self._sparsities(layer)), "faster from", "largest error"]

    def _rows(self, layer: str) -> list[list[str]]:
        rows = []
        for way in self.ways:
            runs = {run.sparsity: run for run in self.of(layer, way)}
            cells = [_cell(runs.get(sparsity)) for sparsity in self._sparsities(layer)]
            start = self.break_even[layer][way]
            errors = [run.error for run in runs.values() if run.error is not None]
            end = ["never" if errors else "–", "–"] if start is None else [f"{start:.3g}", "–"]
            rows.append([way, *cells, end[0], f"{max(errors):.0e}" if errors else "–"])
        return rows

    def _dense(self, layer: str) -> str:
        times = [run.dense_seconds for run in self.records if run.layer == layer and run.dense_seconds is not None]
        return f"dense {duration(sorted(times)[len(times) // 2])}" if times else "nothing could be measured"

    def _said(self) -> list[str]:
        """Where it was measured, and what could not be."""
        where = f"{self.device}, {self.threads} thread{'s' * (self.threads > 1)}, {self.dtype}"
        lines = [f"measured on {where}; error: relative to the largest output of the dense product with the same zeros"]
        notes = dict.fromkeys((run.way, run.layer, run.note) for run in self.records if run.note)
        return lines + [f"{way} not available for {layer}: {note}" for way, layer, note in notes]


def _cell(run: Run | None) -> str:
    if run is None:
        return ""
    return "n/a" if run.speedup is None else f"{run.speedup:.3g}×"


def _break_even(runs: Sequence[Run]) -> float | None:
    """See `SparseRuntime.break_even`."""
    points = [(run.sparsity, run.speedup, run.low) for run in runs if run.speedup is not None and run.low is not None]
    first = len(points)
    while first and points[first - 1][2] > MARGIN:
        first -= 1
    if first == len(points):
        return None
    sparsity, speedup, _ = points[first]
    if first == 0 or points[first - 1][1] >= 1:
        return points[max(first - 1, 0)][0]
    before, slower, _ = points[first - 1]
    return before + (sparsity - before) * math.log(slower) / (math.log(slower) - math.log(speedup))
