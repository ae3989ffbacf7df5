"""Curvature matrices behind one interface: products, diagonals, blocks, and columns of the inverse."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from prunelab.curvature.inverse import SMALLEST_EIGENVALUE, positive_inverse
from prunelab.curvature.objective import Objective, check_number
from prunelab.curvature.places import Places

Entries = str | int | slice | Sequence[int] | Tensor

# A matrix of more rows than this takes over 10 GB in float64: there is a way around it.
LARGEST = 36_000


class Curvature(ABC):
    """A symmetric matrix (n, n) over parameters laid end to end: the Hessian of a loss, or what stands in for it.

    `H @ v`, `H.diagonal()`, `H.block(...)` and `H.matrix()` read it; `H.solve(v)`, `H.inverse_columns(...)` and
    `H.inverse()` belong to the inverse of H + damping · I. Where that is indefinite or singular, a shift is added to
    the diagonal that makes its smallest eigenvalue 1e-4, and `H.shift(damping)` says which; nothing else is ever put
    in its place.

    Attributes:
        places: where each parameter lies; `H.by_parameter(H.diagonal())` is {name: tensor of its shape}.
    """

    places: Places

    @abstractmethod
    def __matmul__(self, vectors: Tensor) -> Tensor:
        """H times a vector (n,) or matrix (n, k)."""

    @abstractmethod
    def matrix(self) -> Tensor:
        """All of it, (n, n)."""

    def diagonal(self) -> Tensor:
        """(n,)."""
        return self.matrix().diagonal().clone()

    def block(self, rows: Entries, columns: Entries | None = None) -> Tensor:
        """A part of it. Entries are a parameter's name, a position, a slice, or a list of positions; the columns are
        the rows by default."""
        return self.matrix()[self.positions(rows)][:, self.positions(rows if columns is None else columns)]

    def solve(self, vectors: Tensor, damping: float = 0.0) -> Tensor:
        """(H + (damping + shift) · I)⁻¹ times a vector (n,) or matrix (n, k)."""
        return self.inverse(damping) @ vectors

    def inverse_columns(self, columns: Entries, damping: float = 0.0) -> Tensor:
        """Columns (n, k) of (H + (damping + shift) · I)⁻¹."""
        positions = self.positions(columns)
        picks = torch.zeros(self.places.size, len(positions), dtype=self.dtype, device=self.device)
        picks[positions, torch.arange(len(positions), device=self.device)] = 1
        return self.solve(picks, damping)

    def inverse(self, damping: float = 0.0) -> Tensor:
        """(H + (damping + shift) · I)⁻¹, (n, n)."""
        return self._inverse(check_number("damping", damping))[0]

    def shift(self, damping: float = 0.0) -> float:
        """What had to be added to the diagonal, beside the damping, to make it positive definite; mostly 0.0."""
        return self._inverse(check_number("damping", damping))[1]

    def _inverse(self, damping: float) -> tuple[Tensor, float]:
        if damping not in self._inverses:
            self._inverses[damping] = positive_inverse(self.matrix(), damping)
        return self._inverses[damping]

    @cached_property
    def _inverses(self) -> dict[float, tuple[Tensor, float]]:
        return {}

    def blocks(self, size: int | None = None) -> BlockDiagonal:
        """Its blocks along the diagonal, one a parameter or, with `size`, of so many rows; the rest counts as zero."""
        if size is None:
            spans = [span for _, span in self.places]
        else:
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"size must be a whole number of rows, at least 1, not {size!r}")
            ends = range(0, self.places.size, size)
            spans = [slice(start, min(start + size, self.places.size)) for start in ends]
        return BlockDiagonal(self.places, [Dense(_part(span), self.block(span)) for span in spans])

    def by_parameter(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector (n,) as tensors of the parameters' shapes."""
        return self.places.split(vector)

    def positions(self, entries: Entries) -> Tensor:
        """Positions as int64 (k,), from any way of naming them."""
        everything = torch.arange(self.places.size, device=self.device)
        if isinstance(entries, str):
            return everything[self.places.span(entries)]
        if isinstance(entries, slice):
            return everything[entries]
        index = torch.as_tensor(entries, device=self.device).reshape(-1)
        return everything[index if index.numel() else index.long()]  # an empty list has no integers to go by

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype: ...

    @property
    @abstractmethod
    def device(self) -> torch.device: ...


class Dense(Curvature):
    """A matrix that is there, (n, n)."""

    def __init__(self, places: Places, matrix: Tensor) -> None:
        self.places, self._matrix = places, matrix

    def __matmul__(self, vectors: Tensor) -> Tensor:
        return self._matrix @ vectors.to(self._matrix)

    def matrix(self) -> Tensor:
        return self._matrix

    @property
    def dtype(self) -> torch.dtype:
        return self._matrix.dtype

    @property
    def device(self) -> torch.device:
        return self._matrix.device


