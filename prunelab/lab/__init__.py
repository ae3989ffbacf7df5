"""What the course stands on: data, models, a training loop, pictures, and figures that answer to a slider.

Nothing here is needed to prune a network of your own. It comes with the extra `lab` (`pip install "prunelab[lab]"`),
and each name is loaded when it is first used, so that a missing package is reported by the one name that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunelab.lab import data, minilm, models, plots, train
    from prunelab.lab.exploration import explore
    from prunelab.lab.hardware import device

__all__ = ["data", "device", "explore", "minilm", "models", "plots", "train"]

_MODULES = frozenset({"data", "minilm", "models", "plots", "train"})
# Functions live in modules of another name: a submodule `device` would overwrite the function `device` once imported.
_HOMES = {"device": "prunelab.lab.hardware", "explore": "prunelab.lab.exploration"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"prunelab.lab.{name}")
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'prunelab.lab' has no attribute {name!r}; its names are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return list(__all__)
