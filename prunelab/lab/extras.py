"""One message for every optional package that is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

PACKAGES = frozenset({"IPython", "PIL", "ipywidgets", "matplotlib", "pandas", "sklearn", "tqdm"})


class MissingExtra(ImportError):
    """A package of the extra `lab` is not installed; the message says which, and the command that installs it."""


@contextmanager
def lab_extra() -> Iterator[None]:
    """Import optional packages inside this context, so that a missing one names the way out.

    Raises:
        MissingExtra: the package that is missing belongs to the extra `lab`. Any other failed import passes unchanged.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in PACKAGES:
            raise
        message = f'prunelab.lab needs {package}, which is not installed: pip install "prunelab[lab]"'
        raise MissingExtra(message, name=error.name, path=error.path) from error
