"""Which units go: a criterion gives every unit of a weight one number, and the smallest go first."""

from prunelab.criteria.activations import Activations
from prunelab.criteria.base import Criterion, Evidence
from prunelab.criteria.magnitude import Magnitude
from prunelab.criteria.random import Random

__all__ = ["Activations", "Criterion", "Evidence", "Magnitude", "Random"]
