"""Which units go: a criterion gives every unit of a weight one number, and the smallest go first."""

from prunelab.criteria.activations import Activations
from prunelab.criteria.apoz import APoZ
from prunelab.criteria.base import Criterion, Evidence
from prunelab.criteria.correlation import FilterCorrelation
from prunelab.criteria.gradient import GradientMagnitude
from prunelab.criteria.grasp import GraSP
from prunelab.criteria.hrank import HRank
from prunelab.criteria.information import MutualInformation
from prunelab.criteria.magnitude import Magnitude
from prunelab.criteria.median import GeometricMedian
from prunelab.criteria.movement import Movement
from prunelab.criteria.obd import OBD
from prunelab.criteria.random import Random
from prunelab.criteria.slimming import BatchNormScale
from prunelab.criteria.snip import SNIP
from prunelab.criteria.synflow import SynFlow
from prunelab.criteria.table import table
from prunelab.criteria.taylor import Taylor
from prunelab.criteria.wanda import Wanda

__all__ = [
    "OBD",
    "SNIP",
    "APoZ",
    "Activations",
    "BatchNormScale",
    "Criterion",
    "Evidence",
    "FilterCorrelation",
    "GeometricMedian",
    "GraSP",
    "GradientMagnitude",
    "HRank",
    "Magnitude",
    "Movement",
    "MutualInformation",
    "Random",
    "SynFlow",
    "Taylor",
    "Wanda",
    "table",
]
