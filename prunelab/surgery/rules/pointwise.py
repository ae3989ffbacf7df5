"""Element by element: what meets shares its fate. And what happens to operations that no rule knows."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from prunelab.surgery.follow import Follower, Rule
from prunelab.surgery.labels import Label, lift, varying
from prunelab.surgery.operations import arguments, operator
from prunelab.trace import Op, Value

# Functions f with f(0) = 0: where their argument is zero because its channel is removed, so is the result.
_KEEP_ZERO = frozenset(
    [
        "abs",
        "asin",
        "asinh",
        "atan",
        "atanh",
        "ceil",
        "celu",
        "elu",
        "erf",
        "expm1",
        "floor",
        "frac",
        "gelu",
        "hardshrink",
        "hardswish",
        "leaky_relu",
        "log1p",
        "mish",
        "neg",
        "prelu",
        "_prelu_kernel",
        "relu",
        "relu6",
        "round",
        "rrelu",
        "selu",
        "sgn",
        "sign",
        "silu",
        "sin",
        "sinh",
        "softshrink",
        "softsign",
        "sqrt",
        "square",
        "tan",
        "tanh",
        "trunc",
        "clone",
        "detach",
        "alias",
        "_to_copy",
        "lift_fresh",
        "contiguous",
        "native_dropout",
        "nan_to_num",
        "conj_physical",
    ]
)


def elementwise(run: Follower, op: Op) -> None:
    """Every tensor argument meets every other."""
    values = op.inputs
    for value in op.outputs:
        labels = run.merge(values, value.shape)
        dims = len(value.shape)
        divisor = _divisor(op)
        for label in run.of(divisor) if divisor is not None and run.is_zero(divisor) else ():
            run.freeze(label, "something is divided by it, and where it is removed it would be zero")
        sizes = [[1] * (dims - len(v.shape)) + run.extent(v) for v in values]
        elastic = [dim for dim, size in enumerate(value.shape) if size > 1 and all(s[dim] == 1 for s in sizes)]
        run.set(value, labels, zero=_stays_zero(run, op, labels, dims), of=values, elastic=elastic)


def _is_zero_there(run: Follower, value: Value, labels: Sequence[Label], dims: int) -> bool:
    """Whether the value is zero wherever a channel of the result is removed: it must have these channels, too. The sum
    over all of them, for one, is zero nowhere."""
    if not run.is_zero(value):
        return False
    own = run.of(value)
    others = [label for label in labels if not any(label is mine for mine in own)]  # nearly always none
    along = [set(varying(lift(mine, dims))) for mine in own] if others else []
    return all(any(set(varying(label)) <= dims_ for dims_ in along) for label in others)


def _stays_zero(run: Follower, op: Op, labels: Sequence[Label], dims: int) -> bool:
    name = operator(op)
    zeros = [_is_zero_there(run, value, labels, dims) for value in op.inputs]
    if not zeros:
        return False
    if name in {"mul", "logical_and", "bitwise_and"}:
        return any(zeros)
    if name in {"div", "true_divide"}:
        return zeros[0] and not any(zeros[1:])  # 0 / 0 is no number
    if name == "polar":  # of a length and an angle
        return zeros[0]
    if name == "pow":
        base, exponent = op.args[:2]
        return isinstance(base, Value) and zeros[0] and isinstance(exponent, int | float) and exponent > 0
    if name == "threshold":
        limit, other = op.args[1:3]
        return zeros[0] and (limit < 0 or other == 0)
    if name == "where" and any(isinstance(a, int | float) and a != 0 for a in op.args[1:]):
        return False
    if name in {"add", "sub", "where", "lerp", "maximum", "minimum", "addcmul", "addcdiv", "copy", "rsub", "complex"}:
        scalar = next((a for a in op.args[1:2] if isinstance(a, int | float) and not isinstance(a, bool)), 0)
        return all(zeros[1:] if name == "where" and len(zeros) > 2 else zeros) and scalar == 0
    if name in {"hardtanh", "clamp", "clamp_min", "clamp_max"}:
        low, high = _bounds(op)
        if len(zeros) > 1:  # tensors as bounds
            return all(zeros)
        return zeros[0] and (low is None or low <= 0) and (high is None or high >= 0)
    return name in _KEEP_ZERO and zeros[0]


def _divisor(op: Op) -> Value | None:
    """What the operation divides by, or takes a negative power of; None where it does neither."""
    name = operator(op)
    if name in {"rsqrt", "reciprocal"}:
        return op.inputs[0]
    if name in {"div", "true_divide"}:
        found = op.args[1]
    elif name == "pow":
        found = op.args[0] if isinstance(op.args[1], int | float) and op.args[1] < 0 else None
    else:
        return None
    return found if isinstance(found, Value) else None


def _bounds(op: Op) -> tuple[float | None, float | None]:
    named = arguments(op)
    low = named.get("min_val", named.get("min"))
    high = named.get("max_val", named.get("max"))
    numbers = [bound if isinstance(bound, int | float) else None for bound in (low, high)]
    return numbers[0], numbers[1]


def glu(run: Follower, op: Op) -> None:
    """One half of a dimension gates the other: position i of both halves shares its fate."""
    x, out = op.inputs[0], op.outputs[0]
    dim = arguments(op).get("dim", -1) % len(x.shape)
    half = x.shape[dim] // 2
    labels = []
    for label in run.of(x):
        if label.shape[dim] > 1:
            first, second = label.take(range(half), axis=dim), label.take(range(half, 2 * half), axis=dim)
            run.ledger.tie(first, second)
            label = first
        labels.append(label)
    run.set(out, labels, zero=run.is_zero(x))


def fill(run: Follower, op: Op) -> None:
    """In place, from nothing but numbers: the tensor keeps its channels."""
    value = op.outputs[0]
    run.set(value, run.of(value), zero=op.name.startswith("aten::zero_"))


def nothing(run: Follower, op: Op) -> None:
    """Returns numbers, or tensors whose size has nothing to do with channels."""
    for value in op.outputs:
        run.set(value, [])


def otherwise(run: Follower, op: Op) -> None:
    """No rule has this name: element-wise operations say so themselves; what any other one touches stays."""
    if torch.Tag.pointwise in getattr(op.func, "tags", ()) and op.outputs:
        elementwise(run, op)
        return
    for value in op.inputs:
        for label in run.of(value):
            run.freeze(label, f"it goes through {op.name}, an operation without a rule")
    for value in op.outputs:
        run.set(value, [])


_ELEMENTWISE = [
    "clone",
    "detach",
    "alias",
    "_to_copy",
    "lift_fresh",
    "contiguous",
    "copy",
    "where",
    "masked_fill",
    "native_dropout",
    "_prelu_kernel",
    "prelu",
    "rrelu",
    "rrelu_with_noise",
    "to",
    "copy_",
    "dropout",
    "feature_dropout",
    "alpha_dropout",
    "_conj",
    "fake_quantize",
    "lerp",
    "hardtanh",
    "leaky_relu",
    "threshold",
    "elu",
    "celu",
    "nan_to_num",
    "isnan",
    "bitwise_not",
    "view_as",
    "complex",
    "polar",
    "lift",
    "_conj_physical",
    "hardswish",
    "hardsigmoid",
    "hardshrink",
    "softshrink",
    "softplus",
    "log_sigmoid_forward",
    "mish",
    "silu",
    "gelu",
    "relu",
    "relu6",
    "hardtanh",
    "celu",
    "selu",
]

RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, elementwise),
    "glu": glu,
    **dict.fromkeys(["fill", "zero", "normal", "uniform", "bernoulli", "exponential", "random"], fill),
    **dict.fromkeys(
        [
            "_local_scalar_dense",
            "item",
            "sym_size",
            "is_nonzero",
            "equal",
            "_assert_async",
            "_assert_scalar",
            "set_",
            "resize_",
        ],
        nothing,
    ),
}
