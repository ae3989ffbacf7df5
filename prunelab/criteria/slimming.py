"""Network slimming: the scale of a channel's batch normalisation says how much of the channel is let through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from prunelab.criteria.base import Criterion, Subject
from prunelab.criteria.measuring import measuring, run
from prunelab.criteria.watching import Call, Probe, Watch
from prunelab.granularity import Filter, Granularity
from prunelab.targets import unwrap


@dataclass(frozen=True, eq=False)
class BatchNormScale(Criterion):
    """|γ| of the batch normalisation that follows a filter directly (Liu et al. 2017).

    Which normalisation follows which layer is seen in one forward on `example_inputs` (a tensor, a tuple of positional
    or a dict of keyword arguments); their values do not matter. Only an activation function may stand in between. The
    scores of all layers compete with each other ("global"), as in the paper, after training with `regularize.Slimming`.

    >>> BatchNormScale(torch.zeros(1, 3, 8, 8)).score(torch.empty(2, 27), None, torch.tensor([-0.5, 0.25]))
    tensor([0.5000, 0.2500])

    A layer that no batch normalisation with a scale follows is refused: leave it out with `exclude=`.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    reads: ClassVar[str] = "the scale of the batch normalisation after the layer"
    granularities: ClassVar[tuple[type[Granularity], ...]] = (Filter,)

    example_inputs: Any = field(repr=False)

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        return statistics.abs()

    def observe(self, subject: Subject) -> Mapping[str, Tensor]:
        """The scale after each layer, (O,), by the name of the layer's weight."""
        model = unwrap(subject.model)
        watch = Watch({target.name: Scale() for target in subject.targets})
        with measuring(model), watch.on(subject.targets):
            watch.batch(None, 1)
            run(model, self.example_inputs)
            watch.finish()
        return watch.results()


class Scale(Probe):
    """The scale of the first batch normalisation that is applied to what the layer puts out."""

    def __init__(self) -> None:
        self._scale: Tensor | None = None

    def add(self, calls: Sequence[Call], examples: int) -> None:
        for call in calls:
            found = [scale for name, scale in call.applied if name == "batch_norm"]
            if not found or found[0] is None:
                missing = (
                    "is followed by a batch normalisation without a scale (affine=False)"
                    if found
                    else ("is not followed directly by a batch normalisation")
                )
                raise ValueError(f"{missing}, so its filters have no score; leave it out with exclude=[...]")
            if self._scale is not None and not torch.equal(self._scale, found[0]):
                raise ValueError(
                    "runs several times, followed by batch normalisations of several scales, so its filters have no "
                    "single score; leave it out with exclude=[...]"
                )
            self._scale = found[0]

    def result(self, labels: Any) -> Any:
        return self._scale
