"""What a sweep found: one row a run, the means with their intervals, and the differences in pairs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunelab.evaluate.cell import Cell, Outcome
from prunelab.evaluate.interval import Interval, t_interval
from prunelab.evaluate.method import Arm
from prunelab.evaluate.table import html_lines, html_table
from prunelab.extras import extra

if TYPE_CHECKING:
    import pandas as pd

    from prunelab.chart import Chart


@dataclass(frozen=True, repr=False)
class Sweep:
    """The results of `sweep`, in the order dense, methods, random baselines; then sparsities, then seeds.

    Attributes:
        arms: what was compared.
        outcomes: one for each cell.
    """

    arms: tuple[Arm, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def values(self) -> tuple[str, ...]:
        """The names of what was scored; "score" where it was one number. The first is the one shown by default."""
        return tuple(dict.fromkeys(name for outcome in self.outcomes for name in outcome.values or ()))

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The cells that failed; `.error` has the exception's type and message, and the end of its traceback."""
        return tuple(outcome for outcome in self.outcomes if outcome.error is not None)

    def frame(self) -> pd.DataFrame:
        """A tidy DataFrame, one row a run.

        Columns: method; kind ("dense", "method" or "random"); granularity and scope, as text; sparsity, as asked for;
        seed; one column for each value that was scored; removed, the fraction of the dense network's parameters that
        are zero or gone in the end; collapsed, the parameters of which nothing is left; seconds; error, empty where
        there was none. A failed run has no values (NaN).
        """
        rows = []
        for outcome in self.outcomes:
            arm, cell, values = self._arm(outcome.cell), outcome.cell, outcome.values or {}
            rows.append(
                _place(arm)
                | {"sparsity": cell.sparsity, "seed": cell.seed}
                | {name: values.get(name, float("nan")) for name in self.values}
                | {
                    "removed": float("nan") if outcome.removed is None else outcome.removed,
                    "collapsed": ", ".join(outcome.collapsed),
                    "seconds": outcome.seconds,
                    "error": "{type}: {message}".format(**outcome.error) if outcome.error else "",
                }
            )
        return _frame(rows)

    def summary(self, value: str | None = None, confidence: float = 0.95) -> pd.DataFrame:
        """One row for each arm and sparsity: the mean over seeds of a value, with Student's t-interval.

        Columns: method, kind, granularity, scope, sparsity; removed (mean); mean, low, high; count of the seeds behind
        them, failed of those that are missing.
        """
        value = self._chosen(value)
        rows = []
        for arm, sparsity in self._places():
            found = self._at(arm, sparsity)
            ok = [outcome for outcome in found if outcome.error is None]
            interval = t_interval(_numbers(ok, value), confidence)
            removed = t_interval([outcome.removed for outcome in ok if outcome.removed is not None]).mean
            rows.append(
                _place(arm)
                | {"sparsity": sparsity, "removed": removed}
                | _columns(interval)
                | {"failed": len(found) - len(ok)}
            )
        return _frame(rows)

    def against(self, baseline: str = "random", value: str | None = None, confidence: float = 0.95) -> pd.DataFrame:
        """How much better each method is than a baseline, seed by seed: mean difference with Student's t-interval.

        The networks of one seed share their training, so their difference varies less than the scores themselves do,
        and its interval says more than two intervals side by side. Only seeds count that both have.

        Args:
            baseline: "random", the method's own random baseline (a method without one is left out), or "dense".
            value: what to compare; by default the first that was scored.
            confidence: of the interval.

        Columns: method, granularity, scope, sparsity; mean, low, high of method - baseline; count of the pairs.
        """
        if baseline not in {"random", "dense"}:
            raise ValueError(f"baseline must be 'random' or 'dense', not {baseline!r}")
        value, rows = self._chosen(value), []
        known = {o.cell: o.values[value] for o in self.outcomes if o.values is not None and value in o.values}
        for arm, sparsity in self._places():
            other = arm.chance if baseline == "random" else "dense"
            if arm.kind != "method" or not other:
                continue
            at = 0.0 if baseline == "dense" else sparsity
            pairs = [
                (mine, theirs)
                for cell, mine in known.items()
                if (cell.arm, cell.sparsity) == (arm.key, sparsity)
                and (theirs := known.get(Cell(other, at, cell.seed))) is not None
            ]
            interval = t_interval([mine - theirs for mine, theirs in pairs], confidence)
            place = {name: text for name, text in _place(arm).items() if name != "kind"}
            rows.append(place | {"sparsity": sparsity} | _columns(interval))
        return _frame(rows, ("method", "granularity", "scope", "sparsity", "mean", "low", "high", "count"))

    def plot(
        self, value: str | None = None, *, against: str = "sparsity", confidence: float = 0.95, title: str = ""
    ) -> Chart:
        """Trade-off curves: the mean of a value with its t-interval, one line a method, one panel a granularity.

        `against` is what goes to the right: "sparsity", as asked for, or "removed", what is really gone. The dense
        network is a horizontal line with its interval as a band. Needs the extra `lab`.
        """
        from prunelab.evaluate.tradeoff import draw

        if against not in {"sparsity", "removed"}:
            raise ValueError(f"against must be 'sparsity' or 'removed', not {against!r}")
        value = self._chosen(value)
        return draw(self.summary(value, confidence), value, against, confidence, title)

    def interval(self, arm: Arm, sparsity: float, value: str | None = None, confidence: float = 0.95) -> Interval:
        """The mean of a value over the seeds of one arm at one sparsity, failed runs left out."""
        ok = [outcome for outcome in self._at(arm, sparsity) if outcome.error is None]
        return t_interval(_numbers(ok, self._chosen(value)), confidence)

    def __repr__(self) -> str:
        seeds = {outcome.cell.seed for outcome in self.outcomes}
        methods = list(dict.fromkeys(arm.name for arm in self.arms if arm.kind == "method"))
        text = f"Sweep: {', '.join(methods)} beside random and dense, {_count(len(seeds), 'seed')}, "
        text += f"{_count(len(self._levels()), 'sparsity', 'sparsities')}"
        return text + (f"; {len(self.failures)} of {len(self.outcomes)} cells failed" if self.failures else "")

    def _repr_html_(self) -> str:
        """The means with their 95 % intervals as a table: a row an arm, a column a sparsity."""
        value = self.values[0] if self.values else None
        levels = self._levels()
        rows = [
            [arm.name, arm.granularity, arm.scope, *(self._shown(arm, level, value) for level in levels)]
            for arm in self.arms
        ]
        said = [f"{self!r}. {value or 'No value'}, by sparsity: mean ± half of the 95 % confidence interval"]
        headings = ["method", "granularity", "scope", *(f"{level:g}" for level in levels)]
        return html_lines(said) + html_table(headings, rows, label="Sweep", left=3)

    # --- the cells -----------------------------------------------------------------------------------------------

    def _shown(self, arm: Arm, level: float, value: str | None) -> str:
        found = self._at(arm, 0.0 if arm.kind == "dense" else level)
        failed = sum(outcome.error is not None for outcome in found)
        text = "–" if value is None else str(self.interval(arm, found[0].cell.sparsity, value))
        return text + (f" ({failed} failed)" if failed else "")

    def _levels(self) -> list[float]:
        """The sparsities asked for; those of the dense network do not count."""
        return list(dict.fromkeys(outcome.cell.sparsity for outcome in self.outcomes if outcome.cell.arm != "dense"))

    def _places(self) -> list[tuple[Arm, float]]:
        keys = dict.fromkeys((outcome.cell.arm, outcome.cell.sparsity) for outcome in self.outcomes)
        by_key = {arm.key: arm for arm in self.arms}
        return [(by_key[key], sparsity) for key, sparsity in keys]

    def _at(self, arm: Arm, sparsity: float) -> list[Outcome]:
        return [one for one in self.outcomes if (one.cell.arm, one.cell.sparsity) == (arm.key, sparsity)]

    def _arm(self, cell: Cell) -> Arm:
        return next(arm for arm in self.arms if arm.key == cell.arm)

    def _chosen(self, value: str | None) -> str:
        if not self.values:
            raise ValueError("every cell failed, so there is nothing to summarise; see .failures")
        if value is not None and value not in self.values:
            raise ValueError(f"nothing called {value!r} was scored; there is {', '.join(self.values)}")
        return self.values[0] if value is None else value


def _numbers(outcomes: Iterable[Outcome], value: str) -> list[float]:
    return [outcome.values[value] for outcome in outcomes if outcome.values is not None and value in outcome.values]


def _place(arm: Arm) -> dict[str, Any]:
    return {"method": arm.name, "kind": arm.kind, "granularity": arm.granularity, "scope": arm.scope}


def _columns(interval: Interval) -> dict[str, Any]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "count": interval.count}


def _frame(rows: list[dict[str, Any]], columns: tuple[str, ...] | None = None) -> pd.DataFrame:
    with extra("a table"):
        import pandas as pd
    return pd.DataFrame(rows, columns=columns)


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"
