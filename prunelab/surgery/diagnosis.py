"""Where two networks that should agree first differ: the values of each operation, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunelab.anatomy import Anatomy
from prunelab.surgery.coupling import Coupling
from prunelab.surgery.labels import Label
from prunelab.surgery.rehearsal import inside
from prunelab.surgery.verifying import TOLERANCE
from prunelab.trace import call_arguments, device_of, undisturbed
from prunelab.trace.record import all_of
from prunelab.trace.recorder import Recorder, stepwise


class _Values(Recorder):
    """Keeps a copy of what each operation returned."""

    def __init__(self, skip: Sequence[str]) -> None:
        super().__init__(())
        self._skip = skip
        self.seen: list[tuple[str, list[Tensor]]] = []

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if not inside(self._path[-1], self._skip):
            self.seen.append((str(func.name()), [t.detach().clone() for t in all_of(Tensor, result)]))
        return result


def first_difference(
    masked: nn.Module,
    small: nn.Module,
    example_inputs: Any,
    coupling: Coupling,
    keep: NDArray[np.bool_],
    replaced: Sequence[str],
) -> int | None:
    """The number of the first operation of the trace whose values differ where both networks have them, or None."""
    followed = coupling.followed[0]
    numbers = [i for i, op in enumerate(followed.trace.ops) if not inside(op.module, replaced)]
    large, little = (_values(model, example_inputs, replaced) for model in (masked, small))
    for number, (name, expected), (other, found) in zip(numbers, large, little, strict=False):
        if name != other or name != followed.trace.ops[number].name:
            return None
        if number in followed.idle:
            continue
        for a, b, labels in zip(expected, found, followed.returned[number], strict=False):
            if not _agree(_left(a, labels, coupling, keep), b):
                return number
    return None


def _values(model: nn.Module, inputs: Any, skip: Sequence[str]) -> list[tuple[str, list[Tensor]]]:
    record = _Values(skip)
    unfused = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with undisturbed(model), stepwise(unfused):
        torch.manual_seed(0)
        args, kwargs = call_arguments(inputs, device_of(model))
        with record.following(Anatomy(model)), record:
            model(*args, **kwargs)
    return record.seen


def _left(tensor: Tensor, labels: Sequence[Label], coupling: Coupling, keep: NDArray[np.bool_]) -> Tensor | None:
    """What the smaller network has of a tensor."""
    shape = coupling.shape_after(tensor.shape, labels, keep)
    if shape is None:
        return None
    mask = np.ones(tuple(tensor.shape), bool)
    for label in labels:
        mask &= coupling.kept(label, keep)
    return tensor[torch.from_numpy(mask).to(tensor.device)].reshape(shape)


def _agree(a: Tensor | None, b: Tensor) -> bool:
    if a is None or a.shape != b.shape:
        return True  # a dimension as large as the code asks for: nothing to compare
    if not a.is_floating_point() or not a.numel():
        return True
    a, b = a.double(), b.double()
    gap = torch.where((a == b) | (a.isnan() & b.isnan()), torch.zeros_like(a), a - b).abs().max()
    scale = a[a.isfinite()].abs().max() if a.isfinite().any() else torch.tensor(0.0)
    return bool(gap <= 10 * TOLERANCE[torch.float32] * scale + 1e-12)
