"""Normalisation: exact where each channel is normalised alone, not where its statistics run over the channels."""

from __future__ import annotations

from collections.abc import Sequence

from prunelab.surgery.follow import Follower, Rule
from prunelab.surgery.labels import Label, spread
from prunelab.surgery.operations import arguments
from prunelab.trace import Op, Value


def _affine(run: Follower, x: Value, parts: Sequence[Value | None], dim: int) -> None:
    """Per-channel scales, shifts and statistics (C,) go with the channels of `x` along `dim`."""
    ids = run.along(x, dim)
    shared: list[Label] = []
    for part in parts:
        if part is None or x.shape[dim] == 1:
            continue
        if shared and run.untouched(part):
            run.set_weight(part, shared)  # one row of channels for all that one layer holds: a quarter of the ties
            continue
        if run.untouched(part):
            shared = run.of(part)
        run.same(ids, run.along(part, 0), "it is scaled or shifted by a tensor that cannot shrink with it")


def batch_norm(run: Follower, op: Op) -> None:
    """x (B, C, …): each channel alone, so removal is exact. A zeroed scale and shift make the channel zero."""
    named = arguments(op)
    x, scale = named["input"], named.get("weight")
    _affine(run, x, [scale, named.get("bias"), named.get("running_mean"), named.get("running_var")], 1)
    out = op.outputs[0]
    if run.is_weight(x):  # a weight that is standardised over what it reads
        dims = [dim for dim in range(len(x.shape)) if dim != 1]
        run.keep_dims(x, dims, "its weight is standardised over it", inexact=True)
    run.set(out, run.of(x), zero=scale is not None, of=[x])
    for extra in op.outputs[1:]:
        run.set(extra, [])


def layer_norm(run: Follower, op: Op) -> None:
    named = arguments(op)
    x = named["input"]
    dims = range(len(x.shape) - len(named["normalized_shape"]), len(x.shape))
    parts = [part for part in (named.get("weight"), named.get("bias")) if part is not None]
    for label in run.of(x):
        run.whole(label, dims, f"{_title(op)} takes its statistics over it", inexact=True)
    labels = run.merge([x, *parts], x.shape)
    run.set(op.outputs[0], labels)
    for extra in op.outputs[1:]:
        run.set(extra, [])


def group_norm(run: Follower, op: Op) -> None:
    named = arguments(op)
    x, groups = named["input"], int(named.get("group", named.get("num_groups", 1)))
    run.keep_dims(x, [1], "GroupNorm takes its statistics over the channels of a group", inexact=True)
    _affine(run, x, [named.get("weight"), named.get("bias")], 1)
    ids = run.along(x, 1)
    labels = [label for label in run.of(x) if label.shape[1] == 1]
    if ids is not None:
        run.ledger.balance(ids.reshape(groups, -1))
        labels.append(spread(ids, 1, len(x.shape)))
    run.set(op.outputs[0], labels)
    for extra in op.outputs[1:]:
        run.set(extra, [])


def softmax(run: Follower, op: Op) -> None:
    """Along `dim` the results add up to one, so there every position counts."""
    x = op.inputs[0]
    for label in run.of(x):
        run.whole(label, [arguments(op)["dim"] % len(x.shape)], "softmax runs over it", inexact=True)
    run.set(op.outputs[0], run.of(x))


def weight_norm(run: Follower, op: Op) -> None:
    """v · g / ‖v‖, along `dim`. A zeroed slice of v across it leaves the norm of the rest as it is. A zeroed row has no
    norm, so where one goes its g alone is zeroed; that is only possible for a v that is a parameter."""
    named = arguments(op)
    v, g, dim = named["v"], named["g"], named.get("dim", 0) % len(named["v"].shape)
    rows = run.along(v, dim)
    if rows is not None and run.untouched(g):  # a zero of either is a zero of the row
        run.set_weight(g, [spread(rows, dim, len(g.shape))])
    scales = run.along(g, dim)
    if rows is not None and scales is not None:
        run.ledger.tie(rows, scales)
        if dim == 0 and v.id in run.names:
            run.normed.add(run.names[v.id])
        else:
            run.freeze(rows, "weight normalisation divides by its norm, which would be zero")
    run.set(op.outputs[0], run.of(v), zero=True, of=[v, g])
    for extra in op.outputs[1:]:
        run.set(extra, [])


def _title(op: Op) -> str:
    return "RMSNorm" if "rms" in op.name else "LayerNorm"


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        [
            "native_batch_norm",
            "_native_batch_norm_legit",
            "_native_batch_norm_legit_no_training",
            "batch_norm",
            "cudnn_batch_norm",
            "_native_batch_norm_legit_functional",
            "miopen_batch_norm",
            "_batch_norm_with_update",
            "_batch_norm_no_update",
        ],
        batch_norm,
    ),
    **dict.fromkeys(["native_layer_norm", "layer_norm", "rms_norm", "_fused_rms_norm"], layer_norm),
    **dict.fromkeys(["native_group_norm", "group_norm"], group_norm),
    **dict.fromkeys(["_softmax", "_log_softmax", "softmax", "log_softmax", "_safe_softmax"], softmax),
    "_weight_norm_interface": weight_norm,
}
