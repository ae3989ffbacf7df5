"""A line that says how far a long computation is, for one that somebody watches."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

# Seconds of silence, and between two updates.
PATIENCE, PAUSE = 2.0, 0.2


class Progress:
    """Shows, on the standard error, how much of a total is done; nothing where it takes less than two seconds.

    It is silent where nobody watches (no terminal and no notebook), while the book is built (`PRUNELAB_BUILD=1`), and
    where it is not `shown`. The line vanishes in the end.
    """

    def __init__(self, what: str, total: int, shown: bool = True) -> None:
        watched = sys.stderr is not None and (sys.stderr.isatty() or "ipykernel" in sys.modules)
        building = os.environ.get("PRUNELAB_BUILD", "") not in {"", "0"}
        self._what, self._total, self._shown = what, total, shown and watched and not building
        self._start = self._last = time.monotonic()
        self._width = 0

    def show(self, done: int) -> None:
        """So much of the total is done now."""
        now = time.monotonic()
        if not self._shown or now - self._start < PATIENCE or (now - self._last < PAUSE and done < self._total):
            return
        self._last = now
        left = (now - self._start) / done * (self._total - done) if done else 0.0
        self._write(f"{self._what}: {done} of {self._total}, {left:.0f} s to go")

    def _write(self, line: str) -> None:
        sys.stderr.write("\r" + line.ljust(self._width))
        sys.stderr.flush()
        self._width = len(line)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._width:
            self._write("")
            sys.stderr.write("\r")
