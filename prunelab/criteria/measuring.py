"""Gradients and activations over a data set, measured in one pass that leaves no trace in the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunelab.criteria.watching import Probe, Watch
from prunelab.targets import Target, named_parameters, unwrap
from prunelab.trace import call_arguments, device_of, to_device, undisturbed

Batches = Iterable[tuple[Any, Any]]
Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Measured:
    """By parameter name: `gradients` of the parameter's shape, and `statistics`; each empty where not asked for."""

    gradients: Mapping[str, Tensor]
    statistics: Mapping[str, Any]


def measure(
    model: nn.Module,
    targets: Sequence[Target],
    data: Batches,
    loss: Loss | None,
    probes: Mapping[str, Probe] | None = None,
) -> Measured:
    """∂L/∂w of every target where there is a `loss`, and what `probes`, by parameter name, collect of their layers.

    L is the mean loss over all examples, whatever the batch sizes: `loss(outputs, targets)` is the mean over a batch,
    and batches count by their number of examples. The model runs in eval mode, on its own device; it and the random
    state are as they were afterwards, also when it raises. A parameter that the loss does not depend on has gradient
    zero. Half precision is accumulated in float32.
    """
    model = unwrap(model)
    gradients = None if loss is None else _MeanGradient([target.weight for target in targets], loss)
    examples = 0
    with ExitStack() as stack:
        stack.enter_context(measuring(model))
        if gradients is not None:
            stack.enter_context(differentiable(gradients.parameters))
        watch = stack.enter_context(Watch(probes).on(targets)) if probes else None
        for inputs, labels, count in batches(model, data):
            examples += count
            if watch is not None:
                watch.batch(labels, count)
            outputs = run(model, inputs)
            gates = watch.gates() if watch is not None else []
            found = gradients.add(outputs, labels, count, gates) if gradients is not None else []
            if watch is not None:
                watch.finish(found)
        statistics = watch.results() if watch is not None and examples else {}
    if examples == 0:
        raise ValueError("data is empty: it must yield at least one example as (inputs, targets)")
    names = [target.name for target in targets]
    return Measured({} if gradients is None else dict(zip(names, gradients.mean(examples), strict=True)), statistics)


@contextmanager
def measuring(model: nn.Module) -> Iterator[None]:
    """`undisturbed`, with what would keep gradients or hooks from working switched off."""
    with ExitStack() as stack:
        stack.enter_context(undisturbed(model))
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # cuDNN's have no gradient in eval mode
        if any(hasattr(module, "_orig_mod") for module in model.modules()):
            stack.enter_context(torch.compiler.set_stance("force_eager"))  # compiled parts would skip the hooks
        yield


@contextmanager
def differentiable(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Gradients are recorded inside, also of frozen parameters; these are frozen again afterwards."""
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


class _MeanGradient:
    """Sums the gradients of a loss over batches; `parameters` may be frozen."""

    def __init__(self, parameters: Sequence[Tensor], loss: Loss) -> None:
        self.parameters, self._loss = parameters, loss
        with torch.inference_mode(False):  # a sum made in inference mode could not be added to outside of it
            self._sums = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in parameters]

    def add(self, outputs: Any, labels: Any, examples: int, others: Sequence[Tensor]) -> list[Tensor | None]:
        """Adds a batch; returns the gradients of its mean loss with respect to `others`."""
        value = scalar(self._loss(outputs, labels))
        found = torch.autograd.grad(value, [*self.parameters, *others], allow_unused=True)
        for total, gradient in zip(self._sums, found, strict=False):
            if gradient is not None:
                total += gradient * examples
        return list(found[len(self.parameters) :])

    def mean(self, examples: int) -> list[Tensor]:
        with torch.inference_mode(False):
            return [total / examples for total in self._sums]


def scalar(value: Any) -> Tensor:
    """`value` if it is a scalar that has a gradient; anything else that a loss returned is refused with the reason."""
    if not isinstance(value, Tensor) or value.dim() != 0:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss must return a scalar tensor, the mean over the batch; it returned {got}")
    if not value.requires_grad:
        raise ValueError("the loss has no gradient: it was detached, or made from numbers instead of the outputs")
    return value


def batches(model: nn.Module, data: Batches) -> Iterator[tuple[Any, Any, int]]:
    """(inputs, targets, number of examples) of each batch; the targets are on the model's device."""
    device = device_of(model)
    for batch in data:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TypeError(
                f"data must yield (inputs, targets) pairs, not {type(batch).__name__}: {batch!r:.60}; a single batch "
                "is data=[(inputs, targets)]"
            )
        # A DataLoader turns a tuple of inputs into a list.
        inputs = tuple(batch[0]) if isinstance(batch[0], list) else batch[0]
        labels = to_device(batch[1], device)
        yield inputs, labels, _examples(labels, inputs)


def run(model: nn.Module, inputs: Any) -> Any:
    """The model's outputs for a batch's inputs, which are brought to its device."""
    positional, named = call_arguments(inputs, device_of(model))
    return model(*positional, **named)


def _examples(labels: Any, inputs: Any) -> int:
    """How many examples a batch has: the length of the targets if they are a tensor, else of the first input."""
    for value in (labels, inputs):
        first = _first_tensor(value) if value is inputs else value
        if isinstance(first, Tensor) and first.dim():
            return first.shape[0]
    return 1


def _first_tensor(value: Any) -> Any:
    """The first tensor in nested tuples, lists and dicts."""
    while isinstance(value, Mapping | tuple | list) and value:
        value = next(iter(value.values() if isinstance(value, Mapping) else value))
    return value


@contextmanager
def as_masked(model: nn.Module, kept: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, what is not `kept` is zero, biases too; outside, every parameter has its own bits again."""
    parameters, saved = named_parameters(model) if kept else {}, []
    try:
        for name, mask in kept.items():
            values = parameters[name].detach()
            if bool(values[~mask].any()):
                saved.append((values, values.clone()))
                values.masked_fill_(~mask, 0)
        yield
    finally:
        for values, before in saved:
            values.copy_(before)
