"""Build the book: fetch what it needs, run jupyter-book, and do only what is stale."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from prunelab.site import assets
from prunelab.site.paths import html_folder

# jupyter-book has no `python -m`; its console script need not be on the PATH.
_JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"
_SHOWN = ("Executing notebook", "Executed notebook", "prunelab:", "WARNING", "ERROR")
_IGNORED = frozenset({"__pycache__", ".ipynb_checkpoints"})


class BuildError(ValueError):
    """jupyter-book reported a warning or an error; its own output, already printed, says which."""


def build(root: Path, *, force: bool = False) -> bool:
    """Bring `root`/_build/html up to date; True when something had to be built.

    Warnings are errors. `force` writes every page again; what the chapters printed still comes
    from the cache. Raises BuildError.
    """
    assets.ensure(root)
    now = fingerprint(root)
    before = _read_stamp(root)
    if before == now and html_folder(root).joinpath("index.html").is_file() and not force:
        return False
    _stamp(root).unlink(missing_ok=True)
    # Sphinx copies no static file while no page is out of date, does not know what our extension writes, and reports
    # the warnings of a page only when it reads it: after a build that failed it would find nothing to complain about.
    everything = ["--all"] if force or before is None or before["site"] != now["site"] else []
    command = [sys.executable, "-c", _JUPYTER_BOOK, "build", str(root), "-W", "--keep-going", *everything]
    if _run(command, root):
        raise BuildError(
            "the book did not build without warnings; they are listed above, each with its file and line, "
            f"and all that was said is in {_log(root).relative_to(root)}{_reports(root)}{_edited(root)}"
        )
    _stamp(root).write_text(json.dumps(now), encoding="utf-8")
    return True


def fingerprint(root: Path) -> dict[str, str]:
    """Hashes of all that the book is made of: `site`, what writes the pages, and `content`, what is on them."""
    site = [root / "_config.yml", root / "vendor" / "stamp.json", *_files(root / "prunelab" / "site")]
    site += _files(root / "benchmarks" / "results")
    content = [root / "_toc.yml", root / "references.bib", root / "constraints.txt"]
    library = (path for path in _files(root / "prunelab") if root / "prunelab" / "site" not in path.parents)
    content += [*_files(root / "book"), *library]
    return {"site": _digest(root, site), "content": _digest(root, content)}


def _run(command: list[str], root: Path) -> int:
    """Run the build, its exit code. Warnings go straight to stderr; of the rest only what takes time is shown."""
    _log(root).parent.mkdir(exist_ok=True)
    shutil.rmtree(html_folder(root) / "reports", ignore_errors=True)  # of chapters that failed before
    with (
        _log(root).open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command, cwd=root, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout is not None  # it was asked for
        assert process.stderr is not None
        errors = threading.Thread(target=_relay_errors, args=[process.stderr])
        errors.start()
        for line in process.stdout:
            line = re.sub(r"\x1b\[[0-9;]*m", "", line)
            log.write(line)
            if any(sign in line for sign in _SHOWN):
                sys.stdout.write(line)
                sys.stdout.flush()
        errors.join()
    return process.returncode


def _relay_errors(lines: Iterable[str]) -> None:
    """Pass stderr on, without the note of every kernel that it talks to its own machine unencrypted."""
    for line in lines:
        if "IPKernelApp" not in line:
            sys.stderr.write(line)
            sys.stderr.flush()


def _reports(root: Path) -> str:
    """The last line of each traceback of a chapter that failed."""
    said = []
    for report in sorted((html_folder(root) / "reports").rglob("*.err.log")):
        lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in report.read_text(encoding="utf-8").splitlines()]
        last = next((line for line in reversed(lines) if line.strip()), "")
        said.append(
            f"\n  {report.name.removesuffix('.err.log')} failed: {last}  (all of it: {report.relative_to(root)})"
        )
    return "".join(said)


def _edited(root: Path) -> str:
    """A reader's own answers, saved in JupyterLab, are the likeliest reason for a chapter that fails."""
    try:
        command = ["git", "-C", str(root), "diff", "--name-only", "--", "book"]
        changed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return (
        f"\n  changed here: {', '.join(changed)}; `git restore book` brings the course's own text back"
        if changed
        else ""
    )


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _IGNORED.intersection(path.parts) and path.suffix != ".ipynb":
            yield path


def _digest(root: Path, paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        if path.is_file():
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _log(root: Path) -> Path:
    return root / "_build" / "build.log"


def _stamp(root: Path) -> Path:
    return root / "_build" / "stamp.json"


def _read_stamp(root: Path) -> dict[str, str] | None:
    try:
        stamp = json.loads(_stamp(root).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) and {"site", "content"} <= stamp.keys() else None


def _environment() -> dict[str, str]:
    """The build's environment: the scripts of this Python first, so that its kernels are found without activation."""
    scripts = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": os.pathsep.join([scripts, os.environ.get("PATH", "")])}
