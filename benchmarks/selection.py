"""Selection within rows and within N:M groups: prunelab beside a stable sort and beside topk, in one run.

    python benchmarks/selection.py

The scores are those of Wanda (Sun et al. 2024) for one layer of a language model: |weight| times the norm of its
input, 4096 x 4096. The peers are what the method's published code does: sort every row, scatter the first half; take
the two lowest of every four, scatter them. Times are medians of interleaved repetitions.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from environment import seconds, store
from torch import Tensor

from prunelab.scope import NM, Candidates, PerRow, Scope

SHAPE = (4096, 4096)
REPETITIONS = 7


def sorted_rows(scores: Tensor, remove: int) -> Tensor:
    order = torch.sort(scores, dim=-1, stable=True).indices
    return torch.ones_like(scores, dtype=torch.bool).scatter_(1, order[:, :remove], False)


def lowest_of_four(scores: Tensor) -> Tensor:
    groups = scores.view(-1, 4)
    lowest = torch.topk(groups, 2, dim=1, largest=False).indices
    return torch.ones_like(groups, dtype=torch.bool).scatter_(1, lowest, False).view_as(scores)


def compare(scores: Tensor, scope: Scope, peer: Callable[[], Tensor], definition: Tensor) -> dict[str, Any]:
    """Times of the scope and the peer, and whether they agree with the definition: a stable sort."""
    candidates = [Candidates("layer", scores.flatten(), 1, shape=tuple(scores.shape))]

    def ours() -> Tensor:
        return scope.keep(candidates, 0.5)[0].view_as(scores)

    times: dict[str, list[float]] = {"prunelab": [], "peer": []}
    for _ in range(REPETITIONS):
        times["prunelab"].append(seconds(ours))
        times["peer"].append(seconds(peer))
    ratios = [b / a for a, b in zip(times["prunelab"], times["peer"], strict=True)]
    return {
        "bit_exact": torch.equal(ours(), definition),
        "equals_peer": torch.equal(ours(), peer()),
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "speedup_over_peer": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
    }


def main() -> None:
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    draw = torch.Generator().manual_seed(0)
    scores = (torch.randn(SHAPE, generator=draw).abs() * torch.rand(SHAPE[1], generator=draw)).to(device)
    rows, columns = SHAPE
    result = {
        "shape": SHAPE,
        "sparsity": 0.5,
        "device": str(device),
        "per_row": compare(
            scores, PerRow(), lambda: sorted_rows(scores, columns // 2), sorted_rows(scores, columns // 2)
        ),
        "two_of_four": compare(
            scores,
            NM(2, 4),
            lambda: lowest_of_four(scores),
            sorted_rows(scores.view(-1, 4), 2).view_as(scores),
        ),
    }
    path = store(f"selection-{device.type}", result)
    print(f"{rows} x {columns} scores, half removed, on {device}; stored in {path.name}")
    for name in ("per_row", "two_of_four"):
        print(f"  {name}:")
        for key, value in result[name].items():
            print(f"    {key}: {value}")


if __name__ == "__main__":
    main()
