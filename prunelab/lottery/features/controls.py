"""A feature ticket against its controls: all coordinates, as many at random, as many by mutual information."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunelab.criteria import estimators
from prunelab.evaluate.seeding import check_seeds, distinct, seeded
from prunelab.extras import extra
from prunelab.lottery.features.ticket import feature_ticket, kept_only

if TYPE_CHECKING:
    import pandas as pd

Pair = tuple[Tensor, Tensor]
Retrain = Callable[[Pair, Pair, int], float]
ARMS = ("ticket", "all", "random", "information")


def feature_controls(
    importances: Mapping[int, Tensor],
    train: Pair,
    test: Pair,
    retrain: Retrain,
    *,
    keep: float | Iterable[float],
    arms: Iterable[str] = ARMS,
) -> pd.DataFrame:
    """Retrain on the kept coordinates alone, for every seed, fraction and arm; the seeds are paired.

    The arms: `ticket` keeps the coordinates of the largest importance, `random` as many by chance (the seed's),
    `information` those that tell most about the targets, each by itself (mutual information, estimated with quantile
    bins on the training examples); `all` keeps everything.

    Args:
        importances: {seed: importance (d,)}, one ticket a seed, as `feature_ticket` takes it.
        train, test: inputs (n, ...) and targets (n,).
        retrain: retrain(train, test, seed) → a score, larger is better. The inputs it gets are (n, kept).
        keep: the fraction of the coordinates to keep, or several.
        arms: which of the four, in this order.

    Returns:
        A DataFrame, one row a run: arm, seed, keep (1.0 for `all`), kept (how many coordinates), score.

    Raises TypeError or ValueError for a bad argument, ImportError without pandas, and what `retrain` raises.
    """
    with extra("feature_controls"):
        import pandas as pd
    seeds = check_seeds(importances)
    fractions = distinct([keep] if isinstance(keep, int | float) else list(keep), "keep")
    chosen = distinct(list(arms), "arms")
    if unknown := set(chosen) - set(ARMS):
        raise ValueError(f"arms={sorted(unknown)}: there are {', '.join(ARMS)}")
    information = _information(train) if "information" in chosen else None
    rows = []
    for seed in seeds:
        rankings = _rankings(importances[seed], information, seed)
        for arm in chosen:
            for fraction in (1.0,) if arm == "all" else fractions:
                ticket = feature_ticket(rankings[arm], keep=fraction)
                pair = [(kept_only(inputs, ticket), targets) for inputs, targets in (train, test)]
                with seeded(seed):
                    score = float(retrain(pair[0], pair[1], seed))
                rows.append((arm, seed, float(fraction), int(ticket.sum()), score))
    return pd.DataFrame(rows, columns=["arm", "seed", "keep", "kept", "score"])


def _rankings(importance: Tensor, information: Tensor | None, seed: int) -> dict[str, Tensor]:
    """For each arm a number a coordinate; those with the largest stay."""
    flat = importance.flatten()
    chance = torch.randperm(len(flat), generator=torch.Generator().manual_seed(seed))
    rankings = {"ticket": flat, "all": flat, "random": chance.double()}
    return rankings if information is None else {**rankings, "information": information}


def _information(train: Pair) -> Tensor:
    """(d,) nats: what each coordinate alone tells about the targets; of several targets the mean."""
    inputs, targets = train
    found = estimators.quantile(inputs.flatten(1), targets)
    return found if found.dim() == 1 else found.mean(1)
