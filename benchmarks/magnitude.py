"""Global magnitude pruning of ResNet-50's 25 M weights: prunelab beside torch.nn.utils.prune, in one run.

    python benchmarks/magnitude.py

A *read* is one `w.abs().sum()` over all weights: what looking at every weight once costs. Times are medians of
interleaved repetitions; extra memory is the growth of the process's peak resident size during one call.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from environment import store
from torch import nn
from torch.nn.utils import prune as peer

import prunelab

SPARSITY = 0.8


def resnet50_weights() -> nn.ModuleList:
    """Layers with the shapes of all weights of ResNet-50 (He et al. 2016, table 1)."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, bias=False)]
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            if block == 0:
                layers.append(nn.Conv2d(inputs, 4 * width, 1, bias=False))
            layers.append(nn.Conv2d(inputs, width, 1, bias=False))
            layers.append(nn.Conv2d(width, width, 3, bias=False))
            layers.append(nn.Conv2d(width, 4 * width, 1, bias=False))
            inputs = 4 * width
    layers.append(nn.Linear(2048, 1000))
    return nn.ModuleList(layers)


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_growth(call: Callable[[], object]) -> int | None:
    """Bytes by which the call raised the resident size at its peak; None where the system cannot say (not Linux)."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None

    def kilobytes(key: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(key))

    before = kilobytes("VmRSS")
    reset.write_text("5")  # sets the peak back to the present size
    result = call()
    growth = 1024 * (kilobytes("VmHWM") - before)
    del result
    return growth


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = resnet50_weights().to(device)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    weights = [module.weight for module in model]
    count = sum(weight.numel() for weight in weights)

    def read() -> None:
        for weight in weights:
            weight.detach().abs().sum()

    def ours() -> prunelab.Masks:
        return prunelab.prune(model, SPARSITY)

    def theirs() -> None:
        peer.global_unstructured([(module, "weight") for module in model], peer.L1Unstructured, amount=SPARSITY)

    prunelab.prune(nn.Linear(2, 2), SPARSITY)  # what the first call imports is not the call's memory
    memory = peak_growth(ours) if device.type == "cpu" else None
    masks = ours()
    times: dict[str, list[float]] = {"read": [], "prunelab": [], "torch.nn.utils.prune": []}
    for _ in range(7):
        for name, call in (("read", read), ("prunelab", ours), ("torch.nn.utils.prune", theirs)):
            model.load_state_dict(start)
            times[name].append(seconds(call))
        exact = all(torch.equal(masks[f"{i}.weight"], m.weight_mask.bool()) for i, m in enumerate(model))
        for module in model:
            peer.remove(module, "weight")
        weights = [module.weight for module in model]

    median = {name: statistics.median(values) for name, values in times.items()}
    ratios = [b / a for a, b in zip(times["prunelab"], times["torch.nn.utils.prune"], strict=True)]
    result = {
        "weights": count,
        "sparsity": SPARSITY,
        "device": str(device),
        "bit_exact": exact,
        "seconds": median,
        "speedup_over_peer": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "reads": median["prunelab"] / median["read"],
        "extra_memory_in_weight_bytes": None if memory is None else memory / (4 * count),
    }
    path = store(f"magnitude-{device.type}", result)
    print(f"{count / 1e6:.1f} M weights, {SPARSITY:.0%} removed, on {device}; stored in {path.name}")
    for key in ("bit_exact", "seconds", "speedup_over_peer", "reads", "extra_memory_in_weight_bytes"):
        print(f"  {key}: {result[key]}")


if __name__ == "__main__":
    main()
