"""The units of a model as a regulariser sees them: all the parameters that a unit lies in, and its real size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from prunelab.granularity import Granularity, Layout
from prunelab.heads import targets_of
from prunelab.names import Exclude
from prunelab.targets import Target, named_parameters


@dataclass(frozen=True)
class Piece:
    """A parameter that the units of a target lie in. A bias is seen as a weight with one column."""

    name: str
    values: nn.Parameter
    layout: Layout
    is_bias: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.values.numel(), 1) if self.is_bias else tuple(self.values.shape)

    def rows(self, granularity: Granularity) -> Tensor:
        """The parameter as a matrix (units, members)."""
        return granularity.view(self.values.reshape(self.shape), self.layout)

    def sizes(self, granularity: Granularity) -> int | Tensor:
        """Entries of a unit in this parameter."""
        return _geometry(granularity, self.shape, self.layout)[2]

    def spread(self, numbers: Tensor, granularity: Granularity) -> Tensor:
        """One number a unit, (units,), at every entry of the unit: the parameter's shape."""
        return spread(numbers, granularity, self.shape, self.layout).reshape(self.values.shape)


def spread(numbers: Tensor, granularity: Granularity, shape: Sequence[int], layout: Layout) -> Tensor:
    """One number a unit, (units,), at every entry of the unit; differentiable."""
    units, members, _ = _geometry(granularity, tuple(shape), layout)
    return granularity.restore(numbers[:, None].expand(units, members), shape, layout)


@lru_cache(maxsize=1024)
def _geometry(granularity: Granularity, shape: tuple[int, ...], layout: Layout) -> tuple[int, int, int | Tensor]:
    """(units, members, sizes), kept: a training loop asks for the same at every step."""
    with torch.device("cpu"):  # whatever the caller's default is: others will be given the same tensor
        return *granularity.units(shape, layout), granularity.sizes(shape, layout)


def unit_pieces(
    model: nn.Module, granularity: Granularity, parameters: Iterable[str] | None, exclude: Exclude | None
) -> list[tuple[Target, list[Piece]]]:
    """For each target of the model the pieces of its units: the weights, and the biases that go with them.

    A bias that the units of several targets share belongs to none of them.
    """
    known = named_parameters(model)
    targets = targets_of(model, granularity, parameters, exclude)
    parts = [part for target in targets for part in target.parts]
    claims = Counter(bias for part in parts for bias in part.biases)
    found = []
    for target in targets:
        pieces = []
        for part in target.parts:
            part.view(part.weight.detach(), granularity)  # raises, and names the parameter
            pieces.append(Piece(part.name, part.weight, part.layout))
            plain = replace(part.layout, groups=1, transposed=False)
            biases = [bias for bias in part.biases if claims[bias] == 1] if granularity.covers_bias else []
            pieces += [Piece(bias, known[bias], plain, is_bias=True) for bias in biases]
        found.append((target, pieces))
    return found


def sizes_of(pieces: Sequence[Piece], granularity: Granularity) -> Tensor:
    """Entries of each unit over all its pieces, (units,), on their device; in their type, at least float32."""
    first = pieces[0]
    units, _, _ = _geometry(granularity, first.shape, first.layout)
    counts = torch.zeros(units, dtype=torch.int64, device="cpu")
    for piece in pieces:
        counts += piece.sizes(granularity)
    return counts.to(first.values.device, torch.promote_types(first.values.dtype, torch.float32))
