"""q3, code: how much better one method is than another, seed by seed, with its interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prunelab.evaluate.interval import t_interval
from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

Scores = dict[int, float]

TASK = """
Two methods pruned the same dense networks. `ours` and `theirs` map a seed to an accuracy, as two runs have left them:
the seeds may come in another order, and some may be there only once, because a run was killed. Write
`paired_difference(ours, theirs)`: the mean of ours - theirs over the seeds that both have, and half of the width of its
95 % confidence interval, as a pair `(mean, half)`. With a single such seed nothing is known of the spread: `half` is
`float("inf")` then. There is always one at least.
"""

STARTER = '''\
def paired_difference(ours, theirs):
    """(mean, half): the mean difference ± half, a 95 % interval."""
    ...'''

SOLUTION = '''\
def paired_difference(ours, theirs):
    """(mean, half): the mean difference ± half, a 95 % interval."""
    import statistics

    from scipy import stats

    differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    n, mean = len(differences), statistics.fmean(differences)
    if n == 1:
        return mean, float("inf")
    error = statistics.stdev(differences) / n**0.5
    return mean, stats.t.ppf(0.975, n - 1) * error'''

HINTS = (
    "First make the list of differences: one for each seed that is in both dictionaries. Look the seeds up; do not "
    "rely on the order.",
    "From then on it is the interval of *one* mean, that of the differences: the t-interval of the chapter, with "
    "as many values as there are pairs. The page's own function does it, but what does it do with one value?",
    "The standard deviation divides by n - 1, the error of the mean by the root of n once more, and the factor is "
    "Student's 97.5 % quantile: 2.5 % are left on either side.",
)

TAKEAWAY = (
    "Pair first, then average. What a lucky seed gives to both methods cancels in every difference, so nobody has to "
    "know how much the two have in common; and a seed that only one of them has compares nothing."
)


def _pairs(ours: Scores, theirs: Scores) -> list[float]:
    return [ours[seed] - theirs[seed] for seed in ours if seed in theirs]


def _reference(ours: Scores, theirs: Scores) -> Tensor:
    interval = t_interval(_pairs(ours, theirs))
    return _tensor(interval.mean, interval.half if interval.count > 1 else math.inf)


def _tensor(mean: float, half: float) -> Tensor:
    return torch.tensor([mean, half], dtype=torch.float64)


def _quantile(degrees: int, confidence: float = 0.95) -> float:
    """Student's, read off an interval whose error is known."""
    values = [0.0] * degrees + [1.0]
    error = statistics.stdev(values) / math.sqrt(degrees + 1)
    return t_interval(values, confidence).half / error


def _altered(alter: Callable[[list[float], float, float], tuple[float, float]]) -> Callable[..., Tensor]:
    """A misconception about the interval: `alter` gets the differences, their mean and the right half."""

    def answer(ours: Scores, theirs: Scores) -> Tensor:
        values = _pairs(ours, theirs)
        if len(values) < 2:
            return _reference(ours, theirs)
        interval = t_interval(values)
        return _tensor(*alter(values, interval.mean, interval.half))

    return answer


def _unpaired(ours: Scores, theirs: Scores) -> Tensor:
    common = [seed for seed in ours if seed in theirs]
    if len(common) < 2:
        return _reference(ours, theirs)
    a, b = ([scores[seed] for seed in common] for scores in (ours, theirs))
    error = math.sqrt((statistics.variance(a) + statistics.variance(b)) / len(common))
    return _tensor(statistics.fmean(a) - statistics.fmean(b), _quantile(2 * len(common) - 2) * error)


def _by_position(ours: Scores, theirs: Scores) -> Tensor:
    interval = t_interval(a - b for a, b in zip(ours.values(), theirs.values(), strict=False))
    return _tensor(interval.mean, interval.half if interval.count > 1 else math.inf)


def _by_sorted_seeds(ours: Scores, theirs: Scores) -> Tensor:
    return _by_position(dict(sorted(ours.items())), dict(sorted(theirs.items())))


def _all_seeds(ours: Scores, theirs: Scores) -> Tensor:
    interval = t_interval(ours.get(seed, 0.0) - theirs.get(seed, 0.0) for seed in {*ours, *theirs})
    return _tensor(interval.mean, interval.half if interval.count > 1 else math.inf)


def _two_means(ours: Scores, theirs: Scores) -> Tensor:
    mean = statistics.fmean(ours.values()) - statistics.fmean(theirs.values())
    return _tensor(mean, float(_reference(ours, theirs)[1]))


