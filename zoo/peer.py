"""Torch-Pruning on the same architecture, used as one first would: half of every group, the classifier left alone.

    python -m zoo.peer NAME         one line of JSON: what it removed, and whether the result still runs

It is run in a process of its own with a limit, because it takes minutes on some architectures.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from zoo.architecture import Architecture, call
from zoo.check import count, tensors
from zoo.collection import find

LIMIT = 30.0  # seconds


@dataclass(frozen=True)
class PeerOutcome:
    """`removed`: fraction of the parameters, None where it gave no network; `trouble`: why, or why it does not run."""

    removed: float | None
    runs: bool
    seconds: float
    trouble: str = ""


def classifiers(model: nn.Module, outputs: Any) -> list[nn.Module]:
    """The layers that give the network's outputs: those as wide as one of them."""
    widths = {size for tensor in tensors(outputs) for size in tensor.shape[1:]}
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return [m for m in layers[-3:] if m.weight.shape[0] in widths][-1:]


def floats(outputs: Any) -> list[Tensor]:
    """The outputs that have a gradient: the peer walks the graph back from them."""
    return [tensor for tensor in tensors(outputs) if tensor.requires_grad]


def prune(architecture: Architecture) -> PeerOutcome:
    """In this process, without a limit."""
    import torch_pruning as tp

    model, inputs = architecture.model(), architecture.example(0)
    given = list(inputs) if isinstance(inputs, tuple) else inputs
    before = count(model)
    with torch.no_grad():
        ignored = classifiers(model, call(model, inputs))
    start = time.perf_counter()
    try:
        importance = tp.importance.MagnitudeImportance(p=2)
        tp.pruner.MetaPruner(
            model, given, importance, pruning_ratio=0.5, ignored_layers=ignored, output_transform=floats
        ).step()
    except Exception as error:
        return PeerOutcome(None, False, time.perf_counter() - start, f"{type(error).__name__}: {error}"[:200])
    spent = time.perf_counter() - start
    removed = 1 - count(model) / before
    try:
        with torch.no_grad():
            call(model.eval(), architecture.example(1))
    except Exception as error:
        return PeerOutcome(removed, False, spent, f"{type(error).__name__}: {error}"[:200])
    return PeerOutcome(removed, True, spent)


@cache
def peer(name: str) -> PeerOutcome:
    """The outcome for the architecture called `name`, from another process, within the limit."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "zoo.peer", name], capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return PeerOutcome(None, False, LIMIT, f"more than {LIMIT:.0f} s")
    if done.returncode:
        return PeerOutcome(None, False, 0.0, (done.stderr.splitlines() or ["it died"])[-1][:200])
    return PeerOutcome(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    (found,) = find(sys.argv[1:2])
    print(json.dumps(asdict(prune(found))))
