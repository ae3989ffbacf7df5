"""A learner's value in a few words: it may be huge, and its own `repr` may fail."""

from __future__ import annotations

import reprlib
from typing import Any

__all__ = ["describe", "describe_call", "shorten"]

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxdict = _SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = 4
_SHORT.maxlevel = 2


def shorten(text: str, limit: int = 300) -> str:
    """One line of at most `limit` characters."""
    line = " ".join(text[: 4 * limit].split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def describe(value: Any) -> str:
    """What a value is: a tensor by its dtype and shape, anything else by its shortened `repr`.

    >>> describe([1, 2])
    'the list [1, 2]'
    """
    kind = type(value).__name__
    try:
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
        if shape is not None and dtype is not None:
            return f"a {str(dtype).removeprefix('torch.')} {kind} of shape {tuple(shape)}"
        if callable(value):
            return f"the {kind} {getattr(value, '__name__', '')}".rstrip()
        return f"the {kind} {shorten(_SHORT.repr(value), 120)}"
    except Exception:  # whatever the learner's class does, the check goes on
        return f"an object of the class {kind}"


def describe_call(name: str, arguments: dict[str, Any]) -> str:
    """The call as one line: `filter_norms(weight=float32 (8, 3, 3, 3))`."""
    return f"{name}({', '.join(f'{key}={_argument(value)}' for key, value in arguments.items())})"


def _argument(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, list):
        return f"[{', '.join(_argument(item) for item in value)}]"
    return shorten(repr(value), 80)
