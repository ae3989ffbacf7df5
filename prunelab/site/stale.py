"""Execute again the chapters under which the library has changed, and no others.

jupyter-cache knows a chapter by its code cells, their metadata and the kernel; that the library those cells import has
changed it does not see. Beside its records we keep, for each, a hash of the library modules the chapter ran on and the
device it ran on. Before a build reads anything, records whose hash is no longer true are dropped, and their chapters
are handed to Sphinx as outdated even if their text is the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jupytext
from jupyter_cache import get_cache
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from prunelab.site.device import describe
from prunelab.site.library import Library

_LOG = logging.getLogger(__name__)


class Ledger:
    """What the cached records of one cache folder ran on: {hash of the record: {"library": hash, "device": text}}."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "prunelab.json"
        try:
            self.entries: dict[str, dict[str, str]] = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.entries = {}

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.entries, indent=1), encoding="utf-8")


def chapter_sources(path: Path) -> list[str] | None:
    """The code cells of a chapter; None for a page that is no notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".md" or "kernelspec:" not in text.partition("\n---")[0]:
        return None
    notebook = jupytext.reads(text, fmt="md:myst")
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def find_stale(
    app: Sphinx, env: BuildEnvironment, _added: set[str], _changed: set[str], _removed: set[str]
) -> list[str]:
    """`env-get-outdated`: drop the records that are no longer true; the chapters to read again."""
    digests = _digests(app, env)
    dropped = _drop_records(env, digests)
    before: dict[str, str] = getattr(env, "prunelab_library", {})
    env.prunelab_library = digests  # type: ignore[attr-defined]
    changed = {name for name, digest in digests.items() if before.get(name, digest) != digest}
    stale = sorted(dropped | changed)
    if stale:
        _LOG.info("prunelab: the library has changed under %s", ", ".join(stale))
    return stale


def remember(_app: Sphinx, env: BuildEnvironment) -> None:
    """`env-updated`: write down what each new record ran on. The hash is the one from before the chapters ran."""
    ledger = Ledger(_cache_folder(env))
    digests: dict[str, str] = getattr(env, "prunelab_library", {})
    records = {record.hashkey: record for record in get_cache(_cache_folder(env)).list_cache_records()}
    ledger.entries = {key: entry for key, entry in ledger.entries.items() if key in records}
    new = [key for key in records if key not in ledger.entries]
    for key in new:
        name = _page_of(env, records[key].uri)
        if name in digests:
            ledger.entries[key] = {"library": digests[name], "device": describe()}
    ledger.save()


def device_of(env: BuildEnvironment, docname: str, seconds: float) -> str:
    """The device on which the page's outputs were computed; "" when that is not known."""
    ledger = Ledger(_cache_folder(env))
    for record in get_cache(_cache_folder(env)).list_cache_records():
        same = record.data.get("execution_seconds") == seconds and _page_of(env, record.uri) == docname
        if same and record.hashkey in ledger.entries:
            return ledger.entries[record.hashkey].get("device", "")
    return ""


def _digests(app: Sphinx, env: BuildEnvironment) -> dict[str, str]:
    """For each chapter the hash of the library modules it runs on."""
    library = Library(Path(app.srcdir))
    digests = {}
    for name in sorted(env.found_docs):
        sources = chapter_sources(Path(env.doc2path(name)))
        if sources is not None:
            digests[name] = library.digest(library.needed(sources))
    return digests


def _drop_records(env: BuildEnvironment, digests: dict[str, str]) -> set[str]:
    """Remove records made on another library, or on one we know nothing about; the pages they belong to."""
    cache = get_cache(_cache_folder(env))
    ledger = Ledger(_cache_folder(env))
    dropped = set()
    for record in cache.list_cache_records():
        name = _page_of(env, record.uri)
        if name in digests and ledger.entries.get(record.hashkey, {}).get("library") != digests[name]:
            cache.remove_cache(record.pk)
            ledger.entries.pop(record.hashkey, None)
            dropped.add(name)
    if dropped:
        ledger.save()
    return dropped


def _page_of(env: BuildEnvironment, uri: str) -> str:
    return str(env.path2doc(uri) or "")


def _cache_folder(env: BuildEnvironment) -> Path:
    config: Any = env.mystnb_config  # type: ignore[attr-defined]
    return Path(config.execution_cache_path)
