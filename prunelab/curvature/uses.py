"""The layers whose parameters have a diagonal: how the squared derivatives of each add up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F

# Numbers in the largest table of single examples' derivatives that is built at once: about what a cache holds.
TABLE = 1 << 19


@dataclass(frozen=True, eq=False)
class Use:
    """One call of a layer: its parameters, what it read, and where its output lies in the graph.

    Everything is brought into one shape. The output is (N, g, O, L): examples, groups, outputs of a group, positions; a
    Linear layer has one group, and one position but for sequences. Of the weight (g, O, I) each output reads its
    group's inputs (N, g, I, L). BatchNorm's weight has g channels with one output and one input each.

    Attributes:
        weight, bias: the names of those whose diagonal is wanted; else None.
        output: the output's place in the graph.
        shape: of the output.
        weight_shape: as the layer stores it.
        example: the examples, N.
    """

    weight: str | None
    bias: str | None
    output: GradientEdge
    shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    groups: int
    channels_last: bool
    _inputs: Callable[[], Tensor]

    @property
    def names(self) -> list[str]:
        return [name for name in (self.weight, self.bias) if name is not None]

    @property
    def examples(self) -> int:
        return self.shape[0]

    def inputs(self) -> Tensor:
        """What the outputs read, (N, g, I, L)."""
        return self._inputs()

    def positions(self, values: Tensor) -> Tensor:
        """Values (..., *output's shape) as (..., N, g, O, L)."""
        lead = values.shape[: values.dim() - len(self.shape)]
        if self.channels_last:
            values = values.reshape(*lead, self.shape[0], -1, self.shape[-1]).transpose(-1, -2)
        return (
            values.reshape(*lead, self.shape[0], self.groups, self.shape[1] // self.groups, -1)
            if (not self.channels_last)
            else values[..., None, :, :]
        )
