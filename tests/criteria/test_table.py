"""Every cell of the table of criteria, proven for every criterion that the library exports.

Weights and gradients are direct arguments: change one, hold everything else, and the scores change exactly where the
table says so. Data are asked for end to end: refused without, and other data give other scores, exactly where it says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prunelab
from prunelab import criteria
from prunelab.criteria import Criterion, Evidence
from prunelab.criteria.evidence import gather
from prunelab.criteria.table import Row
from prunelab.granularity import Filter
from prunelab.targets import find_targets

ROWS = criteria.table().rows


def network() -> nn.Sequential:
    """Every layer has what some criterion asks for: maps, a batch normalisation and a rectifier."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def batches(seed: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    # A dark half of the images, so that not even counts and ranks agree between two draws.
    x = torch.randn(24, 2, 8, 8, generator=generator) * (1 + seed) - seed
    x[:, :, : 4 + seed, : 2 * seed] = 0
    return [(x, torch.randint(3, (24,), generator=generator))]


def watched(model: nn.Module) -> Criterion:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    movement = criteria.Movement()
    ((x, y),) = batches(5)
    with movement.watch(model, optimizer):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return movement


# Criteria that cannot be made without an argument, or that have to see something first.
MAKERS: dict[str, Callable[[nn.Module], Criterion]] = {
    "BatchNormScale": lambda model: criteria.BatchNormScale(batches(0)[0][0]),
    "Movement": watched,
    "OBD": lambda model: criteria.OBD({name: torch.rand_like(p) for name, p in model.named_parameters()}),
    "SynFlow": lambda model: criteria.SynFlow(batches(0)[0][0]),
}


def make(row: Row, model: nn.Module) -> Criterion:
    kind = getattr(criteria, row.criterion)
    return MAKERS[row.criterion](model) if row.criterion in MAKERS else kind()


def scores(criterion: Criterion, evidence: dict[str, Evidence]) -> Tensor:
    copies = {name: replace(one, weights=one.weights.clone()) for name, one in evidence.items()}
    return torch.cat([one.double() for one in criterion.scores(copies).values()])


def other(values: Tensor | None, like: Tensor) -> Tensor:
    """Values of the same shape that have nothing to do with these."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.criterion)
@pytest.mark.parametrize("argument", ["weights", "gradients"])
def test_the_scores_change_with_an_argument_exactly_where_the_table_says_so(row: Row, argument: str) -> None:
    model = network()
    criterion = make(row, model)
    evidence = gather(model, find_targets(model), criterion, Filter(), batches(0), F.cross_entropy)
    changed = {
        name: replace(one, **{argument: other(getattr(one, argument), one.weights)}) for name, one in evidence.items()
    }
    before, after = scores(criterion, evidence), scores(criterion, changed)
    assert not before.isnan().any()
    assert torch.equal(before, scores(criterion, evidence))  # nothing but the argument made the difference
    assert torch.equal(before, after) != getattr(row, argument)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.criterion)
def test_data_are_asked_for_and_change_the_scores_exactly_where_the_table_says_so(row: Row) -> None:
    model = network()
    criterion = make(row, model)
    first, second = (
        prunelab.score(model, criterion, Filter(), data=batches(seed), loss=F.cross_entropy) for seed in (0, 1)
    )
    changed = not all(torch.equal(first[name], second[name]) for name in first)
    assert changed == row.data
    if row.data:
        with pytest.raises(ValueError, match=f"{row.criterion} .*data="):
            prunelab.score(model, criterion, Filter(), loss=F.cross_entropy)
    else:
        without = prunelab.score(model, criterion, Filter())
        assert all(torch.equal(first[name], without[name]) for name in first)


def test_the_notes_table() -> None:
    assert [(row.title, row.weights, row.gradients, row.data) for row in ROWS[:5]] == [
        ("Weight Magnitude = Filter Norm", True, False, False),
        ("Filter Correlation", True, False, False),
        ("Gradient Magnitude", False, True, True),
        ("Taylor Expansion", True, True, True),
        ("Mutual Information", False, False, True),
    ]


def test_every_criterion_that_the_library_exports_has_one_row() -> None:
    exported = {
        name
        for name in criteria.__all__
        if isinstance(kind := getattr(criteria, name), type) and issubclass(kind, Criterion) and kind is not Criterion
    }
    assert sorted(row.criterion for row in ROWS) == sorted(exported)
    assert len({row.title for row in ROWS}) == len(ROWS)
    assert {row.criterion for row in ROWS if row.reads} >= set(MAKERS)  # what it is made with, or has seen
    assert all(row.weights or row.gradients or row.data or row.reads for row in ROWS), "it must depend on something"


class Mine(Criterion):
    needs = frozenset({"gradients"})
    reads = "the <moon>"

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        assert gradients is not None
        return gradients.sum(1)


def test_classes_of_your_own_come_last() -> None:
    found = criteria.table(Mine, Mine())
    assert found.rows[: len(ROWS)] == ROWS
    assert found.rows[-1] == found.rows[-2] == Row("Mine", "Mine", False, True, True, "the <moon>")
    assert found.to_dict()["Mine"] == {"weights": False, "gradients": True, "data": True}
    for wrong in (int, "Magnitude", None):
        with pytest.raises(TypeError, match=r"table\(\) shows criteria, classes that derive from"):
            criteria.table(wrong)  # type: ignore[arg-type]


def test_as_text() -> None:
    text = str(criteria.table(Mine))
    head, rule, *lines = text.splitlines()
    assert re.split(r" {2,}", head) == [
        "criterion",
        "depends on weights",
        "depends on gradients",
        "requires input data",
    ]
    assert set(rule) == {"-"}
    column = head.index("requires input data")
    for row, line in zip(criteria.table(Mine).rows, lines, strict=False):
        assert line.startswith(row.title)
        assert line[column:] == ("yes" if row.data else "no")
    note = lines[len(ROWS)].split("[")[1].split("]")[0]
    assert f"[{note}] depends on the <moon>" == lines[-1]
    assert repr(criteria.table(Mine)) == text


class Reader(HTMLParser):
    """The cells of a table, row by row, with the scope of each, and whether all tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[tuple[str | None, str]]] = []
        self.open: list[str] = []
        self.caption = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append((dict(attrs).get("scope"), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            scope, text = self.rows[-1][-1]
            self.rows[-1][-1] = scope, text + data
        if "caption" in self.open:
            self.caption += data


def test_as_a_page_that_a_screen_reader_can_read() -> None:
    found = criteria.table(Mine)
    reader = Reader()
    reader.feed(found._repr_html_())
    assert not reader.open
    assert reader.caption == "What the pruning criteria depend on"
    head, *body = reader.rows
    assert [scope for scope, _ in head] == ["col"] * 4
    assert all([scope for scope, _ in line] == ["row", None, None, None] for line in body)
    for row, line in zip(found.rows, body, strict=True):
        answers = [text for _, text in line[1:]]
        assert answers == ["yes" if value else "no" for value in (row.weights, row.gradients, row.data)]
    assert "the &lt;moon&gt;" in found._repr_html_()
    assert "<moon>" not in found._repr_html_()
