"""What the code does in training mode only counts too: the smaller network is there to be trained further."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import prunelab


class Trained(nn.Module):
    """Two layers, and between them something that happens in training only."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.first, self.last = kind, nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        if self.training:
            h = self.in_training(h)
        result: Tensor = self.last(h)
        return result

    def in_training(self, h: Tensor) -> Tensor:
        if self.kind == "the first four":
            return torch.cat([h[:, :4] * 0.5, h[:, 4:]], 1)
        if self.kind == "noise of a literal size":
            return h * torch.rand(16)
        if self.kind == "a literal shape":
            return h.reshape(-1, 4, 4).flatten(1)
        if self.kind == "a mean":
            return h - h.mean(1, keepdim=True)
        return functional.dropout(h, 0.0, self.training)


def equal_in_training(model: nn.Module, x: Tensor) -> prunelab.Shrunk:
    small = prunelab.shrink(model, x, sparsity=0.5)
    masked = small.plan.masked(model).train()
    torch.testing.assert_close(small.model.train()(x), masked(x), rtol=1e-4, atol=1e-5)
    return small


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("kind", ["the first four", "a literal shape", "a mean"])
def test_what_happens_in_training_only_is_followed(kind: str, mode: bool) -> None:
    torch.manual_seed(0)
    equal_in_training(Trained(kind).train(mode), torch.randn(4, 6))


def test_what_would_fail_in_training_only_stays() -> None:
    model, x = Trained("noise of a literal size"), torch.randn(4, 6)
    small = prunelab.shrink(model, x, sparsity=0.5)
    assert small.model.first.out_features == 16
    assert small.model.train()(x).shape == (4, 3)


def test_dropout_keeps_nothing() -> None:
    assert equal_in_training(Trained("dropout"), torch.randn(4, 6)).model.first.out_features == 8


def test_a_model_that_cannot_be_run_in_training_mode() -> None:
    class Demanding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
            if self.training and targets is None:
                raise ValueError("in training mode, targets should be passed")
            result: Tensor = self.last(self.first(x).relu())
            return result

    assert prunelab.shrink(Demanding(), torch.randn(4, 6), sparsity=0.5).model.first.out_features == 8


def test_what_is_made_in_inference_mode_can_be_trained() -> None:
    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(3, 4)
    with torch.inference_mode():
        small = prunelab.shrink(model, torch.ones(3, 4), sparsity=0.5)
    small.model(x).sum().backward()
    assert all(parameter.grad is not None for parameter in small.model.parameters())
