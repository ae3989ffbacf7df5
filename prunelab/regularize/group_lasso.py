"""Group lasso: a penalty on the length of a unit, which ends whole units and spares the members of the others."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from prunelab.granularity import Filter, Granularity
from prunelab.regularize.base import Regularizer, checked_number, precise, store_, total
from prunelab.regularize.units import Piece, sizes_of, unit_pieces


@dataclass(frozen=True)
class GroupLasso(Regularizer):
    """strength · Σ over units of √size · ‖w_unit‖₂ (Yuan & Lin 2006; for filters, Wen et al. 2016).

    The norm is not squared: that is what makes whole units go, and keeps the members of the others. √size makes units
    of several sizes pay alike per weight; it is the number of entries that the unit really has, also in a short group.
    The biases that belong to a unit (`Filter`, `Layer`, `Head`) are entries of it, so that a unit at zero outputs zero;
    a bias that several layers share belongs to none. With `granularity.Weight()` this is `L1`.

    The gradient of a unit that is zero is zero. The proximal step is the block soft threshold
    v · max(1 - lr · strength · √size / ‖v‖₂, 0).

    >>> from prunelab.granularity import Weight
    >>> layer = torch.nn.Linear(2, 2, bias=False)
    >>> layer.weight.data = torch.tensor([[3.0, 4.0], [0.0, 0.1]])
    >>> [round(GroupLasso(1.0, unit).penalty(layer).item(), 4) for unit in (Filter(), Weight())]  # √2 · (5 + 0.1), 7.1
    [7.2125, 7.1]
    >>> GroupLasso(1.0).proximal_(layer, lr=0.5); [[round(w, 3) for w in row] for row in layer.weight.tolist()]
    [[2.576, 3.434], [0.0, 0.0]]
    """

    granularity: Granularity = field(default_factory=Filter)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.granularity, Granularity):
            raise TypeError(f"granularity must be a Granularity such as Filter(), not {self.granularity!r}")

    def penalty(self, model: nn.Module) -> Tensor:
        """The penalty of the model's weights as they are: a scalar tensor on their device, which has a gradient."""
        terms = [
            (sizes_of(pieces, self.granularity).sqrt() * self._norms(pieces)).sum() for pieces in self._units(model)
        ]
        return total(terms, model) * self.strength

    @torch.no_grad()
    def proximal_(self, model: nn.Module, lr: float) -> None:
        """Move every unit v, in place, to argmin ½‖x - v‖² + lr · penalty(x).

        What `L1.proximal_` says of other optimizers and of half precision
        holds here, too.
        """
        threshold = self.strength * checked_number("proximal_(lr", lr)
        for pieces in self._units(model) if threshold else ():
            limits = threshold * sizes_of(pieces, self.granularity).sqrt()
            norms = self._norms(pieces)  # (units,), as the limits
            factors = (1 - limits / norms).clamp(min=0)
            factors = factors.masked_fill(norms == 0, 0)  # where that was 0 / 0
            for piece in pieces:
                factor = piece.spread(factors, self.granularity)
                store_(piece.values, precise(piece.values) * factor)

    def _units(self, model: nn.Module) -> list[list[Piece]]:
        """The trainable pieces of each target's units."""
        found = unit_pieces(model, self.granularity, self.parameters, self.exclude)
        return [
            [piece for piece in pieces if piece.values.requires_grad]
            for target, pieces in found
            if target.weight.requires_grad
        ]

    def _norms(self, pieces: list[Piece]) -> Tensor:
        rows = torch.cat([precise(piece.rows(self.granularity)) for piece in pieces], 1)  # (units, members)
        return torch.linalg.vector_norm(rows, dim=1)
