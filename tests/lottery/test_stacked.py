"""Training many models at once, beside training each of them alone with `Recipe.train`."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cloudpickle
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prunelab
from prunelab.lab import train
from prunelab.lottery import stacked
from prunelab.lottery.recipe import Recipe
from prunelab.lottery.stacked import accuracies, train_stacked
from prunelab.lottery.stacking import network
from prunelab.lottery.state import State
from prunelab.masks import Masks

SEEDS = [3, 0, 3, 1, 0]  # some share their batches


class Own(nn.Module):
    """A network whose forward is code of its own."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.first, self.second, self.scale = nn.Linear(6, 7), nn.Linear(7, 4), scale

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)) * self.scale)


def frozen(model: nn.Sequential, *names: str) -> nn.Sequential:
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    return model


def tied() -> nn.Sequential:
    same = nn.Linear(6, 6)
    return nn.Sequential(same, nn.ReLU(), same, nn.Tanh(), nn.Linear(6, 4))


VECTORS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "rectifiers": ("Dense", lambda: nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 4))),
    "tanh, logistic, no bias": ("Dense", lambda: nn.Sequential(nn.Linear(6, 9, bias=False), nn.Tanh(), nn.Linear(9, 7), nn.Sigmoid(), nn.Linear(7, 4))),
    "one layer": ("Dense", lambda: nn.Linear(6, 4)),
    "no activation, nested": ("Dense", lambda: nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(6, 5), nn.Identity(), nn.Linear(5, 4)))),
    "activation at the end": ("Dense", lambda: nn.Sequential(nn.Linear(6, 9), nn.ReLU(inplace=True), nn.Linear(9, 4), nn.Sigmoid())),
    "frozen first layer": ("Dense", lambda: frozen(nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4)), "0.weight", "0.bias")),
    "frozen weight in the middle": ("Dense", lambda: frozen(nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, 4)), "2.weight")),
    "named layers": ("Dense", lambda: nn.Sequential(OrderedDict(fc1=nn.Linear(6, 9), relu=nn.ReLU(), fc2=nn.Linear(9, 4)))),
    "other activations": ("Chain", lambda: nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 7), nn.LeakyReLU(0.2), nn.Linear(7, 4))),
    "activation first": ("Chain", lambda: nn.Sequential(nn.Tanh(), nn.Linear(6, 4))),
    "batch norm of vectors": ("Chain", lambda: nn.Sequential(nn.Linear(6, 9, bias=False), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 4))),
    "tied": ("Chain", tied),
    "code of its own": ("Functional", Own),
    "a layer not known": ("Functional", lambda: nn.Sequential(nn.Linear(6, 9), nn.PReLU(), nn.LayerNorm(9), nn.Linear(9, 4))),
    "chance": ("none", lambda: nn.Sequential(nn.Linear(6, 9), nn.Dropout(0.5), nn.Linear(9, 4))),
    "cumulative batch norm": ("none", lambda: nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9, momentum=None), nn.Linear(9, 4))),
}  # fmt: skip
IMAGES: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "flattened": ("Dense", lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 9), nn.ReLU(), nn.Linear(9, 4))),
    "convolutions": ("Chain", lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(6, 4)
    )),
    "pooled, strided, no bias": ("Chain", lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding="valid", dilation=1, bias=False), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)
    )),
    "linear on every position": ("Chain", lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Flatten(), nn.Linear(60, 4))),
    "reflected edges": ("Functional", lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(108, 4))),
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "momentum": {},
    "plain": {"momentum": 0.0, "weight_decay": 0.01},
    "adam, with a schedule": {"optimizer": "adam", "learning_rate": 0.01, "weight_decay": 0.01, "schedule": lambda step, steps: 1 - step / steps},
    "nesterov": {"optimizer": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.8, nesterov=True)},
    "adamw": {"optimizer": lambda p, lr: torch.optim.AdamW(p, lr / 10, amsgrad=True)},
    "rmsprop": {"optimizer": lambda p, lr: torch.optim.RMSprop(p, lr / 100, momentum=0.5, centered=True)},
}  # fmt: skip


