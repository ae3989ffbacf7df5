"""Movement against sums written out by hand beside the training."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prunelab
from prunelab.criteria import Movement
from prunelab.granularity import Channel, Filter, Head, Layer, Weight
from prunelab.schedule import AGP


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, each: Callable[[], None] = lambda: None
) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(5, 3, generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x.to(next(model.parameters()))).float(), torch.arange(5) % 2).backward()
        each()
        optimizer.step()


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_the_sum_over_steps_of_minus_weight_times_gradient(make: Any) -> None:
    model = network()
    optimizer, sums = make(model.parameters(), lr=0.1), {"0.weight": 0, "2.weight": 0}

    def each() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        for name in sums:
            p = model.get_parameter(name)
            sums[name] = sums[name] - p.detach() * p.grad

    movement = Movement()
    with movement.watch(model, optimizer):
        train(model, optimizer, 4, each)
    train(model, optimizer, 2)  # not watched
    with movement.watch(model, optimizer):
        train(model, optimizer, 3, each)
    for granularity in (Weight(), Filter(), Channel(), Layer()):
        scores = prunelab.score(model, movement, granularity)
        for name, total in sums.items():
            torch.testing.assert_close(scores[name], granularity.view(total).sum(1))
    assert repr(movement) == "Movement(7 steps watched)"


def test_weights_that_move_away_from_zero_are_kept_however_small() -> None:
    model = nn.Linear(4, 1, bias=False)
    model.weight.data[:] = torch.tensor([[0.1, 3.0, -0.1, -3.0]])
    goal, optimizer, movement = (
        torch.tensor([[2.0, 2.0, -2.0, -2.0]]),
        torch.optim.SGD(model.parameters(), 0.05),
        Movement(),
    )
    with movement.watch(model, optimizer):
        for _ in range(5):
            optimizer.zero_grad()
            (model.weight - goal).square().sum().backward()
            optimizer.step()
    assert model.weight.detach().abs().argsort()[0, :2].sort().values.tolist() == [0, 2]  # still the smallest
    by_magnitude = prunelab.prune(copy.deepcopy(model), 0.5)
    by_movement = prunelab.prune(copy.deepcopy(model), 0.5, criterion=movement)
    assert by_movement["weight"].tolist() == [[True, False, True, False]]
    assert by_magnitude["weight"].tolist() == [[False, True, False, True]]


def test_nothing_stays_on_the_optimizer_also_when_training_raises() -> None:
    model = network()
    optimizer, movement = torch.optim.SGD(model.parameters(), lr=0.1), Movement()

    def stop() -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), movement.watch(model, optimizer):
        train(model, optimizer, 1, stop)
    with movement.watch(model, optimizer):
        train(model, optimizer, 1)
    assert not optimizer._optimizer_step_pre_hooks
    before = prunelab.score(model, movement)
    train(model, optimizer, 1)
    after = prunelab.score(model, movement)
    assert all(torch.equal(before[name], after[name]) for name in before)
    fresh = Movement()  # no state is shared between two of them
    assert repr(fresh) == "Movement(0 steps watched)"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_sums_of_half_precision_are_float32(dtype: torch.dtype) -> None:
    model = nn.Linear(1, 1, bias=False).to(dtype)
    model.weight.data.fill_(1)
    optimizer, movement = torch.optim.SGD(model.parameters(), lr=0.0), Movement()
    with movement.watch(model, optimizer):
        for _ in range(3000):  # bfloat16 would stop counting at 256, float16 at 2048
            model.weight.grad = -torch.ones_like(model.weight)
            optimizer.step()
    scores = prunelab.score(model, movement)["weight"]
    assert scores.tolist() == [3000.0]
    assert scores.dtype == (dtype if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_count_without_the_scale_of_a_grad_scaler_and_skipped_steps_do_not(fused: bool) -> None:
    model, movement = nn.Linear(1, 1, bias=False), Movement()
    model.weight.data.fill_(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with movement.watch(model, optimizer):
        for slope in (3.0, float("inf"), 4.0):
            optimizer.zero_grad()
            scaler.scale((slope * model.weight).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
    assert prunelab.score(model, movement)["weight"].tolist() == [-2 * (3.0 + 4.0)]
    assert repr(movement) == "Movement(2 steps watched)"


def test_a_pruner_removes_what_has_moved_towards_zero() -> None:
    model = network()
    optimizer, movement = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9), Movement()
    with movement.watch(model, optimizer):
        pruner = prunelab.pruner.Pruner(
            model, optimizer, schedule=AGP(0.6, start=2, end=10, every=2), criterion=movement
        )
        for _ in range(10):
            train(model, optimizer, 1)
            pruner.step()
    assert pruner.masks.removed == 12
    scores = prunelab.score(model, movement)
    gone = torch.cat([scores[name][~pruner.masks[name].flatten()] for name in scores])
    assert gone.mean() < torch.cat([scores[name][pruner.masks[name].flatten()] for name in scores]).mean()


def test_copies_pickles_and_compiled_models_are_the_same_model() -> None:
    model = network()
    optimizer, movement = torch.optim.SGD(model.parameters(), lr=0.1), Movement()
    with movement.watch(torch.compile(model, backend="eager"), optimizer):
        train(model, optimizer, 2)
    scores = prunelab.score(model, movement)
    again = pickle.loads(pickle.dumps(movement))
    for other, criterion in ((copy.deepcopy(model), movement), (model, again)):
        found = prunelab.score(other, criterion)
        assert all(torch.equal(found[name], scores[name]) for name in scores)


def test_heads_and_shared_weights() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 4, dropout=0.0, batch_first=True)
    optimizer, movement, x = torch.optim.SGD(layer.parameters(), lr=0.1), Movement(), torch.randn(2, 3, 4)
    expected = torch.zeros(2)
    with movement.watch(layer, optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            layer(x).tanh().square().mean().backward()
            attention = layer.self_attn
            packed = (
                (attention.in_proj_weight * attention.in_proj_weight.grad).detach().reshape(3, 2, 2, 4).sum((0, 2, 3))
            )
            out = (attention.out_proj.weight * attention.out_proj.weight.grad).detach().reshape(4, 2, 2).sum((0, 2))
            expected -= packed + out
            optimizer.step()
    torch.testing.assert_close(prunelab.score(layer, movement, Head(2))["self_attn.in_proj_weight"], expected)
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    tied[1].weight = tied[0].weight
    optimizer, movement = torch.optim.SGD(tied.parameters(), lr=0.1), Movement()
    with movement.watch(tied, optimizer):
        train(tied, optimizer, 1)
    assert list(prunelab.score(tied, movement)) == ["0.weight", "2.weight"]


def test_a_parameter_without_a_gradient_has_not_moved_and_sparse_gradients_count() -> None:
    model = nn.ModuleDict({"used": nn.Embedding(3, 2, sparse=True), "frozen": nn.Linear(2, 2)})
    model["frozen"].requires_grad_(False)
    optimizer, movement = torch.optim.SGD(model.parameters(), lr=0.1), Movement()
    with movement.watch(model, optimizer):
        weight = model["used"].weight.detach().clone()
        model["used"](torch.tensor([1, 1])).sum().backward()
        optimizer.step()
    scores = prunelab.score(model, movement, parameters=["used.weight", "frozen.weight"])
    torch.testing.assert_close(scores["used.weight"], (-weight * torch.tensor([[0.0], [2.0], [0.0]])).flatten())
    assert scores["frozen.weight"].tolist() == [0.0] * 4


def test_what_it_has_not_watched_is_refused() -> None:
    model, movement = network(), Movement()
    with pytest.raises(
        ValueError, match=r"Movement has watched no training: .*with movement.watch\(model, optimizer\)"
    ):
        prunelab.prune(model, 0.5, criterion=movement)
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with movement.watch(model, optimizer):
        assert prunelab.score(model[:1], movement)["0.weight"].tolist() == [0.0] * 12  # so far nothing has moved
        train(model, optimizer, 1)
    with pytest.raises(ValueError, match=r"has not watched '2.weight': the optimizer did not train it.*exclude="):
        prunelab.prune(model, 0.5, criterion=movement)
    prunelab.prune(model, 0.5, criterion=movement, parameters=["0.weight"])
    wider = nn.Sequential(nn.Linear(9, 4))
    with pytest.raises(ValueError, match=r"watched another model, whose '0.weight' has shape \(4, 3\), not \(4, 9\)"):
        prunelab.prune(wider, 0.5, criterion=movement)
    with (
        pytest.raises(ValueError, match="make a new Movement"),
        movement.watch(wider, torch.optim.SGD(wider.parameters())),
    ):
        pass
    assert wider[0].weight.all()


def test_what_cannot_be_watched_is_refused() -> None:
    model, movement = network(), Movement()
    for kind, message, optimizer in (
        (TypeError, r"must be a torch.optim.Optimizer, not list", [model]),
        (ValueError, r"LBFGS takes its gradients within its step", torch.optim.LBFGS(model.parameters())),
        (ValueError, r"trains no parameter of this model", torch.optim.SGD(copy.deepcopy(model).parameters())),
    ):
        with pytest.raises(kind, match=message), movement.watch(model, optimizer):
            pass
    optimizer = torch.optim.SGD(model.parameters())

    def closure() -> Tensor:
        return torch.zeros(())

    with movement.watch(model, optimizer):
        for step in (lambda: optimizer.step(closure), lambda: optimizer.step(closure=closure)):
            with pytest.raises(ValueError, match="cannot watch a step with a closure"):
                step()
        optimizer.step(None)
