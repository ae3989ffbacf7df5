"""The copy that pruning builds on: what `copy.deepcopy` makes, with other tensors in some places."""

from __future__ import annotations

import copy
import copyreg
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunelab.anatomy import Anatomy
from prunelab.surgery.rebuild import copied


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.LSTM(2, 3))
        self.alias = self.inner[0]
        self.sizes, self.table, self.nested = (1, 2), {"a": 1}, {"b": {"c": [1, {"d": (2,)}]}}
        self.empty: dict[str, int] = {}
        self.also_empty = self.empty
        self.parents = {"me": self}  # a cycle
        self.tag = {1, 2}
        self.function = torch.relu
        self.tensor = torch.ones(2)
        self.register_forward_hook(_unchanged)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner[1](self.alias(x)) * self.tensor


def _unchanged(module: nn.Module, args: Any, output: Tensor) -> None:
    return None


def test_a_copy_is_a_deep_copy() -> None:
    model = Plain().eval()
    made, expected = copied(Anatomy(model)), copy.deepcopy(model)
    assert type(made) is Plain
    for mine, theirs, original in zip(made.modules(), expected.modules(), model.modules(), strict=True):
        assert mine is not original
        assert vars(mine).keys() == vars(theirs).keys()
        assert mine.training == theirs.training
    for (name, mine), (other, theirs) in zip(made.named_parameters(), expected.named_parameters(), strict=True):
        assert name == other
        assert type(mine) is nn.Parameter
        assert torch.equal(mine, theirs)
    originals = {t.data_ptr() for t in (*model.parameters(), *model.buffers(), model.tensor)}
    assert not originals & {t.data_ptr() for t in (*made.parameters(), *made.buffers(), made.tensor)}
    assert (made.sizes, made.table, made.nested, made.tag) == (model.sizes, model.table, model.nested, model.tag)
    assert made.nested["b"]["c"] is not model.nested["b"]["c"]
    assert made.alias is made.inner[0]
    assert made.parents["me"] is made
    assert made.empty is made.also_empty
    assert made.empty is not model.empty
    made.table["a"] = made.empty["new"] = 5
    made.register_forward_hook(_unchanged)
    assert (model.table, model.empty, len(model._forward_hooks)) == ({"a": 1}, {}, 1)
    x = torch.randn(1, 2, 2, 2)
    assert torch.equal(made(x), model(x))


def test_other_tensors_take_the_places_of_some() -> None:
    model = Plain()
    weight, mean = nn.Parameter(torch.zeros(2, 2, 1, 1)), torch.full((2,), 7.0)
    made = copied(Anatomy(model), {"inner.0.weight": weight, "inner.1.running_mean": mean})
    assert made.inner[0].weight is weight
    assert made.alias.weight is weight
    assert made.inner[1].running_mean is mean


class Several(nn.Module):
    """Tensors that share memory, in ways that a copy keeps."""

    def __init__(self) -> None:
        super().__init__()
        values, numbers = torch.randn(4, 3), torch.randn(3, dtype=torch.complex64)
        self.register_buffer("whole", values)
        self.register_buffer("also_whole", values.detach())
        self.register_buffer("part", values[1:3])
        self.register_buffer("turned", values.T)
        self.register_buffer("bits", values.view(torch.int32))
        self.register_buffer("negated", numbers.imag)
        self.register_buffer("conjugated", numbers.conj())
        self.register_buffer("numbers", numbers)
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("none", torch.zeros(0, 3))
        self.register_buffer("also_none", torch.zeros(0, 3))
        self.register_buffer("meta", torch.empty(2, device="meta"))
        self.register_buffer("sparse", torch.eye(3).to_sparse())
        self.trained = torch.randn(2, requires_grad=True)


@pytest.mark.parametrize("first", ["whole", "also_whole", "part", "turned", "bits", "conjugated", "negated", "numbers"])
def test_buffers_that_share_memory_share_it_in_the_copy(first: str) -> None:
    """Whichever is copied first; and what has memory of its own has its own."""
    model = Several()
    model._buffers = {first: model._buffers[first], **model._buffers}
    made, expected = copied(Anatomy(model)), copy.deepcopy(model)
    for name, mine in made.named_buffers():
        theirs, original = getattr(expected, name), getattr(model, name)
        assert (mine.dtype, mine.device, mine.layout) == (theirs.dtype, theirs.device, theirs.layout)
        assert (mine.is_conj(), mine.is_neg()) == (theirs.is_conj(), theirs.is_neg())
        if not mine.is_meta:
            assert torch.equal(mine.to_dense(), original.to_dense())
        if mine.layout == torch.strided:
            assert mine.stride() == theirs.stride()
    assert made.trained.requires_grad
    for copy_ in (made, expected):
        copy_.whole.zero_()
        copy_.numbers.zero_()
    shared = ("also_whole", "part", "turned", "bits", "conjugated", "negated")
    assert [bool(getattr(made, n).any()) for n in shared] == [bool(getattr(expected, n).any()) for n in shared]
    assert not made.part.any()
    assert model.whole.all()
    assert model.numbers.all()
    made.count += 1
    assert model.count == 7


class Own(nn.Linear):
    """Says itself how it is copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Own:
        made = Own(self.in_features, self.out_features)
        made.copied_by = "its own way"
        return made


class Stateful(nn.Linear):
    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "copied_by": "its own way"}


class Restored(nn.Linear):
    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.copied_by = "its own way"


class Dispatched(nn.Linear):
    pass


def _dispatch(module: Dispatched) -> Any:
    return _dispatched, (module.in_features, module.out_features)


def _dispatched(inputs: int, outputs: int) -> Dispatched:
    made = Dispatched(inputs, outputs)
    made.copied_by = "its own way"
    return made


class Instance(nn.Linear):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.__dict__["__deepcopy__"] = lambda memo: _dispatched(inputs, outputs)


@pytest.mark.parametrize("kind", [Own, Stateful, Restored, Dispatched, Instance])
def test_a_module_that_says_how_it_is_copied_is_copied_so(kind: type[nn.Module], monkeypatch: Any) -> None:
    monkeypatch.setitem(copyreg.dispatch_table, Dispatched, _dispatch)
    model = nn.Sequential(kind(2, 3), nn.ReLU())
    assert copied(Anatomy(model))[0].copied_by == copy.deepcopy(model)[0].copied_by == "its own way"
