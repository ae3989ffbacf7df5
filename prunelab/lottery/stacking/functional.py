"""Any other module, by torch.func: its own code runs once, on all models' numbers."""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call, vmap

from prunelab.lottery.stacking.chain import Trained
from prunelab.lottery.stacking.stack import Stack


class Functional(Trained):
    """B networks whose code is that of `model`; what it draws at random, or decides by its data, is refused by vmap."""

    def __init__(self, stack: Stack, model: nn.Module) -> None:
        self.stack, self.model = stack, model

    def outputs(self, x: Tensor) -> Tensor:
        """(B, N, ...) → (B, N, ...)."""
        named = {**self.stack.values, **self.stack.constants, **self.stack.buffers}
        return vmap(lambda own, batch: functional_call(self.model, own, (batch,)))(named, x)
