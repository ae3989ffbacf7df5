"""Matrix products and attention: where channels are made, and where they are read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prunelab.surgery.follow import Follower, Rule
from prunelab.surgery.labels import Label, spread, varying
from prunelab.surgery.operations import arguments
from prunelab.surgery.rules.pointwise import otherwise
from prunelab.trace import Op, Value

UNREAD = "it is multiplied with something that cannot shrink with it: the network's input, or an index"
_INSIDE = "it is summed over in a product of activations: a dimension inside an attention head, whose scale counts them"


def contract(run: Follower, pattern: str, a: Value, b: Value, out: Value) -> None:
    """A product like einsum's, `pattern` = "mk,kn->mn", of two tensors; the label of the result is set.

    A letter that both have and the result has not is summed over: there the channels of one are those of the other.
    A letter that all have is a batch: one product for each.
    """
    left, right, result = (*pattern.partition("->")[0].split(","), pattern.partition("->")[2])
    weights = [run.is_weight(a), run.is_weight(b)]
    for letter in sorted(set(left) & set(right) - set(result)):
        one, other = _inner(run, a, left.index(letter)), _inner(run, b, right.index(letter))
        if a.shape[left.index(letter)] == 1:
            continue
        run.same(one, other, UNREAD)
        for label, is_weight in ((one, weights[0]), (other, weights[1])):
            if label is not None and is_weight:
                run.ledger.read(label)
        if not any(weights) and one is not None:
            run.freeze(one, _INSIDE, inexact=True)
    found: list[Label] = []
    for value, letters, is_weight in ((a, left, weights[0]), (b, right, weights[1])):
        for label in run.of(value):
            label = _without(label, [i for i, letter in enumerate(letters) if letter not in result])
            if not varying(label):
                continue
            if is_weight:
                run.ledger.made(label)
            order = [letters.index(letter) if letter in letters else None for letter in result]
            found.append(_place(label, order))
    shapes = {
        letter: size for letters, v in ((left, a), (right, b)) for letter, size in zip(letters, v.shape, strict=True)
    }
    for letter in set(left) & set(right) & set(result):
        _batch(run, a, left, b, right, letter, shapes[letter])
    for i, mine in enumerate(found):
        for theirs in found[:i]:
            run.join(mine, theirs)
    run.set(out, found, zero=run.is_zero(a) or run.is_zero(b), of=[a, b])


def _inner(run: Follower, value: Value, dim: int) -> Label | None:
    """The channels along a dimension that is summed over: those of one head go together."""
    found = None
    for label in run.of(value):
        if label.shape[dim] == 1:
            continue
        if varying(label) != (dim,):
            run.ledger.tie_along(label, dim)  # removed head by head, not one dimension of a head
            continue
        found = label.ravel() if found is None else found
    return found


def _without(label: Label, dims: Sequence[int]) -> Label:
    return (
        label.take([0], axis=dims[0])
        if len(dims) == 1
        else label[tuple(slice(0, 1) if d in dims else slice(None) for d in range(label.ndim))]
    )


def _place(label: Label, order: Sequence[int | None]) -> Label:
    """The dimensions of `label` in another order; None stands for one that it has not."""
    present = [i for i in order if i is not None]
    dropped = [i for i in range(label.ndim) if i not in present]
    moved = label.transpose([*dropped, *present]).reshape([label.shape[i] for i in present])
    shape = iter(moved.shape)
    return moved.reshape([1 if i is None else next(shape) for i in order])


def _batch(run: Follower, a: Value, left: str, b: Value, right: str, letter: str, size: int) -> None:
    """Channels along a batch dimension need partners on the other side."""
    if size == 1:
        return
    mine = [label for label in run.of(a) if label.shape[left.index(letter)] > 1]
    theirs = [label for label in run.of(b) if label.shape[right.index(letter)] > 1]
    if bool(mine) != bool(theirs):
        extents = run.extent(b)[right.index(letter)] if mine else run.extent(a)[left.index(letter)]
        for label in (*mine, *theirs) if extents > 1 else ():
            run.freeze(label, "it is multiplied, one by one, with something that cannot shrink with it")


def _rule(pattern: str, first: int = 0) -> Rule:
    def rule(run: Follower, op: Op) -> None:
        a, b = op.args[first], op.args[first + 1]
        out = op.outputs[0]
        contract(run, pattern, a, b, out)
        if first:  # addmm: the bias is added
            zero = run.is_zero(out) and run.is_zero(op.args[0])
            labels = _with_bias(run, op.args[0], out)
            run.set(out, labels, zero=zero)

    return rule


def _with_bias(run: Follower, bias: Value, out: Value) -> list[Label]:
    """What was computed meets the bias (which may stand for it alone where nothing else has channels)."""
    return run.merge([out, bias], out.shape)


def linear(run: Follower, op: Op) -> None:
    """x (…, I), weight (O, I), bias (O,)."""
    named = arguments(op)
    x, weight, bias, out = named["input"], named["weight"], named.get("bias"), op.outputs[0]
    batch = "abcdefgh"[: len(x.shape) - 1]
    contract(run, f"{batch}k,nk->{batch}n" if len(weight.shape) == 2 else f"{batch}k,k->{batch}", x, weight, out)
    if bias is not None:
        run.set(out, _with_bias(run, bias, out), zero=run.is_zero(out) and run.is_zero(bias))


def grouped_mm(run: Follower, op: Op) -> None:
    """a (T, K), b (E, K, N), the rows of a sorted by expert → (T, N): which expert a row goes to is an index."""
    a, b, out = op.args[0], op.args[1], op.outputs[0]
    if len(a.shape) != 2 or len(b.shape) != 3:
        otherwise(run, op)
        return
    run.keep_dims(b, [0], "an index chooses among the experts")
    if a.shape[1] > 1:
        reads = run.along(b, 1)
        run.same(run.along(a, 1), reads, UNREAD)
        if reads is not None:
            run.ledger.read(reads)
    made = run.along(b, 2)
    if made is not None:
        run.ledger.made(made)
    labels = [label for label in run.of(a) if label.shape[1] == 1]
    run.set(out, labels if made is None else [*labels, spread(made, 1, 2)], zero=True)


def attention(run: Follower, op: Op) -> None:
    """q (B, H, S, D), k (B, H', T, D), v (B, H', T, E) → (B, H, S, E), H a multiple of H'."""
    q, k, v = (op.args[i] for i in range(3))
    out = op.outputs[0]
    for value in (q, k):
        for label in run.of(value):
            if label.shape[3] > 1:
                if varying(label) == (3,):
                    run.freeze(label, _INSIDE, inexact=True)
                else:
                    run.ledger.tie_along(label, 3)
    run.same(_width(run, q), _width(run, k), UNREAD)
    heads = [run.along(value, 1) for value in (q, k, v)]
    queries, keys, values = heads
    for partner in (keys, values):
        if partner is not None and queries is not None:
            run.ledger.tie(queries.reshape(partner.size, -1), partner[:, None])
        elif (only := queries if queries is not None else partner) is not None and k.shape[1] > 1:
            run.freeze(only, UNREAD)
        elif queries is not None:  # one key and value head for all queries: any query head may go
            continue
    for value in (q, k, v):
        run.keep_dims(value, [2], "it lies along the sequence")
    mask = arguments(op).get("attn_mask", arguments(op).get("attn_bias"))
    if mask is not None and len(mask.shape) == 4 and run.extent(mask)[1] > 1:
        run.same(queries, run.along(mask, 1), "the attention mask of each head cannot shrink with it")
    labels = [] if queries is None else [spread(queries, 1, 4)]
    for label in run.of(v):
        if label.shape[3] > 1:
            times = q.shape[1] // label.shape[1] if label.shape[1] > 1 else 1
            labels.append(np.repeat(label, times, axis=1))
    if len(labels) == 2 and labels[1].shape[1] > 1:
        run.ledger.tie(*labels)
        labels = labels[1:]
    run.set(out, labels, zero=run.is_zero(v))
    for extra in op.outputs[1:]:
        per_head = queries is not None and extra.shape[1:2] == q.shape[1:2]
        run.set(extra, [spread(queries, 1, len(extra.shape))] if per_head and queries is not None else [])


