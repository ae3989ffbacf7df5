"""The sources of the chapters: what can be checked without executing them."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import jupytext
import pytest
import yaml

from prunelab.exercises import CHAPTERS, questions

ROOT = Path(__file__).parent.parent
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"], *(chapter["file"] for part in TOC.get("parts", []) for chapter in part["chapters"])]
CHAPTER_PAGES = [page for page in PAGES if "prune:" in (ROOT / f"{page}.md").read_text()]
KEYS = re.findall(r"^@\w+\{([^,]+),", (ROOT / "references.bib").read_text(), flags=re.MULTILINE)

TEMPLATE = [
    "In one picture", "You will be able to", "Try it first", "The idea", "From scratch", "The library's version",
    "Experiment", "What can go wrong", "What the papers report", "Check yourself", "Exercises", "Summary",
    "Further reading", "References",
]  # fmt: skip


def source(page: str) -> str:
    return (ROOT / f"{page}.md").read_text()


def cells(page: str) -> list[str]:
    notebook = jupytext.read(ROOT / f"{page}.md")
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_every_key_of_the_bibliography_stands_once() -> None:
    """BibTeX drops the rest of a file after a key that occurs twice."""
    assert len(KEYS) == len(set(KEYS)) >= 57


@pytest.mark.parametrize("page", PAGES)
def test_every_citation_has_its_entry_and_the_page_its_list(page: str) -> None:
    text = source(page)
    cited = {key for group in re.findall(r"\{cite:[pt]\}`([^`]+)`", text) for key in group.split(",")}
    assert cited <= set(KEYS)
    assert text.rstrip().endswith("```{bibliography}\n:filter: docname in docnames\n```")


@pytest.mark.parametrize("page", PAGES)
def test_code_fits_the_page(page: str) -> None:
    wide = [line for cell in cells(page) for line in cell.splitlines() if len(line) > 79]
    assert not wide


@pytest.mark.parametrize("page", PAGES)
def test_saving_a_page_in_jupyterlab_changes_nothing(page: str) -> None:
    notebook = jupytext.reads(source(page), fmt="md:myst")
    notebook.metadata["language_info"] = {"name": "python", "version": "3.11.7"}  # what a kernel adds
    assert jupytext.writes(notebook, fmt="md:myst").rstrip() == source(page).rstrip()


@pytest.mark.parametrize("page", CHAPTER_PAGES)
def test_chapters_follow_the_template(page: str) -> None:
    headings = re.findall(r"^## (.+)$", source(page), flags=re.MULTILINE)
    places = [next((i for i, heading in enumerate(headings) if heading.startswith(part)), None) for part in TEMPLATE]
    assert None not in places, f"{page} lacks {TEMPLATE[places.index(None)]!r}"
    assert places == sorted(places)
    assert re.search(r"\$\$ \(eq-\w+\)", source(page)), "numbered equations"
    assert "literalinclude" in source(page)
    assert "lab.explore(" in source(page)


@pytest.mark.parametrize("page", CHAPTER_PAGES)
def test_the_header_names_a_module_that_exists(page: str) -> None:
    header = yaml.safe_load(source(page).split("---")[1])
    importlib.import_module(header["prune"]["module"])


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_chapter_shows_each_exercise_as_it_is_checked(chapter: str) -> None:
    page = next(page for page in PAGES if page.endswith(f"/{chapter.replace('_', '-')}"))
    code = cells(page)
    for question in questions(chapter):
        assert any(question.cell.split() == cell.split() for cell in code), f"{question.starter} is not in {page}"
