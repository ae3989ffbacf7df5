"""Operations that move elements and compute nothing: the labels move along."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from prunelab.surgery.follow import Follower, Rule
from prunelab.surgery.labels import Label, aligned, compress, concatenate, lift, reshape, splits, spread, varying
from prunelab.surgery.operations import arguments, positions
from prunelab.trace import Op, Value


def _move(run: Follower, op: Op, value: Value, labels: Sequence[Label]) -> None:
    source = op.inputs[0]
    run.set(value, labels, zero=run.is_zero(source), of=[source])


def view(run: Follower, op: Op) -> None:
    """A new shape over the same elements. Channels that it splits must fill the same boxes afterwards."""
    source, value = op.inputs[0], op.outputs[0]
    labels = []
    for label in run.of(source) if 0 not in source.shape else []:
        moved = reshape(label, source.shape, value.shape)
        for dims in splits(label, source.shape, value.shape):
            _ask_for_boxes(run, moved, dims)
        labels.append(moved)
    more, elastic = _repeated(run, source, value)
    run.set(value, [*labels, *more], zero=run.is_zero(source), of=[source], elastic=elastic)


def _repeated(run: Follower, source: Value, value: Value) -> tuple[list[Label], list[int]]:
    """Dimensions that the source fills by repeating itself: as such again, or, merged with others (a mask for every
    head of every example), as channels of their own, so that what they meet can tell how many are wanted."""
    repeated = {dim for dim, size in enumerate(source.shape) if size > 1} - {
        dim for dim, size in enumerate(run.extent(source)) if size > 1
    }
    labels, elastic = list[Label](), list[int]()
    for ins, outs in aligned(source.shape, value.shape) if repeated and 0 not in source.shape else []:
        wide, broad = [d for d in ins if source.shape[d] > 1], [d for d in outs if value.shape[d] > 1]
        if not repeated & set(wide):
            continue
        if set(wide) <= repeated:
            elastic += broad
        elif not any(set(wide) & set(varying(label)) for label in run.of(source)):
            for dim in repeated & set(wide):
                fresh = spread(run.ledger.new(source.shape[dim]), dim, len(source.shape))
                labels.append(reshape(fresh, source.shape, value.shape))
    return labels, elastic


def _ask_for_boxes(run: Follower, label: Label, dims: Sequence[int]) -> None:
    """Along the dimensions that one was split into, as many must be left of each part."""
    label = compress(label)
    dims = [dim for dim in dims if label.shape[dim] > 1]
    if len(dims) > 1:
        others = [dim for dim in range(label.ndim) if dim not in dims]
        rows = label.transpose(*others, *dims)
        run.ledger.balance(rows.reshape(-1, label.shape[dims[-1]]))


def permute(run: Follower, op: Op) -> None:
    source, value = op.inputs[0], op.outputs[0]
    order = _order(op, len(source.shape))
    labels = []
    for label in run.of(source):
        moved = label.transpose(order)
        dims = [order[dim] for dim in varying(moved)]
        if dims != sorted(dims):
            # Which positions are next to each other changes, so what is kept must be a box: whole rows and columns.
            for outer in sorted(dims)[:-1]:
                moved = _tie(run, moved, order.index(outer))
        labels.append(moved)
    _move(run, op, value, labels)


def _tie(run: Follower, label: Label, axis: int) -> Label:
    run.ledger.tie_along(label, axis)
    return label


def _order(op: Op, dims: int) -> list[int]:
    named = arguments(op)
    if "dims" in named:
        return [dim % dims for dim in named["dims"]]
    order = list(range(dims))
    a, b = (named.get("dim0", 0), named.get("dim1", 1)) if dims > 1 else (0, 0)
    if dims:
        order[a], order[b] = order[b % dims], order[a % dims]
    return order


def expand(run: Follower, op: Op) -> None:
    """A dimension that is filled by repeating goes as far as the code asks: it sets no demand."""
    source, value = op.inputs[0], op.outputs[0]
    size = [1] * (len(value.shape) - len(source.shape)) + run.extent(source)
    elastic = [dim for dim, n in enumerate(value.shape) if n > 1 and size[dim] == 1]
    labels = [lift(label, len(value.shape)) for label in run.of(source)]
    run.set(value, labels, zero=run.is_zero(source), of=[source], elastic=elastic)


def cut(run: Follower, op: Op) -> None:
    """slice, select, narrow: some positions of one dimension."""
    named, source, value = arguments(op), op.inputs[0], op.outputs[0]
    dim = named.get("dim", 0) % len(source.shape)
    size = source.shape[dim]
    taken = positions(named, size)
    labels = []
    for label in run.of(source):
        part = label.take(taken, axis=dim) if label.shape[dim] > 1 else label
        labels.append(
            part.reshape(part.shape[:dim] + part.shape[dim + 1 :])
            if "index" in named and part.shape[dim] == 1
            else part
        )
    _move(run, op, value, labels)


def split(run: Follower, op: Op) -> None:
    """split, chunk, unbind: consecutive parts. Equal parts keep equal counts: code may work them out from the shape."""
    source = op.inputs[0]
    dim = arguments(op).get("dim", 0) % len(source.shape)
    gone = len(op.outputs[0].shape) < len(source.shape)  # unbind drops the dimension
    sizes = [1 if gone else value.shape[dim] for value in op.outputs]
    for label in run.of(source):
        if label.shape[dim] > 1 and len(set(sizes)) == 1 and sizes[0] > 1:
            rows = np.moveaxis(label, dim, -1).reshape(-1, label.shape[dim])
            for row in rows:
                run.ledger.balance(row.reshape(len(sizes), sizes[0]))
        elif label.shape[dim] > 1 and len(set(sizes)) == 1:
            rows = np.moveaxis(label, dim, 0).reshape(label.shape[dim], -1)
            if rows.shape[1] == 1:
                run.freeze(label, "it is taken apart, one by one")
            else:
                run.ledger.balance(rows)
    start = 0
    for value, size in zip(op.outputs, sizes, strict=True):
        labels = []
        for label in run.of(source):
            part = label.take(range(start, start + size), axis=dim) if label.shape[dim] > 1 else label
            labels.append(part.reshape(part.shape[:dim] + part.shape[dim + 1 :]) if gone else part)
        _move(run, op, value, labels)
        start += size


def cat(run: Follower, op: Op) -> None:
    """One behind the other along `dim`; in the other dimensions they meet position by position."""
    value = op.outputs[0]
    dims = len(value.shape)
    dim = arguments(op).get("dim", 0) % dims
    parts = [part for part in op.inputs if part.shape != (0,)]
    if not parts:
        run.set(value, [])
        return
    inside = [next((f for f in run.of(part) if f.shape[dim] > 1), None) for part in parts]
    across = _across(run, parts, dim)
    if any(label is not None for label in inside):
        sizes = [part.shape[dim] for part in parts]
        across.append(concatenate(inside, sizes, dim, dims))
    run.set(value, across, zero=all(map(run.is_zero, parts)), of=parts)


def _across(run: Follower, parts: Sequence[Value], dim: int) -> list[Label]:
    """The labels that do not vary with `dim`: those of all parts meet."""
    found: list[Label] = []
    for part in parts:
        for label in run.of(part):
            if label.shape[dim] > 1:
                continue
            for other in parts:
                if other is part:
                    continue
                run.meet(label, run.of(other), [1 if d == dim else size for d, size in enumerate(run.extent(other))])
            same = [mine for mine in found if set(varying(mine)) & set(varying(label))]
            for mine in same:
                run.ledger.tie(mine, label)
            if not same:
                found.append(label)
    return found


def stack(run: Follower, op: Op) -> None:
    value, parts = op.outputs[0], op.inputs
    dim = arguments(op).get("dim", 0) % len(value.shape)
    labels = run.merge(parts, parts[0].shape)
    run.set(value, [np.expand_dims(label, dim) for label in labels], zero=all(map(run.is_zero, parts)), of=parts)


def pad(run: Follower, op: Op) -> None:
    """Positions that cannot go are added around what is there."""
    named, source, value = arguments(op), op.inputs[0], op.outputs[0]
    dims, amounts = len(source.shape), list(named.get("pad") or named.get("padding") or ())
    labels = run.of(source)
    for i in range(len(amounts) // 2):
        dim, before, after = dims - 1 - i, amounts[2 * i], amounts[2 * i + 1]
        grown = []
        for label in labels:
            if label.shape[dim] > 1 and (before or after):
                if before < 0 or after < 0:
                    label = label.take(range(max(-before, 0), label.shape[dim] - max(-after, 0)), axis=dim)
                sizes = [max(before, 0), label.shape[dim], max(after, 0)]
                label = concatenate([None, label, None], sizes, dim, dims)
            grown.append(label)
        labels = grown
    filled = named.get("value") or 0
    run.set(value, labels, zero=run.is_zero(source) and filled == 0, of=[source])


def turn(run: Follower, op: Op) -> None:
    """flip and roll: which position is where depends on the size, so along these dimensions only whole boxes go."""
    source, value = op.inputs[0], op.outputs[0]
    dims = arguments(op).get("dims") or range(len(source.shape))
    run.keep_dims(source, [dim for dim in dims if source.shape[dim] > 1], "its order is turned round")
    _move(run, op, value, run.of(source))


def repeat(run: Follower, op: Op) -> None:
    """The whole again and again: copies of a channel share its fate."""
    source, value = op.inputs[0], op.outputs[0]
    times = arguments(op)["repeats"]
    labels = []
    for label in run.of(source):
        label = lift(label, len(times))
        labels.append(np.tile(label, [n if label.shape[dim] > 1 else 1 for dim, n in enumerate(times)]))
    _move(run, op, value, labels)


def windows(run: Follower, op: Op) -> None:
    """im2col, (B, C, H, W) → (B, C·k, L), and unfold over untouched dimensions."""
    source, value = op.inputs[0], op.outputs[0]
    ids = run.along(source, 1)
    run.keep_dims(source, range(2, len(source.shape)), "it lies along an axis of the image")
    labels = [] if ids is None else [spread(np.repeat(ids, value.shape[1] // source.shape[1]), 1, len(value.shape))]
    run.set(value, labels, zero=run.is_zero(source), of=[source])


def unfold(run: Follower, op: Op) -> None:
    """Sliding windows along one dimension, which go to a new last one."""
    source, value = op.inputs[0], op.outputs[0]
    dim = arguments(op)["dimension"]
    run.keep_dims(source, [dim], "sliding windows run along it")
    labels = [label[..., None] for label in run.of(source) if label.shape[dim % len(source.shape)] == 1]
    _move(run, op, value, labels)


def diagonal(run: Follower, op: Op) -> None:
    source = op.inputs[0]
    named = arguments(op)
    dims = {named.get("dim1", 0) % len(source.shape), named.get("dim2", 1) % len(source.shape)}
    run.keep_dims(source, dims, "its diagonal is taken")
    labels = [label for label in run.of(source) if not dims & set(varying(label))]
    left = [np.squeeze(label, tuple(dims))[..., None] for label in labels]
    _move(run, op, op.outputs[0], left)


def as_strided(run: Follower, op: Op) -> None:
    """Only where it is another name for the same shape is it known what it does."""
    source, value = op.inputs[0], op.outputs[0]
    if value.shape == source.shape and math.prod(source.shape) > 0 and not arguments(op).get("storage_offset"):
        _move(run, op, value, run.of(source))
        return
    run.keep_dims(source, range(len(source.shape)), "it is read with strides of its own (as_strided)")
    run.set(value, [])


_VIEWS = [
    "view",
    "_unsafe_view",
    "reshape",
    "view_copy",
    "_reshape_alias",
    "_reshape_copy",
    "squeeze",
    "unsqueeze",
    "flatten",
    "unflatten",
]

RULES: dict[str, Rule] = {
    **dict.fromkeys(_VIEWS, view),
    **dict.fromkeys(
        ["permute", "transpose", "t", "numpy_T", "swapaxes", "movedim", "transpose_copy", "permute_copy"], permute
    ),
    **dict.fromkeys(["expand", "expand_copy"], expand),
    **dict.fromkeys(["slice", "select", "narrow"], cut),
    **dict.fromkeys(
        [
            "split",
            "split_with_sizes",
            "unsafe_split",
            "unsafe_split_with_sizes",
            "chunk",
            "unbind",
            "tensor_split",
            "split_copy",
            "split_with_sizes_copy",
            "unsafe_chunk",
        ],
        split,
    ),
    "cat": cat,
    "concat": cat,
    "stack": stack,
    **dict.fromkeys(
        ["constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"], pad
    ),
    "flip": turn,
    "roll": turn,
    "repeat": repeat,
    "im2col": windows,
    "unfold": unfold,
    "diagonal": diagonal,
    "as_strided": as_strided,
}
