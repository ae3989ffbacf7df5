"""Pruning one layer: prunelab beside plain implementations of the published algorithms, in one run.

    python benchmarks/layerwise.py

Layers of a transformer, 3072 x 768 and 768 x 3072 (on a GPU 4096 x 11008 too), with correlated, rectified inputs whose
covariance is given to both. The peers are what the papers say: SparseGPT (Frantar & Alistarh 2023, algorithm 1) inverts
the Hessian, takes the Cholesky factor of the inverse, sorts the scores of each block and updates all columns on the
right of each; Wanda (Sun et al. 2024) sorts every row. Times are medians of interleaved repetitions. Errors are
relative, ‖X(W - Ŵ)ᵀ‖² / ‖XWᵀ‖².
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from environment import seconds, store
from torch import Tensor

from prunelab import curvature

SHAPES = [(3072, 768), (768, 3072)]
ON_GPU = [(4096, 11008)]
SPARSITY, BLOCK, DAMPING = 0.5, 128, 0.01
SAMPLES = 8192
REPETITIONS = 5

Pruned = tuple[Tensor, Tensor]


def published_sparsegpt(weight: Tensor, hessian: Tensor, pattern: tuple[int, int] | None) -> Pruned:
    """Algorithm 1, in single precision, with masks for blocks as wide as those of the lazy updates."""
    weight, columns = weight.clone(), weight.shape[1]
    damped = hessian + DAMPING * hessian.diagonal().mean() * torch.eye(columns, device=hessian.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    inverse = torch.linalg.cholesky(inverse, upper=True)
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        block, factor = weight[:, start:stop].clone(), inverse[start:stop, start:stop]
        errors, gone = torch.zeros_like(block), torch.zeros_like(block, dtype=torch.bool)
        if pattern is None:
            costs = block**2 / factor.diagonal() ** 2
            order = torch.sort(costs.flatten()).indices[: round(SPARSITY * costs.numel())]
            gone.view(-1)[order] = True
        for column in range(stop - start):
            if pattern is not None and column % pattern[1] == 0:
                part = slice(column, column + pattern[1])
                costs = block[:, part] ** 2 / factor.diagonal()[part] ** 2
                lowest = torch.topk(costs, pattern[1] - pattern[0], dim=1, largest=False).indices
                gone.scatter_(1, column + lowest, True)
            kept = torch.where(gone[:, column], 0, block[:, column])
            errors[:, column] = (block[:, column] - kept) / factor[column, column]
            block[:, column:] -= torch.outer(errors[:, column], factor[column, column:])
            block[:, column] = kept
        weight[:, start:stop] = block
        weight[:, stop:] -= errors @ inverse[start:stop, stop:]
    return weight, weight != 0


def published_wanda(weight: Tensor, hessian: Tensor, pattern: tuple[int, int] | None) -> Pruned:
    scores = weight.abs() * hessian.diagonal().sqrt()
    gone = torch.zeros_like(weight, dtype=torch.bool)
    if pattern is None:
        order = torch.sort(scores, dim=1, stable=True).indices
        gone.scatter_(1, order[:, : round(SPARSITY * weight.shape[1])], True)
    else:
        for start in range(0, weight.shape[1], pattern[1]):
            part = scores[:, start : start + pattern[1]]
            gone.scatter_(1, start + torch.topk(part, pattern[1] - pattern[0], dim=1, largest=False).indices, True)
    return weight.masked_fill(gone, 0), ~gone


PEERS: dict[str, Callable[[Tensor, Tensor, tuple[int, int] | None], Pruned]] = {
    "sparsegpt": published_sparsegpt,
    "wanda": published_wanda,
}


def compare(
    method: Any, weight: Tensor, covariance: curvature.InputCovariance, pattern: tuple[int, int] | None
) -> dict[str, Any]:
    """Times of both, and their errors."""
    hessian, peer = covariance.matrix, PEERS[method]

    def ours() -> Pruned:
        return curvature.prune_layer(weight, covariance, SPARSITY, method, pattern=pattern)

    def theirs() -> Pruned:
        return peer(weight, hessian, pattern)

    (new, mask), (published, its_mask) = ours(), theirs()  # and warm up
    times: dict[str, list[float]] = {"prunelab": [], "published": []}
    for _ in range(REPETITIONS):
        times["prunelab"].append(seconds(ours))
        times["published"].append(seconds(theirs))
    ratios = [b / a for a, b in zip(times["prunelab"], times["published"], strict=True)]
    error, peers_error = (curvature.reconstruction_error(weight, one, covariance) for one in (new, published))
    return {
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "speedup_over_published": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "error": error,
        "error_relative_to_published": error / peers_error,
        "sparsity": 1 - float(mask.float().mean()),
        "masks_differ_in": float((mask != its_mask).float().mean()),
    }


def measure(shape: tuple[int, int], device: torch.device) -> dict[str, Any]:
    outputs, inputs = shape
    draw = torch.Generator().manual_seed(0)
    mixing = torch.randn(inputs, inputs, generator=draw) / inputs**0.5
    x = (torch.randn(SAMPLES, inputs, generator=draw).to(device) @ mixing.to(device)).relu()
    weight = torch.randn(outputs, inputs, generator=draw).to(device)
    covariance = curvature.InputCovariance(inputs, torch.float32)
    covariance.add(x)
    return {
        f"{method}, {'50 %' if pattern is None else '{}:{}'.format(*pattern)}": compare(
            method, weight, covariance, pattern
        )
        for method in PEERS
        for pattern in (None, (2, 4))
    }


def main() -> None:
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shapes = SHAPES + (ON_GPU if device.type == "cuda" else [])
    results = {f"{outputs}x{inputs}": measure((outputs, inputs), device) for outputs, inputs in shapes}
    path = store(f"layerwise-{device.type}", {"device": str(device), "samples": SAMPLES, "layers": results})
    print(f"One layer pruned, on {device}, beside the published algorithm; stored in {path.name}")
    print(
        f"  {'layer':10} {'method':16} {'prunelab':>9} {'published':>10} {'faster':>7} {'error':>8} {'its error':>10}"
    )
    for layer, cases in results.items():
        for case, result in cases.items():
            mine, theirs = result["seconds"].values()
            faster, error = result["speedup_over_published"]["median"], result["error"]
            print(
                f"  {layer:10} {case:16} {mine:7.3f} s {theirs:8.3f} s {faster:6.1f}x {error:8.4f} "
                f"{error / result['error_relative_to_published']:10.4f}"
            )


if __name__ == "__main__":
    main()
