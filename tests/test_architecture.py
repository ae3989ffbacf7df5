"""The shape of the library: what may import what, what importing it costs, and how large its parts may grow."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import prunelab

PACKAGE = Path(prunelab.__file__).parent
ROOT = PACKAGE.parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# A module may import its own layer and those after it. Names of one layer are independent axes.
LAYERS = [
    {"site"},
    {"exercises"},
    {"lab"},
    {"lottery"},
    {"evaluate", "surgery"},
    {"curvature"},
    {"pruner", "regularize"},
    {"criteria"},
    {"scope", "schedule", "masks", "trace"},
    {"heads", "hold", "names", "selection", "targets"},
    {"anatomy", "memory"},
    {"granularity"},
    {"chart", "progress", "extras"},
]
CORE = {
    "granularity", "heads", "hold", "memory", "names", "selection", "targets", "scope", "schedule", "masks", "trace", "criteria",
    "pruner", "regularize", "curvature", "surgery", "anatomy",
    "evaluate", "lottery", "chart", "progress", "extras",
}  # fmt: skip
CORE_MAY_IMPORT = {"torch", "numpy", "scipy", "safetensors", "prunelab"}


def part(path: Path) -> str:
    """The first name below prunelab: granularity, criteria, site, ..."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path: Path) -> list[str]:
    """Every absolute module that the file imports, lazily or not; imports for type checkers only are left out."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def layer(name: str) -> int:
    return next(index for index, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    if path.parent == PACKAGE and path.stem in {"__init__", "__main__"}:
        return
    for name in imports(path):
        root, _, inner = name.partition(".")
        if root == "prunelab" and inner:
            target = inner.split(".")[0]
            if (
                target in prunelab.__all__
                and not (PACKAGE / target).exists()
                and not (PACKAGE / f"{target}.py").exists()
            ):
                target = "pruner"  # a name that prunelab itself hands out: prune, score, Masks
            if target == "__version__":
                continue
            assert layer(part(path)) <= layer(target), f"{part(path)} must not import {target}"


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if part(p) in CORE], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_the_core_stands_on_four_packages(path: Path) -> None:
    outside = {name.split(".")[0] for name in imports(path)} - CORE_MAY_IMPORT - set(sys.stdlib_module_names)
    # Inside the functions that need them, which say what to install.
    outside -= {
        "chart": {"matplotlib"},
        "progress": {"tqdm"},
        "evaluate": {"matplotlib", "pandas", "joblib", "cloudpickle"},
        "lottery": {"pandas"},
    }.get(part(path), set())
    assert not outside


def in_fresh_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_importing_prunelab_imports_neither_torch_nor_numpy() -> None:
    heavy = (
        "[m for m in ('torch', 'numpy', 'scipy', 'matplotlib', 'pandas', 'ipywidgets', 'sklearn') if m in sys.modules]"
    )
    assert in_fresh_python(f"import prunelab, sys; dir(prunelab); print({heavy})") == "[]"
    assert in_fresh_python(f"import prunelab.site.cli, prunelab.exercises, sys; print({heavy})") == "[]"


def test_every_public_name_is_there() -> None:
    for name in prunelab.__all__:
        assert getattr(prunelab, name) is not None
    with pytest.raises(AttributeError, match=r"no attribute 'prun'; its names are Masks"):
        prunelab.prun  # noqa: B018


def test_modules_and_functions_stay_small() -> None:
    for path in SOURCES:
        source = path.read_text()
        assert len(source.splitlines()) <= 330, f"{path.name} is long: one concept a file"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                assert length <= 45, f"{path.name}: {node.name} has {length} lines"


def test_docstrings_cite_what_the_bibliography_has() -> None:
    """Author-year citations in docstrings, such as 'Li et al. 2017', have an entry of that author and year."""
    years = {}
    for entry in re.split(r"^@", (ROOT / "references.bib").read_text(), flags=re.MULTILINE)[1:]:
        author = re.search(r"author\s*=\s*\{([^,}]+)", entry)
        year = re.search(r"year\s*=\s*\{(\d{4})", entry)
        if author and year:
            years.setdefault(author.group(1).split()[-1].lower(), set()).add(year.group(1))
    for path in SOURCES:
        if part(path) not in CORE:
            continue
        for author, year in re.findall(r"\b([A-Z][a-z]+)(?: et al\.| & [A-Z][a-z]+)? (\d{4})\b", path.read_text()):
            assert year in years.get(author.lower(), set()), f"{path.name} cites {author} {year}: not in references.bib"
