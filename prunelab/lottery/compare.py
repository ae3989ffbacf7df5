"""What the controls say: means over seeds, and differences in pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunelab.evaluate.interval import Interval, t_interval
from prunelab.extras import extra

if TYPE_CHECKING:
    import pandas as pd

    from prunelab.chart import Chart

_COLUMNS = ("arm", "seed", "round", "kept", "score")


def means(frame: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """The mean score of each arm over seeds with Student's t-interval: one row for each round and arm.

    `frame` is what `controls` returned. Columns: arm, round, kept (the mean), mean, low, high, count.
    """
    _check(frame)
    rows = [
        {"arm": arm, "round": number, "kept": found["kept"].mean()} | _columns(t_interval(found["score"], confidence))
        for (number, arm), found in frame.groupby(["round", "arm"], sort=False)
    ]
    return _frame(rows)


def differences(frame: pd.DataFrame, arm: str = "ticket", confidence: float = 0.95) -> pd.DataFrame:
    """How much better one arm is than each other, seed by seed: mean difference with Student's t-interval.

    Networks of one seed share their batches, and mostly their initial weights or masks, so their differences say more
    than two intervals side by side. The dense network is compared with every round.

    `frame` is what `controls` returned. Columns: arm, over (the other arm), round, kept (of the arm), mean, low and
    high of arm - over, worst (the least of the seeds), count of the pairs.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({
    ...     "arm": ["ticket", "ticket", "reinit", "reinit"], "seed": [0, 1, 0, 1], "round": 3, "kept": 0.1,
    ...     "score": [0.9, 0.8, 0.7, 0.7],
    ... })
    >>> differences(frame)[["arm", "over", "mean", "worst", "count"]].round(3).values.tolist()
    [['ticket', 'reinit', 0.15, 0.1, 2]]

    Raises ValueError where the frame does not have the arm.
    """
    _check(frame)
    if arm not in set(frame["arm"]):
        raise ValueError(f"there is no arm {arm!r} in the frame; it has {', '.join(dict.fromkeys(frame['arm']))}")
    rows = []
    mine = frame[frame["arm"] == arm]
    for number, own in mine.groupby("round", sort=False):
        for other, theirs in frame[frame["arm"] != arm].groupby("arm", sort=False):
            at = theirs if other == "dense" else theirs[theirs["round"] == number]
            pairs = own.merge(at, on="seed", suffixes=("", "_other"))
            if not len(pairs):
                continue
            gaps = pairs["score"] - pairs["score_other"]
            place = {"arm": arm, "over": other, "round": number, "kept": own["kept"].mean()}
            interval = _columns(t_interval(gaps, confidence))
            count = interval.pop("count")
            rows.append(place | interval | {"worst": gaps.min(skipna=False), "count": count})
    return _frame(rows)


def race(frame: pd.DataFrame, title: str = "", score: str = "score") -> Chart:
    """The arms' mean scores against what is kept, with 95 % t-intervals; the dense network lies across.

    `frame` is what `controls` returned, best with several `rounds`. Needs the extra `lab`.
    """
    from prunelab.lottery.drawing import draw_race

    return draw_race(means(frame), title, score)


def _columns(interval: Interval) -> dict[str, Any]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "count": interval.count}


def _check(frame: pd.DataFrame) -> None:
    if missing := [name for name in _COLUMNS if name not in getattr(frame, "columns", ())]:
        raise ValueError(f"this is no table of lottery.controls: it has no column {', '.join(missing)}")


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    with extra("a table"):
        import pandas as pd
    return pd.DataFrame(rows)
