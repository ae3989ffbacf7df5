"""One small network of every kind, in plain torch: what is removed equals what is masked, and enough is removed.

`make zoo` runs the same check on the architectures of torchvision, timm and transformers, which need an environment of
their own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import prunelab
from zoo import plain
from zoo.architecture import Architecture
from zoo.check import check

# Half of the channels of every group that can shrink is a quarter of the weights between two such groups. What is left
# of that are widths under a norm over channels, embeddings, and what stays on principle.
AT_LEAST = {
    "plain_vgg": 0.74, "plain_resnet20": 0.58, "plain_resnet20_b": 0.74, "plain_bottlenecks": 0.73, "plain_resnext": 0.71,
    "plain_densenet": 0.71, "plain_mobilenet": 0.68, "plain_shufflenet": 0.61, "plain_googlenet": 0.68, "plain_unet": 0.74,
    "plain_convnext": 0.32, "plain_branching": 0.25, "plain_lstm": 0.69, "plain_lstm2": 0.73, "plain_gru": 0.71,
    "plain_gru2": 0.71, "plain_encoder": 0.43, "plain_encoder_pre": 0.43, "plain_vit": 0.37, "plain_gpt": 0.44,
    "plain_llama": 0.38, "plain_t5": 0.45,
}  # fmt: skip
ARCHITECTURES = {architecture.name: architecture for architecture in plain.architectures()}


def test_every_architecture_has_a_floor() -> None:
    assert ARCHITECTURES.keys() == AT_LEAST.keys()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_removed_equals_masked(name: str) -> None:
    outcome = check(ARCHITECTURES[name])
    assert outcome.removed >= AT_LEAST[name], outcome.small.explain()


# --- the check itself ----------------------------------------------------------------------------------------------------


def swapped(small: Any) -> None:
    """Two filters change places, their normalisation does not."""
    weight = small.model.conv1a.weight
    weight.data[[0, 1]] = weight.data[[1, 0]]


def forgotten(small: Any) -> None:
    """One channel loses what BatchNorm adds to it."""
    small.model.bn2a.bias.data[0] += 1


def nothing_in_training(small: Any) -> None:
    for parameter in small.model.parameters():
        parameter.requires_grad = False


def other_mode(small: Any) -> None:
    small._original.train()


def moved_statistics(small: Any) -> None:
    small._original.bn1a.running_mean += 1


def lost_slice(small: Any) -> None:
    small.plan.slices.pop("fc.weight")


@pytest.mark.parametrize("harm", [swapped, forgotten, nothing_in_training, other_mode, moved_statistics, lost_slice])
def test_the_check_notices(harm: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong with one channel, one mode or one statistic fails the check."""
    honest = prunelab.shrink

    def harmed(*given: Any, **named: Any) -> Any:
        small = honest(*given, **named)
        with torch.no_grad():
            harm(small)
        return small

    monkeypatch.setattr(prunelab, "shrink", harmed)
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        check(ARCHITECTURES["plain_vgg"])


def test_the_check_refuses_a_network_that_proves_nothing() -> None:
    vgg = ARCHITECTURES["plain_vgg"]

    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = copy.deepcopy(vgg.build())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(torch.ones_like(x))

    with pytest.raises(AssertionError, match="hardly depend on the inputs"):
        check(Architecture("deaf", "here", Deaf, vgg.inputs))
