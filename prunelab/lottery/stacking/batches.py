"""The batches of all models of a stack, gathered at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from prunelab.lottery.recipe import Recipe


def batches(
    recipe: Recipe, seeds: Sequence[int], begin: int, end: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs (B, N, ...) and targets (B, N, ...) of the steps from `begin` to `end`: model b's are those of seeds[b].

    Models of one seed see the same examples; its order is made once.
    """
    distinct = list(dict.fromkeys(seeds))
    own = torch.tensor([distinct.index(seed) for seed in seeds])
    orders = [recipe.order(seed, begin) for seed in distinct]
    inputs, targets = recipe.inputs.to(device), recipe.targets.to(device)
    for _ in range(begin, end):
        rows = torch.stack([next(order) for order in orders])  # (seeds, N): batches of a step are equally long
        if len(distinct) < len(seeds):
            rows = rows[own]  # (B, N)
        yield _gathered(inputs, rows.to(device)), _gathered(targets, rows.to(device))


def _gathered(examples: Tensor, rows: Tensor) -> Tensor:
    """Rows of examples, (B, N) → (B, N, ...); index_select is several times faster than indexing with a matrix."""
    return examples.index_select(0, rows.flatten()).unflatten(0, rows.shape)
