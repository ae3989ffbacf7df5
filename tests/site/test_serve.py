"""Starting the server: a port that can be had, a book that is built, and messages that lead on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import anyio.to_thread
import pytest

from prunelab.site.cli import main
from prunelab.site.paths import NoBookError, find_root
from prunelab.site.serve import Options, ServeError, _config, _says_something, end_tasks, free_port, serve


def test_a_free_port_is_taken_as_it_is() -> None:
    port = free_port("127.0.0.1", 0)
    assert port > 0
    assert free_port("127.0.0.1", port) == port


def test_a_taken_port_names_the_way_out() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ServeError, match=f"port {port} at 127.0.0.1 cannot be used .*--port {port + 1}.*--port 0"):
            free_port("127.0.0.1", port)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_does_not_exist(port: int) -> None:
    with pytest.raises(ServeError, match=f"port {port} does not exist"):
        free_port("127.0.0.1", port)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(ServeError, match=r"192\.0\.2\.1"):  # a documentation address: nobody has it
        free_port("192.0.2.1", 0)


def test_a_book_that_is_not_built(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match=r"the book is not built: .* run `make book` or `prunelab build` first"):
        serve(tmp_path, Options(), announce=print)


def test_a_root_is_found_from_below(tmp_path: Path) -> None:
    for name in ("_config.yml", "_toc.yml"):
        (tmp_path / name).touch()
    below = tmp_path / "book" / "methods"
    below.mkdir(parents=True)
    assert find_root(below) == tmp_path


def test_the_checkout_is_the_last_resort_unless_a_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (find_root() / "prunelab" / "site").is_dir()
    with pytest.raises(NoBookError, match=f"neither {tmp_path} nor a folder above"):
        find_root(tmp_path)


def test_an_address_of_another_machine_is_called_that() -> None:
    with pytest.raises(ServeError, match=r"^192.0.2.1 is no address of this machine; try --host 127.0.0.1$"):
        free_port("192.0.2.1", 0)


def test_no_book_at_all_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunelab.site.paths.__file__", str(tmp_path / "a" / "b" / "c.py"))
    with pytest.raises(NoBookError, match=r"no book found: .* run this inside a clone"):
        find_root(tmp_path)


def test_the_command_reports_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("_config.yml", "_toc.yml"):
        (tmp_path / name).touch()
    assert main(["--root", str(tmp_path), "serve", "--no-browser"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("prunelab serve: the book is not built")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("module", ["prunelab.site.cli", "prunelab.site.server", "prunelab.site.extension"])
def test_the_site_does_not_import_torch(module: str) -> None:
    code = f"import sys, {module}; assert 'torch' not in sys.modules, 'torch was imported'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_connection_outlives_a_late_answer(tmp_path: Path) -> None:
    """Jupyter's own rule (base/websocket.py): it looks for the last answer when it sends the next ping, so an answer
    that came at once is already as old as the interval. A page that draws for a minute is still there."""
    settings = _config(tmp_path, Options(), 8888, "token").ServerApp.tornado_settings
    assert settings["ws_ping_timeout"] >= 2 * settings["ws_ping_interval"] + 30_000


def test_only_the_warning_about_the_unused_timeout_is_silenced() -> None:
    record = partial(logging.LogRecord, "tornado.general", logging.WARNING, "", 0, args=None, exc_info=None)
    assert not _says_something(record(msg="The websocket_ping_timeout (120000) cannot be longer"))
    assert _says_something(record(msg="403 GET /course/"))


def test_a_thread_of_a_request_does_not_outlive_the_server() -> None:
    loop, threads = asyncio.new_event_loop(), threading.active_count()

    async def stop_while_a_thread_works() -> None:
        loop.call_later(0.05, loop.stop)
        await anyio.to_thread.run_sync(time.sleep, 0.2)

    task = loop.create_task(stop_while_a_thread_works())
    loop.run_forever()
    assert not task.done()
    assert threading.active_count() == threads + 1
    end_tasks(loop)
    assert task.cancelled()
    while threading.active_count() > threads:  # ends at once, and never without `end_tasks`
        time.sleep(0.01)
    loop.close()


def test_a_task_that_will_not_end_does_not_hold_the_server() -> None:
    loop = asyncio.new_event_loop()
    asked: list[int] = []
    over: list[int] = []

    async def stubborn() -> None:
        while len(asked) < 2:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                asked.append(1)

    async def deaf() -> None:
        while not over:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)

    task, endless = loop.create_task(stubborn()), loop.create_task(deaf())
    loop.run_until_complete(asyncio.sleep(0))
    end_tasks(loop, patience=0.01)
    assert task.done()
    assert not endless.done()
    over.append(1)
    endless.cancel()
    loop.run_until_complete(endless)
    loop.close()
