"""Penalties, proximal steps and gates: against closed forms, numerical minimisation, finite differences and sampling."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from torch import Tensor, nn

import prunelab
from prunelab.granularity import Channel, Filter, Granularity, Group, Head, Kernel, Layer, Weight
from prunelab.lab import data, models, train
from prunelab.regularize import L1, L2, GroupLasso, HardConcrete, Regularizer, Slimming
from prunelab.regularize.gates import Gates

DIGITS = data.digits()
Proximal = L1 | L2 | GroupLasso
UNITS: list[Granularity] = [Weight(), Group(2, 3), Kernel(), Filter(), Channel(), Layer()]


def linear(weight: list[list[float]], bias: list[float] | None = None) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias is not None)
    layer.weight.data = torch.tensor(weight)
    if bias is not None:
        layer.bias.data = torch.tensor(bias)
    return layer


def net(seed: int = 0) -> nn.Sequential:
    """Grouped, depthwise and transposed convolutions, batch normalisation, a layer with and one without a bias."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2, bias=False),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.ConvTranspose2d(4, 6, 2, groups=2),
        nn.Flatten(),
        nn.Linear(54, 3),
    )


# --- what the numbers are ----------------------------------------------------------------------------------------


def test_penalties_of_a_layer_worked_out_by_hand() -> None:
    layer = linear([[3.0, -4.0], [0.0, 1.0]], bias=[12.0, 0.0])
    assert L1(0.5).penalty(layer).item() == pytest.approx(0.5 * 8)
    assert L2(0.5).penalty(layer).item() == pytest.approx(0.5 * (9 + 16 + 1) / 2)
    # Filter: (3, -4, bias 12) has norm 13, (0, 1, 0) norm 1; three entries each.
    assert GroupLasso(2.0, Filter()).penalty(layer).item() == pytest.approx(2 * math.sqrt(3) * 14, rel=1e-6)
    # Channel: columns (3, 0) and (-4, 1), without a bias.
    expected = math.sqrt(2) * (3 + math.sqrt(17))
    assert GroupLasso(1.0, Channel()).penalty(layer).item() == pytest.approx(expected, rel=1e-6)
    expected = math.sqrt(6) * math.sqrt(9 + 16 + 1 + 144)
    assert GroupLasso(1.0, Layer()).penalty(layer).item() == pytest.approx(expected, rel=1e-6)


def test_short_groups_count_their_real_size() -> None:
    layer = linear([[1.0, 1.0, 2.0]])  # Group(1, 2): (1, 1), and (2) alone
    assert GroupLasso(1.0, Group(1, 2)).penalty(layer).item() == pytest.approx(math.sqrt(2) * math.sqrt(2) + 2)
    assert HardConcrete(1.0, Group(1, 2), initial=0.5).attach_(layer) is None
    assert HardConcrete(1.0).penalty(layer).item() == pytest.approx(0.5 * 3)


@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_group_lasso_is_the_definition_at_every_granularity(unit: Granularity) -> None:
    """Against a loop over units that are found by masks, not by the views that the penalty uses."""
    model, expected = net().double(), 0.0
    for target in prunelab.targets.find_targets(model):
        units, _ = unit.units(target.weight.shape, target.layout)
        for index in range(units):
            keep = torch.arange(units) == index
            members = target.weight[unit.mask(keep, target.weight.shape, target.layout)]
            if unit.covers_bias:
                biases = [dict(model.named_parameters())[name].reshape(units, -1)[index] for name in target.biases]
                members = torch.cat([members, *biases])
            expected += math.sqrt(len(members)) * members.square().sum().sqrt().item()
    assert GroupLasso(1.0, unit).penalty(model).item() == pytest.approx(expected, rel=1e-12)


def test_a_group_penalty_does_not_degenerate_to_l1_whatever_the_unit() -> None:
    """The mistake: summing |w| inside each group and then over the groups, which is L1 at every granularity."""
    model = net()
    values = {str(unit): GroupLasso(1.0, unit).penalty(model).item() for unit in UNITS}
    assert values["Weight()"] == pytest.approx(L1(1.0).penalty(model).item(), rel=1e-6)
    assert len({round(value, 3) for value in values.values()}) == len(UNITS)


