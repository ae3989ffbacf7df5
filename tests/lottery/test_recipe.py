"""Training by a recipe: the same as a loop by hand, in pieces as at once, and nothing removed ever moves."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunelab import Masks
from prunelab.lottery import Recipe, State

DRAW = torch.Generator().manual_seed(5)
INPUTS = torch.randn(23, 6, generator=DRAW)
TARGETS = torch.randint(3, (23,), generator=DRAW)


def net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))


def plain(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def recipe(**settings: object) -> Recipe:
    return Recipe(INPUTS, TARGETS, **({"steps": 14, "batch_size": 5} | settings))  # type: ignore[arg-type]


def masks_of(model: nn.Module) -> Masks:
    draw = torch.Generator().manual_seed(1)
    weights = {name: one for name, one in model.named_parameters() if one.dim() > 1}
    return Masks({name: torch.rand(one.shape, generator=draw) > 0.5 for name, one in weights.items()})


def same(one: State, other: State) -> bool:
    weights = all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
    return weights and repr(one.optimizer) == repr(other.optimizer) and one.step == other.step


def adamw(parameters: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, rate, weight_decay=0.1)


OPTIMIZERS = {
    "sgd": {"weight_decay": 0.01},
    "adam": {"optimizer": "adam", "weight_decay": 0.01},
    "own": {"optimizer": adamw},
}
WAYS = pytest.mark.parametrize("settings", OPTIMIZERS.values(), ids=OPTIMIZERS)


def test_an_epoch_meets_every_example_once_in_an_order_of_its_own() -> None:
    batches = list(recipe(steps=10).order(7))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3] * 2
    first, second = torch.cat(batches[:5]), torch.cat(batches[5:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(23))
    assert first.tolist() != second.tolist()
    assert [one.tolist() for one in recipe().order(8)] != [one.tolist() for one in recipe().order(7)]


@pytest.mark.parametrize("start", [0, 3, 4, 5, 6, 13, 14])
def test_the_order_can_be_jumped_into(start: int) -> None:
    whole = [batch.tolist() for batch in recipe().order(3)]
    assert [batch.tolist() for batch in recipe().order(3, start)] == whole[start:]


def test_the_order_depends_on_nothing_else() -> None:
    before = torch.get_rng_state()
    here = [batch.tolist() for batch in recipe().order(3)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert [batch.tolist() for batch in recipe().order(3)] == here


def by_hand(model: nn.Module, optimizer: torch.optim.Optimizer, made: Recipe, factor: Callable[[int], float]) -> None:
    """The loop that everybody writes."""
    rate = optimizer.param_groups[0]["lr"]
    for step, chosen in enumerate(made.order(2)):
        optimizer.param_groups[0]["lr"] = rate * factor(step)
        optimizer.zero_grad()
        F.cross_entropy(model(INPUTS[chosen]), TARGETS[chosen]).backward()
        optimizer.step()


def test_training_is_the_loop_by_hand() -> None:
    made = recipe(schedule=lambda step, steps: 1 - step / steps, weight_decay=0.01, learning_rate=0.2)
    ours, theirs = plain(), plain()
    made.train(ours, seed=2)
    optimizer = torch.optim.SGD(theirs.parameters(), 0.2, 0.9, weight_decay=0.01)
    by_hand(theirs, optimizer, made, lambda step: 1 - step / 14)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    made, ours, theirs = recipe(optimizer="adam", learning_rate=0.01), plain(), plain()
    made.train(ours, seed=2)
    by_hand(theirs, torch.optim.Adam(theirs.parameters(), 0.01), made, lambda step: 1)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_losses_are_those_of_each_batch_before_its_step() -> None:
    made, model = recipe(steps=1), plain()
    chosen = next(made.order(0))
    expected = F.cross_entropy(model(INPUTS[chosen]), TARGETS[chosen])
    torch.testing.assert_close(made.train(model).losses, expected.detach()[None])


@WAYS
@pytest.mark.parametrize("cuts", [(1,), (4, 5), (0, 13, 14)])
@pytest.mark.parametrize("masked", [False, True])
def test_in_pieces_as_at_once_bit_for_bit(settings: dict, cuts: tuple[int, ...], masked: bool) -> None:
    """Dropout, running statistics, momentum, the schedule and the order all go on where they stopped."""
    made = recipe(schedule=lambda step, steps: 0.5 ** (step // 4), **settings)
    model = net()
    masks = masks_of(model) if masked else None
    whole = made.train(model, masks, seed=4)
    state = None
    for cut in (*cuts, None):
        torch.rand(3)  # what others draw does not matter
        state = made.train(net(seed=9) if state else net(), masks, seed=4, resume=state, stop=cut)
    assert state is not None
    assert same(state, whole)
    assert all(torch.equal(value, whole.weights[name]) for name, value in model.state_dict().items())


def test_a_state_is_not_changed_by_going_on_from_it() -> None:
    made = recipe()
    state = made.train(net(), stop=6)
    once = made.train(net(), resume=state)
    assert same(made.train(net(), resume=state), once)
    model = net()
    state = made.train(model, stop=6)
    before = {name: value.clone() for name, value in state.weights.items()}
    made.train(model, resume=state)
    assert all(torch.equal(value, before[name]) for name, value in state.weights.items())


@WAYS
def test_no_weight_outside_the_mask_ever_moves(settings: dict) -> None:
    """Seen at every forward, with momentum, adaptive steps and weight decay."""
    model = net()
    masks, seen = masks_of(model), []

    def look(*_: object) -> None:
        seen.append(all(not bool(model.get_parameter(name)[~mask].any()) for name, mask in masks.items()))

    made = recipe(**settings)
    dense = made.train(net(), stop=3)  # its momentum is that of weights that are then removed
    model.register_forward_pre_hook(look)
    made.train(model, masks, resume=dense)
    look()
    assert len(seen) == 12
    assert all(seen)
    moved = [bool((model.get_parameter(n) != dense.weights[n])[mask].any()) for n, mask in masks.items()]
    assert all(moved)


def test_training_leaves_no_trace_but_the_weights() -> None:
    model = net()
    model[3].eval()
    model[0].bias.requires_grad_(False)
    frozen, chance = model[0].bias.clone(), torch.get_rng_state()
    recipe().train(model, masks_of(model))
    assert torch.equal(model[0].bias, frozen)
    assert torch.equal(torch.get_rng_state(), chance)
    assert [module.training for module in model] == [True, True, True, False, True]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_masks_of_what_is_frozen_are_applied() -> None:
    model = plain()
    model[0].weight.requires_grad_(False)
    mask = torch.zeros(8, 6, dtype=torch.bool)
    recipe().train(model, Masks({"0.weight": mask}))
    assert not model[0].weight.any()


def test_inside_no_grad_and_on_every_device(device: torch.device) -> None:
    with torch.no_grad():
        model = plain().to(device)
        state = recipe(steps=40, learning_rate=0.3).train(model)
    assert state.losses[-5:].mean() < state.losses[:5].mean()
    assert state.losses.device.type == "cpu"


def test_training_that_diverges_shows_in_the_state() -> None:
    state = recipe(learning_rate=1e30).train(plain())
    assert not state.finite
    assert not torch.isfinite(state.losses).all()
    assert recipe().train(plain()).finite


def test_targets_of_any_kind() -> None:
    made = Recipe(INPUTS, INPUTS @ torch.ones(6, 2), steps=60, loss=F.mse_loss, learning_rate=0.05)
    losses = made.train(nn.Linear(6, 2)).losses
    assert losses[-1] < 0.01 * losses[0]


REFUSED = {
    "no tensor": ({"inputs": [[1.0]]}, TypeError, "inputs must be a tensor"),
    "lengths": ({"inputs": INPUTS[:5]}, ValueError, "5 inputs and 23 targets"),
    "empty": ({"inputs": INPUTS[:0], "targets": TARGETS[:0]}, ValueError, "one or more inputs"),
    "no steps": ({"steps": 0}, ValueError, "steps must be a whole number, 1 or more"),
    "batch size": ({"batch_size": 0}, ValueError, "batch_size"),
    "optimizer": ({"optimizer": "sdg"}, ValueError, "'sgd', 'adam' or a function"),
    "rate": ({"learning_rate": 0}, ValueError, "learning_rate must be a finite number, more than 0"),
    "rate nan": ({"learning_rate": math.nan}, ValueError, "learning_rate"),
    "momentum": ({"momentum": 1.0}, ValueError, "momentum must be a finite number, 0 or more and less than 1"),
    "decay": ({"weight_decay": -1.0}, ValueError, "weight_decay must be a finite number, 0 or more"),
    "decay inf": ({"weight_decay": math.inf}, ValueError, "weight_decay"),
    "schedule": ({"schedule": 0.5}, TypeError, "schedule must be a function"),
    "loss": ({"loss": "mse"}, TypeError, "loss must be a function"),
}


@pytest.mark.parametrize(("settings", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_settings_that_make_no_sense(settings: dict, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Recipe(**({"inputs": INPUTS, "targets": TARGETS, "steps": 5} | settings))


def test_what_does_not_fit_is_refused_and_nothing_changes() -> None:
    made, model = recipe(), plain()
    before = [parameter.clone() for parameter in model.parameters()]
    other = made.train(net(), stop=3)
    here = made.train(plain(), stop=3)
    wider = State({**here.weights, "0.bias": torch.zeros(8, 1)})
    with pytest.raises(ValueError, match="weights belong to another model: only one of the two has"):
        made.train(model, resume=other)
    with pytest.raises(
        ValueError, match=r"weights belong to another model: '0.bias' is torch.float32 of shape \(8, 1\)"
    ):
        made.train(model, resume=wider)
    with pytest.raises(ValueError, match="these masks belong to another model"):
        made.train(model, Masks({"7.weight": torch.ones(2, 2, dtype=torch.bool)}), resume=here)
    with pytest.raises(ValueError, match="stop=2 must lie between the step to go on from, 3, and steps=14"):
        made.train(model, resume=here, stop=2)
    with pytest.raises(ValueError, match="stop=15"):
        made.train(model, stop=15)
    with pytest.raises(ValueError, match="seed must be a whole number"):
        made.train(model, seed=-1)
    with pytest.raises(TypeError, match=r"not a torch\.optim\.Optimizer"):
        recipe(optimizer=lambda parameters, rate: None).train(model)
    with pytest.raises(ValueError, match="LBFGS"):
        recipe(optimizer=torch.optim.LBFGS).train(model, resume=here)
    with pytest.raises(ValueError, match="parameter group"):
        made.train(model, resume=State(here.weights, {"state": {}, "param_groups": []}, 3))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    with pytest.raises(ValueError, match="nothing to train"):
        made.train(model.requires_grad_(False))
    with pytest.raises(ValueError, match=r"schedule\(0, 14\) is nan"):
        recipe(schedule=lambda step, steps: math.nan).train(plain())


def test_a_model_whose_state_is_no_tensor_is_refused() -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> Tensor | dict:
            return {"calls": 3}

        def set_extra_state(self, state: object) -> None: ...

    with pytest.raises(TypeError, match=r"'_extra_state', which is no tensor but dict"):
        recipe().train(Odd(6, 3))
