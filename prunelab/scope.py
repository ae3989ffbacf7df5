"""Among whom units compete: a scope says which units are ranked together, and so where the sparsity is counted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prunelab.granularity import PLAIN, Granularity, Layout, Weight
from prunelab.selection import NotANumberError, keep_largest, keep_within_budget

__all__ = ["Candidates", "Global", "Local", "Scope", "resolve"]


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


class Scope(ABC):
    """Decides which units stay, given the scores of all of them and the sparsity to reach."""

    @abstractmethod
    def keep(self, candidates: Sequence[Candidates], sparsity: float) -> list[Tensor]:
        """For each of `candidates`, bool (units,), True = kept."""


@dataclass(frozen=True)
class Global(Scope):
    """All units of the model compete: layers end up with different sparsities (Hubens 2020; Blalock et al. 2020)."""

    def keep(self, candidates: Sequence[Candidates], sparsity: float) -> list[Tensor]:
        return compete(candidates, sparsity)


@dataclass(frozen=True)
class Local(Scope):
    """Units compete within their own parameter: every layer is pruned to the same sparsity."""

    def keep(self, candidates: Sequence[Candidates], sparsity: float) -> list[Tensor]:
        return [compete([one], sparsity)[0] for one in candidates]


_BY_NAME: dict[str, Scope] = {"global": Global(), "local": Local()}


def resolve(scope: str | Scope) -> Scope:
    """The scope that a user's argument names."""
    if isinstance(scope, Scope):
        return scope
    if isinstance(scope, str) and scope in _BY_NAME:
        return _BY_NAME[scope]
    if isinstance(scope, type) and issubclass(scope, Scope):
        raise TypeError(f"scope must be a Scope, not the class {scope.__name__}; write {scope.__name__}()")
    raise ValueError(f"unknown scope {scope!r}; use {' or '.join(map(repr, _BY_NAME))}, or a scope.Scope of your own")


def compete(candidates: Sequence[Candidates], sparsity: float) -> list[Tensor]:
    """Remove the units with the lowest scores among all `candidates` together, ties in order of position.

    Units of one size: exactly round(sparsity * units). Units of several sizes: from the lowest score on, each that
    still fits into round(sparsity * parameters).
    """
    sizes = {size for one in candidates for size in _distinct_sizes(one)}
    if len(sizes) <= 1:
        return _compete_equals(candidates, sparsity)
    return _compete_by_budget(candidates, sparsity)


def _distinct_sizes(one: Candidates) -> list[int]:
    return [one.sizes] if isinstance(one.sizes, int) else one.sizes.unique().tolist()


def _compete_equals(candidates: Sequence[Candidates], sparsity: float) -> list[Tensor]:
    units = sum(one.scores.shape[0] for one in candidates)
    gone = sum(int((~one.alive).sum()) for one in candidates if one.alive is not None)
    remove = _left_to_remove(round(sparsity * units), gone, sparsity, "units", candidates)
    living = [one.scores if one.alive is None else one.scores[one.alive] for one in candidates]
    try:
        kept = keep_largest(living, remove, magnitude=candidates[0].magnitude)
    except NotANumberError as error:
        raise _nan_error(candidates[error.index]) from None
    return [_among_living(one, keep) for one, keep in zip(candidates, kept, strict=True)]


def _compete_by_budget(candidates: Sequence[Candidates], sparsity: float) -> list[Tensor]:
    scores, sizes, gone = [], [], 0
    for one in candidates:
        if bool(one.scores.isnan().any()):
            raise _nan_error(one)
        values = one.scores.abs() if one.magnitude else one.scores
        unit_sizes = torch.as_tensor(one.sizes).expand(values.shape[0])
        if one.alive is not None:
            gone += int(unit_sizes[~one.alive.cpu()].sum())
            values, unit_sizes = values[one.alive], unit_sizes[one.alive.cpu()]
        scores.append(values.double().cpu())
        sizes.append(unit_sizes)
    total = sum(int(torch.as_tensor(one.sizes).expand(one.scores.shape[0]).sum()) for one in candidates)
    budget = _left_to_remove(round(sparsity * total), gone, sparsity, "parameters", candidates)
    kept = keep_within_budget(torch.cat(scores), torch.cat(sizes), budget).split([len(part) for part in scores])
    return [_among_living(one, keep.to(one.scores.device)) for one, keep in zip(candidates, kept, strict=True)]


def _left_to_remove(wanted: int, gone: int, sparsity: float, what: str, candidates: Sequence[Candidates]) -> int:
    if gone > wanted:
        where = candidates[0].name if len(candidates) == 1 else "the model"
        raise ValueError(
            f"sparsity {sparsity} means {wanted} {what} removed from {where}, but within= has already removed {gone}; "
            "ask for a larger sparsity, or prune without within="
        )
    return wanted - gone


def _among_living(one: Candidates, keep: Tensor) -> Tensor:
    """A decision about the living units as one about all units: the others stay removed."""
    if one.alive is None:
        return keep
    decision = torch.zeros_like(one.alive)
    decision[one.alive] = keep
    return decision


def _nan_error(one: Candidates) -> ValueError:
    count, what = int(one.scores.isnan().sum()), "weights" if one.magnitude else "scores"
    return ValueError(
        f"{one.name!r} has {count} NaN among its {one.scores.numel()} {what}: they cannot be ranked. Find where the "
        "training diverged (torch.autograd.set_detect_anomaly), or leave the parameter out with parameters=[...]"
    )
