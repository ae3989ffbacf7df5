"""Tickets beat their controls where they should: MNIST-1D and digits, five seeds, all networks trained at once."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import nn

from prunelab.lab import data
from prunelab.lottery import Recipe, Ticket, controls, differences, find_tickets, means

SEEDS = range(5)


def mlp(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 100), nn.ReLU(), nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10))


class Setting:
    """A data set, how to train on it, and its tickets with a fifth less after each round."""

    def __init__(self, dataset: data.Dataset, rounds: int, **recipe: object) -> None:
        self.test = dataset.test
        self.recipe = Recipe(*dataset.train, **recipe)  # type: ignore[arg-type]
        inputs = dataset.train[0][0].numel()
        self.tickets: list[Ticket] = find_tickets(
            lambda seed: nn.Sequential(nn.Flatten(), mlp(inputs)),
            self.recipe,
            seeds=SEEDS,
            keep=0.8**rounds,
            rounds=rounds,
        )

    @torch.no_grad()
    def points(self, model: nn.Module) -> float:
        """Test accuracy in points of a hundred."""
        inputs, targets = self.test
        return 100 * float((model(inputs).argmax(1) == targets).double().mean())

    def race(self, recipe: Recipe, arms: list[str], rounds: list[int] | None = None) -> pd.DataFrame:
        return controls(self.tickets, recipe, self.points, arms, rounds=rounds)


@pytest.fixture(scope="module")
def signals() -> Setting:
    return Setting(data.mnist1d(), 10, steps=600)


def test_tickets_on_mnist1d_beat_their_controls(signals: Setting) -> None:
    """At 10.7 % left, over five seeds."""
    gaps = differences(signals.race(signals.recipe, ["ticket", "reinit", "random"])).set_index("over")
    assert gaps["kept"].tolist() == pytest.approx([0.107] * 2, abs=1e-3)
    assert gaps["count"].tolist() == [5, 5]
    assert gaps.loc["reinit", "mean"] >= 8
    assert gaps.loc["reinit", "worst"] >= 4
    assert gaps.loc["random", "mean"] >= 10


def test_a_fifth_of_the_network_matches_all_of_it_trained_to_convergence(signals: Setting) -> None:
    """The dense network is undertrained after 600 steps, so it gets 1,500; the ticket matches it after either."""
    long = Recipe(signals.recipe.inputs, signals.recipe.targets, steps=1500, learning_rate=0.05)
    after_long = means(signals.race(long, ["ticket", "dense"], [7])).set_index("arm")
    after_short = means(signals.race(signals.recipe, ["ticket", "dense"], [7])).set_index("arm")
    dense = after_long.loc["dense"]
    assert after_long.loc["ticket", "kept"] == pytest.approx(0.21, abs=1e-3)
    assert after_long.loc["ticket", "mean"] >= dense["low"]
    assert after_short.loc["ticket", "mean"] >= dense["low"]
    assert after_short.loc["dense", "mean"] < dense["low"]


def test_tickets_on_digits_beat_their_controls() -> None:
    """At 5.5 % left, over five seeds, on pixels from 0 to 1: normalised ones are learned so fast that little is lost."""
    digits = data.digits()
    parts = {name: digits.std * getattr(digits, name)[0] + digits.mean for name in ("train", "val", "test")}
    pixels = replace(digits, **{name: (x, getattr(digits, name)[1]) for name, x in parts.items()})
    setting = Setting(pixels, 13, steps=400, optimizer="adam", learning_rate=1e-3)
    gaps = differences(setting.race(setting.recipe, ["ticket", "reinit"])).iloc[0]
    assert gaps["kept"] == pytest.approx(0.055, abs=1e-3)
    assert gaps["mean"] >= 5
