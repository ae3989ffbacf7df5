"""Bad arguments say what is wrong and how to mend it; whatever fails, the model is as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunelab
from prunelab import Masks, criteria
from prunelab.surgery import NotEqual


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(8 * 16, 2)]
    return nn.Sequential(*layers)


def x() -> Tensor:
    return torch.randn(2, 3, 6, 6)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Every bit, mode, gradient and hook, and the state of chance, as before; the parameters the same objects."""
    model.train()
    next(iter(model.children())).eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    objects = {name: id(p) for name, p in model.named_parameters()}
    gradients = {name: id(p.grad) for name, p in model.named_parameters()}
    modes = {name: m.training for name, m in model.named_modules()}
    attributes = {name: sorted(vars(m)) for name, m in model.named_modules()}
    chance = torch.get_rng_state()
    yield
    assert torch.equal(chance, torch.get_rng_state())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) or value.isnan().any(), name
    assert {name: id(p) for name, p in model.named_parameters()} == objects
    assert {name: id(p.grad) for name, p in model.named_parameters()} == gradients
    assert {name: m.training for name, m in model.named_modules()} == modes
    assert {name: sorted(vars(m)) for name, m in model.named_modules()} == attributes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


MASK = torch.ones(8, 3, 3, 3, dtype=torch.bool)
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"sparsity": 1.5}, ValueError, r"sparsity=1\.5.*0 to 1"),
    ({"sparsity": -0.1}, ValueError, r"sparsity=-0\.1.*0 to 1"),
    ({"sparsity": float("nan")}, ValueError, r"sparsity=nan.*0 to 1"),
    ({"sparsity": "half"}, TypeError, r"sparsity.*0 to 1.*'half'"),
    ({"sparsity": True}, TypeError, r"sparsity.*0 to 1.*True"),
    ({"sparsity": torch.tensor(0.5)}, TypeError, r"sparsity.*tensor\(0\.5"),
    ({"sparsity": 0.5, "budget": ("macs", 0.5)}, ValueError, r"sparsity and budget.*give one"),
    ({"sparsity": 0.5, "masks": Masks({"0.weight": MASK})}, ValueError, r"sparsity and masks.*give one"),
    ({"masks": {"0.weight": MASK}}, TypeError, r"masks.*prunelab\.Masks, not dict.*prunelab\.prune"),
    ({"masks": Masks({"9.weight": MASK})}, ValueError, r"9\.weight.*another model"),
    ({"masks": Masks({"0.weight": MASK[:4]})}, ValueError, r"0\.weight.*\(4, 3, 3, 3\).*\(8, 3, 3, 3\)"),
    ({"budget": ("flops", 0.5)}, ValueError, r"'flops'.*\"macs\""),
    ({"budget": "macs"}, ValueError, r"'macs'.*\(\"macs\", 0\.5\)"),
    ({"budget": 0.5}, ValueError, r"budget=0\.5.*\(\"macs\", 0\.5\)"),
    ({"budget": ("macs", 1.5)}, ValueError, r"fraction=1\.5"),
    ({"budget": ("macs", "x")}, TypeError, r"fraction.*'x'"),
    ({"budget": ("macs", 0.0)}, ValueError, r"cannot be reached.*larger budget"),
    ({"sparsity": 0.5, "scope": "layer"}, ValueError, r"scope='layer'.*'local', 'global'"),
    ({"sparsity": 0.5, "scope": None}, ValueError, r"scope=None.*'local', 'global'"),
    ({"sparsity": 0.5, "aggregate": "median"}, ValueError, r"aggregate='median'.*'mean', 'sum', 'max'"),
    ({"sparsity": 0.5, "constants": "fold"}, ValueError, r"constants='fold'.*'keep', 'zero'"),
    ({"sparsity": 0.5, "multiple_of": 0}, ValueError, r"multiple_of=0.*at least 1"),
    ({"sparsity": 0.5, "multiple_of": 2.5}, ValueError, r"multiple_of=2\.5.*whole"),
    ({"sparsity": 0.5, "minimum": -1}, ValueError, r"minimum=-1.*at least 1"),
    ({"sparsity": 0.5, "minimum": True}, ValueError, r"minimum=True.*whole"),
    ({"sparsity": 0.5, "criterion": "l1"}, TypeError, r"criterion.*Magnitude.*'l1'"),
    ({"sparsity": 0.5, "criterion": criteria.Taylor()}, ValueError, r"Taylor.*data=.*loss="),
    (
        {"sparsity": 0.5, "criterion": criteria.GradientMagnitude(), "data": iter([]), "loss": print},
        TypeError, r"data.*more than once",
    ),
    ({"sparsity": 0.5, "exclude": "9"}, ValueError, r"'9'.*0\.weight"),
    ({"sparsity": 0.5, "exclude": [3]}, TypeError, r"exclude.*glob.*3"),
    ({"sparsity": 0.5, "exclude": 3}, TypeError, r"exclude.*3"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "kind", "words"), BAD, ids=lambda v: str(v)[:50] if isinstance(v, dict) else "")
