"""The exercises of the chapter on a pretrained transformer: q1 (recall), q2 and q3 (code), q4 (investigate)."""

from prunelab.exercises.a_pretrained_transformer.fitted import QUESTION as q3
from prunelab.exercises.a_pretrained_transformer.left import QUESTION as q1
from prunelab.exercises.a_pretrained_transformer.patterned import QUESTION as q2
from prunelab.exercises.a_pretrained_transformer.unknown import QUESTION as q4

__all__ = ["q1", "q2", "q3", "q4"]
