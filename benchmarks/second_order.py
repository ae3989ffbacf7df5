"""Second order: greedy Optimal Brain Surgeon beside simpler loops, and the Hessian's diagonal beside backpack's.

    python benchmarks/second_order.py

*Greedy Optimal Brain Surgeon* on a random quadratic of n weights, float64: delete the weight with the smallest
w² / (2 [H⁻¹]_qq), update all others, and take it out of the inverse. The textbook loop inverts the Hessian of what is
left anew at every deletion; it is timed at 20 points of the path and its time added up between them. The rank-1 loop
changes one inverse in place, `addr_`; its steps all cost the same, so that the first are timed, which are the most
expensive for ours. All delete the same weights in the same order.

*The diagonal* of the cross-entropy's Hessian over a few batches, in steps of plain gradient descent (forward, backward,
SGD) on the same batches. Cases are interleaved; figures are medians of the ratios of one round.
"""

from __future__ import annotations

import copy
import importlib.util
import statistics
import warnings
from collections.abc import Callable
from typing import Any

import torch
from environment import seconds, store
from torch import Tensor, nn
from torch.nn import functional as F

from prunelab.curvature import hessian_diagonal, obs
from prunelab.curvature.inverse import ShrinkingInverse
from prunelab.lab import models

TEXTBOOK, RANK_ONE = 2000, 4000
POINTS = 20  # of the path, at which the textbook loop is timed
FIRST = 192  # deletions of the rank-1 loop
BATCHES = {"LeNet-300-100": (64, 128), "LeNet-5": (64,)}  # examples in a batch
# The network, the shape of an example, batches, rounds.
MAKERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int, int]] = {
    "LeNet-300-100": (lambda: models.lenet_300_100(seed=0), (784,), 8, 40),
    "LeNet-5": (lambda: models.lenet5(seed=0), (1, 28, 28), 2, 9),
}


