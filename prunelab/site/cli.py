"""The command `prunelab`: assets, build, serve."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from prunelab.site.paths import find_root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 1 with one line on stderr when it cannot be done, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    try:
        root = find_root(options.root)
        return int(options.run(root, options))
    except ValueError as error:  # every error of this package that a reader can do something about
        print(f"prunelab {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prunelab", description="The course: fetch its parts, build it, serve it.")
    parser.add_argument("--root", type=Path, help="the repository (default: the working directory, or one above it)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    fetch = commands.add_parser("assets", help="fetch the browser libraries, check them, keep them")
    fetch.set_defaults(run=_assets)

    make = commands.add_parser("build", help="build the book; warnings are errors; only what is stale is done")
    make.add_argument("--all", action="store_true", dest="force", help="write every page again")
    make.set_defaults(run=_build)

    show = commands.add_parser("serve", help="serve the built book with live kernels")
    show.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    show.add_argument("--port", type=int, default=8888, help="port to listen at; 0 takes any free one (default: 8888)")
    show.add_argument("--base-url", default="/", help="serve below this path, e.g. behind a proxy (default: /)")
    show.add_argument("--no-browser", action="store_true", help="only print the address")
    show.add_argument("--idle-minutes", type=float, default=60.0, help="shut unused kernels down (default: 60)")
    show.set_defaults(run=_serve)
    return parser


def _assets(root: Path, _options: argparse.Namespace) -> int:
    from prunelab.site import assets

    fetched = assets.ensure(root)
    print("browser libraries: " + ("fetched and checked" if fetched else "up to date"))
    return 0


def _build(root: Path, options: argparse.Namespace) -> int:
    from prunelab.site.build import build

    print("book: " + ("built" if build(root, force=options.force) else "up to date"))
    return 0


def _serve(root: Path, options: argparse.Namespace) -> int:
    from prunelab.site.serve import Options, serve

    def announce(address: str) -> None:
        print(f"\nThe course is at\n\n    {address}\n\nStop with Control-C.", flush=True)

    chosen = Options(
        host=options.host,
        port=options.port,
        base_url=options.base_url,
        browser=not options.no_browser,
        idle_minutes=options.idle_minutes,
    )
    serve(root, chosen, announce)
    return 0


if __name__ == "__main__":
    sys.exit(main())
