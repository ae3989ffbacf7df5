"""The MONK's problems: the rules, the file format, and what is done where there are no files."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from prunelab.lab import data
from prunelab.lab.monks import TRAINING_SIZES, monks
from prunelab.lab.monks_recipes import RECIPES

ALL = list(itertools.product((1, 2, 3), (1, 2, 3), (1, 2), (1, 2, 3), (1, 2, 3, 4), (1, 2)))


def rule(problem: int, a: tuple[int, ...]) -> bool:
    a1, a2, _, a4, a5, _ = a
    if problem == 1:
        return a1 == a2 or a5 == 1
    if problem == 2:
        return sum(value == 1 for value in a) == 2
    return (a5 == 3 and a4 == 1) or (a5 != 4 and a2 != 3)


def decode(row: torch.Tensor) -> tuple[int, ...]:
    return tuple(int(part.argmax()) + 1 for part in row.split([3, 3, 2, 3, 4, 2]))


@pytest.mark.filterwarnings("ignore:the published training set")
@pytest.mark.parametrize("problem", [1, 2, 3])
def test_the_test_set_is_every_combination_with_its_label(problem: int) -> None:
    inputs, targets = data.monks(problem, download=False).test
    assert inputs.shape == (432, 17)
    assert inputs.dtype == torch.float32
    assert torch.equal(inputs.sum(1), torch.full((432,), 6.0))
    assert [decode(row) for row in inputs] == ALL
    assert targets.tolist() == [int(rule(problem, a)) for a in ALL]
    # The published shares of class 1: 50 %, 33 % (142 of 432) and 53 % (228).
    assert int(targets.sum()) == {1: 216, 2: 142, 3: 228}[problem]


@pytest.mark.parametrize(("problem", "size", "wrong"), [(1, 124, 0), (2, 169, 0), (3, 122, 6)])
def test_without_files_a_set_of_the_same_size_is_drawn_and_it_says_so(
    problem: int, size: int, wrong: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRUNELAB_DATA", raising=False)
    with pytest.warns(UserWarning, match=rf"training set of MONK-{problem} was not found.*monks-{problem}\.train"):
        drawn = monks(problem, download=False)
    inputs, targets = drawn.train
    rows = [decode(row) for row in inputs]
    assert len(rows) == len(set(rows)) == size == TRAINING_SIZES[problem]
    assert sum(int(rule(problem, a)) != int(t) for a, t in zip(rows, targets, strict=True)) == wrong
    assert not drawn.original
    assert repr(drawn) == f"Monks(MONK-{problem}: train {size}, test 432; {drawn.source})"
    with pytest.warns(UserWarning, match="drawn"):
        assert torch.equal(monks(problem, download=False).train[0], inputs)  # always the same


@pytest.mark.parametrize("folder", ["", "monks"])
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_ucis_files_are_read(folder: str, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "monks-2.train").write_text(" 1 1 2 1 3 4 2 data_5\n\n 0 3 3 2 1 1 1 data_6\n")
    monkeypatch.delenv("PRUNELAB_DATA", raising=False)
    if by == "environment":
        monkeypatch.setenv("PRUNELAB_DATA", str(tmp_path))
    found = monks(2, tmp_path if by == "argument" else None)
    assert found.original
    assert found.source == "UCI's file monks-2.train"
    assert [decode(row) for row in found.train[0]] == [(1, 2, 1, 3, 4, 2), (3, 3, 2, 1, 1, 1)]
    assert found.train[1].tolist() == [1, 0]


@pytest.mark.parametrize("line", ["2 1 1 1 1 1 1 x", "1 4 1 1 1 1 1 x", "1 1 1 0 1 1 1 x", "1 1 1 1 1 1", "a b", "1,2"])
def test_a_line_in_another_format_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "monks-1.train").write_text(f" 1 1 1 1 1 1 1 data_1\n{line}\n")
    with pytest.raises(ValueError, match=r"monks-1\.train, line 2: .*class a1 a2 a3 a4 a5 a6 id"):
        monks(1, tmp_path)


@pytest.mark.parametrize("problem", [0, 4, True, "1", None])
def test_there_are_three_problems(problem: Any) -> None:
    with pytest.raises(ValueError, match="are 1, 2 and 3"):
        monks(problem)


def from_openml(rows: list[tuple[tuple[int, ...], int]]) -> Any:
    """What fetch_openml gives: nominal columns, as strings."""
    frame = pd.DataFrame([a for a, _ in rows], columns=[f"attr{i}" for i in range(1, 7)]).astype(str)
    return SimpleNamespace(data=frame, target=pd.Series([str(label) for _, label in rows]))


def test_openmls_mixture_of_both_parts_gives_the_training_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = [(a, int(rule(3, a))) for a in ALL[::4]] + [(a, int(not rule(3, a))) for a in ALL[1:57:4]]
    training = training[:122]
    everything = training + [(a, int(rule(3, a))) for a in ALL]
    asked: dict[str, Any] = {}

    def fetch(name: str, **options: Any) -> Any:
        asked.update(options, name=name)
        return from_openml(everything)

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    found = monks(3, tmp_path)
    assert found.original
    assert found.source == "OpenML's monks-problems-3"
    assert asked["name"] == "monks-problems-3"
    assert asked["data_home"] == str(tmp_path)
    rows = [(decode(row), int(t)) for row, t in zip(*found.train, strict=True)]
    assert sorted(rows) == sorted(training)


@pytest.mark.parametrize("trouble", ["no network", "another table", "not numbers"])
def test_what_openml_cannot_give_is_drawn(trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, **options: Any) -> Any:
        if trouble == "no network":
            raise OSError("unreachable")
        if trouble == "another table":
            return from_openml([(a, 1) for a in ALL])
        return SimpleNamespace(data=pd.DataFrame({"attr1": ["x"]}), target=pd.Series(["0"]))

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    with pytest.warns(UserWarning, match="was not found"):
        assert not monks(1, tmp_path).original


def test_recipes_have_the_papers_sizes_and_count_an_output_on_the_boundary_as_wrong() -> None:
    assert {p: sum(w.numel() for w in r.network().parameters()) for p, r in RECIPES.items()} == {1: 58, 2: 39, 3: 39}
    inputs, targets = torch.zeros(4, 17), torch.tensor([0, 1, 0, 1])
    for recipe in RECIPES.values():
        model = recipe.network()
        for weight in model.parameters():
            weight.data.zero_()
        assert recipe.correct(model, (inputs, targets)) == 0
        model[2].bias.data.fill_(1e-9)
        assert recipe.correct(model, (inputs, targets)) == 2
    state = torch.get_rng_state()
    first, same, other = (RECIPES[1].network(seed)[0].weight for seed in (3, 3, 4))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
