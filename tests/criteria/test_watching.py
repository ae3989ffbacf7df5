"""What follows a layer, and gates on it, against the network's own intermediate values and autograd's gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prunelab
from prunelab.criteria import Activations, Criterion
from prunelab.criteria.watching import Call, Probe
from prunelab.granularity import Filter


class Seen(Criterion):
    needs = frozenset({"data"})

    def __init__(self) -> None:
        self.statistics: list[Activations] = []

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        self.statistics.append(statistics)
        return torch.zeros(len(weights))


class Net(nn.Module):
    """A convolution, normalised and rectified in the way that is asked for, and a linear reader."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way = way
        self.conv, self.norm, self.head = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(3 * 16, 2)
        self.norm.running_mean.uniform_(-1, 1)
        self.norm.bias.data.uniform_(-1, 1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        if self.way == "module in place":
            x = self.act(x)
        elif self.way == "function":
            x = F.relu(x)
        elif self.way == "method in place":
            x = x.relu_()
        return self.head(x.flatten(1))


@pytest.mark.parametrize("way", ["module in place", "function", "method in place", "none"])
def test_activated_is_what_the_next_layer_reads(way: str) -> None:
    net, x = Net(way).eval(), torch.randn(6, 1, 6, 6)
    seen = Seen()
    prunelab.score(net, seen, Filter(), data=[(x[:4], torch.zeros(4)), (x[4:], torch.zeros(2))])
    conv, head = seen.statistics
    with torch.no_grad():
        own = net.conv(x)
        after = net.norm(own) if way == "none" else net.norm(own).relu()
    torch.testing.assert_close(conv.outputs, own.mean((2, 3)))
    torch.testing.assert_close(conv.activated, after.mean((2, 3)))
    torch.testing.assert_close(head.activated, head.outputs)


def test_what_mixes_channels_or_comes_later_is_not_followed() -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(F.relu(self.norm(self.a(x)) + 1)).softmax(1)

    seen = Seen()
    prunelab.score(Mixing(), seen, Filter(), data=[(torch.randn(5, 4), torch.zeros(5))])
    assert all(torch.equal(one.activated, one.outputs) for one in seen.statistics)


class Gates(Probe):
    """The gradients of the gates of each stage."""

    gated = True

    def __init__(self) -> None:
        self.found: list[list[Tensor | None]] = []

    def add(self, calls: Sequence[Call], examples: int) -> None:
        self.found += [call.gradients for call in calls]

    def result(self, labels: Any) -> Any:
        return self.found


class Gated(Seen):
    needs = frozenset({"gradients", "data"})

    def probe(self) -> Probe:
        return Gates()


@pytest.mark.parametrize("way", ["module in place", "function", "none"])
def test_gates_give_activation_times_gradient_at_every_stage(way: str) -> None:
    net, x, y = Net(way).eval(), torch.randn(5, 1, 6, 6), torch.tensor([0, 1, 0, 1, 1])
    seen: Any = Gated()
    prunelab.score(net, seen, Filter(), data=[(x, y)], loss=F.cross_entropy)
    own = net.conv(x)
    normed = net.norm(own)
    stages = [own, normed] if way == "none" else [own, normed, normed.relu()]
    for stage in stages:
        stage.retain_grad()
    F.cross_entropy(net.head(stages[-1].flatten(1)), y).backward()
    (found,) = seen.statistics[0]
    assert len(found) == len(stages)
    for stage, gradient in zip(stages, found, strict=True):
        assert gradient.shape == (5, 3, 1, 1)
        torch.testing.assert_close(gradient[..., 0, 0], (stage * stage.grad).sum((2, 3)))
    assert all(not module._forward_hooks for module in net.modules())


def test_gates_change_no_bit_of_the_gradients() -> None:
    net, x, y = Net("function"), torch.randn(5, 1, 6, 6), torch.zeros(5, dtype=torch.long)

    class Plain(Gated):
        def __init__(self) -> None:
            self.gradients: list[Tensor] = []

        def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
            assert gradients is not None
            self.gradients.append(gradients)
            return torch.zeros(len(weights))

    class Ungated(Plain):
        needs = frozenset({"gradients"})

    with_gates, without = Plain(), Ungated()
    for criterion in (with_gates, without):
        prunelab.score(net, criterion, Filter(), data=[(x, y)], loss=F.cross_entropy)
    assert all(torch.equal(a, b) for a, b in zip(with_gates.gradients, without.gradients, strict=True))


def test_a_compiled_model_is_watched_too() -> None:
    net, x = Net("function"), torch.randn(3, 1, 6, 6)
    plain, compiled = Seen(), Seen()
    data = [(x, torch.zeros(3))]
    prunelab.score(net, plain, Filter(), data=data)
    net.norm = torch.compile(net.norm, backend="eager")  # type: ignore[assignment]
    prunelab.score(torch.compile(net, backend="eager"), compiled, Filter(), data=data)
    for a, b in zip(plain.statistics, compiled.statistics, strict=True):
        torch.testing.assert_close(a.activated, b.activated)


def test_momentum_averages_the_scores_of_the_batches() -> None:
    class Average(Criterion):
        needs = frozenset({"gradients"})
        momentum = 0.75

        def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
            assert gradients is not None
            return gradients.sum(1)

    net = nn.Linear(1, 1, bias=False)
    data = [(torch.tensor([[value]]), torch.zeros(1)) for value in (1.0, 2.0, 4.0)]
    scores = prunelab.score(net, Average(), data=data, loss=lambda out, _: out.mean())
    assert scores["weight"].item() == 0.75 * (0.75 * 1 + 0.25 * 2) + 0.25 * 4
    with pytest.raises(ValueError, match="Average needs gradients, so it must be given data= and loss="):
        prunelab.score(net, Average())
    with pytest.raises(ValueError, match="data is empty"):
        prunelab.score(net, Average(), data=[], loss=lambda out, _: out.mean())
    with pytest.raises(TypeError, match=r"loss must be a function .*; write MSELoss\(\)"):
        prunelab.score(net, Average(), data=data, loss=nn.MSELoss)


def test_a_criterion_without_meaning_at_a_granularity_is_refused() -> None:
    class OnlyFilters(Criterion):
        granularities = (Filter,)

        def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
            return weights.sum(1)

    with pytest.raises(ValueError, match=r"OnlyFilters has no meaning at the granularity Weight\(\).*Filter\("):
        prunelab.prune(nn.Linear(2, 2), 0.5, criterion=OnlyFilters())


class Shortcut(nn.Module):
    """Something else is written into the tensor that a layer put out, before the next function reads it."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.way, self.layer, self.out = way, nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        if self.way == "+=":
            h += x
        elif self.way == "add_":
            h.add_(x)
        elif self.way == "[...]":
            h[...] = h + x
        elif self.way == "out=":
            torch.add(h.detach().clone(), x, out=h)
        else:
            h = h + x
        return self.out(F.relu(h))


@pytest.mark.parametrize("way", ["+", "+=", "add_", "[...]", "out="])
def test_a_sum_with_a_shortcut_is_no_output_of_the_layer_however_it_is_written(way: str) -> None:
    seen, x = Seen(), torch.randn(5, 4)
    prunelab.score(Shortcut(way), seen, Filter(), data=[(x, torch.zeros(5))])
    torch.testing.assert_close(seen.statistics[0].activated, seen.statistics[0].outputs)
    with torch.no_grad():
        torch.testing.assert_close(seen.statistics[0].outputs, Shortcut(way).layer(x))


def test_momentum_leaves_the_order_of_chance() -> None:
    class Average(Criterion):
        needs = frozenset({"gradients"})
        momentum = 0.5

        def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
            assert gradients is not None
            return gradients.sum(1)

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(6, 2), torch.zeros(6)), 2, True)
    model, before = nn.Linear(2, 1), torch.get_rng_state()
    prunelab.score(model, Average(), data=data, loss=lambda out, _: out.mean())
    assert torch.equal(torch.get_rng_state(), before)
