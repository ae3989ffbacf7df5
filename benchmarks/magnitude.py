"""Global magnitude pruning of ResNet-50's 25 M weights: prunelab beside torch.nn.utils.prune and fasterai, in one run.

    python benchmarks/magnitude.py

fasterai takes part where it is installed (`make bench` does, without its dependencies that this needs none of).

A *read* is one `w.abs().sum()` over all weights: what looking at every weight once costs. Times are medians of
interleaved repetitions; extra memory is the growth of the process's peak resident size during one call.
"""

from __future__ import annotations

import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from environment import seconds, store
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


def fasterai_sparsifier() -> Any:
    """fasterai's Sparsifier class; None where it is not installed."""
    # Its schedules are built on fastai's, which would need torchvision; the Sparsifier uses none of them.
    name = "fastai.callback.schedule"
    sys.modules.setdefault(name, ModuleType(name))
    try:
        from fasterai.sparse.sparsifier import Sparsifier
    except ImportError:
        return None
    return Sparsifier


def speedup(times: dict[str, list[float]], other: str) -> dict[str, float]:
    ratios = [b / a for a, b in zip(times["prunelab"], times[other], strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", prunelab.scope.LayerCollapseWarning)  # of random weights, which is the case here
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
    model.load_state_dict(start)
    calls = {"read": read, "prunelab": ours, "torch.nn.utils.prune": theirs}
    if sparsifier := fasterai_sparsifier():
        from fasterai.core.criteria import large_final

        kinds = (nn.Conv2d, nn.Linear)
        other = sparsifier(model, "weight", "global", large_final, layer_type=kinds)
        calls["fasterai"] = lambda: other.sparsify_model(SPARSITY)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(7):
        for name, call in calls.items():
            model.load_state_dict(start, strict=False)
            times[name].append(seconds(call))
            if call is theirs:
                exact = all(torch.equal(masks[f"{i}.weight"], m.weight_mask.bool()) for i, m in enumerate(model))
                for module in model:
                    peer.remove(module, "weight")
                weights = [module.weight for module in model]

    median = {name: statistics.median(values) for name, values in times.items()}
    result = {
        "weights": count,
        "sparsity": SPARSITY,
        "device": str(device),
        "bit_exact": exact,
        "seconds": median,
        "speedup_over_peer": speedup(times, "torch.nn.utils.prune"),
        "speedup_over_fasterai": speedup(times, "fasterai") if sparsifier else None,
        "reads": median["prunelab"] / median["read"],
        "extra_memory_in_weight_bytes": None if memory is None else memory / (4 * count),
    }
    path = store(f"magnitude-{device.type}", result)
    print(f"{count / 1e6:.1f} M weights, {SPARSITY:.0%} removed, on {device}; stored in {path.name}")
    for key in list(result)[3:]:
        print(f"  {key}: {result[key]}")


if __name__ == "__main__":
    main()
