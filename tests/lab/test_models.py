from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from prunelab.lab import models


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# Counted by hand. Convolution: out * in * k * k (+ out with a bias); BatchNorm: 2 * channels; linear: out * in + out.
LENET = (784 * 300 + 300) + (300 * 100 + 100) + (100 * 10 + 10)
LENET_DIGITS = (64 * 300 + 300) + (300 * 100 + 100) + (100 * 10 + 10)
CAFFE = (20 * 25 + 20) + (50 * 20 * 25 + 50) + (800 * 500 + 500) + (500 * 10 + 10)
CAFFE_8 = (20 * 9 + 20) + (50 * 20 * 9 + 50) + (200 * 500 + 500) + (500 * 10 + 10)
VGG = 9 * (64 + 64 * 64 + 64 * 128 + 128**2 + 128 * 256 + 256**2) + 2 * 2 * (64 + 128 + 256) + (256 * 10 + 10)
VGG_QUARTER = 9 * (16 + 16 * 16 + 16 * 32 + 32**2 + 32 * 64 + 64**2) + 2 * 2 * (16 + 32 + 64) + (64 * 10 + 10)
RESNET = (
    9 * (3 * 16 + 6 * 16 * 16 + 16 * 32 + 5 * 32 * 32 + 32 * 64 + 5 * 64 * 64)
    + 2 * (7 * 16 + 6 * 32 + 6 * 64)
    + (64 * 10 + 10)
)
PROJECTIONS = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda: models.lenet_300_100(), LENET),
        (lambda: models.lenet_300_100(64), LENET_DIGITS),
        (lambda: models.lenet5(), CAFFE),
        (lambda: models.lenet5(8), CAFFE_8),
        (lambda: models.vgg(), VGG),
        (lambda: models.vgg(width=0.25), VGG_QUARTER),
        (lambda: models.resnet20(3), RESNET),
        (lambda: models.resnet20(1), RESNET - 2 * 9 * 16),
        (lambda: models.resnet20(3, projection=True), RESNET + PROJECTIONS),
    ],
)
def test_parameters_are_those_counted_by_hand(make: Callable[[], nn.Module], parameters: int) -> None:
    assert count(make()) == parameters


def test_the_published_counts() -> None:
    assert (LENET, CAFFE, CAFFE_8, VGG, RESNET) == (266_610, 431_080, 114_760, 1_147_722, 269_722)
    assert (RESNET - 288, RESNET + PROJECTIONS, RESNET - 288 + PROJECTIONS) == (269_434, 272_474, 272_186)


MAKERS = [
    (lambda seed: models.lenet_300_100(64, seed=seed), (1, 8, 8)),
    (lambda seed: models.lenet_300_100(seed=seed), (1, 28, 28)),
    (lambda seed: models.lenet5(8, seed=seed), (1, 8, 8)),
    (lambda seed: models.lenet5(28, channels=3, seed=seed), (3, 28, 28)),
    (lambda seed: models.vgg(width=0.25, seed=seed), (1, 8, 8)),
    (lambda seed: models.vgg(3, width=0.25, seed=seed), (3, 28, 28)),
    (lambda seed: models.resnet20(width=0.5, seed=seed), (1, 8, 8)),
    (lambda seed: models.resnet20(3, seed=seed), (3, 32, 32)),
    (lambda seed: models.resnet20(projection=True, seed=seed), (1, 28, 28)),
]


@pytest.mark.parametrize(("make", "shape"), MAKERS)
def test_images_in_logits_out_and_every_weight_learns(
    make: Callable[[int], nn.Module], shape: tuple[int, ...], device: torch.device
) -> None:
    model = make(0).to(device)
    logits = model(torch.randn(4, *shape, device=device))
    assert logits.shape == (4, 10)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(("make", "shape"), MAKERS)
def test_a_seed_fixes_the_weights_and_nothing_else(make: Callable[[int | None], nn.Module], shape: object) -> None:
    state = torch.get_rng_state()
    one, same, other = make(1), make(1), make(2)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    torch.manual_seed(1)
    global_one = make(None)
    assert not torch.equal(state, torch.get_rng_state())  # without a seed, chance is torch's own
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), global_one.parameters(), strict=True))
    torch.set_rng_state(state)


def test_resnet20_has_twenty_weighted_layers_and_option_a_carries_the_input() -> None:
    model = models.resnet20()
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == 20
    block = models.BasicBlock(2, 4, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)  # the residual branch is then zero
    x = torch.rand(1, 2, 4, 4)
    out = block(x)
    assert torch.equal(out[:, :2], x[:, :, ::2, ::2])
    assert not out[:, 2:].any()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: models.lenet5(32), ValueError, "size=32.*vgg and resnet20"),
        (lambda: models.vgg(width=0), ValueError, "width=0 must be positive"),
        (lambda: models.resnet20(classes=-1), ValueError, "classes=-1 must be positive"),
        (lambda: models.lenet_300_100("784"), TypeError, "inputs='784' is a str"),
    ],
)
def test_errors_name_the_value(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
