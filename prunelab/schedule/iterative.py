"""Iterative pruning: prune a little, train on, prune again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from prunelab.schedule.base import Schedule, check_sparsity, check_step

_LAWS = ("linear", "geometric")


@dataclass(frozen=True)
class Iterative(Schedule):
    """A few equal rounds with training between them (Hubens 2020, "Scheduling"; Han et al. 2015).

    A step function: round k, of 1 to `rounds`, comes at step start + (k - 1) * every, and from there on

        s_k = k * final / rounds                      law="linear": each round removes as many units as the others
        s_k = 1 - (1 - final) ** (k / rounds)         law="geometric": each removes the same fraction of what is left

    Geometric rounds are those of Frankle & Carbin 2019: a fixed fraction of what is left, again and again. No such
    fraction below 1 removes everything: with final = 1 all goes in the first round.

    >>> schedule = Iterative(0.9, rounds=3, start=100, every=50)
    >>> [round(schedule(step), 3) for step in (99, 100, 149, 150, 200, 1000)]
    [0.0, 0.3, 0.3, 0.6, 0.9, 0.9]
    >>> [round(Iterative(0.488, rounds=3, every=1, law="geometric")(step), 3) for step in range(3)]
    [0.2, 0.36, 0.488]
    """

    final: float
    rounds: int
    start: int = 0
    every: int = 100
    law: Literal["linear", "geometric"] = "linear"
    end: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "final", check_sparsity(self.final, "final"))
        object.__setattr__(self, "rounds", check_step(self.rounds, "rounds", least=1))
        object.__setattr__(self, "start", check_step(self.start, "start"))
        object.__setattr__(self, "every", check_step(self.every, "every", least=1))
        if self.law not in _LAWS:
            raise ValueError(f"unknown law {self.law!r}; choose {' or '.join(map(repr, _LAWS))}")
        object.__setattr__(self, "end", self.start + (self.rounds - 1) * self.every)

    def __call__(self, step: int) -> float:
        done = min((check_step(step) - self.start) // self.every + 1, self.rounds)
        if done <= 0:
            return 0.0
        if done == self.rounds:
            return self.final
        if self.law == "linear":
            return done * self.final / self.rounds
        return min(1 - (1 - self.final) ** (done / self.rounds), self.final)

    def due(self, step: int) -> bool:
        step = check_step(step)
        return self.start <= step <= self.end and (step - self.start) % self.every == 0
