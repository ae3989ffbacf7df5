"""The exercises of the chapter on Optimal Brain Damage: q1 (recall), q2 and q3 (code), q4 (investigate)."""

from prunelab.exercises.optimal_brain_damage.by_hand import QUESTION as q1
from prunelab.exercises.optimal_brain_damage.kinds import QUESTION as q4
from prunelab.exercises.optimal_brain_damage.shared import QUESTION as q2
from prunelab.exercises.optimal_brain_damage.together import QUESTION as q3

__all__ = ["q1", "q2", "q3", "q4"]
