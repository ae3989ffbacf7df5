"""Small networks that do unusual things: between two convolutions (`middles`), or as a whole (`wholes`)."""

from __future__ import annotations

from zoo.architecture import Architecture
from zoo.odd import middles, wholes


def architectures() -> list[Architecture]:
    """All of them; names begin with `odd_`."""
    return [*(case.architecture() for case in middles.CASES), *(case.architecture() for case in wholes.CASES)]
