"""Damping: what is added to a covariance's diagonal, and what happens where that was too little."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from prunelab.criteria.members import precise
from prunelab.curvature.layerwise.covariance import InputCovariance

T = TypeVar("T")

_FIRST = 1e-6  # of the mean diagonal: what a singular covariance is given first, then ten times as much, ...
_MARGIN = 10  # pivots below so many rounding errors are noise


class DampingWarning(UserWarning):
    """The inputs of a layer depend on each other, so more was added to their covariance's diagonal than asked for."""


class SingularError(ValueError):
    """A matrix that has no Cholesky factor, or none that rounding errors have left anything of."""


def check_damping(damping: float) -> float:
    """`damping` as a float of 0 or more; anything else is refused with the reason."""
    if isinstance(damping, bool) or not isinstance(damping, int | float):
        raise TypeError(f"damping must be a number such as 0.01, or None for the method's own, not {damping!r}")
    if not 0 <= damping < math.inf:
        raise ValueError(f"damping must be 0 or more, and finite, not {damping!r}; 0.01 is usual")
    return float(damping)


def solve_damped(
    covariance: InputCovariance, damping: float, device: torch.device, solve: Callable[[Tensor, float], T]
) -> tuple[T, float]:
    """`solve(H + damping · mean(diag H) · I, noise)`, with H on the device, and the damping that it took.

    `noise` is the relative rounding error of an entry of H. Where `solve` raises SingularError, it is called again with
    more damping: 1e-6 or ten times what was asked for, whichever is more, and so on, up to 1. H is never replaced. The
    diagonal of an input that was always zero is the mean, too: what its weights are does not matter.
    """
    matrix = covariance.matrix
    noise = torch.finfo(matrix.dtype).eps
    matrix = precise(matrix.to(device))
    diagonal = matrix.diagonal()  # a view: the damping is added in place
    plain, mean = diagonal.clone(), diagonal.mean()
    plain[plain == 0] = mean if mean > 0 else 1.0
    for tried in _ladder(damping):
        diagonal.copy_(plain + tried * mean)
        try:
            return solve(matrix, noise), tried
        except SingularError:
            continue
    raise ValueError(
        f"{covariance} cannot be inverted, whatever is added to its diagonal: its entries differ too much in size; "
        "scale the inputs, or add them up in float64"
    )


def _ladder(damping: float) -> Iterator[float]:
    yield damping
    more = max(_FIRST, 10 * damping)
    while more <= max(1.0, 10 * damping):
        yield more
        more *= 10


def factor(matrix: Tensor, noise: float) -> Tensor:
    """The lower Cholesky factor, of one matrix or a batch. `noise` is the relative error of the entries.

    Raises SingularError where a matrix is not positive definite, or a pivot (what is left of a diagonal entry once the
    others have explained what they can of it) is no larger than rounding errors are.
    """
    lower, info = torch.linalg.cholesky_ex(matrix)
    left = lower.diagonal(dim1=-2, dim2=-1).square() / matrix.diagonal(dim1=-2, dim2=-1)
    if bool(info.any()) or not bool((left > _MARGIN * math.sqrt(matrix.shape[-1]) * noise).all()):
        raise SingularError("not positive definite")
    return lower


def warn_of_damping(asked: float, used: float, where: str) -> None:
    """Warn that a layer needed more damping than was asked for."""
    warnings.warn(
        f"the inputs of {where} depend on each other (too few samples, or features that others add up to), so "
        f"{used:g} of the mean was added to the diagonal of their covariance instead of {asked:g}; give more samples, "
        "or ask for that much with damping=",
        DampingWarning,
        stacklevel=4,  # of the caller of a public function, which torch.no_grad() wraps
    )
