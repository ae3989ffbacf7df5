"""All architectures together, by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from zoo import from_timm, from_torchvision, from_transformers, odd, plain
from zoo.architecture import Architecture

COLLECTIONS = (plain, odd, from_torchvision, from_timm, from_transformers)


def everything() -> list[Architecture]:
    """Every architecture that is listed; building one imports the library that it comes from."""
    return [architecture for collection in COLLECTIONS for architecture in collection.architectures()]


def find(names: Sequence[str]) -> list[Architecture]:
    """Those with one of `names` in theirs, and any `timm:NAME` and `torchvision:NAME`; all where nothing is named."""
    if not names:
        return everything()
    found: dict[str, Architecture] = {}
    for name in names:
        library, _, inner = name.partition(":")
        if inner:
            source = {"timm": from_timm, "torchvision": from_torchvision}[library]
            matches = [source.architecture(inner)]
        else:
            listed = everything()
            matches = [a for a in listed if a.name == name] or [a for a in listed if name in a.name]
            if not matches:
                near = difflib.get_close_matches(name, [a.name for a in listed], n=5, cutoff=0.3)
                raise ValueError(f"no architecture is called {name!r}; near it: {', '.join(near) or 'none'}")
        found.update((architecture.name, architecture) for architecture in matches)
    return list(found.values())
