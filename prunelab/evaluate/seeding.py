"""Chance that starts from a seed inside, and is untouched outside; and the seeds and sparsities of an experiment."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral

import numpy as np
import torch

from prunelab.schedule.base import check_sparsity

LARGEST = 2**63


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the generators of Python, NumPy and torch start from `seed`; outside they are as they were."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - users' code may draw from it
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=cuda):
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Inside, torch computes on so many threads."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def check_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """`seeds` as distinct ints, in their order. Raises TypeError or ValueError for anything else."""
    if isinstance(seeds, Integral | str) or not isinstance(seeds, Iterable):
        raise TypeError(f"seeds must be several whole numbers, such as range(5), not {seeds!r}")
    checked: list[int] = []
    for seed in seeds:
        if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed < LARGEST:
            raise ValueError(f"a seed is a whole number from 0 to 2**63 - 1, not {seed!r}")
        checked.append(int(seed))
    return distinct(checked, "seeds")


def check_sparsities(sparsities: Iterable[float]) -> tuple[float, ...]:
    """`sparsities` as distinct fractions, in their order. Raises TypeError or ValueError for anything else."""
    if isinstance(sparsities, str) or not isinstance(sparsities, Iterable):
        raise TypeError(f"sparsities must be several fractions, such as [0.5, 0.8], not {sparsities!r}")
    return distinct([check_sparsity(sparsity) for sparsity in sparsities], "sparsities")


def distinct(values: list, name: str) -> tuple:
    """`values` as a tuple. Raises ValueError where there is none, or one twice: it would count double."""
    if not values:
        raise ValueError(f"{name} is empty; give at least one")
    if twice := {value for value in values if values.count(value) > 1}:
        raise ValueError(f"{name} names {', '.join(map(str, sorted(twice)))} twice; each counts once")
    return tuple(values)
