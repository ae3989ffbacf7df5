"""README and CONTRIBUTING: what they show is run, and comes out as they say."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_the_readmes_examples_print_what_the_readme_shows(tmp_path: Path) -> None:
    """The second goes on from the first, and leaves its files where it runs."""
    code = "".join(blocks(README, "python")[:2])
    shown = [part.split("```")[0] for part in README.split("prints\n\n```\n")[1:]]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120, cwd=tmp_path
    )
    assert len(shown) == 2
    assert done.stdout == "".join(shown)
    assert {path.name for path in tmp_path.iterdir()} == {"plan.json", "small.pt"}


def test_the_readmes_small_network_is_the_masked_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in blocks(README, "python")[:2]:
        exec(code, names)
    inputs = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    outputs = [names[name](inputs) for name in ("model", "again")] + [names["small"].model(inputs)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(outputs[1], outputs[2], rtol=0, atol=0)
    trained = {id(p) for group in names["optimizer"].param_groups for p in group["params"]}
    assert trained == {id(p) for p in names["small"].model.parameters()}


def test_the_readme_says_of_the_zoo_what_its_table_says() -> None:
    rows = json.loads((ROOT / "zoo" / "coverage.json").read_text())
    count, median = re.search(r"Of (\d+) architectures.*?lost\s+(\d+) %", README, re.DOTALL).groups()
    assert int(count) == len(rows)
    assert float(median) == pytest.approx(100 * statistics.median(row["removed"] for row in rows), abs=0.5)


def test_the_criterion_of_the_guide_works_as_it_says() -> None:
    import prunelab
    from prunelab.granularity import Filter

    names: dict = {}
    exec(blocks(CONTRIBUTING, "python")[0], names)
    weight = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    assert names["Spread"]().score(weight, None, None).tolist() == pytest.approx([2**0.5, 0.0])
    layer = torch.nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(weight)
    masks = prunelab.prune(layer, 0.5, criterion=names["Spread"](), granularity=Filter())
    assert masks["weight"].tolist() == [[True, True], [False, False]]
    with pytest.raises(ValueError, match="a unit has one"):
        prunelab.prune(layer, 0.5, criterion=names["Spread"]())


def test_the_readmes_gradual_pruning_ends_as_it_says(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in blocks(README, "python"):
        exec(code, names)
    last = capsys.readouterr().out.splitlines()[-1]
    removed, accuracy = map(float, re.fullmatch(r"([\d.]+) removed, accuracy ([\d.]+)", last).groups())
    assert removed == 0.9
    assert accuracy > 0.8


def test_the_rule_of_the_guide_works_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is needed: without it, the channels stay."""
    import prunelab
    from prunelab.surgery.rules import RULES

    names: dict = {"torch": torch, "prunelab": prunelab}
    exec(blocks(CONTRIBUTING, "python")[1], names)
    (test,) = re.findall(r"^   ```python\n(.*?)^   ```$", CONTRIBUTING, flags=re.MULTILINE | re.DOTALL)
    exec(textwrap.dedent(test), names)
    with pytest.raises(AssertionError):
        names["test_a_triangle"]()
    for name, rule in names["RULES"].items():
        monkeypatch.setitem(RULES, name, rule)
    names["test_a_triangle"]()


def test_the_exercise_of_the_guide_works_as_it_says() -> None:
    names: dict = {}
    exec(blocks(CONTRIBUTING, "python")[2], names)
    question = names["QUESTION"]

    def answer(source: str) -> object:
        given = {"torch": torch}
        exec(source, given)
        return given["sparsity"]

    assert "attempted" in repr(question.check(answer(names["STARTER"]))).lower()
    assert question.check(answer(names["SOLUTION"]))
    for wrong, message in names["WRONG"]:
        verdict = question.check(answer(wrong))
        assert not verdict
        assert re.search(message, repr(verdict))


def test_the_readme_says_of_speed_what_was_measured() -> None:
    measured = json.loads((ROOT / "benchmarks" / "results" / "magnitude-cpu.json").read_text())
    times, extra = re.search(r"about (\d+) times faster.*?peak of ([\d.]+) bytes", README, re.DOTALL).groups()
    assert float(times) == pytest.approx(measured["speedup_over_peer"]["median"], rel=0.15)
    assert float(extra) == pytest.approx(measured["extra_memory_in_weight_bytes"], abs=0.05)
    assert measured["bit_exact"]


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_no_placeholder_is_left(text: str) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    assert set(re.findall(r"\b[A-Z][A-Z_]{5,}\b", prose)) <= {"README", "CONTRIBUTING", "CHANGELOG", "LICENSE"}


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_path_that_is_named_exists(text: str) -> None:
    planned = {"prunelab/criteria/spread.py", "tests/criteria/test_spread.py", "book/methods/scope.md"}
    planned |= {"prunelab/exercises/granularity/sparsity.py", "prunelab/surgery/rules/triangles.py"}
    for path in re.findall(r"`((?:prunelab|book|tests|benchmarks|zoo)/[\w/.-]+)`", text):
        assert path in planned or (ROOT / path).exists(), path
    for path in re.findall(r"\]\(([\w/.-]+)\)", text):
        assert (ROOT / path).exists(), path