MISTAKES = (
    Mistake(
        _by_position,
        "The values are paired in the order in which they stand. That order is chance: pair them by their seeds.",
    ),
    Mistake(
        _by_sorted_seeds,
        "Sorting is not enough: where a seed is missing on one side, all later ones move up. Pair by the seed itself.",
    ),
    Mistake(_all_seeds, "A seed that is there only once is counted as if the other had scored zero. Leave it out."),
    Mistake(
        _two_means,
        "The mean is a difference of two means over *different* seeds. Take only those that both have.",
    ),
    Mistake(
        _unpaired,
        "The two are treated as independent: their variances are added. Build the interval from the differences.",
    ),
    Mistake(_altered(lambda _v, mean, half: (-mean, half)), "The sign is turned round: it is ours - theirs."),
    Mistake(
        _altered(lambda v, mean, _h: (mean, 1.959963984540054 * statistics.stdev(v) / len(v) ** 0.5)),
        "The factor is that of a normal distribution. With few seeds the spread itself is uncertain: use Student's.",
    ),
    Mistake(
        _altered(lambda v, mean, _h: (mean, 1.96 * statistics.stdev(v) / len(v) ** 0.5)),
        "The factor 1.96 holds for a known spread. With few seeds use Student's distribution.",
    ),
    Mistake(
        _altered(lambda v, mean, half: (mean, half * len(v) ** 0.5)),
        "This is an interval for *one more difference*, not for their mean: the root of n is missing.",
    ),
    Mistake(
        _altered(lambda v, mean, _h: (mean, statistics.stdev(v))),
        "The second number is the standard deviation of the differences. How well is their mean known?",
    ),
    Mistake(
        _altered(lambda v, mean, _h: (mean, statistics.stdev(v) / len(v) ** 0.5)),
        "The second number is the standard error: an interval of this width covers the truth far too seldom.",
    ),
    Mistake(
        _altered(lambda v, mean, half: (mean, half * math.sqrt((len(v) - 1) / len(v)))),
        "The standard deviation divides by n. For a sample it divides by one less.",
    ),
    Mistake(
        _altered(lambda v, mean, _h: (mean, t_interval(v, 0.90).half)),
        "The quantile leaves 5 % on *each* side. An interval of 95 % leaves half of that.",
    ),
    Mistake(
        _altered(lambda v, mean, half: (mean, half * _quantile(len(v)) / _quantile(len(v) - 1))),
        "The degrees of freedom are one too many: the mean has used one up.",
    ),
    Mistake(_altered(lambda _v, mean, half: (mean, 2 * half)), "This is the whole width of the interval, not half."),
    Mistake(
        _altered(lambda _v, mean, half: (100 * mean, 100 * half)),
        "These are percentage points; accuracies are fractions.",
    ),
    Mistake(
        _altered(lambda _v, mean, half: (mean - half, mean + half)),
        "These are the two ends of the interval. The task asks for its middle and half of its width.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="paired_difference")


def _judge(found: Any, ours: Scores, theirs: Scores) -> None:
    pair, expected = _read(found), _reference(ours, theirs)
    if torch.allclose(pair, expected, rtol=1e-6, atol=1e-9):
        return
    if not torch.isfinite(expected).all():
        if not math.isclose(float(pair[0]), float(expected[0]), abs_tol=1e-9):
            raise Wrong("With a single common seed the mean is the difference of that seed.")
        raise Wrong("With a single common seed nothing is known of the spread, and the task says what `half` is then.")
    name_mistake(pair, expected, MISTAKES, ours=ours, theirs=theirs)
    if math.isclose(float(pair[0]), float(expected[0]), abs_tol=1e-9):
        raise Wrong("The mean is right, the half is not.")
    raise Wrong("The mean is not that of the differences of the seeds that both have.")


def _read(found: Any) -> Tensor:
    """The pair as a tensor; Wrong for anything else."""
    try:
        if isinstance(found, str | bytes | dict | set):
            raise TypeError
        numbers = [float(number) for number in found]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        numbers = []
    if len(numbers) != 2:
        raise Wrong(f"The function returns {describe(found)}; it should return a pair of numbers, (mean, half).")
    return _tensor(*numbers)


def _cases() -> list[Case]:
    ours = {0: 0.91, 1: 0.93, 2: 0.88, 3: 0.95, 4: 0.92}
    theirs = {0: 0.90, 1: 0.915, 2: 0.875, 3: 0.945, 4: 0.899}
    few = {7: 0.71, 9: 0.68, 8: 0.73}
    tries: list[tuple[str, Scores, Scores]] = [
        ("five seeds, the same ones", ours, theirs),
        ("the same, in another order", ours, {seed: theirs[seed] for seed in (3, 0, 4, 2, 1)}),
        (
            "one seed is missing on one side",
            {s: ours[s] for s in (0, 2, 3, 4)},
            {s: theirs[s] for s in (4, 3, 2, 1, 0)},
        ),
        ("each side lacks another seed", {s: ours[s] for s in (0, 1, 2, 3)}, {s: theirs[s] for s in (1, 2, 3, 4)}),
        ("methods that go against each other", few, {7: 0.69, 8: 0.66, 9: 0.74}),
        ("two seeds in common", {5: 0.5, 6: 0.6, 1: 0.9}, {6: 0.55, 5: 0.52, 2: 0.1}),
        ("no difference at all", few, dict(few)),
        ("a single seed in common", {1: 0.9, 2: 0.8}, {2: 0.7, 3: 0.6}),
    ]
    return [Case(about, {"ours": a, "theirs": b}) for about, a, b in tries]


_START = """\
def paired_difference(ours, theirs):
    import statistics
    from scipy import stats
    both = [seed for seed in ours if seed in theirs]
    d = [ours[seed] - theirs[seed] for seed in both]
    """
_COUNTS = """\
if len(d) == 1:
        return d[0], float("inf")
    n, mean, s = len(d), statistics.fmean(d), statistics.stdev(d)
    """


def _returning(expression: str, before: str = "") -> str:
    """A wrong answer: `before` changes the differences."""
    return f"{_START}{before}{_COUNTS}return {expression}"


_RIGHT = "mean, stats.t.ppf(0.975, n - 1) * s / n**0.5"

WRONG = (
    (_returning(_RIGHT, "d = [a - b for a, b in zip(ours.values(), theirs.values())]\n    "), "order is chance"),
    (
        _returning(_RIGHT, "d = [ours[a] - theirs[b] for a, b in zip(sorted(ours), sorted(theirs))]\n    "),
        "Sorting is not enough",
    ),
    (
        _returning(_RIGHT, "d = [ours.get(s, 0) - theirs.get(s, 0) for s in {*ours, *theirs}]\n    "),
        "as if the other had scored zero",
    ),
    (
        _returning(f"statistics.fmean(ours.values()) - statistics.fmean(theirs.values()), ({_RIGHT})[1]"),
        "two means over .different. seeds",
    ),
    (
        _returning(
            "mean, stats.t.ppf(0.975, 2 * n - 2) * ((statistics.variance([ours[k] for k in both])"
            " + statistics.variance([theirs[k] for k in both])) / n) ** 0.5"
        ),
        "treated as independent",
    ),
    (_returning("-mean, stats.t.ppf(0.975, n - 1) * s / n**0.5"), "sign is turned round"),
    (_returning("mean, stats.norm.ppf(0.975) * s / n**0.5"), "that of a normal distribution"),
    (_returning("mean, 1.96 * s / n**0.5"), "holds for a known spread"),
    (_returning("mean, stats.t.ppf(0.975, n - 1) * s"), "one more difference"),
    (_returning("mean, s"), "standard deviation of the differences"),
    (_returning("mean, s / n**0.5"), "the standard error"),
    (_returning("mean, stats.t.ppf(0.975, n - 1) * statistics.pstdev(d) / n**0.5"), "deviation divides by n\\."),
    (_returning("mean, stats.t.ppf(0.95, n - 1) * s / n**0.5"), "leaves 5 % on .each. side"),
    (_returning("mean, stats.t.ppf(0.975, n) * s / n**0.5"), "degrees of freedom are one too many"),
    (_returning("mean, 2 * stats.t.ppf(0.975, n - 1) * s / n**0.5"), "the whole width"),
    (_returning("100 * mean, 100 * stats.t.ppf(0.975, n - 1) * s / n**0.5"), "percentage points"),
    (
        _returning("mean - stats.t.ppf(0.975, n - 1) * s / n**0.5, mean + stats.t.ppf(0.975, n - 1) * s / n**0.5"),
        "two ends of the interval",
    ),
    (_returning("mean, stats.t.ppf(0.975, n - 1) * s / n"), "the half is not"),
    (_returning("mean / 2, s"), "mean is not that of the differences"),
    (f"{_START}return statistics.fmean(d), 0.0 if len(d) < 2 else {_RIGHT.partition(', ')[2]}".replace(
        "n - 1", "len(d) - 1").replace("* s /", "* statistics.stdev(d) /").replace("n**0.5", "len(d)**0.5"),
     "nothing is known of the spread"),
    (_returning(_RIGHT).replace("return d[0],", "return 0.0,"), "difference of that seed"),
    (f"{_START}return statistics.fmean(d), statistics.stdev(d) * stats.t.ppf(0.975, len(d) - 1) / len(d)**0.5",
     "raised StatisticsError"),
    (_returning("mean"), "returns the float"),
    ("def paired_difference(ours, theirs):\n    theirs.clear()\n    return 0, 0", "modified its input `theirs`"),
    ("def paired_difference(ours, theirs):\n    d = len(ours)", "Is a `return` missing"),
    ("def paired_difference(differences):\n    return 0, 0", r"yours takes `\(differences\)`"),
    ("paired_difference = (0.01, 0.002)", "needs the function itself"),
)  # fmt: skip

QUESTION = Question(
    name="q3",
    kind="code",
    title="Ours minus theirs",
    task=TASK,
    answer="paired_difference",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
