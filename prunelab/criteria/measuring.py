"""Gradients and activations over a data set, measured in one pass that leaves no trace in the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunelab.criteria.activations import Activations, Watch
from prunelab.targets import Target
from prunelab.trace import call_arguments, device_of, to_device, undisturbed

Batches = Iterable[tuple[Any, Any]]
Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Measured:
    """By parameter name: `gradients` of the parameter's shape, and `activations`; each empty where not asked for."""

    gradients: Mapping[str, Tensor]
    activations: Mapping[str, Activations]


def measure(
    model: nn.Module, targets: Sequence[Target], data: Batches, loss: Loss | None, *, activations: bool
) -> Measured:
    """∂L/∂w of every target where there is a `loss`, and its layer's `activations` where asked for.

    L is the mean loss over all examples, whatever the batch sizes: `loss(outputs, targets)` is the mean over a batch,
    and batches count by their number of examples. The model runs in eval mode, on its own device; it and the random
    state are as they were afterwards, also when it raises. A parameter that the loss does not depend on has gradient
    zero. Half precision is accumulated in float32.
    """
    watch = Watch()
    gradients = None if loss is None else _MeanGradient([target.weight for target in targets], loss)
    examples = 0
    with ExitStack() as stack:
        stack.enter_context(undisturbed(model))
        if loss is not None and any(isinstance(module, nn.RNNBase) for module in model.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # cuDNN's have no gradient in eval mode
        if gradients is not None:
            stack.enter_context(gradients.differentiable())
        if activations:
            stack.enter_context(watch.on(targets))
        for outputs, labels, count in _forwards(model, data, watch):
            examples += count
            if gradients is not None:
                gradients.add(outputs, labels, count)
    if examples == 0:
        raise ValueError("data is empty: it must yield at least one example as (inputs, targets)")
    names = [target.name for target in targets]
    return Measured(
        gradients={} if gradients is None else dict(zip(names, gradients.mean(examples), strict=True)),
        activations=watch.activations() if activations else {},
    )


class _MeanGradient:
    """Sums the gradients of a loss over batches; `parameters` may be frozen."""

    def __init__(self, parameters: Sequence[Tensor], loss: Loss) -> None:
        self._parameters, self._loss = parameters, loss
        with torch.inference_mode(False):  # a sum made in inference mode could not be added to outside of it
            self._sums = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in parameters]

    @contextmanager
    def differentiable(self) -> Iterator[None]:
        """Gradients are recorded inside, also of frozen parameters; these are frozen again afterwards."""
        frozen = [parameter for parameter in self._parameters if not parameter.requires_grad]
        try:
            for parameter in frozen:
                parameter.requires_grad_(True)
            with torch.inference_mode(False), torch.enable_grad():
                yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)

    def add(self, outputs: Any, labels: Any, examples: int) -> None:
        value = self._loss(outputs, labels)
        if not isinstance(value, Tensor) or value.dim() != 0:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"loss must return a scalar tensor, the mean over the batch; it returned {got}")
        if not value.requires_grad:
            raise ValueError("the loss has no gradient: it was detached, or made from numbers instead of the outputs")
        for total, gradient in zip(
            self._sums, torch.autograd.grad(value, self._parameters, allow_unused=True), strict=True
        ):
            if gradient is not None:
                total += gradient * examples

    def mean(self, examples: int) -> list[Tensor]:
        return [total / examples for total in self._sums]


def _forwards(model: nn.Module, data: Batches, watch: Watch) -> Iterator[tuple[Any, Any, int]]:
    """(outputs, targets, number of examples) of each batch, on the model's device; `watch` is told when one begins."""
    device = device_of(model)
    for batch in data:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TypeError(
                f"data must yield (inputs, targets) pairs, not {type(batch).__name__}: {batch!r:.60}; a single batch "
                "is data=[(inputs, targets)]"
            )
        # A DataLoader turns a tuple of inputs into a list.
        inputs = tuple(batch[0]) if isinstance(batch[0], list) else batch[0]
        positional, named = call_arguments(inputs, device)
        labels = to_device(batch[1], device)
        examples = _examples(labels, inputs)
        watch.batch(labels, examples)
        yield model(*positional, **named), labels, examples


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
def as_masked(targets: Sequence[Target], kept: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, what the targets do not keep is zero; outside, every weight has its own bits again."""
    saved = []
    try:
        for target in targets:
            mask = kept.get(target.name)
            values = target.weight.detach()
            if mask is not None and bool(values[~mask].any()):
                saved.append((values, values.clone()))
                values.masked_fill_(~mask, 0)
        yield
    finally:
        for values, before in saved:
            values.copy_(before)
