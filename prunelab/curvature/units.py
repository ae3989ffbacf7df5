"""What a second-order method may delete at once: single weights, or the units of any granularity, as numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunelab.curvature.places import Places, places_of
from prunelab.granularity import Granularity, Weight
from prunelab.heads import targets_of
from prunelab.names import Exclude
from prunelab.targets import Target, named_parameters


@dataclass(frozen=True, eq=False)
class Units:
    """Every entry of the vector of parameters belongs to one unit, or to none and then stays.

    Attributes:
        places: the parameters, laid end to end, n entries.
        owner: int64 (n,), the unit of each entry; -1 for none.
        labels: of each unit the parameter in which it starts, and its number there.
        single: every unit is one entry.
    """

    places: Places
    owner: Tensor
    labels: tuple[tuple[str, int], ...] | None
    count: int

    @property
    def single(self) -> bool:
        return self.labels is None

    def sizes(self) -> Tensor:
        """int64 (units,): entries of each."""
        return torch.bincount(self.owner[self.owner >= 0], minlength=self.count)

    def positions(self, unit: int) -> Tensor:
        """int64 (k,): the entries of a unit."""
        return (self.owner == unit).nonzero()[:, 0]

    def sums(self, values: Tensor) -> Tensor:
        """(units,) sums of values (n,) over the entries of each unit."""
        mine = self.owner >= 0
        return values.new_zeros(self.count).index_add_(0, self.owner[mine], values[mine])

    def where(self, unit: int) -> tuple[str, tuple[int, ...]]:
        """The parameter and the index in it of a single weight; the parameter and the number of a larger unit."""
        if self.labels is None:
            return self.places.where(int(self.positions(unit)[0]))
        name, number = self.labels[unit]
        return name, (number,)


def units_of(
    model: nn.Module,
    granularity: Granularity | None = None,
    parameters: Iterable[str] | None = None,
    exclude: Exclude | None = None,
) -> Units:
    """The units of a model. Those of single weights are all entries of all parameters, biases too; larger ones are
    those of `prune`, with their biases.

    Args:
        granularity: `Weight()` by default.
        parameters: names or globs of the parameters that have entries in the vector (and their units' biases); by
            default all.
        exclude: parameters whose entries stay, though they may change.
    """
    granularity = Weight() if granularity is None else granularity
    if not isinstance(granularity, Granularity):
        raise TypeError(f"granularity must be a Granularity such as Filter(), not {granularity!r:.60}")
    if isinstance(granularity, Weight):
        places, _ = places_of(model, parameters)
        return _weights(places, places_of(model, parameters, exclude)[0])
    targets = targets_of(model, granularity, parameters, exclude)
    biases = _own_biases(targets) if granularity.covers_bias else {}
    names = [part.name for target in targets for part in target.parts]
    places, _ = places_of(model, None if parameters is None else [*names, *biases])
    return _larger(model, granularity, places, targets, biases)


def _weights(places: Places, removable: Places) -> Units:
    mine = torch.zeros(places.size, dtype=torch.bool)
    for name, _ in removable:
        mine[places.span(name)] = True
    owner = torch.full((places.size,), -1).masked_scatter_(mine, torch.arange(removable.size))
    return Units(places, owner, None, removable.size)


def _larger(
    model: nn.Module, granularity: Granularity, places: Places, targets: list[Target], biases: dict[str, str]
) -> Units:
    known = named_parameters(model)
    owner = torch.full((places.size,), -1)
    labels: list[tuple[str, int]] = []
    for target in targets:
        units = granularity.units(target.weight.shape, target.layout)[0]
        numbers = len(labels) + torch.arange(units)
        for part in target.parts:
            owner[places.span(part.name)] = granularity.mask(numbers, part.weight.shape, part.layout).flatten()
            for bias in part.biases if units else ():
                if biases.get(bias) == part.name:
                    owner[places.span(bias)] = granularity.bias_mask(numbers, known[bias].numel(), part.layout)
        labels += [(target.name, number) for number in range(units)]
    return Units(places, owner, tuple(labels), len(labels))


def _own_biases(targets: list[Target]) -> dict[str, str]:
    """The biases that go with the units of one parameter, and of which; one that several share stays."""
    parts = [part for target in targets for part in target.parts]
    uses = [(bias, part.name) for part in parts for bias in part.biases]
    shared = {bias for bias, name in uses if any(bias == other and name != owner for other, owner in uses)}
    return {bias: name for bias, name in uses if bias not in shared}
