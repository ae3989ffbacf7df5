"""The exercises of the chapter on lottery tickets: q1 (recall), q2, q3 and q4 (code), q5 (investigate)."""

from prunelab.exercises.lottery_tickets.arms import QUESTION as q1
from prunelab.exercises.lottery_tickets.claims import QUESTION as q5
from prunelab.exercises.lottery_tickets.popup import QUESTION as q4
from prunelab.exercises.lottery_tickets.round import QUESTION as q2
from prunelab.exercises.lottery_tickets.stable import QUESTION as q3

__all__ = ["q1", "q2", "q3", "q4", "q5"]
