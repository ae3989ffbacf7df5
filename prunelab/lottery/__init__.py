"""Lottery tickets: sub-networks that train on their own, found, tested against their controls, and explained."""

from prunelab.lottery.recipe import Recipe
from prunelab.lottery.state import State

__all__ = [
    "Recipe",
    "State",
]
