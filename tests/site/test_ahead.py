"""A real build of a tiny book on two cores: who runs beside whom, how often, and what is said of a failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CONF = """
from prunelab.site import ahead

ahead.count_cores = lambda: 2
extensions = ["myst_nb", "prunelab.site"]
exclude_patterns = ["_build"]
nb_execution_mode = "cache"
nb_execution_timeout = 60
suppress_warnings = ["misc.highlighting_failure"]
"""
CHAPTER = """---
kernelspec: {{display_name: Python 3, language: python, name: python3}}
jupytext: {{text_representation: {{extension: .md, format_name: myst}}}}
---
# {name}

```{{code-cell}} ipython3
import os, signal, time
from pathlib import Path

with Path("{name}.ran").open("a") as file:
    file.write("x")
{code}
Path("{name}.done").touch()
print("{name} has ended")
```
"""
MEET = "while not Path('{other}.ran').exists(): time.sleep(0.02)"
CHAPTERS = {
    # Neither ends before the other has begun.
    "ann": MEET.format(other="bob"),
    "bob": MEET.format(other="ann"),
    "fails": "nothing / 0",
    "clock": "print(*sorted(path.stem for path in Path().glob('*.done')), 'before the perf_counter')",
    # The first time, the process dies in which it is executed.
    "dies": "if Path('dies.ran').read_text() == 'x': os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)",
}


class Book:
    """A book with these chapters; `said` and `exit_code` are of its last build."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "conf.py").write_text(CONF)
        names = "\n".join(sorted(CHAPTERS))
        (root / "index.md").write_text(f"# Book\n\n```{{toctree}}\n{names}\n```\n")
        for name, code in CHAPTERS.items():
            self.write(name, code)
        self.build()

    def write(self, name: str, code: str) -> None:
        (self.root / f"{name}.md").write_text(CHAPTER.format(name=name, code=code))

    def build(self) -> None:
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-b", "html", ".", "_build/html"]
        done = subprocess.run(command, cwd=self.root, env=dict(os.environ), capture_output=True, text=True, check=False)
        self.exit_code, self.said = done.returncode, done.stdout + done.stderr

    def runs(self) -> dict[str, int]:
        """How often each chapter was begun."""
        return {name: len((self.root / f"{name}.ran").read_text()) for name in CHAPTERS}

    def page(self, name: str) -> str:
        return (self.root / f"_build/html/{name}.html").read_text()


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    return Book(tmp_path_factory.mktemp("book"))


def test_each_runs_once_and_its_page_shows_what_came_out(book: Book) -> None:
    assert book.runs() == {"ann": 1, "bob": 1, "fails": 1, "clock": 1, "dies": 2}, book.said
    for name in ("ann", "bob", "clock", "dies"):
        assert f"{name} has ended" in book.page(name)


def test_what_reads_the_clock_runs_after_the_others(book: Book) -> None:
    assert "ann bob before the perf_counter" in book.page("clock")


def test_a_failure_is_told_as_myst_nb_tells_it(book: Book) -> None:
    assert book.exit_code != 0
    assert "fails.md: WARNING: Executing notebook failed: CellExecutionError" in book.said
    assert "name 'nothing' is not defined" in (book.root / "_build/html/reports/fails.err.log").read_text()
    assert "NameError" in book.page("fails")


def test_the_beginning_and_the_end_are_shown(book: Book) -> None:
    for name in ("ann", "bob"):
        assert book.said.count(f"{name}: Executing notebook") == 1
        assert book.said.count(f"{name}: Executed notebook in") == 1
        assert book.said.index(f"{name}: Executing") < book.said.index("reading sources")
    assert book.said.count("Executed notebook") == 4
    assert book.said.index("fails: Executing notebook failed") < book.said.index("reading sources")


def test_the_next_build_runs_only_what_failed(book: Book) -> None:
    ledger = json.loads((book.root / "_build/.jupyter_cache/prunelab.json").read_text())
    assert len(ledger) == 4
    before = book.runs()
    book.write("fails", "")
    book.build()
    assert book.exit_code == 0, book.said
    assert book.runs() == {**before, "fails": 2}
    assert "fails has ended" in book.page("fails")