def test_a_bad_argument(options: dict[str, Any], kind: type[Exception], words: str) -> None:
    model = network()
    given = x()
    with untouched(model), pytest.raises(kind, match=words):
        prunelab.shrink(model, given, **options)


@pytest.mark.parametrize("model", [3, None, nn.Linear, lambda x: x])
def test_what_is_no_module(model: Any) -> None:
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        prunelab.shrink(model, x(), sparsity=0.5)


@pytest.mark.parametrize(
    ("inputs", "kind", "words"),
    [
        ("text", TypeError, "example_inputs.*str"),
        (None, TypeError, "example_inputs.*None"),
        ((), TypeError, "argument"),
        ({"image": torch.zeros(2, 3, 6, 6)}, TypeError, "image"),
        (torch.zeros(0, 3, 6, 6), ValueError, r"no elements.*\(0, 3, 6, 6\).*at least one"),
        (torch.zeros(2, 3, 7, 7), RuntimeError, "shapes"),
        (torch.zeros(2, 4, 6, 6), RuntimeError, "channels"),
        (torch.zeros(2, 3, 6, 6, dtype=torch.int64), RuntimeError, "type"),
    ],
    ids=["text", "none", "empty", "keyword", "no elements", "size", "channels", "type"],
)
def test_inputs_that_do_not_fit(inputs: Any, kind: type[Exception], words: str) -> None:
    model = network()
    with untouched(model), pytest.raises(kind, match=words):
        prunelab.shrink(model, inputs, sparsity=0.5)


def test_numbers_of_numpy_are_numbers() -> None:
    model = network()
    for sparsity in (np.float32(0.5), np.float64(0.5)):
        small = prunelab.shrink(model, x(), sparsity=sparsity, multiple_of=np.int64(1), minimum=np.int32(1))
        assert small.model[0].out_channels == 4
    assert prunelab.shrink(model, x(), sparsity=1).model[0].out_channels == 1
    assert prunelab.shrink(model, x(), sparsity=0).model[0].out_channels == 8


def test_success_leaves_the_model_alone_too() -> None:
    model, given = network(), x()
    masks = Masks({"0.weight": MASK})
    masks["0.weight"]
    with untouched(model):
        prunelab.shrink(model, given, sparsity=0.5)
    with untouched(model):
        prunelab.shrink(model, given, masks=masks)
    with untouched(model):
        prunelab.shrink(model, given, budget=("params", 0.5), scope="global")
    with untouched(model):
        prunelab.shrink(
            model, given, sparsity=0.5, criterion=criteria.Taylor(), data=[(given, torch.tensor([0, 1]))],
            loss=nn.functional.cross_entropy,
        )  # fmt: skip


