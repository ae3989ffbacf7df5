"""Follow what channels without weights emit through a trace: one number a channel, by the operations themselves.

Nothing runs on data: for each label of a tensor it is known which constant each position holds, where it holds one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prunelab.surgery.constants import Constants, Numbers, Read, bias_name
from prunelab.surgery.coupling import Coupling
from prunelab.surgery.follow import Followed
from prunelab.surgery.held import Held, with_numbers
from prunelab.surgery.labels import Label, varying
from prunelab.surgery.operations import arguments, operator, shares, writes
from prunelab.trace import Op, Value

_POOLS = ("max_pool", "adaptive_avg_pool", "adaptive_max_pool", "avg_pool", "upsample", "mkldnn_adaptive")
_MOVES = frozenset([
    "view", "_unsafe_view", "reshape", "permute", "transpose", "t", "expand", "slice", "select", "split",
    "split_with_sizes", "unsafe_split", "unbind", "cat", "stack", "squeeze", "unsqueeze", "flip", "roll",
    "pixel_unshuffle", "native_channel_shuffle", "channel_shuffle", "repeat", "unsafe_split_with_sizes",
    "_reshape_alias", "index_select",
])  # fmt: skip


def find_constants(
    coupling: Coupling, gone: NDArray[np.bool_], dead: NDArray[np.bool_], unread: NDArray[np.bool_]
) -> Constants:
    """Follow the constants of the units (units,) that are to be `gone`.

    `dead` (channels,) are made by weights that are, or will be, all zero; `unread` (channels,) are read by
    such weights.
    """
    return _Following(coupling, gone, dead, unread).follow()


class _Following(Held):
    """Each operation of the trace in turn: from what its arguments hold to what it returns."""

    def follow(self) -> Constants:
        for followed in self.coupling.followed[:1]:
            self.numbers, self.names = {}, dict(followed.names)
            self.turned: dict[int, str] = {}  # transposes of weights
            self.views: dict[int, set[int]] = {}  # a view → the tensors that share its memory
            self.labels = {i: self.coupling.tensors[name] for i, name in followed.names.items()}
            for number, op in enumerate(followed.trace.ops):
                if number not in followed.idle:
                    self._step(followed, number, op)
                for value, labels in zip(op.outputs, followed.returned[number], strict=True):
                    self.labels[value.id] = labels
        return self.found

    def _step(self, followed: Followed, number: int, op: Op) -> None:
        name = operator(op)
        returned = followed.returned[number]
        if op.products:
            self._product(op, returned)
        elif "batch_norm" in name and "functional" not in name:
            self._batch_norm(op, returned[0])
        elif name in _MOVES:
            self._move(op, returned)
        elif name == "constant_pad_nd" or name == "embedding":
            self.give_up(op, returned)
        elif any(pool in name for pool in _POOLS):
            self._pool(op, name, returned[0])
        elif name in {"mean", "amax", "amin"}:
            self._average(op, returned[0])
        elif self._writes_into_a_part(op):
            self._overwritten(op)
        elif torch.Tag.pointwise in getattr(op.func, "tags", ()) or name in {"clone", "detach", "alias", "_to_copy"}:
            self._elementwise(op, returned[0])
        else:
            self.give_up(op, returned)

    # --- operations ----------------------------------------------------------------------------------------------

    def _product(self, op: Op, returned: Sequence[Sequence[Label]]) -> None:
        """A layer: it reads constants, and where its own weights are zero it emits its bias."""
        name = op.name.partition(".")[0].removeprefix("aten::")
        named = arguments(op)
        if name in {"convolution", "_convolution"}:
            x, weight, bias, dim = named["input"], named["weight"], named.get("bias"), 1
        elif name in {"mm", "addmm"}:
            x, weight = op.args[-2], op.args[-1]
            bias, dim = (op.args[0] if name == "addmm" else None), 1
        elif name == "linear":
            x, weight, bias = named["input"], named["weight"], named.get("bias")
            dim = len(x.shape) - 1
        else:
            self._attend(op, name, returned)
            return
        out, axis = op.outputs[0], 1 if name != "linear" else len(op.outputs[0].shape) - 1
        depthwise = "convolution" in name and named["groups"] > 1 and weight.shape[1] == 1 and not named["transposed"]
        if not depthwise:
            self._read(op, x, weight, bias, dim)
        found = []
        for label in self.interesting(returned[0]):
            emitted = self._emitted(label, bias, axis)
            if depthwise and varying(label) == (1,):
                emitted = np.where(np.isnan(emitted), self._passed_on(op, x, weight, bias, label), emitted)
            found.append((label, emitted))
        self.set(out, found)

    def _passed_on(self, op: Op, x: Value, weight: Value, bias: Value | None, label: Label) -> Numbers:
        """What a depthwise convolution makes of a constant: zero, or without padding its multiple, and the bias."""
        source = next((f for f in self.labels.get(x.id, []) if varying(f) == (1,)), None)
        name = self.names.get(weight.id)
        if source is None or name is None:
            return np.full(label.shape, np.nan)
        times = self.tensors[name].detach().double().flatten(1).sum(1).cpu().numpy()  # (O,)
        held = np.repeat(self.of(x, source).ravel(), label.size // source.size)
        if any(arguments(op)["padding"]):
            held = np.where(held == 0, 0.0, np.nan)
        return (held * times).reshape(label.shape) + self._shifts(label, bias).reshape(label.shape)

    def _emitted(self, label: Label, bias: Value | None, axis: int) -> Numbers:
        """The bias, where the weights are zero."""
        if varying(label) != (axis,):
            return np.full(label.shape, np.nan)
        return np.where(self.dead[label], self._shifts(label, bias).reshape(label.shape), np.nan)

    def _shifts(self, label: Label, bias: Value | None) -> Numbers:
        shifts = np.zeros(label.size)
        if bias is not None:
            name = self.names.get(bias.id)
            known = name is not None and self.tensors[name].numel() == label.size
            shifts = self.flat(name) if known and name else np.full(label.size, np.nan)
        return shifts

    def _writes_into_a_part(self, op: Op) -> bool:
        return writes(op) and bool(op.outputs) and op.outputs[0].id in self.views

    def _overwritten(self, op: Op) -> None:
        """What lies in memory under a view changes in a way that is not followed."""
        for identity in self.views[op.outputs[0].id]:
            self.numbers.pop(identity, None)
        self.numbers.pop(op.outputs[0].id, None)

    def _attend(self, op: Op, name: str, returned: Sequence[Sequence[Label]]) -> None:
        """A product of activations: zero times anything is zero, and attention's weights add up to one."""
        attends = "attention" in name
        labels, numbers = list[Label](), list[Numbers]()
        for value in [op.args[2]] if attends else op.inputs:
            for label in self.interesting(self.labels.get(value.id, [])):
                values = self.of(value, label)
                labels.append(label if attends else label[values == 0])
                numbers.append(values if attends else values[values == 0])
        for value in op.inputs if not attends else ():
            for label in self.interesting(self.labels.get(value.id, [])):
                if not any(np.isin(label, out).any() for labels in returned for out in labels):
                    self.spoil(value, [label])  # summed over
        self.give_up(op, returned)
        self._set_moved(labels, numbers, op.outputs[:1], returned[:1])
        if name == "bmm":
            self._zero_matrices(op, returned[0])

    def _zero_matrices(self, op: Op, returned: Sequence[Label]) -> None:
        """Where a whole matrix of a batch is zero (the values of a head), its product is, whatever the other one is."""
        zero = np.zeros(op.outputs[0].shape[0], bool)
        for value in op.inputs:
            for label in self.interesting(self.labels.get(value.id, [])):
                if label.shape[0] == zero.size:
                    zero |= (self.of(value, label) == 0).all(axis=(1, 2))
        if not zero.any():
            return
        out = op.outputs[0]
        known = [(label, self.of(out, label)) for label in self.interesting(returned)]
        self.set(
            out,
            [
                (label, np.where(zero[:, None, None], 0.0, held) if label.shape[0] == zero.size else held)
                for label, held in known
            ],
        )

    def _read(self, op: Op, x: Value, weight: Value, bias: Value | None, dim: int) -> None:
        for label in self.interesting(self.labels.get(x.id, [])):
            if label.shape[dim] == 1:
                continue  # not summed over
            values = self.of(x, label)
            if label.size == label.shape[dim]:
                ids, numbers = label.ravel(), values.ravel()
            else:
                first = np.moveaxis(values, dim, -1).reshape(-1, label.shape[dim])
                ids = np.moveaxis(label, dim, -1).reshape(-1, label.shape[dim])[0]
                numbers = np.where((first == first[:1]).all(0), first[0], np.nan)
            name = self._reader(op, weight, bias, x.shape[dim])
            finite = np.isfinite(numbers)
            exact = (numbers == 0) | (finite & (name != ""))
            if self.some_unread:
                exact |= self._ignored(weight, ids.size)
            self.found.reads.append(Read(name, self.units[ids], np.where(finite, numbers, 0.0), exact))

    def _ignored(self, weight: Value, inputs: int) -> NDArray[np.bool_]:
        """(inputs,): which of them only zeros read."""
        for label in self.labels.get(weight.id, []):
            channels = np.unique(label)
            if channels.size == inputs and self.coupling.read[channels].all():
                return self.unread[channels]  # numbered in the order of the inputs
        return np.zeros(inputs, bool)

    def _reader(self, op: Op, weight: Value, bias: Value | None, inputs: int) -> str:
        """The parameter whose layer can take up constants in its bias; "" where that would not be exact."""
        name = self.names.get(weight.id) or self.turned.get(weight.id, "")
        module = self.modules.get(name.rpartition(".")[0]) if name.rpartition(".")[2] == "weight" else None
        if module is None or "bias" not in module._parameters:
            return ""
        held = module._parameters["bias"]
        if (bias is None) != (held is None) or (bias is not None and self.names.get(bias.id) != bias_name(name)):
            return ""
        if op.name.startswith(("aten::mm", "aten::addmm")) and isinstance(module, nn.Linear) != (
            weight.id in self.turned
        ):
            return ""
        if "convolution" in op.name:
            named = arguments(op)
            if named["transposed"] or any(named["padding"]) or inputs != self.tensors[name].shape[1] * named["groups"]:
                return ""
        return name

    def _batch_norm(self, op: Op, labels: Sequence[Label]) -> None:
        named, found = arguments(op), []
        x, dims = named["input"], len(op.outputs[0].shape)
        mean, var = named.get("running_mean"), named.get("running_var")
        for label in self.interesting(labels):
            if mean is None or var is None or label.shape[1] == 1:
                continue
            column = tuple([-1 if dim == 1 else 1 for dim in range(dims)])
            mu, spread = self._vector(mean, column, 0.0), self._vector(var, column, 1.0)
            scale = self._vector(named.get("weight"), column, 1.0)
            shift = self._vector(named.get("bias"), column, 0.0)
            values = np.where(scale == 0, mu, self.of(x, label))  # a zero scale hides x
            found.append((label, (values - mu) / np.sqrt(spread + named["eps"]) * scale + shift))
        self.set(op.outputs[0], found)

    def _vector(self, value: Value | None, shape: tuple[int, ...], default: float) -> Numbers:
        """One number a channel, along the dimension that `shape` leaves open."""
        name = None if value is None else self.names.get(value.id)
        if name is None:
            return np.array(default if value is None else np.nan)
        return self.flat(name).reshape(shape)

    def _move(self, op: Op, returned: Sequence[Sequence[Label]]) -> None:
        """Channels keep their constants wherever they are moved to."""
        if shares(op) or writes(op):
            for value in op.outputs:
                source = op.inputs[0].id
                self.views[value.id] = {source, *self.views.get(source, ())}
        labels, numbers = list[Label](), list[Numbers]()
        for value in op.inputs:
            if value.id in self.names and len(value.shape) == 2 and op.name in {"aten::t", "aten::transpose.int"}:
                self.turned[op.outputs[0].id] = self.names[value.id]
            for label in self.interesting(self.labels.get(value.id, [])):
                labels.append(label)
                numbers.append(self.of(value, label))
        self._set_moved(labels, numbers, op.outputs, returned)

    def _set_moved(
        self,
        labels: Sequence[Label],
        numbers: Sequence[Numbers],
        values: Sequence[Value],
        returned: Sequence[Sequence[Label]],
    ) -> None:
        wanted = [self.interesting(each) for each in returned]
        found = iter(self.moved(labels, numbers, chain.from_iterable(wanted)))
        for value, each in zip(values, wanted, strict=True):
            self.set(value, [(label, next(found)) for label in each])

    def _pool(self, op: Op, name: str, labels: Sequence[Label]) -> None:
        """A constant stays what it is, save where zeros around the image are averaged in."""
        x = op.inputs[0]
        named = arguments(op)
        padded = name.startswith("avg_pool") and (
            any(np.ravel(named.get("padding") or 0)) or named.get("divisor_override") is not None
        )
        found = []
        for label in self.interesting(labels):
            values = self.of(x, label)
            found.append((label, np.where(values == 0, 0.0, np.nan) if padded else values))
        self.set(op.outputs[0], found)

    def _average(self, op: Op, labels: Sequence[Label]) -> None:
        x, out = op.inputs[0], op.outputs[0]
        dims = arguments(op).get("dim") or range(len(x.shape))
        dims = {d % max(len(x.shape), 1) for d in dims}
        keep = len(out.shape) == len(x.shape)
        found = []
        for source in self.interesting(self.labels.get(x.id, [])):
            if dims & set(varying(source)):
                self.spoil(x, [source])
                continue
            values = self.of(x, source)
            left = values if keep else values.reshape([n for d, n in enumerate(values.shape) if d not in dims])
            found += [(label, left) for label in self.interesting(labels) if label.shape == left.shape]
        self.set(out, found)

    def _elementwise(self, op: Op, labels: Sequence[Label]) -> None:
        found = [(label, self._apply(op, label)) for label in self.interesting(labels)]
        self.set(op.outputs[0], found)

    def _apply(self, op: Op, label: Label) -> Numbers:
        """The operation itself, on one number a channel."""
        operands = {value.id: self.of(value, label) for value in op.inputs}
        args, kwargs = with_numbers(op.args, operands), with_numbers(dict(op.kwargs), operands)
        kwargs.pop("dtype", None)
        try:
            with torch.no_grad():
                result = op.func(*args, **kwargs)
        except Exception:
            return np.full(label.shape, np.nan)
        result = result[0] if isinstance(result, tuple) else result
        values = result.to(torch.float64).numpy()  # of copies: nothing else is changed below
        unknown = reduce(np.logical_or, [np.isnan(operand) for operand in operands.values()])
        name = operator(op)
        values[unknown if unknown.shape == values.shape else np.broadcast_to(unknown, values.shape)] = np.nan
        if name == "mul":
            zero = np.any([operand == 0 for operand in operands.values()], axis=0)
            values[np.broadcast_to(zero, values.shape)] = 0.0
        return values if values.shape == label.shape else np.full(label.shape, np.nan)
