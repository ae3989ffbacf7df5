"""Counting the elements of weights that are not zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from prunelab.memory import memory_of


class NonzeroCounter:
    """Counts nonzero elements, those of a model's parameters once however often they are asked for.

    A snapshot: it holds for as long as the parameters do not change. Raises ValueError for parameters without values.
    """

    def __init__(self, model: nn.Module) -> None:
        # Held, so that their memory is not given to another tensor while it is known here.
        self._parameters = dict(model.named_parameters())
        for name, parameter in self._parameters.items():
            if parameter.is_meta or isinstance(parameter, FakeTensor):
                raise ValueError(
                    f"{name!r} holds no values (it is on the meta device, or fake), so its nonzero elements cannot be "
                    "counted; load the weights first, or read prunelab.trace.trace(model, example_inputs).macs"
                )
        self._storages = {memory_of(parameter)[0] for parameter in self._parameters.values()}
        self._counts: dict[tuple[Any, ...], int] = {}

    def count(self, tensor: Tensor) -> int:
        """The elements of `tensor` that are not zero; NaN is not."""
        key = memory_of(tensor)
        if key[0] not in self._storages:  # temporary: its memory will soon hold something else
            return _count_nonzero(tensor)
        if key not in self._counts:
            self._counts[key] = _count_nonzero(tensor)
        return self._counts[key]


def _count_nonzero(tensor: Tensor) -> int:
    if tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64):
        # Five times faster than torch.count_nonzero, which is slower than the sum of the absolute values.
        return int(np.count_nonzero(np.not_equal(tensor.detach().numpy(), 0)))
    return int(torch.count_nonzero(tensor))
