"""The gradient of the mean loss over a data set, measured without leaving a trace in the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prunelab.trace import call_arguments, device_of, to_device, undisturbed

Batches = Iterable[tuple[Any, Any]]
Loss = Callable[[Any, Any], Tensor]


def mean_gradients(model: nn.Module, parameters: Sequence[Tensor], data: Batches, loss: Loss) -> list[Tensor]:
    """∂L/∂w for each parameter, of its shape; L is the mean loss over all examples, whatever the batch sizes.

    `loss(outputs, targets)` is the mean over a batch; batches count by their number of examples. The model runs in eval
    mode, on its own device; it and the random state are as they were afterwards, also when it raises. A parameter that
    the loss does not depend on has gradient zero. Half precision is accumulated in float32.
    """
    device = device_of(model)
    sums = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in parameters]
    examples = 0
    with undisturbed(model), _differentiable(parameters), torch.enable_grad():
        for inputs, targets in _pairs(data):
            # A DataLoader turns a tuple of inputs into a list.
            positional, named = call_arguments(tuple(inputs) if isinstance(inputs, list) else inputs, device)
            value = loss(model(*positional, **named), to_device(targets, device))
            if not isinstance(value, Tensor) or value.dim() != 0:
                got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"loss must return a scalar tensor, the mean over the batch; it returned {got}")
            count = _examples(targets, inputs)
            for total, gradient in zip(sums, torch.autograd.grad(value, parameters, allow_unused=True), strict=True):
                if gradient is not None:
                    total += gradient * count
            examples += count
    if examples == 0:
        raise ValueError("data is empty: it must yield at least one example as (inputs, targets)")
    return [total / examples for total in sums]


@contextmanager
def _differentiable(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Frozen parameters have gradients inside, and are frozen again outside."""
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _pairs(data: Batches) -> Iterator[tuple[Any, Any]]:
    for batch in data:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TypeError(f"data must yield (inputs, targets) pairs, not {type(batch).__name__}: {batch!r:.60}")
        yield batch[0], batch[1]


def _examples(*values: Any) -> int:
    """The length of the first dimension of the first tensor found in nested tuples, lists and dicts; 1 without any."""
    for value in values:
        if isinstance(value, Tensor) and value.dim():
            return value.shape[0]
        inner = list(value.values()) if isinstance(value, Mapping) else value
        if isinstance(inner, tuple | list) and inner:
            return _examples(*inner)
    return 1
