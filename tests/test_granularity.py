"""Granularities against what the layers compute: a unit is right if it is what one channel of the layer depends on."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from prunelab.granularity import Channel, Filter, Granularity, Group, Kernel, Layer, Layout, Weight
from prunelab.targets import find_targets

LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (6,)),
    "conv1d": (lambda: nn.Conv1d(6, 4, 3), (6, 5)),
    "conv2d": (lambda: nn.Conv2d(6, 4, (3, 2)), (6, 5, 5)),
    "conv2d grouped": (lambda: nn.Conv2d(6, 4, 3, groups=2), (6, 5, 5)),
    "conv2d depthwise": (lambda: nn.Conv2d(6, 12, 3, groups=6), (6, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(4, 6, 2, groups=2), (4, 3, 3, 3)),
    "conv1d transposed": (lambda: nn.ConvTranspose1d(6, 4, 3), (6, 5)),
    "conv2d transposed": (lambda: nn.ConvTranspose2d(6, 4, 3), (6, 5, 5)),
    "conv2d transposed grouped": (lambda: nn.ConvTranspose2d(6, 4, 3, groups=2), (6, 5, 5)),
    "conv3d transposed": (lambda: nn.ConvTranspose3d(4, 6, 2, groups=2), (4, 3, 3, 3)),
}
GRANULARITIES = [Weight(), Group(1, 4), Group(2, 3), Group(3, 100), Kernel(), Filter(), Channel(), Layer()]


@pytest.fixture(params=LAYERS)
def layer_and_input(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    make, shape = LAYERS[request.param]
    torch.manual_seed(0)
    return make(), torch.randn(1, *shape)


def target_of(layer: nn.Module) -> tuple[Tensor, Layout]:
    (target,) = find_targets(layer)
    return target.weight.detach(), target.layout


def indices(weight: Tensor) -> Tensor:
    """Every weight's own position in memory, from 1 on, so that 0 can only be padding."""
    return torch.arange(1, weight.numel() + 1).reshape(weight.shape)


def rows(granularity: Granularity, weight: Tensor, layout: Layout) -> list[set[int]]:
    return [set(row.tolist()) - {0} for row in granularity.view(indices(weight), layout)]


def test_filter_is_what_one_output_channel_depends_on(layer_and_input: tuple[nn.Module, Tensor]) -> None:
    layer, x = layer_and_input
    weight, layout = target_of(layer)
    output = layer(x)
    expected = []
    for channel in range(output.shape[1]):
        (gradient,) = torch.autograd.grad(output[:, channel].sum(), layer.weight, retain_graph=True)
        expected.append(set(indices(weight)[gradient != 0].tolist()))
    assert rows(Filter(), weight, layout) == expected


def test_channel_is_what_reads_one_input_channel(layer_and_input: tuple[nn.Module, Tensor]) -> None:
    layer, x = layer_and_input
    weight, layout = target_of(layer)
    expected = []
    for channel in range(x.shape[1]):
        only = torch.zeros_like(x)
        only[:, channel] = x[:, channel]
        (gradient,) = torch.autograd.grad(layer(only).sum(), layer.weight)
        expected.append(set(indices(weight)[gradient != 0].tolist()))
    assert rows(Channel(), weight, layout) == expected


def test_kernel_joins_one_input_to_one_output(layer_and_input: tuple[nn.Module, Tensor]) -> None:
    weight, layout = target_of(layer_and_input[0])
    filters, channels = rows(Filter(), weight, layout), rows(Channel(), weight, layout)
    expected = [f & c for f, c in itertools.product(filters, channels) if f & c]
    assert rows(Kernel(), weight, layout) == expected


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=repr)
def test_view_and_restore(granularity: Granularity, layer_and_input: tuple[nn.Module, Tensor]) -> None:
    weight, layout = target_of(layer_and_input[0])
    matrix = granularity.view(weight, layout)
    assert torch.equal(granularity.restore(matrix, weight.shape, layout), weight)
    assert granularity.units(weight.shape, layout) == tuple(matrix.shape)
    # Every weight is a member of exactly one unit, and the sizes count the members that are not padding.
    units = rows(granularity, weight, layout)
    assert sorted(itertools.chain(*units)) == list(range(1, weight.numel() + 1))
    sizes = torch.as_tensor(granularity.sizes(weight.shape, layout)).expand(len(units))
    assert sizes.tolist() == [len(unit) for unit in units]


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=repr)
def test_mask_removes_whole_units(granularity: Granularity, layer_and_input: tuple[nn.Module, Tensor]) -> None:
    weight, layout = target_of(layer_and_input[0])
    units = rows(granularity, weight, layout)
    keep = torch.arange(len(units)) % 2 == 0
    mask = granularity.mask(keep, weight.shape, layout)
    assert mask.shape == weight.shape
    assert mask.is_contiguous()
    kept = set(indices(weight)[mask].tolist())
    assert kept == set(itertools.chain(*itertools.compress(units, keep.tolist())))


def test_the_table_of_the_design() -> None:
    weight, layout = torch.zeros(8, 6, 3, 3), Layout(groups=2)  # Conv2d(12, 8, 3, groups=2)
    shapes = [granularity.units(weight.shape, layout) for granularity in GRANULARITIES]
    assert shapes == [(432, 1), (112, 4), (72, 6), (3, 300), (48, 9), (8, 54), (12, 36), (1, 432)]
    assert Kernel().units((4, 6)) == Weight().units((4, 6)) == (24, 1)


def test_short_groups_are_padded_with_zeros_and_counted_at_their_size() -> None:
    weight = torch.arange(1.0, 7.0).reshape(1, 6)
    assert Group(1, 4).view(weight).tolist() == [[1, 2, 3, 4], [5, 6, 0, 0]]
    assert Group(1, 4).sizes(weight.shape).tolist() == [4, 2]


@pytest.mark.parametrize("granularity", GRANULARITIES[1:], ids=repr)
def test_a_vector_has_single_weights_only(granularity: Granularity) -> None:
    assert Weight().view(torch.zeros(5)).shape == (5, 1)
    with pytest.raises(ValueError, match=r"needs a weight with at least 2 dimensions.*\(5,\).*Weight\(\)"):
        granularity.view(torch.zeros(5))


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=repr)
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 2, 3, 3), (1, 1, 1, 1)])
def test_empty_and_tiny_weights(granularity: Granularity, shape: tuple[int, ...]) -> None:
    weight = torch.ones(shape)
    matrix = granularity.view(weight)
    assert torch.equal(granularity.restore(matrix, shape), weight)
    keep = torch.zeros(matrix.shape[0], dtype=torch.bool)
    assert not granularity.mask(keep, shape).any()


@pytest.mark.parametrize("arguments", [(0, 4), (1, -1), (1.5, 2), (True, 2)])
def test_group_refuses_sizes_that_are_none(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Group(*arguments)


def test_mask_refuses_a_decision_of_the_wrong_length() -> None:
    with pytest.raises(ValueError, match=r"\(3,\).*has 4 units"):
        Filter().mask(torch.ones(3, dtype=torch.bool), (4, 2))