def test_group_lasso_is_no_sum_of_squares() -> None:
    """The mistake: leaving out the square root, which is L2 whatever the groups: nothing reaches zero.

    A norm doubles when its unit doubles (a square would grow by four), and does not fade as the unit does.
    """
    layer = linear([[0.3, 0.4]])
    small = copy.deepcopy(layer)
    small.weight.data *= 1e-4
    pulls = []
    for one in (layer, small):
        GroupLasso(1.0).penalty(one).backward()
        assert one.weight.grad is not None
        pulls.append(one.weight.grad.norm().item())
    assert pulls == pytest.approx([math.sqrt(2), math.sqrt(2)], rel=1e-5)
    layer.weight.data *= 2
    assert GroupLasso(1.0).penalty(layer).item() == pytest.approx(2 * math.sqrt(2) * 0.5)


def test_group_lasso_scales_with_the_root_of_the_size() -> None:
    """The mistake: no factor for the size, so that large units are spared. Equal weights must cost alike per weight."""
    costs = []
    for members in (1, 4, 100):
        layer = linear([[0.5] * members])
        costs.append(GroupLasso(1.0).penalty(layer).item() / members)
    assert costs == pytest.approx([0.5, 0.5, 0.5], rel=1e-6)


# --- gradients ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "regulariser",
    [L1(0.3), L2(0.3), Slimming(0.3), *(GroupLasso(0.3, unit) for unit in UNITS)],
    ids=str,
)
def test_penalty_gradients_by_finite_differences(regulariser: Regularizer) -> None:
    model = net().double()
    regulariser.penalty(model).backward()
    for parameter in model.parameters():
        flat = parameter.data.view(-1)
        for index in range(0, flat.numel(), max(1, flat.numel() // 3)):
            values, before = [], flat[index].item()
            for step in (1e-6, -1e-6):
                flat[index] = before + step
                values.append(regulariser.penalty(model).item())
            flat[index] = before
            slope = (values[0] - values[1]) / 2e-6
            got = 0.0 if parameter.grad is None else parameter.grad.view(-1)[index].item()
            assert got == pytest.approx(slope, abs=1e-7)


def test_the_gradient_of_units_at_zero_is_zero_and_not_nan() -> None:
    for unit in UNITS:
        layer = nn.Conv2d(3, 4, 2)
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
        GroupLasso(1.0, unit).penalty(layer).backward()
        for parameter in layer.parameters():
            assert parameter.grad is None or torch.equal(parameter.grad, torch.zeros_like(parameter))


# --- proximal steps ----------------------------------------------------------------------------------------------


def proximal_cost(regulariser: Regularizer, layer: nn.Module, start: Tensor, lr: float) -> Callable[[object], float]:
    """½‖x - v‖² + lr · penalty(x) as a function of all of a layer's parameters x, in float64."""
    probe = copy.deepcopy(layer).double()

    @torch.no_grad()
    def cost(x: object) -> float:
        point = torch.as_tensor(x, dtype=torch.float64)
        nn.utils.vector_to_parameters(point, probe.parameters())
        return float(0.5 * (point - start).square().sum() + lr * regulariser.penalty(probe))

    return cost


@pytest.mark.parametrize(
    "regulariser",
    [
        L1(0.7),
        L2(0.7),
        GroupLasso(0.7, Filter()),
        GroupLasso(0.7, Channel()),
        GroupLasso(0.7, Group(2, 2)),
        GroupLasso(0.3, Layer()),
    ],
    ids=str,
)
def test_a_proximal_step_is_the_minimiser_that_defines_it(regulariser: Proximal) -> None:
    """The cost is strongly convex, so x is its minimiser exactly when every x + d costs at least ½‖d‖² more."""
    layer = linear([[0.9, -0.2, 1.5], [0.1, 0.05, -0.2]], bias=[0.3, 0.02]).double()
    start = nn.utils.parameters_to_vector(layer.parameters()).detach()
    cost = proximal_cost(regulariser, layer, start, lr=0.5)
    regulariser.proximal_(layer, lr=0.5)
    got = nn.utils.parameters_to_vector(layer.parameters()).detach()
    draw = torch.Generator().manual_seed(0)
    for size in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(20):
            away = size * torch.randn(got.shape, generator=draw, dtype=torch.float64)
            assert cost(got + away) >= cost(got) + 0.5 * away.square().sum().item() - 1e-12
    for begin in (start, 0.01 * start):  # and a minimiser that knows nothing of it finds no better
        found = optimize.minimize(cost, begin, method="Nelder-Mead", options={"maxfev": 600})
        assert found.fun >= cost(got) - 1e-12


def test_the_proximal_step_of_slimming_is_the_soft_threshold_of_the_scales() -> None:
    model = net()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    model[1].weight.data = torch.tensor([0.5, -0.2, 0.1, -3.0])
    Slimming(1.0).proximal_(model, lr=0.2)
    torch.testing.assert_close(model[1].weight.data, torch.tensor([0.3, 0.0, 0.0, -2.8]))
    for name, value in model.named_parameters():
        assert name == "1.weight" or torch.equal(value, before[name])


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=12), st.floats(0, 5), st.floats(0, 2))
@settings(max_examples=60, deadline=None)
def test_soft_thresholds_shrink_and_never_cross_zero(values: list[float], strength: float, lr: float) -> None:
    for regulariser in (L1(strength), GroupLasso(strength), GroupLasso(strength, Weight())):
        layer = linear([values])
        before = layer.weight.data.clone()
        regulariser.proximal_(layer, lr)
        after = layer.weight.data
        assert torch.all(after.abs() <= before.abs())
        assert torch.all(after * before >= 0)
        if strength * lr == 0:
            assert torch.equal(after, before)
        else:
            assert not torch.signbit(after[after == 0]).any()  # +0.0, as masks write it


