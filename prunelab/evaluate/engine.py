"""Where the cells of a sweep are computed: in this process, in several, or wherever an engine sends them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar, runtime_checkable

from prunelab.extras import extra

Cell = TypeVar("Cell")
Result = TypeVar("Result")


@runtime_checkable
class Engine(Protocol):
    """The seam: anything with this one method can compute a sweep, a cluster's queue too.

    `map` calls `function` once for each cell, wherever and in whatever order it likes, and yields every result as soon
    as it is there, in any order: a result says which cell it belongs to. It must yield one result for each cell.

    `function` and the cells can be sent with cloudpickle. `function` catches what goes wrong in a cell and returns it
    as a result; an exception that leaves `map` means that the engine itself has failed, and ends the sweep. What was
    yielded before is then in the journal. All places must see the folder of the journal under the same path: the
    trained networks lie there.

    >>> class Backwards:
    ...     def map(self, function, cells):
    ...         return (function(cell) for cell in reversed(cells))
    >>> isinstance(Backwards(), Engine), list(Backwards().map(abs, [-1, -2]))
    (True, [2, 1])
    """

    def map(self, function: Callable[[Cell], Result], cells: Sequence[Cell]) -> Iterator[Result]:
        """The results of `function` for all `cells`, in any order."""


class InProcess:
    """One cell after the other, here."""

    def map(self, function: Callable[[Cell], Result], cells: Sequence[Cell]) -> Iterator[Result]:
        """The results in the order of the cells."""
        return map(function, cells)


@dataclass(frozen=True)
class Processes:
    """Several processes on this machine, through joblib's loky.

    `jobs` is how many, -1 one a core. The function is sent to each process once, not with every cell, so that data it
    holds are not copied over and over.
    """

    jobs: int

    def map(self, function: Callable[[Cell], Result], cells: Sequence[Cell]) -> Iterator[Result]:
        """The results in the order in which they are ready.

        Raises TypeError, before anything has run, where `function` cannot be sent to another process.
        """
        return self._run(_sendable(function), cells)

    def _run(self, sendable: bytes, cells: Sequence[Any]) -> Iterator[Any]:
        with extra("jobs > 1"):
            from joblib import Parallel, delayed
        with TemporaryDirectory() as folder:
            sent = Path(folder) / "function.pkl"
            sent.write_bytes(sendable)
            parallel = Parallel(self.jobs, backend="loky", return_as="generator_unordered", batch_size=1)
            yield from parallel(delayed(_call)(str(sent), cell) for cell in cells)


def resolve(jobs: int, engine: Engine | None) -> Engine:
    """The engine that was asked for. Raises TypeError or ValueError where there is no such thing."""
    if engine is not None:
        if not isinstance(engine, Engine) or isinstance(engine, type):
            raise TypeError(f"engine must have a method map(function, cells), see evaluate.Engine; not {engine!r:.60}")
        return engine
    if not isinstance(jobs, Integral) or isinstance(jobs, bool) or (jobs < 1 and jobs != -1):
        raise ValueError(f"jobs must be a number of processes, 1 or more, or -1 for one a core, not {jobs!r}")
    return InProcess() if jobs == 1 else Processes(int(jobs))


def _sendable(function: Any) -> bytes:
    with extra("jobs > 1"):
        import cloudpickle
    try:
        return cloudpickle.dumps(function)
    except Exception as error:
        held = getattr(function, "__dict__", {})
        parts = [name for name, part in held.items() if not _can_send(part, cloudpickle.dumps)]
        raise TypeError(
            f"{', '.join(parts) or repr(function)} cannot be sent to other processes ({error}): something that it "
            "refers to, such as an open file, a lock or a generator, exists in this process only. Make that inside the "
            "function, or use jobs=1"
        ) from error


def _can_send(part: Any, dumps: Callable[[Any], bytes]) -> bool:
    try:
        dumps(part)
    except Exception:
        return False
    return True


def _call(sent: str, cell: Any) -> Any:
    return _received(sent)(cell)


@lru_cache(maxsize=1)
def _received(sent: str) -> Callable[[Any], Any]:
    """The function in the file `sent`, read once a process."""
    try:
        return pickle.loads(Path(sent).read_bytes())
    except (ImportError, AttributeError) as error:
        raise RuntimeError(
            f"a worker process cannot load what it was sent ({error}): the module where it is defined cannot be "
            "imported there. Define it in the notebook or script itself, install the module, or use jobs=1"
        ) from error
