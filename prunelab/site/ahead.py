"""Execute the chapters that a build needs before it reads their pages: several at once, each in a process of its own.

myst-nb executes a chapter when it comes to its page, one after the other. Here the same chapters are executed first,
and what comes out is put where myst-nb looks: into its cache, or, for a chapter that fails, into its hands, so that it
reports the failure as it reports its own, and executes nothing again.

Left to myst-nb, which executes them alone and after all others: chapters that read the clock, because what runs beside
them would be measured too, and a chapter whose process ended without a result.
"""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.cache.main import JupyterCacheBase
from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution
from myst_nb.core.execute import cache as myst_nb_cache
from myst_nb.core.read import create_nb_reader
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from prunelab.site import stale
from prunelab.site.device import count_cores

_LOG = logging.getLogger(__name__)
_MOST = 4  # each may need 1 GB
# What runs at the same time changes what such code finds out.
_CLOCK = re.compile(r"\b(latency|sparse_runtime|measure=True|perf_counter|timeit)\b")
# In a file, because what a kernel writes past Jupyter would end up between the bytes on stdout.
_EXECUTE = """
import pickle, sys
from jupyter_cache.executors.utils import single_nb_execution
with open(sys.argv[1], "rb") as file:
    notebook, options = pickle.load(file)
result = single_nb_execution(notebook, **options)
with open(sys.argv[1], "wb") as file:
    pickle.dump(result, file)
"""


@dataclass(frozen=True)
class Chapter:
    """A chapter to be executed: its page, its file, its notebook and the hash under which the cache knows it."""

    name: str
    path: Path
    notebook: NotebookNode
    key: str

    @property
    def reads_clock(self) -> bool:
        return any(_CLOCK.search(cell.source) for cell in self.notebook.cells if cell.cell_type == "code")


def execute(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """`env-before-read-docs`: execute what of `docnames` is not in the cache and can run beside others."""
    config: Any = env.mystnb_config  # type: ignore[attr-defined]
    if config.execution_mode != "cache":
        return
    cache = get_cache(config.execution_cache_path)
    chapters = [chapter for chapter in _unknown(env, docnames, cache) if not chapter.reads_clock]
    processes = min(len(chapters), count_cores(), _MOST)
    if processes < 2:
        return
    failed: dict[str, ExecutionResult] = {}
    options = {"timeout": config.execution_timeout, "allow_errors": config.execution_allow_errors}
    for chapter, result in _results(chapters, options, processes):
        if result.err is not None:
            failed[chapter.key] = result
            _LOG.info("%s: Executing notebook failed; the reasons follow when its page is read", chapter.name)
            continue
        _LOG.info("%s: Executed notebook in %.2f seconds", chapter.name, result.time)
        bundle = CacheBundleIn(result.nb, str(chapter.path), data={"execution_seconds": result.time})
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
        stale.remember(app, env)  # at once: a build that is interrupted keeps what is finished
    _hand_over(failed, cache)


def _unknown(env: Any, docnames: list[str], cache: JupyterCacheBase) -> Iterator[Chapter]:
    """The notebooks among the pages that the cache does not have, each once, as myst-nb reads them."""
    seen = {record.hashkey for record in cache.list_cache_records()}
    for name in docnames:
        path = Path(env.doc2path(name))
        text = path.read_text(encoding="utf-8")
        reader = create_nb_reader(str(path), env.myst_config, env.mystnb_config, text)
        if reader is None:
            continue
        notebook = reader.read(text)
        key = _key(notebook, cache)
        # A page with options of its own is left to who understands them.
        if key not in seen and env.mystnb_config.metadata_key not in notebook.metadata:
            seen.add(key)
            yield Chapter(name, path, notebook, key)


def _results(
    chapters: list[Chapter], options: dict[str, Any], processes: int
) -> Iterator[tuple[Chapter, ExecutionResult]]:
    """Execute the chapters, so many at once; each with its result, in the order in which they end."""
    with ThreadPoolExecutor(processes) as pool:
        running = {pool.submit(_attempt, chapter, options, processes): chapter for chapter in chapters}
        try:
            for future in as_completed(running):
                result = future.result()
                if result is not None:
                    yield running[future], result
        finally:
            pool.shutdown(cancel_futures=True)  # an interrupted build does not begin the next chapter


def _attempt(chapter: Chapter, options: dict[str, Any], processes: int) -> ExecutionResult | None:
    """Execute one chapter in another process; None when that process ends without a result."""
    _LOG.info("%s: Executing notebook", chapter.name)
    # Threads that wait for a core spin: with more threads than cores, every chapter takes longer.
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, count_cores() // processes))}
    with TemporaryDirectory() as folder:
        file = Path(folder) / "notebook"
        file.write_bytes(pickle.dumps((chapter.notebook, {**options, "cwd": str(chapter.path.parent)})))
        command = [sys.executable, "-c", _EXECUTE, str(file)]
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, errors="replace", check=False)
        if done.returncode:
            return None  # what it said is said again when myst-nb tries, or the build was interrupted
        sys.stderr.write(done.stderr)
        return pickle.loads(file.read_bytes())


def _hand_over(failed: dict[str, ExecutionResult], cache: JupyterCacheBase) -> None:
    """Let myst-nb, when it comes to a chapter that has failed, find that it has just executed it."""

    def executed(notebook: NotebookNode, **options: Any) -> ExecutionResult:
        result = failed.pop(_key(notebook, cache), None)
        if result is None:
            return single_nb_execution(notebook, **options)
        notebook.update(result.nb)
        return result

    myst_nb_cache.single_nb_execution = executed


def _key(notebook: NotebookNode, cache: JupyterCacheBase) -> str:
    return str(cache.create_hashed_notebook(notebook)[1])