@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_the_proximal_step_ends_whole_units_exactly(unit: Granularity) -> None:
    model = net()
    GroupLasso(1.0, unit).proximal_(model, lr=0.12)
    known, cleared, kept = dict(model.named_parameters()), 0, 0
    for target in prunelab.targets.find_targets(model):
        alive = target.view((target.weight != 0).int(), unit)
        sizes = torch.as_tensor(unit.sizes(target.weight.shape, target.layout))
        ended = alive.sum(1) == 0
        assert torch.equal(alive.sum(1)[~ended], sizes.expand(len(alive))[~ended])
        for bias in target.biases if unit.covers_bias else ():
            assert torch.equal((known[bias] == 0).reshape(len(alive), -1).all(1), ended)
        cleared, kept = cleared + int(ended.sum()), kept + int((~ended).sum())
    assert cleared
    assert kept


# --- what training with each drives to zero ----------------------------------------------------------------------


def trained(regulariser: Proximal | None, how: str, model: nn.Module) -> nn.Module:
    hooks: dict = {}
    if regulariser is not None:
        hooks = {"penalty": regulariser.penalty} if how == "penalty" else {"proximal": regulariser.proximal_}
    train.fit(model, DIGITS, epochs=12, lr=0.2, optimizer=torch.optim.SGD, progress=False, **hooks)
    assert train.accuracy(model, DIGITS.val) > 0.8
    return model


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def unit_norms(model: nn.Module) -> Tensor:
    """Norms of the hidden neurons, bias included."""
    layer = model.get_submodule("1")
    return torch.cat([layer.weight, layer.bias[:, None]], 1).detach().norm(dim=1)


def test_training_with_l1_ends_single_weights_and_training_with_l2_none() -> None:
    """Exactly with the proximal step; below 0.005 in absolute value as a penalty; plain L2 does neither."""
    small, zeros = {}, {}
    for name, regulariser, how in (
        ("none", None, ""),
        ("l2", L2(1e-2), "penalty"),
        ("l2 proximal", L2(1e-2), "proximal"),
        ("l1", L1(1e-2), "penalty"),
        ("l1 proximal", L1(1e-2), "proximal"),
    ):
        weight = trained(regulariser, how, mlp()).get_submodule("1").weight.detach()
        zeros[name] = (weight == 0).double().mean().item()
        small[name] = (weight.abs() < 0.005).double().mean().item()
    assert [zeros[name] for name in ("none", "l2", "l2 proximal", "l1")] == [0, 0, 0, 0]
    assert zeros["l1 proximal"] > 0.5
    assert small["l1"] > 0.5
    assert max(small["none"], small["l2"], small["l2 proximal"]) < 0.1


