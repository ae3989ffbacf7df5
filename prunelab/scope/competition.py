"""One competition: the units with the lowest scores go, exactly as many as asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from prunelab.schedule import check_sparsity
from prunelab.scope.base import Candidates
from prunelab.selection import NotANumberError, keep_largest, keep_within_budget


@dataclass(frozen=True)
class Limits:
    """How far a parameter may be pruned: at least `minimum` of its units stay, at most round(maximum * units) go.

    The units that stay are its best; a parameter with fewer units, or that has lost more before, stays as it is.
    """

    minimum: int = 0
    maximum: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.minimum, Integral) or isinstance(self.minimum, bool) or self.minimum < 0:
            raise ValueError(f"minimum={self.minimum!r}: a whole number of units stays in each parameter, 0 or more")
        object.__setattr__(self, "minimum", int(self.minimum))
        object.__setattr__(self, "maximum", check_sparsity(self.maximum, "maximum"))

    def __str__(self) -> str:
        return f"minimum={self.minimum}" if self.maximum == 1 else f"minimum={self.minimum}, maximum={self.maximum}"

    def stay(self, one: Candidates) -> int:
        """How many units of a parameter stay at least."""
        return max(min(self.minimum, one.units), one.units - round(self.maximum * one.units))


NO_LIMITS = Limits()


def compete(candidates: Sequence[Candidates], sparsity: float, limits: Limits = NO_LIMITS) -> list[Tensor]:
    """Remove the units with the lowest scores among all `candidates` together, ties in order of position.

    Units of one size: exactly round(sparsity * units). Units of several sizes: from the lowest score on, each that
    still fits into round(sparsity * parameters).
    """
    if one_size(candidates):
        wanted = round(sparsity * sum(one.units for one in candidates))
        kept = remove_units(candidates, wanted, f"sparsity {sparsity}")
        enough = limits == NO_LIMITS or all(
            int(keep.sum()) >= limits.stay(one) for one, keep in zip(candidates, kept, strict=True)
        )
        return kept if enough else remove_units(candidates, wanted, f"sparsity {sparsity}", limits)
    budget = round(sparsity * sum(int(one.unit_sizes.sum()) for one in candidates))
    return remove_parameters(candidates, budget, f"sparsity {sparsity}", limits)


def one_size(candidates: Sequence[Candidates]) -> bool:
    """Whether all units have the same number of parameters."""
    distinct: set[int] = set()
    for one in candidates:
        distinct |= {one.sizes} if isinstance(one.sizes, int) else set(one.sizes.unique().tolist())
    return len(distinct) <= 1


def remove_units(candidates: Sequence[Candidates], wanted: int, asked: str, limits: Limits = NO_LIMITS) -> list[Tensor]:
    """Remove `wanted` units, those removed before included; `asked` is how errors call the wish."""
    loose = [_loose(one, limits) for one in candidates]
    gone = sum(int((~one.alive).sum()) for one in candidates if one.alive is not None)
    can_go = sum(one.units if free is None else int(free.sum()) for one, free in zip(candidates, loose, strict=True))
    remove = _left_to_remove(wanted, gone, can_go, asked, "units", candidates, limits)
    in_play = [one.scores if free is None else one.scores[free] for one, free in zip(candidates, loose, strict=True)]
    kept = _keep_largest(candidates, in_play, remove)
    return [_decision(*each) for each in zip(candidates, loose, kept, strict=True)]


def remove_parameters(
    candidates: Sequence[Candidates], budget: int, asked: str, limits: Limits = NO_LIMITS
) -> list[Tensor]:
    """Remove units that have `budget` parameters together at most, what was removed before included."""
    for one in candidates:
        if bool(one.scores[one.living].isnan().any()):
            raise nan_error(one)
    loose, scores, sizes, gone = [_loose(one, limits) for one in candidates], [], [], 0
    for one, free in zip(candidates, loose, strict=True):
        values = one.scores.abs() if one.magnitude else one.scores
        unit_sizes = one.unit_sizes
        if one.alive is not None:
            gone += int(unit_sizes[~one.alive.cpu()].sum())
        if free is not None:
            values, unit_sizes = values[free], unit_sizes[free.cpu()]
        scores.append(values.double().cpu())
        sizes.append(unit_sizes)
    can_go = sum(int(part.sum()) for part in sizes)
    left = _left_to_remove(budget, gone, can_go, asked, "parameters", candidates, limits)
    kept = keep_within_budget(torch.cat(scores), torch.cat(sizes), left).split([len(part) for part in scores])
    return [
        _decision(one, free, keep.to(one.scores.device))
        for one, free, keep in zip(candidates, loose, kept, strict=True)
    ]


def nan_error(one: Candidates) -> ValueError:
    count, what = int(one.scores.isnan().sum()), "weights" if one.magnitude else "scores"
    return ValueError(
        f"{one.name!r} has {count} NaN among its {one.scores.numel()} {what}: they cannot be ranked. Find where the "
        "training diverged (torch.autograd.set_detect_anomaly), or leave the parameter out with exclude= or parameters="
    )


def _keep_largest(candidates: Sequence[Candidates], values: list[Tensor], remove: int) -> list[Tensor]:
    try:
        return keep_largest(values, remove, magnitude=candidates[0].magnitude)
    except NotANumberError as error:
        raise nan_error(candidates[error.index]) from None


def _loose(one: Candidates, limits: Limits) -> Tensor | None:
    """Which units may go: bool (units,); None where all may."""
    stay = limits.stay(one)
    if stay == 0:
        return one.alive
    living = one.living
    scores = one.scores[living]
    (best,) = _keep_largest([one], [scores], max(0, len(scores) - stay))
    loose = torch.zeros_like(living)
    loose[living] = ~best
    return loose


def _decision(one: Candidates, loose: Tensor | None, keep: Tensor) -> Tensor:
    """A decision about the units that may go as one about all units."""
    if loose is None:
        return keep
    decision = one.living.clone()
    decision[loose] = keep
    return decision


def _left_to_remove(
    wanted: int, gone: int, can_go: int, asked: str, what: str, candidates: Sequence[Candidates], limits: Limits
) -> int:
    where = candidates[0].name if len(candidates) == 1 else "the model"
    if gone > wanted:
        raise already_removed(wanted, gone, asked, what, where)
    if wanted - gone > can_go:
        raise ValueError(
            f"{asked} means {wanted} {what} removed from {where}, but with {limits} only {gone + can_go} can go; "
            "ask for a smaller sparsity, or let more go"
        )
    return wanted - gone


class AlreadyRemovedError(ValueError):
    """More is gone than was asked for: pruning never gives back."""


def already_removed(wanted: int, gone: int, asked: str, what: str, where: str) -> AlreadyRemovedError:
    return AlreadyRemovedError(
        f"{asked} means {wanted} {what} removed from {where}, but within= has already removed {gone}; "
        "ask for a larger sparsity, or prune without within="
    )
