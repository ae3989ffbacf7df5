"""What each operation of the dispatcher does to channels: one rule an operation, a table from names to rules."""

from __future__ import annotations

from prunelab.surgery.follow import Rule
from prunelab.surgery.rules import (
    convolutions,
    creation,
    indexing,
    movement,
    normalisation,
    pointwise,
    products,
    reduction,
    shuffles,
    spatial,
)

RULES: dict[str, Rule] = {
    **convolutions.RULES,
    **creation.RULES,
    **indexing.RULES,
    **movement.RULES,
    **normalisation.RULES,
    **products.RULES,
    **reduction.RULES,
    **shuffles.RULES,
    **spatial.RULES,
    **pointwise.RULES,
}

__all__ = ["RULES"]
