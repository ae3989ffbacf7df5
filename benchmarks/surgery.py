"""From a network to a pruned one: prunelab's `shrink` beside Torch-Pruning, what is verified, and what gets faster.

    make zoo                                          once, for the environment with torchvision and the peer
    .venv-zoo/bin/python benchmarks/surgery.py

- *Time*: `shrink(..., verify=False)`, from the trace to the smaller network, and the peer's init and step, which verify
  nothing, on the same network with the same images; one of each in turn, medians of the ratios of each turn. What the
  one leaves behind for Python's garbage collector is collected before the other starts, so that neither pays for it.
- *Forwards*: how often `shrink` calls the network (or the one it builds), and how many of these are verification.
- *Latency*: ResNet-50 without half of its channels against the dense one, batch 8, in turn.
"""

from __future__ import annotations

import copy
import gc
import statistics
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from environment import seconds, store
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the zoo is not installed

import prunelab
from zoo import from_torchvision, from_transformers
from zoo.architecture import Architecture

TURNS = {"resnet50": 7, "densenet121": 15, "densenet201": 9}  # the peer takes twenty seconds on the last
LATENCY_TURNS = 15


def peer(model: nn.Module, x: Tensor) -> None:
    """Half of every group by the filters' norms, the classifier left alone; changes `model`."""
    import torch_pruning as tp

    classifier = [module for module in model.modules() if isinstance(module, nn.Linear)][-1:]
    importance = tp.importance.MagnitudeImportance(p=2)
    tp.pruner.MetaPruner(model, x, importance, pruning_ratio=0.5, ignored_layers=classifier).step()


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def time_to_pruned(name: str, device: torch.device) -> dict[str, Any]:
    model = from_torchvision.architecture(name).model().to(device)
    x = torch.randn(1, 3, 224, 224, device=device)
    ours, theirs, left = [], [], {}
    prunelab.shrink(model, x, sparsity=0.5, verify=False)  # warm
    for _ in range(TURNS[name]):
        made: list[nn.Module] = []
        gc.collect()
        ours.append(seconds(lambda made=made: made.append(prunelab.shrink(model, x, sparsity=0.5, verify=False).model)))
        copied = copy.deepcopy(model)
        gc.collect()
        theirs.append(seconds(lambda copied=copied: peer(copied, x)))
        left = {"prunelab": parameters(made[0]), "Torch-Pruning": parameters(copied)}
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {
        "turns": TURNS[name],
        "seconds": {"prunelab": statistics.median(ours), "Torch-Pruning": statistics.median(theirs)},
        "times_faster": {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)},
        "parameters": {"dense": parameters(model), **left},
    }


def forwards(architecture: Architecture, device: torch.device, *, verify: bool) -> int:
    """Calls of the network and of those copied from it while it is shrunk."""
    model, calls = architecture.model().to(device), []
    model.register_forward_pre_hook(lambda *_: calls.append(None))
    prunelab.shrink(model, architecture.example(0), sparsity=0.5, verify=verify)
    return len(calls)


def count_forwards(device: torch.device) -> dict[str, Any]:
    cases = {
        "ResNet-50": from_torchvision.architecture("resnet50"),
        "Llama, tiny": from_transformers.architecture("llama"),
        "Mixtral, tiny": from_transformers.architecture("mixtral"),
    }
    counts = {}
    for name, architecture in cases.items():
        every, without = (forwards(architecture, device, verify=verify) for verify in (True, False))
        counts[name] = {"all": every, "verification": every - without}
    return counts


def latency(device: torch.device) -> dict[str, Any]:
    model = from_torchvision.architecture("resnet50").model().to(device)
    x = torch.randn(8, 3, 224, 224, device=device)
    small = prunelab.shrink(model, x[:1], sparsity=0.5).model
    times: dict[str, list[float]] = {"dense": [], "small": []}
    with torch.no_grad():
        for turn in range(LATENCY_TURNS + 2):
            for name, network in (("dense", model), ("small", small)):
                spent = seconds(lambda network=network: network(x))
                if turn >= 2:  # the first are warm-up
                    times[name].append(spent)
    ratios = [b / a for a, b in zip(times["dense"], times["small"], strict=True)]
    return {
        "batch": 8,
        "turns": LATENCY_TURNS,
        "seconds": {name: statistics.median(series) for name, series in times.items()},
        "ratio": {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)},
    }


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    times = {}
    print(f"{'seconds to a pruned':24}{'prunelab':>12}{'Torch-Pruning':>16}{'times faster':>14}")
    for name in TURNS:
        times[name] = result = time_to_pruned(name, device)
        ours, theirs = result["seconds"].values()
        print(f"{name:24}{ours:12.2f}{theirs:16.2f}{result['times_faster']['median']:14.1f}", flush=True)
    counts = count_forwards(device)
    for name, count in counts.items():
        print(f"{name}: {count['all']} forwards, {count['verification']} of them verification")
    measured = latency(device)
    print(f"ResNet-50, batch 8: half of the channels gone, {measured['ratio']['median']:.2f} of the dense latency")
    result = {"time": times, "forwards": counts, "latency": measured}
    print(f"stored in {store(f'surgery-{device.type}', result)}")


if __name__ == "__main__":
    main()
