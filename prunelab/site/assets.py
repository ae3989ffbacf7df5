"""The browser libraries the book needs, fetched once, checked and kept, so that no page asks another machine.

Each comes as one npm package (`npm pack`, which resolves no dependency tree: the bundles are self-contained), is
compared with the sha512 written here, and only the files that pages use are kept:

    vendor/web/weblib/mathjax, requirejs, thebe      served with the book, as `_static/weblib/...`
    vendor/web/weblib/npm/<package>/dist             laid out as on a CDN, because html-manager asks for it that way
    vendor/test/axe-core                             for the accessibility tests only

Thebe would fetch three things from a CDN; those addresses are rewritten, and a bundle in which they do not occur
exactly as often as expected is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from prunelab.site.npm import pack


class AssetError(ValueError):
    """A library could not be fetched, is not the one expected, or is built differently from what we know."""


@dataclass(frozen=True)
class Keep:
    """Files of a package whose path matches `pattern` (a regular expression on the whole path) go to `target`/<name>.

    `strip` is the leading part of the path that `target` replaces.
    """

    pattern: str
    strip: str
    target: str


@dataclass(frozen=True)
class Rewrite:
    """In the kept file `path`, `old` must occur exactly `times` times and becomes `new`."""

    path: str
    old: str
    new: str
    times: int


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    sha512: str
    keep: tuple[Keep, ...]
    rewrites: tuple[Rewrite, ...] = ()


WEBLIB = "web/weblib"
_THEBE = f"{WEBLIB}/thebe/index.js"
_HTML_MANAGER = f"{WEBLIB}/npm/@jupyter-widgets/html-manager/dist/"

PACKAGES = (
    Package(
        "mathjax",
        "3.2.2",
        "Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
        (
            Keep(r"es5/tex-mml-chtml\.js", "", f"{WEBLIB}/mathjax/"),
            Keep(r"es5/output/chtml/fonts/woff-v2/.*", "", f"{WEBLIB}/mathjax/"),
            Keep(r"es5/input/tex/extensions/.*", "", f"{WEBLIB}/mathjax/"),
        ),
    ),
    Package(
        "requirejs",
        "2.3.8",
        "7/cTSLOdYkNBNJcDMWf+luFvMriVm7eYxp4BcFCsAX0wF421Vyce5SXP17c+Jd5otXKGNehIonFlyQXSowL6Mw==",
        (Keep(r"require\.js", "", f"{WEBLIB}/requirejs/"),),
    ),
    Package(
        "@jupyter-widgets/html-manager",
        "1.0.15",
        "5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==",
        (
            Keep(r"dist/embed-amd\.js", "dist/", _HTML_MANAGER),
            # The bundle asks for its fonts under two addresses, derived from the AMD module's name and from the file's.
            Keep(r"dist/[^/]*\.woff2", "dist/", _HTML_MANAGER),
            Keep(r"dist/[^/]*\.woff2", "dist/", f"{WEBLIB}/npm/@jupyter-widgets/"),
        ),
    ),
    Package(
        "thebe",
        "0.9.3",
        "Rb/7kVhtlffXra3kIe7OuIGE7awsm2/fGWxw21DiNfnWLnUQiDl9AWqYdshPwZPG/5DzLpsJRPix2xtCPtJmQQ==",
        (Keep(r"lib/[^/]*\.(?:js|css|txt)", "lib/", f"{WEBLIB}/thebe/"),),
        (
            Rewrite(
                _THEBE,
                '"https://cdnjs.cloudflare.com/ajax/libs/require.js/2.3.6/require.min.js"',
                '(window.PRUNELAB_WEBLIB+"requirejs/require.js")',
                1,
            ),
            Rewrite(_THEBE, '"https://cdn.jsdelivr.net/npm/"', '(window.PRUNELAB_WEBLIB+"npm/")', 2),
            # The vendored folder holds one version of each package and does not name it.
            Rewrite(_THEBE, "`${L}${n}@${t}/dist/${i}`", "`${L}${n}/dist/${i}`", 1),
        ),
    ),
    Package(
        "axe-core",
        "4.14.1",
        "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
        (Keep(r"axe\.min\.js", "", "test/axe-core/"),),
    ),
)


def ensure(root: Path, packages: Iterable[Package] = PACKAGES) -> bool:
    """Make `root`/vendor hold exactly `packages`; True when something had to be fetched.

    Nothing is replaced until every package is there, checked and rewritten. Raises AssetError.
    """
    packages = tuple(packages)
    vendor = root / "vendor"
    if _is_current(vendor, packages):
        return False
    vendor.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=vendor, prefix=".fetch-") as scratch:
        fresh = Path(scratch) / "fresh"
        for package in packages:
            _unpack(package, _fetch(package, Path(scratch)), fresh)
        _install(fresh, vendor)
    _write_stamp(vendor, packages)
    return True


def _fetch(package: Package, folder: Path) -> bytes:
    """The package's tarball, as bytes whose hash is the one expected."""
    specification = f"{package.name}@{package.version}"
    tarball = pack(specification, folder).read_bytes()
    found = base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    if found != package.sha512:
        raise AssetError(
            f"{specification} is not the file this project was tested with: its sha512 is {found}, expected "
            f"{package.sha512}; do not use it, find out what changed"
        )
    return tarball