def test_training_with_group_lasso_ends_whole_units_and_training_with_l2_none() -> None:
    """Exactly with the proximal step; a norm below 0.05 as a penalty; L2 does neither, and L1 takes weights, not units."""
    small, zeros = {}, {}
    for name, regulariser, how in (
        ("l2", L2(1e-2), "proximal"),
        ("l1", L1(3e-3), "proximal"),
        ("group", GroupLasso(1e-2), "penalty"),
        ("group proximal", GroupLasso(1e-2), "proximal"),
    ):
        norms = unit_norms(trained(regulariser, how, mlp()))
        zeros[name] = int((norms == 0).sum())
        small[name] = int((norms < 0.05).sum())
    assert zeros["l2"] == zeros["l1"] == zeros["group"] == 0
    assert zeros["group proximal"] >= 8
    assert small["group"] >= 8
    assert small["l2"] == 0


def test_training_with_slimming_ends_channels() -> None:
    """Scales exactly zero with the proximal step, below 0.02 as a penalty; L2 on the same scales does neither."""
    scales = {}
    for name, regulariser, how in (
        ("l2", L2(0.1, parameters=["bn1.weight"]), "proximal"),
        ("slimming", Slimming(0.1), "penalty"),
        ("slimming proximal", Slimming(0.1), "proximal"),
    ):
        torch.manual_seed(0)
        model = nn.Sequential()
        for part, module in (
            ("conv1", nn.Conv2d(1, 24, 3, bias=False)),
            ("bn1", nn.BatchNorm2d(24)),
            ("relu", nn.ReLU()),
            ("flatten", nn.Flatten()),
            ("fc", nn.Linear(24 * 36, 10)),
        ):
            model.add_module(part, module)
        scales[name] = trained(regulariser, how, model).get_submodule("bn1").weight.detach().abs()
    assert int((scales["slimming proximal"] == 0).sum()) >= 6
    assert not (scales["slimming"] == 0).any()
    assert int((scales["slimming"] < 0.02).sum()) >= 6
    assert not (scales["l2"] < 0.02).any()


def test_training_with_gates_ends_whole_units() -> None:
    l0, model = HardConcrete(1e-3), mlp()
    l0.attach_(model)
    train.fit(model, DIGITS, epochs=25, lr=2e-2, penalty=l0.penalty, progress=False)
    accuracy = train.accuracy(model, DIGITS.val)
    masks = l0.bake_(model)
    assert accuracy > 0.8
    assert train.accuracy(model, DIGITS.val) == accuracy
    ended = ~masks["1.bias"]
    assert ended.sum() >= 8
    assert not unit_norms(model)[ended].any()
    assert torch.equal(masks["1.weight"], masks["1.bias"][:, None].expand(32, 64))


# --- gates -------------------------------------------------------------------------------------------------------


def test_the_expected_l0_is_the_mean_over_samples_of_the_gates(device: torch.device) -> None:
    """The closed form of P(z > 0) against 20,000 samples, from nearly closed to nearly open."""
    layer = nn.Linear(3, 6, bias=False).to(device)
    l0 = HardConcrete(1.0)
    l0.attach_(layer)
    (gates,) = (module for module in layer.modules() if isinstance(module, Gates))
    gates.log_alpha.data = torch.tensor([-6.0, -3.0, -1.0, 0.0, 2.0, 4.0], device=device)
    torch.manual_seed(0)
    draws = []
    for _ in range(20_000):
        gates.draw()
        draws.append(gates().detach())
    samples = torch.stack(draws)
    frequency = (samples > 0).double().mean(0)
    torch.testing.assert_close(gates.open().detach().double(), frequency, rtol=0, atol=0.012)
    assert l0.penalty(layer).item() == pytest.approx(3 * frequency.sum().item(), abs=0.05)
    assert samples.min() == 0  # both ends are reached, exactly
    assert samples.max() == 1
    assert ((samples > 0) & (samples < 1)).any()


def test_gates_are_drawn_as_the_paper_says() -> None:
    """z = min(1, max(0, s (ζ - γ) + γ)) with s = σ((log u - log(1 - u) + log α) / τ), written out in plain Python."""
    layer = nn.Linear(2, 1)
    HardConcrete(1.0, initial=0.7).attach_(layer)
    (gates,) = (module for module in layer.modules() if isinstance(module, Gates))
    assert gates.open().item() == pytest.approx(0.7)
    for noise in (0.02, 0.3, 0.5, 0.9):
        gates.noise.fill_(noise)
        inner = (math.log(noise) - math.log(1 - noise) + gates.log_alpha.item()) * 3 / 2
        stretched = 1.2 / (1 + math.exp(-inner)) - 0.1
        assert gates().item() == pytest.approx(min(1.0, max(0.0, stretched)), abs=1e-6)
    settled = 1.2 / (1 + math.exp(-gates.log_alpha.item())) - 0.1
    assert gates.eval()().item() == pytest.approx(min(1.0, settled), abs=1e-6)


