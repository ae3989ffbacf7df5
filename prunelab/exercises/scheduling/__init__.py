"""The exercises of the chapter on scheduling: q1 (recall), q2 and q3 (code), q4 (investigate)."""

from prunelab.exercises.scheduling.bites import QUESTION as q4
from prunelab.exercises.scheduling.gone import QUESTION as q1
from prunelab.exercises.scheduling.held_steps import QUESTION as q3
from prunelab.exercises.scheduling.power_curve import QUESTION as q2

__all__ = ["q1", "q2", "q3", "q4"]
