"""Tickets on the disk: the same bits again, or a clear no."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from prunelab import Masks, criteria
from prunelab import granularity as of
from prunelab.lottery import Recipe, Ticket, find_ticket
from prunelab.lottery.files import read, write

DRAW = torch.Generator().manual_seed(5)
INPUTS = torch.randn(40, 6, generator=DRAW)
TARGETS = torch.randint(3, (40,), generator=DRAW)
RECIPE = Recipe(INPUTS, TARGETS, steps=8, batch_size=8, optimizer="adam", learning_rate=0.01)


def net(seed: int = 0) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def ticket(**settings: Any) -> Ticket:
    return find_ticket(net, RECIPE, **({"keep": 0.3, "rounds": 3, "rewind_to": 4, "seed": 2} | settings))


def same_tree(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same_tree(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same_tree, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    found = ticket()
    found.save(tmp_path / "one.ticket")
    again = Ticket.load(tmp_path / "one.ticket", net)
    assert (again.seed, again.granularity, again.settings) == (2, of.Weight(), found.settings)
    assert again.masks == found.masks
    assert list(again.masks) == list(found.masks)
    assert (again.whole, again.oneshot) == (found.whole, found.oneshot)
    assert [(a.number, a.keep, a.loss, a.masks) for a in again.rounds] == [
        (a.number, a.keep, a.loss, a.masks) for a in found.rounds
    ]
    assert same_tree(dict(again.initial), dict(found.initial))
    assert same_tree(again.start.optimizer, found.start.optimizer)
    assert same_tree(dict(again.model().state_dict()), dict(found.model().state_dict()))
    ours, theirs = found.model(), again.model()
    one = RECIPE.train(ours, found.masks, 2, resume=found.start)
    other = RECIPE.train(theirs, again.masks, 2, resume=again.start)
    assert same_tree(dict(one.weights), dict(other.weights))


def test_starts_of_single_rounds_are_saved(tmp_path: Path) -> None:
    found = ticket(rewind="learning rate")
    found.save(tmp_path / "one")
    again = Ticket.load(tmp_path / "one", net)
    for number in range(4):
        assert same_tree(dict(again.at(number).initial), dict(found.at(number).initial))


@pytest.mark.parametrize("granularity", [of.Weight(), of.Filter(), of.Group(2, 3), of.Kernel(), of.Layer()], ids=str)
def test_granularities_of_the_library_are_saved(granularity: of.Granularity, tmp_path: Path) -> None:
    found = dataclasses.replace(ticket(), granularity=granularity)
    found.save(tmp_path / "one")
    assert Ticket.load(tmp_path / "one", net).granularity == granularity


def test_one_of_the_users_own_is_not_code_in_the_file(tmp_path: Path) -> None:
    class Mine(of.Weight):
        pass

    dataclasses.replace(ticket(), granularity=Mine()).save(tmp_path / "one")
    assert Ticket.load(tmp_path / "one", net).granularity is None


OTHERS: dict[str, Any] = {
    "wider": lambda seed: nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 3)),
    "shorter": lambda seed: nn.Sequential(nn.Linear(6, 3)),
    "in float64": lambda seed: net().double(),
    "without statistics": lambda seed: nn.Sequential(nn.Linear(6, 8), nn.Identity(), nn.ReLU(), nn.Linear(8, 3)),
}


@pytest.mark.parametrize("make_model", OTHERS.values(), ids=OTHERS)
def test_a_ticket_of_another_network_is_refused(make_model: Any, tmp_path: Path) -> None:
    ticket().save(tmp_path / "one")
    with pytest.raises(ValueError, match=r"one' does not fit make_model: these weights belong to another model"):
        Ticket.load(tmp_path / "one", make_model)


def test_what_is_no_ticket_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one"
    with pytest.raises(FileNotFoundError, match="one' is not there"):
        Ticket.load(path, net)
    with pytest.raises(FileNotFoundError, match="a folder, not a file"):
        Ticket.load(tmp_path, net)
    path.write_bytes(b"not at all")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        Ticket.load(path, net)
    Masks({"0.weight": torch.ones(8, 6, dtype=torch.bool)}).save(path)
    with pytest.raises(ValueError, match=r"is not of the format prunelab\.ticket\.1, but prunelab\.masks\.1"):
        Ticket.load(path, net)
    save_file({}, path, {"format": "prunelab.ticket.1"})
    with pytest.raises(ValueError, match="is damaged"):
        Ticket.load(path, net)
    write(path, {"seed": 0}, "prunelab.ticket.1")
    with pytest.raises(ValueError, match="is damaged: 'shapes'"):
        Ticket.load(path, net)
    ticket().save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is not a safetensors file"):
        Ticket.load(path, net)


@pytest.mark.parametrize("field", ["seed", "masks", "rounds", "granularity", "rewound", "planned"])
def test_a_file_that_someone_has_changed(field: str, tmp_path: Path) -> None:
    path = tmp_path / "one"
    ticket().save(path)
    known = read(path, "prunelab.ticket.1")
    for wrong in ("?", {"kind": "Layout", "settings": {}}, 10**6):
        write(path, known | {field: wrong}, "prunelab.ticket.1")
        if (field, wrong) == ("seed", 10**6):
            assert Ticket.load(path, net).seed == wrong
            continue
        with pytest.raises(ValueError, match=r"damaged|does not exist|seed"):
            Ticket.load(path, net)


def test_where_a_ticket_cannot_be_saved(tmp_path: Path) -> None:
    found = ticket()
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        found.save(tmp_path / "no" / "one")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        found.save(tmp_path)


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, found = tmp_path / "one", ticket()
    found.save(path)
    before = path.read_bytes()

    def full(tensors: object, part: Path, metadata: object) -> None:
        part.write_bytes(b"half of")
        raise OSError("no space left on the device")

    monkeypatch.setattr("prunelab.lottery.files.save_file", full)
    with pytest.raises(OSError, match="no space left"):
        ticket(criterion=criteria.Random()).save(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["one"]


def test_an_optimizer_that_remembers_something_odd_is_refused(tmp_path: Path) -> None:
    found = ticket()
    odd = dataclasses.replace(found.rewound, optimizer={"state": {0: {"when": object()}}})
    with pytest.raises(TypeError, match=r"content\.rewound\.optimizer\.state\.0\.when is <object"):
        dataclasses.replace(found, rewound=odd).save(tmp_path / "one")
    assert not list(tmp_path.iterdir())


def test_anything_nested_comes_back_as_it_was(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    tree = {
        "a": [1, 2.5, None, True, "x", float("inf")],
        "b": {0: tensor.T, 1: (tensor, tensor), "": {}, "__metadata__": torch.tensor(3)},
        "c": (),
        "d": torch.empty(0, 4, dtype=torch.bfloat16),
        "e": [{"tensor": "0"}, {"dict": [1]}],
    }
    write(tmp_path / "tree", tree, "test")
    again = read(tmp_path / "tree", "test")
    assert same_tree(again, tree)
