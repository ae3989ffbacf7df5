"""Keep the largest values of many tensors: an exact global selection that reads the data about once.

A float whose sign bit is cleared orders like the integer with the same bits. So |w| is ranked on an integer view of w,
without computing a score: a small sample brackets the threshold, one pass over the data decides everything outside the
bracket, and only the few values inside it are sorted. The result is exact for every input, ties and zeros included;
the sample can only make it slower. `torch.kthvalue`, `topk` and `sort` give the same answer many times slower.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunelab.selection.keys import NUMPY, Ints, NotANumberError, Ranking

_CHUNK = 1 << 16  # values handled at a time: a chunk and its buffers stay in a core's cache
_SAMPLE = 3  # of n values, _SAMPLE * n^(2/3) are sampled: sorting them and what they leave undecided cost alike
_UNSIGNED = {8: np.uint64, 4: np.uint32, 2: np.uint16}


def keep_largest(values: Sequence[Tensor], remove: int, *, magnitude: bool = False) -> list[Tensor]:
    """Which values stay when the `remove` smallest of all tensors together go; ties go in order of position.

    Args:
        values: float tensors, of any shape, dtype and device each.
        remove: how many values to remove, from 0 to their total number.
        magnitude: rank by absolute value, without computing it.

    Returns:
        a flat bool tensor for each input, on its device, True = kept; exactly `remove` entries are False.

    Raises:
        NotANumberError: a value is NaN.
    """
    total = sum(tensor.numel() for tensor in values)
    if not 0 <= remove <= total:
        raise ValueError(f"cannot remove {remove} of {total} values")
    flat = [tensor.detach().reshape(-1) for tensor in values]
    if remove in (0, total):
        _refuse_nan(flat)
        return [torch.full_like(tensor, remove == 0, dtype=torch.bool) for tensor in flat]
    dtype = flat[0].dtype
    for tensor in flat:
        dtype = torch.promote_types(dtype, tensor.dtype)
    ranking = Ranking(dtype, magnitude)
    low, high, tied = _bracket(flat, ranking, remove / total)
    while True:
        scans = [_scan(tensor, ranking, low, high, index) for index, tensor in enumerate(flat)]
        below = total - sum(scan.above + scan.inside for scan in scans)
        inside = sum(scan.inside for scan in scans)
        if remove < below:
            low, high = (ranking.lowest, low - 1) if tied is None else (tied, tied)
            tied = None
        elif remove > below + inside:
            low, high = high + 1, ranking.highest
        else:
            break
    if low == high:
        _drop_first(flat, scans, ranking, low, remove - below)
    else:
        _settle_bracket(scans, remove - below)
    return [scan.keep for scan in scans]


@dataclass
class _Scan:
    """What one pass over a tensor found: values above the bracket are kept, those inside it are undecided.

    Values inside a bracket of a single key are all alike: they are kept for now, and not listed.
    """

    keep: Tensor  # (n,) bool, True above the bracket
    above: int
    inside: int
    positions: NDArray[np.int64]  # (inside,) ascending
    keys: Ints  # (inside,)


def _bracket(flat: list[Tensor], ranking: Ranking, fraction: float) -> tuple[int, int, int | None]:
    """Keys between which the threshold lies almost surely: five standard deviations of the sample quantile.

    A key at the lower end that many values share, such as the zeros of a model that was pruned before, is left out and
    comes third: listing all its values would take longer than anything else.
    """
    total = sum(tensor.numel() for tensor in flat)
    stride = int(total ** (1 / 3) / _SAMPLE) | 1  # odd, so that it does not march in step with power-of-two rows
    sample = np.concatenate([ranking.keys(tensor[stride // 2 :: stride]).cpu().numpy() for tensor in flat])
    margin = 5 * np.sqrt(sample.size * fraction * (1 - fraction)) + 2
    first, last = int(sample.size * fraction - margin), int(sample.size * fraction + margin)
    ranks = [rank for rank in (first, last) if 0 <= rank < sample.size]
    if ranks:
        sample.partition(ranks)
    low = int(sample[first]) if first in ranks else ranking.lowest
    high = int(sample[last]) if last in ranks else ranking.highest
    if low < high and np.count_nonzero(sample == low) > sample.size // 64:
        return low + 1, high, low
    return low, high, None


def _scan(tensor: Tensor, ranking: Ranking, low: int, high: int, index: int) -> _Scan:
    """One pass over a flat tensor: keep what lies above the bracket, collect what lies inside it."""
    if tensor.device.type != "cpu":
        return _scan_on_device(tensor, ranking, low, high, index)
    keep = torch.empty(tensor.numel(), dtype=torch.bool)
    kept, above = keep.numpy(), 0
    positions: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    inside: list[Ints] = [np.empty(0, NUMPY[ranking.bits])]
    buffer = np.empty(min(_CHUNK, tensor.numel()), NUMPY[ranking.bits])
    hits = np.empty(buffer.size, np.bool_)
    ties = 0
    for start, keys in _key_chunks(tensor, ranking):
        if keys.max() > ranking.infinity:
            raise NotANumberError(index)
        np.greater(keys, high, out=kept[start : start + keys.size])
        above += int(np.count_nonzero(kept[start : start + keys.size]))
        if low == high:
            equal = np.equal(keys, low, out=hits[: keys.size])
            ties += int(np.count_nonzero(equal))
            kept[start : start + keys.size] |= equal
            continue
        # One comparison for low <= key <= high: the differences below zero wrap round to large unsigned numbers.
        above_low = np.subtract(keys, low, out=buffer[: keys.size]).view(_UNSIGNED[keys.itemsize])
        found = np.flatnonzero(np.less_equal(above_low, high - low, out=hits[: keys.size]))
        inside.append(keys[found])
        positions.append(found + start)
    found = np.concatenate(positions)
    return _Scan(keep, above, found.size + ties, found, np.concatenate(inside))


def _scan_on_device(tensor: Tensor, ranking: Ranking, low: int, high: int, index: int) -> _Scan:
    """The same where chunks gain nothing (GPUs); only what lies inside the bracket travels to the CPU."""
    keys = ranking.keys(tensor)
    if keys.numel() and int(keys.max()) > ranking.infinity:
        raise NotANumberError(index)
    keep = keys > high
    above = int(keep.sum())
    if low == high:
        keep = keys >= low
        return _Scan(keep, above, int(keep.sum()) - above, np.empty(0, np.int64), np.empty(0, NUMPY[ranking.bits]))
    found = torch.nonzero((keys >= low) & (keys <= high)).squeeze(1)
    return _Scan(keep, above, found.numel(), found.cpu().numpy(), keys[found].cpu().numpy())


def _key_chunks(tensor: Tensor, ranking: Ranking) -> Iterator[tuple[int, Ints]]:
    """(start, keys) of successive pieces of a CPU tensor; each array is valid until the next is asked for."""
    if not ranking.magnitude or tensor.dtype != ranking.dtype:
        for start in range(0, tensor.numel(), _CHUNK):
            yield start, ranking.keys(tensor[start : start + _CHUNK]).numpy()
        return
    # numpy: its integer operations are several times faster than torch's on the CPU.
    bits = tensor.view(ranking.bits).numpy()
    buffer = np.empty(min(_CHUNK, bits.size), bits.dtype)
    for start in range(0, bits.size, _CHUNK):
        piece = bits[start : start + _CHUNK]
        yield start, np.bitwise_and(piece, ranking.highest, out=buffer[: piece.size])


def _drop_first(flat: list[Tensor], scans: list[_Scan], ranking: Ranking, key: int, remove: int) -> None:
    """Of all values with this key the first `remove` go."""
    for tensor, scan in zip(flat, scans, strict=True):
        for start in range(0, tensor.numel() if remove else 0, _CHUNK):
            keys = ranking.keys(tensor[start : start + _CHUNK])
            equal = torch.nonzero(keys == key).squeeze(1)[:remove]
            scan.keep[start + equal] = False
            remove -= equal.numel()


def _settle_bracket(scans: list[_Scan], remove: int) -> None:
    """Of all values inside the bracket the `remove` smallest go.

    Ties go in order of position; the others are kept.
    """
    keys = np.concatenate([scan.keys for scan in scans])
    keep = np.ones(keys.size, dtype=np.bool_)
    if remove:
        threshold = np.partition(keys, remove - 1)[remove - 1]
        smaller = keys < threshold
        keep[smaller] = False
        equal = np.flatnonzero(keys == threshold)
        keep[equal[: remove - np.count_nonzero(smaller)]] = False
    start = 0
    for scan in scans:
        stop = start + scan.keys.size
        kept = torch.from_numpy(scan.positions[keep[start:stop]]).to(scan.keep.device)
        scan.keep[kept] = True
        start = stop


def _refuse_nan(flat: list[Tensor]) -> None:
    for index, tensor in enumerate(flat):
        if bool(tensor.isnan().any()):
            raise NotANumberError(index)