def _unpack(package: Package, tarball: bytes, into: Path) -> None:
    """Write the kept files of `tarball` under `into`, then rewrite them."""
    counts = dict.fromkeys(package.keep, 0)
    with tempfile.TemporaryFile() as file:
        file.write(tarball)
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:gz") as archive:
            for member in archive:
                for keep, target in _targets(package, member):
                    counts[keep] += 1
                    stream = archive.extractfile(member)
                    assert stream is not None  # _targets yields plain files only
                    path = into / target
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(stream.read())
    for keep, count in counts.items():
        if not count:
            raise AssetError(f"{package.name}@{package.version} has no file that matches {keep.pattern!r}")
    for rewrite in package.rewrites:
        _rewrite(into, rewrite)


def _targets(package: Package, member: tarfile.TarInfo) -> Iterable[tuple[Keep, str]]:
    """Where a member of the archive goes: (rule, path below the vendor folder), for each rule that keeps it."""
    parts = PurePosixPath(member.name).parts
    if not member.isfile() or ".." in parts or len(parts) < 2:
        return
    inside = "/".join(parts[1:])  # npm packs everything below one folder, "package/"
    for keep in package.keep:
        if re.fullmatch(keep.pattern, inside):
            yield keep, keep.target + inside.removeprefix(keep.strip)


def _rewrite(folder: Path, rewrite: Rewrite) -> None:
    path = folder / rewrite.path
    text = path.read_text(encoding="utf-8")
    found = text.count(rewrite.old)
    if found != rewrite.times:
        raise AssetError(
            f"{rewrite.path}: {rewrite.old!r} occurs {found} times, expected {rewrite.times}; "
            "the bundle is built differently, its addresses must be looked at again"
        )
    path.write_text(text.replace(rewrite.old, rewrite.new), encoding="utf-8")


def _install(fresh: Path, vendor: Path) -> None:
    """Put the finished folders in the place of the old ones."""
    for folder in fresh.iterdir():
        old = vendor / folder.name
        if old.exists():
            shutil.rmtree(old)
        folder.rename(old)


def _is_current(vendor: Path, packages: tuple[Package, ...]) -> bool:
    """True when the stamp names these very packages and rules, and every file it lists is there at its size."""
    try:
        stamp = json.loads((vendor / "stamp.json").read_text(encoding="utf-8"))
        return stamp["packages"] == _fingerprint(packages) and all(
            (vendor / name).stat().st_size == size for name, size in stamp["files"].items()
        )
    except (OSError, ValueError, KeyError):
        return False


def _write_stamp(vendor: Path, packages: tuple[Package, ...]) -> None:
    kept = [path for part in ("web", "test") for path in sorted((vendor / part).rglob("*")) if path.is_file()]
    files = {path.relative_to(vendor).as_posix(): path.stat().st_size for path in kept}
    stamp = {"packages": _fingerprint(packages), "files": files}
    (vendor / "stamp.json").write_text(json.dumps(stamp, indent=1), encoding="utf-8")


def _fingerprint(packages: tuple[Package, ...]) -> str:
    return hashlib.sha256(repr(packages).encode()).hexdigest()
