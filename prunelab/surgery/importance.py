"""How important a unit is: a criterion's scores of single channels, put together over all layers that make them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunelab.criteria import Criterion
from prunelab.criteria.members import finest
from prunelab.granularity import Channel, Filter, Granularity
from prunelab.pruner import score
from prunelab.surgery.coupling import Coupling
from prunelab.surgery.labels import Label, varying
from prunelab.targets import find_targets

_BLOCK = 1 << 16  # elements

Aggregate: TypeAlias = Literal["mean", "sum", "max"]


def importance(
    model: nn.Module, coupling: Coupling, criterion: Criterion | None, aggregate: Aggregate, data: Any, loss: Any
) -> NDArray[np.float64]:
    """One number a unit, (units,); larger = keep. Units that nothing makes get 0.

    Each parameter that makes channels is scored by `criterion` (default: the L1 norm), one number a channel. Within a
    parameter the channels of a unit (the rows of a head) add up; over parameters `aggregate` decides.
    """
    if criterion is None:
        labels = {
            name: label
            for name in dict.fromkeys(name for group in coupling.groups for name in group.made_by)
            for label in coupling.tensors[name]
            if coupling.made[label].any()
        }
        return _put_together(coupling, labels, _norms(coupling.anatomy.tensors, labels), aggregate)
    rows, columns, others = _makers(model, coupling)
    if others:
        raise ValueError(
            f"{criterion} cannot score the channels of {', '.join(others)}, which no granularity can view; leave "
            "criterion= out (the L1 norm works for any layout), or exclude=[...] these parameters"
        )
    scores: dict[str, NDArray[np.float64]] = {}
    for granularity, names in ((Filter(), rows), (Channel(), columns)):
        scores.update(_scored(model, criterion, granularity, names, data, loss))
    return _put_together(coupling, {**rows, **columns}, scores, aggregate)


def _makers(model: nn.Module, coupling: Coupling) -> tuple[dict[str, Label], dict[str, Label], dict[str, Label]]:
    """The channels that each parameter makes, (channels,), by how they lie in it: as filters, as columns, otherwise."""
    rows: dict[str, Label] = {}
    columns: dict[str, Label] = {}
    others: dict[str, Label] = {}
    wanted = {name for group in coupling.groups for name in group.made_by}
    targets = {t.name: t for t in find_targets(model, sorted(wanted))} if wanted else {}
    for name in wanted:
        target = targets.get(name)
        for label in coupling.tensors[name]:
            if not coupling.made[label].any():
                continue
            if target is None or target.obstacle or len(coupling.shapes[name]) < 2:
                others[name] = label
            elif target.layout.transposed:
                per_group = label.shape[0] // target.layout.groups if label.shape[0] > 1 else 1
                rows[name] = label[::per_group].ravel()
            elif varying(label) == (0,):
                rows[name] = label.ravel()
            elif varying(label) == (1,) and len(coupling.shapes[name]) == 2:
                columns[name] = label.ravel()
            else:
                others[name] = label
    return rows, columns, others


def _scored(
    model: nn.Module, criterion: Criterion, granularity: Granularity, names: Mapping[str, Label], data: Any, loss: Any
) -> dict[str, NDArray[np.float64]]:
    if not names:
        return {}
    found = score(model, criterion, granularity, parameters=list(names), data=data, loss=loss)
    return {name: values.detach().to("cpu", torch.float64).numpy() for name, values in found.items()}


def _norms(tensors: Mapping[str, Tensor], labels: Mapping[str, Label]) -> dict[str, NDArray[np.float64]]:
    """The L1 norm of each slice that makes a channel: one number a position of the label, whatever the layout."""
    norms = {}
    for name, label in labels.items():
        weight = tensors[name].detach()
        others = [dim for dim in range(label.ndim) if label.shape[dim] == 1]
        if others == list(range(1, label.ndim)):
            sums = _row_sums(weight.reshape(weight.shape[0], -1))
        else:
            sums = weight.abs().sum(others, dtype=finest(weight.device)) if others else weight.abs()
        norms[name] = sums.to("cpu", torch.float64).numpy().ravel()
        if np.isnan(norms[name]).any():
            raise ValueError(f"{name!r} has NaN entries, so its channels cannot be compared; mend the weights first")
    return norms


def _row_sums(matrix: Tensor) -> Tensor:
    """Σ |w| of every row, (rows,): blocks that fit into the cache, twice as fast as `vector_norm`."""
    rows, columns = matrix.shape
    sums = torch.empty(rows, dtype=finest(matrix.device), device=matrix.device)
    step = max(1, min(rows, _BLOCK // max(columns, 1)))
    block = sums.new_empty(step, columns)
    for start in range(0, rows, step):
        values = matrix[start : start + step]
        part = block[: rows - start].copy_(values.abs() if values.is_complex() else values)
        torch.sum(torch.abs(part, out=part), 1, out=sums[start : start + step])
    return sums


def _put_together(
    coupling: Coupling, makers: Mapping[str, Label], scores: Mapping[str, NDArray[np.float64]], how: Aggregate
) -> NDArray[np.float64]:
    size = coupling.solution.why.size
    total, seen, highest, mine = np.zeros(size), np.zeros(size), np.full(size, -np.inf), np.zeros(size)
    for name, label in makers.items():
        units = coupling.solution.unit_of[label].ravel()  # a unit of several rows more than once, and set as often
        mine[units] = 0.0
        np.add.at(mine, units, scores[name])
        total[units] += mine[units]
        seen[units] += 1
        highest[units] = np.maximum(highest[units], mine[units])
    if how == "max":
        return np.where(seen > 0, highest, 0.0)
    return total if how == "sum" else total / np.maximum(seen, 1)