def problem(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A Hessian (n, n) with condition number about 100, and weights (n,)."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2 * size, size, generator=generator, dtype=torch.float64)
    matrix = rows.T @ rows / (2 * size) + 0.01 * torch.eye(size, dtype=torch.float64)
    return matrix.to(device), torch.randn(size, generator=generator, dtype=torch.float64).to(device)


def greedy(inverse: Tensor, weights: Tensor, deletions: int) -> list[int]:
    """The library's way: changes wait as columns, and go into the inverse 64 at a time."""
    shrinking, weights, order = ShrinkingInverse(inverse), weights.clone(), []
    for _ in range(deletions):
        costs = (weights.square() / shrinking.diagonal).masked_fill_(~shrinking.left, torch.inf)
        q = costs.argmin()[None]
        weights -= shrinking.remove(q, weights[q])
        weights[q] = 0
        order.append(int(q))
    return order


def rank_one(inverse: Tensor, weights: Tensor, deletions: int) -> list[int]:
    """One inverse, changed in place at every deletion."""
    inverse, weights, order = inverse.clone(), weights.clone(), []
    left = torch.ones_like(weights, dtype=torch.bool)
    for _ in range(deletions):
        costs = (weights.square() / inverse.diagonal()).masked_fill_(~left, torch.inf)
        q = int(costs.argmin())
        column = inverse[q].clone()
        weights.add_(column, alpha=-float(weights[q] / column[q]))
        weights[q], left[q] = 0, False
        inverse.addr_(column, column, alpha=-1 / float(column[q]))
        order.append(q)
    return order


def textbook_step(matrix: Tensor, target: Tensor, left: Tensor) -> int:
    """Invert what is left, choose, and solve for the others: one deletion."""
    inverse = torch.linalg.inv(matrix[left][:, left])
    weights = inverse @ target[left]  # the minimum under the zeros there are, where all deletions so far have led
    costs = weights.square() / inverse.diagonal()
    q = int(costs.argmin())
    weights -= weights[q] / inverse[q, q] * inverse[:, q]
    return int(left[q])


def against_textbook(device: torch.device) -> dict[str, Any]:
    matrix, weights = problem(TEXTBOOK, device)
    inverse, target = torch.linalg.inv(matrix), matrix @ weights
    order: list[int] = []
    greedy(inverse, weights, 100)
    ours = min(
        seconds(lambda: order.__setitem__(slice(None), greedy(inverse, weights, TEXTBOOK - 1))) for _ in range(3)
    )
    every, theirs, same = TEXTBOOK // POINTS, 0.0, True
    for point in range(0, TEXTBOOK - 1, every):
        gone = torch.zeros(TEXTBOOK, dtype=torch.bool, device=device)
        gone[order[:point]] = True
        left, found = (~gone).nonzero()[:, 0], []
        step = [seconds(lambda: found.append(textbook_step(matrix, target, left))) for _ in range(2)]  # noqa: B023 - runs at once
        theirs += every * min(step)
        same &= found[0] == order[point]
    return {
        "weights": TEXTBOOK,
        "seconds": ours,
        "textbook_seconds": theirs,
        "speedup": theirs / ours,
        "same_order": same,
    }


def against_rank_one(device: torch.device) -> dict[str, Any]:
    matrix, weights = problem(RANK_ONE, device)
    inverse = torch.linalg.inv(matrix)
    ratios, same = [], True
    greedy(inverse, weights, 10), rank_one(inverse, weights, 2)
    for _ in range(3):
        found: list[list[int]] = []
        ours = seconds(lambda: found.append(greedy(inverse, weights, FIRST)))  # noqa: B023 - runs at once
        theirs = seconds(lambda: found.append(rank_one(inverse, weights, FIRST)))  # noqa: B023 - runs at once
        ratios.append(theirs / ours)
        same &= found[0] == found[1]
    return {
        "weights": RANK_ONE,
        "deletions": FIRST,
        "speedup": statistics.median(ratios),
        "all": ratios,
        "same_order": same,
    }


def whole_run(device: torch.device) -> dict[str, Any]:
    """`obs` itself on a linear regression: with a measured increase and a snapshot for every deletion."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1500, 1000, generator=generator, dtype=torch.float64)
    y = torch.randn(1500, 1, generator=generator, dtype=torch.float64)
    model = nn.Linear(1000, 1, bias=False).double()
    model.weight.data = torch.linalg.lstsq(x, y).solution.T.contiguous()
    data = [(x.to(device), y.to(device))]
    model = model.to(device)
    took = seconds(lambda: obs(model, data, F.mse_loss, 1, refresh=None, progress=False))
    return {"weights": 1000, "examples": 1500, "seconds": took}


def diagonal(name: str, examples: int, device: torch.device) -> dict[str, Any]:
    make, shape, batches, rounds = MAKERS[name]
    model = make().to(device)
    generator = torch.Generator().manual_seed(0)
    data = [
        (torch.randn(examples, *shape, generator=generator).to(device),
         torch.randint(10, (examples,), generator=generator).to(device))
        for _ in range(batches)
    ]  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def steps() -> None:
        for inputs, targets in data:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()

    calls = {
        "gradient step": steps,
        "prunelab": lambda: hessian_diagonal(model, data, F.cross_entropy),
        **backpack_calls(model, data),
    }
    for call in calls.values():
        call(), call()
    times: dict[str, list[float]] = {key: [] for key in calls}
    for turn in range(rounds):
        for key in list(calls)[:: 1 if turn % 2 else -1]:
            times[key].append(seconds(calls[key]))
    ratios = {key: median_ratio(values, times["gradient step"]) for key, values in times.items()}
    result: dict[str, Any] = {"examples": examples, "batches": batches, "rounds": rounds, "gradient_steps": ratios}
    result["step_seconds"] = statistics.median(times["gradient step"]) / batches
    theirs = [key for key in calls if key.startswith("backpack")]
    if theirs:
        faster = min(theirs, key=lambda key: statistics.median(times[key]))
        result["times_backpack"] = median_ratio(times["prunelab"], times[faster])
        result["faster_of_backpack"] = faster
        result["largest_difference"] = difference(model, *data[0])
    return result


def median_ratio(values: list[float], of: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(values, of, strict=True))


def backpack_calls(model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> dict[str, Callable[[], object]]:
    """backpack's two diagonals, where it is installed (pip install backpack-for-pytorch)."""
    if importlib.util.find_spec("backpack") is None:
        return {}
    from backpack import backpack, extend, extensions

    extended, loss = extend(copy.deepcopy(model)), extend(nn.CrossEntropyLoss())
    warnings.filterwarnings("ignore", message="Full backward hook is firing")

    def call(extension: type) -> None:
        for inputs, targets in data:
            extended.zero_grad()
            with backpack(extension()):
                loss(extended(inputs), targets).backward()

    return {
        "backpack DiagHessian": lambda: call(extensions.DiagHessian),
        "backpack DiagGGNExact": lambda: call(extensions.DiagGGNExact),
    }


def difference(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """The largest difference from backpack's diagonal, relative to the largest entry of the parameter."""
    from backpack import backpack, extend, extensions

    extended, loss = extend(copy.deepcopy(model)), extend(nn.CrossEntropyLoss())
    with backpack(extensions.DiagHessian()):
        loss(extended(inputs), targets).backward()
    found = hessian_diagonal(model, [(inputs, targets)], F.cross_entropy)
    pairs = [(found[name], p.diag_h) for name, p in extended.named_parameters()]
    return max(float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in pairs)


def main() -> None:
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result: dict[str, Any] = {
        "device": str(device),
        "diagonal": {f"{name}, {n}": diagonal(name, n, device) for name, sizes in BATCHES.items() for n in sizes},
        "rank_one": against_rank_one(device),
        "textbook": against_textbook(device),
        "whole_run": whole_run(device),
    }
    path = store(f"second_order-{device.type}", result)
    print(f"Second order on {device}; stored in {path.name}")
    for name in ("textbook", "rank_one"):
        found = result[name]
        print(
            f"  greedy OBS, n = {found['weights']}: {found['speedup']:.3g} x the {name} loop, "
            f"same order {found['same_order']}"
        )
    print(f"  obs() on {result['whole_run']['weights']} weights to the end: {result['whole_run']['seconds']:.2f} s")
    for name, found in result["diagonal"].items():
        steps = ", ".join(f"{key} {v:.2f}" for key, v in found["gradient_steps"].items() if key != "gradient step")
        print(f"  diagonal of {name} examples, in gradient steps: {steps}")
        if "times_backpack" in found:
            print(f"    {found['times_backpack']:.2f} times {found['faster_of_backpack']}'s time, the faster one")


if __name__ == "__main__":
    main()
