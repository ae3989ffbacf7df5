"""HRank against numpy's rank of the network's own feature maps, one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import prunelab
from prunelab.criteria import HRank
from prunelab.criteria.hrank import AverageRank
from prunelab.criteria.watching import Call
from prunelab.granularity import Filter, Kernel


class Net(nn.Module):
    """Two convolutions; the first is normalised and rectified, and then written to in place by what comes after."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm, self.b = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ConvTranspose2d(3, 2, 2)
        self.norm.bias.data = torch.tensor([-10.0, -0.4, 1.0])

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.relu(self.norm(self.a(x)))
        kept = maps * 1
        maps.zero_()
        return self.b(kept)


def hrank(model: nn.Module, batches: list[Tensor], **options: object) -> dict[str, Tensor]:
    return prunelab.score(model, HRank(), Filter(), data=[(x, torch.zeros(len(x))) for x in batches], **options)


def average_rank(maps: Tensor) -> list[float]:
    return [float(np.mean([np.linalg.matrix_rank(one) for one in channel.numpy()])) for channel in maps.transpose(0, 1)]


def test_the_average_rank_of_the_activated_maps(device: torch.device) -> None:
    net, x = Net().to(device).train(), torch.randn(5, 1, 6, 4)
    found = hrank(net, [x])
    assert net.training
    net.eval().cpu()
    with torch.no_grad():
        maps = net.norm(net.a(x)).relu()
        expected = {"a.weight": average_rank(maps), "b.weight": average_rank(net.b(maps))}
    assert {name: scores.tolist() for name, scores in found.items()} == expected
    assert expected["a.weight"][0] == 0 < expected["a.weight"][1] < expected["a.weight"][2]


def test_by_hand() -> None:
    layer = nn.Conv2d(1, 2, 1, bias=False)
    layer.weight.data = torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1)
    x = torch.stack([torch.eye(4), torch.ones(4, 4), torch.outer(torch.arange(4.0), torch.ones(4)) + torch.eye(4)[0]])
    assert hrank(layer, [x[:, None]])["weight"].tolist() == pytest.approx([(4 + 1 + 2) / 3, 0])
    assert hrank(layer, [x[:1]])["weight"].tolist() == [4, 0]  # one example without its batch dimension


def test_only_the_activated_maps_are_kept() -> None:
    kept: list[int] = []

    class Counted(AverageRank):
        def add(self, calls: Sequence[Call], examples: int) -> None:
            kept.extend(len(call.emitted) for call in calls)
            super().add(calls, examples)

    class Ranked(HRank):
        def probe(self) -> Counted:
            return Counted()

    prunelab.score(Net(), Ranked(), Filter(), data=[(torch.ones(2, 1, 4, 4), torch.zeros(2))])
    assert kept == [1, 1]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_batches_count_by_their_size(sizes: list[int]) -> None:
    net, x = Net(), torch.randn(sum(sizes), 1, 5, 5, generator=torch.Generator().manual_seed(1))
    together, split = hrank(net, [x]), hrank(net, list(x.split(sizes)))
    assert all(split[name].tolist() == pytest.approx(together[name].tolist()) for name in together)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rounding_errors_of_the_network_s_own_precision_do_not_count(dtype: torch.dtype) -> None:
    layer = nn.Conv2d(1, 1, 1, bias=False).to(dtype)
    layer.weight.data[:] = 1
    lines = torch.linspace(1, 2, 8, dtype=torch.float64), torch.linspace(1, 3, 8, dtype=torch.float64)
    product = torch.outer(*lines).to(dtype)  # of rank 1, but for its rounding
    assert hrank(layer, [product[None, None]])["weight"].tolist() == [1]
    step = torch.eye(8, dtype=dtype) * torch.linspace(1, 0.5, 8).to(dtype)
    assert hrank(layer, [step[None, None]])["weight"].tolist() == [8]


def test_a_map_that_is_not_finite_has_no_rank_and_no_say_over_the_others() -> None:
    layer = nn.Conv2d(1, 2, 1)
    layer.weight.data[:] = 0
    layer.weight.data[0], layer.bias.data = torch.nan, torch.tensor([0.0, 1.0])
    assert hrank(layer, [torch.ones(2, 1, 3, 3)])["weight"].tolist() == pytest.approx([torch.nan, 1], nan_ok=True)


def test_layers_without_maps_are_refused_with_the_way_out() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(18, 2))
    x = torch.randn(2, 1, 3, 3)
    with pytest.raises(ValueError, match=r"the layer of '2.weight' puts out no feature maps.*exclude="):
        hrank(model, [x])
    assert hrank(model, [x], exclude=["2.weight"])["0.weight"].tolist() == [3, 3]
    with pytest.raises(ValueError, match="puts out no feature maps"):
        hrank(nn.Conv1d(1, 2, 1), [torch.randn(2, 1, 3)])
    with pytest.raises(RuntimeError):
        hrank(model, [torch.randn(2, 2, 3, 3)])
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match=r"HRank has no meaning at the granularity Kernel\(\)"):
        prunelab.score(model, HRank(), Kernel(), data=[(x, torch.zeros(2))])
    with pytest.raises(ValueError, match="HRank needs data"):
        prunelab.score(model, HRank(), Filter())
