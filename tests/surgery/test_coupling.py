"""Which channels form a group, and that tensors which one layer holds together are known by one row of channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import prunelab
from prunelab.surgery.coupling import couple
from zoo.architecture import images, randomise
from zoo.check import difference


def network(*after: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), *after, nn.Conv2d(8, 2, 1))
    randomise(model)
    return model.eval()


def test_what_a_normalisation_holds_shares_its_channels() -> None:
    coupling = couple(network(), images(9)(2))
    rows = [coupling.tensors[f"1.{name}"] for name in ("weight", "bias", "running_mean", "running_var")]
    assert all(row is rows[0] for row in rows)
    assert coupling.groups[0].members == (
        "0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "1.running_mean", "1.running_var"
    )  # fmt: skip
    assert coupling.groups[0].made_by == ("0.weight",)


def test_a_scale_of_zero_is_found_whatever_the_statistics_are() -> None:
    """Channel 5 is a constant: its shift, behind the rectifier."""
    model = network()
    with torch.no_grad():
        model[1].weight[5] = 0
    small = prunelab.shrink(model, images(9)(2))
    assert small.model[0].out_channels == 7
    assert difference(small.model, model, images(9)(3)) < 1e-6


def test_one_vector_in_two_normalisations_ties_them() -> None:
    model = network(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Tanh())
    model[4].weight = model[1].weight
    coupling = couple(model, images(9)(2))
    assert [group.made_by for group in coupling.groups] == [("0.weight", "3.weight")]


def test_one_vector_as_scale_and_as_shift() -> None:
    model = network()
    model[1].bias = model[1].weight
    small = prunelab.shrink(model, images(9)(2), sparsity=0.5)
    assert small.model[1].bias is small.model[1].weight
    assert small.model[1].num_features == 4
    assert difference(small.model, small.plan.masked(model), images(9)(3)) < 1e-6


class Slices(nn.Module):
    """Six slices of one layer's result, and each has a reader."""

    def __init__(self) -> None:
        super().__init__()
        self.maker, self.readers = nn.Linear(5, 18), nn.ModuleList(nn.Linear(3, 4) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 5) -> (N, 4)."""
        made = self.maker(x).relu()
        parts = (made[:, 3 * i : 3 * i + 3] for i in range(6))
        return torch.stack([reader(part) for reader, part in zip(self.readers, parts, strict=True)]).sum(0)


def test_groups_of_one_layer_stand_in_the_order_of_its_channels() -> None:
    groups = couple(Slices(), torch.randn(2, 5)).groups
    assert [group.members[-1] for group in groups] == [f"readers.{i}.weight" for i in range(6)]
