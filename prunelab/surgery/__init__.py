"""From masks to a smaller network: which channels go together, a plan, and the network that is left."""

from prunelab.surgery.attention import SlimAttention
from prunelab.surgery.coupling import Coupling, Group, couple
from prunelab.surgery.folding import fold_batch_norm
from prunelab.surgery.plan import Part, Plan
from prunelab.surgery.shrinking import Shrunk, shrink
from prunelab.surgery.verifying import NotEqual

__all__ = [
    "Coupling",
    "Group",
    "NotEqual",
    "Part",
    "Plan",
    "Shrunk",
    "SlimAttention",
    "couple",
    "fold_batch_norm",
    "shrink",
]
