"""Keys: integers that order as floats do, so that what floats leave open (zeros, NaN, what is gone) can be said."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BITS: dict[torch.dtype, torch.dtype] = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}
NUMPY = {torch.int64: np.int64, torch.int32: np.int32, torch.int16: np.int16}

Ints = NDArray[np.signedinteger]


class NotANumberError(ValueError):
    """A value that cannot be ranked. `index` is the position of its tensor in the sequence that was given."""

    def __init__(self, index: int) -> None:
        super().__init__("NaN cannot be ranked")
        self.index = index


@dataclass(frozen=True)
class Ranking:
    """Maps floats to signed integers (keys) of the same width that order as the floats, or their magnitudes, do."""

    dtype: torch.dtype
    magnitude: bool

    @property
    def bits(self) -> torch.dtype:
        return _BITS[self.dtype]

    @property
    def highest(self) -> int:
        return torch.iinfo(self.bits).max

    @property
    def lowest(self) -> int:
        return 0 if self.magnitude else torch.iinfo(self.bits).min

    @cached_property
    def infinity(self) -> int:
        """The key of +inf: a larger one is NaN."""
        return int(torch.tensor(torch.inf, dtype=self.dtype).view(self.bits))

    def keys(self, values: Tensor) -> Tensor:
        values = values.to(self.dtype)
        if self.magnitude:
            return values.view(self.bits) & self.highest
        # Adding zero turns -0.0 into +0.0, abs() drops the sign of a NaN: equal values get equal keys, NaN the largest.
        values = torch.where(values.isnan(), values.abs(), values + 0.0)
        bits = values.view(self.bits)
        return torch.where(bits < 0, bits ^ self.highest, bits)
