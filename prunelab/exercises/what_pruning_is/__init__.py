"""The exercises of the chapter on what pruning is: q1 (recall), q2, q3 and q4 (code), q5 (investigate)."""

from prunelab.exercises.what_pruning_is.budget import QUESTION as q3
from prunelab.exercises.what_pruning_is.global_masks import QUESTION as q4
from prunelab.exercises.what_pruning_is.ratio import QUESTION as q2
from prunelab.exercises.what_pruning_is.revived import QUESTION as q5
from prunelab.exercises.what_pruning_is.zeros import QUESTION as q1

__all__ = ["q1", "q2", "q3", "q4", "q5"]
