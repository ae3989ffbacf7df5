"""The axes composed: what × which × among whom, applied once (`prune`) or over time (`Pruner`)."""

from prunelab.pruner.gradual import Pruner
from prunelab.pruner.once import prune, score

__all__ = ["Pruner", "prune", "score"]
