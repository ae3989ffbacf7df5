"""Keep the largest values of every row: per-row and N:M competition, without a full sort.

A partition finds each row's threshold; only rows with ties at it are looked at again. Rows of a few values are ranked
by comparing each pair instead. The answer is that of a stable sort of every row.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunelab.selection.keys import Ints, NotANumberError, Ranking

_CHUNK = 1 << 16  # values handled at a time, so that they stay in a core's cache
_PAIRS = 8  # rows of at most so many values are ranked pair by pair: faster than a partition up to here

Bools = NDArray[np.bool_]


def keep_largest_in_rows(
    values: Tensor, remove: int, *, magnitude: bool = False, alive: Tensor | None = None
) -> Tensor:
    """Which values stay when the `remove` smallest of every row go; ties go in order of position.

    Args:
        values: (rows, columns) float, of any dtype and device.
        remove: how many values of each row to remove, from 0 to columns.
        magnitude: rank by absolute value.
        alive: bool (rows, columns), values that are still there. The others go first, smaller than every value, and
            where a row has lost more than `remove` before, it loses no more.

    Returns:
        (rows, columns) bool on the device of `values`, True = kept; exactly `remove` entries of each row are False,
        more where more were not alive.

    Raises:
        NotANumberError: a value that is alive is NaN.
    """
    rows, columns = values.shape
    if not 0 <= remove <= columns:
        raise ValueError(f"cannot remove {remove} of {columns} values")
    values, ranking = values.detach(), Ranking(values.dtype, magnitude)
    if values.numel() == 0:
        return torch.ones((rows, columns), dtype=torch.bool, device=values.device)
    if values.device.type != "cpu":
        return _on_device(values, remove, ranking, alive)
    bits = values.contiguous().view(ranking.bits).numpy()
    dead = None if alive is None else ~alive.numpy()
    kept = np.empty((rows, columns), np.bool_)
    chunk = max(1, _CHUNK // columns)
    for start in range(0, rows, chunk):
        part = slice(start, start + chunk)
        keys = _row_keys(bits[part], ranking, None if dead is None else dead[part])
        _decide(keys, remove, kept[part])
    if dead is not None:
        kept &= ~dead
    return torch.from_numpy(kept)


def _row_keys(bits: Ints, ranking: Ranking, dead: Bools | None) -> Ints:
    """The keys of a piece of the rows, those of dead values the lowest of all."""
    keys = np.bitwise_and(bits, ranking.highest)
    if dead is not None:
        keys[dead] = 0
    if keys.max() > ranking.infinity:
        raise NotANumberError(0)
    if not ranking.magnitude:
        sign = np.right_shift(bits, 8 * bits.itemsize - 1)  # -1 below zero, else 0
        np.bitwise_xor(keys, sign, out=keys)
        np.subtract(keys, sign, out=keys)  # the negative of the magnitude; both zeros become 0
    if dead is not None:
        keys[dead] = np.iinfo(keys.dtype).min
    return keys


def _decide(keys: Ints, remove: int, kept: Bools) -> None:
    """Write the decision about some rows into `kept`."""
    columns = keys.shape[1]
    if remove in (0, columns):
        kept.fill(remove == 0)
    elif columns <= _PAIRS:
        _by_pairs(keys, remove, kept)
    else:
        _by_partition(keys, remove, kept)


def _by_partition(keys: Ints, remove: int, kept: Bools) -> None:
    threshold = np.partition(keys, remove - 1, axis=1)[:, remove - 1 : remove]  # (rows, 1)
    np.greater(keys, threshold, out=kept)
    # A row that keeps too few has ties at its threshold: the last of them stay.
    missing = keys.shape[1] - remove - np.count_nonzero(kept, axis=1)
    (rows,) = np.nonzero(missing)
    ties = keys[rows] == threshold[rows]
    from_the_right = np.cumsum(ties[:, ::-1], axis=1)[:, ::-1]  # 1 at the last tie of a row
    kept[rows] |= ties & (from_the_right <= missing[rows, None])


def _by_pairs(keys: Ints, remove: int, kept: Bools) -> None:
    """A value's rank is the number of values that go before it: smaller ones, and equal ones on its left."""
    columns = np.ascontiguousarray(keys.T)  # (columns, rows)
    ranks = np.zeros(columns.shape, np.uint8)
    for right in range(len(columns)):
        for left in range(right):
            left_first = np.less_equal(columns[left], columns[right])
            ranks[right] += left_first.view(np.uint8)
            ranks[left] += ~left_first
    np.greater_equal(ranks.T, remove, out=kept)


def _on_device(values: Tensor, remove: int, ranking: Ranking, alive: Tensor | None) -> Tensor:
    """The same in operations of torch, for GPUs."""
    keys = ranking.keys(values)
    if alive is not None:
        keys = keys.masked_fill(~alive, torch.iinfo(keys.dtype).min)
    if int(keys.max()) > ranking.infinity:
        raise NotANumberError(0)
    if remove == 0:
        return torch.ones_like(keys, dtype=torch.bool) if alive is None else alive.clone()
    threshold = keys.kthvalue(remove, dim=1, keepdim=True).values
    ties, kept = keys == threshold, keys > threshold
    missing = keys.shape[1] - remove - kept.sum(1, keepdim=True)
    from_the_right = ties.flip(1).cumsum(1).flip(1)
    kept |= ties & (from_the_right <= missing)
    return kept if alive is None else kept & alive
