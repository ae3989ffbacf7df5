"""Run a network again, or a smaller one, and know which operation of the trace each of its operations is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from prunelab.trace.recorder import Recorder

_AHEAD = 4  # operations that may be missing or more

Shape: TypeAlias = "tuple[int | None, ...] | None"  # None stands for any size, or any shape


class Expected(NamedTuple):
    """An operation of the trace: its number, its name, the shapes that it returns, the module that was running, and the
    positions that it takes of those left (None where that is all of them)."""

    number: int
    name: str
    shapes: tuple[Shape, ...]
    module: str
    positions: list[int] | None = None


class Aligned(Recorder):
    """Finds the place of each operation among those expected, for as long as the same ones run.

    Where other ones run (what was computed once and kept is not computed again) it is `lost` until the next module.
    """

    def __init__(self, expected: Sequence[Expected], skip: Sequence[str]) -> None:
        super().__init__(())
        self.expected, self._skip = expected, tuple(skip)
        self.at, self.lost, self.diverged = 0, False, False
        self.mismatch: str | None = None
        self._extra, self._lost_in = 0, ""

    def place(self, name: str, found: tuple[tuple[int, ...], ...]) -> Expected | None:
        """The operation that was expected, where it is this one."""
        if self._skip and inside(self._path[-1], self._skip):
            return None
        if self.lost and not self._found_again():
            return None
        ahead = self.expected[self.at : self.at + _AHEAD]
        if ahead and ahead[0].name == name:
            if not _fit(ahead[0].shapes, found):
                self.unfit(f"{name} returned {list(found)} where {list(ahead[0].shapes)} was expected")
                return None
            self.at, self._extra = self.at + 1, 0
            return ahead[0]
        # A copy more or less (a view of a smaller tensor may need none, or one) is no other path through the code.
        for skipped, one in enumerate(ahead):
            if one.name == name and _fit(one.shapes, found):
                self.at, self._extra = self.at + skipped + 1, 0
                return one
        self._extra += 1
        if self._extra > _AHEAD:
            self._lose()
        return None

    def unfit(self, text: str) -> None:
        """The operation returned other shapes."""
        self.mismatch = text
        self._lose()

    def _lose(self) -> None:
        self.lost, self.diverged, self._lost_in = True, True, self._path[-1]

    def _found_again(self) -> bool:
        """Another module runs than the one in which other operations ran: go on at its first one."""
        path = self._path[-1]
        if path == self._lost_in:
            return False
        self._lost_in = path
        for at in range(self.at, len(self.expected)):
            if self.expected[at].module == path:
                self.at, self.lost, self._extra = at, False, 0
                return True
        return False


def _fit(want: Sequence[Shape], have: Sequence[tuple[int, ...]]) -> bool:
    return all(_fits(one, other) for one, other in zip(want, have, strict=False))


def _fits(want: Shape, have: tuple[int, ...]) -> bool:
    if want is None:
        return True
    return len(want) == len(have) and all(w is None or w == h for w, h in zip(want, have, strict=True))


def inside(module: str, paths: Sequence[str]) -> bool:
    return any(not path or module == path or module.startswith(f"{path}.") for path in paths)
