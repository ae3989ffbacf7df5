"""SynFlow against products of matrices, its conservation law, and the layers that other criteria cut off."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prunelab
from prunelab.criteria import SNIP, Criterion, Magnitude, Random, SynFlow
from prunelab.granularity import Channel, Filter, Weight


def mlp(*widths: int, act: type[nn.Module] = nn.ReLU, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), act())]
    return nn.Sequential(*layers[:-1])


def flows(model: nn.Module, inputs: Any, granularity: Any = None) -> dict[str, Tensor]:
    return prunelab.score(model, SynFlow(inputs), granularity or Weight())


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, nn.GELU, nn.Sigmoid])
def test_closed_form_of_a_multilayer_perceptron(act: type[nn.Module], device: torch.device) -> None:
    model = mlp(3, 5, 4, 2, act=act).to(device)
    found = flows(model, torch.full((1, 3), torch.nan))
    a, b, c = (model[i].weight.detach().abs().double() for i in (0, 2, 4))
    one = torch.ones(3, dtype=torch.float64, device=device)
    # ∂R/∂|w| = (what arrives at the weight's output) x (what leaves its input), biases and activations left out.
    expected = {
        "0.weight": a * torch.outer((c @ b).sum(0), one),
        "2.weight": b * torch.outer(c.sum(0), a @ one),
        "4.weight": c * torch.outer(torch.ones_like(c[:, 0]), b @ a @ one),
    }
    total = (c @ b @ a @ one).sum()
    for name, scores in expected.items():
        assert found[name].dtype == torch.float64
        torch.testing.assert_close(found[name], scores.flatten())
        torch.testing.assert_close(found[name].sum(), total)


class ConvNet(nn.Module):
    """No skip connection; everything that a flow may meet: normalisation with statistics, pooling, groups, dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm, self.drop = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Dropout(0.5)
        self.b, self.head = nn.Conv2d(6, 4, 3, groups=2, stride=2), nn.Linear(4, 3)
        for value in (self.norm.weight.data, self.norm.bias.data, self.norm.running_mean):
            value.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu_(self.norm(self.a(x))), 2)
        return self.head(self.drop(self.b(x)).tanh().mean((2, 3)))


def test_the_flow_is_conserved_layer_by_layer_and_neuron_by_neuron() -> None:
    net, x = ConvNet().train(), torch.zeros(1, 2, 12, 12)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    scores = flows(net, x)
    totals = [float(one.sum()) for one in scores.values()]
    assert totals == pytest.approx([totals[0]] * 3)
    out_of, into = flows(net, x, Channel()), flows(net, x, Filter())
    torch.testing.assert_close(into["a.weight"], out_of["b.weight"])  # hidden channels: in = out
    torch.testing.assert_close(into["b.weight"], out_of["head.weight"])
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None and p.dtype == torch.float32 for p in net.parameters())


def test_finite_differences() -> None:
    net, x = ConvNet().double().eval(), torch.ones(1, 2, 12, 12, dtype=torch.float64)
    found = flows(net, x)["b.weight"]
    linear = ConvNet().double().eval()
    with torch.no_grad():
        for name, value in linear.named_parameters():
            value.copy_(value.abs() if name.endswith("weight") else 0 * value)
        linear.norm.running_mean.zero_()
        linear.forward = lambda x: linear.head(linear.b(F.max_pool2d(linear.norm(linear.a(x)), 2)).mean((2, 3)))
        for index in (0, 17, 107):
            weight = linear.b.weight.view(-1)
            value, step = float(weight[index]), 1e-4
            sides = []
            for weight[index] in (value + step, value - step):
                sides.append(float(linear(x).sum()))
            weight[index] = value
            assert float(found[index]) == pytest.approx(value * (sides[0] - sides[1]) / (2 * step), rel=1e-6)


