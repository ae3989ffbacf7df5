"""The MONK's problems: the table of Optimal Brain Surgeon's paper, over seeds, beside what it says.

    PRUNELAB_DATA=folder python benchmarks/monks.py [seeds]

Reads UCI's files `monks-1.train`, ... in that folder, else asks OpenML, else draws sets of the same size and says so. A
network is trained to convergence by its recipe, then pruned to one weight without retraining, by Optimal Brain Surgeon,
by Optimal Brain Damage, and by magnitude. What counts is the fewest weights, anywhere on the way, with which enough of
the training examples are right; the accuracy is that on all 432 combinations.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

import torch
from environment import store

from prunelab.curvature import Run, obd, obs
from prunelab.lab.monks import Monks, monks
from prunelab.lab.monks_recipes import RECIPES, Recipe

PAPER = {1: (14, 1.0), 2: (15, 1.0), 3: (4, 0.972)}  # weights and test accuracy of Optimal Brain Surgeon


def runs(recipe: Recipe, found: Monks, seed: int) -> dict[str, Run]:
    model = recipe.network(seed)
    recipe.train(model, found.train)
    data, decay = [(found.train[0].double(), found.train[1])], recipe.weight_decay
    return {
        "OBS": obs(model, data, recipe.loss, 1, weight_decay=decay),
        "OBD": obd(model, data, recipe.loss, 1, weight_decay=decay),
        "magnitude": obd(model, data, recipe.loss, 1, weight_decay=decay, method="magnitude"),
    }


def one_problem(problem: int, seeds: int) -> dict[str, Any]:
    found, recipe = monks(problem), RECIPES[problem]
    rows: dict[str, list[tuple[int | None, float | None]]] = {}
    for seed in range(seeds):
        for name, run in runs(recipe, found, seed).items():
            count = recipe.fewest(run, found.train)
            right = None if count is None else recipe.correct(run.model_at(count), found.test) / len(found.test[1])
            rows.setdefault(name, []).append((count, right))
    weights, accuracy = PAPER[problem]
    as_in_paper = [
        count is not None and count <= weights and right is not None and right >= accuracy - 5e-4
        for count, right in rows["OBS"]
    ]
    return {
        "source": found.source,
        "paper": {"weights": weights, "test_accuracy": accuracy},
        "as_in_paper": sum(as_in_paper),
        "seeds": seeds,
        "weights": {name: [count for count, _ in pairs] for name, pairs in rows.items()},
        "test_accuracy": {name: [right for _, right in pairs] for name, pairs in rows.items()},
    }


def main() -> None:
    torch.set_num_threads(1)
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    results = {f"MONK-{problem}": one_problem(problem, seeds) for problem in RECIPES}
    path = store("monks-cpu", {"problems": results})
    print(f"Fewest weights without retraining, {seeds} seeds (fewest, median, most); stored in {path.name}")
    for name, result in results.items():
        counts = {
            method: [count if count is not None else 99 for count in found]
            for method, found in result["weights"].items()
        }
        cells = [f"{method} {min(c)}, {statistics.median(c):g}, {max(c)}" for method, c in counts.items()]
        accuracy = [right or 0.0 for right in result["test_accuracy"]["OBS"]]
        print(
            f"  {name} ({result['source']}): {'; '.join(cells)}; OBS on the test set {statistics.median(accuracy):.1%}"
        )
        print(
            f"    as few and as good as the paper's {result['paper']['weights']} in {result['as_in_paper']} of {seeds}"
        )


if __name__ == "__main__":
    main()
