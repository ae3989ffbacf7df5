"""A question: its task, a check of the answer, hints one at a time, a solution on request, and how far one has come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prunelab.exercises.outcome import Finding, NotAttempted, Status, Verdict
from prunelab.exercises.rendering import Card

__all__ = ["Material", "Note", "Progress", "Question"]

Kind = Literal["recall", "code", "investigate"]
_NOTHING = object()  # `check()` without an answer, which may be anything


@dataclass(frozen=True, repr=False)
class Material:
    """What an exercise is made of; a question's `repr` shows none of it but the stub.

    starter: the stub that the chapter shows. hints: from a nudge to nearly all. solution: an answer that passes.
    takeaway: what to remember, told once the answer passes.
    wrong: answers to reject, each with a regular expression that matches the message it must get.
    """

    starter: str
    hints: tuple[str, ...]
    solution: str
    takeaway: str
    wrong: tuple[tuple[str, str], ...]


@dataclass
class Progress:
    """How far the learner has come. `attempts` are checks of an answer that was more than the stub."""

    attempts: int = 0
    hints: int = 0
    solution_shown: bool = False
    passed: bool = False

    def __str__(self) -> str:
        tried = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        state = "passed" if self.passed else tried if self.attempts else "not attempted"
        hints = f", hints used: {self.hints}" if self.hints else ""
        return f"{state}{hints}{', solution shown' if self.solution_shown else ''}"


@dataclass(frozen=True, repr=False)
class Note:
    """A hint or a solution, shown as text or as HTML. `text` is what it says; a solution's can be run as it is."""

    label: str
    question: str
    text: str
    advice: str = ""
    is_code: bool = False

    def __repr__(self) -> str:
        return self._card().text()

    def _repr_html_(self) -> str:
        return self._card().html()

    def _card(self) -> Card:
        text = (
            "\n".join(f"    {line}" if line else "" for line in self.text.splitlines()) if self.is_code else self.text
        )
        return Card(self.label, self.question, f"{text}\n\n{self.advice}".rstrip(), live=True)


@dataclass(repr=False, eq=False)
class Question:
    """One exercise of a chapter.

    name: as the chapter calls it ("q2"). answer: the name of the function or value that `check` wants.
    examine: gets the answer and returns if it is right, else raises a `Finding`. It never changes the answer.
    failed: the arguments of the call that the last check failed on, by the task's names for them. To repeat it:
        `my_function(*ex.q2.failed.values())`, whatever one's own function calls its parameters.
    """

    name: str
    kind: Kind
    title: str
    task: str
    answer: str
    material: Material
    examine: Callable[[Any], None]
    progress: Progress = field(default_factory=Progress, init=False)
    failed: Mapping[str, Any] = field(default_factory=dict, init=False)

    @property
    def starter(self) -> str:
        """The stub, as the chapter shows it."""
        return self.material.starter

    @property
    def cell(self) -> str:
        """The chapter's cell: the stub and the line that checks it."""
        return f"{self.starter}\n\n{self._check}"

    def check(self, answer: Any = _NOTHING) -> Verdict:
        """Try the answer. The verdict is true if it passes, and otherwise says what is wrong and on which input."""
        try:
            if answer is _NOTHING:
                raise NotAttempted(f"There is nothing to check yet. Hand over your answer: `{self._check}`.")
            if answer is None or answer is Ellipsis:
                raise NotAttempted("The answer is still the stub. Replace the `...` and run it again.")
            self.examine(answer)
        except Finding as finding:
            return self._verdict(finding)
        self.failed = {}
        self.progress.attempts += 1
        self.progress.passed = True
        return Verdict(Status.PASS, self._heading, self.material.takeaway)

    def hint(self, number: int | None = None) -> Note:
        """The next hint, or hint `number` (from 1). Once all are out, the last one again."""
        hints = self.material.hints
        if number is None:
            number = min(self.progress.hints + 1, len(hints))
        elif isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"hint({number!r}): a hint is called by its number, 1 to {len(hints)}")
        elif not 1 <= number <= len(hints):
            raise ValueError(f"hint({number}): {self._call} has the hints 1 to {len(hints)}")
        self.progress.hints = max(self.progress.hints, number)
        left = len(hints) - self.progress.hints
        advice = f"{_count(left)} left." if left else f"No hints left; `{self._call}.solution()` shows a solution."
        return Note(f"hint {number} of {len(hints)}", self._heading, hints[number - 1], advice)

    def solution(self) -> Note:
        """A solution to read, run and compare; there are others."""
        self.progress.solution_shown = True
        return Note("one solution", self._heading, self.material.solution, is_code=True)

    def __repr__(self) -> str:
        return self._card().text()

    def _repr_html_(self) -> str:
        return self._card().html()

    @property
    def _call(self) -> str:
        return f"ex.{self.name}"

    @property
    def _check(self) -> str:
        return f"{self._call}.check({self.answer})"

    @property
    def _heading(self) -> str:
        return f"{self._call}: {self.title}"

    def _card(self) -> Card:
        calls = f"`{self._check}`, `{self._call}.hint()`, `{self._call}.solution()`"
        return Card(self.kind, self._heading, f"{self.task}\n\nState: {self.progress}. {calls}")

    def _verdict(self, finding: Finding) -> Verdict:
        self.failed = finding.arguments
        if not isinstance(finding, NotAttempted):
            self.progress.attempts += 1
        return Verdict(
            finding.status,
            self._heading,
            finding.reason,
            case=finding.case,
            trace=finding.trace,
            advice="" if isinstance(finding, NotAttempted) else self._advice(),
            arguments=finding.arguments,
        )

    def _advice(self) -> str:
        repeat = f"`{self.answer}(*{self._call}.failed.values())` repeats this call. " if self.failed else ""
        left = len(self.material.hints) - self.progress.hints
        if left:
            return f"{repeat}`{self._call}.hint()` helps ({_count(left)} left)."
        return f"{repeat}`{self._call}.solution()` shows a solution."


def _count(hints: int) -> str:
    return "1 hint" if hints == 1 else f"{hints} hints"
