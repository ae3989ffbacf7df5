"""Convolutions, plain, grouped, depthwise and transposed: where channels are made, and where they are read."""

from __future__ import annotations

import numpy as np

from prunelab.surgery.follow import Follower, Rule
from prunelab.surgery.labels import Label, spread, varying
from prunelab.surgery.operations import arguments
from prunelab.surgery.rules.products import UNREAD
from prunelab.trace import Op, Value


def convolution(run: Follower, op: Op) -> None:
    """x (B, I, …), weight (O, I/g, …), or (I, O/g, …) where it is transposed."""
    named = arguments(op)
    x, weight, bias, out = named["input"], named["weight"], named.get("bias"), op.outputs[0]
    groups, transposed = named["groups"], named["transposed"]
    dims = len(x.shape)
    run.keep_dims(x, range(2, dims), "it lies along an axis of the image")
    if run.untouched(weight):
        run.set_weight(weight, run.fresh(weight.shape, 2))  # nothing goes along an axis of the kernel
    else:
        run.keep_dims(weight, range(2, dims), "it lies along an axis of the kernel")
    read = run.along(x, 1)
    if groups == 1:
        made = run.along(weight, 1 if transposed else 0)
        reads = run.along(weight, 0 if transposed else 1)
        if x.shape[1] > 1:
            run.same(read, reads, UNREAD)
            if reads is not None:
                run.ledger.read(reads)
    else:
        made = _grouped(run, read, x.shape[1], weight, groups, transposed)
    outputs = out.shape[1]
    if bias is not None and outputs > 1:
        run.same(made, run.along(bias, 0), "its bias cannot shrink with it")
    labels = [label for label in run.of(x) if varying(label) == (0,)]
    if made is not None:
        run.ledger.made(made)
        labels.append(spread(made, 1, dims))
    run.set(out, labels, zero=True)


def _grouped(
    run: Follower, read: Label | None, inputs: int, weight: Value, groups: int, transposed: bool
) -> Label | None:
    """Channels made by a grouped convolution, (O,). As many go from each group, or whole groups."""
    per_in = inputs // groups
    per_out = weight.shape[1] if transposed else weight.shape[0] // groups
    own = run.along(weight, 0)  # ordinary: what it makes; transposed: what it reads, both over all groups
    whole_groups = per_in == 1 or per_out == 1
    size = per_out if transposed else per_in  # along dimension 1, within a group
    inner = None
    if size > 1:
        inner = _inner_of_groups(run, weight, groups, size)
    first, second = (own, inner) if not transposed else (inner, own)  # (made, reads)
    made = first if first is None or first.size == groups * per_out else None
    if transposed and per_out == 1:
        made = own if per_in == 1 else _one_a_group(run, own, groups)
    reads = second
    if not transposed and per_in == 1:
        reads = None if made is None else _one_a_group(run, made, groups)
    if read is None:
        for label in (made, reads):
            if label is not None:
                run.freeze(label, UNREAD)
        return made
    if reads is not None:
        run.ledger.tie(read, reads)
        if inner is not None or transposed:
            run.ledger.read(reads)
    if whole_groups and made is not None:
        box = made.reshape(groups, -1)
        run.ledger.tie(box, read.reshape(groups, -1)[:, :1])
        run.ledger.tie(read.reshape(groups, -1), read.reshape(groups, -1)[:, :1])
    elif made is not None:
        run.ledger.balance(made.reshape(groups, -1))
        run.ledger.balance(read.reshape(groups, -1))
    return made


def _one_a_group(run: Follower, label: Label | None, groups: int) -> Label | None:
    """All channels of a group share their fate; one for each group."""
    if label is None:
        return None
    box = label.reshape(groups, -1)
    run.ledger.tie(box, box[:, :1])
    return box[:, 0]


def _inner_of_groups(run: Follower, weight: Value, groups: int, size: int) -> Label | None:
    """Channels along the weight's dimension 1, (groups · size,): every group has its own where nobody else cares."""
    dim = 1
    for label in run.of(weight):
        if (
            label.shape[dim] == size and label.shape[0] > 1 and varying(label) == (0, dim)
        ):  # already told apart, by an earlier call
            return label.reshape(weight.shape[0], size)[:: weight.shape[0] // groups].ravel()
    if run.untouched(weight):
        fresh = run.ledger.new(groups * size).reshape(groups, size)
        rows = np.repeat(fresh, weight.shape[0] // groups, axis=0)
        shape = (weight.shape[0], size, *[1] * (len(weight.shape) - 2))
        others = [label for label in run.of(weight) if label.shape[dim] == 1]
        run.set_weight(weight, [*others, rows.reshape(shape)])
        return fresh.ravel()
    ids = run.along(weight, dim)
    return None if ids is None else np.tile(ids, groups)


RULES: dict[str, Rule] = dict.fromkeys(
    ["convolution", "_convolution", "convolution_overrideable", "cudnn_convolution", "mkldnn_convolution"], convolution
)