def recipe(shape: tuple[int, ...] = (6,), dtype: torch.dtype = torch.float64, **settings: Any) -> Recipe:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(50, *shape, generator=draw, dtype=dtype)  # 50: the fourth batch of an epoch has 2
    return Recipe(inputs, torch.randint(4, (50,), generator=draw), **{"steps": 11, "batch_size": 16, **settings})


def several(make: Callable[[], nn.Module], dtype: torch.dtype = torch.float64, count: int = 5) -> list[nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return [make().to(dtype) for _ in range(count)]


def masks_of(models: Sequence[nn.Module]) -> list[Masks | None]:
    """More and more removed; nothing of the third."""
    masks: list[Masks | None] = [
        prunelab.prune(m, 0.3 + 0.05 * i, scope="local", apply=False) for i, m in enumerate(models)
    ]
    if len(masks) > 2:
        masks[2] = None
    return masks


def alone(models: Sequence[nn.Module], by: Recipe, masks: Any = None, seeds: Any = None, **more: Any) -> list[State]:
    masks, seeds = masks or [None] * len(models), seeds or [0] * len(models)
    return [by.train(*each, **more) for each in zip(models, masks, seeds, strict=True)]


def same(one: State, other: State, *, rtol: float, atol: float) -> None:
    assert one.step == other.step
    assert list(one.weights) == list(other.weights)
    for name, value in one.weights.items():
        torch.testing.assert_close(value, other.weights[name], rtol=rtol, atol=atol)
    torch.testing.assert_close(one.losses, other.losses, rtol=max(rtol, 1e-6), atol=1e-6)
    assert (one.optimizer is None) == (other.optimizer is None)
    if one.optimizer is not None and other.optimizer is not None:
        assert one.optimizer["param_groups"] == other.optimizer["param_groups"]
        assert one.optimizer["state"].keys() == other.optimizer["state"].keys()
        for index, entries in one.optimizer["state"].items():
            assert entries.keys() == other.optimizer["state"][index].keys()
            for name, value in entries.items():
                torch.testing.assert_close(value, other.optimizer["state"][index][name], rtol=rtol, atol=atol)


def identical(one: State, other: State) -> None:
    same(one, other, rtol=0, atol=0)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The networks that were made, by name."""
    made: list[str] = []

    def spy(*args: Any, **settings: Any) -> network.Network | None:
        found = network.network_of(*args, **settings)
        made.append(type(found).__name__ if found is not None else "none")
        return found

    monkeypatch.setattr(stacked, "network_of", spy)
    return made


CASES = [
    *[(name, kind, make, (6,), "momentum") for name, (kind, make) in VECTORS.items()],
    *[(name, kind, make, (2, 6, 6), "momentum") for name, (kind, make) in IMAGES.items()],
    *[("rectifiers", *VECTORS["rectifiers"], (6,), setting) for setting in SETTINGS if setting != "momentum"],
    *[("convolutions", *IMAGES["convolutions"], (2, 6, 6), setting) for setting in ("plain", "adamw")],
]


@pytest.mark.parametrize(
    ("name", "kind", "make", "shape", "setting"), CASES, ids=[f"{case[0]}, {case[-1]}" for case in CASES]
)
def test_the_same_as_one_after_the_other(
    name: str, kind: str, make: Callable[[], nn.Module], shape: tuple[int, ...], setting: str, ways: list[str]
) -> None:
    by = recipe(shape, **SETTINGS[setting])
    models = several(make)
    masks = masks_of(models)
    loop, together = copy.deepcopy(models), copy.deepcopy(models)
    expected = alone(loop, by, masks, SEEDS)
    states = train_stacked(together, by, masks, SEEDS)
    assert ways == [kind]
    for one, other, mine, theirs, mask in zip(states, expected, together, loop, masks, strict=True):
        same(one, other, rtol=1e-9, atol=1e-11)
        for name, value in mine.state_dict().items():
            assert torch.equal(value, one.weights[name])
        assert [p.grad for p in mine.parameters()] == [p.grad for p in theirs.parameters()]
        for name, kept in (mask or {}).items():
            assert not mine.get_parameter(name)[~kept].any()
    assert not torch.equal(states[0].losses, states[1].losses)


@pytest.mark.parametrize("name", ["rectifiers", "other activations", "code of its own"])
def test_in_float32_to_rounding(name: str) -> None:
    models = several(VECTORS[name][1], torch.float32)
    by, masks, together = recipe(dtype=torch.float32, steps=30), masks_of(models), copy.deepcopy(models)
    expected = alone(models, by, masks, SEEDS)
    for one, other in zip(train_stacked(together, by, masks, SEEDS), expected, strict=True):
        same(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (F.mse_loss, torch.randn(50, 4, dtype=torch.float64)),
        (F.cross_entropy, torch.rand(50, 4, dtype=torch.float64).softmax(1)),
        (F.cross_entropy, (torch.arange(50) % 5 - 1).masked_fill(torch.arange(50) % 5 == 0, -100)),
        (lambda outputs, wanted: F.cross_entropy(outputs, wanted, label_smoothing=0.1), torch.arange(50) % 4),
        (F.multi_margin_loss, torch.arange(50) % 4),
    ],
    ids=["squares", "probabilities", "a class to ignore", "smoothed", "margins"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["rectifiers", "code of its own"])
def test_any_loss(name: str, loss: Any, targets: Tensor) -> None:
    by = Recipe(recipe().inputs, targets, steps=7, batch_size=16, loss=loss)
    models = several(VECTORS[name][1])
    together = copy.deepcopy(models)
    expected = alone(models, by, None, SEEDS)
    for one, other in zip(train_stacked(together, by, None, SEEDS), expected, strict=True):
        same(one, other, rtol=1e-9, atol=1e-11)


# --- masks -----------------------------------------------------------------------------------------------------------


def test_no_weight_outside_a_mask_ever_moves() -> None:
    models = several(VECTORS["rectifiers"][1])
    masks = masks_of(models)
    with torch.no_grad():
        models[0].get_parameter("0.weight").fill_(float("nan"))  # what is removed is +0, whatever it was
        models[1].get_parameter("2.weight")[0, 0] = float("inf")
    masks[0] = Masks(
        {"0.weight": torch.zeros(9, 6, dtype=torch.bool), "4.bias": torch.tensor([True, False, True, True])}
    )
    masks[1] = Masks({"2.weight": torch.arange(63).view(7, 9) > 9})
    states = [
        train_stacked(copy.deepcopy(models), recipe(weight_decay=0.1), masks, SEEDS, stop) for stop in (0, 1, 2, 9)
    ]
    for reached in states:
        for state, mask in zip(reached, masks, strict=True):
            for name, kept in (mask or {}).items():
                removed = state.weights[name][~kept]
                assert removed.view(torch.int64).eq(0).all()  # all bits: no -0 either
        assert all(state.finite for state in reached)
    moved = states[-1][2].weights["0.weight"] != models[2].get_parameter("0.weight")
    assert moved.all()  # the one without a mask


def test_a_model_that_diverges_leaves_the_others_alone() -> None:
    models = several(VECTORS["rectifiers"][1])
    well = train_stacked(copy.deepcopy(models), recipe(), None, SEEDS)
    with torch.no_grad():
        models[1].get_parameter("0.weight").fill_(float("inf"))
    masks = [None, Masks({"0.weight": torch.arange(54).view(9, 6) > 3}), None, None, None]
    ill = train_stacked(models, recipe(), masks, SEEDS)
    assert not ill[1].finite
    assert ill[1].weights["0.weight"].flatten()[:4].tolist() == [0.0] * 4
    for position in (0, 2, 3, 4):
        identical(ill[position], well[position])


def test_masks_of_frozen_and_of_shared_parameters() -> None:
    for make, name in ((VECTORS["frozen first layer"][1], "0.weight"), (tied, "2.weight")):
        models = several(make)
        shape = models[0].get_parameter(name).shape
        masks = [Masks({name: torch.rand(shape, generator=torch.Generator().manual_seed(i)) < 0.5}) for i in range(5)]
        together = copy.deepcopy(models)
        expected = alone(models, recipe(), masks, SEEDS)
        for one, other in zip(train_stacked(together, recipe(), masks, SEEDS), expected, strict=True):
            same(one, other, rtol=1e-9, atol=1e-11)


# --- in pieces, in company -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["momentum", "plain", "adam, with a schedule", "rmsprop"])
@pytest.mark.parametrize("name", ["rectifiers", "batch norm of vectors"])
def test_in_pieces_bit_for_bit(name: str, setting: str) -> None:
    by = recipe(**SETTINGS[setting])
    models = several(VECTORS[name][1])
    masks = masks_of(models)
    whole = train_stacked(copy.deepcopy(models), by, masks, SEEDS)
    halves = train_stacked(copy.deepcopy(models), by, masks, SEEDS, stop=6)
    fresh = several(VECTORS[name][1])
    rest = train_stacked(fresh, by, masks, SEEDS, resume=halves)
    for one, first, second, model in zip(whole, halves, rest, fresh, strict=True):
        identical(State(second.weights, second.optimizer, second.step, torch.cat([first.losses, second.losses])), one)
        assert torch.equal(model.state_dict()["0.weight"], one.weights["0.weight"])
    # What one began, the other ends.
    later = alone(several(VECTORS[name][1]), by, masks, SEEDS, stop=6)
    for one, other in zip(train_stacked(several(VECTORS[name][1]), by, masks, SEEDS, resume=later), rest, strict=True):
        same(one, other, rtol=1e-9, atol=1e-11)
    for position, begun in enumerate(halves):
        alone_now = by.train(copy.deepcopy(models[position]), masks[position], SEEDS[position], resume=begun)
        same(alone_now, rest[position], rtol=1e-9, atol=1e-11)


def test_the_states_given_are_not_changed_and_those_got_are_apart() -> None:
    models = several(VECTORS["rectifiers"][1])
    begun = train_stacked(models, recipe(), None, SEEDS, stop=4)
    before = copy.deepcopy(begun)
    states = train_stacked(models, recipe(), None, SEEDS, resume=begun)
    for one, other in zip(begun, before, strict=True):
        identical(one, other)
    tensors = [value for state in states for value in state.weights.values()]
    tensors += [v for state in states for own in state.optimizer["state"].values() for v in own.values()]
    tensors += [parameter for model in models for parameter in model.parameters()]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_do_not_depend_on_the_company(dtype: torch.dtype) -> None:
    models = several(
        lambda: nn.Sequential(nn.Linear(6, 33), nn.ReLU(), nn.Linear(33, 17), nn.Tanh(), nn.Linear(17, 4)), dtype
    )
    by, masks = recipe(dtype=dtype), masks_of(models)
    whole = train_stacked(copy.deepcopy(models), by, masks, SEEDS)
    for part in ([3], [4, 1], [2, 0, 4]):
        few = train_stacked(
            [copy.deepcopy(models[i]) for i in part], by, [masks[i] for i in part], [SEEDS[i] for i in part]
        )
        for position, state in zip(part, few, strict=True):
            identical(state, whole[position])


def test_several_architectures_each_in_its_place(ways: list[str]) -> None:
    makers = [VECTORS[name][1] for name in ("rectifiers", "one layer", "chance")]
    models = [several(makers[i % 3])[i // 3] for i in range(9)]
    halfway = [None, *train_stacked(copy.deepcopy(models[1:2]), recipe(), stop=3), *[None] * 7]
    together = copy.deepcopy(models)
    ways.clear()
    states = train_stacked(together, recipe(), seeds=range(9), resume=halfway)
    assert sorted(ways) == ["Dense", "Dense", "Dense", "none"]  # the one that was begun goes alone
    for seed, (model, state) in enumerate(zip(models, states, strict=True)):
        same(state, recipe().train(model, None, seed, resume=halfway[seed]), rtol=1e-9, atol=1e-11)


def test_large_groups_are_parted(monkeypatch: pytest.MonkeyPatch, ways: list[str]) -> None:
    monkeypatch.setattr("prunelab.lottery.stacking.grouping._TOGETHER", 100)  # "one layer" has 28 weights
    models = several(VECTORS["one layer"][1], count=8)
    states = train_stacked(copy.deepcopy(models), recipe(), seeds=range(8))
    assert ways == ["Dense"] * 3
    for seed, (model, state) in enumerate(zip(models, states, strict=True)):
        same(state, recipe().train(model, None, seed), rtol=1e-9, atol=1e-11)


# --- what is not stacked ---------------------------------------------------------------------------------------------


class Clipped(torch.optim.SGD):
    """An optimizer that looks at all weights of a model at once."""

    def step(self, closure: Any = None) -> Any:
        torch.nn.utils.clip_grad_norm_([p for group in self.param_groups for p in group["params"]], 0.1)
        return super().step(closure)


def hooked(parameters: Any, lr: float) -> torch.optim.Optimizer:
    made = torch.optim.SGD(parameters, lr)

    def clip(own: Any, *_: Any) -> None:
        torch.nn.utils.clip_grad_norm_(own.param_groups[0]["params"], 0.1)

    made.register_step_pre_hook(clip)
    return made


def grouped(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    flat, deep = ([p for p in parameters if (p.dim() > 1) is way] for way in (False, True))
    return torch.optim.SGD([{"params": flat, "weight_decay": 0.0}, {"params": deep, "weight_decay": 0.1}], lr)


@pytest.mark.parametrize("optimizer", [Clipped, hooked, grouped, lambda p, lr: torch.optim.Adafactor(p, lr)])
def test_optimizers_that_look_at_more_than_one_number(optimizer: Any, ways: list[str]) -> None:
    models = several(VECTORS["rectifiers"][1])
    together = copy.deepcopy(models)
    expected = alone(models, recipe(optimizer=optimizer), None, SEEDS)
    for one, other in zip(train_stacked(together, recipe(optimizer=optimizer), None, SEEDS), expected, strict=True):
        identical(one, other)
    assert not ways


def test_models_that_are_more_than_their_layers(ways: list[str]) -> None:
    """Hooks, attributes that differ, and code that looks at its data are run as they are."""
    calls: list[int] = []
    watched = several(VECTORS["rectifiers"][1])
    watched[3].get_submodule("0").register_forward_hook(lambda *_: calls.append(1))
    train_stacked(watched, recipe(), None, SEEDS)
    assert len(calls) == 11
    unlike = [Own(scale).double() for scale in (1.0, 2.0, 1.0, 1.0, 1.0)]
    expected = alone(copy.deepcopy(unlike), recipe(), None, SEEDS)
    for one, other in zip(train_stacked(unlike, recipe(), None, SEEDS), expected, strict=True):
        identical(one, other)
    assert ways == ["none", "none"]


def test_short_floats_are_trained_alone(ways: list[str]) -> None:
    models = several(VECTORS["rectifiers"][1], torch.bfloat16)
    by = recipe(dtype=torch.bfloat16)
    expected = alone(copy.deepcopy(models), by)
    for one, other in zip(train_stacked(models, by), expected, strict=True):
        identical(one, other)
    assert not ways


def test_large_models_and_few_of_a_costly_kind_are_trained_alone(ways: list[str]) -> None:
    train_stacked(several(lambda: nn.Linear(6, 1 << 18), torch.float32, 2), recipe(dtype=torch.float32), stop=1)
    train_stacked(several(Own, count=4), recipe(), stop=1)
    assert ways == ["none"] * 3


# --- what is left behind ---------------------------------------------------------------------------------------------


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_threads_modes_and_chance_are_as_they_were() -> None:
    seen: list[int] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(torch.get_num_threads())
        if len(seen) > 8:
            raise RuntimeError("enough")
        return F.cross_entropy(outputs, targets)

    models = several(VECTORS["rectifiers"][1])
    models[1].eval()
    before, first = torch.get_rng_state(), copy.deepcopy(models)
    with pytest.raises(RuntimeError, match="enough"):
        train_stacked(models, recipe(loss=loss), None, SEEDS)
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2
    assert torch.equal(before, torch.get_rng_state())
    assert [model.training for model in models] == [True, False, True, True, True]
    for model, other in zip(models, first, strict=True):  # an error changes nothing
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"masks": [None]}, ValueError, "masks has 1 entries for 5 models"),
        ({"masks": Masks({})}, TypeError, "masks must be a list"),
        ({"masks": [*[None] * 4, Masks({"9.weight": torch.ones(2, dtype=torch.bool)})]}, ValueError, "no parameter '9.weight'"),
        ({"seeds": [0, 1, 2, 3, -1]}, ValueError, "seed"),
        ({"seeds": 3}, TypeError, "seeds must be a list"),
        ({"stop": 12}, ValueError, "stop=12 must lie between"),
        ({"resume": [*[None] * 4, State({}, None, 2)]}, ValueError, "another model"),
        ({"resume": [*[None] * 4, State({}, None, 7)], "stop": 6}, ValueError, "stop=6 must lie between where model 4 stands, 7"),
        ({"jobs": 0}, ValueError, "jobs"),
    ],
)  # fmt: skip
def test_errors_name_the_value_and_change_nothing(arguments: Any, error: type[Exception], message: str) -> None:
    models = several(VECTORS["rectifiers"][1])
    first = copy.deepcopy(models)
    with pytest.raises(error, match=message):
        train_stacked(models, recipe(), **arguments)
    for model, other in zip(models, first, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_models_that_share_memory_are_refused() -> None:
    model = several(VECTORS["one layer"][1])[0]
    with pytest.raises(ValueError, match="models 0 and 2 share memory"):
        train_stacked([model, copy.deepcopy(model), model], recipe())


def test_no_models_and_no_steps() -> None:
    assert train_stacked([], recipe()) == []
    models = several(VECTORS["rectifiers"][1])
    first = copy.deepcopy(models)
    states = train_stacked(models, recipe(), masks_of(models), stop=0)
    assert [(state.step, state.optimizer, len(state.losses)) for state in states] == [(0, None, 0)] * 5
    assert torch.equal(states[2].weights["0.weight"], first[2].get_parameter("0.weight"))


class Elsewhere:
    """An engine that computes on copies, from the last to the first, as another process would."""

    def map(self, function: Any, cells: Sequence[Any]) -> Iterator[Any]:
        sent = pickle.loads(cloudpickle.dumps(function))
        return (pickle.loads(pickle.dumps(sent(cell))) for cell in reversed(cells))


def test_in_other_processes(ways: list[str]) -> None:
    models = [several(VECTORS[name][1])[i] for i in range(5) for name in ("rectifiers", "chance")]
    here = train_stacked(copy.deepcopy(models), recipe(), masks_of(models), range(10))
    there = copy.deepcopy(models)
    for state, other, model in zip(
        train_stacked(there, recipe(), masks_of(models), range(10), engine=Elsewhere()), here, there, strict=True
    ):
        identical(state, other)
        assert all(torch.equal(value, state.weights[name]) for name, value in model.state_dict().items())


def test_on_every_device(device: torch.device) -> None:
    for name in ("rectifiers", "batch norm of vectors", "code of its own"):
        models = [model.to(device) for model in several(VECTORS[name][1])]
        masks = masks_of(models)
        together = copy.deepcopy(models)
        expected = alone(models, recipe(), masks, SEEDS)
        for one, other in zip(train_stacked(together, recipe(), masks, SEEDS), expected, strict=True):
            same(one, other, rtol=1e-8, atol=1e-9)
        assert accuracies(together, recipe().inputs, recipe().targets) == accuracies(
            models, recipe().inputs, recipe().targets
        )


# --- accuracies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*VECTORS, *IMAGES])
def test_accuracies_are_those_of_each_model(name: str) -> None:
    shape, (_, make) = ((6,), VECTORS[name]) if name in VECTORS else ((2, 6, 6), IMAGES[name])
    draw = torch.Generator().manual_seed(5)
    inputs = torch.randn(1100, *shape, generator=draw, dtype=torch.float64)  # more than are run at once
    targets = torch.randint(4, (1100,), generator=draw)
    models = several(make)
    alone(models, recipe(shape, steps=5))
    models[1].eval()
    models[2].get_submodule(
        next(name for name, _ in models[2].named_modules() if name) if len(list(models[2].modules())) > 1 else ""
    ).eval()
    modes = [[module.training for module in model.modules()] for model in models]
    found = accuracies([*models, *several(VECTORS["one layer"][1])] if shape == (6,) else models, inputs, targets)
    assert found[:5] == [train.accuracy(model, (inputs, targets)) for model in models]
    assert modes == [[module.training for module in model.modules()] for model in models]


def test_accuracies_need_examples() -> None:
    with pytest.raises(ValueError, match="0 inputs"):
        accuracies([nn.Linear(2, 2)], torch.zeros(0, 2), torch.zeros(0))
    with pytest.raises(ValueError, match="3 inputs and 2 targets"):
        accuracies([nn.Linear(2, 2)], torch.zeros(3, 2), torch.zeros(2))
