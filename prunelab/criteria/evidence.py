"""Collects what a criterion needs, and checks what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from prunelab.criteria.base import Criterion, Evidence
from prunelab.criteria.gradients import Batches, Loss, mean_gradients
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
    """The matrices (units, members) that the criterion needs, for every target; weights not `kept_before` are zero."""
    gradients: Sequence[Tensor | None] = [None] * len(targets)
    if "gradients" in criterion.needs:
        batches, mean_loss = _required(criterion, data, loss)
        gradients = mean_gradients(model, [target.weight for target in targets], batches, mean_loss)
    evidence = {}
    for target, gradient in zip(targets, gradients, strict=True):
        weight = target.weight.detach()
        if kept_before and target.name in kept_before:
            weight = weight.masked_fill(~kept_before[target.name], 0)
        try:
            matrix = granularity.view(weight, target.layout)
        except ValueError as error:
            raise ValueError(f"{target.name!r}: {error}") from None
        evidence[target.name] = Evidence(
            weights=matrix, gradients=None if gradient is None else granularity.view(gradient, target.layout)
        )
    return evidence


def checked_scores(criterion: Criterion, evidence: Mapping[str, Evidence]) -> dict[str, Tensor]:
    """The criterion's scores: one float a unit, (units,), on the weight's device."""
    scores = criterion.scores(evidence)
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


def _required(criterion: Criterion, data: Batches | None, loss: Loss | None) -> tuple[Batches, Loss]:
    """`data` and `loss`, once it is sure that they can serve."""
    if data is None or loss is None:
        missing = " and ".join(what for what, value in (("data=", data), ("loss=", loss)) if value is None)
        raise ValueError(
            f"{type(criterion).__name__} needs {' and '.join(sorted(criterion.needs))}, so it must be given {missing}: "
            "data=batches of (inputs, targets), loss=a function (outputs, targets) → mean loss"
        )
    if isinstance(data, Iterator):
        raise TypeError(
            "data must be something that can be iterated more than once (a DataLoader, a list of batches), not a "
            f"{type(data).__name__}, which is used up after one pass; wrap it in list(...)"
        )
    return data, loss
