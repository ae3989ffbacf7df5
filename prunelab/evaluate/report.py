"""How large a network is, and how much of it is left: counts, and their ratios to the dense network."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from prunelab.evaluate.table import to_html, to_text
from prunelab.memory import memory_of
from prunelab.targets import unwrap
from prunelab.trace import NonzeroCounter, Op, trace
from prunelab.trace.recorder import parameter_names


@dataclass(frozen=True)
class Layer:
    """One module's share: the parameters that it owns itself, and the multiply-adds of the products done with them.

    Products of no parameter (attention scores) belong to the module they ran in. `nonzero_macs` is `macs` weighted by
    the fraction of nonzero elements in the weights.
    """

    name: str
    kind: str
    params: int
    nonzero: int
    macs: int
    nonzero_macs: float

    @property
    def sparsity(self) -> float:
        """Fraction of the parameters that are zero; 0 where there are none."""
        return 1 - self.nonzero / self.params if self.params else 0.0


@dataclass(frozen=True, repr=False)
class Report:
    """The size of a network, and its ratio to the dense network's; made by `report`.

    - `params`: all parameters that the network holds, frozen ones and biases too, shared ones once.
    - `nonzero`: those that are not zero (NaN is not zero).
    - `macs`: multiply-adds of one forward on the example inputs, batch included, as the network runs it.
    - `nonzero_macs`: the same, each product weighted by the fraction of nonzero elements in its weights.
    - `bytes`: parameters and persistent buffers as a checkpoint stores them: elements × bytes per element, zeros
      included, shared ones once, without the file's own headers.
    - `dense_params`, `dense_macs`: parameters and multiply-adds of the dense network.
    - `layers`: the same counts for each module that has parameters or multiplies, in the model's order.
    - `uncounted`: operations that ran and whose cost is not known (custom kernels); `macs` leaves them out.
    """

    model: str
    params: int
    nonzero: int
    macs: int
    nonzero_macs: float
    bytes: int
    dense_params: int
    dense_macs: int
    layers: tuple[Layer, ...]
    uncounted: tuple[str, ...] = ()

    @property
    def compression_ratio(self) -> float:
        """Parameters of the dense network / nonzero parameters: original / new, more is smaller (Blalock et al. 2020).

        `math.inf` if every parameter is zero; 1.0 if there never was one.
        """
        return _ratio(self.dense_params, self.nonzero)

    @property
    def theoretical_speedup(self) -> float:
        """MACs of the dense network / nonzero MACs (Blalock et al. 2020): what a machine would gain that skips every
        zero weight at no cost. `math.inf` if nothing is left to multiply; 1.0 if there never was.
        """
        return _ratio(self.dense_macs, self.nonzero_macs)

    @property
    def sparsity(self) -> float:
        """Fraction of the parameters held that are zero; 0 where there are none."""
        return 1 - self.nonzero / self.params if self.params else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Everything as numbers, strings, lists and dictionaries; a ratio without bound is `math.inf`."""
        ratios = {
            "sparsity": self.sparsity,
            "compression_ratio": self.compression_ratio,
            "theoretical_speedup": self.theoretical_speedup,
        }
        layers = [asdict(layer) | {"sparsity": layer.sparsity} for layer in self.layers]
        return asdict(self) | ratios | {"layers": layers, "uncounted": list(self.uncounted)}

    def __repr__(self) -> str:
        # What terminals and logs show; `str` is the same.
        return to_text(self)

    def _repr_html_(self) -> str:
        return to_html(self)


def report(model: nn.Module, example_inputs: Any, dense: nn.Module | None = None) -> Report:
    """Count `model`, and compare it with the `dense` network that it was pruned from.

    `example_inputs` is a tensor, a tuple of positional or a dict of keyword arguments: MACs are those of one forward on
    them, batch included (see `prunelab.trace.Trace` for what counts). `dense=None` stands for the model itself with
    nothing zero; give the original network when channels were really removed. It may live on the meta device. Neither
    model is changed.

    Zeros count where they are: with `torch.nn.utils.prune` the parameter keeps its values and a buffer holds the mask,
    so `nonzero` stays and `theoretical_speedup` grows, until `prune.remove`.

    Raises TypeError for other models or inputs, ValueError where the parameters hold no values (meta device, lazy).

    >>> import torch
    >>> model = nn.Linear(3, 2)
    >>> _ = nn.init.ones_(model.weight), nn.init.ones_(model.bias)
    >>> model.weight.data[0] = 0
    >>> r = report(model, torch.zeros(1, 3))
    >>> r.params, r.nonzero, r.compression_ratio, r.macs, r.theoretical_speedup, r.bytes
    (8, 5, 1.6, 6, 2.0, 32)
    """
    for role, network in (("model", model), ("dense", dense)):
        if not isinstance(network, nn.Module) and (network is not None or role == "model"):
            raise TypeError(f"{role} must be a torch.nn.Module, not {type(network).__name__}")
    counter = NonzeroCounter(model)
    record = trace(model, example_inputs, nonzero=counter)
    layers = _layers(unwrap(model), record.ops, counter)
    params = sum(layer.params for layer in layers)
    return Report(
        model=type(unwrap(model)).__name__,
        params=params,
        nonzero=sum(layer.nonzero for layer in layers),
        macs=record.macs,
        nonzero_macs=record.nonzero_macs,
        bytes=_stored_bytes(unwrap(model)),
        dense_params=params if dense is None else sum(p.numel() for p in _distinct(dense.parameters())),
        dense_macs=record.macs if dense is None else trace(dense, example_inputs).macs,
        layers=layers,
        uncounted=record.uncounted,
    )


def _layers(model: nn.Module, ops: Iterable[Op], counter: NonzeroCounter) -> tuple[Layer, ...]:
    """One row for each module with parameters or products; the rows add up to the whole."""
    names = parameter_names(model)
    params: Counter[str] = Counter()
    nonzero: Counter[str] = Counter()
    holders: defaultdict[str, list[str]] = defaultdict(list)  # parameter → the modules that hold it, the first owns it
    for path, module in model.named_modules():
        for parameter in _distinct(module.parameters(recurse=False)):
            holders[names[id(parameter)]].append(path)
            if holders[names[id(parameter)]] == [path]:
                params[path] += parameter.numel()
                nonzero[path] += counter.count(parameter)
    macs: Counter[str] = Counter()
    parts: defaultdict[str, list[float]] = defaultdict(list)
    for op in ops:
        for product in op.products:
            of_weights = [path for weight in product.weights for name in weight.names for path in holders[name]]
            place = op.module if op.module in of_weights or not of_weights else of_weights[0]
            macs[place] += product.macs
            parts[place].append(product.nonzero_macs)
    return tuple(
        Layer(path, type(module).__name__, params[path], nonzero[path], macs[path], math.fsum(parts[path]))
        for path, module in model.named_modules()
        if params[path] or macs[path]
    )


def _distinct(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Each piece of memory once, in order."""
    return list({memory_of(tensor): tensor for tensor in tensors}.values())


def _stored_bytes(model: nn.Module) -> int:
    persistent = [
        buffer
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and name not in module._non_persistent_buffers_set
    ]
    return sum(tensor.numel() * tensor.element_size() for tensor in _distinct((*model.parameters(), *persistent)))


def _ratio(dense: float, left: float) -> float:
    """dense / left, where nothing left of something is infinitely less, and nothing left of nothing is the same."""
    if left == 0:
        return math.inf if dense else 1.0
    return dense / left
