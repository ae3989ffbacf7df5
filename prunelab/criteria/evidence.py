"""Collects what a criterion needs, and checks what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from prunelab.criteria.base import Criterion, Evidence, Subject
from prunelab.criteria.measuring import Batches, Loss, Measured, as_masked, measure, measuring
from prunelab.criteria.watching import PerWeight
from prunelab.granularity import Granularity
from prunelab.memory import memory_of
from prunelab.targets import Target, named_parameters, unwrap


def score_targets(
    model: nn.Module,
    targets: Sequence[Target],
    criterion: Criterion,
    granularity: Granularity,
    data: Batches | None,
    loss: Loss | None,
    kept_before: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The criterion's score of every unit of every target, {name: (units,)}; weights not `kept_before` are zero."""
    arguments = model, targets, criterion, granularity
    if criterion.momentum is None:
        return checked_scores(criterion, gather(*arguments, data, loss, kept_before))
    average: dict[str, Tensor] = {}
    with measuring(unwrap(model)):  # the order of the data may be drawn
        for batch in _checked_data(criterion, data, loss):
            new = checked_scores(criterion, gather(*arguments, [batch], loss, kept_before))
            average = {name: average[name].lerp(s, 1 - criterion.momentum) if average else s for name, s in new.items()}
    if not average:
        raise ValueError("data is empty: it must yield at least one example as (inputs, targets)")
    return average


def gather(
    model: nn.Module,
    targets: Sequence[Target],
    criterion: Criterion,
    granularity: Granularity,
    data: Batches | None,
    loss: Loss | None,
    kept_before: Mapping[str, Tensor] | None = None,
) -> dict[str, Evidence]:
    """What the criterion needs of every target, as matrices (units, members); weights not `kept_before` are zero."""
    criterion.check(granularity)
    kept = kept_before or {}
    parts = [part for target in targets for part in target.parts]
    observes = type(criterion).observe is not Criterion.observe
    runs = {"gradients", "data"} & set(criterion.needs) or observes
    if observes or "gradients" in criterion.needs:
        _refuse_twins(model, parts)
    with as_masked(model, kept if runs else {}):
        measured = _measured(model, parts, criterion, data, loss)
        statistics = {**measured.statistics, **criterion.observe(Subject(model, parts, data, loss, kept))}
    weights = {part.name: _masked(part.weight.detach(), kept.get(part.name)) for part in parts}
    return {
        target.name: Evidence(
            weights=target.matrix(weights, granularity),
            gradients=target.matrix(measured.gradients, granularity) if measured.gradients else None,
            statistics=_viewed(target, statistics, granularity),
            granularity=granularity,
            sizes=target.sizes(granularity),
        )
        for target in targets
    }


def _refuse_twins(model: nn.Module, parts: Sequence[Target]) -> None:
    """A gradient belongs to a parameter: two parameters over the same memory would each get a part of it."""
    holders: dict[Any, dict[int, str]] = {}  # memory → the first name of each parameter over it, by identity
    for name, parameter in named_parameters(model).items():
        holders.setdefault(memory_of(parameter), {}).setdefault(id(parameter), name)
    for part in parts:
        twins = [name for owner, name in holders[memory_of(part.weight)].items() if owner != id(part.weight)]
        if twins:
            raise ValueError(
                f"{part.name!r} and {twins[0]!r} are two parameters over the same memory, so the gradient of what they "
                "hold is not known; make them one parameter, as in b.weight = a.weight, or use exclude="
            )


def _masked(weight: Tensor, kept: Tensor | None) -> Tensor:
    return weight if kept is None else weight.masked_fill(~kept, 0)


def _viewed(target: Target, statistics: Mapping[str, Any], granularity: Granularity) -> Any:
    """The target's statistic: a matrix (units, members) where it has one number for every weight."""
    found = statistics.get(target.name)
    if not isinstance(found, PerWeight):
        return found
    return target.matrix({part.name: statistics[part.name].values for part in target.parts}, granularity)


def checked_scores(criterion: Criterion, evidence: Mapping[str, Evidence]) -> dict[str, Tensor]:
    """The criterion's scores: one float a unit, (units,), on the weight's device."""
    # Copies: a criterion may work in place, and what it returns may be a part of what it was given.
    copies = {name: replace(one, weights=one.weights.clone()) for name, one in evidence.items()}
    with torch.no_grad():
        scores = criterion.scores(copies)
    if not isinstance(scores, Mapping):
        raise ValueError(f"{type(criterion).__name__}.scores must return a dict, name → scores, not {scores!r:.60}")
    checked = {}
    for name, one in evidence.items():
        values, units = scores.get(name), one.weights.shape[0]
        if not isinstance(values, Tensor) or values.shape != (units,) or values.is_complex():
            got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"{type(criterion).__name__} must score {name!r} with one real number a unit, shape ({units},), but it "
                f"gave {got}"
            )
        floats = values if values.is_floating_point() else values.double()
        device = one.weights.device
        checked[name] = floats.detach().to(device, torch.float32 if device.type == "mps" else None)  # no float64 there
    return checked


def _measured(
    model: nn.Module, parts: Sequence[Target], criterion: Criterion, data: Batches | None, loss: Loss | None
) -> Measured:
    """Gradients and activations as far as the criterion needs them."""
    by_gradient, by_data = "gradients" in criterion.needs, "data" in criterion.needs
    if not by_gradient and not by_data:
        return Measured({}, {})
    given = _checked_data(criterion, data, loss)
    probes = {part.name: probe for part in parts if (probe := criterion.probe())} if by_data else {}
    if not by_gradient and not probes:  # the criterion looks at the data itself, in `observe`
        return Measured({}, {})
    return measure(model, parts, given, loss if by_gradient else None, probes)


def _checked_data(criterion: Criterion, data: Batches | None, loss: Loss | None) -> Batches:
    """`data`, once it is sure that the criterion has what it needs; it is refused without."""
    by_gradient = "gradients" in criterion.needs
    missing = [what for what, given in (("data=", data), ("loss=", loss if by_gradient else ())) if given is None]
    if data is None or missing:
        raise ValueError(
            f"{type(criterion).__name__} needs {' and '.join(sorted(criterion.needs))}, so it must be given "
            f"{' and '.join(missing)}: data=batches of (inputs, targets), loss=a function of (outputs, targets) that "
            "returns the mean loss"
        )
    if by_gradient and (not callable(loss) or isinstance(loss, type)):
        call = f"; write {loss.__name__}()" if isinstance(loss, type) else ""
        raise TypeError(f"loss must be a function of (outputs, targets), not {loss!r:.60}{call}")
    if not isinstance(data, Iterable):
        raise TypeError(f"data must be batches of (inputs, targets), not {data!r:.60}")
    if isinstance(data, Iterator):
        raise TypeError(
            "data must be something that can be iterated more than once (a DataLoader, a list of batches), not a "
            f"{type(data).__name__}, which is used up after one pass; wrap it in list(...)"
        )
    return data
