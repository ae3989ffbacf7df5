"""APoZ against counting zeros in the network's own activations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import prunelab
from prunelab.criteria import APoZ
from prunelab.granularity import Filter, Weight


class Net(nn.Module):
    """A normalised convolution and a linear layer, both rectified; the head is not."""

    def __init__(self, rectify: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.fc, self.head, self.rectify = nn.Linear(4 * 16, 5), nn.Linear(5, 2), rectify
        self.norm.bias.data = torch.tensor([-10.0, -0.5, 0.5, 10.0])

    def forward(self, x: Tensor) -> Tensor:
        maps = self.rectify(self.norm(self.conv(x)))
        return self.head(self.rectify(self.fc(maps.flatten(1))))


def apoz(model: nn.Module, batches: list[Tensor], **options: object) -> dict[str, Tensor]:
    data = [(x, torch.zeros(len(x))) for x in batches]
    return prunelab.score(model, APoZ(), Filter(), data=data, **{"exclude": ["head.weight"], **options})


def test_zeros_are_counted_after_the_rectifier(device: torch.device) -> None:
    net, x = Net().to(device).train(), torch.randn(6, 1, 6, 6)
    found = apoz(net, [x])
    assert net.training
    net.eval()
    with torch.no_grad():
        maps = net.norm(net.conv(x.to(device))).relu()
        hidden = net.fc(maps.flatten(1)).relu()
    for name, zeros in (("conv.weight", (maps == 0).sum((0, 2, 3)) / 96), ("fc.weight", (hidden == 0).sum(0) / 6)):
        torch.testing.assert_close(found[name], 1 - zeros.double(), rtol=0, atol=1e-7)
    assert found["conv.weight"].tolist()[0] == 0
    assert found["conv.weight"].tolist()[-1] == 1


def test_by_hand() -> None:
    layer = nn.Linear(1, 3, bias=False)
    layer.weight.data = torch.tensor([[1.0], [-1.0], [0.0]])
    model = nn.Sequential(layer, nn.ReLU())
    found = apoz(model, [torch.tensor([[1.0], [2.0], [-3.0]]), torch.tensor([[4.0]])], exclude=None)
    assert found["0.weight"].tolist() == [0.75, 0.25, 0.0]  # positive for 3 of 4, for 1 of 4, for none
    masks = prunelab.prune(
        model, 1 / 3, criterion=APoZ(), granularity=Filter(), data=[(torch.ones(2, 1), torch.ones(2))]
    )
    assert masks["0.weight"].flatten().tolist() == [True, False, True]  # of equals the first goes first


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_batches_count_by_their_size(sizes: list[int]) -> None:
    net, x = Net(), torch.randn(sum(sizes), 1, 6, 6, generator=torch.Generator().manual_seed(1))
    together, split = apoz(net, [x]), apoz(net, list(x.split(sizes)))
    for name in together:  # another batch size may round a sum around zero the other way
        torch.testing.assert_close(split[name], together[name], rtol=0, atol=1 / x[:, 0].numel())


@pytest.mark.parametrize("rectify", [torch.relu, Tensor.relu_, F.relu6, nn.ReLU6(), F.hardswish, nn.ReLU(inplace=True)])
def test_every_way_to_rectify(rectify: Callable[[Tensor], Tensor]) -> None:
    assert apoz(Net(rectify), [torch.randn(6, 1, 6, 6)])["conv.weight"].tolist()[0] == 0


@pytest.mark.parametrize("rectify", [torch.tanh, F.gelu, nn.Identity(), lambda x: F.leaky_relu(x, 0.1)])
def test_where_nothing_is_zero_there_is_nothing_to_count(rectify: Callable[[Tensor], Tensor]) -> None:
    net = Net(rectify)
    with pytest.raises(ValueError, match=r"'conv.weight' is not followed directly by.*puts out zeros.*exclude="):
        apoz(net, [torch.randn(2, 1, 6, 6)])
    with pytest.raises(ValueError, match=r"the layer of 'head.weight' is not followed"):
        apoz(Net(), [torch.randn(2, 1, 6, 6)], exclude=None)
    with pytest.raises(RuntimeError):
        apoz(net, [torch.randn(2, 2, 6, 6)])
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_and_nan(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).to(dtype)
    model[0].weight.data, model[0].bias.data = torch.eye(2, dtype=dtype), torch.tensor([0.0, torch.nan], dtype=dtype)
    found = apoz(model, [torch.ones(3000, 2, dtype=dtype)], exclude=None)["0.weight"]  # more than bfloat16 can count
    assert found.tolist() == pytest.approx([1.0, torch.nan], nan_ok=True)


def test_only_filters_put_something_out() -> None:
    with pytest.raises(ValueError, match=r"APoZ has no meaning at the granularity Weight\(\).*Filter"):
        prunelab.score(Net(), APoZ(), Weight(), data=[(torch.ones(1, 1, 6, 6), torch.ones(1))])
    with pytest.raises(ValueError, match="APoZ needs data"):
        prunelab.score(Net(), APoZ(), Filter())
