"""The four methods on one layer, whose rows may come in groups that read different inputs (grouped convolutions)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prunelab.criteria.members import finest, precise
from prunelab.curvature.layerwise.covariance import InputCovariance
from prunelab.curvature.layerwise.damping import factor, solve_damped
from prunelab.curvature.layerwise.settings import Settings
from prunelab.curvature.layerwise.sparsegpt import left_to_right
from prunelab.curvature.layerwise.squares import least_squares
from prunelab.curvature.layerwise.surgeon import greedy_rows
from prunelab.scope import Candidates, PerRow, resolve

Covariances = Sequence[InputCovariance]  # of each group of rows


def check_weight(weight: Tensor, name: str = "weight") -> None:
    """Raises TypeError or ValueError unless it is a matrix (O, I) of finite floats."""
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.element_size() == 1:
        given = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise TypeError(f"{name} must be a float64, float32, float16 or bfloat16 tensor (O, I), not {given}")
    if weight.dim() != 2:
        raise ValueError(
            f"{name} has shape {tuple(weight.shape)}, and a layer's matrix is (O, I); that of a convolution is "
            "weight.flatten(1), its inputs are the patches that it reads"
        )
    if weight.numel() and not all(bool(extreme.isfinite()) for extreme in weight.detach().aminmax()):
        bad = int((~weight.isfinite()).sum())
        raise ValueError(f"{name} has {bad} values among its {weight.numel()} that are NaN or infinite; mend them")


def solve(weight: Tensor, covariances: Covariances, settings: Settings) -> tuple[Tensor, Tensor, float]:
    """The new weight (O, I), of the old one's dtype, its mask, and the damping that it took: the most of any group."""
    values = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    groups, used = values.chunk(len(covariances)), settings.damping
    if settings.method in ("wanda", "magnitude") or not weight.numel():
        mask = _by_score(values, covariances, settings)
        new = values.masked_fill(~mask, 0)
    else:
        before = range(0, weight.numel(), groups[0].numel())
        parts = [_pruned(*given, settings) for given in zip(groups, covariances, before, strict=True)]
        new, mask = (torch.cat(found) for found in list(zip(*parts, strict=True))[:2])
        used = max(part[2] for part in parts)
    if settings.refit and weight.numel():
        fits = [refitted(*given, used) for given in zip(groups, covariances, mask.chunk(len(groups)), strict=True)]
        new, used = torch.cat([fit[0] for fit in fits]), max(fit[1] for fit in fits)
    return new.to(weight.dtype), mask, used


def refitted(weight: Tensor, covariance: InputCovariance, mask: Tensor, damping: float) -> tuple[Tensor, float]:
    """The least-squares weights on the mask, of the weight's dtype, and the damping that it took."""
    new, used = solve_damped(
        covariance, damping, weight.device, lambda hessian, noise: least_squares(precise(weight), hessian, noise, mask)
    )
    return torch.where(mask & _dead(covariance, weight), weight, new.to(weight.dtype)), used


def relative_error(weight: Tensor, pruned: Tensor, covariances: Covariances) -> float:
    """‖X(W - Ŵ)ᵀ‖² / ‖XWᵀ‖²: the part of a layer's outputs, bias aside, that was lost; 0.0 where it put out nothing.

    In the covariance's precision: a product in float64 would take a fifth of Wanda's whole time.
    """
    whole = lost = 0.0
    pairs = zip(*(one.detach().chunk(len(covariances)) for one in (weight, pruned)), covariances, strict=True)
    for rows, left, covariance in pairs:
        matrix = covariance.matrix.to(rows.device)
        rows, gone = rows.to(matrix.dtype), rows.to(matrix.dtype) - left.to(matrix.dtype)
        total = finest(matrix.device)
        whole += float((rows @ matrix).mul_(rows).sum(dtype=total))
        lost += float((gone @ matrix).mul_(gone).sum(dtype=total))
    return max(lost, 0.0) / whole if whole > 0 else 0.0


def _by_score(weight: Tensor, covariances: Covariances, settings: Settings) -> Tensor:
    """The mask of the methods that leave the other weights as they are."""
    scores, competition = weight, resolve("local")
    if settings.method == "wanda":
        norms = torch.stack([covariance.norms for covariance in covariances]).to(weight.device)  # (groups, I)
        in_groups = weight.reshape(len(norms), -1, weight.shape[1]) if weight.numel() else weight  # (groups, rows, I)
        scores = in_groups * precise(norms)[:, None]
        competition = PerRow()
    candidates = Candidates("weight", scores.flatten(), 1, magnitude=True, shape=tuple(weight.shape))
    (kept,) = (settings.pattern or competition).keep([candidates], settings.sparsity)
    return kept.view(weight.shape)


def _pruned(
    weight: Tensor, covariance: InputCovariance, before: int, settings: Settings
) -> tuple[Tensor, Tensor, float]:
    """The new weights of a group of rows, the mask, and the damping; `before` is the number of weights before them."""

    def attempt(hessian: Tensor, noise: float) -> tuple[Tensor, Tensor]:
        if settings.method == "obs":
            return greedy_rows(precise(acting), hessian, noise, settings.sparsity, settings.pattern)
        upper = factor(hessian.flip(0, 1), noise).flip(0, 1).to(acting.dtype)
        return left_to_right(acting, upper, settings.sparsity, settings.pattern, settings.block_size, before)

    dead = _dead(covariance, weight)
    acting = weight.masked_fill(dead, 0)  # what an input that is always zero meets costs nothing, and goes first
    (new, mask), used = solve_damped(covariance, settings.damping, weight.device, attempt)
    return torch.where(mask & dead, weight, new.to(weight.dtype)), mask, used


def _dead(covariance: InputCovariance, weight: Tensor) -> Tensor:
    """The inputs that were always zero, (I,) bool, on the weight's device."""
    return (covariance.norms == 0).to(weight.device)
