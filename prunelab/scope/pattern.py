"""N:M patterns: in every few consecutive weights the same number stays, which hardware can use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from prunelab.granularity import Weight
from prunelab.schedule import check_sparsity
from prunelab.scope.base import Candidates, Scope
from prunelab.scope.per_row import in_rows


@dataclass(frozen=True)
class NM(Scope):
    """Of every `m` consecutive weights along the input dimension `n` stay (Mishra et al. 2021: 2:4 on tensor cores).

    The input dimension is the row of the matrix (O, I/g·kernel), flattened. Where `m` does not divide it, the last
    weights of a row are a short group, and min(n, its size) of them stay. 0 <= n < m. The sparsity is that of the
    pattern: ask for None or 1 - n/m. A group of which `within=` has left fewer than n weights keeps those.
    Single weights only.

    >>> import torch
    >>> scores = torch.tensor([4.0, 3.0, 2.0, 1.0, 10.0, 40.0, 20.0, 30.0])
    >>> NM(2, 4).keep([Candidates("fc", scores, 1, shape=(1, 8))], 0.5)[0].int().tolist()
    [1, 1, 0, 0, 0, 1, 0, 1]
    """

    fixed: ClassVar[bool] = True

    n: int
    m: int

    def __post_init__(self) -> None:
        for name in ("n", "m"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool):
                raise TypeError(f"NM({self.n!r}, {self.m!r}): {name} is a whole number of weights")
            object.__setattr__(self, name, int(value))
        if not 0 <= self.n < self.m:
            raise ValueError(f"{self}: n of every m weights stay, so 0 <= n < m; 2:4 is NM(2, 4)")

    def __repr__(self) -> str:
        return f"NM({self.n}, {self.m})"

    def check(self, sparsity: float | None) -> float:
        pattern = 1 - self.n / self.m
        if sparsity is not None and not math.isclose(check_sparsity(sparsity), pattern, abs_tol=1e-6):
            raise ValueError(
                f"{self} removes {pattern:.6g} of the weights, so sparsity must be that or None, not {sparsity}"
            )
        return pattern

    def keep(self, candidates: Sequence[Candidates], sparsity: float) -> list[Tensor]:  # noqa: ARG002
        return [self._keep_one(one) for one in candidates]

    def _keep_one(self, one: Candidates) -> Tensor:
        if not isinstance(one.granularity, Weight):
            raise ValueError(
                f"{self} is a pattern of single weights, and {one.granularity} has larger units; use "
                "granularity.Weight(), or another scope, such as 'local'"
            )
        rows, columns = one.matrix_shape(self)
        # A short last group is filled up with weights that are gone already: they go first.
        filling = -columns % self.m
        scores, alive = one.scores.view(rows, columns), one.alive
        if alive is not None or filling:
            alive = functional.pad(one.living.view(rows, columns), (0, filling)).view(-1, self.m)
        groups = functional.pad(scores, (0, filling)).view(-1, self.m) if filling else scores.view(-1, self.m)
        kept = in_rows(one, groups, self.m - self.n, alive)
        return kept.view(rows, columns + filling)[:, :columns].flatten()
