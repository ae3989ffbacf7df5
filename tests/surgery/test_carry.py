"""The optimizer follows: its next steps are those it would have made on the masked network.

The oracle trains the masked network of full size with the original optimizer and puts every deleted slice back to zero
after each step; the small one trains with the optimizer that was carried. In float64 they must stay equal.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import prunelab
from prunelab.granularity import Filter
from prunelab.surgery import Shrunk

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adamw_foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.1),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "adadelta": lambda p: torch.optim.Adadelta(p),
}


class Net(nn.Module):
    """Images and attention, without batch statistics and without chance; constants go into a bias of the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.up = nn.ConvTranspose2d(8, 12, 2, 2)
        self.attention = nn.MultiheadAttention(12, 4, dropout=0.0, batch_first=True)
        self.last = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.first(x).relu()).relu()
        x = self.up(x).flatten(2).transpose(1, 2)
        return self.last(self.attention(x, x, x)[0].relu().mean(1))


def batches(count: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(4, 3, 4, 4, generator=draw, dtype=torch.float64), torch.randint(0, 3, (4,), generator=draw))
        for _ in range(count)
    ]


def train(model: nn.Module, optimizer: Optimizer, data: Any, after: Callable[[], Any] = lambda: None) -> list[float]:
    losses = []
    for x, y in data:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        after()
        losses.append(loss.item())
    return losses


def held_at_zero(model: nn.Module, small: Shrunk) -> Callable[[], None]:
    """What zeroes every deleted slice of `model`."""

    @torch.no_grad()
    def hold() -> None:
        for name, parameter in model.named_parameters():
            if name in small.plan.slices:
                parameter.mul_(small.plan.slices[name].mask())

    return hold


def trained(make: Callable[[Any], Optimizer], model: nn.Module | None = None) -> tuple[nn.Module, Optimizer]:
    torch.manual_seed(0)
    model = Net().double() if model is None else model
    optimizer = make(model.parameters())
    train(model, optimizer, batches(3))
    return model, optimizer


# Rprop goes by the signs of gradients, and that of the keys' bias is zero but for rounding.
@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "rprop"])
@pytest.mark.parametrize("mode", ["zero", "masks"])
def test_the_next_steps_are_those_of_the_masked_network(name: str, mode: str) -> None:
    model, optimizer = trained(OPTIMIZERS[name])
    (x, _), *_ = batches(1)
    if mode == "zero":
        small = prunelab.shrink(model, x, sparsity=0.5, exclude="up")
    else:
        masks = prunelab.prune(model, 0.5, granularity=prunelab.granularity.Filter(), scope="local",
                               parameters=["first.weight", "up.weight"])  # fmt: skip
        small = prunelab.shrink(model, x, masks=masks)
    assert small.plan.params[1] < small.plan.params[0]
    assert small.plan.biases.keys() <= dict(model.named_parameters()).keys()
    both = copy.deepcopy((model, optimizer))  # one memo: the copy trains the copy
    both[0].load_state_dict(small.plan.masked(model).state_dict())
    hold = held_at_zero(both[0], small)
    returned = small.carry(optimizer)
    assert returned is optimizer
    new = batches(4, seed=1)
    expected = train(both[0], both[1], new, hold)
    assert train(small.model, optimizer, new) == pytest.approx(expected, rel=1e-9)
    for parameter_name, parameter in small.model.named_parameters():
        whole = both[0].get_parameter(parameter_name).detach()
        cut = small.plan.slices.get(parameter_name)
        torch.testing.assert_close(parameter.detach(), whole if cut is None else cut.keep(whole), rtol=1e-8, atol=1e-9)


def test_the_original_is_left_behind_as_it_was() -> None:
    model, optimizer = trained(OPTIMIZERS["adam"])
    before = copy.deepcopy(model.state_dict())
    small = prunelab.shrink(model, batches(1)[0][0], sparsity=0.5)
    small.carry(optimizer)
    train(small.model, optimizer, batches(2))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in small.model.parameters()}
    assert set(map(id, optimizer.state)) <= held


