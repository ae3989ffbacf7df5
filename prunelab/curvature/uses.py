"""The layers whose parameters have a diagonal, and how the squared derivatives of each add up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F

# Numbers in the largest table of single examples' derivatives that is built at once: about what a cache holds.
TABLE = 1 << 19
# Numbers in columns that are squared all at once: a copy of more takes longer than one call for each column.
SMALL = 1 << 17
# Examples whose inputs are squared at once.
FEW = 256


@dataclass(frozen=True, eq=False)
class Use:
    """One call of a layer: its parameters, what it read, and where its output lies in the graph.

    All layers are brought into one shape. The output is (N, g, O, L): examples, groups, outputs of a group, positions.
    Each output reads its group's inputs, (N, g, I, L), through the weight (g, O, I). A Linear layer has one group, and
    one position but for sequences; BatchNorm has as many groups as channels, each with one output and one input.

    Attributes:
        weight, bias: the names of those whose diagonal is wanted, else None.
        output: where the output lies in the graph.
        shape: of the output.
        groups: g.
        channels_last: the output is (N, ..., O) and not (N, O, ...).
        inputs: makes (N, g, I, L).
    """

    weight: str | None
    bias: str | None
    output: GradientEdge
    shape: tuple[int, ...]
    groups: int
    channels_last: bool
    inputs: Callable[[], Tensor]

    @property
    def names(self) -> list[str]:
        return [name for name in (self.weight, self.bias) if name is not None]

    @property
    def at_one_position(self) -> bool:
        """L is 1."""
        channels = self.shape[-1] if self.channels_last else self.shape[1]
        return math.prod(self.shape) == self.shape[0] * channels

    def spread(self, values: Tensor) -> Tensor:
        """Values of the output's shape, (..., *shape), as (..., N, g, O, L)."""
        lead = values.shape[: values.dim() - len(self.shape)]
        if self.channels_last:
            positions = math.prod(self.shape[1:-1])
            return values.reshape(*lead, self.shape[0], positions, self.shape[-1]).transpose(-1, -2).unsqueeze(-3)
        return values.reshape(*lead, self.shape[0], self.groups, self.shape[1] // self.groups, -1)


def use_of(func: Any, args: Any, kwargs: Any, result: Any, names: dict[int, str]) -> Use | None:
    """The call of a layer as a `Use`, where it is one of a parameter that is wanted. `names` are those, by id."""
    if func not in _RULES:
        return None
    given = arguments_of(func, args, kwargs)
    weight, bias = (names.get(id(given.get(which))) for which in ("weight", "bias"))
    if weight is None and bias is None:
        return None
    groups, inputs = _RULES[func](**given)
    edge = get_gradient_edge(result)  # not the tensor, which a later layer may overwrite
    return Use(weight, bias, edge, tuple(result.shape), groups, func is F.linear, inputs)


def arguments_of(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of a layer's function by name."""
    return {**dict(zip(_PARAMETERS[func], args, strict=False)), **kwargs}


class Squares:
    """Gathers Σ_n Σ_c s_nc · (∂/∂w of column c, for example n)² of the parameters of one or several equal uses."""

    def __init__(self, uses: Sequence[Use]) -> None:
        self._uses = uses
        self._weight: Tensor | None = None  # (g, O, I)
        self._bias: Tensor | None = None  # (g, O)
        self._few: Tensor | None = None  # (N, g·O), of outputs at one position

    def add(self, columns: Sequence[Tensor], signs: Tensor | None) -> None:
        """Columns (C, *shape) at the output of each use; `signs` (C, N) is None where all are 1."""
        if len(self._uses) == 1 and self._uses[0].at_one_position:
            self._add_up(columns[0].flatten(2), signs)
            return
        spreads = [use.spread(values) for use, values in zip(self._uses, columns, strict=True)]
        spread = _joined(spreads)  # (C, N, g, O, L)
        if self._uses[0].bias is not None:
            self._bias = _plus(self._bias, _signed(spread.sum(-1).square(), signs).sum((0, 1)))
        if self._uses[0].weight is not None:
            self._weight = _plus(self._weight, _table_squares(spread, self._inputs(), signs))

    def _add_up(self, columns: Tensor, signs: Tensor | None) -> None:
        """Of outputs at one position (δ x)² = δ² x², so that the columns (C, N, g·O) can be added up first."""
        if self._few is None:
            self._few = torch.zeros_like(columns[0])
        if columns.numel() <= SMALL:
            squares = columns.square() if signs is None else columns.square() * signs[:, :, None]
            self._few += squares.sum(0)
            return
        for number, column in enumerate(columns.unbind()):  # one by one, in place: memory is what takes time here
            self._few.addcmul_(column, column if signs is None else column * signs[number, :, None])

    def add_to(self, totals: dict[str, Tensor], times: float) -> None:
        """Add what was gathered, multiplied, to flat totals by name."""
        use = self._uses[0]
        if self._few is not None:
            self._few.mul_(times)
            add(totals, use.bias, self._few.sum(0))
            if use.weight is not None:
                self._add_products(totals, use.weight, self._few.unflatten(1, (use.groups, -1)))
        add(totals, use.weight, self._weight, times)
        add(totals, use.bias, self._bias, times)

    def _add_products(self, totals: dict[str, Tensor], name: str, columns: Tensor) -> None:
        """columns (N, g, O): into the totals at once, as a table of its own would have to be read again."""
        inputs = self._inputs()[..., 0]
        for start in range(0, len(columns), FEW):
            few, read = columns[start : start + FEW], inputs[start : start + FEW]
            factors = few.permute(1, 2, 0), read.square().transpose(0, 1)  # (g, O, n), (g, n, I)
            if name in totals:
                totals[name].view(*columns.shape[1:], inputs.shape[-1]).baddbmm_(*factors)
            else:
                totals[name] = torch.bmm(*factors).flatten()

    def _inputs(self) -> Tensor:
        return _joined([use.inputs() for use in self._uses])


def add(totals: dict[str, Tensor], name: str | None, values: Tensor | None, times: float = 1) -> None:
    """Add `times` the values, flat, to the total of this name; nothing where either is None."""
    if name is None or values is None:
        return
    if name in totals:
        totals[name].add_(values.flatten(), alpha=times)
    else:
        totals[name] = values.flatten() * times


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Several uses are one with more positions."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), -1)


def _plus(total: Tensor | None, more: Tensor) -> Tensor:
    return more if total is None else total.add_(more)


def _signed(values: Tensor, signs: Tensor | None) -> Tensor:
    return values if signs is None else values * signs.reshape(*signs.shape, *[1] * (values.dim() - 2))


def _table_squares(columns: Tensor, inputs: Tensor, signs: Tensor | None) -> Tensor:
    """Of a weight that is used at several positions: each example's derivatives, squared and added up, (g, O, I)."""
    several, examples, groups, outputs, _ = columns.shape
    rows = columns.permute(1, 2, 0, 3, 4).flatten(2, 3)  # (N, g, C·O, L)
    total = columns.new_zeros(groups, outputs, inputs.shape[2])
    few = max(1, TABLE // max(1, math.prod(rows.shape[1:3]) * inputs.shape[2]))
    for start in range(0, examples, few):
        some = slice(start, start + few)
        table = rows[some] @ inputs[some].transpose(-1, -2)  # (n, g, C·O, I)
        table = table.square_().unflatten(2, (several, outputs))
        if signs is not None:
            table *= signs.T[some, None, :, None, None]
        total += table.sum((0, 2))
    return total


def position_squares(use: Use, curvature: Tensor) -> dict[str, Tensor]:
    """Σ over examples and positions of h · (∂output/∂w)², flat and by name, for h of the output's shape."""
    spread = use.spread(curvature)  # (N, g, O, L)
    found = {}
    if use.weight is not None:
        found[use.weight] = torch.einsum("ngol,ngil->goi", spread, use.inputs().square()).flatten()
    if use.bias is not None:
        found[use.bias] = spread.sum((0, 3)).flatten()
    return found


def windows(values: Tensor, kernel: Sequence[int], stride: Any, padding: Any, dilation: Any) -> Tensor:
    """What a convolution reads at each position: (N, C, *space) → (N, C · kernel, L)."""
    steps, gaps = each(stride, len(kernel)), each(dilation, len(kernel))
    extents = [gap * (size - 1) for gap, size in zip(gaps, kernel, strict=True)]
    values = F.pad(values, _margins(padding, extents))
    for dim, (extent, step, gap) in enumerate(zip(extents, steps, gaps, strict=True), start=2):
        values = values.unfold(dim, extent + 1, step)[..., ::gap]  # each adds a dimension, the kernel's, at the end
    spatial = len(kernel)
    order = [0, 1, *range(2 + spatial, 2 + 2 * spatial), *range(2, 2 + spatial)]
    return values.permute(order).flatten(1 + spatial + 1).flatten(1, 1 + spatial)


def _margins(padding: Any, extents: Sequence[int]) -> list[int]:
    """The padding as torch.nn.functional.pad wants it: last dimension first, before and after."""
    if padding == "valid":
        padding = 0
    same = [(extent // 2, extent - extent // 2) for extent in extents]
    pairs = same if padding == "same" else [(size, size) for size in each(padding, len(extents))]
    return [size for pair in reversed(pairs) for size in pair]


def each(value: Any, dimensions: int) -> list[int]:
    """One number a dimension, from one for all or a sequence."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * dimensions if len(values) == 1 else values


# What the functions of layers take, and what comes of it: the number of groups, and the inputs as (N, g, I, L).
Rule = Callable[..., tuple[int, Callable[[], Tensor]]]


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:  # noqa: A002, ARG001
    read = input.detach()
    positions = math.prod(read.shape[1:-1])  # not -1: there may be no inputs
    return 1, lambda: read.reshape(len(read), positions, read.shape[-1]).transpose(1, 2).unsqueeze(1)


def _convolution(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,  # noqa: ARG001
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    read, kernel = input.detach(), weight.shape[2:]
    return groups, lambda: windows(read, kernel, stride, padding, dilation).unflatten(1, (groups, -1))


def _batch_norm(
    input: Tensor,  # noqa: A002
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,  # noqa: ARG001
    bias: Tensor | None = None,  # noqa: ARG001
    training: bool = False,
    momentum: float = 0.1,  # noqa: ARG001
    eps: float = 1e-5,
) -> Any:
    if training or running_mean is None or running_var is None:
        raise ValueError(
            "a BatchNorm layer without running statistics takes those of the batch, so that examples depend on each "
            "other; give it track_running_stats=True"
        )
    read, mean, scale = input.detach(), running_mean, (running_var + eps).rsqrt()

    def inputs() -> Tensor:
        flat = read.reshape(*read.shape[:2], 1, -1)  # (N, channels, 1, L)
        return (flat - mean[:, None, None]) * scale[:, None, None]

    return input.shape[1], inputs


_RULES: dict[Any, Rule] = {
    F.linear: _linear,
    F.conv1d: _convolution,
    F.conv2d: _convolution,
    F.conv3d: _convolution,
    F.batch_norm: _batch_norm,
}
_PARAMETERS = {func: tuple(signature(rule).parameters) for func, rule in _RULES.items()}
LAYERS = frozenset({"linear", "conv1d", "conv2d", "conv3d", "batch_norm"})
