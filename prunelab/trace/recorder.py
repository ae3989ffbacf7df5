"""Watch one forward at the dispatcher, below autograd, where every operation is visible: the record of `trace`."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from prunelab.anatomy import PLAIN, Anatomy
from prunelab.targets import unwrap
from prunelab.trace.counts import NonzeroCounter
from prunelab.trace.forward import call_arguments, device_of, results_in, stored_in, undisturbed
from prunelab.trace.macs import find_products
from prunelab.trace.record import Op, Product, Trace, Value, Weight, all_of, tensors_returned

_DATA: frozenset[type] = PLAIN | {
    complex,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    torch.Generator,
}
_EMPTY = torch.ops.aten.empty.memory_format


def trace(
    model: nn.Module,
    example_inputs: Any,
    nonzero: NonzeroCounter | None = None,
    *,
    training: bool = False,
    unfused: bool = False,
) -> Trace:
    """Run `model` once on `example_inputs`, in evaluation mode, and record every operation (except for those that ask
    for memory of no elements).

    `example_inputs` is a tensor, a tuple of positional or a dict of keyword arguments; tensors are copied to the
    model's device. Nothing else is touched: training flags, gradients, buffers, random state, and the inputs
    themselves are as they were, also when the forward raises. A model that draws random numbers draws the same ones in
    every trace. A model on the meta device works: nothing is computed. Names are those of the model inside a
    `torch.compile` or data-parallel wrapper.

    With `training=True` the model runs in training mode instead. With `unfused=True` recurrent layers run step by step,
    not as one operation.

    With `nonzero=NonzeroCounter(model)` the nonzero elements of every weight operand are counted too: one more read of
    the weights.

    Raises TypeError for a model or inputs of another type, ValueError for a lazy module that has not run yet; an
    exception of the model itself passes through, with a note on where it happened.

    >>> record = trace(nn.Linear(4, 3), torch.zeros(2, 4))
    >>> record.macs
    24
    >>> [op.name for op in record.ops if op.macs]
    ['aten::addmm']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    return trace_of(Anatomy(unwrap(model)), example_inputs, nonzero, training=training, unfused=unfused)


def trace_of(
    anatomy: Anatomy,
    example_inputs: Any,
    nonzero: NonzeroCounter | None = None,
    *,
    training: bool = False,
    unfused: bool = False,
) -> Trace:
    """`trace`, of a model that was taken apart already."""
    model = anatomy.model
    # A model that draws takes the same path through its code each time.
    with undisturbed(anatomy, training=training, seed=0), stepwise(unfused):
        args, kwargs = call_arguments(example_inputs, device_of(model))
        names, parameters = anatomy.names, list(anatomy.parameters.values())
        recorder = Recorder(((p, names[id(p)]) for p in parameters), nonzero)
        held = {**anatomy.buffers, **anatomy.others}
        buffers = {name: recorder.value(tensor) for name, tensor in held.items()}
        inputs = recorder.register((args, kwargs))
        with recorder.following(anatomy), recorder:
            try:
                result = model(*args, **kwargs)
            except Exception as error:
                error.add_note(_where(model, recorder.path_of(error), args, kwargs))
                raise
        outputs = tuple(map(recorder.value, results_in(result)))
        return Trace(
            tuple(recorder.ops), {names[id(p)]: recorder.value(p) for p in parameters}, inputs, outputs, buffers
        )


@contextmanager
def stepwise(wanted: bool) -> Iterator[None]:
    """Where `wanted`, without the libraries that run a whole recurrent layer at once."""
    if not wanted:
        yield
        return
    fused = bool(torch.backends.mkldnn.enabled)
    torch._C._set_mkldnn_enabled(False)  # flags() would warn, on exit, of settings that it does not change
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch._C._set_mkldnn_enabled(fused)


# An operation: the operator, its arguments as data, what it returned, the module, and the tensors it was given.
_Ran: TypeAlias = tuple[Any, tuple[Any, ...], dict[str, Any], tuple[Value, ...], str, tuple[Value, ...]]


