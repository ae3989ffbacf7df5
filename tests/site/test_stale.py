"""A real build of a tiny book, again and again, with the library changed in between."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import prunelab

CONF = """
extensions = ["myst_nb", "prunelab.site"]
exclude_patterns = ["_build", "prunelab"]
nb_execution_mode = "cache"
suppress_warnings = ["misc.highlighting_failure"]
"""
INDEX = "# Book\n\n```{toctree}\none\ntwo\nplain\n```\n"
CHAPTER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  name: python3
prune:
  difficulty: easy
  module: prunelab.{module}
  requires: [{requires}]
---
({name})=
# Chapter {name}

Some words to read.

```{{code-cell}} ipython3
import time
from prunelab import {module}
print("ran at", time.time_ns(), "with", {module}.VALUE)
```
"""


class Book:
    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(Path(prunelab.__file__).parent, root / "prunelab", ignore=shutil.ignore_patterns("__pycache__"))
        self.write("prunelab/toy_base.py", "BASE = 1")
        self.write("prunelab/toy_one.py", "from prunelab.toy_base import BASE\nVALUE = BASE")
        self.write("prunelab/toy_two.py", "VALUE = 2")
        self.write("conf.py", CONF)
        self.write("index.md", INDEX)
        self.write("plain.md", "# Plain\n\nNo code.\n")
        self.write("one.md", CHAPTER.format(name="one", module="toy_one", requires=""))
        self.write("two.md", CHAPTER.format(name="two", module="toy_two", requires="one"))
        (root / "benchmarks/results").mkdir(parents=True)
        self.write("benchmarks/results/chapters-cuda.json", '{"two": {"seconds": 3.21, "device": "A GPU"}}')

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)

    def build(self, *options: str) -> str:
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-b", "html", *options, ".", "_build/html"]
        environment = {**os.environ, "PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)
        self.exit_code = done.returncode
        return done.stdout + done.stderr

    def page(self, name: str) -> str:
        return (self.root / f"_build/html/{name}.html").read_text()

    def ran(self, name: str) -> tuple[str, str]:
        """(when the chapter last ran, the value it saw)"""
        found = re.search(r"ran at (\d+) with (\d+)", self.page(name))
        assert found
        return found[1], found[2]


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    made = Book(tmp_path_factory.mktemp("book"))
    said = made.build()
    assert made.exit_code == 0, said
    return made


def test_the_card_says_what_was_measured(book: Book) -> None:
    page = book.page("two")
    assert re.search(r"<dt>Runs in</dt><dd>[\d.]+ s on [^<]*(CPU core|GPU|NVIDIA|CUDA)", page)
    assert "<dt>Level</dt><dd>easy</dd>" in page
    assert "<code>prunelab.toy_two</code>" in page
    assert 'href="one.html#one"' in page
    assert "Chapter one" in page
    assert (book.root / "_build/html/_sources/two.ipynb").is_file()
    assert "<dt>With a GPU</dt><dd>3.2 s on A GPU</dd>" in page
    assert "With a GPU" not in book.page("one")
    assert "prune-card" not in book.page("plain")


def test_only_the_chapters_on_a_changed_module_run_again(book: Book) -> None:
    one, two = book.ran("one"), book.ran("two")
    said = book.build()
    assert "Executing" not in said
    assert "Using cached" not in said  # nothing was even read

    book.write("prunelab/toy_base.py", "BASE = 10")  # under chapter one, by way of another module
    said = book.build()
    assert book.exit_code == 0, said
    assert book.ran("one")[1] == "10"
    assert book.ran("one")[0] != one[0]
    assert book.ran("two") == two

    (book.root / "prunelab/masks.py").write_text("# nobody here uses it\n")
    assert "Executing" not in book.build("-E")  # not even when every page is read again
    assert book.ran("two") == two


def test_a_changed_text_does_not_run_the_code_again(book: Book) -> None:
    before = book.ran("two")
    book.write("two.md", (book.root / "two.md").read_text().replace("Some words", "Other words"))
    book.build()
    assert "Other words" in book.page("two")
    assert book.ran("two") == before


def test_a_record_of_unknown_origin_is_not_trusted(book: Book) -> None:
    before = book.ran("two")
    (book.root / "_build/.jupyter_cache/prunelab.json").unlink()
    book.build()
    assert book.ran("two") != before


def test_a_label_that_does_not_exist_is_a_warning(book: Book) -> None:
    text = (book.root / "two.md").read_text()
    book.write("two.md", text.replace("requires: [one]", "requires: [no-such-chapter]"))
    said = book.build()
    book.write("two.md", text)
    assert book.exit_code != 0
    assert "no-such-chapter" in said


def test_an_unknown_key_of_the_card_is_a_warning(book: Book) -> None:
    text = (book.root / "two.md").read_text()
    book.write("two.md", text.replace("difficulty: easy", "dificulty: easy"))
    said = book.build()
    book.write("two.md", text)
    assert book.exit_code != 0
    assert "dificulty" in said
