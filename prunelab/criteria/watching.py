"""Watches layers at work: hooks on their calls, what follows each of them, and gates on what they put out."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from prunelab.targets import Target

# What may follow a layer without mixing its channels: normalisation by channel, and elementwise activation functions.
# Named as torch names them, in torch.nn.functional, as tensor methods, and in place ("relu_").
FOLLOWERS = frozenset(
    {
        *("batch_norm", "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "mish"),
        *(
            "hardtanh",
            "hardsigmoid",
            "hardswish",
            "sigmoid",
            "logsigmoid",
            "log_sigmoid",
            "softplus",
            "softsign",
            "tanh",
            "tanhshrink",
        ),
        *("threshold", "hardshrink", "softshrink", "clamp_min"),
    }
)


# How torch names what writes into its first argument: add_, __iadd__, __setitem__ (but not __add__).
_IN_PLACE = re.compile(r"(?!requires_grad)\w*[a-z0-9]_|__i(add|sub|mul|truediv|floordiv|mod|pow)__|__setitem__")


@dataclass
class Call:
    """One call of a layer: what the probe read from its inputs, and emitted at each stage of what it put out.

    Stage 0 is the layer's own output; each function of `FOLLOWERS` that is applied to it directly adds a stage, so the
    last one is what the rest of the network reads. `applied` names these functions, one for each stage after the first,
    each with its scale (channels,) where it is a batch normalisation that has one. `gates` are ones that multiply the
    stages, where the probe asked for them, and `gradients` what the loss's gradient with respect to them was (None
    where it does not depend on one).
    """

    read: Any = None
    emitted: list[Any] = field(default_factory=list)
    applied: list[tuple[str, Tensor | None]] = field(default_factory=list)
    gates: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor | None] = field(default_factory=list)


class Probe(ABC):
    """Collects the statistic of one layer over a data set, a batch at a time; keeps summaries, never whole outputs.

    `gated` asks for gates: ones, one for each example and channel, that multiply every stage of what the layer puts
    out. The gradient with respect to a gate is the sum of a * ∂L/∂a over the channel's positions. `last_only` forgets
    what was emitted at all stages but the last, for a probe whose summaries are large.
    """

    gated: ClassVar[bool] = False
    last_only: ClassVar[bool] = False

    def read(self, module: nn.Module, inputs: Tensor) -> Any:
        """A summary of what a call was given."""
        return None

    def emit(self, module: nn.Module, outputs: Tensor) -> Any:
        """A summary of what a call put out, asked for at each stage."""
        return None

    @abstractmethod
    def add(self, calls: Sequence[Call], examples: int) -> None:
        """The calls of one batch of so many examples: one, or several where the layer runs more than once."""

    @abstractmethod
    def result(self, labels: Any) -> Any:
        """The statistic, once all batches were added. `labels` are the targets of all examples."""


@dataclass(frozen=True)
class PerWeight:
    """A statistic with one number for every weight: a criterion gets it as a matrix (units, members)."""

    values: Tensor


class Watch:
    """Runs probes, by parameter name, on their layers; `batch` begins and `finish` ends each batch of the data."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes = probes
        self._calls: dict[str, list[Call]] = {}
        self._labels: list[Any] = []
        self._examples = 0

    @contextmanager
    def on(self, targets: Sequence[Target]) -> Iterator[Watch]:
        """Watch the layers of these parameters; the hooks are gone afterwards, also where the model raised."""
        with ExitStack() as stack:
            stages = _Stages()
            for target in targets:
                if not target.modules:
                    raise ValueError(
                        f"{target.name!r} belongs to no Linear or convolution module, so its activations are not "
                        "known; leave it out with exclude=[...]"
                    )
                hook = self._hook(target.name, stages)
                for module in target.modules:
                    handle = module.register_forward_hook(hook, with_kwargs=True)
                    stack.callback(handle.remove)
            stack.enter_context(stages)
            yield self

    def batch(self, labels: Any, examples: int) -> None:
        """The forward that follows is of a new batch with these targets and so many examples."""
        self._labels.append(labels)
        self._examples = examples
        self._calls = {name: [] for name in self._probes}

    def gates(self) -> list[Tensor]:
        """The gates of this batch's forward, of all layers, calls and stages."""
        return [gate for calls in self._calls.values() for call in calls for gate in call.gates]

    def finish(self, gradients: Sequence[Tensor | None] = ()) -> None:
        """The batch is done; `gradients` are those of `gates()`. Raises ValueError for a layer that did not run."""
        left = iter(gradients)
        for name, calls in self._calls.items():
            if not calls:
                raise ValueError(
                    f"the layer of {name!r} did not run in every forward (it is skipped, or its weight is read without "
                    "calling it), so its activations are not known; leave it out with exclude=[...]"
                )
            for call in calls:
                call.gradients = [next(left, None) for _ in call.gates]
            try:
                self._probes[name].add(calls, self._examples)
            except ValueError as error:
                raise ValueError(f"the layer of {name!r} {error}") from None

    def results(self) -> Mapping[str, Any]:
        """Every layer's statistic, by parameter name."""
        labels: Any = self._labels
        if labels and all(isinstance(t, Tensor) and t.dim() and t.shape[1:] == labels[0].shape[1:] for t in labels):
            labels = torch.cat(labels)
        return {name: probe.result(labels) for name, probe in self._probes.items()}

    def _hook(self, name: str, stages: _Stages) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Tensor:
            probe, call = self._probes[name], Call()
            with torch.no_grad():
                call.read = probe.read(module, (arguments[0] if arguments else named["input"]).detach())
            self._calls[name].append(call)

            def stage(values: Tensor, *applied: tuple[str, Tensor | None]) -> Tensor:
                call.applied += applied
                if probe.last_only:
                    call.emitted.clear()
                with torch.no_grad():
                    call.emitted.append(probe.emit(module, values.detach()))
                if not probe.gated:
                    return values
                call.gates.append(_gate(module, values))
                return values * call.gates[-1]

            return stages.begin(output, stage)

        return hook


