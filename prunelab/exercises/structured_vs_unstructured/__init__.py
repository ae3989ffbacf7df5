"""The exercises of the chapter on what gets faster: q1 (recall), q2 and q3 (code), q4 (investigate)."""

from prunelab.exercises.structured_vs_unstructured.csr_product import QUESTION as q2
from prunelab.exercises.structured_vs_unstructured.flattened import QUESTION as q3
from prunelab.exercises.structured_vs_unstructured.folded import QUESTION as q4
from prunelab.exercises.structured_vs_unstructured.forms import QUESTION as q1

__all__ = ["q1", "q2", "q3", "q4"]
