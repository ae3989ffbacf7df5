"""Neural-network pruning you can read, run and trust.

Five questions, five modules: what may be removed (`granularity`), which ones go (`criteria`), among whom they compete
(`scope`), when they go (`schedule`), and what it was worth (`evaluate`). `prune` composes the answers.

Importing this package imports neither torch nor numpy: every name below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunelab import (
        criteria,
        curvature,
        evaluate,
        exercises,
        granularity,
        lab,
        lottery,
        regularize,
        schedule,
        scope,
        surgery,
        trace,
    )
    from prunelab.curvature import obd, obs
    from prunelab.masks import Masks
    from prunelab.pruner import Pruner, prune, score
    from prunelab.surgery import shrink

__version__ = "0.1.0"
__all__ = [
    "Masks",
    "Pruner",
    "criteria",
    "curvature",
    "evaluate",
    "exercises",
    "granularity",
    "lab",
    "lottery",
    "obd",
    "obs",
    "prune",
    "regularize",
    "schedule",
    "scope",
    "score",
    "shrink",
    "surgery",
    "trace",
]

_MODULES = frozenset(
    {
        "criteria",
        "curvature",
        "evaluate",
        "exercises",
        "granularity",
        "lab",
        "lottery",
        "regularize",
        "schedule",
        "scope",
        "surgery",
        "trace",
    }
)
_HOMES = {
    "Masks": "prunelab.masks",
    "Pruner": "prunelab.pruner.gradual",
    "obd": "prunelab.curvature.damage",
    "obs": "prunelab.curvature.surgeon",
    "prune": "prunelab.pruner.once",
    "score": "prunelab.pruner.once",
    "shrink": "prunelab.surgery.shrinking",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"prunelab.{name}")
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'prunelab' has no attribute {name!r}; its names are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