def test_groups_and_their_settings_stay_and_a_scheduler_goes_on() -> None:
    torch.manual_seed(0)
    model = Net().double()
    other = nn.Parameter(torch.ones(5, dtype=torch.float64))
    optimizer = torch.optim.AdamW(
        [
            {"params": model.last.parameters(), "lr": 0.02, "weight_decay": 0.0},
            {"params": [p for n, p in model.named_parameters() if not n.startswith("last")], "lr": 0.01},
            {"params": [other], "lr": 0.5},
        ]
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    train(model, optimizer, batches(2), scheduler.step)
    small = prunelab.shrink(model, batches(1)[0][0], sparsity=0.5)
    small.carry(optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.005, 0.0025, 0.125])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.01, 0.01]
    assert [list(map(id, group["params"])) for group in optimizer.param_groups] == [
        [id(p) for p in small.model.last.parameters()],
        [id(p) for n, p in small.model.named_parameters() if not n.startswith("last")],
        [id(other)],
    ]
    before = copy.deepcopy(small.model.state_dict())
    train(small.model, optimizer, batches(2), scheduler.step)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.00125)
    assert not any(torch.equal(value, before[name]) for name, value in small.model.state_dict().items())
    assert pickle.loads(pickle.dumps(optimizer.state_dict()))["state"]


def chain() -> nn.Module:
    """Six layers without a bias, which all take up constants."""
    torch.manual_seed(0)
    middle = [layer for _ in range(6) for layer in (nn.Linear(8, 8, bias=False), nn.Sigmoid())]
    return nn.Sequential(nn.Linear(4, 8), nn.Sigmoid(), *middle, nn.Linear(8, 2, bias=False))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_new_bias_is_trained_with_its_layer(name: str) -> None:
    model = chain()
    optimizer = OPTIMIZERS[name](model.parameters())
    x = torch.randn(5, 4)
    model(x).square().sum().backward()
    optimizer.step()
    small = prunelab.shrink(model, x, sparsity=0.5)
    fresh = {n for n, _ in small.model.named_parameters()} - {n for n, _ in model.named_parameters()}
    assert "14.bias" in fresh
    small.carry(optimizer)
    before = {n: small.model.get_parameter(n).detach().clone() for n in fresh}
    for _ in range(2):
        optimizer.zero_grad()
        small.model(x).square().sum().backward()
        optimizer.step()
    assert not any(torch.equal(small.model.get_parameter(n), value) for n, value in before.items())


def test_new_biases_come_in_the_models_order() -> None:
    """In every process the same order, or a saved optimizer's state would be another bias's in the next one."""
    model = chain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    small = prunelab.shrink(model, torch.randn(5, 4), sparsity=0.5)
    small.carry(optimizer)
    names = {id(p): name for name, p in small.model.named_parameters()}
    found = [names[id(p)] for p in optimizer.param_groups[0]["params"]]
    new = [name for name, _ in small.model.named_parameters() if name not in dict(model.named_parameters())]
    assert len(new) == 7
    assert [name for name in found if name in new] == new


def test_gradient_accumulated_before_is_not_carried() -> None:
    model, optimizer = trained(OPTIMIZERS["adam"])
    small = prunelab.shrink(model, batches(1)[0][0], sparsity=0.5)
    small.carry(optimizer)
    assert all(p.grad is None for p in small.model.parameters())
    optimizer.step()  # without gradients nothing moves
    assert small.check is not None
    assert small.check.holds


def test_a_parameter_that_is_frozen_or_left_out_stays_so() -> None:
    torch.manual_seed(0)
    model = Net().double()
    model.first.requires_grad_(False)
    optimizer = torch.optim.SGD(model.last.parameters(), lr=0.1, momentum=0.9)
    train(model, optimizer, batches(1))
    small = prunelab.shrink(model, batches(1)[0][0], sparsity=0.5)
    small.carry(optimizer)
    before = copy.deepcopy(small.model.state_dict())
    train(small.model, optimizer, batches(2))
    moved = {name for name, value in small.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"last.weight", "last.bias"}


def test_shared_parameters_are_carried_once() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)
            self.c.weight = self.b.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.d(self.c(self.b(self.a(x).relu()).relu()).relu())

    torch.manual_seed(0)
    model, x = Shared(), torch.randn(4, 3)
    optimizer = torch.optim.Adam(model.parameters())
    model(x).sum().backward()
    optimizer.step()
    small = prunelab.shrink(model, x, sparsity=0.5)
    assert small.model.b.weight is small.model.c.weight
    small.carry(optimizer)
    assert len(optimizer.param_groups[0]["params"]) == len(list(small.model.parameters())) == 7
    small.model(x).sum().backward()
    optimizer.step()


# --- what cannot be carried ----------------------------------------------------------------------------------------------


def snapshot(optimizer: Optimizer) -> Any:
    return (
        [{key: [id(p) for p in value] if key == "params" else value for key, value in group.items()}
         for group in optimizer.param_groups],
        {id(p): {key: (id(value), copy.deepcopy(value)) for key, value in entry.items()}
         for p, entry in optimizer.state.items()},
    )  # fmt: skip


