"""What pruning each layer alone has cost: as a table, as thresholds, as a chart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelab.evaluate.interval import Interval, t_interval
from prunelab.evaluate.table import html_lines, html_table
from prunelab.extras import extra

if TYPE_CHECKING:
    import pandas as pd

    from prunelab.chart import Chart


@dataclass(frozen=True)
class Reading:
    """One measurement: a layer pruned alone to a sparsity, with the fraction that was really removed of it."""

    layer: str
    sparsity: float
    seed: int
    removed: float
    score: float


@dataclass(frozen=True, repr=False)
class Sensitivity:
    """The result of `sensitivity`: scores of the network with one layer pruned, in the model's order.

    Attributes:
        readings: one for each layer, seed and sparsity.
        dense: the score of the network as it is, for each seed.
        parameters: the parameters of each layer; several for a group.
    """

    readings: tuple[Reading, ...]
    dense: Mapping[int, float]
    parameters: Mapping[str, tuple[str, ...]]

    def frame(self) -> pd.DataFrame:
        """A tidy DataFrame, one row a measurement.

        Columns: layer; sparsity, as asked for; seed; removed, the fraction of the layer that is really gone (a layer of
        3 filters cannot lose a tenth of them); score; dense, the unpruned network's; lost, dense - score.
        """
        with extra("a table"):
            import pandas as pd
        return pd.DataFrame(
            {
                "layer": one.layer,
                "sparsity": one.sparsity,
                "seed": one.seed,
                "removed": one.removed,
                "score": one.score,
                "dense": self.dense[one.seed],
                "lost": self.dense[one.seed] - one.score,
            }
            for one in self.readings
        )

    def threshold(self, loss: float) -> dict[str, float]:
        """The largest sparsity of each layer that costs at most `loss`, in the unit of the score.

        A mapping parameter → sparsity, which `prunelab.prune(model, scope=...)` takes as it is; the layers of a group
        each get the group's. The mean over seeds counts. 0.0 where every sparsity costs more, and where nothing was
        removed at any: a sparsity at which the layer is still whole says nothing about it.

        Raises ValueError where `loss` is no number.
        """
        if isinstance(loss, bool) or not isinstance(loss, int | float) or math.isnan(loss):
            raise ValueError(f"loss must be the score that may be lost, such as 0.01, not {loss!r}")
        return {
            parameter: max((s for s in self._levels() if self._within(layer, s, loss)), default=0.0)
            for layer, parameters in self.parameters.items()
            for parameter in parameters
        }

    def _within(self, layer: str, sparsity: float, loss: float) -> bool:
        found = self._at(layer, sparsity)
        lost = t_interval(self.dense[one.seed] - one.score for one in found).mean
        # 0.90 - 0.89 is a little more than 0.01 in floating point, and is meant to be 0.01.
        within = lost <= loss or math.isclose(lost, loss, rel_tol=1e-9, abs_tol=1e-12)
        return any(one.removed for one in found) and within

    def interval(self, layer: str, sparsity: float) -> Interval:
        """The mean score over seeds with its 95 % t-interval."""
        return t_interval(one.score for one in self._at(layer, sparsity))

    def plot(self, title: str = "") -> Chart:
        """Score against sparsity, one line a layer, with its name at its end. Needs the extra `lab`.

        A line starts at the unpruned network. Points at which nothing was removed are left out. With several seeds the
        lines are means, with 95 % t-intervals.
        """
        from prunelab.evaluate.layer_curves import draw

        curves = {
            layer: {
                sparsity: self.interval(layer, sparsity)
                for sparsity in sorted(self._levels())
                if any(one.removed for one in self._at(layer, sparsity))
            }
            for layer in self.parameters
        }
        return draw(curves, t_interval(self.dense.values()), title)

    def __repr__(self) -> str:
        return (
            f"Sensitivity: {_count(len(self.parameters), 'layer')} pruned alone, {_count(len(self.dense), 'seed')}; "
            f"score of the network as it is: {t_interval(self.dense.values())}"
        )

    def _repr_html_(self) -> str:
        """The mean scores as a table: a row a layer, a column a sparsity; a dash where nothing was removed."""
        levels = self._levels()
        rows = [[layer, *(self._shown(layer, level) for level in levels)] for layer in self.parameters]
        headings = ["layer", *(f"{level:g}" for level in levels)]
        return html_lines([f"{self!r}. By sparsity:"]) + html_table(headings, rows, label="Sensitivity", left=1)

    # --- the readings --------------------------------------------------------------------------------------------

    def _shown(self, layer: str, level: float) -> str:
        removed = any(one.removed for one in self._at(layer, level))
        return str(self.interval(layer, level)) if removed else "–"

    def _levels(self) -> Iterable[float]:
        return dict.fromkeys(one.sparsity for one in self.readings)

    def _at(self, layer: str, sparsity: float) -> list[Reading]:
        return [one for one in self.readings if (one.layer, one.sparsity) == (layer, sparsity)]


def _count(number: int, one: str) -> str:
    return f"{number} {one if number == 1 else one + 's'}"
