"""Where cells are computed: each once, whatever the engine; and what cannot be sent is refused before anything runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from prunelab.evaluate.engine import Engine, InProcess, Processes, resolve


def test_in_process_the_results_come_one_by_one() -> None:
    ran: list[int] = []

    def square(cell: int) -> int:
        ran.append(cell)
        return cell * cell

    results = InProcess().map(square, [3, 1, 2])
    assert ran == []
    assert next(results) == 9
    assert ran == [3]
    assert list(results) == [1, 4]


def test_processes_compute_each_cell_once_elsewhere() -> None:
    offset = torch.tensor(10)  # captured: it is sent along

    def work(cell: int) -> tuple[int, int, int]:
        return cell, int(offset) + cell, os.getpid()

    results = sorted(Processes(2).map(work, list(range(7))))
    assert [result[:2] for result in results] == [(cell, 10 + cell) for cell in range(7)]
    assert os.getpid() not in {pid for *_, pid in results}


def test_the_function_is_sent_once_a_process() -> None:
    """Its state is that process's own: it is not copied anew with every cell."""

    class Counting:
        def __init__(self) -> None:
            self.calls = 0

        def __call__(self, cell: int) -> tuple[int, int]:
            self.calls += 1
            return os.getpid(), self.calls

    results = list(Processes(2).map(Counting(), list(range(6))))
    for pid in {pid for pid, _ in results}:
        calls = sorted(count for where, count in results if where == pid)
        assert calls == list(range(1, len(calls) + 1))
    again = list(Processes(2).map(Counting(), [0, 1]))  # another map, another function
    assert min(calls for _, calls in again) == 1


class Holder:
    def __init__(self, **parts: Any) -> None:
        vars(self).update(parts)

    def __call__(self, cell: int) -> int:
        raise AssertionError("nothing may run")


def test_what_cannot_be_sent_is_named_before_anything_runs() -> None:
    lock = threading.Lock()
    work = Holder(train=lambda: lock, score=lambda: 1)
    with pytest.raises(TypeError, match=r"^train cannot be sent to other processes .*use jobs=1"):
        Processes(2).map(work, [1, 2])


def test_an_exception_of_the_function_ends_the_map() -> None:
    def fail(cell: int) -> int:
        raise RuntimeError(f"cell {cell}")

    with pytest.raises(RuntimeError, match="cell 1"):
        list(Processes(2).map(fail, [1]))


class Backwards:
    def map(self, function: Callable[[Any], Any], cells: Sequence[Any]) -> Iterator[Any]:
        return (function(cell) for cell in reversed(cells))


def test_which_engine() -> None:
    assert isinstance(resolve(1, None), InProcess)
    assert resolve(2, None) == Processes(2)
    assert resolve(-1, None) == Processes(-1)
    fake = Backwards()
    assert isinstance(fake, Engine)
    assert resolve(1, fake) is fake


@pytest.mark.parametrize("jobs", [0, -2, 1.5, True, "2", None])
def test_no_number_of_processes(jobs: object) -> None:
    with pytest.raises(ValueError, match="jobs must be a number of processes"):
        resolve(jobs, None)


@pytest.mark.parametrize("engine", [Backwards, 3, map])
def test_no_engine(engine: object) -> None:
    with pytest.raises(TypeError, match="engine must have a method map"):
        resolve(1, engine)
