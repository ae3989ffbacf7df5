"""Taylor expansions against what really happens to the loss, and against autograd example by example."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import prunelab
from prunelab.criteria import Taylor
from prunelab.granularity import Channel, Filter, Granularity, Group, Kernel, Layer, Weight


def network() -> nn.Sequential:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_mean.uniform_(-1, 1)  # a shift, so that the stages of what a layer puts out differ
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), norm, nn.ReLU(), nn.ConvTranspose2d(4, 4, 2, groups=2), nn.Flatten(), nn.Linear(100, 3)
    ).double().eval()  # fmt: skip


def examples(count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 2, 6, 6, generator=generator, dtype=torch.float64), torch.arange(count) % 3


def test_by_hand(device: torch.device) -> None:
    weights = torch.tensor([[1.0, -2.0], [3.0, 0.5]], device=device)
    gradients = torch.tensor([[2.0, 3.0], [-1.0, 2.0]], device=device)  # products [2, -6], [-3, 1]
    for criterion, expected in (
        (Taylor(), [4.0, 2.0]),
        (Taylor(squared=True), [16.0, 4.0]),
        (Taylor(joint=False), [8.0, 4.0]),
        (Taylor(joint=False, squared=True), [40.0, 10.0]),
        (Taylor(normalize="layer"), [4 / 20**0.5, 2 / 20**0.5]),
    ):
        assert criterion.score(weights, gradients, None).tolist() == pytest.approx(expected)
    curvature = torch.tensor([[4.0, 1.0], [2.0, 8.0]], device=device)  # h w² / 2: [2, 2], [9, 1]
    second = {"curvature": {"w": curvature}, "order": 2}
    assert Taylor(**second).score(weights, gradients, curvature).tolist() == [8.0, 12.0]  # [-2+2, 6+2], [3+9, -1+1]
    assert Taylor(**second, joint=False).score(-weights, gradients, curvature).tolist() == [8.0, 8.0]


def test_regression_ranking_by_the_signed_sum_removes_what_hurts_most() -> None:
    model = nn.Linear(1, 3, bias=False)
    model.weight.data = torch.tensor([[3.0], [-5.0], [0.1]])
    data = [(torch.ones(2, 1), torch.zeros(2))]

    def loss(outputs: Tensor, _: Tensor) -> Tensor:
        return outputs.sum(1).mean()  # removing a filter changes it by -3, +5 and -0.1

    masks = prunelab.prune(model, 1 / 3, criterion=Taylor(), granularity=Filter(), data=data, loss=loss, apply=False)
    signed = model.weight.detach().sum(1)
    assert signed.argmin() == 1  # the signed sum would remove the one that raises the loss most
    assert masks["weight"].flatten().tolist() == [True, True, False]


def test_regression_the_absolute_value_comes_after_the_sum() -> None:
    """A filter whose members cancel can go at no cost; Σ|w·g| would keep it."""
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = torch.tensor([[5.0, -5.0], [1.0, 1.0]])
    scores = prunelab.score(
        model, Taylor(), Filter(), data=[(torch.ones(1, 2), torch.zeros(1))], loss=lambda outputs, _: outputs.sum()
    )
    assert scores["weight"].tolist() == [0.0, 2.0]


@pytest.mark.parametrize("granularity", [Weight(), Group(2, 4), Kernel(), Filter(), Channel(), Layer()], ids=str)
def test_first_order_is_the_slope_of_the_loss_as_a_unit_fades(granularity: Granularity) -> None:
    model, (x, y) = network(), examples()
    scores = prunelab.score(model, Taylor(), granularity, data=[(x, y)], loss=F.cross_entropy)
    parameters = {key: p.detach() for key, p in model.named_parameters()}
    eps = 1e-6
    for key, layout in (
        ("0.weight", prunelab.granularity.Layout()),
        ("3.weight", prunelab.granularity.Layout(groups=2, transposed=True)),
    ):
        units, members = granularity.units(parameters[key].shape, layout)
        for unit in range(0, units, max(1, units // 6)):
            row = torch.zeros(units, 1, dtype=torch.float64)
            row[unit] = eps
            fade = granularity.restore(row.expand(units, members), parameters[key].shape, layout)

            def value(sign: int, key: str = key, fade: Tensor = fade) -> float:
                moved = {**parameters, key: parameters[key] * (1 - sign * fade)}
                return float(F.cross_entropy(functional_call(model, moved, (x,)), y))

            slope = (value(1) - value(-1)) / (2 * eps)  # of the loss, from the whole unit to none of it
            assert scores[key][unit].item() == pytest.approx(abs(slope), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("granularity", [Weight(), Filter(), Channel(), Kernel()], ids=str)
def test_first_order_is_exact_where_the_loss_is_linear(granularity: Granularity) -> None:
    torch.manual_seed(0)
    model, x = nn.Conv2d(2, 3, 2).double(), torch.randn(4, 2, 5, 5, dtype=torch.float64)
    scores = prunelab.score(
        model, Taylor(), granularity, data=[(x, torch.zeros(4))], loss=lambda outputs, _: outputs.mean()
    )["weight"]
    units, members = granularity.units(model.weight.shape)
    for unit in range(units):
        keep = (torch.arange(units) != unit)[:, None].expand(units, members)
        left = {"weight": model.weight * granularity.restore(keep, model.weight.shape)}
        increase = functional_call(model, left, (x,)).mean() - model(x).mean()
        torch.testing.assert_close(scores[unit], increase.abs().detach(), rtol=1e-9, atol=1e-12)


def regression() -> tuple[nn.Linear, Tensor, Tensor, Any]:
    """Linear regression with orthogonal inputs: the loss is quadratic and its Hessian diagonal."""
    torch.manual_seed(0)
    x = torch.linalg.qr(torch.randn(12, 4, dtype=torch.float64))[0] * torch.tensor([1.0, 2.0, 3.0, 0.5]).double()
    y = torch.randn(12, 3, dtype=torch.float64)
    return nn.Linear(4, 3, bias=False).double(), x, y, lambda outputs, targets: (outputs - targets).square().mean()


def hessian(model: nn.Module, x: Tensor, y: Tensor, loss: Any) -> Tensor:
    """(weights, weights), of a model whose only parameter is `weight`."""
    count = model.weight.numel()

    def value(weight: Tensor) -> Tensor:
        return loss(functional_call(model, {"weight": weight}, (x,)), y)

    found = torch.autograd.functional.hessian(value, model.weight.detach())
    return found.reshape(count, count)


@pytest.mark.parametrize("granularity", [Weight(), Filter(), Channel(), Layer(), Group(2, 3)], ids=str)
def test_second_order_is_exact_for_a_quadratic_loss_with_a_diagonal_hessian(granularity: Granularity) -> None:
    model, x, y, loss = regression()
    full = hessian(model, x, y, loss)
    assert (full - full.diag().diag()).abs().max() < 1e-12
    curvature = {"weight": full.diag().reshape(model.weight.shape)}
    data = [(x[:5], y[:5]), (x[5:], y[5:])]
    scores = prunelab.score(model, Taylor(order=2, curvature=curvature), granularity, data=data, loss=loss)["weight"]
    units, members = granularity.units(model.weight.shape)
    for unit in range(units):
        keep = (torch.arange(units) != unit)[:, None].expand(units, members)
        left = {"weight": model.weight * granularity.restore(keep, model.weight.shape)}
        increase = loss(functional_call(model, left, (x,)), y) - loss(model(x), y)
        torch.testing.assert_close(scores[unit], increase.abs().detach(), rtol=1e-9, atol=1e-12)


def test_gating_a_filters_own_output_is_gating_its_weights_and_its_bias() -> None:
    model, (x, y) = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(64, 3)).double(), examples(1)
    gates = prunelab.score(model, Taylor(of="activations"), Filter(), data=[(x, y)], loss=F.cross_entropy)
    F.cross_entropy(model(x), y).backward()
    for index in (0, 2):
        weight, bias = model[index].weight, model[index].bias
        expected = ((weight * weight.grad).flatten(1).sum(1) + bias * bias.grad).abs()
        torch.testing.assert_close(gates[f"{index}.weight"], expected.detach())


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("sizes", [[6], [4, 2], [1] * 6])
def test_activations_example_by_example(sizes: list[int], squared: bool, device: torch.device) -> None:
    model, (x, y) = network().to(device), examples()
    data = list(zip(x.split(sizes), y.split(sizes), strict=True))
    criterion = Taylor(of="activations", squared=squared)
    scores = prunelab.score(model, criterion, Filter(), data=data, loss=F.cross_entropy)
    expected = torch.zeros(4, dtype=torch.float64, device=device)
    for one in range(6):
        activated = model[:3](x[one : one + 1].to(device))  # after normalisation and ReLU
        activated.retain_grad()
        F.cross_entropy(model[3:](activated), y[one : one + 1].to(device)).backward()
        flow = (activated * activated.grad).sum((0, 2, 3)).detach()
        expected += (flow.square() if squared else flow.abs()) / 6
    torch.testing.assert_close(scores["0.weight"], expected)


def test_a_gate_counts_once_for_a_layer_that_runs_twice_and_for_sequences() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.idle = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor, gate: Tensor) -> Tensor:  # x: (N, T, 3)
            self.idle(x)
            return (self.a(x) * gate + self.a(x * x) * gate).square().mean((1, 2))

    torch.manual_seed(0)
    model, x = Twice().double(), torch.randn(4, 5, 3, dtype=torch.float64)
    data = [((x, torch.ones(3).double()), torch.zeros(4))]
    scores = prunelab.score(
        model, Taylor(of="activations"), Filter(), data=data, loss=lambda outputs, _: outputs.mean()
    )
    gate = torch.ones(3, dtype=torch.float64)
    own = torch.autograd.functional.jacobian(lambda gate: model(x, gate), gate)  # (examples, channels)
    torch.testing.assert_close(scores["a.weight"], own.abs().mean(0))
    assert scores["idle.weight"].tolist() == [0.0, 0.0]


def test_layers_that_do_not_see_the_examples_one_by_one_are_refused() -> None:
    class Flattened(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x.reshape(-1, 4))

    data, how = [(torch.ones(2, 5, 4), torch.zeros(2))], {"loss": lambda outputs, _: outputs.square().mean()}
    with pytest.raises(ValueError, match=r"'a.weight' saw 10 rows where the batch has 2 examples.*exclude="):
        prunelab.score(Flattened(), Taylor(of="activations"), Filter(), data=data, **how)
    prunelab.score(Flattened(), Taylor(), Filter(), data=data, **how)


def test_a_layers_scores_have_length_one_when_normalised() -> None:
    model, data = network(), [examples()]
    with torch.no_grad():
        model[3].weight.zero_()
    for of in ("weights", "activations"):
        plain = prunelab.score(model, Taylor(of=of), Filter(), data=data, loss=F.cross_entropy)
        scores = prunelab.score(model, Taylor(of=of, normalize="layer"), Filter(), data=data, loss=F.cross_entropy)
        assert scores["5.weight"].norm().item() == pytest.approx(1)
        torch.testing.assert_close(scores["5.weight"], plain["5.weight"] / plain["5.weight"].norm())
    weights = prunelab.score(model, Taylor(normalize="layer"), Filter(), data=data, loss=F.cross_entropy)
    assert weights["3.weight"].tolist() == [0.0] * 4  # a layer of zeros, and no NaN


def test_momentum_is_a_running_average_over_batches() -> None:
    model, (x, y) = network(), examples()
    batches = list(zip(x.split(2), y.split(2), strict=True))
    single = [prunelab.score(model, Taylor(), Filter(), data=[b], loss=F.cross_entropy)["5.weight"] for b in batches]
    found = prunelab.score(model, Taylor(momentum=0.9), Filter(), data=batches, loss=F.cross_entropy)["5.weight"]
    expected = 0.9 * (0.9 * single[0] + 0.1 * single[1]) + 0.1 * single[2]
    torch.testing.assert_close(found, expected)


def test_members_are_summed_in_float64() -> None:
    row = torch.tensor([[1e8, 1.0, -1e8]])  # in float32 the 1 is lost
    assert Taylor().score(row, torch.ones(1, 3), None).tolist() == [1.0]


def test_no_square_of_a_small_product_vanishes() -> None:
    small = torch.tensor([[1e-15], [2e-15]])
    for joint in (True, False):
        scores = Taylor(squared=True, joint=joint).score(small, small, None)
        assert scores.tolist() == pytest.approx([1e-60, 16e-60])
    big = torch.full((1, 2), 300.0, dtype=torch.float16)  # its square is beyond float16
    second = Taylor(order=2, curvature={"w": torch.ones(1, 2)})
    assert second.score(big, torch.zeros(1, 2), torch.ones(1, 2)).tolist() == [90_000.0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"order": 3}, r"Taylor\(order=3\): use 1 or 2"),
        ({"of": "gates"}, r"use 'weights' or 'activations'"),
        ({"normalize": "l2"}, r"use None or 'layer'"),
        ({"momentum": 1.0}, "at least 0 and below 1"),
        ({"momentum": "0.9"}, "at least 0 and below 1"),
        ({"momentum": False}, "at least 0 and below 1"),
        ({"of": "activations", "joint": False}, "no members to take one by one"),
        ({"of": "activations", "order": 2}, "is of first order"),
        ({"curvature": {}}, r"write Taylor\(order=2, curvature="),
    ],
)
def test_bad_arguments(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Taylor(**wrong)


def test_the_second_order_says_what_it_needs() -> None:
    with pytest.raises(
        TypeError, match=r"Taylor\(order=2\) needs curvature=\{parameter name: tensor of .* not NoneType"
    ):
        Taylor(order=2)
    model, data = nn.Linear(2, 2), [(torch.ones(1, 2), torch.zeros(1, 2))]
    with pytest.raises(ValueError, match=r"no curvature for 'weight': curvature=\{'weight': tensor of shape \(2, 2\)"):
        prunelab.score(model, Taylor(order=2, curvature={}), data=data, loss=F.mse_loss)


def test_activations_have_a_meaning_for_filters_only() -> None:
    model, data = network(), [examples()]
    for granularity in (Weight(), Channel(), Layer()):
        with pytest.raises(ValueError, match=r"has no meaning at the granularity .*units of Filter\(\)"):
            prunelab.score(model, Taylor(of="activations"), granularity, data=data, loss=F.cross_entropy)


def test_a_rectifier_in_place_whose_result_nobody_assigns() -> None:
    class Unassigned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.lin, self.out = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.lin(x)
            F.relu_(h)
            return self.out(h)

    model, x, y = Unassigned(), torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 0])
    assigned = nn.Sequential(model.lin, nn.ReLU(), model.out)
    given = {"criterion": Taylor(of="activations"), "granularity": Filter(), "data": [(x, y)], "loss": F.cross_entropy}
    found, expected = prunelab.score(model, **given), prunelab.score(assigned, **given)
    torch.testing.assert_close(found["lin.weight"], expected["0.weight"])
    assert bool(found["lin.weight"].any())


def test_the_first_order_reads_no_statistics() -> None:
    weights, gradients = torch.randn(3, 4), torch.randn(3, 4)
    expected = Taylor().score(weights, gradients, None)
    assert torch.equal(Taylor().score(weights, gradients, object()), expected)
