"""The diagonal of the Hessian in one sweep back through the network, many columns at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from prunelab.criteria.measuring import Loss
from prunelab.curvature.outputs import checked_outputs, output_columns, output_slope
from prunelab.curvature.tape import WAY_OUT, Bend, Tape
from prunelab.curvature.uses import Squares, Use, add, position_squares

# Columns times examples that are taken back through the network at once: few enough to stay in a cache.
ROWS = 1280


def sweep(
    model: nn.Module,
    names: Mapping[Tensor, str],
    forward: Callable[[], Any],
    loss: Loss,
    labels: Any,
    examples: int,
    totals: dict[str, Tensor],
    *,
    exact: bool,
) -> None:
    """The diagonal of a batch's Hessian, times its examples, added to `totals`, flat and by name; with `exact=False`
    that of its Gauss-Newton matrix.

    The second derivatives of the loss in an example's outputs are a sum of few columns times their transposes, S =
    Σ s_c v_c v_cᵀ. Taken back through the network as if they were gradients, the columns become those of ∂²L/∂z² at the
    output z of every layer, and their squared derivatives in a weight add up to its entry of the diagonal. Where the
    network is piecewise linear that is all. Every unit of a function f that bends starts one more column, with the
    weight f''(u) · ∂L/∂f(u), so that a network with many of these is slow.
    """
    with Tape(model, names, exact) as tape:
        outputs = checked_outputs(forward(), examples)
    _check_rows(tape.uses, examples)
    layers = _Layers(tape.uses)
    columns, signs = output_columns(loss, outputs, labels)  # (C, N, K), (C, N)
    for some in _few(len(columns), examples):
        layers.take_back(outputs, columns[some].reshape(-1, *outputs.shape), None if signs is None else signs[some])
    if tape.bends:
        edges = [bend.output for bend in tape.bends]
        slope = output_slope(loss, outputs, labels)
        slopes = torch.autograd.grad(outputs, edges, slope, retain_graph=True, allow_unused=True)
        for bend, gradient in zip(tape.bends, slopes, strict=True):
            if gradient is not None:
                layers.start_anew(bend, bend.second * gradient)
    layers.add_to(totals, examples)


def _check_rows(uses: Sequence[Use], examples: int) -> None:
    """Raises ValueError for a layer whose first dimension is not that of the examples: their derivatives would mix."""
    for use in uses:
        if use.shape[0] != examples:
            raise ValueError(
                f"the layer of {use.names[0]!r} puts out {tuple(use.shape)} for a batch of {examples}: its first "
                f"dimension must be that of the examples, so that each has its own derivatives; {WAY_OUT}"
            )


class _Layers:
    """The layers whose diagonal is wanted, and what has been gathered for each."""

    def __init__(self, uses: Sequence[Use]) -> None:
        together: dict[tuple[str, ...], list[Use]] = {}
        for use in uses:
            together.setdefault(tuple(use.names), []).append(use)
        every = [name for names in together for name in names]
        for name in every:
            if every.count(name) > 1:
                raise ValueError(
                    f"{name!r} is used more than once, with different weights or biases beside it, so that its "
                    f"derivatives cannot be added up layer by layer; {WAY_OUT}"
                )
        self._squares = [(uses, Squares(uses)) for uses in together.values()]
        self._near: list[dict[str, Tensor]] = []

    def take_back(
        self, root: Tensor | GradientEdge, columns: Tensor, signs: Tensor | None, near: GradientEdge | None = None
    ) -> None:
        """Take columns (C, *root's shape) back to every layer but the one `near`, and gather their squares."""
        layers = [(uses, squares) for uses, squares in self._squares if uses[0].output != near]
        edges = [use.output for uses, _ in layers for use in uses]
        if not edges:
            return
        found = iter(
            torch.autograd.grad(root, edges, columns, retain_graph=True, allow_unused=True, is_grads_batched=True)
        )
        for uses, squares in layers:
            values = [next(found) for _ in uses]
            if all(value is not None for value in values):
                squares.add(values, signs)

    def start_anew(self, bend: Bend, weights: Tensor) -> None:
        """A column for each unit that bends, with weights of the bend's input's shape."""
        for uses, _ in self._squares:
            if uses[0].output == bend.input:  # the layer right before it: each column has one entry there
                self._near.append(position_squares(uses[0], weights))
        flat = weights.reshape(len(weights), -1)  # (N, units)
        for some in _few(flat.shape[1], len(flat)):
            units = range(flat.shape[1])[some]
            columns = flat.new_zeros(len(units), *flat.shape)
            columns[range(len(units)), :, units] = 1
            self.take_back(bend.input, columns.reshape(-1, *weights.shape), flat[:, some].T, near=bend.input)

    def add_to(self, totals: dict[str, Tensor], times: float) -> None:
        for _, squares in self._squares:
            squares.add_to(totals, times)
        for found in self._near:
            for name, values in found.items():
                add(totals, name, values, times)


def _few(columns: int, examples: int) -> list[slice]:
    """The columns in portions."""
    few = max(1, ROWS // max(1, examples))
    return [slice(start, start + few) for start in range(0, columns, few)]
