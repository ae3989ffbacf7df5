"""The diagonal of the Hessian in one sweep back through the network, many columns at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from prunelab.criteria.measuring import Loss
from prunelab.curvature.outputs import checked_outputs, factor, output_derivatives
from prunelab.curvature.tape import Bend, Tape
from prunelab.curvature.uses import Use, joined, position_squares, squares

# Columns that are taken back through the network at once.
COLUMNS = 64

Sums = dict[str, Tensor]


def sweep(
    model: nn.Module,
    names: Mapping[Tensor, str],
    forward: Callable[[], Any],
    loss: Callable[[Tensor], Tensor],
    examples: int,
    exact: bool,
) -> Sums:
    """The diagonal of a batch's Hessian, flat and by name; with `exact=False` that of its Gauss-Newton matrix.

    The second derivatives of the loss in an example's outputs are a sum of few columns times their transposes, S =
    Σ s_c v_c v_cᵀ. Taken back through the network as if they were gradients, the columns become those of ∂²L/∂z² at the
    output z of every layer, and their squared derivatives in a weight add up to its entry of the diagonal. Where the
    network is piecewise linear that is all. Every unit of a function f that bends starts one more column, with the
    weight f''(u) · ∂L/∂f(u), so that a network with many of these is slow.
    """
    with Tape(model, names, exact) as tape:
        outputs = checked_outputs(forward(), examples)
    slope, curvature = output_derivatives(loss, outputs)
    columns, signs = factor(curvature)  # (C, N, K), (C, N)
    sums: Sums = {}
    for some in _few(len(columns)):
        taken = columns[some].reshape(-1, *outputs.shape)
        _take_back(outputs, taken, None if signs is None else signs[some], tape.uses, sums)
    if tape.bends:
        slopes = torch.autograd.grad(
            outputs, [b.output for b in tape.bends], slope.view_as(outputs), retain_graph=True, allow_unused=True
        )
        for bend, gradient in zip(tape.bends, slopes, strict=True):
            if gradient is not None:
                _start_anew(bend, bend.second * gradient, tape.uses, sums)
    return sums


def _start_anew(bend: Bend, weights: Tensor, uses: Sequence[Use], sums: Sums) -> None:
    """A column for each unit that bends, with weights of the bend's input's shape."""
    others = []
    for use in uses:
        if use.output == bend.input:  # the layer right before it: its columns have one entry each
            _add(sums, position_squares(use, weights))
        else:
            others.append(use)
    flat = weights.reshape(len(weights), -1)  # (N, units)
    for some in _few(flat.shape[1]) if others else ():
        units = range(flat.shape[1])[some]
        columns = flat.new_zeros(len(units), *flat.shape)
        columns[range(len(units)), :, units] = 1
        _take_back(bend.input, columns.reshape(-1, *weights.shape), flat[:, some].T, others, sums)


def _take_back(
    root: Tensor | GradientEdge, columns: Tensor, signs: Tensor | None, uses: Sequence[Use], sums: Sums
) -> None:
    """Take columns (C, *root's shape) back to every use, and add their squares up."""
    found = torch.autograd.grad(
        root, [use.output for use in uses], columns, retain_graph=True, allow_unused=True, is_grads_batched=True
    )
    together: dict[tuple[str | None, str | None], list[int]] = {}
    for number, use in enumerate(uses):
        if found[number] is not None:
            together.setdefault((use.weight, use.bias), []).append(number)
    for numbers in together.values():
        use, values = uses[numbers[0]], found[numbers[0]]
        if len(numbers) > 1:
            use, values = joined([uses[n] for n in numbers], [found[n] for n in numbers])
        _add(sums, squares(use, values, signs))


def _add(sums: Sums, found: Sums) -> None:
    for name, values in found.items():
        sums[name] = sums[name] + values if name in sums else values


def _few(count: int) -> list[slice]:
    return [slice(start, start + COLUMNS) for start in range(0, count, COLUMNS)]