def unchanged(before: Any, after: Any) -> bool:
    groups = before[0] == after[0] and before[1].keys() == after[1].keys()
    return groups and all(
        before[1][p].keys() == after[1][p].keys() and all(before[1][p][k][0] == after[1][p][k][0] for k in before[1][p])
        for p in before[1]
    )


def test_an_optimizer_of_another_network_is_refused() -> None:
    model, optimizer = trained(OPTIMIZERS["adam"])
    small = prunelab.shrink(model, batches(1)[0][0], sparsity=0.5)
    _, foreign = trained(OPTIMIZERS["adam"])
    before = snapshot(foreign)
    with pytest.raises(ValueError, match="none of the original network's parameters"):
        small.carry(foreign)
    assert unchanged(before, snapshot(foreign))
    small.carry(optimizer)
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match="none of the original network's parameters"):
        small.carry(optimizer)  # it trains the small one already
    assert unchanged(before, snapshot(optimizer))


def test_state_of_another_shape_is_refused_and_nothing_changes() -> None:
    model, optimizer = trained(lambda p: torch.optim.Adafactor(p, lr=0.01))
    small = prunelab.shrink(model, batches(1)[0][0], sparsity=0.5)
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=r"(row_var|col_var).*new optimizer"):
        small.carry(optimizer)
    assert unchanged(before, snapshot(optimizer))
    train(model, optimizer, batches(1))  # it still trains the original


@pytest.mark.parametrize("started", [False, True])
def test_lbfgs_trains_the_small_network_or_is_refused(started: bool) -> None:
    """It keeps its own list of the parameters, and its state as vectors over all of them."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)), torch.randn(5, 6)
    optimizer = torch.optim.LBFGS([model[2].bias, model[2].weight, *model[0].parameters()], max_iter=2)

    def closure(network: nn.Module) -> Callable[[], Any]:
        def run() -> Any:
            optimizer.zero_grad()
            loss = network(x).square().sum()
            loss.backward()
            return loss

        return run

    if started:
        optimizer.step(closure(model))
    small = prunelab.shrink(model, x, sparsity=0.5)
    before = snapshot(optimizer)
    try:
        small.carry(optimizer)
    except ValueError:
        assert unchanged(before, snapshot(optimizer))
        return
    held = copy.deepcopy(small.model.state_dict())
    optimizer.step(closure(small.model))
    assert not any(torch.equal(value, held[name]) for name, value in small.model.state_dict().items())


def test_a_new_bias_stands_next_to_its_weight() -> None:
    """So that an optimizer made for the small network takes up the state: `load_state_dict` goes by the order."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8, bias=False), nn.BatchNorm1d(8)
    )
    nn.init.normal_(model[1].bias)
    x, target = torch.randn(32, 6), torch.randn(32, 8)
    optimizer = torch.optim.AdamW(model.named_parameters(), lr=0.01)

    def step(network: nn.Module, trainer: torch.optim.Optimizer) -> None:
        trainer.zero_grad()
        (network(x) - target).square().mean().backward()
        trainer.step()

    for _ in range(10):
        step(model, optimizer)
    small = prunelab.shrink(model, x, sparsity=0.5)
    small.carry(optimizer)
    names = [name for name, _ in small.model.named_parameters()]
    assert "3.bias" in names
    assert optimizer.param_groups[0]["param_names"] == names
    assert all(a is b for a, b in zip(optimizer.param_groups[0]["params"], small.model.parameters(), strict=True))
    again = small.plan.apply(model)
    again.load_state_dict(small.model.state_dict())
    resumed = torch.optim.AdamW(again.named_parameters(), lr=0.01)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # it would share the moments
    for network, trainer in ((small.model, optimizer), (again, resumed)):
        step(network, trainer)
    for one, other in zip(small.model.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_masks_that_are_held_are_carried_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, target = torch.randn(8, 6), torch.randn(8, 3)
    filters = prunelab.prune(model, 0.25, granularity=Filter(), scope="local", exclude=["4.*"], apply=False)
    masks = filters & prunelab.prune(model, 0.6, apply=False)
    with masks.hold(model, optimizer):
        small = prunelab.shrink(model, x, masks=masks)
        small.carry(optimizer)
        zeros = [(p == 0) for p in small.model.parameters()]
        assert sum(int(zero.sum()) for zero in zeros) > 50
        for _ in range(3):
            optimizer.zero_grad()
            (small.model(x) - target).square().mean().backward()
            optimizer.step()
        left = dict(model.named_parameters())
        for (name, parameter), before in zip(small.model.named_parameters(), zeros, strict=True):
            if name in masks and left[name].dim() > 1:
                assert torch.equal(parameter == 0, before), name
