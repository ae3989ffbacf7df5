"""What zeros are worth in time on this machine: the ways to run a pruned layer, measured against the dense one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunelab.evaluate.runtime_result import Run, SparseRuntime
from prunelab.evaluate.timing import Call, Speedup, check_settings, describe, interleave, threads_of
from prunelab.evaluate.ways import KERNEL, Prepared, Problem, block_csr, csr, removed_channels, two_of_four, zeros
from prunelab.progress import bar
from prunelab.schedule.base import check_sparsity, check_step

SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
# Relative to the largest output: room for rounding, and for the shorter floats that GPUs use inside. A kernel that is
# wrong is wrong by far more.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def sparse_runtime(
    sizes: int | Iterable[int] = (1024,),
    channels: int | Iterable[int] = (64,),
    *,
    sparsities: float | Iterable[float] = SPARSITIES,
    batch: int | Iterable[int] = 64,
    image: int = 8,
    block: int = 32,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    threads: int | None = None,
    seconds: float = 4.0,
    seed: int = 0,
) -> SparseRuntime:
    """Measure which ways to leave weights out make a layer faster than the dense one, and from which sparsity on.

    For each of `sizes` a Linear layer with that many inputs and outputs, for each of `channels` a 3 × 3 convolution
    with that many channels in and out, both without bias, run dense and in each way of `prunelab.evaluate.ways`: zeros
    kept in a dense weight, CSR, block-CSR, 2:4, and channels really removed. What is compared runs in turn, as in
    `prunelab.evaluate.latency`. Each output is checked against the dense product with the same zeros. A way that this
    machine or this layer does not have is listed with the reason.

    Args:
        sizes, channels: whole numbers, or one; `()` leaves that kind of layer out.
        sparsities: fractions of the weights that go. 2:4 removes half, whatever these are.
        batch: rows of a Linear layer's input, images of a convolution's; of several, each is measured.
        image: height and width of the convolution's input.
        block: side of the blocks of block-CSR.
        dtype: by default float16 on a GPU, which 2:4 needs, else float32.
        device: by default the GPU where there is one.
        threads: how many threads an operation on the CPU may use during this call; None: as set.
        seconds: how long to measure altogether, apart from preparing and checking; in any case 7 rounds of each.

    Raises ValueError or TypeError for settings that measure nothing.

    >>> found = sparse_runtime(64, (), sparsities=[0.5, 0.9], batch=4, seconds=0.01)
    >>> [run.way for run in found.records if run.sparsity == 0.9]
    ['zeros', 'CSR', 'block-CSR', 'removed channels']
    """
    fractions = [check_sparsity(sparsity, "a sparsity") for sparsity in _listed(sparsities)]
    shapes: list[tuple[int, ...]] = [(size, size) for size in _numbers(sizes, "sizes")]
    shapes += [(size, size, KERNEL, KERNEL) for size in _numbers(channels, "channels")]
    cases = [(shape, rows) for shape in shapes for rows in _numbers(batch, "batch")]
    if not fractions or not cases:
        raise ValueError(
            "there is nothing to measure: give sparsities, batch, and sizes or channels at least one number"
        )
    check_settings(None, 0, seconds, threads)
    check_step(image, "image", least=1)
    check_step(block, "block", least=1)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or (torch.float16 if place.type == "cuda" else torch.float32)
    if dtype not in _TOLERANCE:
        raise ValueError(f"dtype must be one of {', '.join(map(str, _TOLERANCE))}, not {dtype}")
    levels = sorted({*fractions, 0.5})  # 2:4 is at one half
    records: list[Run] = []
    with (
        threads_of(threads) as count,
        bar(len(cases) * len(levels), "sparse_runtime", shown=seconds > 2) as shown,
    ):
        for shape, rows in cases:
            weight, x = (tensor.to(place, dtype) for tensor in _layer(shape, rows, image, seed))
            problem = Problem(weight, x)
            for level in levels:
                ways = _ways(problem, level, block, seed) if level in fractions else {}
                if level == 0.5:
                    ways["2:4"] = partial(two_of_four, problem)
                records += _measure(problem, ways, level, seconds / (len(cases) * len(levels)))
                shown.update()
    return SparseRuntime(tuple(records), describe(place), count, str(dtype).removeprefix("torch."))


def _ways(problem: Problem, sparsity: float, block: int, seed: int) -> dict[str, Callable[[], Prepared]]:
    """What prepares each way that has any sparsity; zeros and CSR get the same zeros."""

    def draw() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    return {
        "zeros": lambda: zeros(problem, sparsity, draw()),
        "CSR": lambda: csr(problem, sparsity, draw()),
        "block-CSR": lambda: block_csr(problem, sparsity, draw(), block),
        "removed channels": lambda: removed_channels(problem, sparsity),
    }


def _measure(
    problem: Problem, ways: Mapping[str, Callable[[], Prepared]], sparsity: float, seconds: float
) -> list[Run]:
    """One record a way: those that work are timed in turn with the dense layer."""
    ready: dict[str, tuple[Prepared, float]] = {}
    notes: dict[str, str] = {}
    for way, prepare in ways.items():
        try:
            prepared = prepare()
            error = prepared.error()
        except Exception as refusal:  # whatever torch, or a compiler behind it, raises where it has no such kernel
            notes[way] = str(refusal).partition("\n")[0]
            continue
        if error <= _TOLERANCE[problem.x.dtype]:
            ready[way] = prepared, error
        else:
            notes[way] = f"computes something else: relative error {error:.1e}"
    device = problem.x.device
    calls = {"dense": Call(lambda: problem.dense(problem.weight, problem.x), device)}
    calls |= {way: Call(prepared.run, device) for way, (prepared, _) in ready.items()}
    samples = interleave(calls, seconds=seconds) if ready else {}
    records = []
    for way in ways:
        timed = _timed(*ready[way], samples[way], samples["dense"]) if way in ready else {}
        records.append(Run(problem.name, way, sparsity, note=notes.get(way, ""), **timed))
    return records


def _timed(prepared: Prepared, error: float, times: tuple[float, ...], dense: tuple[float, ...]) -> dict[str, float]:
    """The measured fields of a record."""
    speedup = Speedup.of(times, dense)
    first, third = np.percentile(times, [25, 75])
    return {
        "removed": prepared.removed,
        "seconds": float(np.median(times)),
        "first_quartile": float(first),
        "third_quartile": float(third),
        "dense_seconds": float(np.median(dense)),
        "speedup": speedup.paired,
        "low": speedup.low,
        "high": speedup.high,
        "error": error,
    }


def _layer(shape: tuple[int, ...], rows: int, image: int, seed: int) -> tuple[Tensor, Tensor]:
    """A random weight of that shape, and inputs; the outputs are about as large as these."""
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=draw) / math.sqrt(math.prod(shape[1:]))
    sites = (image, image) if len(shape) > 2 else ()
    return weight, torch.randn(rows, shape[1], *sites, generator=draw)


def _numbers(given: Any, name: str) -> list[int]:
    return [check_step(number, name, least=1) for number in _listed(given)]


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, Iterable) else [given]