def test_gates_are_random_in_training_settled_in_eval_and_learn() -> None:
    model = mlp()
    HardConcrete(1e-3, initial=0.5).attach_(model)
    inputs = DIGITS.train[0][:5]
    torch.manual_seed(1)
    first, second = model(inputs), model(inputs)
    torch.manual_seed(1)
    assert torch.equal(model(inputs), first)
    assert not torch.equal(first, second)
    first.sum().backward()
    learned = [value.grad for name, value in model.named_parameters() if name.endswith("log_alpha")]
    assert all(grad is not None and grad.any() for grad in learned)
    model.eval()
    state = torch.get_rng_state()
    assert torch.equal(model(inputs), model(inputs))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_a_closed_gate_closes_its_unit_and_the_bias_follows_the_same_sample(unit: Granularity) -> None:
    model = net()
    plain = {name: value.detach().clone() for name, value in model.named_parameters()}
    HardConcrete(1.0, unit, initial=0.4).attach_(model)
    for target, module in zip(
        prunelab.targets.find_targets(net()), (model[0], model[2], model[3], model[5]), strict=True
    ):
        weight, bias = module.weight.detach(), module.bias
        factors = target.view(torch.where(plain[target.name] == 0, 1.0, weight / plain[target.name]), unit)
        sizes = torch.as_tensor(unit.sizes(target.weight.shape, target.layout)).expand(len(factors))
        inside = [row[: int(size)] for row, size in zip(factors, sizes, strict=True) if size == factors.shape[1]]
        assert all(torch.allclose(row, row[0].expand_as(row), atol=1e-5) for row in inside)  # one gate a unit
        if unit.covers_bias and bias is not None:
            of_bias = (bias.detach() / plain[f"{target.name[0]}.bias"]).reshape(len(factors), -1)
            torch.testing.assert_close(of_bias, factors[:, :1].expand_as(of_bias), rtol=0, atol=1e-4)
        elif bias is not None:
            assert torch.equal(bias, plain[f"{target.name[0]}.bias"])


@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_baking_keeps_what_the_model_computes_and_leaves_no_trace(unit: Granularity) -> None:
    model, twin = net(), net()
    l0 = HardConcrete(1.0, unit, initial=0.3)
    parameters = dict(model.named_parameters())
    l0.attach_(model)
    gates = [module for module in model.modules() if isinstance(module, Gates)]
    for index, one in enumerate(gates):
        one.log_alpha.data = torch.linspace((-4) ** (index % 2), 4, len(one.log_alpha))
    inputs = torch.randn(3, 2, 6, 6)
    model.eval()
    expected, masks = model(inputs), l0.masks(model)
    assert 0 < masks.sparsity < 1
    assert l0.bake_(model) == masks
    torch.testing.assert_close(model(inputs), expected)
    for name, mask in masks.items():
        value = parameters[name].detach()
        assert torch.equal(value != 0, mask)
        assert not torch.signbit(value[~mask]).any()
    assert {name: id(value) for name, value in model.named_parameters()} == {n: id(v) for n, v in parameters.items()}
    assert list(model.state_dict()) == list(twin.state_dict())
    for module, untouched in zip(model.modules(), twin.modules(), strict=True):
        assert type(module) is type(untouched)
        assert vars(module).keys() == vars(untouched).keys()
    assert not any(hooks for module in model.modules() for hooks in (module._forward_hooks, module._forward_pre_hooks))


