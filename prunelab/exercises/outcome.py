"""What a check found: the four outcomes, as exceptions inside a check and as the `Verdict` that the learner sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from prunelab.exercises.rendering import Card

__all__ = ["Finding", "NotAttempted", "Raised", "Status", "Verdict", "Wrong"]


class Status(StrEnum):
    NOT_ATTEMPTED = "not attempted"
    RAISED = "raised an error"
    WRONG = "not right yet"
    PASS = "pass"


_TONES = {Status.NOT_ATTEMPTED: "calm", Status.RAISED: "error", Status.WRONG: "error", Status.PASS: "good"}


class Finding(Exception):
    """Ends a check. `reason` is a sentence to the learner; `case` says which call it was about.

    `arguments` are those of that call, so that the learner can repeat it; `trace` are lines of code shown as they are.
    """

    status: ClassVar[Status]

    def __init__(
        self, reason: str, *, case: str = "", arguments: Mapping[str, Any] | None = None, trace: tuple[str, ...] = ()
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.case = case
        self.arguments = dict(arguments or {})
        self.trace = trace


class NotAttempted(Finding):
    status = Status.NOT_ATTEMPTED


class Raised(Finding):
    status = Status.RAISED


class Wrong(Finding):
    status = Status.WRONG


@dataclass(frozen=True, repr=False)
class Verdict:
    """The outcome of one check. True exactly when the answer passed; shows itself as text or as HTML.

    `arguments` are those of the call that failed, by name; empty where no call was to blame.
    """

    status: Status
    question: str
    message: str
    case: str = ""
    trace: tuple[str, ...] = ()
    advice: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.status is Status.PASS

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return self._card().text()

    def _repr_html_(self) -> str:
        return self._card().html()

    def _card(self) -> Card:
        # The trace goes in as an indented block, which the card shows as code.
        trace = "\n".join(f"    {line}" for line in self.trace)
        paragraphs = (self.message, f"Tried on: {self.case}." if self.case else "", trace, self.advice)
        return Card(
            label=str(self.status),
            title=self.question,
            body="\n\n".join(paragraph for paragraph in paragraphs if paragraph),
            tone=_TONES[self.status],
            live=True,
        )
