"""Lottery tickets: sub-networks that train on their own, found, tested against their controls, and explained."""

from prunelab.lottery import features
from prunelab.lottery.early_bird import EarlyBird, early_bird, mask_distance
from prunelab.lottery.recipe import Recipe
from prunelab.lottery.search import find_ticket, find_tickets
from prunelab.lottery.stability import Barrier, barrier
from prunelab.lottery.state import State
from prunelab.lottery.supermask import BernoulliMask, EdgePopup, Supermask, supermask
from prunelab.lottery.ticket import Round, Ticket

__all__ = [
    "Barrier",
    "BernoulliMask",
    "EarlyBird",
    "EdgePopup",
    "Recipe",
    "Round",
    "State",
    "Supermask",
    "Ticket",
    "barrier",
    "early_bird",
    "features",
    "find_ticket",
    "find_tickets",
    "mask_distance",
    "supermask",
]
