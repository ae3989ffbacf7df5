"""Batch normalisation folded: the same function in float64, one layer less, and only where that is right."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunelab.surgery import NotEqual, fold_batch_norm


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics and scales that matter, some of them negative or zero; evaluation mode, float64."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.running_mean is not None and module.running_var is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.2, 3)
            if module.weight is not None:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
                with torch.no_grad():
                    module.weight[0] = 0
    return model.double().eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Conv2d(3, 4, 3), (2, 3, 6, 6)),
    (nn.Conv2d(3, 4, 3, bias=False, padding=1, stride=2), (2, 3, 6, 6)),
    (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 6, 6)),
    (nn.Conv2d(4, 8, 3, groups=4, bias=False), (2, 4, 6, 6)),
    (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (2, 3, 6, 6)),
    (nn.Conv1d(3, 4, 3), (2, 3, 6)),
    (nn.Conv3d(3, 4, 2), (2, 3, 4, 4, 4)),
    (nn.ConvTranspose2d(3, 4, 3), (2, 3, 6, 6)),
    (nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), (2, 4, 6, 6)),
    (nn.ConvTranspose2d(4, 4, 2, stride=2, groups=4), (2, 4, 6, 6)),
    (nn.ConvTranspose1d(4, 8, 3, groups=2), (2, 4, 6)),
    (nn.Linear(5, 4), (3, 5)),
    (nn.Linear(5, 4, bias=False), (3, 5)),
]


def norm_for(layer: nn.Module, dims: int, **options: bool) -> nn.Module:
    width = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[dims]
    return kind(width, **options)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda v: str(v) if isinstance(v, nn.Module) else "")
def test_every_layer_that_can_take_it_up(layer: nn.Module, shape: tuple[int, ...], affine: bool) -> None:
    layer = copy.deepcopy(layer)
    model = randomise(nn.Sequential(layer, norm_for(layer, len(shape), affine=affine), nn.ReLU()))
    before = copy.deepcopy(model.state_dict())
    folded = fold_batch_norm(model, torch.randn(shape, dtype=torch.float64))
    assert isinstance(folded[1], nn.Identity)
    x = torch.randn(shape, dtype=torch.float64) * 3
    torch.testing.assert_close(folded(x), model(x), rtol=1e-11, atol=1e-11)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_formula_by_hand() -> None:
    """y = γ (w x + b - μ) / sqrt(σ² + ε) + β with w 3, b 1, μ 5, σ² + ε 4, γ 8, β 2: 12 x - 14."""
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1, eps=0.0)).eval()
    for tensor, value in zip((*model[0].parameters(), *model[1].parameters(), model[1].running_mean,
                              model[1].running_var), (3, 1, 8, 2, 5, 4), strict=True):  # fmt: skip
        assert tensor is not None
        tensor.data.fill_(value)
    folded = fold_batch_norm(model, torch.randn(4, 1))
    assert folded[0].weight.item() == pytest.approx(12)
    assert folded[0].bias.item() == pytest.approx(-14)


class Body(nn.Module):
    """A convolution and a normalisation, used as a function says."""

    def __init__(self, body: Callable[..., object], **more: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.body = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), body
        for name, module in more.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> object:
        return self.body(self, x)


class Standardised(nn.Conv2d):
    """Convolution with standardised weights: what is multiplied is not the parameter."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        return functional.conv2d(x, (w - w.mean((1, 2, 3), keepdim=True)) / w.std((1, 2, 3), keepdim=True), self.bias)


def in_place(m: Body, x: Tensor) -> Tensor:
    y = m.conv(x)
    y += 1
    return m.norm(y)


