"""Set removed entries to zero, and keep them there while an optimizer trains."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.optim import Optimizer

_INTEGERS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}


class Hold:
    """Keeps removed entries at zero while an optimizer trains; made by `Masks.hold`.

    Nothing is attached to the model. One hook is attached to the optimizer; `release` removes it and leaves the weights
    as they are.
    """

    def __init__(self, pairs: list[tuple[nn.Parameter, Tensor]], optimizer: Optimizer) -> None:
        self._held = [_Held(parameter, mask) for parameter, mask in pairs if not bool(mask.all())]
        self._zero()
        self._hook = optimizer.register_step_post_hook(self._zero)

    @torch.no_grad()
    def _zero(self, *_: Any) -> None:
        for held in self._held:
            held.zero()

    def move(self, to: Callable[[nn.Parameter, Tensor], tuple[nn.Parameter, Tensor]]) -> None:
        """Hold other parameters from now on: those that `to` names for each of these, with their masks."""
        pairs = [to(held.parameter, held.mask) for held in self._held]
        self._held = [_Held(parameter, mask) for parameter, mask in pairs if not bool(mask.all())]
        self._zero()

    def release(self) -> None:
        """Stop holding. The weights stay as they are; calling it again does nothing."""
        self._hook.remove()

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class _Held:
    """One parameter and its mask. Wherever the model moves and whatever dtype it takes, the mask follows."""

    def __init__(self, parameter: nn.Parameter, mask: Tensor) -> None:
        self.parameter, self.mask = parameter, mask
        self._views: tuple[np.ndarray, np.ndarray] | None = None
        self._place: tuple[Any, ...] = ()

    def zero(self) -> None:
        # Looking at a small tensor as integers takes longer than multiplying them, so the views are kept while they
        # show the memory that the parameter has.
        place = (self.parameter.data_ptr(), self.parameter.dtype, self.parameter.stride(), self.parameter.device)
        if place != self._place:
            self.mask = self.mask.to(self.parameter.device)
            self._views, self._place = _as_integers(self.parameter.detach(), self.mask), place
        if self._views is None:
            zero_removed_(self.parameter.detach(), self.mask)
        else:
            _multiply(self.parameter, *self._views)


def zero_removed_(values: Tensor, mask: Tensor) -> None:
    """Set `values` to zero, in place, where `mask` is False; kept entries keep every bit."""
    views = _as_integers(values, mask)
    if views is not None:
        _multiply(values, *views)
    else:
        # Through bytes where there are one-byte floats: torch fills those of no other kind.
        (values.view(torch.int8) if values.element_size() == 1 else values).masked_fill_(~mask, 0)


def _as_integers(values: Tensor, mask: Tensor) -> tuple[np.ndarray, np.ndarray] | None:
    """Both as integer arrays on the memory that they have; None where that cannot be."""
    bits = _INTEGERS.get(values.element_size())
    if values.device.type != "cpu" or bits is None or not (values.is_contiguous() and mask.is_contiguous()):
        return None
    return values.view(bits).numpy(), mask.view(torch.int8).numpy()


def _multiply(values: Tensor, integers: np.ndarray, ones: np.ndarray) -> None:
    # An integer product with 0 or 1 is exact for every bit pattern, NaN and infinities too, and about five times faster
    # on the CPU than torch's masked_fill_ or the product with a bool mask.
    np.multiply(integers, ones, out=integers)
    increment_version(values)  # autograd must notice a write that bypassed it
