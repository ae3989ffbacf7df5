"""The built book as a part of a Jupyter server: pages and kernels at one origin, behind one login.

| route                | what                                | who                                               |
|----------------------|-------------------------------------|---------------------------------------------------|
| `/course`            | redirect to `/course/`              | anyone                                            |
| `/course/_static/…`  | scripts, styles, fonts              | anyone: a JupyterHub refuses its cookie to fonts, |
|                      |                                     | and nothing in there is private                   |
| `/course/live.json`  | tells a page that kernels are here  | logged in                                         |
| `/course/…`          | the book                            | logged in                                         |

All of it lies under the server's base_url, so it works behind a JupyterHub too. `prunelab serve` is the usual way to
start it; on a server one has already, enable the extension `prunelab.site.server`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jupyter_server.auth.decorator import allow_unauthenticated, authorized
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.extension.application import ExtensionApp
from jupyter_server.utils import url_path_join
from tornado import web
from traitlets import Unicode

EXTENSION = "prunelab.site.server"
URL = "/course/"
KERNEL = "python3"


class StaticHandler(web.StaticFileHandler):
    """Scripts, styles and fonts. Always asked for again, so that a rebuilt book is never half old."""

    @allow_unauthenticated
    def head(self, path: str) -> Awaitable[None]:
        return super().head(path)

    @allow_unauthenticated
    def get(self, path: str, include_body: bool = True) -> Awaitable[None]:  # type: ignore[override]
        return super().get(path, include_body)

    def set_extra_headers(self, _path: str) -> None:
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")


class BookHandler(JupyterHandler, web.StaticFileHandler):
    """A page or a picture of the book, for who is logged in.

    Unlike Jupyter's own file handler it does not put pages in a sandbox: they are ours, and must reach the kernels.
    """

    auth_resource = "contents"

    @web.authenticated
    @authorized
    def head(self, path: str) -> Awaitable[None]:  # type: ignore[override]
        return web.StaticFileHandler.head(self, path)

    @web.authenticated
    @authorized
    async def get(self, path: str, include_body: bool = True) -> None:  # type: ignore[override]
        if self.get_query_arguments("token"):
            # The token in the address has logged the reader in by now; keep it out of bookmarks and the Referer.
            rest = {k: v for k, v in self.request.query_arguments.items() if k != "token"}
            self.redirect(self.request.path + (f"?{urlencode(rest, doseq=True)}" if rest else ""))
            return
        if not (Path(self.root) / "index.html").is_file():
            raise web.HTTPError(404, "The book is not built yet. Run `make book` in the repository, then reload.")
        _ = self.xsrf_token  # sets the cookie the page needs to start a kernel
        await web.StaticFileHandler.get(self, path, include_body)

    def set_extra_headers(self, _path: str) -> None:
        self.set_header("Cache-Control", "no-cache")


class LiveHandler(APIHandler):
    """Whether this reader may start a kernel, and where."""

    auth_resource = "kernels"

    @web.authenticated
    @authorized
    def get(self) -> None:
        _ = self.xsrf_token
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps({"baseUrl": self.base_url, "kernelName": KERNEL}))


class CourseApp(ExtensionApp):
    """The extension: serves `book_dir` at /course/ and makes JupyterLab open chapters as notebooks."""

    name = EXTENSION
    extension_url = URL
    load_other_extensions = True

    book_dir = Unicode("_build/html", help="The built book, relative to the server's root folder.").tag(config=True)

    def initialize_settings(self) -> None:
        _chapters_as_notebooks(self.book_folder)

    def initialize_handlers(self) -> None:
        book = {"path": str(self.book_folder), "default_filename": "index.html"}
        static = {"path": str(self.book_folder / "_static")}
        self.handlers.extend(
            [
                (r"/course", web.RedirectHandler, {"url": self._url(URL), "permanent": False}),
                (r"/course/_static/(.*)", StaticHandler, static),
                (r"/course/live\.json", LiveHandler),
                (r"/course/(.*)", BookHandler, book),
            ]
        )

    @property
    def book_folder(self) -> Path:
        assert self.serverapp is not None  # the server links itself before it asks for settings
        return (Path(self.serverapp.root_dir) / self.book_dir).resolve()

    def _url(self, path: str) -> str:
        assert self.serverapp is not None
        return str(url_path_join(self.serverapp.base_url, path))


def _chapters_as_notebooks(book: Path) -> None:
    """Let JupyterLab open `.md` files with Jupytext's notebook view, on this server only.

    JupyterLab reads such defaults from `labconfig/` below each folder of JUPYTER_CONFIG_PATH, when it is asked for its
    settings; the reader's own configuration is not touched.
    """
    config = book.parent / "jupyter"
    settings = {
        "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Jupytext Notebook"}},
        "@jupyterlab/apputils-extension:notification": {"fetchNews": "false"},  # else it asks, over every page
    }
    file = config / "labconfig" / "default_setting_overrides.json"
    text = json.dumps(settings, indent=2)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.is_file() or file.read_text(encoding="utf-8") != text:  # another server may be reading it
            file.write_text(text, encoding="utf-8")
    except OSError:
        return  # a read-only checkout: chapters then open as text, and everything else works
    known = os.environ.get("JUPYTER_CONFIG_PATH", "")
    if str(config) not in known.split(os.pathsep):
        os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(part for part in (known, str(config)) if part)


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": EXTENSION, "app": CourseApp}]
