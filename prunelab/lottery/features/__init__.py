"""Tickets as features: which coordinates of its input a function looks at, and whether they are enough."""

from prunelab.lottery.features.ansatz import correlation, neural_feature_matrix
from prunelab.lottery.features.controls import ARMS, feature_controls
from prunelab.lottery.features.gradients import agop
from prunelab.lottery.features.machine import Fit, RecursiveFeatureMachine
from prunelab.lottery.features.ticket import feature_ticket, kept_only

__all__ = [
    "ARMS",
    "Fit",
    "RecursiveFeatureMachine",
    "agop",
    "correlation",
    "feature_controls",
    "feature_ticket",
    "kept_only",
    "neural_feature_matrix",
]
