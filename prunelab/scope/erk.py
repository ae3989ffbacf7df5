"""Erdős–Rényi-kernel densities: wide layers are pruned more than narrow ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from prunelab.scope.base import Candidates, Scope
from prunelab.scope.competition import already_removed, one_size, remove_parameters, remove_units


@dataclass(frozen=True)
class ERK(Scope):
    """Each parameter keeps a share that shrinks with its width, for which its units compete (Evci et al. 2020).

    density ∝ ((n_in + n_out + k_h + k_w) / (n_in · n_out · k_h · k_w))**power, at most 1

    n_in and n_out are the channels of one filter and the number of filters (I/g and O), k_h and k_w the kernel. For a
    Linear layer that is the Erdős–Rényi density (n_in + n_out) / (n_in · n_out) of Mocanu et al. 2018. Parameters that
    would be more than dense stay whole, and the others share what that leaves, in the same proportions. power=0 makes
    all densities equal. What `within=` has removed stays removed and counts; a parameter that lost more than its share
    keeps what it has, and the others make up for it.

    Units of one size: exactly round(sparsity * units) go in all. Each parameter's share is rounded down, and the units
    that this leaves go where the largest remainders are, to the first of equals. Units of several sizes: the same with
    the number of parameters, and of each parameter's share as many units go as fit.

    >>> import torch
    >>> wide = Candidates("wide", torch.rand(10000), sizes=1, shape=(100, 100))    # raw density 200 / 10000
    >>> thin = Candidates("thin", torch.rand(1000), sizes=1, shape=(10, 100))      # raw density 110 / 1000
    >>> [int(kept.sum()) for kept in ERK().keep([wide, thin], 0.9)]                # 1100 weights, 200 to 110
    [710, 390]
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.power, bool) or not isinstance(self.power, int | float) or not 0 <= self.power < math.inf:
            raise ValueError(f"ERK(power={self.power!r}): the power is a number, 0 or more; 1 is the paper's")

    def keep(self, candidates: Sequence[Candidates], sparsity: float) -> list[Tensor]:
        by_units, asked = one_size(candidates), f"sparsity {sparsity}"
        what, remove = ("units", remove_units) if by_units else ("parameters", remove_parameters)
        totals, living = [], []
        for one in candidates:
            totals.append(one.units if by_units else int(one.unit_sizes.sum()))
            living.append(int(one.living.sum() if by_units else one.unit_sizes[one.living.cpu()].sum()))
        wanted, gone = round(sparsity * sum(totals)), sum(totals) - sum(living)
        if gone > wanted:
            raise already_removed(wanted, gone, asked, what, "the model")
        raw = [self._raw_density(one) for one in candidates]
        kept = _shares(
            [density * total for density, total in zip(raw, totals, strict=True)], living, sum(totals) - wanted
        )
        shares = _rounded([total - share for total, share in zip(totals, kept, strict=True)], wanted)
        return [remove([one], share, asked)[0] for one, share in zip(candidates, shares, strict=True)]

    def _raw_density(self, one: Candidates) -> float:
        filters, columns = one.matrix_shape(self)
        kernel = one.shape[2:]
        weights = filters * columns
        if not weights:
            return 0.0
        inputs = columns // math.prod(kernel)
        return float(((inputs + filters + sum(kernel)) / weights) ** self.power)


def _shares(proportions: Sequence[float], most: Sequence[int], total: int) -> list[float]:
    """`total` in the given proportions, but no more than `most` each: what is cut off goes to the others."""
    full: set[int] = set()
    while True:
        free = [index for index in range(len(most)) if index not in full]
        left = total - sum(most[index] for index in full)
        whole = sum(proportions[index] for index in free)
        scale = left / whole if whole else 0.0
        over = {index for index in free if proportions[index] * scale >= most[index]}
        if not over:
            return [most[index] if index in full else proportions[index] * scale for index in range(len(most))]
        full |= over


def _rounded(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers of the sum `total`: rounded down, the rest to the largest remainders, the first of equals first."""
    whole = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda index: (whole[index] - shares[index], index))
    for index in by_remainder[: total - sum(whole)]:
        whole[index] += 1
    return whole