def test_gates_survive_deepcopy_and_a_state_dict() -> None:
    l0, model = HardConcrete(1.0, initial=0.5), mlp()
    l0.attach_(model)
    model[1].parametrizations.weight[0].gates.log_alpha.data[3] = -9
    model.eval()
    inputs = DIGITS.val[0]
    twin, fresh = copy.deepcopy(model), mlp()
    l0.attach_(fresh)
    fresh.load_state_dict(model.state_dict())
    for other in (twin, fresh.eval()):
        assert torch.equal(other(inputs), model(inputs))
        assert l0.masks(other) == l0.masks(model)
    before = l0.penalty(model).item()
    twin[1].parametrizations.weight[0].gates.log_alpha.data[:] = -9  # the copy's gates are its own
    assert l0.penalty(model).item() == before > l0.penalty(twin).item()


# --- the whole range of models -----------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.relu(self.one(x)))


def test_a_shared_weight_counts_once_and_is_shrunk_once() -> None:
    model = Tied()
    weight = model.one.weight.detach().clone()
    assert L1(1.0).penalty(model).item() == pytest.approx(weight.abs().sum().item())
    rows = torch.cat([weight, model.one.bias.detach()[:, None], model.two.bias.detach()[:, None]], 1)
    assert GroupLasso(1.0).penalty(model).item() == pytest.approx(math.sqrt(5) * rows.norm(dim=1).sum().item())
    L1(0.1).proximal_(model, lr=1.0)
    torch.testing.assert_close(model.one.weight.data, weight.sign() * (weight.abs() - 0.1).clamp(min=0))
    assert model.two.weight is model.one.weight


def test_gates_on_a_shared_weight_are_shared_and_baked_in_once() -> None:
    model, l0 = Tied().eval(), HardConcrete(1.0, initial=0.5)
    l0.attach_(model)
    assert l0.penalty(model).item() == pytest.approx(0.5 * (9 + 3 + 3))
    inputs = torch.randn(4, 3)
    expected = model(inputs)
    l0.bake_(model)
    torch.testing.assert_close(model(inputs), expected)
    assert model.two.weight is model.one.weight


def test_a_bias_that_several_layers_share_belongs_to_no_unit() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].bias = model[0].bias
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[1].weight)
    nn.init.ones_(model[0].bias)
    assert GroupLasso(1.0).penalty(model).item() == 0
    GroupLasso(9.0).proximal_(model, lr=1.0)
    assert torch.equal(model[0].bias.data, torch.ones(2))


def test_frozen_parameters_are_left_alone() -> None:
    model = mlp()
    model[1].weight.requires_grad_(False)
    model[3].bias.requires_grad_(False)
    before = [value.detach().clone() for value in model.parameters()]
    weight = before[2]
    assert L1(1.0).penalty(model).item() == pytest.approx(weight.abs().sum().item())
    expected = math.sqrt(weight.shape[1]) * weight.norm(dim=1).sum().item()
    assert GroupLasso(1.0).penalty(model).item() == pytest.approx(expected)
    for regulariser in (L1(1.0), L2(1.0), GroupLasso(1.0)):
        regulariser.proximal_(model, lr=100.0)
    assert [torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)] == [
        True, True, False, True,
    ]  # fmt: skip
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert L1(1.0).penalty(model).item() == GroupLasso(1.0).penalty(model).item() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_sums_are_precise_in_every_type(dtype: torch.dtype, device: torch.device) -> None:
    """A thousand weights of 0.1: in half precision their running sum would stand still or overflow."""
    layer = nn.Linear(1000, 100, bias=False, device=device, dtype=dtype)
    nn.init.constant_(layer.weight, 0.1)
    value = layer.weight[0, 0].item()
    precision = torch.float64 if dtype == torch.float64 else torch.float32
    for regulariser, expected in (
        (L1(1.0), 1e5 * value),
        (L2(1.0), 1e5 * value**2 / 2),
        (GroupLasso(1.0), 100 * 1000 * value),
    ):
        penalty = regulariser.penalty(layer)
        assert penalty.dtype == precision
        assert penalty.item() == pytest.approx(expected, rel=1e-5)
        penalty.backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.dtype == dtype
    GroupLasso(1.0).proximal_(layer, lr=0.05)
    L1(1.0).proximal_(layer, lr=0.04)
    torch.testing.assert_close(layer.weight.data, torch.full_like(layer.weight, 0.01), rtol=0.05, atol=0)
    L1(1.0).proximal_(layer, lr=0.05)
    assert not layer.weight.any()
    l0 = HardConcrete(1.0, initial=0.5)
    l0.attach_(layer)
    assert layer.weight.dtype == dtype
    assert l0.penalty(layer).item() == pytest.approx(5e4, rel=1e-5)


