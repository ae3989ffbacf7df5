"""Whatever a learner's function does, the check says what happened and keeps its own inputs whole."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from prunelab.exercises.calling import Case, ask, try_cases
from prunelab.exercises.describing import describe, shorten
from prunelab.exercises.outcome import NotAttempted, Raised, Wrong

CASE = Case("three numbers", {"weight": torch.ones(3), "sparsity": 0.5})


def tried(function):
    return ask(function, CASE, name="f")


def dots(weight, sparsity):
    """What it should do."""
    ...  # noqa: PIE790


def dots_in_the_middle(weight, sparsity):
    norms = ...
    return norms  # noqa: RET504


def passing(weight, sparsity):
    pass


def unfinished(weight, sparsity):
    raise NotImplementedError


def unfinished_with_text(weight, sparsity):
    raise NotImplementedError("your code here")


@pytest.mark.parametrize("stub", [dots, dots_in_the_middle, passing, unfinished, unfinished_with_text, lambda *_: ...])
def test_a_stub_is_not_attempted(stub):
    with pytest.raises(NotAttempted, match="still the stub"):
        tried(stub)


def test_a_function_that_works_but_returns_nothing_is_wrong():
    def forgetful(weight, sparsity):
        weight.sum()

    with pytest.raises(Wrong, match="`f` returns None"):
        tried(forgetful)
    with pytest.raises(Wrong, match="returns None"):
        tried(functools.partial(forgetful))


def test_an_operation_that_torch_does_not_implement_is_no_stub():
    def unsupported(weight, sparsity):
        return torch.empty(2, device="meta").to("cpu")

    with pytest.raises(Raised, match="Your code raised NotImplementedError: Cannot copy out of meta tensor"):
        tried(unsupported)


def test_an_error_comes_with_the_line_and_the_arguments():
    def broken(weight, sparsity):
        return weight.sum(7)

    with pytest.raises(Raised, match="Your code raised IndexError: Dimension out of range") as caught:
        tried(broken)
    call, line = caught.value.trace
    assert call == "f(weight=float32 (3,), sparsity=0.5)"
    assert line.endswith("in broken: return weight.sum(7)")
    assert caught.value.case == "three numbers"
    assert caught.value.arguments["sparsity"] == 0.5


def test_the_line_is_the_learners_even_if_a_library_raised():
    def broken(weight, sparsity):
        layer = nn.Linear(2, 2)
        return layer(weight)

    with pytest.raises(Raised) as caught:
        tried(broken)
    assert caught.value.trace[1].endswith("in broken: return layer(weight)")


def test_an_error_without_a_learners_line_shows_the_call_alone():
    with pytest.raises(Raised, match="raised RuntimeError: Boolean value") as caught:
        tried(max)
    assert caught.value.trace == ("f(weight=float32 (3,), sparsity=0.5)",)


def test_endless_and_hostile_errors_stay_short():
    class HostileError(Exception):
        def __str__(self):
            raise RuntimeError("no")

    def endless(weight, sparsity):
        raise ValueError("x\n" * 100_000)

    def hostile(weight, sparsity):
        raise HostileError

    with pytest.raises(Raised) as caught:
        tried(endless)
    assert len(caught.value.reason) < 350
    assert "\n" not in caught.value.reason
    with pytest.raises(Raised, match=r"Your code raised HostileError$"):
        tried(hostile)


def test_an_interrupt_is_not_swallowed():
    def interrupted(weight, sparsity):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tried(interrupted)


@pytest.mark.parametrize(
    ("function", "signature"),
    [(lambda weight: 1, r"\(weight\)"), (lambda: 1, r"\(\)"), (lambda a, b, c: 1, r"\(a, b, c\)")],
)
def test_other_arguments_are_named(function, signature):
    with pytest.raises(Wrong, match=rf"must take the arguments `\(weight, sparsity\)`, but yours takes `{signature}`"):
        tried(function)


def test_arguments_are_given_by_position_and_extra_ones_may_have_defaults():
    assert tried(lambda w, s, dim=0: (len(w), s)) == (3, 0.5)


def write(weight, sparsity):
    weight[0] = 7
    return weight


def test_an_input_that_is_modified_is_reported_and_stays_whole():
    with pytest.raises(Wrong, match="modified its input `weight` in place"):
        tried(write)
    assert torch.equal(CASE.arguments["weight"], torch.ones(3))


@pytest.mark.parametrize(
    "argument",
    [nn.Linear(2, 2), [torch.zeros(2), torch.zeros(2)], (nn.Linear(2, 2),), {"a": 1}, "text"],
    ids=lambda value: type(value).__name__,
)
def test_every_kind_of_input_is_watched(argument):
    def change(value):
        if isinstance(value, nn.Module):
            value.weight.data[0] = 9
        elif isinstance(value, dict):
            value["b"] = 1
        elif isinstance(value, str):
            return value
        elif isinstance(value[0], nn.Module):
            value[0].bias.data += 1
        else:
            value[1] += 1
        return 0

    case = Case("one", {"value": argument})
    assert ask(lambda value: 1, case, name="f") == 1
    if isinstance(argument, str):
        assert ask(change, case, name="f") == "text"
    else:
        with pytest.raises(Wrong, match="modified its input `value`"):
            ask(change, case, name="f")


def test_a_value_instead_of_a_function_is_told_so():
    for answer in (torch.ones(3), 7, nn.Linear(1, 1)):
        with pytest.raises(Wrong, match=r"needs the function itself.*`check\(f\)`, without calling it"):
            try_cases(answer, lambda: [CASE], lambda result, **_: None, name="f")


def test_every_case_is_judged_and_the_failing_one_named():
    cases = [Case(f"case {number}", {"number": number}) for number in range(3)]
    judged = []

    def judge(result, number):
        judged.append(number)
        if result == 2:
            raise Wrong("no")

    with pytest.raises(Wrong) as caught:
        try_cases(lambda number: number, lambda: cases, judge, name="f")
    assert judged == [0, 1, 2]
    assert (caught.value.case, caught.value.arguments) == ("case 2", {"number": 2})


def test_prints_are_passed_on_up_to_a_limit(capsys):
    def chatty(weight, sparsity):
        print("look", weight.shape)  # noqa: T201
        print("x" * 100_000)  # noqa: T201
        return 1

    try_cases(chatty, lambda: [CASE, CASE], lambda result, **_: None, name="f")
    out = capsys.readouterr().out
    assert out.startswith("look torch.Size([3])\nxxx")
    assert len(out) < 4100
    assert out.count("the rest of the output is not shown") == 1


class Nasty:
    def __repr__(self):
        raise RuntimeError("no")

    def __getattr__(self, name):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "described"),
    [
        (torch.zeros(2, 3), "a float32 Tensor of shape (2, 3)"),
        (3, "the int 3"),
        ([0] * 10**6, "the list [0, 0, 0, 0, ...]"),
        (len, "the builtin_function_or_method len"),
        (Nasty(), "an object of the class Nasty"),
    ],
    ids=["tensor", "int", "list", "function", "nasty"],
)
def test_values_are_described_in_a_few_words(value, described):
    assert describe(value) == described


def test_shortened_text_is_one_line():
    assert shorten("a\n b") == "a b"
    assert len(shorten("word " * 1000, 50)) <= 50
