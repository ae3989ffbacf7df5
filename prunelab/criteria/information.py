"""Mutual information: what a channel tells about the labels, or about what the next layer makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

from torch import Tensor

from prunelab.criteria import estimators
from prunelab.criteria.activations import Activations, ChannelMeans
from prunelab.criteria.base import Criterion, Evidence
from prunelab.criteria.watching import Probe
from prunelab.granularity import Channel, Filter, Granularity

_ESTIMATORS: dict[str, Callable[..., Tensor]] = {
    "histogram": estimators.histogram,
    "quantile": estimators.quantile,
    "ksg": estimators.ksg,
}


@dataclass(frozen=True)
class MutualInformation(Criterion):
    """The mutual information of a unit's activations with the labels, in nats: 0 where they tell nothing.

    One sample is one example. A filter's activation is the mean over the positions of what its channel carries after
    the normalisation and activation function that directly follow the layer; an input channel's, the mean of what it
    carries into the layer. `pool="max"` takes the largest value in place of the mean: is the feature anywhere? A single
    weight has no activation, so other granularities are refused.

    `of="labels"` takes the targets of the data: class indices (N,), one-hot rows (N, classes), or measurements (N,).
    Of several targets an example, (N, T), the mean of the information with each is taken. `of="next"` takes the mean of
    the information with each channel that reads the unit's (after Ganesh et al. 2020, without their conditioning): for
    a filter the outputs of the next parameter in the model's order, for an input channel those of its own layer. The
    last layer's filters have no next layer, so they are scored with the labels.

    `estimator` is "histogram", "quantile" (for many exact zeros, such as after a ReLU) or "ksg" (slow); `bins` sets the
    number of bins of the first two. See `prunelab.criteria.estimators`.

    The scores of two channels that tell the same are both high: redundancy is what `FilterCorrelation` is for.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"data"})
    granularities: ClassVar[tuple[type[Granularity], ...]] = (Filter, Channel)

    estimator: str = "histogram"
    bins: int | None = None
    of: str = "labels"
    pool: str = "mean"

    def __post_init__(self) -> None:
        known = {"estimator": tuple(_ESTIMATORS), "of": ("labels", "next"), "pool": ("mean", "max")}
        for name, choices in known.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"MutualInformation({name}={value!r}): use one of {', '.join(map(repr, choices))}")
        if self.bins is None:
            return
        if self.estimator == "ksg":
            raise ValueError(f'MutualInformation(estimator="ksg", bins={self.bins!r}): this estimator has no bins')
        if isinstance(self.bins, bool) or not isinstance(self.bins, Integral) or self.bins < 2:
            raise ValueError(f"MutualInformation(bins={self.bins!r}): a whole number of bins, at least 2")
        object.__setattr__(self, "bins", int(self.bins))

    def probe(self) -> Probe:
        return ChannelMeans(self.pool)

    def score(self, weights: Tensor | None, gradients: Tensor | None, statistics: Activations) -> Tensor:
        """The information with the labels; of the output channels if there are as many as units, else of the inputs.

        `scores` knows the granularity and need not guess.
        """
        by_filter = weights is None or statistics.activated.shape[1] == weights.shape[0]
        return self._of_labels(statistics.activated if by_filter else statistics.inputs, statistics)

    def scores(self, evidence: Mapping[str, Evidence]) -> dict[str, Tensor]:
        followers: list[Evidence | None] = [*list(evidence.values())[1:], None]
        found = {}
        for (name, one), follower in zip(evidence.items(), followers, strict=True):
            by_input = isinstance(one.granularity, Channel)
            carried = one.statistics.inputs if by_input else one.statistics.activated
            reader = one if by_input else follower
            try:
                if self.of == "labels" or reader is None:
                    found[name] = self._of_labels(carried, one.statistics)
                else:
                    found[name] = self._estimate(carried, reader.statistics.activated).mean(1)
            except ValueError as error:
                raise ValueError(f"{name!r}: {error}") from None
        return found

    def _of_labels(self, carried: Tensor, statistics: Activations) -> Tensor:
        information = self._estimate(carried, _labels(statistics.targets, len(carried)))
        return information if information.dim() == 1 else information.mean(1)

    def _estimate(self, carried: Tensor, target: Tensor) -> Tensor:
        options = {} if self.bins is None else {"bins": self.bins}
        return _ESTIMATORS[self.estimator](carried, target, **options)


def _labels(targets: Any, examples: int) -> Tensor:
    """The targets as classes or measurements, (examples,) or (examples, several)."""
    if not isinstance(targets, Tensor):
        raise ValueError(
            "mutual information needs one label an example, but the targets of the batches are no tensors that could "
            f"be joined ({type(targets).__name__} of {len(targets)}): data= must yield (inputs, targets) with targets "
            'of shape (N,) or (N, several), the same in every batch; of="next" needs no labels but for the last layer'
        )
    if targets.dim() not in (1, 2) or len(targets) != examples or targets.is_complex():
        raise ValueError(
            f"mutual information needs one label an example, real numbers (N,) or (N, several) for the {examples} "
            f"examples, not {targets.dtype} of shape {tuple(targets.shape)}"
        )
    if targets.dim() == 1:
        return targets
    ones = targets == 1
    if targets.shape[1] > 1 and bool((ones | (targets == 0)).all()) and bool((ones.sum(1) == 1).all()):
        return ones.int().argmax(1)  # one-hot
    return targets
