"""Taylor expansion: what the loss would be if a unit were removed, predicted from derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prunelab.criteria.activations import check_rows
from prunelab.criteria.base import Criterion, Subject
from prunelab.criteria.members import gradients_of, member_sums, precise
from prunelab.criteria.obd import by_parameter, check_curvature
from prunelab.criteria.watching import Call, PerWeight, Probe, by_example
from prunelab.granularity import Filter, Granularity

_CHOICES = {
    "order": (1, 2),
    "of": ("weights", "activations"),
    "squared": (False, True),
    "joint": (True, False),
    "normalize": (None, "layer"),
}


@dataclass(frozen=True)
class Taylor(Criterion):
    """The predicted change of the loss when a unit is removed, its sign left out; in the loss's unit.

    Removing a unit takes its weights w to zero. To first order the loss changes by -(sum of w · ∂L/∂w), so the score
    is |sum over members of w · ∂L/∂w| (after Molchanov et al. 2019): what one member raises another may lower, so the
    sum comes before the absolute value. With `order=2` it is |sum of (-w · ∂L/∂w + h · w² / 2)|, h the diagonal of
    the Hessian; the terms off the diagonal are left out. L is the mean loss over all the data. Biases do not count.

    >>> weights, gradients = torch.tensor([[1.0, 2.0], [1.0, 0.5]]), torch.tensor([[2.0, -1.0], [1.0, 2.0]])
    >>> Taylor().score(weights, gradients, None)
    tensor([0., 2.])
    >>> Taylor(joint=False, squared=True).score(weights, gradients, None)
    tensor([8., 2.], dtype=torch.float64)

    Args:
        order: 1 or 2.
        of: "weights"; or "activations", for filters: a gate that multiplies an output channel a, after the
            normalisation and the activation function that follow the layer. The score is the mean over examples of
            |sum over positions of a · ∂L/∂a| (Molchanov et al. 2017, who take the mean over positions: a factor that
            is the same for all filters of a layer). L is the example's own loss, so examples do not cancel each other.
        squared: the square in place of the absolute value. For a joint sum of weights it ranks alike.
        joint: False takes the members one by one: the sum of their absolute values, or with `squared=True` of
            their squares, which is what the code of Molchanov et al. 2019 computes.
        normalize: "layer" divides by the Euclidean length of the layer's scores, which then compete on equal terms
            (Molchanov et al. 2017).
        momentum: None, or the weight of the past in a running average of the scores of single batches, at least 0 and
            below 1 (0.9 in the code of Molchanov et al. 2019). Scores then depend on how the data are cut into batches.
        curvature: for order=2, h of every parameter to be pruned: parameter name → tensor of the parameter's shape.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"weights", "gradients", "data"})

    order: int = 1
    of: str = "weights"
    squared: bool = False
    joint: bool = True
    normalize: str | None = None
    momentum: float | None = None
    curvature: Mapping[str, Tensor] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"Taylor({name}={getattr(self, name)!r}): use {' or '.join(map(repr, choices))}")
        if self.momentum is not None and (
            isinstance(self.momentum, bool) or not isinstance(self.momentum, Real) or not 0 <= self.momentum < 1
        ):
            raise ValueError(f"Taylor(momentum={self.momentum!r}): the weight of the past is at least 0 and below 1")
        if self.of == "activations" and (self.order == 2 or not self.joint):
            raise ValueError("Taylor(of='activations') is of first order, and a gate has no members to take one by one")
        if self.order == 2:
            check_curvature("Taylor(order=2)", self.curvature)
        elif self.curvature is not None:
            raise ValueError("Taylor(order=1) reads no curvature; write Taylor(order=2, curvature=...)")

    def check(self, granularity: Granularity) -> None:
        if self.of == "activations" and not isinstance(granularity, Filter):
            raise ValueError(
                f"Taylor(of='activations') has no meaning at the granularity {granularity}: it closes output channels, "
                "so it scores units of Filter(); Taylor(of='weights') scores all others"
            )

    def probe(self) -> Probe | None:
        return _Gates(self.squared) if self.of == "activations" else None

    def observe(self, subject: Subject) -> Mapping[str, PerWeight]:
        return {} if self.curvature is None else by_parameter("Taylor(order=2)", self.curvature, subject.targets)

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        scores = statistics if self.of == "activations" else self._of_weights(weights, gradients, statistics)
        if self.normalize is None:
            return scores
        length = torch.linalg.vector_norm(precise(scores))
        return precise(scores) / length.where(length != 0, 1)

    def _of_weights(self, weights: Tensor, gradients: Tensor | None, curvature: Tensor | None) -> Tensor:
        change = -weights * gradients_of("Taylor", gradients)  # (units, members) of the loss, each member alone
        if self.order == 2 and curvature is not None:
            change = change + curvature * weights.to(change.dtype).square() / 2
        if self.joint:
            change = member_sums(change)[:, None]  # (units, 1)
        return member_sums(precise(change).square() if self.squared else change.abs())


class _Gates(Probe):
    """The mean over examples of |∂L/∂gate|, or of its square, for each output channel; L is the example's own loss."""

    gated = True

    def __init__(self, squared: bool) -> None:
        self._squared = squared
        self._sums: list[Tensor] = []
        self._examples = 0

    def emit(self, module: nn.Module, outputs: Tensor) -> torch.Size:
        return by_example(module, outputs).shape[:2]

    def add(self, calls: Sequence[Call], examples: int) -> None:
        flows = []
        for call in calls:
            # The last stage is what the rest of the network reads; one that was made in place and not assigned has no
            # gradient, and then the stage before it is the same number: a * ∂L/∂a goes through a rectifier unchanged.
            used = (gradient for gradient in reversed(call.gradients) if gradient is not None)
            flow = next(used, torch.zeros_like(call.gates[-1]))
            flows.append(precise(flow.detach()).reshape(call.emitted[-1]))  # (examples, channels)
        check_rows(flows, examples)
        own = sum(flows[1:], start=flows[0]) * examples  # the batch's loss is a mean over its examples
        self._sums.append((own.square() if self._squared else own.abs()).sum(0))
        self._examples += examples

    def result(self, labels: Any) -> Tensor:
        return sum(self._sums[1:], start=self._sums[0]) / self._examples
