"""When units go: a schedule maps a training step to the sparsity to have by then."""

from prunelab.schedule.agp import AGP
from prunelab.schedule.base import Schedule, check_sparsity, check_step
from prunelab.schedule.cosine import Cosine
from prunelab.schedule.dsd import DSD
from prunelab.schedule.exponential import Exponential
from prunelab.schedule.iterative import Iterative
from prunelab.schedule.linear import Linear
from prunelab.schedule.one_cycle import OneCycle
from prunelab.schedule.one_shot import OneShot

__all__ = [
    "AGP",
    "DSD",
    "Cosine",
    "Exponential",
    "Iterative",
    "Linear",
    "OneCycle",
    "OneShot",
    "Schedule",
    "check_sparsity",
    "check_step",
]
