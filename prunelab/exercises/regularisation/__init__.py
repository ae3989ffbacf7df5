"""The exercises of the chapter on regularisation: q1 (recall), q2 and q3 (code), q4 (investigate)."""

from prunelab.exercises.regularisation.group_price import QUESTION as q2
from prunelab.exercises.regularisation.group_step import QUESTION as q3
from prunelab.exercises.regularisation.one_step import QUESTION as q1
from prunelab.exercises.regularisation.slimmed import QUESTION as q4

__all__ = ["q1", "q2", "q3", "q4"]