STAYS: dict[str, Callable[[], nn.Module]] = {
    "two_readers": lambda: Body(lambda m, x: (lambda y: m.norm(y) + y)(m.conv(x))),
    "also_an_output": lambda: Body(lambda m, x: (lambda y: (m.norm(y), y))(m.conv(x))),
    "convolution_twice": lambda: Body(lambda m, x: m.norm(m.conv(m.conv(x)))),
    "norm_twice": lambda: Body(lambda m, x: m.norm(m.norm(m.conv(x)))),
    "norm_shared": lambda: Body(lambda m, x: m.norm(m.conv(x)) + m.norm(m.other(x)), other=nn.Conv2d(3, 3, 1)),
    "convolution_elsewhere": lambda: Body(lambda m, x: m.norm(m.conv(x)) + m.conv(x.flip(2))),
    "weight_elsewhere": lambda: Body(lambda m, x: m.norm(m.conv(x)) + functional.conv2d(x, m.conv.weight, padding=1)),
    "something_between": lambda: Body(lambda m, x: m.norm(m.conv(x).relu())),
    "in_place_between": lambda: Body(in_place),
    "part_of_it": lambda: Body(lambda m, x: m.norm(m.wide(x)[:, :3]), wide=nn.Conv2d(3, 5, 1)),
    "two_together": lambda: Body(
        lambda m, x: m.norm6(torch.cat([m.conv(x), m.other(x)], 1)),
        other=nn.Conv2d(3, 3, 1), norm6=nn.BatchNorm2d(6),
    ),
    "untracked": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
    "instance_norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True)),
    "derived_weight": lambda: nn.Sequential(Standardised(3, 4, 3), nn.BatchNorm2d(4)),
    "parametrised": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)
    ),
    "norm_first": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)),
}  # fmt: skip


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    "name",
    STAYS,
)  # fmt: skip
def test_what_must_not_be_folded_stays(name: str, verify: bool) -> None:
    model = randomise(STAYS[name]())
    folded = fold_batch_norm(model, torch.randn(2, 3, 6, 6, dtype=torch.float64), verify=verify)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-11, atol=1e-11)
    assert norms(folded) == norms(model)


def test_a_normalisation_over_another_dimension_stays() -> None:
    """Linear layers make the last dimension of (N, C, L), the normalisation runs over the middle one."""
    model = randomise(nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8)))
    x = torch.randn(2, 8, 5, dtype=torch.float64)
    folded = fold_batch_norm(model, x)
    assert norms(folded) == 1
    torch.testing.assert_close(folded(x), model(x))


def test_a_module_of_two_names() -> None:
    class Alias(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.layers = nn.Sequential(self.conv, self.norm)

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    model, x = randomise(Alias()), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(fold_batch_norm(model, x, verify=False)(x), model(x))


def test_a_weight_that_another_layer_shares_keeps_its_own() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.same = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(3, 4, 3, bias=False)
            self.same.weight, self.norm = self.conv.weight, nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x)) + self.same(x)

    model, x = randomise(Shared()), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(fold_batch_norm(model, x, verify=False)(x), model(x))


def test_modes_frozen_parameters_and_types() -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())).train()
    model[0].requires_grad_(False)
    folded = fold_batch_norm(model, torch.randn(2, 3, 6, 6, dtype=torch.float64))
    assert model.training
    assert not folded.training
    assert not folded[0].weight.requires_grad
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        low = copy.deepcopy(model).eval().to(dtype)
        x = torch.randn(2, 3, 6, 6, dtype=dtype)
        found = fold_batch_norm(low, x)
        assert {p.dtype for p in found.parameters()} == {dtype}
        scale = float(low(x).detach().abs().max())
        assert float((found(x) - low(x)).detach().abs().max()) <= 8 * torch.finfo(dtype).eps * max(scale, 1)


def test_a_fold_that_changed_the_outputs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = randomise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))), torch.randn(2, 3, 6, 6).double()
    before = copy.deepcopy(model.state_dict())
    monkeypatch.setattr("prunelab.surgery.folding._fold", lambda layer, norm: None)
    with pytest.raises(NotEqual, match="changed the outputs"):
        fold_batch_norm(model, x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
