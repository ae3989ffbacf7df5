"""Filter correlation of one layer: all pairs in one matrix product beside one `numpy.corrcoef` for each pair.

    python benchmarks/correlation.py

`prunelab` is the whole criterion (correlations, and the order in which the units go), the pair loop is the correlations
alone. Times are medians of interleaved repetitions.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable

import numpy as np
import torch
from environment import seconds, store
from torch import Tensor

from prunelab.criteria import FilterCorrelation

FILTERS, MEMBERS = 512, 64 * 9  # a layer of ResNet-like width: 512 filters of 64 kernels of 3 x 3
LARGE = 2048
ROUNDS = 5


def pair_loop(weights: Tensor) -> np.ndarray:
    rows = weights.cpu().numpy()
    found = np.eye(len(rows))
    for i, j in itertools.combinations(range(len(rows)), 2):
        found[i, j] = found[j, i] = np.corrcoef(rows[i], rows[j])[0, 1]
    return found


def largest_difference(weights: Tensor) -> float:
    """Between the scores of the variant "mean" and the same from the pair loop."""
    ours = FilterCorrelation(variant="mean").score(weights, None, None).cpu().numpy()
    theirs = 1 - (np.abs(pair_loop(weights)).sum(1) - 1) / (len(weights) - 1)
    return float(np.abs(ours - theirs).max())


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    weights, large = torch.randn(FILTERS, MEMBERS, device=device), torch.randn(LARGE, MEMBERS, device=device)
    calls: dict[str, Callable[[], object]] = {
        "prunelab, pairs": lambda: FilterCorrelation().score(weights, None, None),
        "prunelab, mean": lambda: FilterCorrelation(variant="mean").score(weights, None, None),
        f"prunelab, pairs, {LARGE} filters": lambda: FilterCorrelation().score(large, None, None),
        "pair loop": lambda: pair_loop(weights),
    }
    for name, call in calls.items():
        if name != "pair loop":
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times[name].append(seconds(call))
    ratios = [b / a for a, b in zip(times["prunelab, pairs"], times["pair loop"], strict=True)]
    result = {
        "filters": FILTERS,
        "members": MEMBERS,
        "device": str(device),
        "rounds": ROUNDS,
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "speedup_over_pair_loop": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "largest_difference": largest_difference(weights),
    }
    path = store(f"correlation-{device.type}", result)
    print(f"{FILTERS} filters of {MEMBERS} weights, on {device}; stored in {path.name}")
    for key in ("seconds", "speedup_over_pair_loop", "largest_difference"):
        print(f"  {key}: {result[key]}")


if __name__ == "__main__":
    main()
