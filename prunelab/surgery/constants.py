"""What a channel without weights still emits: its bias, through normalisation and activation, and who reads it.

The trace is followed once more, with numbers: for each label of a tensor the constant that each position holds, where
it holds one. Nothing runs: each operation works on one number a channel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunelab.surgery.coupling import Coupling
from prunelab.surgery.labels import varying

Numbers: TypeAlias = NDArray[np.float64]  # NaN where a position holds no known constant


@dataclass(frozen=True)
class Read:
    """A layer reads channels: the unit and the constant of each of its inputs, (inputs,), and whether they may be
    added to its bias instead (`exact`). `weight` is "" where it is not a parameter as it stands."""

    weight: str
    units: NDArray[np.int64]
    values: Numbers
    exact: NDArray[np.bool_]


@dataclass
class Constants:
    """Every reading of channels in a forward, and the units whose constants go elsewhere too."""

    reads: list[Read] = field(default_factory=list)
    elsewhere: set[int] = field(default_factory=set)

    def unfoldable(self, gone: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Of the units that are `gone` (units,), those whose constant cannot be added to biases exactly."""
        found = np.zeros_like(gone)
        for read in self.reads:
            found[read.units[~read.exact]] = True
        found[list(self.elsewhere)] = True
        for group in self._by_weight().values():
            first = group[0]
            for other in group[1:]:  # one bias for several calls: only where all read the same
                same = (first.values == other.values) & (first.units == other.units)
                found[first.units[~same]] = True
                found[other.units[~same]] = True
        return found & gone

    def biases(
        self, coupling: Coupling, folded: NDArray[np.bool_], gone: NDArray[np.bool_]
    ) -> dict[str, tuple[float, ...]]:
        """{bias: what the `folded` units (units,) contributed to the layer, one number an output}; 0 for outputs that
        are `gone` themselves, where that is plain."""
        anatomy, found = coupling.anatomy, {}
        for weight, group in self._by_weight().items():
            read = group[0]
            values = np.where(folded[read.units], read.values, 0.0)
            if weight and values.any():
                label = next((f for f in coupling.tensors[weight] if varying(f) == (0,)), None)
                left = None if label is None else ~gone[coupling.solution.unit_of[label.ravel()]]
                module = anatomy.modules[weight.rpartition(".")[0]]
                added = _contribution(module, anatomy.tensors[weight], values, left)
                found[bias_name(weight)] = tuple(added.tolist())
        return found

    def _by_weight(self) -> dict[str, list[Read]]:
        found: dict[str, list[Read]] = {}
        for read in self.reads:
            if read.weight:
                found.setdefault(read.weight, []).append(read)
        return found


def bias_name(weight: str) -> str:
    return f"{weight.rpartition('.')[0]}.bias".lstrip(".")


def _contribution(module: nn.Module, weight: Tensor, values: Numbers, left: NDArray[np.bool_] | None) -> Numbers:
    """Σ over inputs of weight · value, (outputs,). Linear (O, I), Conv (O, I/g, ...), or (I, O) of another module.

    Only rows that are `left` (O,) are added up, where that is told.
    """
    inputs = torch.from_numpy(np.flatnonzero(values)).to(weight.device)
    some = torch.from_numpy(values).to(weight.device)[inputs]
    matrix, groups = weight.detach(), getattr(module, "groups", 1)
    if matrix.dim() == 2 and not isinstance(module, nn.Linear):
        added = some @ matrix.index_select(0, inputs).double()
    elif groups == 1:
        rows = torch.from_numpy(np.flatnonzero(np.ones(len(matrix), bool) if left is None else left)).to(weight.device)
        read = matrix.index_select(0, rows).index_select(1, inputs).double()  # (rows, inputs, ...)
        summed = read.reshape(read.shape[:2]) if matrix[:1, :1].numel() == 1 else read.flatten(2).sum(-1)
        added = summed.new_zeros(len(matrix)).index_copy_(0, rows, summed @ some)
    else:
        summed = matrix.double().reshape(*matrix.shape[:2], -1).sum(-1)  # (O, I/g)
        constants = torch.from_numpy(values).to(weight.device).reshape(groups, -1)
        added = (summed * constants.repeat_interleave(matrix.shape[0] // groups, 0)).sum(1)
    return added.cpu().numpy()
