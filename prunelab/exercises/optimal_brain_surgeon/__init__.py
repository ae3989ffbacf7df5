"""The exercises of the chapter on Optimal Brain Surgeon: q1 (recall), q2 and q3 (code), q4 (investigate)."""

from prunelab.exercises.optimal_brain_surgeon.groups import QUESTION as q2
from prunelab.exercises.optimal_brain_surgeon.shrunk import QUESTION as q3
from prunelab.exercises.optimal_brain_surgeon.suspects import QUESTION as q4
from prunelab.exercises.optimal_brain_surgeon.three_weights import QUESTION as q1

__all__ = ["q1", "q2", "q3", "q4"]
