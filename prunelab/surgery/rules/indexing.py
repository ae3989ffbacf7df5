"""Look-ups: what an index chooses among cannot shrink; what comes along with it can."""

from __future__ import annotations

from prunelab.surgery.follow import Follower, Rule
from prunelab.surgery.labels import Label, spread, varying
from prunelab.surgery.operations import arguments
from prunelab.trace import Op, Value

_CHOSEN = "an index chooses among its positions"


def embedding(run: Follower, op: Op) -> None:
    """weight (V, E), indices (…) → (…, E): the features of an embedding are made here."""
    weight, out = op.args[0], op.outputs[0]
    run.keep_dims(weight, [0], _CHOSEN)
    features = run.along(weight, 1)
    if features is not None:
        run.ledger.made(features)
    run.set(
        out, [] if features is None else [spread(features, len(out.shape) - 1, len(out.shape))], zero=True, of=[weight]
    )


def index(run: Follower, op: Op) -> None:
    """x[i, :, j]: the indexed dimensions cannot shrink, the others come along where it is known where they go."""
    x, indices = op.args[0], op.args[1]
    out = op.outputs[0]
    indexed = [dim for dim, i in enumerate(indices) if i is not None]
    run.keep_dims(x, indexed, _CHOSEN)
    labels = []
    joined = indexed == list(range(indexed[0], indexed[-1] + 1)) if indexed else True
    is_bool = any(i is not None and "bool" in str(i.dtype) for i in indices)
    grown = len(out.shape) - len(x.shape) + len(indexed)  # dimensions that stand for the indexed ones
    for label in run.of(x):
        if set(varying(label)) & set(indexed):
            continue
        if not joined or is_bool:
            run.freeze(label, "it comes along with an index in a way that is not followed")
            continue
        start = indexed[0] if indexed else 0
        rest = [label.shape[dim] for dim in range(label.ndim) if dim not in indexed]
        labels.append(label.reshape([*rest[:start], *[1] * grown, *rest[start:]]))
    run.set(out, labels, zero=run.is_zero(x), of=[x])


def index_select(run: Follower, op: Op) -> None:
    named = arguments(op)
    x, dim = named["self"], named["dim"] % max(len(named["self"].shape), 1)
    run.keep_dims(x, [dim], _CHOSEN)
    run.set(op.outputs[0], [f for f in run.of(x) if dim not in varying(f)], zero=run.is_zero(x), of=[x])


def gather(run: Follower, op: Op) -> None:
    """Along the other dimensions the index is as large as the code makes it; along `dim` it chooses."""
    named = arguments(op)
    x, dim, out = named["self"], named["dim"] % max(len(named["self"].shape), 1), op.outputs[0]
    run.keep_dims(x, [dim], _CHOSEN)
    labels = []
    for label in run.of(x):
        if dim in varying(label):
            continue
        if all(out.shape[d] == x.shape[d] for d in varying(label)):
            labels.append(label)
        else:
            run.freeze(label, "only some of its positions are gathered")
    run.set(out, labels, zero=run.is_zero(x), of=[x])


def write(run: Follower, op: Op) -> None:
    """index_add, index_copy, scatter, ...: along `dim` an index chooses where, elsewhere both sides meet."""
    named = arguments(op)
    x, out = named["self"], op.outputs[0]
    dim = named["dim"] % max(len(x.shape), 1)
    sources = [named[key] for key in ("source", "src", "value") if isinstance(named.get(key), Value)]
    for value in (x, *sources):
        if len(value.shape) == len(x.shape):
            run.keep_dims(value, [dim], _CHOSEN)
    labels = [label for label in run.of(x) if dim not in varying(label)]
    for source in sources:
        _meet_beside(run, labels, x, source, dim)
    number = named.get("value", 0)
    nothing = number == 0 if isinstance(number, int | float) else True
    run.set(out, labels, zero=run.is_zero(x) and nothing and all(map(run.is_zero, sources)))


def _meet_beside(run: Follower, labels: list[Label], x: Value, source: Value, dim: int) -> None:
    theirs = [label for label in run.of(source) if label.ndim == len(x.shape) and dim not in varying(label)]
    for ours, others, value in ((labels, theirs, source), (theirs, labels, x)):
        extent = [1 if d == dim else size for d, size in enumerate(value.shape)]
        for label in ours:
            if len(value.shape) == label.ndim:
                run.meet(label, others, extent)
    for mine in labels:
        for their in theirs:
            if set(varying(mine)) & set(varying(their)):
                run.ledger.tie(mine, their)


def put(run: Follower, op: Op) -> None:
    """x[i] = values: nothing that an index decides on is followed further."""
    x, indices, values = op.args[0], op.args[1], op.args[2]
    indexed = [dim for dim, i in enumerate(indices) if i is not None]
    run.keep_dims(x, indexed, _CHOSEN)
    lead = len(indexed) > 0 and indexed == list(range(len(indexed)))
    plain = lead and len(values.shape) <= 1 + len(x.shape) - len(indexed)
    left = [label for label in run.of(x) if not set(varying(label)) & set(indexed)]
    if plain:
        tail = len(x.shape) - len(indexed)
        for label in run.of(values):
            if len(values.shape) >= tail and all(d >= len(values.shape) - tail for d in varying(label)):
                shape = [1] * len(indexed) + list(label.shape[len(values.shape) - tail :])
                moved = label.reshape(shape)
                for mine in left:
                    if set(varying(mine)) & set(varying(moved)):
                        run.ledger.tie(mine, moved)
                if not left:
                    run.freeze(label, _CHOSEN)
            else:
                run.freeze(label, _CHOSEN)
        if not run.of(values) and any(size > 1 for size in values.shape[-tail:] if tail):
            for label in left:
                run.freeze(label, "values that cannot shrink with it are written into it")
    else:
        for label in (*left, *run.of(values)):
            run.freeze(label, _CHOSEN)
    run.set(op.outputs[0], left, zero=False)


def chosen(run: Follower, op: Op) -> None:
    """nonzero, one_hot, bincount, ...: made from values, not from positions."""
    for value in op.inputs:
        for label in run.of(value):
            run.freeze(label, _CHOSEN)
    for value in op.outputs:
        run.set(value, [])


def repeat_interleave(run: Follower, op: Op) -> None:
    """With a number of repeats it becomes expand and view; this is the index of repeats given as a tensor."""
    chosen(run, op)


RULES: dict[str, Rule] = {
    "embedding": embedding,
    "index": index,
    "_unsafe_index": index,
    "index_select": index_select,
    "gather": gather,
    "take_along_dim": gather,
    **dict.fromkeys(
        ["index_add", "index_copy", "scatter", "scatter_add", "scatter_reduce", "index_reduce", "index_fill"], write
    ),
    **dict.fromkeys(["index_put", "_unsafe_index_put", "_index_put_impl"], put),
    **dict.fromkeys(
        ["nonzero", "bincount", "unique", "unique2", "_unique2", "searchsorted", "bucketize", "one_hot", "histc"],
        chosen,
    ),
    "repeat_interleave": repeat_interleave,
}