class RaisesLater(nn.Module):
    """Fails at the n-th call, in the middle of it."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.first, self.last, self.calls, self.at = nn.Linear(3, 8), nn.Linear(8, 2), [0], at

    def __deepcopy__(self, memo: Any) -> nn.Module:
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        for key, value in self.__dict__.items():
            new.__dict__[key] = value if key == "calls" else copy.deepcopy(value, memo)
        return new

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        self.calls[0] += 1
        if self.calls[0] >= self.at:
            raise ZeroDivisionError("on purpose")
        return self.last(y.relu())


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_model_that_raises_midway(at: int) -> None:
    """Its own error, or one that tells of it; with an error met only in the check, a network or none."""
    model = RaisesLater(at)
    given = torch.randn(2, 3)
    with untouched(model):
        if at == 1:
            with pytest.raises(ZeroDivisionError, match="on purpose"):
                prunelab.shrink(model, given, sparsity=0.5)
            return
        with suppress(ZeroDivisionError, NotEqual):
            assert prunelab.shrink(model, given, sparsity=0.5).model.first.out_features in (4, 8)


def test_a_criterion_that_raises() -> None:
    class Broken(criteria.Criterion):
        needs = frozenset({"weights"})

        def score(self, weights: Any, gradients: Any, statistics: Any) -> Tensor:
            raise ZeroDivisionError("on purpose")

    model, given = network(), x()
    with untouched(model), pytest.raises(ZeroDivisionError, match="on purpose"):
        prunelab.shrink(model, given, sparsity=0.5, criterion=Broken())


def test_a_loss_that_raises() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        raise ZeroDivisionError("on purpose")

    model, given = network(), x()
    with untouched(model), pytest.raises(ZeroDivisionError, match="on purpose"):
        prunelab.shrink(
            model, given, sparsity=0.5, criterion=criteria.GradientMagnitude(), loss=loss,
            data=[(given, torch.tensor([0, 1]))],
        )  # fmt: skip


def test_a_model_that_cannot_be_copied() -> None:
    class NoCopy(nn.Sequential):
        def __deepcopy__(self, memo: Any) -> nn.Module:
            raise OSError("a file handle")

    model, given = NoCopy(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 3)
    with untouched(model), pytest.raises(TypeError, match=r"NoCopy cannot be copied.*a file handle.*deepcopy"):
        prunelab.shrink(model, given, sparsity=0.5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_a_scripted_module_is_refused_by_name() -> None:
    model, given = nn.Sequential(nn.Linear(3, 8), torch.jit.script(nn.Linear(8, 2))), torch.randn(2, 3)
    with pytest.raises(TypeError, match=r"'1' is a TorchScript module.*script the result"):
        prunelab.shrink(model, given, sparsity=0.5)
    with pytest.raises(TypeError, match=r"the model is a TorchScript module"):
        prunelab.shrink(torch.jit.script(nn.Linear(3, 8)), given, sparsity=0.5)


def test_a_network_that_counts_its_channels() -> None:
    """What it computes depends on how many there are: kept, with a reason, or refused; never silently wrong."""

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x).relu()
            return self.last(y) * y.shape[-1]

    model, given = Counts(), torch.randn(2, 3)
    with untouched(model), suppress(NotEqual):
        small = prunelab.shrink(model, given, sparsity=0.5)
        assert small.model.first.out_features == 8
        assert "stay" in small.explain()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_types_modes_and_layouts(dtype: torch.dtype, mode: str, layout: Any, device: torch.device) -> None:
    model = network().to(device, dtype).to(memory_format=layout).train(mode == "train")
    model[0].requires_grad_(False)
    given = x().to(device, dtype).to(memory_format=layout)
    small = prunelab.shrink(model, given, sparsity=0.5)
    assert small.model[0].out_channels == 4
    assert {p.dtype for p in small.model.parameters()} == {dtype}
    assert {p.device.type for p in small.model.parameters()} == {device.type}
    assert all(m.training == (mode == "train") for m in small.model.modules())
    assert [p.requires_grad for p in small.model.parameters()] == [p.requires_grad for p in model.parameters()]
    assert small.model[0].weight.is_contiguous(memory_format=layout)
    assert small.check is not None
    assert small.check.holds
    with torch.no_grad():
        fresh = torch.randn_like(given)
        expected = small.plan.masked(model).eval()(fresh).double()
        found = small.model.eval()(fresh).double()
    assert float((found - expected).abs().max()) <= 32 * torch.finfo(dtype).eps * float(expected.abs().max())
