"""How large a network is, and how much of it is left: counts, and their ratios to the dense network."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from prunelab.anatomy import Anatomy
from prunelab.evaluate.latency import Latency, compare_with_dense
from prunelab.evaluate.report_text import to_html, to_text
from prunelab.evaluate.sizes import Size, stored_sizes
from prunelab.extras import extra
from prunelab.memory import memory_of
from prunelab.targets import unwrap
from prunelab.trace import NonzeroCounter, Op, trace

if TYPE_CHECKING:
    from prunelab.chart import Chart


@dataclass(frozen=True)
class Layer:
    """One module's share: the parameters that it owns itself, and the multiply-adds of the products done with them.

    Products of no parameter (attention scores) belong to the module they ran in. `nonzero_macs` is `macs` weighted by
    the fraction of nonzero elements in the weights. `bytes`, `sparse_bytes` and `encoding` are of the parameters and
    persistent buffers that it owns, the encodings of the largest first, each named once: "bitmap + dense".
    """

    name: str
    kind: str
    params: int
    nonzero: int
    macs: int
    nonzero_macs: float
    bytes: int
    sparse_bytes: int
    encoding: str

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
    - `sparse_bytes`: the same with zeros left out: each tensor dense, as a bitmap, CSR or N:M, whichever is smallest
      (`prunelab.evaluate.encode`), really encoded and read back. `prunelab.evaluate.save_sparse` writes such a file.
    - `dense_params`, `dense_macs`, `dense_bytes`: parameters, multiply-adds and bytes of the dense network.
    - `layers`: the same counts for each module that has parameters or multiplies, in the model's order. Buffers of
      other modules are in the total alone.
    - `uncounted`: operations that ran and whose cost is not known (custom kernels); `macs` leaves them out.
    """

    model: str
    params: int
    nonzero: int
    macs: int
    nonzero_macs: float
    bytes: int
    sparse_bytes: int
    dense_params: int
    dense_macs: int
    dense_bytes: int
    layers: tuple[Layer, ...]
    uncounted: tuple[str, ...] = ()
    _measure: Callable[[], Latency] | None = field(default=None, compare=False)

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
    def bytes_ratio(self) -> float:
        """Bytes of the dense network / bytes with zeros left out: what of the compression ratio arrives in a file."""
        return _ratio(self.dense_bytes, self.sparse_bytes)

    @property
    def sparsity(self) -> float:
        """Fraction of the parameters held that are zero; 0 where there are none."""
        return 1 - self.nonzero / self.params if self.params else 0.0

    @cached_property
    def latency(self) -> Latency:
        """The time of one forward beside the dense network's: `latency.speedup` is what of the theoretical one arrives.

        Measured when it is first asked for, which takes a second or two, on the networks as they are then; from then on
        it is kept, and shown. Without a `dense` network it is compared with a copy of the model that has no zeros, or
        with none where the model cannot be copied. ValueError in a copy of a report, which holds no network.
        """
        if self._measure is None:
            raise ValueError("this report is a copy without the network; measure before copying, with measure=True")
        return self._measure()

    @property
    def measured(self) -> bool:
        """Is `latency` known already?"""
        return "latency" in vars(self)

    def plot(self) -> Chart:
        """Theory beside practice: what the network should gain in size and speed, and what it does gain here.

        Measures the latency where nobody has yet. Needs the extra `lab`.
        """
        with extra("a plot"):
            from prunelab.evaluate.report_chart import draw
        return draw(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything as numbers, strings, lists and dictionaries; a ratio without bound is `math.inf`.

        "latency" is None unless it was measured.
        """
        counts = {f.name: getattr(self, f.name) for f in fields(self) if not f.name.startswith("_")}
        ratios = {
            "sparsity": self.sparsity,
            "compression_ratio": self.compression_ratio,
            "theoretical_speedup": self.theoretical_speedup,
            "bytes_ratio": self.bytes_ratio,
        }
        layers = [asdict(layer) | {"sparsity": layer.sparsity} for layer in self.layers]
        latency = self.latency.to_dict() if self.measured else None
        return counts | ratios | {"layers": layers, "uncounted": list(self.uncounted), "latency": latency}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_measure": None}  # copies and files hold numbers, no networks

    def __repr__(self) -> str:
        # What terminals and logs show; `str` is the same.
        return to_text(self)

    def _repr_html_(self) -> str:
        return to_html(self)


def report(model: nn.Module, example_inputs: Any, dense: nn.Module | None = None, *, measure: bool = False) -> Report:
    """Count `model`, and compare it with the `dense` network that it was pruned from.

    `example_inputs` is a tensor, a tuple of positional or a dict of keyword arguments: MACs are those of one forward on
    them, batch included (see `prunelab.trace.Trace` for what counts). `dense=None` stands for the model itself with
    nothing zero; give the original network when channels were really removed. It may live on the meta device. Neither
    model is changed.

    With `measure=True` the latency is measured too, by `prunelab.evaluate.latency`; else when `latency` is asked for.

    Zeros count where they are: with `torch.nn.utils.prune` the parameter keeps its values and a buffer holds the mask,
    so `nonzero` stays and `theoretical_speedup` grows, until `prune.remove`.

    Raises TypeError for other models or inputs, ValueError where the parameters hold no values (meta device, lazy).

    >>> import torch
    >>> model = nn.Linear(3, 2)
    >>> _ = nn.init.ones_(model.weight), nn.init.ones_(model.bias)
    >>> model.weight.data[0] = 0
    >>> r = report(model, torch.zeros(1, 3))
    >>> r.params, r.nonzero, r.compression_ratio, r.macs, r.theoretical_speedup, r.bytes, r.sparse_bytes
    (8, 5, 1.6, 6, 2.0, 32, 21)
    """
    for role, network in (("model", model), ("dense", dense)):
        if not isinstance(network, nn.Module) and (network is not None or role == "model"):
            raise TypeError(f"{role} must be a torch.nn.Module, not {type(network).__name__}")
    counter = NonzeroCounter(model)
    record = trace(model, example_inputs, nonzero=counter)
    sizes = stored_sizes(unwrap(model), counter)
    layers = _layers(unwrap(model), record.ops, counter, sizes)
    params, stored = sum(layer.params for layer in layers), _bytes(sizes)
    made = Report(
        model=type(unwrap(model)).__name__,
        params=params,
        nonzero=sum(layer.nonzero for layer in layers),
        macs=record.macs,
        nonzero_macs=record.nonzero_macs,
        bytes=stored,
        sparse_bytes=sum(size.sparse for own in sizes.values() for size in own),
        dense_params=params if dense is None else sum(p.numel() for p in _distinct(dense.parameters())),
        dense_macs=record.macs if dense is None else trace(dense, example_inputs).macs,
        dense_bytes=stored if dense is None else _bytes(stored_sizes(unwrap(dense), None)),
        layers=layers,
        uncounted=record.uncounted,
        _measure=lambda: compare_with_dense(model, example_inputs, dense),
    )
    if measure:
        _ = made.latency  # kept from now on
    return made


def _layers(
    model: nn.Module, ops: Iterable[Op], counter: NonzeroCounter, sizes: Mapping[str, list[Size]]
) -> tuple[Layer, ...]:
    """One row for each module with parameters or products; the rows add up to the whole."""
    names = Anatomy(model).names
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
    counts = {path: (params[path], nonzero[path], macs[path], math.fsum(parts[path])) for path in (*params, *macs)}
    return tuple(
        Layer(path, type(module).__name__, *counts[path], *_stored(sizes.get(path, [])))
        for path, module in model.named_modules()
        if params[path] or macs[path]
    )


def _stored(sizes: Iterable[Size]) -> tuple[int, int, str]:
    """(bytes, sparse_bytes, encoding) of a module."""
    sizes = list(sizes)
    encodings = dict.fromkeys(size.encoding for size in sizes)
    return sum(size.dense for size in sizes), sum(size.sparse for size in sizes), " + ".join(encodings)


def _bytes(sizes: Mapping[str, list[Size]]) -> int:
    return sum(size.dense for own in sizes.values() for size in own)


def _distinct(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Each piece of memory once, in order."""
    return list({memory_of(tensor): tensor for tensor in tensors}.values())


def _ratio(dense: float, left: float) -> float:
    """dense / left, where nothing left of something is infinitely less, and nothing left of nothing is the same."""
    if left == 0:
        return math.inf if dense else 1.0
    return dense / left
