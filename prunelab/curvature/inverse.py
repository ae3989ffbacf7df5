"""Inverses of curvature matrices: of indefinite ones, from outer products, and as weights are taken out of them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

# What the smallest eigenvalue of a matrix that is not positive definite is shifted to.
SMALLEST_EIGENVALUE = 1e-4
# How many columns of updates, or rows of samples, are gathered before they are applied with one matrix product.
BATCH = 64


def positive_shift(matrix: Tensor) -> float:
    """What to add to the diagonal so that the matrix is positive definite: 0.0 where it is.

    A matrix whose smallest eigenvalue is not above rounding, n · eps · ‖H‖, is indefinite or singular, and its inverse
    would lead uphill or nowhere. It is shifted so that its smallest eigenvalue is 1e-4. Raises ValueError where it
    holds NaN or infinities.
    """
    if not bool(matrix.isfinite().all()):
        raise ValueError("the Hessian has entries that are NaN or infinite: look for them in the weights and the data")
    return _inverted(matrix)[1]


def positive_inverse(matrix: Tensor, damping: float = 0.0) -> tuple[Tensor, float]:
    """(H + (damping + shift) · I)⁻¹ and the shift, as `positive_shift` finds it after damping."""
    if not bool(matrix.isfinite().all()):
        raise ValueError("the Hessian has entries that are NaN or infinite: look for them in the weights and the data")
    return _inverted(_raised(matrix, damping) if damping else matrix)


def _inverted(matrix: Tensor) -> tuple[Tensor, float]:
    """The inverse of the shifted matrix, and the shift."""
    rounding = len(matrix) * torch.finfo(matrix.dtype).eps * float(matrix.norm())
    inverse = _cholesky_inverse(matrix)
    # The trace of the inverse is at least 1 / the smallest eigenvalue: only a large one needs a closer look.
    if inverse is not None and float(inverse.trace()) * rounding < 1:
        return inverse, 0.0
    smallest = float(torch.linalg.eigvalsh(matrix)[0]) if len(matrix) else 1.0
    shift = 0.0 if smallest > rounding else SMALLEST_EIGENVALUE - smallest
    inverse = _cholesky_inverse(_raised(matrix, shift))
    if inverse is None:
        raise ValueError(
            f"the Hessian stays singular when its smallest eigenvalue, {smallest:.3g}, is shifted to "
            f"{SMALLEST_EIGENVALUE:g}: that is below rounding beside its norm, {float(matrix.norm()):.3g}; give more "
            "damping or weight_decay"
        )
    return inverse, shift


def _raised(matrix: Tensor, shift: float) -> Tensor:
    return matrix + shift * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)


def _cholesky_inverse(matrix: Tensor) -> Tensor | None:
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return None if bool(failed) else torch.cholesky_inverse(factor)


def inverse_of_outer_products(samples: Iterable[Tensor], size: int, damping: float, *, batch: int = BATCH) -> Tensor:
    """(damping · I + Σ x xᵀ)⁻¹, built up from the samples in a single pass (Hassibi & Stork 1993).

    Starts from I / damping, and takes each sample in by the matrix inversion lemma:

        H⁻¹ ← H⁻¹ - H⁻¹ x xᵀ H⁻¹ / (1 + xᵀ H⁻¹ x)

    or, the same in fewer products, `batch` samples at a time. The paper's X are √P · x for P samples, and its damping,
    α, lies between 1e-8 and 1e-4.

    Args:
        samples: matrices (any number, size), a sample in each row.
        size: n.
        damping: above 0.
        batch: 1 is the paper's recursion, word for word.

    >>> inverse_of_outer_products([torch.tensor([[1.0, 1.0]])], 2, damping=1.0)
    tensor([[ 0.6667, -0.3333],
            [-0.3333,  0.6667]])
    """
    inverse: Tensor | None = None
    for several in samples:
        for rows in several.split(batch):  # (b, n)
            if inverse is None:
                inverse = torch.eye(size, dtype=rows.dtype, device=rows.device) / damping
            spread = inverse @ rows.T  # (n, b)
            inner = _raised(rows @ spread, 1.0)  # (b, b)
            inverse -= spread @ torch.cholesky_solve(spread.T, torch.linalg.cholesky(inner))
    if inverse is None:
        raise ValueError("there are no samples to build a matrix from")
    return (inverse + inverse.T) / 2


class ShrinkingInverse:
    """The inverse of H as rows and columns are taken out of H, one or several at a time.

    Taking the rows and columns R out of H changes its inverse to H⁻¹ - H⁻¹[:, R] H⁻¹[R, R]⁻¹ H⁻¹[R, :] (for one row
    Frantar et al. 2022 print it as a step of OBC). The changes are kept as columns U, so that the inverse is
    B - U Uᵀ, and put into B with one matrix product for every 64 of them: B is read and written once, not 64 times.
    What is gone is dropped from B too once it is a quarter of it.

    Args:
        inverse: H⁻¹, (n, n), symmetric; it is not changed.

    Attributes:
        diagonal: (n,) of the present inverse; infinite where a row was taken out.
        left: bool (n,), what was not taken out.
    """

    def __init__(self, inverse: Tensor) -> None:
        self.diagonal = inverse.diagonal().clone()
        self.left = torch.ones(len(inverse), dtype=torch.bool, device=inverse.device)
        self._base = inverse.clone()
        self._here = torch.arange(len(inverse), device=inverse.device)  # the position of each row of the base
        self._row = self._here.clone()  # the row of the base at which a position is found
        self._changes = inverse.new_zeros(BATCH, len(inverse))  # Uᵀ; rows, so that one is contiguous in memory
        self._waiting = 0

    def columns(self, positions: Tensor) -> Tensor:
        """Columns (n, k) of the present inverse; zero in the rows that were taken out."""
        rows = self._columns(self._row[positions])
        whole = rows.new_zeros(len(positions), len(self.left))
        return whole.index_copy_(1, self._here, rows).T

    def block(self, positions: Tensor) -> Tensor:
        """The present inverse's rows and columns (k, k) at some positions."""
        return self._columns(self._row[positions])[:, self._row[positions]]

    def remove(self, positions: Tensor, coefficients: Tensor) -> Tensor:
        """Take rows and columns out of H; returns H⁻¹[:, R] H⁻¹[R, R]⁻¹ · coefficients, (n,), before they are gone.

        With the weights w[R] as coefficients that is what has to be taken from all weights, w[R] itself included.
        """
        rows = self._row[positions]
        columns = self._columns(rows)  # (k, m), the columns as rows
        factor = torch.linalg.cholesky(columns[:, rows])
        scaled = torch.linalg.solve_triangular(factor, columns, upper=False)  # L⁻¹ H⁻¹[R, :]
        share = torch.linalg.solve_triangular(factor, coefficients[:, None], upper=False)[:, 0]
        change = scaled.new_zeros(len(self.left)).index_copy_(0, self._here, share @ scaled)
        self.diagonal.index_add_(0, self._here, -scaled.square().sum(0))
        self.diagonal[positions] = torch.inf
        self.left[positions] = False
        self._keep(scaled)
        return change

    def _columns(self, rows: Tensor) -> Tensor:
        """Columns of the present inverse, as rows (k, m), for rows of the base."""
        waiting = self._changes[: self._waiting]
        return self._base[rows] - waiting[:, rows].T @ waiting

    def _keep(self, changes: Tensor) -> None:
        """Let changes (k, m) wait, or put all that wait into the base."""
        if self._waiting + len(changes) <= BATCH:
            self._changes[self._waiting : self._waiting + len(changes)] = changes
            self._waiting += len(changes)
            return
        for rows in (self._changes[: self._waiting], changes):
            self._base.addmm_(rows.T, rows, alpha=-1)
        self._waiting = 0
        alive = self.left[self._here]
        if int(alive.sum()) < 0.75 * len(alive):
            self._compact(alive.nonzero()[:, 0])

    def _compact(self, alive: Tensor) -> None:
        self._base = self._base[alive][:, alive].contiguous()
        self._here = self._here[alive]
        self._row[self._here] = torch.arange(len(self._here), device=self._here.device)
        self._changes = self._changes.new_zeros(BATCH, len(self._here))
