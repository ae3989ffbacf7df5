"""Call a learner's function as a stranger would: on copies, ready for anything, and tell what happened."""

from __future__ import annotations

import contextlib
import copy
import dis
import inspect
import io
import sys
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from prunelab.exercises.describing import describe, describe_call, shorten
from prunelab.exercises.outcome import Finding, NotAttempted, Raised, Wrong

__all__ = ["Case", "ask", "try_cases"]

_STUB_OPS = {"RESUME", "NOP", "CACHE", "LOAD_CONST", "LOAD_COMMON_CONSTANT", "RETURN_VALUE", "RETURN_CONST"}
_LIBRARY = tuple(
    f"{folder}/" for folder in {*map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), Path(__file__).parents[1]}
)


@dataclass(frozen=True)
class Case:
    """One call to try. `about` completes "Tried on: ..."; `arguments` are given in this order."""

    about: str
    arguments: dict[str, Any]


class _Limited(io.TextIOBase):
    """Passes on what a learner's function prints, up to a limit: it is called many times, on large tensors."""

    def __init__(self, stream: TextIO, limit: int = 4000) -> None:
        self._stream = stream
        self._left = limit

    def write(self, text: str) -> int:
        if self._left > 0:
            self._stream.write(text[: self._left])
            if len(text) > self._left:
                self._stream.write("… (the rest of the output is not shown)\n")
            self._left -= len(text)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def try_cases(answer: Any, make_cases: Callable[[], Sequence[Case]], judge: Callable[..., None], *, name: str) -> None:
    """Call the learner's function `name` on each case; `judge(result, **arguments)` raises `Wrong` or returns."""
    _require_function(answer, name)
    # A default device that the learner has set must not move the inputs: their seeded generators live on the CPU.
    with contextlib.redirect_stdout(_Limited(sys.stdout)), torch.device("cpu"):
        for case in make_cases():
            result = ask(answer, case, name=name)
            try:
                judge(result, **copy.deepcopy(case.arguments))
            except Wrong as finding:
                raise Wrong(finding.reason, case=case.about, arguments=case.arguments) from None


def ask(function: Callable[..., Any], case: Case, *, name: str) -> Any:
    """What the function returns for the case.

    Raises NotAttempted for a stub, Raised where the function raises, Wrong where it returns nothing, cannot be called
    like this, or changes what it was given.
    """
    _require_signature(function, case, name)
    given = copy.deepcopy(case.arguments)
    try:
        result = function(*given.values())
    except Exception as error:
        raise _raised(error, case, name) from None
    if result is Ellipsis or (result is None and _does_nothing(function)):
        raise NotAttempted("The function is still the stub. Replace the `...` and run it again.")
    if result is None:
        raise Wrong(f"`{name}` returns None. Is a `return` missing?", case=case.about, arguments=case.arguments)
    for argument, before in case.arguments.items():
        if not _unchanged(before, given[argument]):
            raise Wrong(
                f"`{name}` modified its input `{argument}` in place: whoever calls it loses the original. Compute a "
                "new value instead (methods that end in `_`, `+=` and assignments to slices all write in place).",
                case=case.about,
                arguments=case.arguments,
            )
    return result


def _require_function(answer: Any, name: str) -> None:
    if not callable(answer) or isinstance(answer, nn.Module):
        raise Wrong(
            f"The answer is {describe(answer)}, but the check needs the function itself, to try it on inputs of its "
            f"own: `check({name})`, without calling it."
        )


def _require_signature(function: Callable[..., Any], case: Case, name: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins do not tell theirs; the call will
        return
    try:
        signature.bind(*case.arguments.values())
    except TypeError as error:
        wanted = ", ".join(case.arguments)
        raise Wrong(f"`{name}` must take the arguments `({wanted})`, but yours takes `{signature}`: {error}.") from None


def _raised(error: Exception, case: Case, name: str) -> Finding:
    """Whose fault and where: the deepest line that is not a library's."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)[1:]  # the first frame is the call above
        if not frame.filename.startswith(_LIBRARY)
    ]
    line = shorten(frames[-1].line or "", 120) if frames else ""
    if type(error) is NotImplementedError and (not error.args or line.startswith("raise NotImplementedError")):
        return NotAttempted("The function is still the stub. Replace the `raise` and run it again.")
    try:
        text = shorten(str(error))
    except Exception:  # an exception class of the learner's own may fail to describe itself
        text = ""
    trace = [f"{describe_call(name, case.arguments)}"]
    if frames:
        trace.append(f"line {frames[-1].lineno}, in {frames[-1].name}{': ' if line else ''}{line}")
    reason = f"Your code raised {type(error).__name__}{': ' if text else ''}{text}"
    return Raised(reason, case=case.about, arguments=case.arguments, trace=tuple(trace))


def _does_nothing(function: Callable[..., Any]) -> bool:
    """Is the body only `pass` or `...`? Then a result of None means "not attempted", not "forgot the return"."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and {instruction.opname for instruction in dis.get_instructions(code)} <= _STUB_OPS


def _unchanged(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return before.shape == after.shape and torch.equal(before, after)
    if isinstance(before, nn.Module):
        old, new = before.state_dict(), after.state_dict()
        return old.keys() == new.keys() and all(_unchanged(old[key], new[key]) for key in old)
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(_unchanged, before, after))
    return bool(before == after)
