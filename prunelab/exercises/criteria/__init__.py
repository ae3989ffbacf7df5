"""The exercises of the chapter on criteria: q1 (recall), q2, q3 and q4 (code), q5 (investigate)."""

from prunelab.exercises.criteria.correlation import QUESTION as q3
from prunelab.exercises.criteria.information import QUESTION as q4
from prunelab.exercises.criteria.needs import QUESTION as q1
from prunelab.exercises.criteria.suspects import QUESTION as q5
from prunelab.exercises.criteria.taylor import QUESTION as q2

__all__ = ["q1", "q2", "q3", "q4", "q5"]
