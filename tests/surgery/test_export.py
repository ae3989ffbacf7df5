"""The small network is an ordinary one: `torch.export` takes it, and what it exports computes the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import prunelab
from prunelab.lab import models

CASES = {
    "convolutions": (lambda: models.resnet20(width=0.25, seed=0), torch.randn(2, 1, 8, 8)),
    "attention": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 24, batch_first=True), 1),
        torch.randn(2, 5, 16),
    ),
    "recurrent": (lambda: Last(nn.GRU(4, 8, batch_first=True), nn.Linear(8, 3)), torch.randn(2, 5, 4)),
}


class Last(nn.Module):
    """The last state of a recurrent layer, classified."""

    def __init__(self, recurrent: nn.GRU, head: nn.Linear) -> None:
        super().__init__()
        self.recurrent, self.head = recurrent, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0][:, -1])


@pytest.mark.parametrize("name", CASES)
def test_the_small_network_exports(name: str) -> None:
    make, x = CASES[name]
    small = prunelab.shrink(make().eval(), x, sparsity=0.5)
    assert small.plan.params[1] < small.plan.params[0]
    exported = torch.export.export(small.model, (x,)).module()
    torch.testing.assert_close(exported(x), small.model(x), rtol=1e-5, atol=1e-6)
