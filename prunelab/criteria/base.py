"""The extension point: what a criterion is, and what it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from prunelab.criteria.activations import ChannelMeans
from prunelab.criteria.measuring import Batches, Loss
from prunelab.criteria.watching import Probe
from prunelab.granularity import Granularity, Weight
from prunelab.targets import Target

EVIDENCE = frozenset({"weights", "gradients", "data"})


@dataclass(frozen=True)
class Evidence:
    """What is known of one parameter's units. `weights` and `gradients` are matrices (units, members).

    `gradients` is None for a criterion that does not need them. `statistics` is what the criterion's probe collected:
    `Activations` unless it says otherwise; None for a criterion that needs no data. `granularity` says what the units
    are, `sizes` how many weights each really has (the padding of short blocks not counted).
    """

    weights: Tensor
    gradients: Tensor | None = None
    statistics: Any = None
    granularity: Granularity = field(default_factory=Weight)
    sizes: int | Tensor = 1


@dataclass(frozen=True)
class Subject:
    """What a criterion that makes its own statistics may look at: the model, masked as it is, and the arguments.

    `kept` are the masks of the parameters from which something was removed before, True = kept.
    """

    model: nn.Module
    targets: Sequence[Target]
    data: Batches | None
    loss: Loss | None
    kept: Mapping[str, Tensor] = field(default_factory=dict)


class Criterion(ABC):
    """Gives every unit a score; units with larger scores are kept.

    A subclass declares what it `needs`, of "weights", "gradients" and "data", and says how to score one parameter:

    >>> class WeightTimesGradient(Criterion):
    ...     needs = {"weights", "gradients"}
    ...     def score(self, weights, gradients, statistics):  # matrices (units, members)
    ...         return (weights * gradients).sum(1).abs()     # (units,)

    Attributes:
        needs: what `score` reads. Without "gradients" and "data" the criterion runs without `data` and `loss`.
        reads: what the scores depend on beside weights, gradients and data, in a few words; empty where there is
            nothing. `criteria.table` prints it as a footnote.
        granularities: the granularities at which the criterion has a meaning; empty where that is all of them.
        rounds: in how many rounds `prune` removes, unless it is told; scores are measured anew in each.
        momentum: None, or the weight of the past in a running average of the scores of the single batches; then a
            score no longer belongs to the mean loss over all data.
    """

    needs: ClassVar[frozenset[str] | set[str]] = frozenset({"weights"})
    reads: ClassVar[str] = ""
    granularities: ClassVar[tuple[type[Granularity], ...]] = ()
    rounds: int = 1
    momentum: float | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if isinstance(cls.needs, str):
            raise TypeError(
                f"{cls.__name__}.needs must be a set such as {{{cls.needs!r}}}, not the string {cls.needs!r}"
            )
        if unknown := set(cls.needs) - EVIDENCE:
            raise ValueError(f"{cls.__name__}.needs names {sorted(unknown)}; choose from {sorted(EVIDENCE)}")

    @abstractmethod
    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        """One number a unit, (units,), from matrices (units, members). Pure: the same arguments, the same scores."""

    def scores(self, evidence: Mapping[str, Evidence]) -> dict[str, Tensor]:
        """The scores of all parameters. Override it only where one parameter's scores depend on the others."""
        scores = {}
        for name, one in evidence.items():
            try:
                scores[name] = self.score(one.weights, one.gradients, one.statistics)
            except ValueError as error:
                raise ValueError(f"{name!r}: {error}") from error
        return scores

    def probe(self) -> Probe | None:
        """A fresh probe for one layer, for a criterion that needs data; its result is what `score` gets.

        None where the data are only there to measure gradients.
        """
        return ChannelMeans()

    def observe(self, subject: Subject) -> Mapping[str, Any]:
        """Statistics by parameter name that no probe collects; they come before a probe's. None by default."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What the criterion has gathered while the model was trained, in numbers and tensors; mostly nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken. Raises ValueError for the state of another kind of criterion."""
        if state:
            raise ValueError(f"{type(self).__name__} has no state, but was given one with {', '.join(state)}")

    def check(self, granularity: Granularity) -> None:
        """Raises ValueError for a granularity at which the criterion has no meaning."""
        if self.granularities and not isinstance(granularity, self.granularities):
            names = " or ".join(f"{kind.__name__}(...)" for kind in self.granularities)
            raise ValueError(
                f"{type(self).__name__} has no meaning at the granularity {granularity}; it scores units of {names}"
            )
