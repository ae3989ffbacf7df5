"""What a sweep has finished, on disk: one line of JSON a cell, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = "prunelab.sweep.1"


class Journal:
    """A file of JSON lines: the first says what was run, each other one is a finished cell.

    A line is appended at once and synced to the disk before the next cell is taken, so that a kill, or a power cut, can
    lose no more than the line that is being written. Such a torn last line is left out, and cut off when the next one
    is written. Reading changes nothing. Two runs that share a journal do some cells twice, and lose none.

    Attributes:
        path: the file.
        records: the cells that were finished when the journal was opened, in their order.

    Args:
        path: the file; its folder must be there.
        configuration: what must be the same for two runs to share a journal, in words: name → description.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such folder, or `path` is one.
        ValueError: the file is no journal, is damaged before its last line, or belongs to another configuration.
    """

    def __init__(self, path: str | os.PathLike[str], configuration: Mapping[str, str]) -> None:
        self.path = Path(path).resolve()
        self._configuration = dict(configuration)
        if self.path.is_dir():
            raise IsADirectoryError(f"{os.fspath(path)!r} is a folder; name a file in it, such as sweep.jsonl")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {os.fspath(self.path.parent)!r} to keep the journal in")
        content = self.path.read_bytes() if self.path.exists() else b""
        self._whole = content.rfind(b"\n") + 1  # bytes up to the end of the last line that was finished
        self._torn = content[self._whole :]
        lines = enumerate(content[: self._whole].splitlines(), start=1)
        parsed = [self._parse(line, number) for number, line in lines if line.strip()]  # editors leave empty lines
        if not parsed and not _starts_like(content):
            raise self._foreign()
        for header in [*parsed[:1], *(line for line in parsed if "format" in line)]:  # two runs may have begun at once
            self._check(header)
        self.records = [line for line in parsed if "format" not in line]

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one finished cell; it is on the disk when this returns."""
        if self._torn:
            with self.path.open("rb") as file:
                file.seek(self._whole)
                unchanged = file.read() == self._torn
            if unchanged:  # else another run has cut it off, or has finished the line
                os.truncate(self.path, self._whole)
            self._torn = b""
        first = not self._whole
        lines = [self._header(), record] if first else [record]
        written = "".join(json.dumps(line) + "\n" for line in lines).encode()  # ASCII: any text goes
        with self.path.open("ab") as file:  # at the end of the file, whoever else writes there
            file.write(written)
            file.flush()
            os.fsync(file.fileno())
        self._whole += len(written)
        if first:
            _sync_folder(self.path.parent)

    def _header(self) -> dict[str, Any]:
        return {"format": FORMAT, "configuration": self._configuration}

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            if number == 1:
                raise self._foreign()
            raise ValueError(
                f"line {number} of {str(self.path)!r} cannot be read, though lines follow it: the file was damaged or "
                "edited. Delete that line, and its cell is run again; or name another path"
            )
        return record

    def _check(self, header: Mapping[str, Any]) -> None:
        if header.get("format") != FORMAT or not isinstance(header.get("configuration"), dict):
            raise self._foreign()
        theirs = header["configuration"]
        for name in dict.fromkeys([*self._configuration, *theirs]):
            old, new = theirs.get(name, "nothing"), self._configuration.get(name, "nothing")
            if old != new:
                raise ValueError(
                    f"the journal {str(self.path)!r} belongs to another sweep: there {name} is {old}, here {new}. "
                    "Results of both would be mixed; name another path, or delete the journal to start anew"
                )

    def _foreign(self) -> ValueError:
        return ValueError(f"{str(self.path)!r} is no journal of a sweep ({FORMAT}); name another path")


def _starts_like(content: bytes) -> bool:
    """Whether `content`, which has no whole line, may be the torn first line of a journal."""
    start = f'{{"format": "{FORMAT}"'.encode()
    return content.startswith(start) or start.startswith(content)


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
