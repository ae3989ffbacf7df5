"""Which modules a cell runs, read from the source. The oracle is a small package written for each question."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prunelab.site.library import Library

LAZY = """
import importlib
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from pkg import direct, tool
    from pkg.deep.far import thing
    from pkg.same import same
VERSION = "1"
def __getattr__(name):
    return importlib.import_module("pkg." + name)
"""
FILES = {
    "pkg/__init__.py": LAZY,
    "pkg/direct.py": "from pkg import base\nfrom . import sibling\nX = base.X",
    "pkg/base.py": "X = 1",
    "pkg/sibling.py": "",
    "pkg/tool.py": "def run():\n    from pkg.late import go\n    return go",
    "pkg/late.py": "go = 1",
    "pkg/same.py": "same = 1",
    "pkg/typed.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg import base\nelse:\n    base = None",
    "pkg/alone.py": "",
    "pkg/deep/__init__.py": "from .near import n",
    "pkg/deep/near.py": "n = 1",
    "pkg/deep/far.py": "from ..base import X as thing",
}


@pytest.fixture
def library(tmp_path: Path) -> Library:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Library(tmp_path, "pkg")


DEEP = {"deep", "deep.near"}


@pytest.mark.parametrize(
    ("cell", "modules"),
    [
        ("import torch", None),
        ("import pkgother", None),
        ("x = 'import pkg'", None),
        ("import pkg", set()),
        ("import pkg\npkg.VERSION", set()),
        ("import pkg.base", {"base"}),
        ("import pkg.deep.far", {"deep.far", "base"} | DEEP),
        ("import pkg.deep.far as f\nf.thing", {"deep.far", "base"} | DEEP),
        ("from pkg import direct", {"direct", "base", "sibling"}),
        ("from pkg import tool", {"tool", "late"}),
        ("from pkg import thing", {"deep.far", "base"} | DEEP),
        ("import pkg\npkg.thing(1)", {"deep.far", "base"} | DEEP),
        ("import pkg as p\np.direct.X", {"direct", "base", "sibling"}),
        ("import pkg\npkg.deep.near.n", DEEP),
        ("from pkg.deep import n", DEEP),
        ("from pkg import typed", {"typed"}),
        ("from pkg import same", {"same"}),
        ("def f():\n    from pkg import base", {"base"}),
        ("%matplotlib inline\n!ls\nfrom pkg import base", {"base"}),
        ("if True:\n    %time x = 1\n    from pkg import base", {"base"}),
    ],
)
def test_the_modules_of_a_cell(library: Library, cell: str, modules: set[str] | None) -> None:
    expected = set() if modules is None else {"pkg", *(f"pkg.{name}" for name in modules)}
    assert library.needed([cell]) == expected


EVERY_PROMISE = {"direct", "tool", "same", "base", "sibling", "late", "deep.far"} | DEEP


@pytest.mark.parametrize(
    "cell",
    ["import pkg\nprint(pkg)", "from pkg import *", "import pkg\ngetattr(pkg, 'tool')", "import pkg\npkg.new_name"],
)
def test_what_cannot_be_told_counts_as_all(library: Library, cell: str) -> None:
    assert library.needed([cell]) == {"pkg", *(f"pkg.{name}" for name in EVERY_PROMISE)}


def test_text_that_is_no_python_counts_as_everything(library: Library) -> None:
    assert library.needed(["what is this?"]) == set(library.modules)


def test_cells_add_up(library: Library) -> None:
    assert library.needed(["import pkg.base", "import pkg.late"]) == {"pkg", "pkg.base", "pkg.late"}


@pytest.mark.parametrize(
    "name", [name for name in FILES if name.endswith(("direct.py", "tool.py", "far.py", "typed.py"))]
)
def test_python_itself_loads_no_module_that_is_left_out(library: Library, name: str) -> None:
    dotted = name.removesuffix(".py").replace("/", ".")
    code = f"import sys, {dotted}; print(*[m for m in sys.modules if m.split('.')[0] == 'pkg'])"
    environment = {**os.environ, "PYTHONPATH": str(library.root)}
    loaded = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert set(loaded.stdout.split()) <= library.needed([f"import {dotted}"])


def test_the_hash_is_of_these_modules_only(library: Library) -> None:
    before = library.digest({"pkg.base", "pkg.late"})
    (library.root / "pkg/alone.py").write_text("changed = 1")
    assert Library(library.root, "pkg").digest({"pkg.base", "pkg.late"}) == before
    (library.root / "pkg/late.py").write_text("go = 2")
    assert Library(library.root, "pkg").digest({"pkg.base", "pkg.late"}) != before


def test_the_real_library_is_read_as_python_loads_it() -> None:
    library = Library(Path(__file__).parents[2])
    needed = library.needed(["from prunelab import granularity"])
    assert "prunelab.granularity" in needed
    assert "prunelab.pruner" not in needed
    assert "prunelab.pruner" in library.needed(["import prunelab\nprunelab.prune(model, 0.5)"])
