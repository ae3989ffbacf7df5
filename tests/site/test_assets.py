"""The vendored libraries: the right bytes or none, the rewrites that were expected or none."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from prunelab.site import assets, npm
from prunelab.site.assets import AssetError, Keep, Package, Rewrite


def tarball(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def sha512(content: bytes) -> str:
    return base64.b64encode(hashlib.sha512(content).digest()).decode()


CONTENT = tarball(
    {"package/lib/a.js": "ask('cdn'); ask('cdn');", "package/lib/a.js.map": "{}", "package/../evil.js": "!"}
)
KEEP = (Keep(r"lib/[^/]*\.js", "lib/", "web/weblib/a/"),)


def package(**changes: object) -> Package:
    values: dict[str, object] = {"name": "a", "version": "1.0.0", "sha512": sha512(CONTENT), "keep": KEEP}
    return Package(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """npm replaced by a folder with one tarball; what was asked of it."""
    asked: list[str] = []

    def pack(specification: str, folder: Path) -> Path:
        asked.append(specification)
        path = folder / "a.tgz"
        path.write_bytes(CONTENT)
        return path

    monkeypatch.setattr(assets, "pack", pack)
    return asked


def kept(root: Path) -> list[str]:
    vendor = root / "vendor"
    return sorted(path.relative_to(vendor).as_posix() for path in vendor.rglob("*") if path.is_file())


def test_only_the_wanted_files_are_kept_and_rewritten(tmp_path: Path, packed: list[str]) -> None:
    rewrite = Rewrite("web/weblib/a/a.js", "'cdn'", "here", 2)
    assert assets.ensure(tmp_path, [package(rewrites=(rewrite,))])
    assert packed == ["a@1.0.0"]
    assert kept(tmp_path) == ["stamp.json", "web/weblib/a/a.js"]
    assert (tmp_path / "vendor/web/weblib/a/a.js").read_text() == "ask(here); ask(here);"


def test_a_second_time_nothing_is_asked(tmp_path: Path, packed: list[str]) -> None:
    assets.ensure(tmp_path, [package()])
    assert not assets.ensure(tmp_path, [package()])
    assert len(packed) == 1


@pytest.mark.parametrize("harm", ["delete", "truncate", "new rule"])
def test_a_missing_or_changed_file_or_rule_is_mended(tmp_path: Path, packed: list[str], harm: str) -> None:
    assets.ensure(tmp_path, [package()])
    file = tmp_path / "vendor/web/weblib/a/a.js"
    wanted = package()
    if harm == "delete":
        file.unlink()
    elif harm == "truncate":
        file.write_text("ask")
    else:
        wanted = package(rewrites=(Rewrite("web/weblib/a/a.js", "'cdn'", "here", 2),))
    assert assets.ensure(tmp_path, [wanted])
    assert len(packed) == 2
    assert file.read_text().startswith("ask(")


def test_other_bytes_are_refused_and_nothing_is_replaced(tmp_path: Path, packed: list[str]) -> None:
    assets.ensure(tmp_path, [package()])
    before = kept(tmp_path)
    with pytest.raises(AssetError, match=r"a@1\.0\.1 is not the file .* find out what changed"):
        assets.ensure(tmp_path, [package(version="1.0.1", sha512=sha512(b"other"))])
    assert kept(tmp_path) == before


@pytest.mark.parametrize("times", [1, 3])
def test_a_string_that_occurs_otherwise_is_refused(tmp_path: Path, packed: list[str], times: int) -> None:
    rewrite = Rewrite("web/weblib/a/a.js", "'cdn'", "here", times)
    with pytest.raises(AssetError, match=f"occurs 2 times, expected {times}"):
        assets.ensure(tmp_path, [package(rewrites=(rewrite,))])
    assert kept(tmp_path) == []


def test_a_rule_that_keeps_nothing_is_refused(tmp_path: Path, packed: list[str]) -> None:
    with pytest.raises(AssetError, match="has no file that matches"):
        assets.ensure(tmp_path, [package(keep=(*KEEP, Keep("dist/.*", "", "web/")))])


def test_every_package_is_pinned() -> None:
    for each in assets.PACKAGES:
        assert each.version.count(".") == 2
        assert len(base64.b64decode(each.sha512)) == 64


def test_a_failing_npm_is_reported_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm_that_fails = tmp_path / "npm"
    npm_that_fails.write_text("#!/bin/sh\necho 'no such host' >&2\nexit 7\n")
    npm_that_fails.chmod(0o755)
    monkeypatch.setattr(npm, "npm_command", lambda: [str(npm_that_fails)])
    with pytest.raises(npm.NpmError, match=r"npm pack a@1 failed \(exit code 7\): no such host; check the network"):
        npm.pack("a@1", tmp_path)
