"""The exercises of the chapter on granularity: q1 (recall), q2 and q3 (code), q4 (investigate)."""

from prunelab.exercises.granularity.counts import QUESTION as q1
from prunelab.exercises.granularity.dead_channels import QUESTION as q4
from prunelab.exercises.granularity.filter_norms import QUESTION as q2
from prunelab.exercises.granularity.kernel_mask import QUESTION as q3

__all__ = ["q1", "q2", "q3", "q4"]
