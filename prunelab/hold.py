"""Set removed entries to zero, and keep them there while an optimizer trains."""

from __future__ import annotations

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
        self._pairs = pairs
        self._zero()
        self._hook = optimizer.register_step_post_hook(self._zero)

    @torch.no_grad()
    def _zero(self, *_: Any) -> None:
        for index, (parameter, mask) in enumerate(self._pairs):
            if mask.device != parameter.device:  # the model moved after the hold began
                self._pairs[index] = parameter, mask = parameter, mask.to(parameter.device)
            zero_removed_(parameter.detach(), mask)

    def release(self) -> None:
        """Stop holding. The weights stay as they are; calling it again does nothing."""
        self._hook.remove()

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def zero_removed_(values: Tensor, mask: Tensor) -> None:
    """Set `values` to zero, in place, where `mask` is False; kept entries keep every bit."""
    bits = _INTEGERS.get(values.element_size())
    if values.device.type != "cpu" or bits is None or not (values.is_contiguous() and mask.is_contiguous()):
        # Through bytes where there are one-byte floats: torch fills those of no other kind.
        (values.view(torch.int8) if values.element_size() == 1 else values).masked_fill_(~mask, 0)
        return
    # An integer product with 0 or 1 is exact for every bit pattern, NaN and infinities too, and about five times faster
    # on the CPU than torch's masked_fill_ or the product with a bool mask.
    integers = values.view(bits).numpy()
    np.multiply(integers, mask.view(torch.int8).numpy(), out=integers)
    increment_version(values)  # autograd must notice a write that bypassed it
