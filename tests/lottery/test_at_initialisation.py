"""Pruning at initialisation: each method against its formula on the untrained network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunelab
from prunelab import criteria
from prunelab.granularity import Filter
from prunelab.lottery.at_initialisation import METHODS, at_initialisation
from prunelab.lottery.recipe import Recipe
from prunelab.lottery.ticket import Ticket

X = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(20) % 3
DATA = [(X[:12], Y[:12]), (X[12:], Y[12:])]


def net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def scores_by_hand(method: str, seed: int) -> Tensor:
    """(weights,) by automatic differentiation of the whole data at once."""
    model = net(seed)
    weights = [model[0].weight, model[2].weight]
    flat = torch.cat([weight.detach().flatten() for weight in weights])
    loss = nn.functional.cross_entropy(model(X), Y)
    slopes = torch.autograd.grad(loss, weights, create_graph=True)
    slope = torch.cat([one.flatten() for one in slopes])
    if method == "snip":
        return (flat * slope).detach().abs()
    if method == "grasp":
        products = torch.autograd.grad(slope @ slope.detach(), weights)
        return flat * torch.cat([one.flatten() for one in products])
    assert method == "magnitude"
    return flat.abs()


@pytest.mark.parametrize("method", ["snip", "grasp", "magnitude"])
@pytest.mark.parametrize("keep", [0.2, 0.5, 1.0])
def test_the_largest_are_kept(method: str, keep: float) -> None:
    ticket = at_initialisation(net, method, keep, data=DATA, seed=4)
    kept = torch.cat([ticket.masks["0.weight"].flatten(), ticket.masks["2.weight"].flatten()])
    expected = torch.zeros(56, dtype=torch.bool)
    expected[scores_by_hand(method, 4).argsort(descending=True)[: round(keep * 56)]] = True
    assert torch.equal(kept, expected)


def test_synflow_is_data_free_iterative_and_collapses_no_layer() -> None:
    ticket = at_initialisation(net, "synflow", 0.1, data=DATA, seed=1)
    other = at_initialisation(net, "synflow", 0.1, data=[(-7 * X[3:5], Y[:2])], seed=1)
    assert ticket.masks == other.masks
    expected = prunelab.prune(net(1), 0.9, criterion=criteria.SynFlow(X[:1], rounds=100))
    assert ticket.masks == expected
    assert not ticket.masks.collapsed
    once = at_initialisation(net, "synflow", 0.1, data=DATA, seed=1, rounds=1)
    assert once.masks != ticket.masks


def test_random_is_the_seeds() -> None:
    masks = [at_initialisation(net, "random", 0.3, seed=seed).masks for seed in (1, 1, 2)]
    assert masks[0] == masks[1] != masks[2]
    assert masks[0].removed == 56 - round(0.3 * 56)


def test_it_is_a_ticket_that_starts_at_its_initial_weights(tmp_path: Path) -> None:
    ticket = at_initialisation(net, "snip", 0.3, data=DATA, seed=2)
    assert (ticket.start.step, ticket.seed, len(ticket.rounds)) == (0, 2, 1)
    for name, value in net(2).state_dict().items():
        assert torch.equal(ticket.initial[name], value)
        if name in ticket.masks:
            assert torch.equal(ticket.model().state_dict()[name], value * ticket.masks[name])
    ticket.save(tmp_path / "snip")
    loaded = Ticket.load(tmp_path / "snip", net)
    assert loaded.masks == ticket.masks
    model = loaded.model()
    Recipe(X, Y, steps=5).train(model, loaded.masks, resume=loaded.start)
    assert all((model.get_parameter(name)[~mask] == 0).all() for name, mask in ticket.masks.items())


def test_any_criterion_granularity_and_scope() -> None:
    ticket = at_initialisation(
        net, criteria.Taylor(), 0.5, data=DATA, granularity=Filter(), scope="local", exclude="2.weight"
    )
    assert int(ticket.masks["0.bias"].sum()) == 7 - round(7 * 0.5)
    assert ticket.granularity == Filter()


def test_inputs_that_are_several_tensors() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 3), nn.Linear(5, 3)

        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return self.a(first) + self.b(second)

    for inputs in ((X, X), {"first": X, "second": X}, [X, X]):
        assert at_initialisation(lambda _: Sum(), "synflow", 0.5, data=[(inputs, Y)]).masks.sparsity == 0.5


@pytest.mark.parametrize("method", METHODS)
def test_a_method_needs_what_it_says(method: str) -> None:
    if method in ("magnitude", "random"):
        at_initialisation(net, method, 0.5)
    else:
        with pytest.raises(ValueError, match="data"):
            at_initialisation(net, method, 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep": 0}, "keep is 0"),
        ({"keep": 30}, "between 0 and 1"),
        ({"method": "snap"}, "'snip', 'grasp'"),
        ({"method": criteria.SNIP}, "or a criterion"),
        ({"make_model": 3}, "make_model"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    usual: dict[str, Any] = {"make_model": net, "method": "snip", "keep": 0.5, "data": DATA}
    with pytest.raises((TypeError, ValueError), match=message):
        at_initialisation(**(usual | arguments))
