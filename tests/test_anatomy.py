"""A model taken apart: what PyTorch's own generators say, for shared, nested and missing parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunelab.anatomy import Anatomy


class Shared(nn.Module):
    """A module under two names, a parameter in two modules, a buffer under two names, and parts that are None."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3, bias=False)))
        self.again = self.first[1]
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.first[0].weight
        self.missing = None
        self.register_module("none", None)
        self.register_parameter("nothing", None)
        self.register_buffer("empty", None)
        self.register_buffer("mean", self.first[1][0].running_mean)
        self.scale = nn.Parameter(torch.ones(1))
        self.cache = {"cpu": torch.ones(2), "none": None, "sizes": (1, 2)}
        self.pair = [torch.zeros(1), (torch.zeros(2),)]
        self.same = self.first[0].weight  # a parameter is no other tensor


MODELS = {
    "shared": Shared,
    "deep": lambda: nn.Sequential(*[nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))) for _ in range(3)]),
    "one layer": lambda: nn.Linear(2, 3),
    "nothing": nn.Identity,
    "a list": lambda: nn.ModuleList([nn.Linear(1, 1), nn.ModuleDict({"a": nn.Linear(1, 2)})]),
    "recurrent": lambda: nn.LSTM(3, 4, num_layers=2),
}  # fmt: skip


def same(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    assert all(found[name] is expected[name] for name in expected)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_modules_parameters_and_buffers_are_those_of_pytorch(make) -> None:
    model = make()
    anatomy = Anatomy(model)
    same(anatomy.modules, dict(model.named_modules()))
    same(anatomy.parameters, dict(model.named_parameters()))
    same(anatomy.buffers, dict(model.named_buffers()))


def test_every_parameter_of_every_module() -> None:
    model = Shared()
    names = [name for name, _ in Anatomy(model).every_parameter()]
    assert [name for name in names if name in ("first.0.weight", "tied.weight")] == ["first.0.weight", "tied.weight"]
    assert not any(name.startswith("again") for name in names)  # a module is there once


def test_other_tensors_are_named_as_code_reaches_them() -> None:
    model = Shared()
    others = Anatomy(model).others
    assert list(others) == ["cache['cpu']", "pair[0]", "pair[1][0]"]
    assert others["pair[1][0]"] is model.pair[1][0]
    assert Anatomy(model).tensors.keys() == {*dict(model.named_parameters()), *dict(model.named_buffers()), *others}
