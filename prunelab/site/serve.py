"""Start a Jupyter server with the book, on this machine, and say where it is."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from traitlets.config import Config

from prunelab.site.paths import html_folder
from prunelab.site.server import EXTENSION, URL

_PING = 30_000  # milliseconds between two looks at whether a page is still there


class ServeError(ValueError):
    """The server cannot start as asked; the message says why and what would work."""


@dataclass(frozen=True)
class Options:
    """How to serve. `idle_minutes`: a kernel nobody has used for so long is shut down, and its memory freed."""

    host: str = "127.0.0.1"
    port: int = 8888
    base_url: str = "/"
    browser: bool = True
    idle_minutes: float = 60.0


def serve(root: Path, options: Options, announce: Callable[[str], None]) -> None:
    """Serve the book of `root` until interrupted. `announce` gets the one address to open, token included.

    Raises ServeError when the book is not built, the port is taken, or the address is not this machine's.
    """
    if not (html_folder(root) / "index.html").is_file():
        raise ServeError(
            f"the book is not built: {html_folder(root)} has no index.html; run `make book` or `prunelab build` first"
        )
    port = free_port(options.host, options.port)
    from jupyter_server.serverapp import ServerApp

    token = os.environ.get("JUPYTER_TOKEN") or secrets.token_hex(24)
    logging.getLogger("tornado.general").addFilter(_says_something)
    app = ServerApp.instance(config=_config(root, options, port, token))
    # `argv` is ours: nothing of the command line reaches the server, and the token is not in the list of processes.
    app.initialize(argv=[])
    address = f"http://{_shown_host(options.host)}:{port}{app.base_url.rstrip('/')}{URL}?token={token}"
    # Callbacks run in order, and binding the port is already in the queue: by then somebody answers there.
    app.io_loop.add_callback(announce, address)
    try:
        app.start()
    finally:
        end_tasks(asyncio.get_event_loop())
        asyncio.set_event_loop(None)


def end_tasks(loop: asyncio.AbstractEventLoop, patience: float = 1.0) -> None:
    """End what a stopped loop has left undone: an answer half given holds a thread, which would keep the process alive.

    A task may catch what cancels it, and go on: it is told three times, and given `patience` seconds each time.
    """
    for _ in range(3):
        if not (tasks := asyncio.all_tasks(loop)):
            return
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks, timeout=patience))


def free_port(host: str, port: int) -> int:
    """`port` itself if it can be had at `host`; for 0, any free one. Raises ServeError, naming a port that would do."""
    if not 0 <= port <= 65535:
        raise ServeError(f"port {port} does not exist; ports run from 1 to 65535, and 0 takes any free one")
    try:
        with _bound(host, port) as listener:
            return int(listener.getsockname()[1])
    except socket.gaierror as error:
        raise ServeError(f"{host!r} is no address of this machine ({error.strerror}); try --host 127.0.0.1") from error
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise ServeError(f"{host} is no address of this machine; try --host 127.0.0.1") from error
        raise ServeError(
            f"port {port} at {host} cannot be used ({error.strerror}): perhaps the book is already being served there; "
            f"choose another with --port {min(port + 1, 65535)}, or any free one with --port 0"
        ) from error


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # as Tornado does; a port closed a second ago is free again
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _shown_host(host: str) -> str:
    """A name a browser can open: a server that listens everywhere is shown by its machine's name."""
    if host in ("", "0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _says_something(record: logging.LogRecord) -> bool:
    """All but Tornado's warning that its own timeout, which Jupyter does not use, is longer than its interval."""
    return "websocket_ping_timeout" not in record.getMessage()


def _config(root: Path, options: Options, port: int, token: str) -> Config:
    idle = max(1, round(options.idle_minutes * 60))
    settings: dict[str, dict[str, object]] = {
        "ServerApp": {
            "root_dir": str(root),
            "ip": options.host,
            "port": port,
            "port_retries": 0,
            "base_url": options.base_url,
            "default_url": URL,
            "open_browser": options.browser,
            "jpserver_extensions": {EXTENSION: True, "jupyterlab": True},
            "answer_yes": True,  # one Control-C is enough
            "allow_root": True,  # in a container everybody is root
            "log_level": "WARN",
            # Milliseconds. Jupyter looks for the answer to a ping when it sends the next: a timeout as short as the
            # interval would end connections, and lose what they carry, whenever it is a moment late.
            "tornado_settings": {"ws_ping_interval": _PING, "ws_ping_timeout": 4 * _PING},
            "allow_origin": "",
            "disable_check_xsrf": False,
        },
        # JupyterLab would ask the network for news, updates and extensions; nothing here does.
        "LabApp": {
            "log_level": "WARN",
            "extension_manager": "readonly",
            "check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
            "news_url": None,
        },
        "IdentityProvider": {"token": token},
        "PasswordIdentityProvider": {"hashed_password": ""},
        "MappingKernelManager": {
            "cull_idle_timeout": idle,
            "cull_interval": max(1, min(60, idle // 2)),
            # A forgotten tab would keep its kernel, and its GPU memory, for ever. The page tells, and can reconnect.
            "cull_connected": True,
        },
    }
    return Config(settings)
