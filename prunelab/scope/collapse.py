"""Layer collapse: a layer that loses everything although less than everything was asked for."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

from torch import Tensor

from prunelab.granularity import Layer
from prunelab.names import is_bias
from prunelab.scope.base import Candidates, Scope


class LayerCollapseWarning(UserWarning):
    """Pruning removed every unit of a parameter: no signal passes there any more (Tanaka et al. 2020)."""


def warn_of_collapse(scope: Scope, candidates: Sequence[Candidates], kept: Sequence[Tensor], sparsity: float) -> None:
    """Warn, naming them, of the parameters in which a decision leaves nothing although it was to leave something.

    Biases and weights without entries do not count, nor what `within=` had emptied before, nor whole layers as units:
    those go on purpose.
    """
    emptied = [
        one.name
        for one, keep in zip(candidates, kept, strict=True)
        if scope.asked(one.name, sparsity) < 1
        and not is_bias(one.name)
        and not isinstance(one.granularity, Layer)
        and 0 not in one.shape
        and not _any(keep)
        and _any(one.living)
    ]
    if emptied:
        warnings.warn(
            f"every unit of {', '.join(emptied)} is removed: no signal passes there any more. Keep some with "
            "scope.Global(minimum=1), prune all layers alike with 'local', or leave a layer out with exclude=",
            LayerCollapseWarning,
            stacklevel=_callers_level(),
        )


def _any(keep: Tensor) -> bool:
    """Is any unit kept? numpy stops at the first that is, torch looks at all of them."""
    return bool(keep.numpy().any() if keep.device.type == "cpu" else keep.any())


def _callers_level() -> int:
    """The stack level, as `warnings.warn` in the calling function counts it, of the code that called the library."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in {"prunelab", "torch"}:
        frame, level = frame.f_back, level + 1
    return level
