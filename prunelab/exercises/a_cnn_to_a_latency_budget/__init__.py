"""The exercises of the chapter on a latency budget: q1 (recall), q2 and q3 (code), q4 (investigate)."""

from prunelab.exercises.a_cnn_to_a_latency_budget.folding import QUESTION as q2
from prunelab.exercises.a_cnn_to_a_latency_budget.halved import QUESTION as q1
from prunelab.exercises.a_cnn_to_a_latency_budget.tied import QUESTION as q3
from prunelab.exercises.a_cnn_to_a_latency_budget.untrained import QUESTION as q4

__all__ = ["q1", "q2", "q3", "q4"]
