"""Where each parameter lies in the one long vector that a Hessian is a matrix over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from math import prod

import torch
from torch import Tensor, nn

from prunelab.memory import memory_of
from prunelab.names import Exclude
from prunelab.targets import Target, find_targets, first_names, named_parameters


@dataclass(frozen=True)
class Places:
    """Parameters laid end to end, each flattened: names, shapes, and the positions 0 to `size` - 1 of their entries.

    >>> places = Places(("weight", "bias"), ((2, 3), (2,)))
    >>> places.size, places.span("bias"), places.where(4)
    (8, slice(6, 8, None), ('weight', (1, 1)))
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @cached_property
    def _spans(self) -> dict[str, slice]:
        starts = accumulate((prod(shape) for shape in self.shapes), initial=0)
        return {name: slice(*ends) for name, ends in zip(self.names, pairwise(starts), strict=True)}

    @property
    def size(self) -> int:
        """Entries of all parameters together."""
        return sum(prod(shape) for shape in self.shapes)

    def __iter__(self) -> Iterator[tuple[str, slice]]:
        return iter(self._spans.items())

    def span(self, name: str) -> slice:
        """The positions of a parameter. Raises ValueError for a name that is not among them."""
        if name not in self._spans:
            raise ValueError(f"no parameter {name!r} among those of this matrix: {', '.join(self.names)}")
        return self._spans[name]

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector (size,) as tensors of the parameters' shapes, by name; they share its memory."""
        pairs = zip(self.names, self.shapes, strict=True)
        return {name: vector[self._spans[name]].view(shape) for name, shape in pairs}

    def join(self, values: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> Tensor:
        """Tensors by name, one for each parameter, as a vector (size,): a copy."""
        return torch.cat([values[name].detach().reshape(-1).to(dtype) for name in self.names])

    def where(self, position: int) -> tuple[str, tuple[int, ...]]:
        """The parameter and the index in it of an entry of the vector."""
        for (name, span), shape in zip(self, self.shapes, strict=True):
            if position < span.stop:
                index = torch.unravel_index(torch.tensor(position - span.start), shape)
                return name, tuple(int(i) for i in index)
        raise ValueError(f"position {position} lies outside of the {self.size} entries")


def places_of(
    model: nn.Module, parameters: Iterable[str] | None = None, exclude: Exclude | None = None
) -> tuple[Places, list[Target]]:
    """The places of the named parameters, all of the model's by default, in its order; a shared one counts once.

    Raises ValueError for unknown names, and for two parameters over the same memory: their second derivatives are
    not those of what they hold.
    """
    names = dict.fromkeys(first_names(model).values()) if parameters is None else parameters
    targets = find_targets(model, names, exclude)
    _refuse_twins(model, targets)
    return Places(tuple(t.name for t in targets), tuple(tuple(t.weight.shape) for t in targets)), targets


def _refuse_twins(model: nn.Module, targets: Sequence[Target]) -> None:
    chosen = {memory_of(target.weight): target for target in targets}
    for name, parameter in named_parameters(model).items():
        target = chosen.get(memory_of(parameter))
        if target is not None and target.weight is not parameter:
            raise ValueError(
                f"{target.name!r} and {name!r} are two parameters over the same memory, so a derivative in what they "
                "hold is not known; make them one parameter, as in b.weight = a.weight"
            )
