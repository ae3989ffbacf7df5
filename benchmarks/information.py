"""Mutual information of 512 channels with a target: prunelab's estimators beside scikit-learn's, in one run.

    python benchmarks/information.py

Channels and target are Gaussian with correlations from 0 to 0.95, so the truth is known: -1/2 ln(1 - ρ²). For classes
the target is cut into 10 equally frequent ones, and the truth is an integral. Errors are means over channels and data
sets, the same for all (float32, as activations are). Each data set takes the estimators in turn; times are medians over
the data sets, of a short call the median of ten.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from environment import seconds, store
from scipy.stats import norm
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression
from torch import Tensor

from prunelab.criteria.estimators import histogram, quantile

CHANNELS, SAMPLES, CLASSES = 512, 2000, 10
TOP = 0.95
DATA_SETS = 5

Estimator = Callable[[Tensor, Tensor], Tensor]


def information_with_classes(rho: float) -> float:
    """I(X; class of Y) for standard Gaussians X, Y with correlation rho: the entropy of the class less that given X."""
    edges = norm.ppf(np.linspace(0, 1, CLASSES + 1))
    x = np.linspace(-8, 8, 4001)
    chances = np.diff(norm.cdf((edges[:, None] - rho * x) / np.sqrt(1 - rho**2)), axis=0)  # (classes, points)
    entropy = -np.where(chances > 0, chances * np.log(np.maximum(chances, 1e-300)), 0).sum(0)
    return float(np.log(CLASSES) - np.trapezoid(entropy * norm.pdf(x), x))


def draw(seed: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Channels (samples, channels), a measurement and classes (samples,)."""
    generator = torch.Generator().manual_seed(seed)
    rho = torch.linspace(0, TOP, CHANNELS)
    y = torch.randn(SAMPLES, generator=generator)
    x = rho * y[:, None] + (1 - rho**2).sqrt() * torch.randn(SAMPLES, CHANNELS, generator=generator)
    classes = (torch.special.ndtr(y) * CLASSES).long()
    return x.to(device), y.to(device), classes.to(device)


def scikit_learn(values: Tensor, target: Tensor) -> Tensor:
    estimate = mutual_info_regression if target.is_floating_point() else mutual_info_classif
    return torch.from_numpy(estimate(values.cpu().numpy(), target.cpu().numpy(), random_state=0))


def compare(data: list[tuple[Tensor, Tensor]], truth: Tensor) -> dict[str, dict[str, float]]:
    estimators: dict[str, Estimator] = {
        "scikit-learn (KSG)": scikit_learn,
        "histogram": histogram,
        "quantile": quantile,
    }
    times: dict[str, list[float]] = {name: [] for name in estimators}
    errors: dict[str, list[float]] = {name: [] for name in estimators}
    for name in ("histogram", "quantile"):
        estimators[name](*data[0])  # what the first call sets up is not counted
    for values, target in data:
        for name, estimate in estimators.items():
            call = partial(estimate, values, target)
            repetitions = 1 if estimate is scikit_learn else 10
            times[name].append(statistics.median(seconds(call) for _ in range(repetitions)))
            errors[name].append(float((call().cpu() - truth).abs().mean()))
    theirs = times["scikit-learn (KSG)"]
    return {
        name: {
            "seconds": statistics.median(times[name]),
            "times_faster": statistics.median([b / a for a, b in zip(times[name], theirs, strict=True)]),
            "mean_error": statistics.mean(errors[name]),
        }
        for name in estimators
    }


def main() -> None:
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    drawn = [draw(seed, device) for seed in range(DATA_SETS)]
    rho = torch.linspace(0, TOP, CHANNELS).double()
    result = {
        "channels": CHANNELS,
        "samples": SAMPLES,
        "data_sets": DATA_SETS,
        "device": str(device),
        "measurement": compare([(x, y) for x, y, _ in drawn], -0.5 * torch.log1p(-(rho**2))),
        "classes": compare(
            [(x, classes) for x, _, classes in drawn],
            torch.tensor([information_with_classes(float(r)) for r in rho], dtype=torch.float64),
        ),
    }
    path = store(f"information-{device.type}", result)
    print(f"{CHANNELS} channels, {SAMPLES} samples, on {device}; stored in {path.name}")
    print(f"{'target':14}{'estimator':22}{'seconds':>10}{'times faster':>14}{'mean error':>12}")
    for target in ("measurement", "classes"):
        for name, one in result[target].items():
            row = f"{one['seconds']:10.4f}{one['times_faster']:14.0f}{one['mean_error']:12.4f}"
            print(f"{target:14}{name:22}{row}")


if __name__ == "__main__":
    main()
