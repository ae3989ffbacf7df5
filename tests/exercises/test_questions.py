"""Every exercise of every chapter: the stub is not attempted, the solution passes, each wrong answer hears why."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest
import torch
from torch import nn

from prunelab import exercises
from prunelab.exercises.core import Question
from prunelab.exercises.outcome import Status

QUESTIONS = [
    pytest.param(question, id=f"{chapter}-{question.name}")
    for chapter in exercises.CHAPTERS
    for question in exercises.questions(chapter)
]
WRONG = [
    pytest.param(parameters.values[0], *entry, id=f"{parameters.id}-{number}")
    for parameters in QUESTIONS
    for number, entry in enumerate(parameters.values[0].material.wrong)
]


def run(question: Question, source: str) -> Any:
    """What a cell with this source makes of the answer's name, with the chapter's imports."""
    namespace: dict[str, Any] = {"torch": torch, "nn": nn}
    exec(compile(source, "<learner>", "exec"), namespace)
    return namespace[question.answer]


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_starter_is_not_attempted(question):
    attempts = question.progress.attempts
    verdict = question.check(run(question, question.starter))
    assert verdict.status is Status.NOT_ATTEMPTED
    assert not verdict
    assert question.progress.attempts == attempts


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_solution_passes_and_tells_the_takeaway(question):
    verdict = question.check(run(question, question.material.solution))
    assert verdict.status is Status.PASS, repr(verdict)
    assert verdict.message == question.material.takeaway
    assert verdict.arguments == {}


@pytest.mark.parametrize(("question", "source", "message"), WRONG)
def test_a_wrong_answer_hears_its_own_message(question, source, message):
    verdict = question.check(run(question, source))
    assert verdict.status in (Status.WRONG, Status.RAISED)
    assert re.search(message, verdict.message), repr(verdict)
    assert len(repr(verdict)) < 1500
    others = [pattern for _, pattern in question.material.wrong if pattern != message]
    assert not [pattern for pattern in others if re.search(pattern, verdict.message)], "no message is shared"


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_two_wrong_answers_share_their_expected_message(question):
    patterns = [pattern for _, pattern in question.material.wrong]
    assert len(patterns) == len(set(patterns)) >= 10


def expressions(source: str) -> set[str]:
    """The expressions of a source that give something away: calls and operations, as they are and without spaces."""
    kinds = (ast.Call, ast.BinOp, ast.Compare, ast.Subscript)
    found = {ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)}
    return {text.replace(" ", "") for text in found}


@pytest.mark.parametrize(("question", "source", "message"), WRONG)
def test_no_failure_gives_the_answer_away(question, source, message):
    verdict = question.check(run(question, source))
    told = (verdict.message + verdict.case + verdict.advice).replace(" ", "")
    known = question.task + question.starter  # what the task itself says is no secret
    secrets = {text for text in expressions(question.material.solution) if text not in known.replace(" ", "")}
    assert len(secrets) > 2
    assert not [secret for secret in secrets if secret in told]
    if question.kind == "recall":  # here the answer is numbers: none but the score may be told
        right = {str(number) for pair in run(question, question.material.solution).values() for number in pair}
        message = re.sub(r"^\d+ of \d+ rows are right\.", "", verdict.message)
        message = re.sub(r"`[^`]*`|(is|holds) the \w+ [^;]*;", "", message)
        assert not right & set(re.findall(r"\d+", message))


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_exercise_is_complete(question):
    assert question.name in question.cell
    assert question.cell.startswith(question.starter)
    assert ast.parse(question.cell)
    assert len(question.material.hints) >= 3
    assert question.material.solution not in repr(question) + question._repr_html_()
    for hint in question.material.hints:
        assert hint not in repr(question)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_check_leaves_the_learners_random_state_and_answer_alone(question):
    answer = run(question, question.material.solution)
    before = repr(answer)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    question.check(answer)
    assert torch.equal(torch.rand(3), expected)
    assert repr(answer) == before


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_default_device_of_the_learners_changes_nothing(question):
    answer = run(question, question.material.solution)
    with torch.device("meta"):
        assert question.check(answer)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(
    "answer", [3, "text", [], {}, object(), nn.Linear(2, 2), torch.zeros(3), lambda: 1, len, dict, 0.5, {"Weight": 1}]
)
def test_nonsense_is_wrong_and_never_an_error_of_the_checker(question, answer):
    verdict = question.check(answer)
    assert verdict.status in (Status.WRONG, Status.RAISED)
    assert "Traceback" not in repr(verdict)


@pytest.mark.parametrize(
    "result", [3, "text", [], {}, object(), nn.Linear(2, 2), torch.zeros(0), 0.5, float("nan"), True]
)
@pytest.mark.parametrize("question", [q for q in exercises.questions() if q.kind != "recall"], ids=lambda q: q.name)
def test_a_nonsense_result_is_wrong(question, result):
    verdict = question.check(lambda *arguments: result)
    assert verdict.status is Status.WRONG


def test_an_unknown_chapter_is_named():
    with pytest.raises(ValueError, match=r"no exercises for the chapter 'cooking'; there are for .*granularity"):
        list(exercises.questions("cooking"))
    with pytest.raises(AttributeError, match=r"its chapters are .*granularity"):
        _ = exercises.cooking
