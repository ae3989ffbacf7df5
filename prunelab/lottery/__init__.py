"""Lottery tickets: sub-networks that train on their own, found, tested against their controls, and explained."""

from prunelab.lottery import features
from prunelab.lottery.at_initialisation import at_initialisation
from prunelab.lottery.compare import differences, means, race
from prunelab.lottery.controls import ARMS, controls
from prunelab.lottery.early_bird import EarlyBird, early_bird, mask_distance
from prunelab.lottery.recipe import Recipe
from prunelab.lottery.search import find_ticket, find_tickets
from prunelab.lottery.stability import Barrier, barrier, instability
from prunelab.lottery.stacked import accuracies, train_stacked
from prunelab.lottery.state import State
from prunelab.lottery.supermask import BernoulliMask, EdgePopup, Supermask, supermask
from prunelab.lottery.ticket import Round, Ticket

__all__ = [
    "ARMS",
    "Barrier",
    "BernoulliMask",
    "EarlyBird",
    "EdgePopup",
    "Recipe",
    "Round",
    "State",
    "Supermask",
    "Ticket",
    "accuracies",
    "at_initialisation",
    "barrier",
    "controls",
    "differences",
    "early_bird",
    "features",
    "find_ticket",
    "find_tickets",
    "instability",
    "mask_distance",
    "means",
    "race",
    "supermask",
    "train_stacked",
]
