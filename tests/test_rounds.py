"""Pruning in rounds, against the same rounds written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prunelab
from prunelab import Masks
from prunelab.criteria import Criterion
from prunelab.granularity import Filter, Weight
from prunelab.scope import NM, PerRow


class Saliency(Criterion):
    """|w·g|: what is left counts for more once the rest is gone, so rounds differ from one shot."""

    needs = frozenset({"weights", "gradients"})

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        assert gradients is not None
        return (weights * gradients).sum(1).abs()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 3))


def arguments() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(32, 6, generator=generator), torch.randint(3, (32,), generator=generator)
    return {"criterion": Saliency(), "data": [(x, y)], "loss": F.cross_entropy}


@pytest.mark.parametrize("granularity", [Weight(), Filter()])
def test_rounds_are_prunings_within_each_other(granularity: Any) -> None:
    found = prunelab.prune(network(), 0.9, granularity=granularity, rounds=4, apply=False, **arguments())
    model, masks = network(), None
    for share in (1 - 0.1**0.25, 1 - 0.1**0.5, 1 - 0.1**0.75, 0.9):
        masks = prunelab.prune(model, share, granularity=granularity, within=masks, **arguments())
    assert found == masks
    once = prunelab.prune(network(), 0.9, granularity=granularity, **arguments())
    assert found != once
    assert isinstance(granularity, Filter) or found.removed == once.removed == round(0.9 * 350)


def test_rounds_begin_at_what_is_gone() -> None:
    half = prunelab.prune(network(), 0.5, apply=False)
    found = prunelab.prune(network(), 0.875, rounds=2, within=half, apply=False, **arguments())
    step = prunelab.prune(network(), 0.75, within=half, apply=False, **arguments())
    assert found == prunelab.prune(network(), 0.875, within=step, apply=False, **arguments())
    assert prunelab.prune(network(), 0.5, rounds=9, within=half, apply=False, **arguments()) == half
    with pytest.raises(ValueError, match="has already removed"):
        prunelab.prune(network(), 0.4, rounds=9, within=half, apply=False, **arguments())


@pytest.mark.parametrize(("sparsity", "removed"), [(0.0, 0), (1.0, 350)])
def test_nothing_and_everything_in_rounds(sparsity: float, removed: int) -> None:
    assert prunelab.prune(network(), sparsity, rounds=5, **arguments()).removed == removed


def test_the_model_is_left_as_it_was_where_nothing_is_applied() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prunelab.prune(model, 0.9, rounds=3, apply=False, **arguments())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_criterion_has_its_own_number_of_rounds() -> None:
    class Often(Saliency):
        rounds = 4

    given = arguments() | {"criterion": Often()}
    assert prunelab.prune(network(), 0.9, **given) == prunelab.prune(network(), 0.9, rounds=4, **arguments())
    assert prunelab.prune(network(), 0.9, rounds=1, **given) == prunelab.prune(network(), 0.9, **arguments())


@pytest.mark.parametrize("rounds", [0, -1, 1.5, True, "3"])
def test_rounds_that_are_no_number_are_refused(rounds: Any) -> None:
    with pytest.raises(ValueError, match="rounds must be a whole number, at least 1, not"):
        prunelab.prune(network(), 0.5, rounds=rounds)


def test_a_scope_that_fixes_what_goes_has_one_round() -> None:
    for scope in (NM(1, 2), {"0.weight": 0.5}):
        with pytest.raises(ValueError, match=r"rounds is 3, but .* fixes what goes"):
            prunelab.prune(network(), scope=scope, rounds=3)
        assert prunelab.prune(network(), scope=scope, rounds=1).removed


@pytest.mark.parametrize("scope", ["local", PerRow()])
def test_rounds_where_one_layer_has_lost_more_than_the_average(scope: Any) -> None:
    net = nn.Sequential(nn.Linear(10, 10, bias=False), nn.ReLU(), nn.Linear(10, 10, bias=False))
    before = Masks({"0.weight": torch.arange(100).reshape(10, 10) % 10 >= 8})
    masks = prunelab.prune(net, 0.9, scope=scope, rounds=10, within=before)
    assert masks.sparsities == {"0.weight": 0.9, "2.weight": 0.9}
    assert (masks & before) == masks
    with pytest.raises(ValueError, match="has already removed"):
        prunelab.prune(net, 0.5, scope=scope, rounds=10, within=before)