class _Stages(TorchFunctionMode):
    """Follows a tensor through the functions that are applied to it directly, as long as they keep channels apart."""

    def __init__(self) -> None:
        super().__init__()
        self._stage: WeakIdKeyDictionary = WeakIdKeyDictionary()  # tensor → what to do with the stage made from it

    def begin(self, values: Tensor, stage: Callable[..., Tensor], *applied: tuple[str, Tensor | None]) -> Tensor:
        after = stage(values, *applied)
        self._stage[after] = stage
        return after

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = getattr(func, "__name__", "")
        name = given.rstrip("_")
        source = args[0] if args else kwargs.get("input")
        if name in FOLLOWERS and isinstance(result, Tensor):
            stage = self._stage.pop(source, None) if isinstance(source, Tensor) else None
            if stage is not None:
                return self.begin(result, stage, (name, _scale(func, args, kwargs) if name == "batch_norm" else None))
        for written in (source if _IN_PLACE.fullmatch(given) else None, kwargs.get("out")):
            if isinstance(written, Tensor):  # something else now, such as a sum with a shortcut
                self._stage.pop(written, None)
        return result


def _scale(batch_norm: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The scale, called its weight, that a batch normalisation was given."""
    place = 3 if batch_norm is functional.batch_norm else 1  # torch.batch_norm has its arguments in another order
    scale = kwargs.get("weight", args[place] if len(args) > place else None)
    return None if scale is None else scale.detach()


def by_example(module: nn.Module, values: Tensor) -> Tensor:
    """A layer's inputs or outputs as (examples, channels, positions), in at least float32."""
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    if isinstance(module, _ConvNd):  # (N, C, *positions), or (C, *positions) for one example
        if values.dim() == module.weight.dim() - 1:
            values = values[None]
        return values.flatten(2)
    if values.dim() == 1:  # Linear: (N, *positions, C), or (C,) for one example
        values = values[None]
    return values[:, :, None] if values.dim() == 2 else values.flatten(1, -2).transpose(1, 2)


def _gate(module: nn.Module, values: Tensor) -> Tensor:
    """Ones that multiply `values` without changing a bit: one for each example and channel."""
    shape = [1] * values.dim()
    if isinstance(module, _ConvNd):
        channels = 0 if values.dim() == module.weight.dim() - 1 else 1
    else:
        channels = values.dim() - 1
    shape[0], shape[channels] = values.shape[0], values.shape[channels]
    return torch.ones(shape, dtype=values.dtype, device=values.device, requires_grad=True)
