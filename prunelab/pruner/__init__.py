"""The axes composed: what × which × among whom, applied once."""

from prunelab.pruner.once import prune, score

__all__ = ["prune", "score"]
