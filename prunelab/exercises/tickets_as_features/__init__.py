"""The exercises of the chapter on tickets as features: q1 (recall), q2 and q3 (code), q4 (investigate)."""

from prunelab.exercises.tickets_as_features.diagonals import QUESTION as q1
from prunelab.exercises.tickets_as_features.outer_product import QUESTION as q2
from prunelab.exercises.tickets_as_features.reads import QUESTION as q4
from prunelab.exercises.tickets_as_features.slope import QUESTION as q3

__all__ = ["q1", "q2", "q3", "q4"]
