"""Labels: which channel each position of a tensor belongs to, as small arrays of channel numbers.

A label is an int64 array with as many dimensions as the tensor: of the tensor's size along the dimensions that it
varies with, of size 1 along the others. The output of a convolution, (B, O, H, W), has the label (1, O, 1, 1); split
into heads, (B, S, H, D), it is the one label (1, 1, H, D), because which (h, d) are there is one question. A tensor has
a list of labels that vary with different dimensions; a dimension that no label varies with cannot shrink.

The functions move labels as the operations move the tensor, and are all there is to know about shapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Label = NDArray[np.int64]
T = TypeVar("T", bound=np.generic)
FIXED = 0  # the channel that always stays: positions that cannot go


def varying(label: NDArray[np.generic]) -> tuple[int, ...]:
    """The dimensions with which a label varies."""
    return tuple([dim for dim, size in enumerate(label.shape) if size > 1])


def compress(label: NDArray[T]) -> NDArray[T]:
    """The same label, of size 1 along each dimension with which it does not vary."""
    for dim in varying(label):
        first = label.take([0], axis=dim)
        if (label == first).all():
            label = first
    return label


def tidy(labels: Iterable[Label]) -> list[Label]:
    """Compressed labels without those that do not vary, nor those that only ever name the fixed channel."""
    compressed = (compress(label) for label in labels)
    return [label for label in compressed if label.size > 1]


def lift(label: NDArray[T], dims: int) -> NDArray[T]:
    """With leading dimensions of size 1 up to `dims` dimensions, as broadcasting adds them."""
    return label if label.ndim == dims else label.reshape((1,) * (dims - label.ndim) + label.shape)


def spread(ids: Label, dim: int, dims: int) -> Label:
    """A label (n,) along dimension `dim` of a tensor with `dims` dimensions."""
    shape = [1] * dims
    shape[dim] = ids.size
    return ids.reshape(shape)


def reshape(label: Label, old: Sequence[int], new: Sequence[int]) -> Label:
    """The label of a tensor of shape `old`, after it was viewed as `new`."""
    source: list[int] = []
    target: list[int] = []
    for ins, outs in aligned(old, new):
        if all(label.shape[dim] == 1 for dim in ins):
            source += [1] * len(ins)
            target += [1] * len(outs)
        else:
            source += [old[dim] for dim in ins]
            target += [new[dim] for dim in outs]
    return np.broadcast_to(label, source).reshape(target)


def aligned(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Runs of dimensions of both shapes that hold the same elements: the smallest, from left to right."""
    runs: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        ins, outs = [i] if i < len(old) else [], [j] if j < len(new) else []
        i, j = i + len(ins), j + len(outs)
        while (left := math.prod(old[d] for d in ins)) != (right := math.prod(new[d] for d in outs)):
            if (left < right and i < len(old)) or j >= len(new):
                ins.append(i)
                i += 1
            else:
                outs.append(j)
                j += 1
        runs.append((ins, outs))
    return runs


def splits(label: Label, old: Sequence[int], new: Sequence[int]) -> list[tuple[int, ...]]:
    """The runs of new dimensions, of more than one size above 1, into which a dimension the label varies with falls."""
    return [
        tuple(dim for dim in outs if new[dim] > 1)
        for ins, outs in aligned(old, new)
        if any(label.shape[dim] > 1 for dim in ins) and sum(new[dim] > 1 for dim in outs) > 1
    ]


def concatenate(parts: Sequence[Label | None], sizes: Sequence[int], dim: int, dims: int) -> Label:
    """The label along `dim` of tensors put one behind the other; None stands for positions that cannot go."""
    others = [max(along) for along in zip([1] * dims, *(part.shape for part in parts if part is not None), strict=True)]
    pieces = []
    for part, size in zip(parts, sizes, strict=True):
        shape = (*others[:dim], size, *others[dim + 1 :])
        if part is None or part.shape != shape:
            part = np.broadcast_to(np.int64(FIXED) if part is None else part, shape)
        pieces.append(part)
    return np.concatenate(pieces, axis=dim)


def together(kept: Sequence[NDArray[np.bool_]]) -> list[tuple[NDArray[np.bool_], tuple[int, ...]]]:
    """What stays by each label of a tensor → (what stays, dimensions), where labels with a common dimension are one:
    a position stays if each of them keeps it."""
    joined: list[tuple[NDArray[np.bool_], tuple[int, ...]]] = []
    for stays in kept:
        dims = set(varying(stays))
        apart = []
        for other, others in joined:
            if dims & set(others):
                stays, dims = stays & other, dims | set(others)
            else:
                apart.append((other, others))
        joined = [*apart, (stays, tuple(sorted(dims)))]
    return joined


def extents(kept: NDArray[np.bool_]) -> tuple[int, ...] | None:
    """The shape that the kept positions of a label fill; None where they fill no box.

    >>> extents(np.array([[True, False, True], [False, True, True]]))       # two of each row
    (2, 2)
    >>> extents(np.array([[True, True], [False, True]])) is None
    True
    """
    if kept.size == max(kept.shape, default=1):  # it varies with one dimension: any number fills a box
        left = int(np.count_nonzero(kept))
        return tuple([left if size > 1 else min(left, 1) for size in kept.shape])
    sizes = []
    for dim in range(kept.ndim):
        alive = kept.any(axis=tuple(range(dim + 1, kept.ndim)))
        sizes.append(int(alive.sum(axis=-1).max(initial=0)))
    return tuple(sizes) if math.prod(sizes) == int(kept.sum()) else None