class Recorder(TorchDispatchMode):
    """Records every operation that runs while it is active. Holds no tensor: only weak references."""

    supports_higher_order_operators = True

    def __init__(self, parameters: Iterable[tuple[Tensor, str]], nonzero: NonzeroCounter | None = None) -> None:
        super().__init__()
        self._ran: list[_Ran] = []
        self._ops: list[Op] = []
        self._path = [""]
        self._raised: tuple[BaseException, str] | None = None
        self._seen: dict[int, tuple[weakref.ref[Tensor], Value]] = {}
        self._values = 0
        # What each value was computed from: names of parameters (none: constants alone), or None = from the inputs.
        self._sources: dict[int, frozenset[str] | None] = {}
        self._nonzero = nonzero
        for parameter, name in parameters:
            self._sources[self.value(parameter).id] = frozenset([name])

    def register(self, inputs: Any) -> tuple[Value, ...]:
        """Mark every tensor among `inputs` as data; returns their values."""
        values = tuple(self.value(tensor) for tensor in all_of(Tensor, inputs))
        self._sources.update(dict.fromkeys((value.id for value in values), None))
        return values

    def value(self, tensor: Tensor) -> Value:
        """The tensor's value; a tensor never seen before gets the next id."""
        known = self._seen.get(id(tensor))
        # A freed tensor's address is soon another's: the weak reference tells them apart.
        if known is not None and known[0]() is tensor:
            value = known[1]
            if value.shape == tensor.shape:
                return value
            value = Value(value.id, tuple(tensor.shape), tensor.dtype)  # changed in place, by squeeze_ for one
        else:
            stored = None if tensor.layout is torch.strided else stored_in(tensor)
            value = Value(self._values, tuple(tensor.shape), tensor.dtype, stored)
            self._values += 1
        self._seen[id(tensor)] = (weakref.ref(tensor), value)
        return value

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is _EMPTY and 0 in args[0]:  # every normalisation asks for one: no element, so nothing to record
            return func(*args, **kwargs)
        if torch.is_inference_mode_enabled():
            # Inside someone's inference mode composite operations (linear, attention) arrive whole: take them apart, so
            # that the record does not depend on it.
            with self:
                parts = func.decompose(*args, **kwargs) if hasattr(func, "decompose") else NotImplemented
            if parts is not NotImplemented:
                return parts
        return self.record(func, args, kwargs)

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation and write it down; what it returned."""
        read: list[Value] = []
        described = (
            tuple([item if type(item) in PLAIN else self._describe(item, read) for item in args]),
            {key: self._describe(item, read) for key, item in kwargs.items()} if kwargs else {},
        )
        result = func(*args, **kwargs)
        # Nearly always one tensor, and this runs for every operation.
        outputs = tuple([self.value(tensor) for tensor in tensors_returned(result)])
        self._ran.append((func, *described, outputs, self._path[-1], tuple(read)))
        if self._nonzero is not None:  # counted while the operands are there
            self._cost({self.value(tensor).id: tensor for tensor in all_of(Tensor, (args, kwargs))})
        return result

    @property
    def ops(self) -> list[Op]:
        """What ran so far."""
        while len(self._ops) < len(self._ran):
            self._cost()
        return self._ops

    def _cost(self, operands: Mapping[int, Tensor] | None = None) -> None:
        """Write down the next operation with what it cost: not while the network runs, whose tensors push all of this
        out of the processor's caches."""
        func, args, kwargs, outputs, path, read = self._ran[len(self._ops)]
        products = find_products(func.name(), outputs[0] if len(outputs) == 1 else outputs, args)
        costs = (
            tuple([Product(macs, self._weights(factors, operands)) for macs, factors in products]) if products else ()
        )
        self._ops.append(Op(func, args, kwargs, outputs, path, costs, products is not None, read))
        source = self._source_of(read)
        for value in outputs:
            self._sources[value.id] = source

    def _describe(self, item: Any, values: list[Value]) -> Any:
        """`item` as data: tensors as values, which are added to `values`, lists as tuples, unknown objects as the name
        of their type."""
        if type(item) in _DATA:  # most arguments are; this runs for every operation
            return item
        if isinstance(item, Tensor):
            values.append(self.value(item))
            return values[-1]
        if isinstance(item, tuple | list):
            if PLAIN.issuperset(map(type, item)):
                return tuple(item)
            return tuple([self._describe(i, values) for i in item])
        if isinstance(item, dict):
            return {key: self._describe(i, values) for key, i in item.items()}
        return item if isinstance(item, tuple(_DATA)) else f"<{type(item).__name__}>"

    def _weights(self, factors: Iterable[Value], operands: Mapping[int, Tensor] | None) -> tuple[Weight, ...]:
        """Those of `factors` that are computed from parameters and from no input."""
        weights = []
        for value in factors:
            if names := self._sources.get(value.id):
                nonzero = None
                if self._nonzero is not None and operands is not None:
                    nonzero = self._nonzero.count(operands[value.id])
                size = value.numel() if value.stored is None else value.stored
                weights.append(Weight(tuple(sorted(names)), size, nonzero))
        return tuple(weights)

    def _source_of(self, values: Iterable[Value]) -> frozenset[str] | None:
        """What a result of `values` is computed from."""
        names: frozenset[str] = frozenset()
        for value in values:
            source = self._sources.get(value.id, names)
            if source is None:
                return None
            if source is not names:
                names |= source
        return names

    @contextmanager
    def following(self, anatomy: Anatomy) -> Iterator[None]:
        """Know, inside, which of the model's modules is running."""
        paths = {id(module): path for path, module in anatomy.modules.items()}
        here = threading.get_ident()

        def enter(module: nn.Module, *_: Any) -> None:
            if id(module) in paths and threading.get_ident() == here:
                self._path.append(paths[id(module)])

        def leave(module: nn.Module, *_: Any) -> None:
            if id(module) in paths and threading.get_ident() == here:
                path, error = self._path.pop(), sys.exception()
                if error is not None and (self._raised is None or self._raised[0] is not error):
                    self._raised = (error, path)  # the innermost module leaves first

        # Two hooks for all modules there are: two for each of a thousand would take as long as a small forward.
        entering = register_module_forward_pre_hook(enter)
        leaving = register_module_forward_hook(leave, always_call=True)
        try:
            yield
        finally:
            entering.remove()
            leaving.remove()

    def path_of(self, error: BaseException) -> str:
        """The innermost module that `error` came from, "" for the model itself."""
        return self._raised[1] if self._raised is not None and self._raised[0] is error else ""


def _where(model: nn.Module, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    def show(item: Any) -> str:
        return f"{item.dtype} {tuple(item.shape)}" if isinstance(item, Tensor) else type(item).__name__

    shown = [*map(show, args), *(f"{key}={show(item)}" for key, item in kwargs.items())]
    place = f"the module {path!r} of {type(model).__name__}" if path else type(model).__name__
    return (
        f"raised in {place}, which was traced on example_inputs as "
        f"forward({', '.join(shown)}); a tuple holds positional arguments, a dict keyword arguments"
    )
