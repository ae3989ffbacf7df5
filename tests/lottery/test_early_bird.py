"""Early-bird tickets: distances counted by hand, and a search that stops exactly when it may."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import prunelab
from prunelab import criteria
from prunelab.granularity import Filter
from prunelab.lottery.early_bird import early_bird, mask_distance
from prunelab.lottery.recipe import Recipe
from prunelab.masks import Masks

T, F = True, False
X = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def ramp(seed: int) -> nn.Linear:
    """Weights 1 to 10, of which pruning keeps the largest."""
    layer = nn.Linear(10, 1, bias=False)
    layer.weight.data = torch.arange(1.0, 11.0)[None]
    return layer


def test_the_distance_by_hand() -> None:
    a = Masks({"v": torch.tensor([T, T, F]), "w": torch.tensor([[F], [T]])})
    b = Masks({"v": torch.tensor([T, F, F]), "w": torch.tensor([[T], [F]])})
    assert mask_distance(a, b) == mask_distance(b, a) == 3 / 5
    assert mask_distance(a, a) == 0
    assert mask_distance(a, ~a) == 1
    assert mask_distance(Masks({}), Masks({})) == 0
    for other in (
        Masks({"v": torch.tensor([T, T, F])}),
        Masks({"v": torch.tensor([T]), "w": torch.tensor([[F], [T]])}),
    ):
        with pytest.raises(ValueError, match="different models"):
            mask_distance(a, other)


def test_the_history_and_the_moment_by_hand() -> None:
    """Each epoch swaps the smallest kept weight and the largest removed one, for three epochs; then nothing moves."""
    epochs: list[int] = []

    def train(model: nn.Module, masks: Masks, seed: int) -> None:
        epochs.append(seed)
        weight = model.get_parameter("weight").data[0]
        if len(epochs) <= 3:
            kept, removed = (5, 4) if len(epochs) % 2 else (4, 5)
            assert weight[kept] > weight[removed]
            weight[kept], weight[removed] = weight[removed].clone(), weight[kept].clone()

    found = early_bird(ramp, train, keep=0.5, epochs=20, patience=2)
    # After epochs 1, 2 and 3 the masks differ from the one before in two of ten entries, and then in none.
    assert found.distances == (0.2, 0.2, 0.0, 0.0)
    assert (found.found, found.epoch) == (True, 5)
    assert found.masks["weight"].tolist() == [[F, F, F, F, T, F, T, T, T, T]]
    assert len(set(epochs)) == 5  # each epoch has a seed of its own
    distances = [[mask_distance(a, b) for b in found.history] for a in found.history]
    assert torch.allclose(found.matrix(), torch.tensor(distances, dtype=torch.float64))
    assert torch.equal(found.weights["weight"][0, 4:6], torch.tensor([6.0, 5.0]))  # not masked


@pytest.mark.parametrize(("threshold", "when"), [(0.21, 3), (0.2, 5), (0.1, 5)])
def test_smaller_than_the_threshold_not_equal(threshold: float, when: int) -> None:
    calls = iter(range(20))

    def train(model: nn.Module, masks: Masks, seed: int) -> None:
        if next(calls) < 3:
            model.get_parameter("weight").data[0, 4:6] = model.get_parameter("weight").data[0, 4:6].flip(0)

    assert early_bird(ramp, train, keep=0.5, epochs=20, patience=2, threshold=threshold).epoch == when


def test_what_never_settles_is_not_found() -> None:
    def train(model: nn.Module, masks: Masks, seed: int) -> None:
        model.get_parameter("weight").data = model.get_parameter("weight").data.flip(1)

    found = early_bird(ramp, train, keep=0.3, epochs=6)
    assert (found.found, found.epoch, found.distances) == (False, 6, (0.6,) * 5)


def test_a_recipe_is_trained_epoch_by_epoch_as_at_once() -> None:
    recipe = Recipe(X, Y, steps=17, batch_size=10)  # 5 batches an epoch: 5, 10, 15, 17
    found = early_bird(net, recipe, keep=0.4, seed=3, patience=50)
    assert (found.found, found.epoch) == (False, 4)
    model = net(3)
    recipe.train(model, seed=3)
    assert all(torch.equal(found.weights[name], value) for name, value in model.state_dict().items())
    assert found.masks == prunelab.prune(model, 0.6, apply=False)
    model = net(3)
    recipe.train(model, seed=3, stop=10)
    assert found.history[1] == prunelab.prune(model, 0.6, apply=False)
    assert early_bird(net, recipe, keep=0.4, seed=3, epochs=2).masks == found.history[1]
    assert early_bird(net, Recipe(X, Y, steps=10, batch_size=10), keep=0.4).epoch == 2
    assert early_bird(net, Recipe(X, Y, steps=3, batch_size=10), keep=0.4).distances == ()


def test_any_criterion_and_granularity() -> None:
    recipe = Recipe(X, Y, steps=60, batch_size=10)
    found = early_bird(
        net, recipe, keep=0.5, criterion=criteria.Taylor(), granularity=Filter(), scope="local", data=[(X, Y)],
        loss=nn.functional.cross_entropy, exclude=["2.weight"], threshold=0.3, patience=3,
    )  # fmt: skip
    assert set(found.masks) == {"0.weight", "0.bias"}
    assert int(found.masks["0.bias"].sum()) == 4
    assert found.found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep": 20}, "keep must lie between 0 and 1"),
        ({"threshold": 0}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"patience": 0}, "patience"),
        ({"epochs": 0}, "epochs"),
        ({"train": lambda *_: None}, "epochs=None"),
        ({"train": 3}, "Recipe"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    usual: dict[str, Any] = {"make_model": net, "train": Recipe(X, Y, steps=3), "keep": 0.5}
    with pytest.raises((TypeError, ValueError), match=message):
        early_bird(**(usual | arguments))
