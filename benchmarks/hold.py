"""What it costs to hold pruned weights at zero while training: prunelab beside torch.nn.utils.prune, in one run.

    python benchmarks/hold.py

A *round* is a few training steps of the dense network, of the same network with `Masks.hold`, and of the same network
pruned by the peer, in turn; each is divided by the dense one of its own round, and the median of these ratios is
printed. The masks are the same for both and remove 80 % of the weights. Before anything is timed, both train a few
steps on the same batches, and every weight is compared.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from environment import store
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune as peer

import prunelab
from prunelab.lab import models

SPARSITY = 0.8
ROUNDS = 60

# name: (the network, the shape of an example, examples a batch, steps a turn, the optimizer)
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int, int, Callable[[Any], torch.optim.Optimizer]]] = {
    "LeNet-300-100, SGD": (
        lambda: models.lenet_300_100(seed=0), (784,), 64, 10, lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)
    ),
    "LeNet-300-100, Adam": (
        lambda: models.lenet_300_100(seed=0), (784,), 64, 10, lambda p: torch.optim.Adam(p, lr=1e-3)
    ),
    "ResNet-20, SGD": (
        lambda: models.resnet20(3, seed=0), (3, 32, 32), 16, 1, lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)
    ),
}  # fmt: skip

Arm = tuple[nn.Module, torch.optim.Optimizer]


def train(arm: Arm, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Take one step a batch, and return the seconds it took."""
    model, optimizer = arm
    start = time.perf_counter()
    for inputs, targets in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    if inputs.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def make_arms(model: nn.Module, maker: Callable[[Any], torch.optim.Optimizer]) -> tuple[dict[str, Arm], prunelab.Masks]:
    masks = prunelab.prune(model, SPARSITY, apply=False)
    dense, held, theirs = (copy.deepcopy(model) for _ in range(3))
    for name, mask in masks.items():
        peer.custom_from_mask(theirs.get_submodule(name.removesuffix(".weight")), "weight", mask)
    arms = {name: (net, maker(net.parameters())) for name, net in
            (("dense", dense), ("prunelab", held), ("torch.nn.utils.prune", theirs))}  # fmt: skip
    masks.hold(*arms["prunelab"])
    return arms, masks


def compare(case: str, device: torch.device) -> dict[str, Any]:
    make, shape, examples, steps, maker = CASES[case]
    arms, masks = make_arms(make().to(device), maker)
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(examples, *shape, generator=generator).to(device),
         torch.randint(10, (examples,), generator=generator).to(device))
        for _ in range(steps)
    ]  # fmt: skip
    for _ in range(3):  # warm up, and fill the optimizers' state
        for arm in arms.values():
            train(arm, batches)
    held, theirs = arms["prunelab"][0], arms["torch.nn.utils.prune"][0]
    zero = all(not held.get_parameter(name)[~mask].any() for name, mask in masks.items())
    peers = {name: theirs.get_submodule(name.removesuffix(".weight")) for name in masks}
    same = all(torch.equal(held.get_parameter(n), m.weight_orig * m.weight_mask) for n, m in peers.items())
    times: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(ROUNDS):
        names = list(arms) if turn % 2 else list(arms)[::-1]
        for name in names:
            times[name].append(train(arms[name], batches))
    ratios = {
        name: [arm / dense for arm, dense in zip(times[name], times["dense"], strict=True)]
        for name in ("prunelab", "torch.nn.utils.prune")
    }
    return {
        "removed_stay_zero": zero,
        "same_weights_as_peer": same,
        "dense_step_seconds": statistics.median(times["dense"]) / steps,
        "ratio_to_dense": {name: statistics.median(values) for name, values in ratios.items()},
        "quartiles": {name: statistics.quantiles(values, n=4)[::2] for name, values in ratios.items()},
    }


def main() -> None:
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    results = {case: compare(case, device) for case in CASES}
    path = store(
        f"hold-{device.type}", {"device": str(device), "sparsity": SPARSITY, "rounds": ROUNDS, "cases": results}
    )
    print(f"A training step relative to the dense one, {SPARSITY:.0%} removed, on {device}; stored in {path.name}")
    print(f"  {'':20} {'dense step':>10} {'prunelab':>9} {'torch prune':>12}  zero  same weights")
    for case, result in results.items():
        ours, theirs = result["ratio_to_dense"].values()
        print(
            f"  {case:20} {1e3 * result['dense_step_seconds']:7.2f} ms {ours:9.3f} {theirs:12.3f}  "
            f"{result['removed_stay_zero']!s:5} {result['same_weights_as_peer']}"
        )


if __name__ == "__main__":
    main()
