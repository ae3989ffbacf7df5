"""Optimal Brain Surgeon against least squares on what is left, against brute force, and on XOR."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from prunelab import curvature
from prunelab.curvature import obd, obs
from prunelab.granularity import Channel, Filter, Granularity, Group, Head, Kernel, Weight
from prunelab.masks import Masks

Data = list[tuple[Tensor, Tensor]]


def regression(inputs: int, seed: int, spread: float = 2.4, samples: int = 40) -> tuple[nn.Linear, Data]:
    """A linear regression at its minimum: the quadratic for which Optimal Brain Surgeon is exact.

    Its Hessian's eigenvalues span 2 · `spread` powers of ten.
    """
    generator = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(samples, inputs, generator=generator, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(inputs, inputs, generator=generator, dtype=torch.float64))[0]
    x = samples**0.5 * left * torch.logspace(0, -spread, inputs, dtype=torch.float64) @ right
    y = torch.randn(samples, 1, generator=generator, dtype=torch.float64)
    model = nn.Linear(inputs, 1, bias=False).double()
    model.weight.data = torch.linalg.lstsq(x, y).solution.T.contiguous()
    return model, [(x, y)]


def restricted(data: Data, kept: Tensor) -> Tensor:
    """The least-squares solution with the weights outside of `kept`, bool (inputs,), held at zero."""
    x, y = data[0]
    weights = torch.zeros(len(kept), dtype=torch.float64)
    weights[kept] = torch.linalg.lstsq(x[:, kept], y).solution[:, 0]
    return weights


def loss_at(data: Data, weights: Tensor) -> float:
    x, y = data[0]
    return float((x @ weights - y[:, 0]).square().mean())


def sequence(run: curvature.Run) -> list[tuple[str, tuple[int, ...]]]:
    return [(step.parameter, step.index) for step in run.steps]


@settings(max_examples=40)
@given(inputs=st.integers(2, 8), seed=st.integers(0, 10**6), refresh=st.sampled_from([1, 2, None]))
def test_a_sequence_of_deletions_is_least_squares_on_what_is_left(inputs: int, seed: int, refresh: int | None) -> None:
    model, data = regression(inputs, seed)
    run = obs(model, data, F.mse_loss, 0, refresh=refresh)
    before = loss_at(data, model.weight[0].detach())
    for step in run.steps:
        pruned = run.model_at(step.weights_left).weight[0].detach()
        kept = run.masks_at(step.weights_left)["weight"][0]
        assert pruned[step.index[1]] == 0.0
        assert not pruned[~kept].any()
        assert int(kept.sum()) == step.weights_left
        exact = restricted(data, kept)
        torch.testing.assert_close(pruned, exact, atol=1e-9, rtol=0)
        now = loss_at(data, exact)
        # Compared absolutely: the predicted increase may be a difference of nearly equal losses.
        assert step.measured_increase == pytest.approx(now - before, abs=1e-12)
        assert step.predicted_increase == pytest.approx(step.measured_increase, abs=1e-11)
        assert step.objective == pytest.approx(now, abs=1e-12)
        before = now


@settings(max_examples=40)
@given(inputs=st.integers(2, 8), seed=st.integers(0, 10**6))
def test_for_one_weight_surgeon_is_best_then_damage_then_magnitude(inputs: int, seed: int) -> None:
    """Hassibi & Stork 1993: E(mag) ≥ E(OBD) ≥ E(OBS), for one deletion from an exact quadratic."""
    model, data = regression(inputs, seed)
    first = {name: run.steps[0].measured_increase for name, run in {
        "obs": obs(model, data, F.mse_loss, inputs - 1),
        "obd": obd(model, data, F.mse_loss, inputs - 1),
        "magnitude": obd(model, data, F.mse_loss, inputs - 1, method="magnitude"),
    }.items()}  # fmt: skip
    assert first["obs"] <= first["obd"] + 1e-12
    assert first["obd"] <= first["magnitude"] + 1e-12  # without cross terms one deletion costs exactly its saliency


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_the_first_choice_is_the_best_of_all_single_deletions(seed: int) -> None:
    model, data = regression(6, seed)
    left = [loss_at(data, restricted(data, torch.arange(6) != q)) for q in range(6)]
    step = obs(model, data, F.mse_loss, 5).steps[0]
    assert step.objective == pytest.approx(min(left), abs=1e-12)
    best = min(range(6), key=left.__getitem__)
    assert step.index == (0, best)


def test_greedy_deletion_stays_near_the_best_of_all_subsets() -> None:
    """Over 30 problems of 8 weights, every size of subset: 1.05 times the best increase on average, 2.1 times at worst, and
    exactly the best in three of four."""
    ratios = []
    for seed in range(30):
        model, data = regression(8, seed, spread=1.0)
        start = loss_at(data, model.weight[0].detach())
        run = obs(model, data, F.mse_loss, 1)
        for step in run.steps:
            subsets = itertools.combinations(range(8), step.weights_left)
            kept = (torch.isin(torch.arange(8), torch.tensor(subset)) for subset in subsets)
            best = min(loss_at(data, restricted(data, k)) for k in kept) - start
            ratios.append((step.objective - start) / best)
    assert min(ratios) > 1 - 1e-9
    assert sum(ratios) / len(ratios) < 1.06
    assert max(ratios) < 2.1
    assert sum(ratio < 1 + 1e-6 for ratio in ratios) > 0.7 * len(ratios)


# --- XOR ---------------------------------------------------------------------------------------------------------

XOR = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float64), torch.tensor([0, 1, 1, 0])
DECAY = 1e-3


def xor_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs[:, 0] - targets).square().mean() / 2


def right(model: nn.Module) -> int:
    with torch.no_grad():
        return int(((model(XOR[0])[:, 0] - 0.5) * (2 * XOR[1] - 1) > 0).sum())


def trained_on_xor(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1)).double()
    weights = list(model.parameters())
    optimizer = torch.optim.LBFGS(
        weights, max_iter=2000, tolerance_grad=1e-11, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        value = xor_loss(model(XOR[0]), XOR[1]) + DECAY / 2 * torch.stack([w.square().sum() for w in weights]).sum()
        value.backward()
        return value

    optimizer.step(objective)
    return model


def test_xor_only_surgeon_deletes_a_right_weight() -> None:
    """A 2-2-1 network has 9 weights and needs no more than 8: with the right one gone, and no retraining, it still
    solves XOR."""
    found = {"obs": [], "obd": [], "magnitude": []}
    for seed in range(8):
        model = trained_on_xor(seed)
        if right(model) < 4:
            continue  # a local minimum
        data, settings = [XOR], {"weight_decay": DECAY}
        found["obs"].append(right(obs(model, data, xor_loss, 8, **settings).model))
        found["obd"].append(right(obd(model, data, xor_loss, 8, **settings).model))
        found["magnitude"].append(right(obd(model, data, xor_loss, 8, method="magnitude", **settings).model))

    assert len(found["obs"]) >= 4
    assert set(found["obs"]) == {4}
    assert 4 not in found["obd"]
    assert 4 not in found["magnitude"]


# --- networks ----------------------------------------------------------------------------------------------------


def network(seed: int = 0, hidden: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 1)).double()


def examples(count: int = 20, seed: int = 1) -> Data:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return [(x, (x[:, :1] * x[:, 1:]).sin())]


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def objective(model: nn.Module, data: Data, decay: float) -> float:
    with torch.no_grad():
        return float(F.mse_loss(model(data[0][0]), data[0][1]) + decay / 2 * flat(model).square().sum())


def by_hand(model: nn.Module, data: Data, decay: float, deletions: int) -> list[tuple[int, float, float, Tensor]]:
    """Optimal Brain Surgeon written out: (position, L_q, shift, weights) of each deletion."""
    model = copy.deepcopy(model)
    alive, found = list(range(len(flat(model)))), []
    for _ in range(deletions):
        matrix = curvature.hessian(model, data, F.mse_loss, weight_decay=decay)[alive][:, alive]
        smallest = float(torch.linalg.eigvalsh(matrix)[0])
        shift = 1e-4 - smallest if smallest <= 1e-12 else 0.0
        inverse = torch.linalg.inv(matrix + shift * torch.eye(len(alive), dtype=torch.float64))
        weights = flat(model)
        costs = [float(weights[a] ** 2 / (2 * inverse[i, i])) for i, a in enumerate(alive)]
        q = min(range(len(alive)), key=costs.__getitem__)
        for i, a in enumerate(alive):
            weights[a] -= flat(model)[alive[q]] / inverse[q, q] * inverse[i, q]
        weights[alive[q]] = 0.0
        nn.utils.vector_to_parameters(weights, model.parameters())
        found.append((alive.pop(q), costs[q], shift, weights.clone()))
    return found


@pytest.mark.parametrize("decay", [0.0, 0.01, 3.0])
def test_the_loop_written_out(decay: float) -> None:
    model, data = network(), examples()
    run = obs(model, data, F.mse_loss, 4, weight_decay=decay)
    starts = {"0.weight": 0, "0.bias": 6, "2.weight": 9, "2.bias": 12}
    value = objective(model, data, decay)
    assert run.objective == pytest.approx(value, abs=1e-12)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    for step, (position, cost, shift, weights) in zip(run.steps, by_hand(model, data, decay, 9), strict=True):
        flat_index = torch.arange(100)[: shapes[step.parameter].numel()].view(shapes[step.parameter])[step.index]
        assert starts[step.parameter] + int(flat_index) == position
        assert step.predicted_increase == pytest.approx(cost, rel=1e-6)
        assert step.shift == pytest.approx(shift, abs=1e-10)
        pruned = run.model_at(step.weights_left)
        torch.testing.assert_close(flat(pruned), weights, atol=1e-6, rtol=1e-6)
        now = objective(pruned, data, decay)
        assert step.measured_increase == pytest.approx(now - value, abs=1e-12)
        assert step.objective == pytest.approx(now, abs=1e-12)
        value = now
    assert any(step.shift for step in run.steps) == (decay < 1)  # an untrained network without decay is indefinite


def test_a_run_remembers_every_network_and_leaves_the_callers_alone() -> None:
    model, data = network(), examples()
    model[0].bias.requires_grad_(False)
    model.train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    run = obs(model, data, F.mse_loss, 0, weight_decay=0.01, accuracy=lambda m: float(flat(m).count_nonzero()))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert [step.weights_left for step in run.steps] == list(range(12, -1, -1))
    assert len(run) == run.weights == 13
    assert run.weights_left == 0
    assert torch.equal(flat(run.model_at(13)), flat(model))
    for step in run.steps:
        pruned = run.model_at(step.weights_left)
        masks = run.masks_at(step.weights_left)
        assert isinstance(masks, Masks)
        assert list(masks) == [name for name, _ in model.named_parameters()]
        assert masks.total - masks.removed == step.weights_left == step.accuracy
        assert all(not value[~masks[name]].any() for name, value in pruned.named_parameters())
        assert pruned.get_parameter(step.parameter)[step.index] == 0.0
        assert not masks[step.parameter][step.index]
        assert pruned.training
        assert not pruned[0].bias.requires_grad
    assert torch.equal(flat(run.model), torch.zeros(13))
    assert run.masks.sparsity == 1.0
    again = run.model_at(5)
    flat(again)  # a copy each time
    again[0].weight.data.fill_(9)
    assert not torch.equal(flat(run.model_at(5)), flat(again))
    assert repr(run).startswith("Run(13 deletions, 13 to 0 weights; objective ")
    with pytest.raises(ValueError, match=r"never had 14 weights left: it went from 13 to 0"):
        run.model_at(14)


def test_what_is_zero_goes_first_and_equals_go_by_position() -> None:
    x = torch.eye(4, dtype=torch.float64)
    model = nn.Linear(4, 1, bias=False).double()
    model.weight.data = torch.tensor([[2.0, 1.0, 0.0, 1.0]], dtype=torch.float64)
    data = [(x, x @ model.weight.data.T)]
    for run in (obs(model, data, F.mse_loss, 0), obd(model, data, F.mse_loss, 0)):
        assert [step.index for step in run.steps] == [(0, 2), (0, 1), (0, 3), (0, 0)]
        assert [step.predicted_increase for step in run.steps] == pytest.approx([0, 0.25, 0.25, 1.0])


def test_in_inference_mode_and_under_no_grad() -> None:
    model, data = network(), examples()
    runs = [
        (obs, {}),
        (obs, {"method": "samples"}),
        (obd, {}),
        (obd, {"method": "hutchinson"}),
        (obd, {"method": "lecun"}),
    ]
    for prune, extra in runs:
        plain = prune(model, data, F.mse_loss, 8, weight_decay=0.1, **extra)
        with torch.inference_mode():
            assert sequence(prune(model, data, F.mse_loss, 8, weight_decay=0.1, **extra)) == sequence(plain)
        with torch.no_grad():
            assert sequence(prune(model, data, F.mse_loss, 8, weight_decay=0.1, **extra)) == sequence(plain)
    with torch.inference_mode():
        inside = curvature.hessian(model, data, F.mse_loss), curvature.gauss_newton(model, data, F.mse_loss).matrix()
        swept = curvature.hessian_diagonal(model, data, F.mse_loss)
    torch.testing.assert_close(inside[0], curvature.hessian(model, data, F.mse_loss))
    torch.testing.assert_close(inside[1], curvature.gauss_newton(model, data, F.mse_loss).matrix())
    torch.testing.assert_close(torch.cat([v.reshape(-1) for v in swept.values()]), inside[0].diag())


def test_a_compiled_model_and_a_loader() -> None:
    model, data = network(), examples()
    compiled = torch.compile(model, backend="eager")
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data[0]), batch_size=7, shuffle=True)
    for prune in (obs, obd):
        plain = prune(model, data, F.mse_loss, 6, weight_decay=0.1)
        assert sequence(prune(compiled, loader, F.mse_loss, 6, weight_decay=0.1)) == sequence(plain)
        assert list(prune(compiled, data, F.mse_loss, 6, weight_decay=0.1).masks) == [
            "0.weight",
            "0.bias",
            "2.weight",
            "2.bias",
        ]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_layer_that_reads_nothing() -> None:
    model = nn.Sequential(nn.Linear(0, 2), nn.Tanh(), nn.Linear(2, 1)).double()
    data = [(torch.zeros(4, 0, dtype=torch.float64), torch.ones(4, 1, dtype=torch.float64))]
    assert curvature.hessian(model, data, F.mse_loss).shape == (5, 5)
    for prune in (obs, obd):
        assert prune(model, data, F.mse_loss, 0, weight_decay=0.1).weights_left == 0


def test_nothing_to_do_and_everything() -> None:
    model, data = network(), examples()
    run = obs(model, data, F.mse_loss, 13)
    assert run.steps == []
    assert torch.equal(flat(run.model), flat(model))
    assert run.masks.sparsity == 0.0
    assert obs(model, data, F.mse_loss, 0, weight_decay=0.1).weights_left == 0


def test_named_parameters_alone_change_and_excluded_ones_stay() -> None:
    model, data = network(), examples()
    run = obs(model, data, F.mse_loss, 5, parameters=["0.*", "2.weight"], exclude=["0.bias"], weight_decay=0.01)
    assert run.weights == 9 + 3 - 3  # a glob means the weights of Linear layers: 6 and 3
    assert {step.parameter for step in run.steps} <= {"0.weight", "2.weight"}
    pruned = run.model
    assert torch.equal(pruned[2].bias, model[2].bias)
    run = obs(model, data, F.mse_loss, 4, exclude="*.bias", weight_decay=0.01)
    assert run.weights == 13
    assert {step.parameter for step in run.steps} == {"0.weight", "2.weight"}
    assert run.model[0].bias.all()
    assert not torch.equal(run.model[0].bias, model[0].bias)  # it is updated
    with pytest.raises(ValueError, match="weights_left=3, but 4 of the 13 weights belong to no unit"):
        obs(model, data, F.mse_loss, 3, exclude="*.bias")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_surgeon_works_in_float64_whatever_the_model_has(dtype: torch.dtype, device: torch.device) -> None:
    model, data = network(), [(x.float(), y.float()) for x, y in examples()]
    model = model.to(device=device, dtype=dtype)
    doubled = copy.deepcopy(model).double()
    run = obs(model, data, F.mse_loss, 5, weight_decay=0.01)
    exact = obs(doubled, [(x.double(), y.double()) for x, y in data], F.mse_loss, 5, weight_decay=0.01)
    assert sequence(run) == sequence(exact)
    assert run.model[0].weight.dtype == dtype
    assert run.model[0].weight.device.type == device.type
    torch.testing.assert_close(flat(run.model), flat(exact.model).to(dtype))
    assert run.masks == exact.masks


def test_down_dates_between_refreshes_are_those_of_one_inverse() -> None:
    """With refresh=None the Hessian is that of the beginning, with what is gone taken out."""
    model, data = network(hidden=8), examples()
    matrix = curvature.hessian(model, data, F.mse_loss, weight_decay=3.0)
    run = obs(model, data, F.mse_loss, 10, weight_decay=3.0, refresh=None)
    alive, weights = list(range(len(matrix))), flat(model)
    for step in run.steps:
        inverse = torch.linalg.inv(matrix[alive][:, alive])
        costs = weights[alive] ** 2 / (2 * inverse.diag())
        q = int(costs.argmin())
        weights[alive] -= weights[alive[q]] / inverse[q, q] * inverse[:, q]
        weights[alive.pop(q)] = 0.0
        assert step.predicted_increase == pytest.approx(float(costs[q]), rel=1e-9)
        torch.testing.assert_close(flat(run.model_at(step.weights_left)), weights, atol=1e-11, rtol=0)
    often = obs(model, data, F.mse_loss, 10, weight_decay=3.0, refresh=1)
    seldom = obs(model, data, F.mse_loss, 10, weight_decay=3.0, refresh=3)
    assert seldom.steps[0] == often.steps[0]
    assert seldom.steps[1].predicted_increase != often.steps[1].predicted_increase
    assert seldom.steps[3].predicted_increase != run.steps[3].predicted_increase


def test_samples_are_the_gauss_newton_matrix_of_what_is_left() -> None:
    model, data = network(), examples()
    run = obs(model, data, F.mse_loss, 11, method="samples", damping=1e-3, weight_decay=0.01)
    alive, weights, current = list(range(13)), flat(model), copy.deepcopy(model)
    for step in run.steps:
        matrix = curvature.gauss_newton(current, data, F.mse_loss).matrix()[alive][:, alive]
        inverse = torch.linalg.inv(matrix + 0.011 * torch.eye(len(alive), dtype=torch.float64))
        costs = weights[alive] ** 2 / (2 * inverse.diag())
        q = int(costs.argmin())
        weights[alive] -= weights[alive[q]] / inverse[q, q] * inverse[:, q]
        weights[alive.pop(q)] = 0.0
        nn.utils.vector_to_parameters(weights.clone(), current.parameters())
        assert step.predicted_increase == pytest.approx(float(costs[q]), rel=1e-8)
        torch.testing.assert_close(flat(run.model_at(step.weights_left)), weights, atol=1e-9, rtol=0)


def test_damping_changes_the_matrix_and_not_the_objective() -> None:
    model, data = regression(5, 0)
    x, y = data[0]
    damped = obs(model, data, F.mse_loss, 4, damping=0.5)
    matrix = 2 * x.T @ x / len(x) + 0.5 * torch.eye(5, dtype=torch.float64)
    costs = model.weight[0].detach() ** 2 / (2 * torch.linalg.inv(matrix).diag())
    assert damped.steps[0].predicted_increase == pytest.approx(float(costs.min()))
    assert damped.objective == pytest.approx(float(F.mse_loss(model(x), y).detach()))


# --- retraining --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prune", [obs, obd])
def test_retraining_works_on_the_copy_and_deleted_weights_stay_zero(prune: Any) -> None:
    model, data = network().float(), [(x.float(), y.float()) for x, y in examples()]
    model.append(nn.BatchNorm1d(1))
    seen = []

    def retrain(copied: nn.Module, masks: Masks) -> None:
        assert copied is not model
        assert torch.is_grad_enabled()
        seen.append(masks.total - masks.removed)
        assert all(not p[~masks[n]].any() for n, p in copied.named_parameters())
        copied.train()
        optimizer = torch.optim.SGD(copied.parameters(), lr=0.05, momentum=0.9)
        for _ in range(3):  # nothing holds the zeros: the loop sets them again
            optimizer.zero_grad()
            F.mse_loss(copied(data[0][0]), data[0][1]).backward()
            optimizer.step()
        copied.eval()

    before = copy.deepcopy(model.state_dict())
    run = prune(model, data, F.mse_loss, 8, weight_decay=0.01, retrain=retrain)
    assert seen == [14, 13, 12, 11, 10, 9, 8]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for step in run.steps:
        pruned = run.model_at(step.weights_left).eval()
        masks = run.masks_at(step.weights_left)
        assert all(not p[~masks[n]].any() for n, p in pruned.named_parameters())
        value = F.mse_loss(pruned(data[0][0]), data[0][1]) + 0.005 * flat(pruned).square().sum()
        assert step.objective == pytest.approx(float(value.detach()), abs=1e-5)  # with the statistics it had then
    assert run.model_at(13)[3].num_batches_tracked == 6  # two retrainings of three steps
    assert model[3].num_batches_tracked == 0
    measured = [run.objective, *(step.objective for step in run.steps)]
    without = prune(model, data, F.mse_loss, 8, weight_decay=0.01)
    assert without.steps[0].measured_increase == pytest.approx(run.steps[0].measured_increase)
    assert measured[1] != pytest.approx(without.steps[0].objective)


# --- units -------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_a_group_at_once_is_the_best_group_by_least_squares(seed: int) -> None:
    model, data = regression(8, seed, spread=1.5)
    groups = [range(start, min(start + 3, 8)) for start in (0, 3, 6)]  # the last one is short
    run = obs(model, data, F.mse_loss, 2, granularity=Group(1, 3))
    kept = torch.ones(8, dtype=torch.bool)
    before = loss_at(data, model.weight[0].detach())
    for step in run.steps:

        def without(group: range, kept: Tensor = kept) -> float:
            return loss_at(data, restricted(data, kept & ~torch.isin(torch.arange(8), torch.tensor(list(group)))))

        fits = [g for g in groups if bool(kept[list(g)].all()) and int(kept.sum()) - len(g) >= 2]
        best = min(fits, key=without)
        now = without(best)
        kept = kept & ~torch.isin(torch.arange(8), torch.tensor(list(best)))
        assert step.index == (groups.index(best),)
        assert step.removed == len(best)
        assert step.predicted_increase == pytest.approx(now - before, abs=1e-11)
        assert step.measured_increase == pytest.approx(now - before, abs=1e-11)
        assert step.weights_left == int(kept.sum())
        torch.testing.assert_close(
            run.model_at(step.weights_left).weight[0].detach(), restricted(data, kept), atol=1e-9, rtol=0
        )
        before = now
    assert run.weights_left in {2, 3}  # two of three groups fit


@pytest.mark.parametrize("prune", [obs, obd])
@pytest.mark.parametrize(
    ("granularity", "sizes"),
    [
        (Weight(), {1}),
        (Filter(), {2 * 9 + 1, 3 * 4}),
        (Channel(), {3 * 9, 2 * 4}),
        (Kernel(), {9, 1}),
        (Group(2, 3), {6, 3, 2, 4}),
    ],
    ids=str,
)
def test_every_granularity(prune: Any, granularity: Granularity, sizes: set[int]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2, bias=False)).double()
    x, y = torch.randn(9, 2, 4, 4, dtype=torch.float64), torch.randn(9, 2, dtype=torch.float64)
    run = prune(model, [(x, y)], F.mse_loss, 55, granularity=granularity, weight_decay=0.05)
    assert run.weights == 54 + 3 + 24
    assert run.weights_left >= 55
    assert run.steps
    for step in run.steps:
        masks = run.masks_at(step.weights_left)
        gone = step.removed
        assert gone in sizes | {2 * 9 + 1, 12, 27, 2}
        assert masks.total - masks.removed == step.weights_left
        if granularity == Filter() and step.parameter == "0.weight":
            assert not masks["0.weight"][step.index[0]].any()
            assert not masks["0.bias"][step.index[0]]  # the bias goes with it
            assert gone == 19
    left = {name: mask for name, mask in run.masks.items() if not name.endswith("bias")}
    for name, mask in left.items():  # units are whole
        view = granularity.view(mask.to(torch.int8))
        live = view.sum(1)
        full = granularity.view(torch.ones_like(mask, dtype=torch.int8)).sum(1)
        assert bool(((live == 0) | (live == full)).all()), name


@pytest.mark.parametrize("prune", [obs, obd])
def test_heads_and_grouped_and_transposed_convolutions(prune: Any) -> None:
    torch.manual_seed(0)
    attention = nn.TransformerEncoderLayer(4, 2, dim_feedforward=2, batch_first=True, dropout=0.0).double()
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    settings: dict[str, Any] = {} if prune is obs else {"method": "hutchinson"}
    run = prune(attention, [(x, x)], F.mse_loss, 80, granularity=Head(2), weight_decay=0.05, **settings)
    assert len(run.steps) == 1
    number = run.steps[0].index[0]
    masks = run.masks
    for part in range(3):
        rows = slice(4 * part + 2 * number, 4 * part + 2 * number + 2)
        assert not masks["self_attn.in_proj_weight"][rows].any()
        assert not masks["self_attn.in_proj_bias"][rows].any()
    assert not masks["self_attn.out_proj.weight"][:, 2 * number : 2 * number + 2].any()
    assert run.steps[0].removed == 6 * 4 + 6 + 8 == masks.removed
    transposed = nn.ConvTranspose1d(4, 6, 2, groups=2).double()
    x = torch.randn(3, 4, 3, dtype=torch.float64)
    y = torch.randn(3, 6, 4, dtype=torch.float64)
    run = prune(transposed, [(x, y)], F.mse_loss, 25, granularity=Filter(), weight_decay=0.05, **settings)
    for step in run.steps:
        filter_ = step.index[0]
        group, inner = divmod(filter_, 3)
        assert not run.masks["weight"][2 * group : 2 * group + 2, inner].any()
        assert not run.masks["bias"][filter_]


def test_a_bias_that_two_layers_share_stays() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)).double()
    model[2].bias = model[0].bias
    x = torch.randn(9, 2, dtype=torch.float64)
    run = obs(model, [(x, x)], F.mse_loss, 2, granularity=Filter(), weight_decay=0.1)
    assert run.weights == 10
    assert run.weights_left == 2
    assert run.masks["0.bias"].all()


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prune", [obs, obd])
@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"weights_left": -1}, ValueError, "weights_left must be a whole number, 0 or more, not -1"),
        ({"weights_left": 2.5}, ValueError, "weights_left must be a whole number"),
        ({"weights_left": 14}, ValueError, "weights_left=14, but there are only 13 weights"),
        ({"method": "fisher"}, ValueError, "method must be .*not 'fisher'"),
        ({"granularity": Filter}, TypeError, r"granularity must be a Granularity such as Filter\(\)"),
        ({"retrain": 3}, TypeError, r"retrain must be a function retrain\(model, masks\)"),
        ({"accuracy": 0.9}, TypeError, r"accuracy must be a function accuracy\(model\)"),
        ({"weight_decay": -1}, ValueError, "weight_decay must be finite"),
        ({"data": None}, TypeError, "data must be batches"),
        ({"loss": nn.MSELoss}, TypeError, r"write MSELoss\(\)"),
        ({"exclude": "nothing"}, ValueError, "unknown parameter 'nothing'"),
        ({"exclude": "*"}, ValueError, "no parameter to prune"),
    ],
)
def test_what_makes_no_sense_is_refused(
    prune: Any, change: dict[str, Any], kind: type[Exception], message: str
) -> None:
    given: dict[str, Any] = {"model": network(), "data": examples(), "loss": F.mse_loss, "weights_left": 5, **change}
    with pytest.raises(kind, match=message):
        prune(**given)


def test_settings_of_one_method_are_refused() -> None:
    for refresh in (0, -3, 1.5):
        with pytest.raises(ValueError, match="refresh must be a whole number, 1 or more"):
            obs(network(), examples(), F.mse_loss, 5, refresh=refresh)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="damping must be finite"):
        obs(network(), examples(), F.mse_loss, 5, damping=-1)
    with pytest.raises(ValueError, match="give damping above 0"):
        obs(network(), examples(), F.mse_loss, 5, method="samples")
    with pytest.raises(ValueError, match="rounds must be a whole number, 1 or more"):
        obd(network(), examples(), F.mse_loss, 5, rounds=0)


@pytest.mark.parametrize("prune", [obs, obd])
def test_weights_that_are_not_finite_are_refused(prune: Any) -> None:
    model = network()
    model[0].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        prune(model, examples(), F.mse_loss, 5)
