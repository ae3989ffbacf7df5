"""What a choice of units leaves: parameters, and multiply-adds on the same trace, without building anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunelab.anatomy import PLAIN
from prunelab.surgery.coupling import Coupling
from prunelab.surgery.labels import Label
from prunelab.trace import Value
from prunelab.trace.macs import find_products


def params_after(coupling: Coupling, keep: NDArray[np.bool_]) -> int:
    """Parameters that are left when only the kept units stay."""
    total = 0
    for name, parameter in coupling.anatomy.parameters.items():
        shape = coupling.shape_after(parameter.shape, coupling.tensors.get(name, ()), keep)
        total += parameter.numel() if shape is None else math.prod(shape)
    return total


def macs_after(coupling: Coupling, keep: NDArray[np.bool_]) -> int:
    """Multiply-adds of one forward on the example inputs, when only the kept units stay."""
    followed, total = coupling.followed[0], 0
    for number, factors in followed.factors.items():
        op = followed.trace.ops[number]
        args = _smaller(op.args, factors, coupling, keep)
        outputs = [
            _small(value, labels, coupling, keep)
            for value, labels in zip(op.outputs, followed.returned[number], strict=True)
        ]
        products = find_products(op.name, outputs[0] if len(outputs) == 1 else outputs, args)
        total += sum(macs for macs, _ in products or [])
    return total


def _small(value: Value, labels: Sequence[Label], coupling: Coupling, keep: NDArray[np.bool_]) -> Value:
    shape = coupling.shape_after(value.shape, labels, keep) or value.shape
    stored = value.stored  # of a sparse one as large a part as before
    if stored and shape != value.shape:
        stored = round(stored * math.prod(shape) / value.numel())
    return Value(value.id, shape, value.dtype, stored)


def _smaller(item: Any, factors: dict[int, list[Label]], coupling: Coupling, keep: NDArray[np.bool_]) -> Any:
    if isinstance(item, Value):
        return _small(item, factors.get(item.id, ()), coupling, keep)
    if isinstance(item, tuple) and not PLAIN.issuperset(map(type, item)):
        return tuple(_smaller(i, factors, coupling, keep) for i in item)
    return item


def dense_macs(coupling: Coupling) -> int:
    return sum(op.macs for op in coupling.followed[0].trace.ops)
