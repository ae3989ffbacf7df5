"""Everyone against everyone: in the whole model, or in each parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from prunelab.scope.base import Candidates, Scope
from prunelab.scope.competition import Limits, compete


@dataclass(frozen=True)
class Global(Scope):
    """All units of the model compete: layers end up with different sparsities (Hubens 2020; Blalock et al. 2020).

    At a high sparsity a layer may lose all its units, and with it the network its signal. `minimum` units of every
    parameter stay, its best (all, where it has no more), and at most round(maximum * units) of them go; others go
    instead, so that the number of removed units is the one asked for.

    >>> import torch
    >>> weak = Candidates("weak", torch.tensor([1.0, 2.0]), sizes=1)
    >>> strong = Candidates("strong", torch.tensor([3.0, 4.0, 5.0, 6.0]), sizes=1)
    >>> [kept.tolist() for kept in Global().keep([weak, strong], 0.5)]
    [[False, False], [False, True, True, True]]
    >>> [kept.tolist() for kept in Global(minimum=1).keep([weak, strong], 0.5)]
    [[False, True], [False, False, True, True]]

    Raises ValueError where more is asked for than can go.
    """

    minimum: int = 0
    maximum: float = 1.0

    def __post_init__(self) -> None:
        Limits(self.minimum, self.maximum)

    def keep(self, candidates: Sequence[Candidates], sparsity: float) -> list[Tensor]:
        return compete(candidates, sparsity, Limits(self.minimum, self.maximum))


@dataclass(frozen=True)
class Local(Scope):
    """Units compete within their own parameter: every layer is pruned to the same sparsity.

    Nothing can go instead here: a parameter in which fewer than `minimum` units would stay (or not all, where it has
    no more), or more than round(maximum * units) go, is refused with a ValueError.
    """

    minimum: int = 0
    maximum: float = 1.0

    def __post_init__(self) -> None:
        Limits(self.minimum, self.maximum)

    def keep(self, candidates: Sequence[Candidates], sparsity: float) -> list[Tensor]:
        limits = Limits(self.minimum, self.maximum)
        return [compete([one], sparsity, limits)[0] for one in candidates]
