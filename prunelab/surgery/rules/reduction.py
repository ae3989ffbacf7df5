"""Reductions: a sum over removed channels loses zeros, a mean or a maximum loses more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prunelab.surgery.follow import Follower, Rule
from prunelab.surgery.labels import Label, varying
from prunelab.surgery.operations import arguments, operator
from prunelab.trace import Op, Value


def _dims(op: Op, x: Value) -> list[int]:
    dim = arguments(op).get("dim")
    if dim is None or dim == () or dim == []:
        return list(range(len(x.shape)))
    return [d % max(len(x.shape), 1) for d in (dim if isinstance(dim, tuple | list) else [dim])]


def _drop(label: Label, dims: Sequence[int], keep: bool) -> Label:
    first = label[tuple(slice(0, 1) if dim in dims else slice(None) for dim in range(label.ndim))]
    return first if keep else np.squeeze(first, tuple(dims))


def _reduce(run: Follower, op: Op, exact: bool, reason: str) -> None:
    x, dims = op.inputs[0], _dims(op, op.inputs[0])
    keep = bool(arguments(op).get("keepdim", False)) if x.shape else False
    labels = []
    for label in run.of(x):
        over = set(varying(label)) & set(dims)
        if over and not (exact and over == set(varying(label))):
            run.whole(label, dims, reason, inexact=True)
        labels.append(_drop(label, dims, keep))
    for value in op.outputs:
        run.set(value, labels, zero=run.is_zero(x) and operator(op) != "logsumexp", of=[x])


def total(run: Follower, op: Op) -> None:
    """A sum or a norm: exact where the removed channels are zero."""
    exact = run.is_zero(op.inputs[0])
    _reduce(run, op, exact, "it is summed over, and need not be zero where it is removed")


def mean(run: Follower, op: Op) -> None:
    _reduce(run, op, False, "a mean runs over it, and its divisor counts it")


def other(run: Follower, op: Op) -> None:
    """Maximum, variance, product, ...: what is removed would have counted."""
    _reduce(run, op, False, f"{op.name.removeprefix('aten::').partition('.')[0]} runs over it")


def ordered(run: Follower, op: Op) -> None:
    """sort, topk, cumsum: along the dimension every position counts."""
    x = op.inputs[0]
    dim = arguments(op).get("dim", -1)
    dim = (-1 if dim is None else dim) % max(len(x.shape), 1)
    run.keep_dims(x, [dim], f"{op.name.removeprefix('aten::').partition('.')[0]} runs along it")
    for value in op.outputs:
        same = len(value.shape) == len(x.shape)
        run.set(value, [f for f in run.of(x) if same and f.shape[dim] == 1])


RULES: dict[str, Rule] = {
    **dict.fromkeys(["sum", "linalg_vector_norm", "norm", "nansum"], total),
    **dict.fromkeys(["mean", "nanmean"], mean),
    **dict.fromkeys(
        [
            "amax",
            "amin",
            "max",
            "min",
            "var",
            "std",
            "var_mean",
            "std_mean",
            "prod",
            "any",
            "all",
            "argmax",
            "argmin",
            "logsumexp",
            "median",
            "aminmax",
            "count_nonzero",
        ],
        other,
    ),
    **dict.fromkeys(
        ["sort", "topk", "cumsum", "cumprod", "argsort", "logcumsumexp", "kthvalue", "cummax", "cummin"], ordered
    ),
}