def _width(run: Follower, value: Value) -> Label | None:
    only = [label for label in run.of(value) if varying(label) == (3,)]
    return only[0].ravel() if only else None


def bilinear(run: Follower, op: Op) -> None:
    """nn.Bilinear: x1 (…, I1), weight (O, I1, I2), x2 (…, I2) → (…, O)."""
    named = arguments(op)
    x1, weight, x2, out = named["i1"], named["i2"], named["i3"], op.outputs[0]
    if (named["expand1"], named["expand2"], named["expand3"]) != ((1, 3), (0,), (1, 2)) or len(weight.shape) != 3:
        otherwise(run, op)
        return
    for value, dim in ((x1, 1), (x2, 2)):
        if weight.shape[dim] > 1:
            reads = run.along(weight, dim)
            run.same(run.along(value, len(value.shape) - 1), reads, UNREAD)
            if reads is not None:
                run.ledger.read(reads)
    made = run.along(weight, 0)
    if made is not None:
        run.ledger.made(made)
    run.set(out, [] if made is None else [spread(made, len(out.shape) - 1, len(out.shape))], zero=True)


_ATTENTION = [
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "_scaled_dot_product_attention_math",
    "scaled_dot_product_attention",
]

RULES: dict[str, Rule] = {
    "mm": _rule("mk,kn->mn"),
    "addmm": _rule("mk,kn->mn", first=1),
    "_addmm_activation": _rule("mk,kn->mn", first=1),
    "bmm": _rule("bmk,bkn->bmn"),
    "baddbmm": _rule("bmk,bkn->bmn", first=1),
    "mv": _rule("mk,k->m"),
    "addmv": _rule("mk,k->m", first=1),
    "dot": _rule("k,k->"),
    "vdot": _rule("k,k->"),
    "linear": linear,
    "_grouped_mm": grouped_mm,
    "_trilinear": bilinear,
    **dict.fromkeys(_ATTENTION, attention),
}
