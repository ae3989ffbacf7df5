"""Run a network again, or a smaller one, and know which operation of the trace each of its operations is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

from torch import nn

from prunelab.anatomy import Anatomy
from prunelab.trace import call_arguments, device_of, undisturbed
from prunelab.trace.recorder import Recorder, stepwise

_AHEAD = 4  # operations that may be missing or more
_COPIES = frozenset({"aten::clone", "aten::view", "aten::_unsafe_view", "aten::expand", "aten::_reshape_alias"})

Shape: TypeAlias = "tuple[int | None, ...] | None"  # None stands for any size, or any shape
Shapes: TypeAlias = dict[int, tuple[tuple[int, ...], ...]]  # by the number of an operation: of what it returned


class Expected(NamedTuple):
    """An operation of the trace: its number, its name, the shapes that it returns, the module that was running, the
    positions that it takes of those left (None where nothing goes), and whether these are only `some` of them."""

    number: int
    name: str
    shapes: tuple[Shape, ...]
    module: str
    positions: list[int] | None = None
    some: bool = False


class Aligned(Recorder):
    """Finds the place of each operation among those expected, for as long as the same ones run.

    Where other ones run (what was computed once and kept is not computed again) it is `lost` until the next module.
    Only where modules are followed can operations be told from the same ones of another module.
    """

    def __init__(self, expected: Sequence[Expected], skip: Sequence[str], *, modules: bool = True) -> None:
        super().__init__(())
        self.expected, self._skip, self._modules = expected, tuple(skip), modules
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
        if ahead and self._is(ahead[0], name):
            if not _fit(ahead[0].shapes, found):
                self.unfit(f"{name} returned {list(found)} where {list(ahead[0].shapes)} was expected")
                return None
            self.at, self._extra = self.at + 1, 0
            return ahead[0]
        # A copy more or less (a view of a smaller tensor may need none, or one) is no other path through the code.
        for skipped, one in enumerate(ahead):
            if not self._is(one, name):
                continue
            fits = _fit(one.shapes, found)
            for missing, cut in enumerate(ahead[:skipped]) if fits or name not in _COPIES else ():
                if cut.some:  # a slice that takes everything is no operation
                    self.at += missing
                    self.unfit(f"{cut.name} takes all positions that are left, and should take some of them")
                    return None
            if fits:
                self.at, self._extra = self.at + skipped + 1, 0
                return one
        self._extra += 1
        if self._extra > _AHEAD:
            self._lose()
        return None

    def _is(self, one: Expected, name: str) -> bool:
        return one.name == name and (not self._modules or one.module == self._path[-1])

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


@contextmanager
def forward_of(
    anatomy: Anatomy, example_inputs: Any, *, training: bool = False
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The arguments of a forward that leaves no mark, runs step by step and draws the same each time."""
    unfused = any(isinstance(module, nn.RNNBase) for module in anatomy.modules.values())
    with undisturbed(anatomy, training=training, seed=0), stepwise(unfused):
        yield call_arguments(example_inputs, device_of(anatomy.model))


def _fit(want: Sequence[Shape], have: Sequence[tuple[int, ...]]) -> bool:
    return all(_fits(one, other) for one, other in zip(want, have, strict=False))


def _fits(want: Shape, have: tuple[int, ...]) -> bool:
    if want is None:
        return True
    return len(want) == len(have) and all(w is None or w == h for w, h in zip(want, have, strict=True))


def inside(module: str, paths: Sequence[str]) -> bool:
    return any(not path or module == path or module.startswith(f"{path}.") for path in paths)
