"""Where Torch-Pruning is right, the same: which layers are coupled, and how many parameters are left.

Networks without concatenation: there a coupled group is a set of layers for the peer too. It counts channels, not
slices of them.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import prunelab
from prunelab.surgery import couple
from zoo.check import count
from zoo.collection import find
from zoo.peer import classifiers

torch.set_num_threads(1)
NAMES = (
    "plain_vgg", "plain_resnet20_b", "plain_bottlenecks", "plain_resnext", "resnet18", "resnet50", "mobilenet_v2",
    "mnasnet1_0", "efficientnet_b0", "regnet_x_400mf", "regnet_y_400mf", "timm_resnetv2_50",
)  # fmt: skip


def producers(model: nn.Module, names: set[str]) -> frozenset[str]:
    """Of the named modules those that make channels: a depthwise convolution hands on what it is given."""
    modules = dict(model.named_modules())
    return frozenset(
        name
        for name in names
        if isinstance(modules[name], nn.Linear)
        or (isinstance(modules[name], nn.Conv2d) and modules[name].groups < modules[name].in_channels)
    )


def their_groups(model: nn.Module, x: torch.Tensor, ignored: list[nn.Module]) -> set[frozenset[str]]:
    import torch_pruning as tp

    graph = tp.DependencyGraph().build_dependency(model, x)
    names = {module: name for name, module in model.named_modules()}
    groups = set()
    for group in graph.get_all_groups(ignored_layers=ignored):
        coupled = {
            names[dep.target.module]
            for dep, _ in group
            if dep.target.module in names and graph.is_out_channel_pruning_fn(dep.handler)
        }
        groups.add(producers(model, coupled))
    return groups - {frozenset()}


def our_groups(model: nn.Module, x: Any) -> set[frozenset[str]]:
    groups = couple(model, x).groups
    return {producers(model, {name.rpartition(".")[0] for name in group.made_by}) for group in groups} - {frozenset()}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_layers_are_coupled(name: str) -> None:
    (architecture,) = find([name])
    model, x = architecture.model(), architecture.example(0)
    assert our_groups(model, x) == their_groups(model, x, classifiers(model, model(x)))


@pytest.mark.parametrize("name", NAMES)
def test_as_many_parameters_are_left(name: str) -> None:
    """Half of every group; within a thousandth, for an odd width may be rounded otherwise. Biases that take up what
    removed channels contributed are ours alone."""
    import torch_pruning as tp

    (architecture,) = find([name])
    model, x = architecture.model(), architecture.example(0)
    small, known = prunelab.shrink(model, x, sparsity=0.5, verify=False).model, dict(model.named_parameters())
    left = sum(parameter.numel() for name, parameter in small.named_parameters() if name in known)
    theirs = copy.deepcopy(model)
    importance = tp.importance.MagnitudeImportance(p=2)
    ignored = classifiers(theirs, theirs(x))
    tp.pruner.MetaPruner(theirs, x, importance, pruning_ratio=0.5, ignored_layers=ignored).step()
    assert abs(left - count(theirs)) <= 0.001 * count(model), (left, count(theirs))