def test_empty_infinite_and_not_a_number() -> None:
    empty = nn.Sequential(nn.Linear(3, 0), nn.Linear(0, 2))
    for regulariser in (L1(1.0), L2(1.0), GroupLasso(1.0, Weight()), GroupLasso(1.0, Channel())):
        regulariser.proximal_(empty, lr=1.0)
        assert regulariser.penalty(empty).item() == 0
    layer = linear([[math.inf, 1.0], [math.nan, 1.0], [0.1, 0.1]])
    GroupLasso(1.0).proximal_(layer, lr=1.0)
    assert layer.weight[0].tolist() == [math.inf, 1.0]
    assert layer.weight[1].isnan().all()  # an error that shows, not a zero that hides it
    assert layer.weight[2].tolist() == [0.0, 0.0]
    layer = linear([[math.inf, 1.0, math.nan]])
    L1(1.0).proximal_(layer, lr=2.0)
    assert layer.weight[0, :2].tolist() == [math.inf, 0.0]
    assert layer.weight[0, 2].isnan()


def test_parameters_choose_as_they_do_for_prune() -> None:
    model = mlp()
    assert L1(1.0, parameters=["3.bias"]).penalty(model).item() == pytest.approx(model[3].bias.abs().sum().item())
    one = GroupLasso(1.0, parameters=["1.weight"])
    one.proximal_(model, lr=100.0)
    assert not model[1].weight.any()
    assert model[3].weight.all()
    with pytest.raises(ValueError, match=r"unknown parameter '1\.wieght'; did you mean '1.weight'"):
        L1(1.0, parameters=["1.wieght"]).penalty(model)
    with pytest.raises(TypeError, match=r"not the string '1\.weight'"):
        L1(1.0, parameters="1.weight").penalty(model)
    both = GroupLasso(1.0).penalty(model).item()
    assert both - GroupLasso(1.0, exclude=["3.*"]).penalty(model).item() == pytest.approx(
        GroupLasso(1.0, parameters=["3.weight"]).penalty(model).item()
    )
    rest = L1(1.0, exclude=["3.*"]).penalty(model).item()
    assert rest == L1(1.0, parameters=["1.weight"]).penalty(model).item()
    names = (name for name in ["3.bias"])  # read once, when the value is made
    twice = L1(1.0, parameters=names)
    assert twice.penalty(model).item() == twice.penalty(model).item() > 0
    slim = net()
    assert Slimming(1.0, parameters=["1.weight"]).penalty(slim).item() == 4
    double = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(5))
    assert Slimming(1.0, exclude="0.weight").penalty(double).item() == 5
    with pytest.raises(ValueError, match=r"'0.weight' is not the scale of a batch normalisation; L1 takes any"):
        Slimming(1.0, parameters=["0.weight"]).penalty(slim)


