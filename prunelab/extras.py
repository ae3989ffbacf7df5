"""One message for every optional package that is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(what: str) -> Iterator[None]:
    """Import optional packages inside this context, so that a missing one says what needs it, and the way out."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        message = f'{what} needs {package}, which is not installed: pip install "prunelab[lab]"'
        raise ImportError(message, name=error.name) from error