def test_no_layer_is_cut_off_where_others_cut_one() -> None:
    """Tanaka et al. 2020, section 2 and 5: down to one weight a layer, which is all that a path needs."""
    x, y = torch.randn(8, 6), torch.zeros(8, dtype=torch.long)
    widths = (6, 20, 4, 20, 3)
    weights = sum(a * b for a, b in pairwise(widths))
    sparsity = 1 - 4 / weights

    def connected(criterion: Criterion, **options: Any) -> bool:
        model = mlp(*widths)
        masks = prunelab.prune(model, sparsity, criterion=criterion, data=[(x, y)], loss=F.cross_entropy, **options)
        assert sum(int(mask.sum()) for mask in masks.values()) == 4
        path = torch.ones(6)
        for mask in masks.values():
            path = mask.float() @ path
        return bool(path.any())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert connected(SynFlow(x[:1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers that collapse: that is the point
        others = [Magnitude(), SNIP(), Random(0), SynFlow(x[:1], rounds=1)]
        assert [connected(criterion) for criterion in others] == [False] * 4
        assert not connected(SNIP(), rounds=100)  # it is not the rounds alone


def test_the_pruned_are_not_counted_on_the_way() -> None:
    model = mlp(2, 2, 1)
    model[0].weight.data, model[2].weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 1.0]])
    within = prunelab.Masks({"2.weight": torch.tensor([[False, True]])})
    masks = prunelab.prune(model, 3 / 6, criterion=SynFlow(torch.ones(1, 2), rounds=1), within=within)
    assert masks["0.weight"].tolist() == [[False, False], [True, True]]  # nothing flows through the first neuron
    assert masks["2.weight"].tolist() == [[False, True]]


def test_deep_networks_of_half_precision_do_not_overflow() -> None:
    model = nn.Sequential(*[nn.Linear(64, 64, bias=False) for _ in range(60)])
    for layer in model:
        layer.weight.data[:] = 8.0
    found = flows(model.to(torch.float16), torch.zeros(1, 64))
    total = 64.0 * 512.0**60  # beyond float32
    assert all(float(one.sum()) == pytest.approx(total) for one in found.values())
    assert all(p.dtype == torch.float16 for p in model.parameters())
    with pytest.raises(ValueError, match=r"the flow through the network is inf.*too deep for float64"):
        flows(nn.Sequential(*[model[0]] * 120), torch.zeros(1, 64))


def test_frozen_shared_unused_and_inference_mode() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.a, self.unused = nn.Embedding(5, 3), nn.Linear(3, 3), nn.Linear(2, 2)
            self.b = nn.Linear(3, 3)
            self.b.weight = self.a.weight

        def forward(self, tokens: Tensor, scale: Tensor) -> dict[str, Tensor]:
            return {"out": self.b(self.a(self.embed(tokens) * scale)), "tokens": tokens}

    net = Net().requires_grad_(False)
    tokens = torch.tensor([[1, 4]])
    inputs = {"tokens": tokens, "scale": torch.tensor(0.0)}
    with torch.inference_mode():
        found = flows(net, inputs)
    w = net.a.weight.detach().double().abs()
    seen = net.embed.weight.detach()[tokens[0]].double().abs()
    leaf = w.clone().requires_grad_()
    # Tokens are passed on, and what the network returns is summed, whatever its form.
    (gradient,) = torch.autograd.grad((seen @ leaf.T @ leaf.T).sum(), leaf)
    torch.testing.assert_close(found["a.weight"], (gradient * w).flatten())
    assert found["unused.weight"].tolist() == [0.0] * 4
    assert not any(p.requires_grad for p in net.parameters())


def test_bad_arguments_are_refused() -> None:
    for rounds in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="whole number of rounds"):
            SynFlow(torch.ones(1, 2), rounds=rounds)
    assert SynFlow(torch.ones(1, 2)).rounds == 100
    assert repr(SynFlow(torch.ones(1, 2))) == "SynFlow(rounds=100)"
    model = mlp(2, 2)
    model[0].weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match="flow through the network is nan"):
        flows(model, torch.ones(1, 2))
    with pytest.raises(TypeError, match="not a shape"):
        flows(model, (1, 2))

    class Constant(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(ValueError, match="no tensor that the model returns depends on its weights"):
        flows(Constant(2, 2), torch.ones(1, 2))
