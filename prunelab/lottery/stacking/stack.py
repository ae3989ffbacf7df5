"""The parameters of B models of one architecture, as one long vector that an optimizer and a mask treat at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from prunelab.masks import Masks

_INTEGERS = {8: torch.int64, 4: torch.int32, 2: torch.int16}


class Stack:
    """All the numbers of B models. Model b's part of every tensor is its row b; names are those of the models.

    Attributes:
        models: how many, B.
        vector: every trained parameter of every model, (all,); `vector.grad` is its gradient.
        values: trained parameter → its place in the vector, (B, *shape); a leaf whose `.grad` lies in `vector.grad`.
        gradients: trained parameter → its place in `vector.grad`, (B, *shape).
        constants: frozen parameters, (B, *shape).
        buffers: (B, *shape).

    `weights` are the models' state dicts, `frozen` and `buffers` the names that are not trained. Every name is that of
    a tensor of its own.
    """

    def __init__(self, weights: Sequence[Mapping[str, Tensor]], trained: Sequence[str], frozen: Sequence[str],
                 buffers: Sequence[str]) -> None:  # fmt: skip
        self.models = len(weights)
        first = weights[0][trained[0]]
        sizes = [self.models * weights[0][name].numel() for name in trained]
        self.vector = nn.Parameter(torch.empty(sum(sizes), dtype=first.dtype, device=first.device))
        self.vector.grad = torch.zeros_like(self.vector)
        places = zip(trained, self.vector.detach().split(sizes), self.vector.grad.split(sizes), strict=True)
        self.values: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        for name, value, gradient in places:
            shape = (self.models, *weights[0][name].shape)
            self.values[name] = value.view(shape).requires_grad_()
            self.gradients[name] = self.values[name].grad = gradient.view(shape)
        with torch.no_grad():
            for name, value in self.values.items():
                torch.stack([state[name] for state in weights], out=value.detach())
        self.constants = {name: torch.stack([state[name] for state in weights]) for name in frozen}
        self.buffers = {name: torch.stack([state[name] for state in weights]) for name in buffers}
        self._kept: Tensor | None = None

    @property
    def weights(self) -> int:
        """Of one model, frozen ones too."""
        return sum(value[0].numel() for value in [*self.values.values(), *self.constants.values()])

    def tensor(self, name: str) -> Tensor:
        """A parameter of all models, trained or frozen, (B, *shape)."""
        return self.values[name] if name in self.values else self.constants[name]

    # --- masks -------------------------------------------------------------------------------------------------------

    def mask(self, masks: Sequence[Masks | None], names: Mapping[str, str]) -> None:
        """Remove what the masks remove, now and at every `hold`; `names` gives a parameter's first name."""
        kept = {name: torch.ones_like(value, dtype=torch.bool) for name, value in self.values.items()}
        for b, own in enumerate(masks):
            for name, mask in (own or {}).items():
                known = names[name]
                if known in kept:
                    kept[known][b] &= mask.to(self.vector.device)
                else:
                    self.constants[known][b].masked_fill_(~mask.to(self.vector.device), 0)
        everything = torch.cat([kept[name].flatten() for name in self.values])
        if not bool(everything.all()):
            bits = _INTEGERS[self.vector.element_size()]
            self._kept = -everything.to(bits)  # all bits of what is kept, none of what is removed
        self.hold()

    def hold(self) -> None:
        """Set what is removed to zero: exactly +0.0, whatever it was, NaN too; kept entries keep every bit."""
        if self._kept is not None:
            self.vector.detach().view(self._kept.dtype).bitwise_and_(self._kept)

    # --- one model of them -------------------------------------------------------------------------------------------

    def parts(self, vector: Tensor) -> list[list[Tensor]]:
        """A vector of one number a trained weight, such as a momentum, as copies: of each model, one tensor each."""
        shapes = [value.shape for value in self.values.values()]
        pieces = vector.split([shape.numel() for shape in shapes])
        stacked = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        return [[tensor[b].clone() for tensor in stacked] for b in range(self.models)]

    def joined(self, parts: Sequence[Sequence[Tensor]]) -> Tensor:
        """The vector of which these are the parts: what `parts` undoes."""
        return torch.cat([torch.stack(list(own)).flatten() for own in zip(*parts, strict=True)]).to(self.vector)

    @torch.no_grad()
    def write(self, models: Sequence[nn.Module]) -> None:
        """Give every model its numbers, in place, and no gradients."""
        for b, model in enumerate(models):
            own = dict(model.named_parameters())
            held = dict(model.named_buffers())
            for name, value in {**self.values, **self.constants}.items():
                own[name].copy_(value[b])
            for name in self.values:
                own[name].grad = None
            for name, value in self.buffers.items():
                held[name].copy_(value[b])
