"""The exercises of the chapter on evaluation: q1 (recall), q2 and q3 (code), q4 (investigate)."""

from prunelab.exercises.evaluation.conv_macs import QUESTION as q2
from prunelab.exercises.evaluation.counts import QUESTION as q1
from prunelab.exercises.evaluation.paired import QUESTION as q3
from prunelab.exercises.evaluation.suspects import QUESTION as q4

__all__ = ["q1", "q2", "q3", "q4"]
