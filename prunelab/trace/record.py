"""The record of one forward, as plain data: values, operations, and the products that make up their cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from prunelab.anatomy import PLAIN

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the forward, without its data. One tensor keeps one `id` for its life; an in-place operation returns
    the id that it was given, a view has an id of its own. A sparse one has `stored` elements."""

    id: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    stored: int | None = None

    def numel(self) -> int:
        return math.prod(self.shape)

    def dim(self) -> int:
        return len(self.shape)


@dataclass(frozen=True, slots=True)
class Weight:
    """An operand computed from parameters and constants alone: a parameter, a view or cast of it, a masked or
    normalised weight, ...

    `names` are the parameters that it was computed from; `size` and `nonzero` count the elements of the operand as the
    operation read it (`nonzero` is None where the trace was not asked to count).
    """

    names: tuple[str, ...]
    size: int
    nonzero: int | None


@dataclass(frozen=True, slots=True)
class Product:
    """One matrix product or convolution: its multiply-adds, and those of its factors that are weights."""

    macs: int
    weights: tuple[Weight, ...] = ()

    @property
    def nonzero_macs(self) -> float:
        """The multiply-adds weighted by each weight's fraction of nonzero elements. ValueError if not counted."""
        if self.macs == 0:
            return 0.0
        nonzero = [w.nonzero for w in self.weights if w.nonzero is not None]
        if len(nonzero) < len(self.weights):
            raise ValueError(
                f"the nonzero elements of {', '.join(self.weights[0].names)} were not counted; "
                "trace with nonzero=NonzeroCounter(model)"
            )
        # One division of integers, not a product of rounded fractions: whole numbers stay whole.
        return self.macs * math.prod(nonzero) / math.prod(w.size for w in self.weights)


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of the dispatcher, as it ran.

    `func` is the operator overload (its schema names the arguments and says what is a view or in-place). `args` and
    `kwargs` are what it was called with, each tensor replaced by its `Value` and each list by a tuple; `outputs` are
    the tensors that it returned, in order. `module` is the path of the innermost module that was running, "" for the
    model itself. `products` is empty for operations that multiply no matrices, and for those not `counted`. `inputs`
    are the tensors among the arguments, in order.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[Value, ...]
    module: str = ""
    products: tuple[Product, ...] = ()
    counted: bool = True
    inputs: tuple[Value, ...] = ()

    @property
    def name(self) -> str:
        """The operator's name, such as "aten::mm" or "aten::sum.dim_IntList"."""
        return str(self.func.name())

    @property
    def macs(self) -> int:
        return sum(product.macs for product in self.products)


@dataclass(frozen=True)
class Trace:
    """One forward: its operations in the order they ran, and the values that entered and left it.

    `parameters` and `buffers` map first names to values; what is shared is found once. Tensors that modules hold as
    plain attributes count as buffers. MACs are the
    multiply-adds of matrix products and convolutions of this forward, batch included: additions of biases, element-wise
    operations, normalisation, pooling and look-ups count as none; products with padding, and with attention scores that
    a mask then discards, count.
    """

    ops: tuple[Op, ...]
    parameters: Mapping[str, Value] = field(default_factory=dict)
    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()
    buffers: Mapping[str, Value] = field(default_factory=dict)

    @property
    def macs(self) -> int:
        return sum(op.macs for op in self.ops)

    @property
    def read(self) -> frozenset[str]:
        """The parameters and buffers that an operation read."""
        names = {value.id: name for name, value in (*self.parameters.items(), *self.buffers.items())}
        return frozenset(names[value.id] for op in self.ops for value in op.inputs if value.id in names)

    @property
    def used(self) -> frozenset[int]:
        """The ids of the values that an operation reads, or that leave the network."""
        return frozenset(value.id for values in (*(op.inputs for op in self.ops), self.outputs) for value in values)

    @property
    def nonzero_macs(self) -> float:
        """MACs, each weighted by the fraction of nonzero elements in the weights it reads."""
        return math.fsum(product.nonzero_macs for op in self.ops for product in op.products)

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Names of the operations whose cost is unknown (custom kernels): `macs` counts them as none."""
        return tuple(dict.fromkeys(op.name for op in self.ops if not op.counted))


def tensors_returned(result: Any) -> Sequence[torch.Tensor]:
    """The tensors that an operation returned, in order. This runs for every operation."""
    if isinstance(result, torch.Tensor):
        return (result,)
    if type(result) is tuple and all(isinstance(item, torch.Tensor) for item in result):
        return result
    return tuple(all_of(torch.Tensor, result))


def all_of(kind: type[T], nested: Any) -> Iterator[T]:
    """Every `kind` in nested tuples, lists and dictionaries, in order."""
    if isinstance(nested, kind):
        yield nested
    elif isinstance(nested, tuple | list):
        for item in nested:
            yield from all_of(kind, item)
    elif type(nested) not in PLAIN and isinstance(nested, Mapping):  # asking for a Mapping takes long
        for item in nested.values():
            yield from all_of(kind, item)
