"""The batch normalisation's scale: found behind every layer, wherever the network applies it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prunelab
from prunelab.criteria import BatchNormScale
from prunelab.granularity import Filter, Weight
from prunelab.lab.models import resnet20


class Net(nn.Module):
    """Layers named in another order than they run, normalised by modules and by functions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.n3, self.n1, self.n2 = nn.BatchNorm1d(4), nn.BatchNorm2d(2), nn.BatchNorm2d(3)
        self.c2, self.c1, self.fc = nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(1, 2, 3), nn.Linear(3, 4)
        self.gamma = nn.Parameter(torch.randn(5))
        self.c4 = nn.Conv1d(4, 5, 1)
        for norm in (self.n1, self.n2, self.n3):
            norm.weight.data = torch.randn(norm.num_features)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.n1(self.c1(x)))
        x = self.n2(F.relu(self.c2(x)))  # the activation function may come first
        x = self.n3(self.fc(x.mean((2, 3))))
        return self.normalised(self.c4(x[..., None]))

    def normalised(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, torch.zeros(5), torch.ones(5), self.gamma)


class Other(Net):
    def normalised(self, x: Tensor) -> Tensor:
        return torch.batch_norm(x, self.gamma, None, torch.zeros(5), torch.ones(5), False, 0.1, 1e-5, False)


@pytest.mark.parametrize("kind", [Net, Other])
def test_the_scale_of_what_follows_and_not_of_what_stands_nearby(kind: type[Net]) -> None:
    net, x = kind().train(), torch.randn(1, 1, 4, 4)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = prunelab.score(net, BatchNormScale(x), Filter())
    expected = {"c1": net.n1.weight, "c2": net.n2.weight, "fc": net.n3.weight, "c4": net.gamma}
    assert {name: scores.tolist() for name, scores in found.items()} == {
        f"{name}.weight": expected[name].abs().tolist() for name in ("c2", "c1", "fc", "c4")
    }
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_the_values_of_the_inputs_and_their_form_do_not_matter(device: torch.device) -> None:
    net = Net().to(device)
    ways: list[Any] = [torch.zeros(1, 1, 4, 4), (torch.randn(3, 1, 4, 4),), {"x": torch.full((2, 1, 5, 5), torch.nan)}]
    net.n3.running_mean[:] = 0
    if device.type == "cuda":
        net.normalised = lambda x: nn.functional.batch_norm(
            x, torch.zeros(5, device=device), torch.ones(5, device=device), net.gamma
        )
    scores = [prunelab.score(net, BatchNormScale(way), Filter()) for way in ways]
    assert all(torch.equal(scores[0][name], other[name]) for other in scores[1:] for name in scores[0])


def test_the_smallest_scales_of_the_whole_network_go() -> None:
    net = resnet20(seed=0)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for index, norm in enumerate(norms):
        norm.weight.data = torch.randn(norm.num_features, generator=torch.Generator().manual_seed(index))
    criterion = BatchNormScale(torch.zeros(1, 1, 16, 16))
    masks = prunelab.prune(
        net, 0.1, criterion=criterion, granularity=Filter(), scope="local", exclude=["fc.weight"], apply=False
    )
    convolutions = [name for name in masks if name.endswith(".weight")]
    assert len(convolutions) == len(norms)
    for name, norm in zip(convolutions, norms, strict=True):
        kept = masks[name].flatten(1).all(1)
        assert norm.weight[~kept].abs().max() < norm.weight[kept].abs().min()


def test_a_filter_without_a_scale_is_refused_with_the_way_out() -> None:
    x = torch.zeros(2, 1, 4, 4)
    for after, reason in (
        ([], "is not followed directly by a batch normalisation"),
        ([nn.MaxPool2d(2), nn.BatchNorm2d(2)], "is not followed directly"),
        ([nn.BatchNorm2d(2, affine=False)], r"without a scale \(affine=False\)"),
        ([nn.GroupNorm(1, 2)], "is not followed directly"),
    ):
        model = nn.Sequential(nn.Conv2d(1, 2, 3), *after)
        with pytest.raises(ValueError, match=rf"the layer of '0.weight' .*{reason}.*exclude="):
            prunelab.score(model, BatchNormScale(x), Filter())
        assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match=r"no meaning at the granularity Weight\(\)"):
        prunelab.score(Net(), BatchNormScale(x), Weight())
    with pytest.raises(RuntimeError):
        prunelab.score(Net(), BatchNormScale(torch.zeros(2, 2, 4, 4)), Filter())


def test_a_layer_that_runs_several_times_needs_one_scale() -> None:
    class Twice(nn.Module):
        def __init__(self, *norms: nn.Module) -> None:
            super().__init__()
            self.conv, self.norms = nn.Conv2d(1, 1, 1), nn.ModuleList(norms)

        def forward(self, x: Tensor) -> Tensor:
            for norm in self.norms:
                x = norm(self.conv(x))
            return x

    same, other = nn.BatchNorm2d(1), nn.BatchNorm2d(1)
    other.weight.data += 1
    criterion = BatchNormScale(torch.zeros(1, 1, 2, 2))
    assert prunelab.score(Twice(same, same), criterion, Filter())["conv.weight"].tolist() == [1]
    with pytest.raises(ValueError, match=r"'conv.weight' runs several times.*exclude="):
        prunelab.score(Twice(same, other), criterion, Filter())
    with pytest.raises(ValueError, match="is not followed directly"):
        prunelab.score(Twice(same, nn.Identity()), criterion, Filter())
