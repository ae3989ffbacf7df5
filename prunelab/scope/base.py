"""What every scope works on, and what it must say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from prunelab.granularity import PLAIN, Filter, Granularity, Layout, Weight
from prunelab.schedule import check_sparsity


@dataclass(frozen=True)
class Candidates:
    """The units of one parameter, ready to compete.

    `scores` is (units,), larger = keep; where `magnitude` is True they are raw weights and their absolute values count.
    `sizes` is the number of parameters of a unit, biases included: one number, or int64 (units,). `alive` is None or
    bool (units,): units that are not alive were removed before; they are removed again first, and count as removed.
    `shape`, `layout` and `granularity` say how the units lie in the weight.
    """

    name: str
    scores: Tensor
    sizes: int | Tensor
    alive: Tensor | None = None
    magnitude: bool = False
    shape: tuple[int, ...] = ()
    layout: Layout = PLAIN
    granularity: Granularity = field(default_factory=Weight)

    @property
    def units(self) -> int:
        """How many units there are, those removed before included."""
        return self.scores.shape[0]

    @property
    def unit_sizes(self) -> Tensor:
        """The parameters of each unit: int64 (units,), on the CPU."""
        return torch.as_tensor(self.sizes).cpu().expand(self.units)

    @property
    def living(self) -> Tensor:
        """Which units are still there: bool (units,)."""
        return torch.ones_like(self.scores, dtype=torch.bool) if self.alive is None else self.alive

    def matrix_shape(self, scope: object) -> tuple[int, int]:
        """The shape (O, I/g·kernel) of the weight as a matrix. Raises ValueError, naming `scope`, where it has none."""
        if len(self.shape) < 2:
            raise ValueError(
                f"{scope} looks at the rows of a weight (filters, inputs, ...), and {self.name!r} of shape "
                f"{self.shape} has none; leave it out with exclude=[{self.name!r}]"
            )
        return Filter().units(self.shape, self.layout)


class Scope(ABC):
    """Decides which units stay, given the scores of all of them and the sparsity to reach.

    `keep` is all that a scope of one's own must have. A scope that knows the sparsity itself is `fixed` and also
    overrides `check` and `asked`; one that names the parameters it is about overrides `names`.
    """

    fixed: ClassVar[bool] = False

    @abstractmethod
    def keep(self, candidates: Sequence[Candidates], sparsity: float) -> list[Tensor]:
        """For each of `candidates`, bool (units,), True = kept."""

    def check(self, sparsity: float | None) -> float:
        """The sparsity that `keep` gets, from what the user asked for. Raises TypeError or ValueError."""
        if sparsity is None:
            raise TypeError(f"sparsity is None, but {self} needs to know the fraction to remove, such as 0.5")
        return check_sparsity(sparsity)

    def asked(self, name: str, sparsity: float) -> float:  # noqa: ARG002
        """The sparsity asked for in the parameter `name`, where `keep` gets `sparsity`."""
        return sparsity

    @property
    def names(self) -> tuple[str, ...] | None:
        """The parameters that the scope is about; None where it takes all that it is given."""
        return None
