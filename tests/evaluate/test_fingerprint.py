"""What settings are in words: the same in every process, and another one when they change."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from prunelab import criteria, granularity
from prunelab.evaluate.fingerprint import describe

RATE = 0.1


def helper(x: int) -> int:
    return x + 1


def reads_a_global(x: float) -> float:
    return x * RATE


def calls_a_helper(x: int) -> int:
    return helper(x)


class Plain:
    def __init__(self, a: int) -> None:
        self.a = a


@dataclass
class Given:
    names: set[str]
    weight: torch.Tensor


def adder(k: float):
    return lambda x: x + k


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.5, "0.5"),
        (None, "None"),
        ("a", "'a'"),
        (granularity.Group(1, 4), "Group(rows=1, columns=4)"),
        (criteria.Random(3), "Random(seed=3)"),
        ({"x": [1, (2,)]}, "{x: [1, [2]]}"),
        (torch.nn.Linear(2, 2), "Linear"),
        (int, "int"),
        (len, "len"),
    ],
)
def test_settings_by_their_values(value: object, words: str) -> None:
    assert describe(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Plain(2), "Plain(a=2)"),
        (Given({"b", "a"}, torch.zeros(2, 3)), "Given(names={'a', 'b'}, weight=Tensor(2, 3))"),
        (Plain, "Plain"),
    ],
)
def test_with_a_class_of_ones_own_stands_its_code(value: object, words: str) -> None:
    assert re.fullmatch(re.escape(words) + "#[0-9a-f]{8}", describe(value))


CLASS = """
class Base:
    def base(self): return {0}
class Mine(Base):
    rate = {1}
    def method(self): return super().base() + {2}
    @staticmethod
    def static(): return {3}
    @property
    def held(self): return {4}
    def __repr__(self): return "Mine()"
def build(): return Mine()
"""


@pytest.mark.parametrize("name", ["Mine", "build"])
def test_a_change_of_a_class_is_seen_in_its_objects_and_in_functions_that_name_it(name: str) -> None:
    def described(*numbers: int) -> str:
        space: dict[str, Any] = {"__name__": "script"}
        exec(CLASS.format(*numbers), space)
        return describe(space[name]() if name == "Mine" else space[name])

    versions = [described(*(number == place for number in range(5))) for place in range(6)]
    assert len(set(versions)) == 6
    assert described(0, 0, 0, 0, 0) == described(0, 0, 0, 0, 0)


def test_functions_differ_by_their_code() -> None:
    assert describe(lambda x: x + 1).split("#")[1] == describe(lambda x: x + 1).split("#")[1]
    different: list[Any] = [
        lambda x: x + 2, lambda x: x - 1, lambda x: x.a, lambda x: x.b, lambda x, k=1: x + k, lambda x, k=2: x + k,
        lambda x, *, k=1: x + k, lambda x, *, k=2: x + k, lambda x: (lambda y: y + 1)(x), lambda x: (lambda y: y + 2)(x),
        adder(1), adder(2),
    ]  # fmt: skip
    assert len({describe(one).split("#")[1] for one in different}) == len(different)


def test_partials_differ_by_what_they_bind() -> None:
    assert describe(functools.partial(helper, 1)) != describe(functools.partial(helper, 2))
    assert describe(functools.partial(helper, x=1)) != describe(functools.partial(helper, x=2))


def test_what_a_function_reads_from_its_module_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = describe(reads_a_global), describe(calls_a_helper)
    monkeypatch.setitem(globals(), "RATE", 0.2)
    assert describe(reads_a_global) != before[0]
    new = lambda x: x + 2  # noqa: E731
    new.__module__ = __name__
    monkeypatch.setitem(globals(), "helper", new)
    assert describe(calls_a_helper) != before[1]


def test_what_a_function_fills_while_it_runs_does_not_count() -> None:
    found: list[int] = []

    def keeps(x: int) -> None:
        found.append(x)

    before = describe(keeps)
    keeps(3)
    assert describe(keeps) == before


def test_criteria_that_a_function_closes_over_count() -> None:
    def using(criterion: Any) -> Any:
        return lambda model: criterion

    assert describe(using(criteria.Random(0))) != describe(using(criteria.Random(1)))


def test_a_value_that_holds_itself_ends() -> None:
    ring: list = [1]
    ring.append(ring)
    assert describe(ring) == "[1, ...]"


def test_a_function_that_calls_itself_ends() -> None:
    def down(n: int) -> int:
        return down(n - 1) if n else 0

    assert describe(down) == describe(down)


def test_the_same_in_every_process(capsys: pytest.CaptureFixture[str]) -> None:
    """Hashes of strings are drawn anew in each process, and addresses differ: neither may show."""
    code = (
        "from prunelab.evaluate.fingerprint import describe\n"
        "class P:\n    def __init__(self): self.a = {'x', 'y', 'z'}\n"
        "names = {'u', 'v', 'w'}\n"
        "def f(x): return x in {'one', 'two', 'three'} and names and P()\n"
        "print(describe(f), describe(P()), describe(lambda: f(1)))"
    )
    once = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "1"}
    )
    exec(code, {"__name__": "__main__"})
    assert capsys.readouterr().out == once.stdout
