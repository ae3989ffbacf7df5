"""The gradient of the mean loss over a data set, measured without leaving a trace in the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Batches = Iterable[tuple[Any, Any]]
Loss = Callable[[Any, Any], Tensor]


def mean_gradients(model: nn.Module, parameters: Sequence[Tensor], data: Batches, loss: Loss) -> list[Tensor]:
    """∂L/∂w for each parameter, of its shape; L is the mean loss over all examples, whatever the batch sizes.

    `loss(outputs, targets)` is the mean over a batch; batches count by their number of examples. The model runs in eval
    mode, on its own device; its mode, gradients, `requires_grad` flags and the random state are restored, also when it
    raises. A parameter that the loss does not depend on has gradient zero. Half precision is accumulated in float32.
    """
    device = parameters[0].device
    sums = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in parameters]
    examples = 0
    with _untouched(model, parameters), torch.enable_grad():
        for inputs, targets in batches(data):
            outputs = call(model, move(inputs, device))
            value = loss(outputs, move(targets, device))
            if not isinstance(value, Tensor) or value.dim() != 0:
                raise ValueError(
                    f"loss must return a scalar tensor, the mean over the batch; it returned {value!r:.80}"
                )
            count = batch_size(targets, inputs)
            for total, gradient in zip(sums, torch.autograd.grad(value, parameters, allow_unused=True), strict=True):
                if gradient is not None:
                    total += gradient * count
            examples += count
    if examples == 0:
        raise ValueError("data is empty: it must yield at least one example as (inputs, targets)")
    return [total / examples for total in sums]


@contextmanager
def _untouched(model: nn.Module, parameters: Sequence[Tensor]) -> Iterator[None]:
    """Eval mode, gradients on for `parameters`; everything as it was afterwards."""
    modes = {module: module.training for module in model.modules()}
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    devices = [parameters[0].device] if parameters[0].device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            model.eval()
            for parameter in frozen:
                parameter.requires_grad_(True)
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)
            for module, training in modes.items():
                module.training = training


def batches(data: Batches) -> Iterator[tuple[Any, Any]]:
    """The (inputs, targets) pairs of `data`, each checked to be one."""
    for batch in data:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TypeError(f"data must yield (inputs, targets) pairs, not {type(batch).__name__}: {batch!r:.60}")
        yield batch[0], batch[1]


def call(model: nn.Module, inputs: Any) -> Any:
    """model(inputs), where a tuple holds positional and a dict keyword arguments."""
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def move(value: Any, device: torch.device) -> Any:
    """Every tensor in nested tuples, lists and dicts, moved to the device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: move(item, device) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(move(item, device) for item in value)
    return value


def batch_size(*values: Any) -> int:
    """The length of the first dimension of the first tensor found."""
    for value in values:
        if isinstance(value, Tensor) and value.dim():
            return value.shape[0]
        inner = list(value.values()) if isinstance(value, dict) else value
        if isinstance(inner, tuple | list) and inner:
            return batch_size(*inner)
    return 1
