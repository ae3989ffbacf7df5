"""Chains of Linear layers and rectifiers, tanh or logistic units, with a backward pass written by hand.

On networks of a few thousand weights, autograd's bookkeeping costs as much as the arithmetic. Here each layer's product
for all B models is one batched matrix product, written where it is needed: gradients straight into the long vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunelab.lottery.stacking.leaves import Leaf
from prunelab.lottery.stacking.losses import Slopes
from prunelab.lottery.stacking.stack import Stack


class Dense:
    """B networks of Linear layers, each but the last followed by an activation or not."""

    def __init__(self, stack: Stack, leaves: Sequence[Leaf]) -> None:
        self.stack = stack
        self.layers = [_Layer(stack, leaf) for leaf in leaves if isinstance(leaf.module, nn.Linear)]
        linear = -1
        for leaf in leaves:
            if isinstance(leaf.module, nn.Linear):
                linear += 1
            elif type(leaf.module) in _ACTIVATIONS:
                self.layers[linear].activation = type(leaf.module)
        self._first = next(index for index, layer in enumerate(self.layers) if layer.learns)
        self._rooms: dict[int, list[tuple[Tensor, Tensor]]] = {}

    @staticmethod
    def fits(leaves: Sequence[Leaf], inputs: Tensor) -> bool:
        """Whether the modules are such a chain: Flatten where the inputs are no vectors, Linear layers, activations."""
        kinds = [type(leaf.module) for leaf in leaves if type(leaf.module) is not nn.Identity]
        if kinds and kinds[0] is nn.Flatten:
            kinds = kinds[1:]
        elif inputs.dim() != 2:
            return False
        names = [name for leaf in leaves for name in leaf.names.values()]
        after = zip([None, *kinds], kinds, strict=False)
        return (
            bool(kinds)
            and len(set(names)) == len(names)
            and all(kind is nn.Linear or (kind in _ACTIVATIONS and before is nn.Linear) for before, kind in after)
        )

    @torch.no_grad()
    def outputs(self, x: Tensor) -> Tensor:
        """(B, N, ...) → (B, N, outputs)."""
        x = x.flatten(2)
        for layer in self.layers:
            x = layer.forward(x, None)
        return x

    @torch.no_grad()
    def gradients(self, x: Tensor, targets: Tensor, slopes: Slopes) -> Tensor:
        """Write every model's gradient into the stack, and return the losses, (B,); see `losses.slopes_of`."""
        x = x.flatten(2)
        rooms = self._room(x.shape[1])
        seen = [x]  # what each layer reads, and in the end the outputs; all (B, N, units)
        for layer, (room, _) in zip(self.layers, rooms, strict=True):
            seen.append(layer.forward(seen[-1], room))
        losses, slope = slopes(seen[-1], targets)
        for index in range(len(self.layers) - 1, self._first - 1, -1):
            below = rooms[index - 1][1] if index > self._first else None
            slope = self.layers[index].backward(slope, seen[index], seen[index + 1], below)
        return losses

    def _room(self, examples: int) -> list[tuple[Tensor, Tensor]]:
        """Memory for each layer's outputs and for the slopes in them, kept for batches of this length."""
        if examples not in self._rooms:
            shapes = [(self.stack.models, examples, layer.weight.shape[1]) for layer in self.layers]
            like = self.stack.vector.detach()
            self._rooms[examples] = [(like.new_empty(shape), like.new_empty(shape)) for shape in shapes]
        return self._rooms[examples]


class _Layer:
    """One Linear layer of every model: weight (B, O, I), bias (B, 1, O) or none."""

    def __init__(self, stack: Stack, leaf: Leaf) -> None:
        name, bias = leaf.names["weight"], leaf.names.get("bias")
        self.weight = stack.tensor(name).detach()
        self.transposed = self.weight.transpose(1, 2)  # (B, I, O)
        self.bias = stack.tensor(bias).detach().unsqueeze(1) if bias else None
        self.to_weight = stack.gradients.get(name)
        self.to_bias = stack.gradients.get(bias or "")
        self.activation: type[nn.Module] | None = None

    @property
    def learns(self) -> bool:
        return self.to_weight is not None or self.to_bias is not None

    def forward(self, x: Tensor, room: Tensor | None) -> Tensor:
        """(B, N, I) → (B, N, O)."""
        if self.bias is None:
            x = torch.bmm(x, self.transposed, out=room)
        else:
            x = torch.baddbmm(self.bias, x, self.transposed, out=room)
        return _ACTIVATIONS[self.activation][0](x) if self.activation else x

    def backward(self, slope: Tensor, x: Tensor, out: Tensor, below: Tensor | None) -> Tensor:
        """From the slope in `out`, (B, N, O), to the gradients, and to the slope in `x` where there is room for it."""
        if self.activation is not None:
            slope = _ACTIVATIONS[self.activation][1](slope, out)
        if self.to_weight is not None:
            torch.bmm(slope.transpose(1, 2), x, out=self.to_weight)
        if self.to_bias is not None:
            torch.sum(slope, 1, out=self.to_bias)
        return slope if below is None else torch.bmm(slope, self.weight, out=below)


# Forward in place, and the slope in the input from that in the output and the output, in place of the former.
_ACTIVATIONS: dict[type[nn.Module], tuple[Any, Any]] = {
    nn.ReLU: (torch.relu_, lambda slope, out: torch.ops.aten.threshold_backward(slope, out, 0, grad_input=slope)),
    nn.Tanh: (torch.tanh_, lambda slope, out: torch.ops.aten.tanh_backward(slope, out, grad_input=slope)),
    nn.Sigmoid: (torch.sigmoid_, lambda slope, out: torch.ops.aten.sigmoid_backward(slope, out, grad_input=slope)),
}
