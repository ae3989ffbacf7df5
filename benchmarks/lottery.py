"""Lottery tickets on MNIST-1D: many networks trained at once beside one after the other, and the whole experiment.

    python benchmarks/lottery.py

*Speed.* Twenty networks with their own masks and batches are trained for some steps by `lottery.train_stacked`, and by
a plain PyTorch loop that trains one after the other: `torch.optim.SGD`, autograd, and the masks multiplied in after
each step. Both in turn, in each round, on one thread; the median of the ratios is printed. Before that both train from
the same weights on the same batches, and every weight is compared.

*The experiment.* Five tickets (40-100-50-10, 600 steps, 20 % less in each of 14 rounds) and all their controls after
every round, 425 networks and the 70 of the search, through `find_tickets` and `controls`: in seconds, with as many
processes as there are cores, two at most. What was found is stored too.
"""

from __future__ import annotations

import copy
import os
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from environment import seconds, store
from torch import nn
from torch.nn import functional as F

import prunelab
from prunelab import lottery
from prunelab.lab import data, train

MODELS = 20
TURNS = 7
WIDTHS = {"32-16": (32, 16), "100-50": (100, 50), "300-100": (300, 100)}
STEPS = {"32-16": 200, "100-50": 150, "300-100": 60}
ROUNDS = 14
SEEDS = range(5)


def network(hidden: Sequence[int], seed: int) -> nn.Sequential:
    """40 inputs, rectified hidden layers, 10 classes."""
    widths = [40, *hidden, 10]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [module for i, o in pairwise(widths) for module in (nn.Linear(i, o), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def plain_loop(
    models: Sequence[nn.Module], recipe: lottery.Recipe, masks: Sequence[prunelab.Masks], seeds: Sequence[int]
) -> None:
    """What anyone would write: each model alone."""
    for model, mask, seed in zip(models, masks, seeds, strict=True):
        optimizer = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum)
        held = [(model.get_parameter(name), kept.to(recipe.inputs.dtype)) for name, kept in mask.items()]
        for rows in recipe.order(seed):
            rows = rows.to(recipe.inputs.device)
            optimizer.zero_grad()
            F.cross_entropy(model(recipe.inputs[rows]), recipe.targets[rows]).backward()
            optimizer.step()
            with torch.no_grad():
                for weight, kept in held:
                    weight.mul_(kept)


def compare(hidden: Sequence[int], steps: int, pair: data.Pair, device: torch.device) -> dict[str, Any]:
    recipe = lottery.Recipe(pair[0].to(device), pair[1].to(device), steps)
    models = [network(hidden, seed).to(device) for seed in range(MODELS)]
    masks = [prunelab.prune(model, 0.8) for model in models]
    seeds = [position % len(SEEDS) for position in range(MODELS)]  # arms of a seed share its batches
    ours, theirs = copy.deepcopy(models), copy.deepcopy(models)
    calls = {
        "stacked": lambda: lottery.train_stacked(ours, recipe, masks, seeds),
        "loop": lambda: plain_loop(theirs, recipe, masks, seeds),
    }
    for call in calls.values():
        call()
    differences = [
        float((a.detach() - b.detach()).abs().max())
        for mine, other in zip(ours, theirs, strict=True)
        for a, b in zip(mine.parameters(), other.parameters(), strict=True)
    ]
    stay = [not net.get_parameter(name)[~kept].any() for net, mask in zip(ours, masks, strict=True)
            for name, kept in mask.items()]  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(TURNS):
        for name in list(calls) if turn % 2 else list(calls)[::-1]:
            times[name].append(seconds(calls[name]) / steps)
    ratios = [loop / stacked for loop, stacked in zip(times["loop"], times["stacked"], strict=True)]
    return {
        "largest_difference_of_a_weight": max(differences),
        "removed_stay_zero": all(stay),
        "seconds_per_step": {name: statistics.median(values) for name, values in times.items()},
        "speedup_over_plain_loop": {
            "median": statistics.median(ratios),
            "quartiles": statistics.quantiles(ratios, n=4)[::2],
        },
    }


def small(seed: int, parameters: int) -> nn.Sequential:
    """A dense network with about so many parameters, its hidden layers in the proportion 2 : 1."""

    def count(half: int) -> int:
        return 41 * 2 * half + (2 * half + 1) * half + (half + 1) * 10

    half = min(range(1, 51), key=lambda half: abs(count(half) - parameters))
    return network((2 * half, half), seed)


def experiment(signals: data.Dataset, device: torch.device) -> dict[str, Any]:
    """The search and the controls of all rounds, and what they say of the networks."""
    jobs = min(2, os.cpu_count() or 1) if device.type == "cpu" else 1
    inputs, targets = signals.train
    recipe = lottery.Recipe(inputs.to(device), targets.to(device), 600)

    def score(model: nn.Module) -> float:
        return train.accuracy(model, signals.test)

    start = time.perf_counter()
    tickets = lottery.find_tickets(
        lambda seed: network((100, 50), seed).to(device),
        recipe,
        seeds=SEEDS,
        keep=0.8**ROUNDS,
        rounds=ROUNDS,
        progress=False,
    )  # fmt: skip
    searched = time.perf_counter() - start
    frame = lottery.controls(
        tickets, recipe, score, rounds=range(1, ROUNDS + 1), jobs=jobs, progress=False,
        make_small=lambda seed, parameters: small(seed, parameters).to(device),
    )  # fmt: skip
    took = time.perf_counter() - start
    means = frame.groupby(["round", "arm"])["score"].mean().unstack()
    paired = lottery.differences(frame)
    gains = {over: rows.set_index("round")[["mean", "worst"]].to_dict("index") for over, rows in paired.groupby("over")}
    return {
        "seconds": took,
        "search_seconds": searched,
        "processes": jobs,
        "networks": len(frame) + len(SEEDS) * ROUNDS,
        "accuracy": {int(number): row.dropna().to_dict() for number, row in means.iterrows()},
        "ticket_over": gains,
    }


def main() -> None:
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    signals = data.mnist1d()
    speed = {name: compare(hidden, STEPS[name], signals.train, device) for name, hidden in WIDTHS.items()}
    found = experiment(signals, device)
    path = store(
        f"lottery-{device.type}", {"device": str(device), "models": MODELS, "speed": speed, "experiment": found}
    )
    print(f"{MODELS} networks trained at once, against one after the other, on {device}; stored in {path.name}")
    for name, result in speed.items():
        ratio, step = result["speedup_over_plain_loop"]["median"], result["seconds_per_step"]["stacked"]
        print(f"  40-{name}-10: {ratio:5.2f} times as fast, {1e3 * step:.2f} ms a step, largest difference of a weight "
              f"{result['largest_difference_of_a_weight']:.1e}, zeros stay {result['removed_stay_zero']}")  # fmt: skip
    print(f"The experiment: {found['networks']} networks in {found['seconds']:.1f} s, the search of them "
          f"{found['search_seconds']:.1f} s; {found['processes']} processes")  # fmt: skip
    for number in (7, 10, 14):
        row = ", ".join(f"{arm} {accuracy:.3f}" for arm, accuracy in found["accuracy"][number].items())
        gain = found["ticket_over"]["reinit"][number]
        print(f"  {0.8**number:5.3f} left: {row}; ticket - reinit {gain['mean']:.3f} (worst seed {gain['worst']:.3f})")


if __name__ == "__main__":
    main()