def test_attention_heads_are_units_that_lie_in_several_parameters() -> None:
    """Two heads of four: their rows of queries, keys and values with biases, their columns of the output."""
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    for parameter in attention.parameters():
        nn.init.normal_(parameter)
    rows = torch.arange(24) // 4 % 2  # which head a row of the stacked projections belongs to
    expected = 0.0
    for head in (0, 1):
        stacked = [attention.in_proj_weight[rows == head], attention.in_proj_bias[rows == head]]
        members = [*stacked, attention.out_proj.weight[:, torch.arange(8) // 4 == head]]
        joined = torch.cat([part.detach().flatten() for part in members])
        assert len(joined) == 12 * 8 + 12 + 8 * 4
        expected += math.sqrt(len(joined)) * joined.norm().item()
    regulariser = GroupLasso(1.0, Head(2))
    assert regulariser.penalty(attention).item() == pytest.approx(expected, rel=1e-6)
    attention.in_proj_weight.data[rows == 0] *= 1e-3
    attention.in_proj_bias.data[rows == 0] *= 1e-3
    attention.out_proj.weight.data[:, :4] *= 1e-3
    regulariser.proximal_(attention, lr=0.1)
    for part, first in (
        (attention.in_proj_weight, rows == 0),
        (attention.in_proj_bias, rows == 0),
        (attention.out_proj.weight.T, torch.arange(8) < 4),
    ):
        assert not part[first].any()
        assert part[~first].all()


def test_gates_on_heads_close_a_head() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    l0 = HardConcrete(1.0, Head(2), initial=0.5)
    l0.attach_(attention)
    assert l0.penalty(attention).item() == pytest.approx(0.5 * 2 * (12 * 8 + 12 + 8 * 4))
    (gates,) = (module for module in attention.modules() if isinstance(module, Gates))
    gates.log_alpha.data = torch.tensor([-9.0, 9.0])
    masks = l0.bake_(attention)
    assert masks["in_proj_bias"].tolist() == 3 * [*4 * [False], *4 * [True]]
    assert torch.equal(masks["out_proj.weight"], (torch.arange(8) >= 4).expand(8, 8))


def test_values_are_checked_when_they_are_made() -> None:
    wrong: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: L1(-1.0), ValueError, r"L1\(strength=-1.0\) must be finite and not negative"),
        (lambda: GroupLasso(math.nan), ValueError, r"GroupLasso\(strength=nan\)"),
        (lambda: Slimming(True), TypeError, r"Slimming\(strength=True\) is a bool"),
        (lambda: GroupLasso(1.0, "filter"), TypeError, "granularity must be a Granularity such as Filter"),  # type: ignore[arg-type]
        (lambda: HardConcrete(1.0, initial=1.0), ValueError, "initial=1.0: the probability of an open gate lies"),
        (lambda: L1(1.0).proximal_(mlp(), lr=-0.1), ValueError, r"proximal_\(lr=-0.1\)"),
        (lambda: Slimming(1.0).penalty(mlp()), ValueError, "Sequential has no batch normalisation with a scale"),
        (lambda: HardConcrete(1.0).penalty(mlp()), ValueError, "Sequential has no gates; put them on with attach_"),
        (lambda: HardConcrete(1.0).bake_(mlp()), ValueError, "has no gates"),
        (lambda: L1(1.0).penalty(nn.ReLU()), ValueError, "no parameter to prune"),
    ]
    for call, error, message in wrong:
        with pytest.raises(error, match=message):
            call()
    assert L1(1.0) == L1(1)
    assert hash(GroupLasso(1.0, Kernel())) == hash(GroupLasso(1.0, Kernel()))


def test_gates_that_cannot_be_put_on_change_nothing() -> None:
    gated = mlp()
    HardConcrete(1.0).attach_(gated)
    transposed = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    transposed[1].weight = nn.Parameter(transposed[0].weight.detach())
    recurrent = nn.LSTM(3, 3)
    normed = nn.Sequential(nn.Linear(3, 3), nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    for model, l0, message in (
        (gated, HardConcrete(1.0), "the model has gates already; multiply them in with bake_"),
        (transposed, HardConcrete(1.0), "'0.weight' is shared as several Parameter objects"),
        (recurrent, HardConcrete(1.0, parameters=["weight_hh_l0"]), "LSTM, which keeps its own list of weights"),
        (normed, HardConcrete(1.0), "the weight of '1' is computed"),
    ):
        keys = list(model.state_dict())
        with pytest.raises(ValueError, match=message):
            l0.attach_(model)
        assert list(model.state_dict()) == keys
    with pytest.raises(ValueError, match="computed"):  # and a gated model is not pruned by masks that could not hold
        prunelab.prune(gated, 0.5)


def test_fit_with_gates_is_exact() -> None:
    runs = []
    for _ in range(2):
        l0, model = HardConcrete(1e-3, Kernel()), models.lenet5(8, seed=0)
        l0.attach_(model)
        history = train.fit(model, DIGITS, steps=6, penalty=l0.penalty, progress=False)
        runs.append((nn.utils.parameters_to_vector(model.parameters()), history[0].penalty))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


def test_a_copy_of_a_gated_model_is_baked_alone() -> None:
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), torch.randn(5, 4)
    l0 = HardConcrete(0.1, initial=0.5)
    l0.attach_(model)
    twin = copy.deepcopy(model)
    expected = model.eval()(x)
    l0.bake_(twin)
    torch.testing.assert_close(twin.eval()(x), expected)
    torch.testing.assert_close(model(x), expected)
    l0.bake_(model)
    torch.testing.assert_close(model(x), expected)
    assert type(model[0]) is type(twin[0]) is nn.Linear
