"""The Laplace kernel with a feature matrix, exp(−√((x − z)ᵀ M (x − z)) / L), and the slope of its predictor."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_CELLS = 1 << 22  # distances that are held at a time
_NOTHING = 1e-10  # a distance below this fraction of the data's extent is rounding: such points count as one


def root(matrix: Tensor) -> Tensor:
    """A with A Aᵀ = M, so that distances under M are plain ones between the rows x A; of a diagonal (d,), (d,)."""
    if matrix.dim() == 1:
        return matrix.clamp(min=0).sqrt()
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt()


def mapped(x: Tensor, by: Tensor) -> Tensor:
    """x A, (n, d): by a matrix, or by a diagonal."""
    return x * by if by.dim() == 1 else x @ by


class Laplace:
    """The kernel between any points and fixed `centres` (n, d), with M (d, d) or its diagonal (d,).

    Distances are computed from differences and not from a product of matrices, so that equal points are at distance 0
    exactly.
    """

    def __init__(self, centres: Tensor, matrix: Tensor, bandwidth: float) -> None:
        self.centres, self.matrix, self.bandwidth = centres, matrix, bandwidth
        self._root = root(matrix)
        self._mapped = mapped(centres, self._root)  # (n, d)
        self._nothing = _NOTHING * float(self._mapped.norm(dim=1).amax())

    def distances(self, x: Tensor) -> Tensor:
        """√((x − z)ᵀ M (x − z)) for points (m, d) and every centre z: (m, n)."""
        found = torch.cdist(mapped(x, self._root), self._mapped, compute_mode="donot_use_mm_for_euclid_dist")
        return found.masked_fill_(found <= self._nothing, 0)

    def __call__(self, x: Tensor) -> Tensor:
        """K(x, z): (m, n)."""
        return self.distances(x).div_(-self.bandwidth).exp_()

    def batches(self, x: Tensor) -> Iterator[Tensor]:
        """`x` in pieces whose distances fit into memory."""
        yield from x.split(max(1, _CELLS // len(self.centres)))

    def slopes(self, x: Tensor, coefficients: Tensor) -> Iterator[Tensor]:
        """M⁻¹ ∇f of the predictor f(x) = Σᵢ αᵢ K(x, zᵢ) at points (m, d), one output after the other: (m, d).

        ∇f(x) = M Σᵢ αᵢ K(x, zᵢ) (zᵢ − x) / (L · distance). The kernel has a tip at x = zᵢ, where it has no gradient:
        that term is left out, which is the mean of the slopes on opposite sides.
        """
        distances = self.distances(x)
        weights = (distances / -self.bandwidth).exp_().div_(distances * self.bandwidth)  # (m, n)
        weights.masked_fill_(distances == 0, 0)
        for column in coefficients.T:
            pulls = weights * column  # (m, n)
            yield pulls @ self.centres - pulls.sum(1, keepdim=True) * x

    def gradients(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """∇f for points (m, d) and coefficients (n, k): (m, k, d)."""
        found = [torch.stack([mapped(slope, self.matrix) for slope in self.slopes(part, coefficients)], dim=1)
                 for part in self.batches(x)]  # fmt: skip
        return torch.cat(found) if found else x.new_zeros(0, coefficients.shape[1], x.shape[1])

    def agop(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """(1/m) Σ ∇f ∇fᵀ over points and outputs: (d, d), or (d,) its diagonal where M is one."""
        total = torch.zeros_like(self.matrix)
        for part in self.batches(x):
            for slope in self.slopes(part, coefficients):
                total += slope.square().sum(0) if total.dim() == 1 else slope.T @ slope
        total /= len(x)
        if total.dim() == 1:
            return self.matrix.square() * total
        found = self.matrix @ total @ self.matrix
        return (found + found.T) / 2
