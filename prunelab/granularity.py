"""What may be removed: a granularity is a view of a weight as a matrix, one row a unit, one column a member.

A unit is what is kept or removed as a whole. `view` turns a weight into the matrix (units, members); `restore` is its
exact inverse, so a decision about rows becomes a mask of the weight's own shape. Criteria only ever see the matrix,
which is why every criterion works at every granularity (Hubens 2020, "Granularity"; Mao et al. 2017).

>>> weight = torch.arange(12.0).reshape(3, 4)               # Linear(4, 3): 3 output neurons, 4 input features
>>> Weight().view(weight).shape, Filter().view(weight).shape, Channel().view(weight).shape
(torch.Size([12, 1]), torch.Size([3, 4]), torch.Size([4, 3]))
>>> torch.equal(Channel().restore(Channel().view(weight), weight.shape), weight)
True
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Channel", "Filter", "Granularity", "Group", "Head", "Kernel", "Layer", "Layout", "Weight"]


@dataclass(frozen=True)
class Layout:
    """How a layer stores its weight; what a granularity must know beside the tensor.

    `groups` is the convolution's number of groups. `transposed` is True for transposed convolutions, whose weight is
    (I, O/groups, *kernel) where an ordinary one is (O, I/groups, *kernel). `heads` says where attention heads lie: in
    the "rows" of a projection that makes queries, keys or values, of which `packed` may be stacked in one weight, or in
    the "columns" of the projection that reads them.
    """

    groups: int = 1
    transposed: bool = False
    heads: Literal["rows", "columns"] = "rows"
    packed: int = 1


PLAIN = Layout()


class Granularity(ABC):
    """The units of a weight. A subclass says how to view the weight as a matrix, and how to go back.

    `covers_bias` is True where removing a unit also removes its bias, so that the removed unit outputs exactly zero.
    """

    covers_bias: ClassVar[bool] = False

    @abstractmethod
    def view(self, weight: Tensor, layout: Layout = PLAIN) -> Tensor:
        """The weight as a matrix (units, members). May share memory with `weight`: read it, do not write to it."""

    @abstractmethod
    def restore(self, matrix: Tensor, shape: Sequence[int], layout: Layout = PLAIN) -> Tensor:
        """The inverse of `view`: a matrix (units, members) as a tensor of the weight's `shape`."""

    def units(self, shape: Sequence[int], layout: Layout = PLAIN) -> tuple[int, int]:
        """(units, members) of a weight of this shape; allocates nothing."""
        units, members = self.view(torch.empty(tuple(shape), device="meta"), layout).shape
        return units, members

    def sizes(self, shape: Sequence[int], layout: Layout = PLAIN) -> int | Tensor:
        """Weights in a unit: one number where all units are alike, else int64 (units,). Biases are not counted here."""
        return self.units(shape, layout)[1]

    def mask(self, keep: Tensor, shape: Sequence[int], layout: Layout = PLAIN) -> Tensor:
        """The decision `keep`, bool (units,), as a contiguous bool mask of the weight's shape; True = kept."""
        units, members = self.units(shape, layout)
        if keep.shape != (units,):
            raise ValueError(f"keep has shape {tuple(keep.shape)}; {self} of a weight {tuple(shape)} has {units} units")
        return self.restore(keep[:, None].expand(units, members), shape, layout).contiguous()

    def bias_mask(self, keep: Tensor, size: int, layout: Layout = PLAIN) -> Tensor:  # noqa: ARG002
        """The decision `keep`, bool (units,), as a mask of a bias with `size` entries that goes with the units."""
        return keep.repeat_interleave(size // keep.numel()) if keep.numel() else keep.new_ones(size)


@dataclass(frozen=True)
class Weight(Granularity):
    """Every single weight is a unit with one member: unstructured pruning. Works for a tensor of any dimension."""

    def view(self, weight: Tensor, layout: Layout = PLAIN) -> Tensor:
        return _filters_first(weight, layout).reshape(weight.numel(), 1)

    def restore(self, matrix: Tensor, shape: Sequence[int], layout: Layout = PLAIN) -> Tensor:
        return _stored(matrix, shape, layout)


@dataclass(frozen=True)
class Group(Granularity):
    """Blocks of `rows` x `columns` weights of the matrix (O, I/g·kernel). `Group(1, 4)` are vectors of four weights.

    Where the matrix does not divide evenly, the last blocks are short: the view pads them with zeros, and `sizes`
    counts the weights they really have.
    """

    rows: int
    columns: int

    def __post_init__(self) -> None:
        for name, value in (("rows", self.rows), ("columns", self.columns)):
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Group({name}={value!r}): a block has a whole number of {name}, at least 1")
            object.__setattr__(self, name, int(value))

    def __repr__(self) -> str:
        return f"Group({self.rows}, {self.columns})"

    def view(self, weight: Tensor, layout: Layout = PLAIN) -> Tensor:
        matrix = _matrix(self, weight, layout)  # (O, C)
        down, across = self._blocks(matrix.shape)
        padding = (0, across * self.columns - matrix.shape[1], 0, down * self.rows - matrix.shape[0])
        blocks = functional.pad(matrix, padding).reshape(down, self.rows, across, self.columns)
        return blocks.transpose(1, 2).reshape(down * across, self.rows * self.columns)

    def restore(self, matrix: Tensor, shape: Sequence[int], layout: Layout = PLAIN) -> Tensor:
        filters, columns = _matrix_shape(shape, layout)
        down, across = self._blocks((filters, columns))
        blocks = matrix.reshape(down, across, self.rows, self.columns).transpose(1, 2)
        padded = blocks.reshape(down * self.rows, across * self.columns)
        return _stored(padded[:filters, :columns], shape, layout)

    def sizes(self, shape: Sequence[int], layout: Layout = PLAIN) -> int | Tensor:
        filters, columns = _matrix_shape(shape, layout)
        if filters % self.rows == 0 and columns % self.columns == 0:
            return self.rows * self.columns
        down, across = self._blocks((filters, columns))
        heights = (filters - self.rows * torch.arange(down)).clamp(max=self.rows)  # (down,)
        widths = (columns - self.columns * torch.arange(across)).clamp(max=self.columns)  # (across,)
        return torch.outer(heights, widths).flatten()

    def _blocks(self, shape: Sequence[int]) -> tuple[int, int]:
        return math.ceil(shape[0] / self.rows), math.ceil(shape[1] / self.columns)


@dataclass(frozen=True)
class Kernel(Granularity):
    """The k-dimensional slice that joins one input channel to one output channel. For a Linear layer: one weight."""

    def view(self, weight: Tensor, layout: Layout = PLAIN) -> Tensor:
        matrix = _matrix(self, weight, layout)  # (O, I/g·K)
        area = math.prod(weight.shape[2:])
        return matrix.reshape(matrix.shape[0] * _inputs_per_filter(weight.shape, layout), area)

    def restore(self, matrix: Tensor, shape: Sequence[int], layout: Layout = PLAIN) -> Tensor:
        return _stored(matrix, shape, layout)


@dataclass(frozen=True)
class Filter(Granularity):
    """All weights that make one output channel (a Linear layer's output neuron), and that channel's bias.

    Those of a classifier's last layer are its classes: leave that layer out, with `exclude=`.
    """

    covers_bias: ClassVar[bool] = True

    def view(self, weight: Tensor, layout: Layout = PLAIN) -> Tensor:
        return _matrix(self, weight, layout)

    def restore(self, matrix: Tensor, shape: Sequence[int], layout: Layout = PLAIN) -> Tensor:
        return _stored(matrix, shape, layout)


@dataclass(frozen=True)
class Channel(Granularity):
    """All weights that read one input channel (a Linear layer's input feature). It has no bias of its own."""

    def view(self, weight: Tensor, layout: Layout = PLAIN) -> Tensor:
        matrix = _matrix(self, weight, layout)
        g, per_group, inputs, area = self._split(weight.shape, layout)
        filters_first = matrix.reshape(g, per_group, inputs, area)  # (g, O/g, I/g, K)
        channels_first = filters_first.transpose(1, 2)  # (g, I/g, O/g, K)
        return channels_first.reshape(g * inputs, per_group * area)  # (I, O/g·K)

    def restore(self, matrix: Tensor, shape: Sequence[int], layout: Layout = PLAIN) -> Tensor:
        g, per_group, inputs, area = self._split(shape, layout)
        return _stored(matrix.reshape(g, inputs, per_group, area).transpose(1, 2), shape, layout)

    def _split(self, shape: Sequence[int], layout: Layout) -> tuple[int, int, int, int]:
        filters, _ = _matrix_shape(shape, layout)
        return layout.groups, filters // layout.groups, _inputs_per_filter(shape, layout), math.prod(shape[2:])


@dataclass(frozen=True)
class Layer(Granularity):
    """The whole layer, bias included, as one unit. With the scope "local" that is all or nothing; use "global"."""

    covers_bias: ClassVar[bool] = True

    def view(self, weight: Tensor, layout: Layout = PLAIN) -> Tensor:
        return _matrix(self, weight, layout).reshape(1, weight.numel())

    def restore(self, matrix: Tensor, shape: Sequence[int], layout: Layout = PLAIN) -> Tensor:
        return _stored(matrix, shape, layout)


@dataclass(frozen=True)
class Head(Granularity):
    """An attention head: its rows of the query, key and value projections with their biases, and the columns of the
    output projection that read it (Hoefler et al. 2021). One unit lies in several parameters; `prune` finds them.

    `heads` is the number of heads of each attention layer. Where several query heads share a key and value head, it is
    the number of the latter: a unit is then a key and value head with all its query heads.

    >>> queries = torch.arange(12.0).reshape(4, 3)                  # 2 heads of 2 rows each
    >>> Head(2).view(queries).tolist()
    [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]]
    >>> Head(2).view(queries.T, Layout(heads="columns")).shape      # the output projection: 2 columns a head
    torch.Size([2, 6])
    """

    covers_bias: ClassVar[bool] = True

    heads: int

    def __post_init__(self) -> None:
        if not isinstance(self.heads, Integral) or isinstance(self.heads, bool) or self.heads < 1:
            raise ValueError(f"Head({self.heads!r}): an attention layer has a whole number of heads, at least 1")
        object.__setattr__(self, "heads", int(self.heads))

    def __repr__(self) -> str:
        return f"Head({self.heads})"

    def view(self, weight: Tensor, layout: Layout = PLAIN) -> Tensor:
        if weight.dim() != 2:
            raise ValueError(f"{self} needs the 2-dimensional weight of a projection, not shape {tuple(weight.shape)}")
        packed, width, others = self._split(weight.shape, layout)
        if layout.heads == "columns":
            return weight.reshape(others, self.heads, width).transpose(0, 1).reshape(self.heads, others * width)
        stacked = weight.reshape(packed, self.heads, width, others)
        return stacked.transpose(0, 1).reshape(self.heads, packed * width * others)

    def restore(self, matrix: Tensor, shape: Sequence[int], layout: Layout = PLAIN) -> Tensor:
        packed, width, others = self._split(shape, layout)
        if layout.heads == "columns":
            return matrix.reshape(self.heads, others, width).transpose(0, 1).reshape(tuple(shape))
        return matrix.reshape(self.heads, packed, width, others).transpose(0, 1).reshape(tuple(shape))

    def bias_mask(self, keep: Tensor, size: int, layout: Layout = PLAIN) -> Tensor:
        return keep.repeat_interleave(size // (layout.packed * self.heads)).repeat(layout.packed)

    def _split(self, shape: Sequence[int], layout: Layout) -> tuple[int, int, int]:
        """(weights stacked in one, rows or columns of a head, the other dimension)."""
        along, others = (shape[1], shape[0]) if layout.heads == "columns" else (shape[0], shape[1])
        packed = 1 if layout.heads == "columns" else layout.packed
        if along % (packed * self.heads):
            raise ValueError(
                f"{layout.heads} of a weight {tuple(shape)} do not divide into {self.heads} heads"
                f"{f' in each of {packed} stacked projections' if packed > 1 else ''}; give the number of heads that "
                "the attention layer has"
            )
        return packed, along // (packed * self.heads), others


def _filters_first(weight: Tensor, layout: Layout) -> Tensor:
    """The weight as (O, I/g, *kernel), the order in which ordinary layers already store it."""
    if not layout.transposed:
        return weight
    inputs, per_group, *kernel = weight.shape
    grouped = weight.reshape(layout.groups, inputs // layout.groups, per_group, *kernel)
    return grouped.transpose(1, 2).reshape(layout.groups * per_group, inputs // layout.groups, *kernel)


def _stored(values: Tensor, shape: Sequence[int], layout: Layout) -> Tensor:
    """The inverse of `_filters_first`: values in the order (O, I/g, *kernel), as the layer stores them."""
    if not layout.transposed:
        return values.reshape(tuple(shape))
    inputs, per_group, *kernel = shape
    grouped = values.reshape(layout.groups, per_group, inputs // layout.groups, *kernel)
    return grouped.transpose(1, 2).reshape(tuple(shape))


def _matrix(granularity: Granularity, weight: Tensor, layout: Layout) -> Tensor:
    """The weight as (O, I/g·kernel): one row a filter."""
    if weight.dim() < 2:
        raise ValueError(
            f"{granularity} needs a weight with at least 2 dimensions (filters, inputs, ...), not shape "
            f"{tuple(weight.shape)}; prune single values with granularity.Weight(), or leave it out of parameters="
        )
    return _filters_first(weight, layout).reshape(_matrix_shape(weight.shape, layout))


def _matrix_shape(shape: Sequence[int], layout: Layout) -> tuple[int, int]:
    filters = layout.groups * shape[1] if layout.transposed else shape[0]
    return filters, _inputs_per_filter(shape, layout) * math.prod(shape[2:])


def _inputs_per_filter(shape: Sequence[int], layout: Layout) -> int:
    return shape[0] // layout.groups if layout.transposed else shape[1]
