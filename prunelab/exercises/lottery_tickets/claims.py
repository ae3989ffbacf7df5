"""q5, investigate: which claim of a winning ticket holds, and what do the others fail?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Many groups say that they have found winning tickets. You get their numbers, one claim at a time, as a dictionary with
two entries: `steps` has the steps of training for "ticket" and "dense"; `scores` has lists of test accuracies, one
number a seed and the same seeds in the same order, for the arms "ticket", "dense" (as trained for the comparison),
"converged" (the dense network, trained until nothing changes any more), "random" (the ticket's start, a random mask of
its size) and "reinit" (the ticket's mask, another start).

Write `fails(claim)`. It returns the *first* of these that is so:

1. `"steps"`: the ticket was trained for more steps than the dense network;
2. `"accuracy"`: the ticket is clearly worse than the dense network;
3. `"baseline"`: the ticket is clearly worse than the converged one;
4. `"mask"`: the ticket is *not* clearly better than the random mask;
5. `"start"`: the ticket is *not* clearly better than the re-initialised one;

and `"nothing"` if the claim holds. *Clearly* means: in pairs, seed by seed, the mean difference is more than twice its
standard error, the standard deviation of the differences (with n - 1) divided by √n. Predict first: which of the five
will the claims that look best fail?
"""

STARTER = '''\
def fails(claim):
    """What a claim of a winning ticket fails first, or "nothing"."""
    ...'''

SOLUTION = '''\
def fails(claim):
    """What a claim of a winning ticket fails first, or "nothing"."""

    def clearly_better(one, other):
        pairs = zip(claim["scores"][one], claim["scores"][other])
        gaps = torch.tensor([a - b for a, b in pairs], dtype=torch.float64)
        return bool(gaps.mean() > 2 * gaps.std() / len(gaps) ** 0.5)

    if claim["steps"]["ticket"] > claim["steps"]["dense"]:
        return "steps"
    if clearly_better("dense", "ticket"):
        return "accuracy"
    if clearly_better("converged", "ticket"):
        return "baseline"
    if not clearly_better("ticket", "random"):
        return "mask"
    return "nothing" if clearly_better("ticket", "reinit") else "start"'''

HINTS = (
    "Write a small function first: is one arm clearly better than another? It is used four times, twice the other way "
    "round.",
    "Subtract seed by seed before you average anything: what all arms of a seed share falls out of the differences, "
    "and their spread is what counts.",
    "The conditions are asked in the order of the list, and the first that is so is the answer. Mind the two that say "
    "*not*: no evidence for a difference is enough to fail there.",
)

TAKEAWAY = (
    "A ticket may beat its dense network by points and still show nothing: without its controls a good architecture, a "
    "lucky size or a tired baseline look the same. And pairs decide cases that overlapping error bars leave open."
)

ANSWERS = ("steps", "accuracy", "baseline", "mask", "start", "nothing")


def _reference(claim: Mapping[str, Any]) -> str:
    scores = claim["scores"]

    def clearly(one: str, other: str) -> bool:
        gaps = [a - b for a, b in zip(scores[one], scores[other], strict=True)]
        return statistics.fmean(gaps) > 2 * statistics.stdev(gaps) / math.sqrt(len(gaps))

    conditions = (
        claim["steps"]["ticket"] > claim["steps"]["dense"],
        clearly("dense", "ticket"),
        clearly("converged", "ticket"),
        not clearly("ticket", "random"),
        not clearly("ticket", "reinit"),
    )
    return next((name for name, so in zip(ANSWERS, conditions, strict=False) if so), "nothing")


_SEEDS = (0.00, 0.02, -0.02, 0.01, -0.01)  # what all arms of a seed share
_NOISE = (0.004, -0.004, 0.002, 0.000, -0.002)


def _arm(mean: float, noise: float = 0.0, shared: float = 1.0) -> list[float]:
    """Five seeds: a mean, what they share, and a noise of their own."""
    return [round(mean + shared * s + noise * n, 6) for s, n in zip(_SEEDS, _NOISE, strict=True)]