class Exact(Curvature):
    """The Hessian of an objective at a point. `H @ v` never builds it; everything else does, as far as it needs it."""

    def __init__(self, objective: Objective, point: Tensor | None = None) -> None:
        self.places, self.objective = objective.places, objective
        self._point = objective.start if point is None else point

    def __matmul__(self, vectors: Tensor) -> Tensor:
        return self.objective.product(self._point, vectors)

    def matrix(self) -> Tensor:
        return self._built

    @cached_property
    def _built(self) -> Tensor:
        check_size(self.places.size)
        return self.objective.hessian(self._point)

    def block(self, rows: Entries, columns: Entries | None = None) -> Tensor:
        if "_built" in self.__dict__ or columns is not None:
            return super().block(rows, columns)
        return self.objective.hessian(self._point, self.positions(rows))

    @property
    def dtype(self) -> torch.dtype:
        return self._point.dtype

    @property
    def device(self) -> torch.device:
        return self._point.device


class Factored(Curvature):
    """Xᵀ X + ridge · I, kept as the matrix X (m, n): products cost no more than X has entries."""

    def __init__(self, places: Places, factor: Tensor, ridge: float = 0.0) -> None:
        self.places, self.factor, self.ridge = places, factor, ridge

    def __matmul__(self, vectors: Tensor) -> Tensor:
        vectors = vectors.to(self.factor)
        return self.factor.T @ (self.factor @ vectors) + self.ridge * vectors

    def matrix(self) -> Tensor:
        check_size(self.places.size)
        return self.factor.T @ self.factor + self.ridge * torch.eye(self.places.size).to(self.factor)

    def diagonal(self) -> Tensor:
        return self.factor.square().sum(0) + self.ridge

    def block(self, rows: Entries, columns: Entries | None = None) -> Tensor:
        down = self.positions(rows)
        across = down if columns is None else self.positions(columns)
        same = (down[:, None] == across).to(self.dtype)
        return self.factor[:, down].T @ self.factor[:, across] + self.ridge * same

    def solve(self, vectors: Tensor, damping: float = 0.0) -> Tensor:
        if len(self.factor) >= self.places.size:
            return super().solve(vectors, damping)
        # (c I + XᵀX)⁻¹ v = (v - Xᵀ (c I + X Xᵀ)⁻¹ X v) / c, which needs no matrix larger than (m, m).
        raised = self.ridge + damping + self.shift(damping)
        inner = self.factor @ self.factor.T + raised * torch.eye(len(self.factor)).to(self.factor)
        vectors = vectors.to(self.factor)
        weights = torch.linalg.solve(inner, self.factor @ vectors)
        return (vectors - self.factor.T @ weights) / raised

    def shift(self, damping: float = 0.0) -> float:
        if len(self.factor) >= self.places.size:
            return super().shift(damping)
        smallest = self.ridge + check_number("damping", damping)  # XᵀX has a null space
        rounding = self.places.size * torch.finfo(self.dtype).eps * float(self.factor.norm()) ** 2
        return 0.0 if smallest > rounding else SMALLEST_EIGENVALUE - smallest

    @property
    def dtype(self) -> torch.dtype:
        return self.factor.dtype

    @property
    def device(self) -> torch.device:
        return self.factor.device


class BlockDiagonal(Curvature):
    """Blocks along the diagonal, zero elsewhere: inverted block by block, each with a shift of its own if it needs one.

    `shift` is the largest of them.
    """

    def __init__(self, places: Places, parts: Sequence[Curvature]) -> None:
        self.places, self.parts = places, tuple(parts)

    def __matmul__(self, vectors: Tensor) -> Tensor:
        return torch.cat([part @ piece for part, piece in zip(self.parts, self._pieces(vectors), strict=True)])

    def matrix(self) -> Tensor:
        check_size(self.places.size)
        return torch.block_diag(*[part.matrix() for part in self.parts])

    def diagonal(self) -> Tensor:
        return torch.cat([part.diagonal() for part in self.parts])

    def solve(self, vectors: Tensor, damping: float = 0.0) -> Tensor:
        pieces = self._pieces(vectors)
        return torch.cat([part.solve(piece, damping) for part, piece in zip(self.parts, pieces, strict=True)])

    def inverse(self, damping: float = 0.0) -> Tensor:
        check_size(self.places.size)
        return torch.block_diag(*[part.inverse(damping) for part in self.parts])

    def shift(self, damping: float = 0.0) -> float:
        return max((part.shift(damping) for part in self.parts), default=0.0)

    def _pieces(self, vectors: Tensor) -> tuple[Tensor, ...]:
        return vectors.split([part.places.size for part in self.parts])

    @property
    def dtype(self) -> torch.dtype:
        return self.parts[0].dtype

    @property
    def device(self) -> torch.device:
        return self.parts[0].device


def check_size(size: int) -> None:
    """Raises ValueError for a matrix that is too large to be built."""
    if size > LARGEST:
        raise ValueError(
            f"a matrix over {size:,} parameters would take {size * size * 8 / 1e9:,.0f} GB; use H @ v or "
            "curvature.hessian_diagonal, or name fewer parameters with parameters=[...]"
        )


def _part(span: slice) -> Places:
    return Places((f"rows {span.start} to {span.stop - 1}",), ((span.stop - span.start,),))
