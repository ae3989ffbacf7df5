"""Collects what a criterion needs, and checks what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from prunelab.criteria.base import Criterion, Evidence
from prunelab.criteria.measuring import Batches, Loss, Measured, as_masked, measure
from prunelab.granularity import Granularity
from prunelab.targets import Target


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
    measured = _measured(model, targets, criterion, data, loss, kept_before or {})
    evidence = {}
    for target in targets:
        weight = target.weight.detach()
        if kept_before and target.name in kept_before:
            weight = weight.masked_fill(~kept_before[target.name], 0)
        gradient = measured.gradients.get(target.name)
        evidence[target.name] = Evidence(
            weights=target.view(weight, granularity),
            gradients=None if gradient is None else target.view(gradient, granularity),
            statistics=measured.activations.get(target.name),
        )
    return evidence


def checked_scores(criterion: Criterion, evidence: Mapping[str, Evidence]) -> dict[str, Tensor]:
    """The criterion's scores: one float a unit, (units,), on the weight's device."""
    # Copies: a criterion may work in place, and what it returns may be a part of what it was given.
    copies = {name: replace(one, weights=one.weights.clone()) for name, one in evidence.items()}
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
        checked[name] = floats.detach().to(one.weights.device)
    return checked


def _measured(
    model: nn.Module,
    targets: Sequence[Target],
    criterion: Criterion,
    data: Batches | None,
    loss: Loss | None,
    kept_before: Mapping[str, Tensor],
) -> Measured:
    """Gradients and activations as far as the criterion needs them; it is refused without what they are made from."""
    by_gradient, by_data = "gradients" in criterion.needs, "data" in criterion.needs
    if not by_gradient and not by_data:
        return Measured({}, {})
    missing = [what for what, given in (("data=", data), ("loss=", loss if by_gradient else ())) if given is None]
    if data is None or missing:
        raise ValueError(
            f"{type(criterion).__name__} needs {' and '.join(sorted(criterion.needs))}, so it must be given "
            f"{' and '.join(missing)}: data=batches of (inputs, targets), loss=a function of (outputs, targets) that "
            "returns the mean loss"
        )
    if by_gradient and not callable(loss):
        raise TypeError(f"loss must be a function of (outputs, targets), not {loss!r:.60}")
    if not isinstance(data, Iterable):
        raise TypeError(f"data must be batches of (inputs, targets), not {data!r:.60}")
    if isinstance(data, Iterator):
        raise TypeError(
            "data must be something that can be iterated more than once (a DataLoader, a list of batches), not a "
            f"{type(data).__name__}, which is used up after one pass; wrap it in list(...)"
        )
    with as_masked(targets, kept_before):
        return measure(model, targets, data, loss if by_gradient else None, activations=by_data)