def _claim(
    steps: tuple[int, int] = (600, 600),
    *,
    ticket: Sequence[float] | None = None,
    dense: float | Sequence[float] = 0.70,
    converged: float | Sequence[float] = 0.705,
    random: float | Sequence[float] = 0.5,
    reinit: float | Sequence[float] = 0.55,
) -> dict[str, Any]:
    def scores(one: float | Sequence[float], noise: float) -> list[float]:
        return _arm(one, noise) if isinstance(one, float) else list(one)

    return {
        "steps": {"ticket": steps[0], "dense": steps[1]},
        "scores": {
            "ticket": list(ticket) if ticket is not None else _arm(0.71),
            "dense": scores(dense, 1.0),
            "converged": scores(converged, -1.0),
            "random": scores(random, 2.0),
            "reinit": scores(reinit, -2.0),
        },
    }


# What to tell whoever is wrong about a claim, by the place of the claim; simple ones first.
_TRIES: tuple[tuple[str, dict[str, Any], str], ...] = (
    (
        "a ticket that beats all its controls",
        _claim(),
        "Every condition is met by this one. Which one did you turn round?",
    ),
    (
        "a ticket that was trained for longer",
        _claim((900, 600)),
        "Look at the steps of this one before its accuracies.",
    ),
    (
        "a ticket that was trained for less long",
        _claim((400, 600)),
        "This ticket needed *fewer* steps than the dense network. *At most as many* is what the hypothesis asks for.",
    ),
    (
        "a ticket that loses to its dense network",
        _claim(dense=0.76, converged=0.76),
        "This ticket is some points below the network that it was cut from, in every seed.",
    ),
    (
        "a dense network that was not done",
        _claim(dense=0.66, converged=0.74),
        "This ticket beats the dense network of the comparison. What would that one have reached?",
    ),
    (
        "a random mask that does as well",
        _claim(random=0.712),
        "Draw any mask of this size, and it does as well. What was found here?",
    ),
    (
        "a fresh start that does as well",
        _claim(reinit=0.712),
        "This mask works from any start: a good architecture. Is it a ticket?",
    ),
    (
        "neither mask nor start matters",
        _claim(random=0.711, reinit=0.711),
        "Two conditions fail here. The first in the order of the list is asked for.",
    ),
    (
        "trained for longer, and still worse",
        _claim((900, 600), dense=0.8, converged=0.8),
        "Here the steps and the accuracy both fail, and one of them comes first in the list.",
    ),
    (
        "a small difference in every single seed",
        _claim(reinit=[s - 0.006 + n / 2 for s, n in zip(_arm(0.71), _NOISE, strict=True)]),
        "The bars of ticket and re-initialised overlap here, but in pairs the ticket wins in every seed. Did you pair "
        "the seeds?",
    ),
    (
        "one seed that was lucky",
        _claim(reinit=[0.72, 0.74, 0.70, 0.73, 0.55]),
        "The mean difference is large here, and nearly all of it comes from one seed. Did you look at the spread?",
    ),
    (
        "a difference smaller than its standard error",
        _claim(random=[s - g for s, g in zip(_arm(0.71), (0.01, 0.03, -0.01, 0.02, -0.012), strict=True)]),
        "The mean difference is less than one standard error here. What is the standard deviation divided by?",
    ),
    (
        "a difference that needs the factor two",
        _claim(random=[s - g for s, g in zip(_arm(0.71), (0.01, 0.03, -0.01, 0.02, -0.002), strict=True)]),
        "The mean difference is more than one standard error here, and not more than two.",
    ),
    (
        "a difference that needs the root of n",
        _claim(reinit=[s - g for s, g in zip(_arm(0.71), (0.01, 0.03, -0.01, 0.04, 0.02), strict=True)]),
        "The spread of the single differences is not that of their mean: it shrinks with the number of seeds.",
    ),
    (
        "five seeds, and a difference at the edge",
        _claim(random=[s - g for s, g in zip(_arm(0.71), (0.01, 0.03, -0.004, 0.02, 0.003), strict=True)]),
        "This one is at the edge: the standard deviation of a sample divides by n - 1.",
    ),
    (
        "a ticket as good as its dense network, not better",
        _claim(dense=_arm(0.71), converged=_arm(0.71)),
        "A winning ticket need not beat the dense network: to match it is enough.",
    ),
    (
        "a ticket that is a little below, in some seeds",
        _claim(dense=[s + g for s, g in zip(_arm(0.71), (0.01, -0.02, 0.03, -0.01, 0.01), strict=True)]),
        "This ticket is below the dense network by less than chance explains. That is not *clearly* worse.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="fails")


def _judge(found: Any, claim: Mapping[str, Any]) -> None:
    if not isinstance(found, str) or found not in ANSWERS:
        raise Wrong(
            f"`fails` returns {describe(found)}; it should return one of the five names of the task, or nothing's."
        )
    if found != _reference(claim):
        reason = next(why for _, one, why in _TRIES if one == claim)
        raise Wrong(f'You say "{found}". {reason}')


def _cases() -> list[Case]:
    return [
        Case(f"group {number}: {about}", {"claim": claim}) for number, (about, claim, _) in enumerate(_TRIES, start=1)
    ]


def _answer(
    *,
    gaps: str = 'torch.tensor([a - b for a, b in zip(claim["scores"][one], claim["scores"][other])]).double()',
    clearly: str = "bool(gaps.mean() > 2 * gaps.std() / len(gaps) ** 0.5)",
    steps: str = 'claim["steps"]["ticket"] > claim["steps"]["dense"]',
    order: Sequence[int] = (0, 1, 2, 3, 4),
    tests: Mapping[int, str] | None = None,
) -> str:
    """The solution with one step changed."""
    conditions = {
        0: steps,
        1: 'better("dense", "ticket")',
        2: 'better("converged", "ticket")',
        3: 'not better("ticket", "random")',
        4: 'not better("ticket", "reinit")',
    } | dict(tests or {})
    lines = "".join(f"    if {conditions[i]}:\n        return {ANSWERS[i]!r}\n" for i in order)
    return (
        "def fails(claim):\n"
        "    def better(one, other):\n"
        f"        gaps = {gaps}\n"
        f"        return {clearly}\n"
        f'{lines}    return "nothing"'
    )


_UNPAIRED = (
    'bool(gaps.mean() > 2 * (torch.tensor(claim["scores"][one]).var() / 5 + torch.tensor(claim["scores"][other]).var() '
    "/ 5) ** 0.5)"
)

WRONG = (
    (_answer(tests={3: 'better("ticket", "random")'}), "Which one did you turn round"),
    (_answer(order=(1, 2, 3, 4)), "Look at the steps of this one"),
    (_answer(steps='claim["steps"]["ticket"] != claim["steps"]["dense"]'), "needed .fewer. steps"),
    (_answer(order=(0, 2, 3, 4)), "the network that it was cut from"),
    (_answer(order=(0, 1, 3, 4)), "What would that one have reached"),
    (_answer(order=(0, 1, 2, 4)), "What was found here"),
    (_answer(order=(0, 1, 2, 3)), "Is it a ticket"),
    (_answer(order=(0, 1, 2, 4, 3)), "Two conditions fail here"),
    (_answer(order=(1, 0, 2, 3, 4)), "one of them comes first"),
    (_answer(clearly=_UNPAIRED), "Did you pair"),
    (_answer(clearly="bool(gaps.mean() > 0.005)"), "Did you look at the spread"),
    (_answer(clearly="bool(gaps.mean() > gaps.std() / len(gaps) ** 0.5)"), "and not more than two"),
    (_answer(clearly="bool(gaps.mean() > 2 * gaps.std() / len(gaps))"), "What is the standard deviation divided by"),
    (_answer(clearly="bool(gaps.mean() > 1.2 * gaps.std())"), "shrinks with the number of seeds"),
    (_answer(clearly="bool(gaps.mean() > 2 * gaps.std(correction=0) / len(gaps) ** 0.5)"), "divides by n - 1"),
    (_answer(tests={1: 'sum(claim["scores"]["dense"]) > sum(claim["scores"]["ticket"])'}), "not .clearly. worse"),
    (_answer(tests={1: 'not better("ticket", "dense")'}), "to match it is enough"),
    ("def fails(claim):\n    return 'luck'", "the str 'luck'; it should return"),
    ("def fails(claim):\n    return 3", "the int 3; it should return"),
    ("def fails(claim):\n    claim['steps'] = 3\n    return 'steps'", "modified its input `claim`"),
    ("def fails(claim):\n    claim['scores']", "Is a `return` missing"),
    ("def fails(claim):\n    return claim['winner']", "raised KeyError"),
    ("def fails(scores, steps):\n    return 'steps'", r"yours takes `\(scores, steps\)`"),
    ("fails = 'nothing'", "needs the function itself"),
)

QUESTION = Question(
    name="q5",
    kind="investigate",
    title="Winning tickets for sale",
    task=TASK,
    answer="fails",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
