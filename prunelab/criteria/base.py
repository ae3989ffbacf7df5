"""The extension point: what a criterion is, and what it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from prunelab.criteria.activations import Activations

EVIDENCE = frozenset({"weights", "gradients", "data"})


@dataclass(frozen=True)
class Evidence:
    """What is known of one parameter's units. `weights` and `gradients` are matrices (units, members).

    `gradients` is None for a criterion that does not need them. `statistics` are the activations of the layer's
    channels; None for a criterion that does not need data.
    """

    weights: Tensor
    gradients: Tensor | None = None
    statistics: Activations | None = None


class Criterion(ABC):
    """Gives every unit a score; units with larger scores are kept.

    A subclass declares what it `needs`, of "weights", "gradients" and "data", and says how to score one parameter:

    >>> class WeightTimesGradient(Criterion):
    ...     needs = {"weights", "gradients"}
    ...     def score(self, weights, gradients, statistics):  # matrices (units, members)
    ...         return (weights * gradients).sum(1).abs()     # (units,)
    """

    needs: ClassVar[frozenset[str] | set[str]] = frozenset({"weights"})

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if isinstance(cls.needs, str):
            raise TypeError(
                f"{cls.__name__}.needs must be a set such as {{{cls.needs!r}}}, not the string {cls.needs!r}"
            )
        if unknown := set(cls.needs) - EVIDENCE:
            raise ValueError(f"{cls.__name__}.needs names {sorted(unknown)}; choose from {sorted(EVIDENCE)}")

    @abstractmethod
    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Activations | None) -> Tensor:
        """One number a unit, (units,), from matrices (units, members). Pure: the same arguments, the same scores."""

    def scores(self, evidence: Mapping[str, Evidence]) -> dict[str, Tensor]:
        """The scores of all parameters. Override it only where one parameter's scores depend on the others."""
        return {name: self.score(one.weights, one.gradients, one.statistics) for name, one in evidence.items()}
