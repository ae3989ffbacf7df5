"""The saliency of Optimal Brain Damage, from a diagonal of the Hessian that the caller brings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from prunelab.criteria.base import Criterion, Subject
from prunelab.criteria.members import member_sums
from prunelab.criteria.watching import PerWeight
from prunelab.targets import Target


@dataclass(frozen=True)
class OBD(Criterion):
    """The rise of the loss when a unit is removed, to second order at a minimum: sum of h · w² / 2 over its members.

    h is the diagonal of the loss's Hessian, ∂²L/∂w². The saliency h · w² / 2 takes the gradient for zero (the network
    is trained), and the terms off the diagonal too, so that those of a unit's members add up (LeCun et al. 1990).
    Where a diagonal is negative, the loss is expected to fall and the unit goes first. In the loss's unit.

    >>> import prunelab
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> model.weight.data[:] = torch.tensor([[3.0, 1.0]])
    >>> prunelab.score(model, OBD({"weight": torch.tensor([[1.0, 10.0]])}))
    {'weight': tensor([4.5000, 5.0000])}

    Args:
        curvature: ∂²L/∂w² of every parameter that is to be pruned: parameter name → tensor of the parameter's shape. It
            is taken as it is: give a new one when the weights have changed.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"weights"})
    reads: ClassVar[str] = "the curvature that it is given, the diagonal of the Hessian"

    curvature: Mapping[str, Tensor] = field(repr=False)

    def __post_init__(self) -> None:
        check_curvature("OBD", self.curvature)

    def observe(self, subject: Subject) -> Mapping[str, PerWeight]:
        return by_parameter("OBD", self.curvature, subject.targets)

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        weights = weights.to(torch.promote_types(weights.dtype, statistics.dtype))
        return member_sums(statistics * weights.square() / 2)


def check_curvature(criterion: str, curvature: object) -> None:
    """Raises TypeError for what is no mapping from names to tensors of floats."""
    expected = f"{criterion} needs curvature={{parameter name: tensor of ∂²L/∂w², of the parameter's shape}}"
    if not isinstance(curvature, Mapping):
        raise TypeError(f"{expected}, not {type(curvature).__name__}")
    for name, values in curvature.items():
        if not isinstance(values, Tensor) or not values.is_floating_point():
            got = values.dtype if isinstance(values, Tensor) else type(values).__name__
            raise TypeError(f"{expected}; that of {name!r} is {got}")


def by_parameter(criterion: str, curvature: Mapping[str, Tensor], targets: Sequence[Target]) -> dict[str, PerWeight]:
    """The curvature of the targets' weights, in float32 at least. Raises ValueError where one is missing or misfits."""
    found = {}
    for target in targets:
        shape = tuple(target.weight.shape)
        if target.name not in curvature:
            raise ValueError(
                f"{criterion} has no curvature for {target.name!r}: curvature={{{target.name!r}: tensor of shape "
                f"{shape}, ...}} must name every parameter that is pruned; it has {', '.join(curvature) or 'none'}"
            )
        values = curvature[target.name]
        if tuple(values.shape) != shape:
            raise ValueError(
                f"{criterion}'s curvature of {target.name!r} has shape {tuple(values.shape)}, the parameter {shape}: "
                "give one number for each weight"
            )
        precision = torch.promote_types(values.dtype, torch.float32)
        found[target.name] = PerWeight(values.detach().to(device=target.weight.device, dtype=precision))
    return found
