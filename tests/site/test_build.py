"""What is stale, and what a build says when it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from prunelab.site import build as module
from prunelab.site.build import BuildError, build, fingerprint


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("_config.yml", "_toc.yml", "references.bib", "book/a.md", "prunelab/a.py", "prunelab/site/live.js"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(module.assets, "ensure", lambda root: False)
    return tmp_path


@pytest.fixture
def runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """jupyter-book replaced by a command that makes a page; the commands that were run."""
    seen: list[list[str]] = []

    def run(command: list[str], where: Path) -> int:
        seen.append(command)
        (where / "_build/html").mkdir(parents=True, exist_ok=True)
        (where / "_build/html/index.html").touch()
        return 1 if (where / "broken").exists() else 0

    monkeypatch.setattr(module, "_run", run)
    return seen


def test_nothing_is_built_twice(root: Path, runs: list[list[str]]) -> None:
    assert build(root)
    assert not build(root)
    assert len(runs) == 1
    assert {"-W", "--keep-going"} <= set(runs[0])
    assert build(root, force=True)
    assert "--all" in runs[1]


@pytest.mark.parametrize("name", ["book/a.md", "prunelab/a.py", "_toc.yml", "references.bib"])
def test_changed_content_is_built_page_by_page(root: Path, runs: list[list[str]], name: str) -> None:
    build(root)
    (root / name).write_text("changed")
    assert build(root)
    assert "--all" not in runs[1]


@pytest.mark.parametrize("name", ["_config.yml", "prunelab/site/live.js"])
def test_a_changed_site_writes_every_page(root: Path, runs: list[list[str]], name: str) -> None:
    build(root)
    (root / name).write_text("changed")
    assert build(root)
    assert "--all" in runs[1]


def test_a_build_that_failed_is_built_again_with_all_its_warnings(root: Path, runs: list[list[str]]) -> None:
    (root / "broken").touch()
    for _ in range(2):
        with pytest.raises(BuildError, match="without warnings"):
            build(root)
    assert "--all" in runs[1]


def test_what_jupyter_leaves_lying_around_does_not_count(root: Path) -> None:
    before = fingerprint(root)
    for name in ("book/.ipynb_checkpoints/a.md", "prunelab/__pycache__/a.pyc", "book/a.ipynb"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("x")
    assert fingerprint(root) == before


def test_the_log_has_everything_and_the_screen_what_takes_time(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = r"print('\x1b[01mchatter\x1b[0m'); print('Executing notebook a'); raise SystemExit(3)"
    assert module._run([sys.executable, "-c", code], root) == 3
    assert capsys.readouterr().out == "Executing notebook a\n"
    assert (root / "_build/build.log").read_text() == "chatter\nExecuting notebook a\n"


def test_a_failed_chapter_is_named_with_its_error_and_the_readers_own_change(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *arguments], check=True)

    def fails(_command: list[str], where: Path) -> int:
        report = where / "_build/html/reports/book/a.err.log"
        report.parent.mkdir(parents=True)
        report.write_text("Traceback\n\x1b[31mNameError: name 'keep' is not defined\x1b[0m\n\n")
        return 1

    monkeypatch.setattr(module, "_run", fails)
    (root / "book/a.md").write_text("an answer that does not run")
    with pytest.raises(BuildError) as caught:
        build(root)
    said = str(caught.value)
    assert "a failed: NameError: name 'keep' is not defined  (all of it: _build/html/reports/book/a.err.log)" in said
    assert "changed here: book/a.md; `git restore book` brings the course's own text back" in said


def test_the_note_of_every_kernel_is_kept_from_the_screen(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    old = root / "_build/html/reports/book/old.err.log"
    old.parent.mkdir(parents=True)
    old.touch()
    code = "import sys; print('[IPKernelApp] WARNING | over TCP', file=sys.stderr); print('a.md: WARNING', file=sys.stderr)"
    assert module._run([sys.executable, "-c", code], root) == 0
    assert capfd.readouterr().err == "a.md: WARNING\n"
    assert not old.exists()
