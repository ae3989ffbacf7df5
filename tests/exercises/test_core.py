"""A question keeps count: what was tried, which hints are out, what was shown."""

from __future__ import annotations

import subprocess
import sys

import pytest

from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Status, Wrong

SOLUTION = "answer = 6 * 7\n\n# all of it"


def examine(answer):
    if answer != 42:
        raise Wrong("That is <b>not</b> it.", case="a case", arguments={"x": 1} if answer == 1 else {})


@pytest.fixture
def question():
    material = Material("answer = ...", ("first", "second", "third"), SOLUTION, "Well done.", ())
    return Question("q7", "recall", "The answer", "What is `6 * 7`?", "answer", material, examine)


def test_hints_come_one_by_one_and_say_how_many_are_left(question):
    notes = [repr(question.hint()) for _ in range(4)]
    assert [note.splitlines()[1] for note in notes] == ["first", "second", "third", "third"]
    assert [note.splitlines()[0] for note in notes] == [f"HINT {n} OF 3  ex.q7: The answer" for n in (1, 2, 3, 3)]
    assert [note.splitlines()[2] for note in notes[:2]] == ["2 hints left.", "1 hint left."]
    assert all("No hints left; `ex.q7.solution()` shows a solution." in note for note in notes[2:])
    assert question.progress.hints == 3


def test_a_hint_by_number_counts_as_used(question):
    assert question.hint(2).text == "second"
    assert question.progress.hints == 2
    assert question.hint(1).text == "first"
    assert question.hint().text == "third"


@pytest.mark.parametrize(("number", "error"), [(0, ValueError), (4, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError), (1.0, TypeError)])  # fmt: skip
def test_a_hint_that_does_not_exist_is_refused_and_not_counted(question, number, error):
    with pytest.raises(error, match=r"1 to 3"):
        question.hint(number)
    assert question.progress.hints == 0


def test_progress_goes_from_not_attempted_to_passed_and_stays(question):
    assert "State: not attempted." in repr(question)
    assert question.check(...).status is Status.NOT_ATTEMPTED
    assert question.check(None).status is Status.NOT_ATTEMPTED
    assert "State: not attempted." in repr(question)
    question.check(3)
    question.hint()
    assert "State: 1 attempt, hints used: 1." in repr(question)
    question.check(4)
    assert "State: 2 attempts, hints used: 1." in repr(question)
    assert question.check(42)
    question.check(3)
    question.solution()
    assert "State: passed, hints used: 1, solution shown." in repr(question)


def test_a_verdict_is_true_only_if_it_passed(question):
    assert [bool(question.check(answer)) for answer in (..., 3, 42)] == [False, False, True]
    assert repr(question.check(42)) == "PASS  ex.q7: The answer\nWell done."


def test_a_verdict_offers_what_is_left_to_try(question):
    assert repr(question.check(3)).endswith("Tried on: a case.\n`ex.q7.hint()` helps (3 hints left).")
    question.hint(3)
    assert repr(question.check(3)).endswith("`ex.q7.solution()` shows a solution.")
    assert "hint" not in repr(question.check(...)) + repr(question.check(42))


def test_the_call_that_failed_can_be_repeated(question):
    verdict = question.check(1)
    assert question.failed == verdict.arguments == {"x": 1}
    assert "`answer(*ex.q7.failed.values())` repeats this call." in repr(verdict)
    question.check(42)
    assert question.failed == {}
    assert "failed" not in repr(question.check(3))


def test_a_check_of_nothing_says_how_to_call(question):
    verdict = question.check()
    assert verdict.status is Status.NOT_ATTEMPTED
    assert "`ex.q7.check(answer)`" in verdict.message
    assert question.progress.attempts == 0


def test_the_solution_is_shown_on_request_only_and_runs(question):
    shown = repr(question) + question._repr_html_() + repr(question.material) + repr(question.check(3))
    assert "42" not in shown
    assert "all of it" not in shown
    solution = question.solution()
    assert "    answer = 6 * 7\n\n    # all of it" in repr(solution)
    assert "answer = 6 * 7\n\n# all of it</code></pre>" in solution._repr_html_()
    namespace: dict = {}
    exec(solution.text, namespace)
    assert namespace["answer"] == 42


def test_html_escapes_and_names_the_outcome_in_words(question):
    html = question.check(3)._repr_html_()
    assert "&lt;b&gt;not&lt;/b&gt;" in html
    assert "<b>" not in html
    assert 'role="status"' in html
    assert "<strong>Not right yet</strong>" in html
    assert "<strong>Pass</strong>" in question.check(42)._repr_html_()
    assert "<strong>Not attempted</strong>" in question.check(...)._repr_html_()


def test_a_notebook_gets_text_and_html_of_everything(question):
    formatters = pytest.importorskip("IPython.core.formatters")
    for shown in (question, question.check(3), question.hint(), question.solution()):
        data, _ = formatters.DisplayFormatter().format(shown)
        assert data["text/plain"] == repr(shown)
        assert data["text/html"].startswith("<div ")


def test_the_cell_is_the_stub_and_its_check(question):
    assert question.cell == "answer = ...\n\nex.q7.check(answer)"


def test_importing_the_exercises_loads_neither_torch_nor_numpy():
    code = (
        "import sys, prunelab.exercises, prunelab.exercises.core; from prunelab import exercises;"
        "assert not {'torch', 'numpy'} & set(sys.modules);"
        "from prunelab.exercises import granularity as ex; assert ex.q2.name == 'q2' and 'torch' in sys.modules;"
        "assert 'granularity' in dir(exercises)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
