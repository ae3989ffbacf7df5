"""From masks to a smaller network: which channels go together, a plan, and the network that is left."""

from prunelab.surgery.attention import SlimAttention
from prunelab.surgery.building import NotEqual
from prunelab.surgery.coupling import Coupling, Group, couple
from prunelab.surgery.plan import Part, Plan
from prunelab.surgery.shrink import Shrunk, shrink

__all__ = ["Coupling", "Group", "NotEqual", "Part", "Plan", "Shrunk", "SlimAttention", "couple", "shrink"]
