"""Holding: zeros that stay exactly zero through everything a training loop does, and leave no trace afterwards.

The oracle throughout is the definition, written out: after every step, multiply every weight by its mask.
"""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunelab import Masks


def net(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )
    return nn.Sequential(*layers).to(device, dtype)


def some_masks(model: nn.Module) -> Masks:
    generator = torch.Generator().manual_seed(1)
    weights = {n: p for n, p in model.named_parameters() if p.dim() > 1 or n == "4.bias"}
    return Masks({n: torch.rand(p.shape, generator=generator) > 0.6 for n, p in weights.items()}, model)


def batch(index: int, like: nn.Module) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 + index)
    parameter = next(like.parameters())
    inputs = torch.randn(8, 1, 4, 4, generator=generator)
    return inputs.to(parameter.device, parameter.dtype), torch.randint(3, (8,), generator=generator).to(
        parameter.device
    )


def loss_of(model: nn.Module, index: int) -> Tensor:
    inputs, targets = batch(index, model)
    return nn.functional.cross_entropy(model(inputs), targets)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, index: int) -> None:
    optimizer.zero_grad()
    loss_of(model, index).backward()
    optimizer.step()


def multiply(masks: Masks, model: nn.Module) -> None:
    """What holding means."""
    with torch.no_grad():
        for name, mask in masks.items():
            parameter = model.get_parameter(name)
            parameter.mul_(mask.to(parameter.device))
            parameter.add_(0.0)  # -0.0 + 0.0 is 0.0


def removed_are_zero(masks: Masks, model: nn.Module) -> bool:
    removed = [model.get_parameter(name).detach()[~mask] for name, mask in masks.items()]
    return all(not values.any() and not torch.signbit(values).any() for values in removed)


def same(model: nn.Module, other: nn.Module) -> bool:
    state, expected = model.state_dict(), other.state_dict()
    return list(state) == list(expected) and all(torch.equal(state[key], expected[key]) for key in state)


# --- optimizers ---------------------------------------------------------------------------------------------------------

Maker = Callable[..., torch.optim.Optimizer]
OPTIMIZERS: dict[str, tuple[Maker, dict[str, Any]]] = {
    "sgd with momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "sgd with nesterov and decay": (
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ),
    "adam": (torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.9, "centered": True, "weight_decay": 0.1}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.1, "weight_decay": 0.1}),
    "nadam": (torch.optim.NAdam, {"lr": 0.01}),
    "rprop": (torch.optim.Rprop, {"lr": 0.01}),
}
FUSED = {torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad}


def implementations() -> Iterator[Any]:
    for name, (maker, settings) in OPTIMIZERS.items():
        for how in ({"foreach": False}, {"foreach": True}, *([{"fused": True}] if maker in FUSED else [])):
            if not (how == {"fused": True} and settings.get("amsgrad")):
                yield pytest.param(maker, {**settings, **how}, id=f"{name}, {how}")


@pytest.mark.parametrize(("maker", "settings"), list(implementations()))
def test_momentum_or_weight_decay_revives_pruned_weights(
    maker: Maker, settings: dict[str, Any], device: torch.device
) -> None:
    """The mistake: set weights to zero and train on. Held, they stay zero, and every other weight is what it should be."""
    arms = {name: net(device) for name in ("held", "by definition", "only zeroed")}
    optimizers = {name: maker(model.parameters(), **settings) for name, model in arms.items()}
    for index in range(3):  # momentum for the weights that will be removed
        for name, model in arms.items():
            step(model, optimizers[name], index)
    masks = some_masks(arms["held"])
    masks.hold(arms["held"], optimizers["held"])
    multiply(masks, arms["by definition"])
    masks.apply_(arms["only zeroed"])
    for index in range(3, 6):
        for name, model in arms.items():
            step(model, optimizers[name], index)
        multiply(masks, arms["by definition"])
        assert removed_are_zero(masks, arms["held"])
        assert same(arms["held"], arms["by definition"])
    assert not removed_are_zero(masks, arms["only zeroed"])


def test_a_step_with_a_closure_holds_too() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    masks = some_masks(model)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, 0)
        loss.backward()
        return loss

    with masks.hold(model, optimizer):
        optimizer.step(closure)
        assert removed_are_zero(masks, model)


# --- what else a training loop does -------------------------------------------------------------------------------------


def clipped(model: nn.Module, optimizer: torch.optim.Optimizer, index: int) -> None:
    optimizer.zero_grad()
    loss_of(model, index).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()


def accumulated(model: nn.Module, optimizer: torch.optim.Optimizer, index: int) -> None:
    optimizer.zero_grad()
    for part in range(3):
        (loss_of(model, 3 * index + part) / 3).backward()
    optimizer.step()


def autocast(model: nn.Module, optimizer: torch.optim.Optimizer, index: int) -> None:
    optimizer.zero_grad()
    with torch.autocast(next(model.parameters()).device.type, torch.bfloat16):
        loss = loss_of(model, index)
    loss.backward()
    optimizer.step()


def scaled(model: nn.Module, optimizer: torch.optim.Optimizer, index: int) -> None:
    scaler = torch.amp.GradScaler(next(model.parameters()).device.type, init_scale=1024.0)
    optimizer.zero_grad()
    scaler.scale(loss_of(model, index)).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("take_step", [clipped, accumulated, autocast, scaled], ids=lambda f: f.__name__)
def test_clipping_accumulation_and_mixed_precision(take_step: Callable[..., None], device: torch.device) -> None:
    held, expected = net(device), net(device)
    optimizers = [torch.optim.AdamW(m.parameters(), lr=0.01, weight_decay=0.1) for m in (held, expected)]
    masks = some_masks(held)
    masks.hold(held, optimizers[0])
    multiply(masks, expected)
    for index in range(4):
        for model, optimizer in zip((held, expected), optimizers, strict=True):
            take_step(model, optimizer, index)
        multiply(masks, expected)
        assert removed_are_zero(masks, held)
        assert same(held, expected)


def test_a_step_that_the_gradient_scaler_skips_changes_nothing(device: torch.device) -> None:
    model = net(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    masks = some_masks(model)
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0)
    with masks.hold(model, optimizer):
        before = copy.deepcopy(dict(model.named_parameters()))
        scaler.scale(loss_of(model, 0) * torch.inf).backward()
        scaler.step(optimizer)
        scaler.update()
        assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
        step(model, optimizer, 1)
        assert removed_are_zero(masks, model)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_precision_and_every_bit_of_what_is_kept(dtype: torch.dtype, device: torch.device) -> None:
    model = nn.Linear(4, 1, bias=False).to(device, dtype)
    model.weight.data = torch.tensor([[torch.nan, -torch.inf, -1.5, -0.0]], device=device, dtype=dtype)
    kept = model.weight.detach().clone().view(torch.int8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    for mask in ([[True, True, True, True]], [[True, False, True, True]], [[False] * 4]):
        masks = Masks({"weight": torch.tensor(mask)})
        with masks.hold(model, optimizer):
            model.weight.grad = torch.zeros_like(model.weight)
            optimizer.step()
        bytes_kept = torch.tensor(mask, device=device).repeat_interleave(model.weight.element_size(), 1)
        found = model.weight.detach().view(torch.int8)
        assert torch.equal(found[bytes_kept], kept[bytes_kept])
        assert not found[~bytes_kept].any()


# --- what can happen to the model meanwhile -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.double(),
        lambda m: m.to(memory_format=torch.channels_last),
        lambda m: m.load_state_dict({k: torch.randn_like(v.float()).to(v.dtype) for k, v in m.state_dict().items()}),
        lambda m: setattr(m[4].weight, "data", torch.randn(16, 8).t()),  # other memory, in another order
        lambda m: setattr(m[4].weight, "data", m[4].weight.data.clone()),
        lambda m: m.requires_grad_(False)[6].requires_grad_(True),
        lambda m: m.eval(),
    ],
    ids=["double", "channels last", "load_state_dict", "transposed", "cloned", "frozen", "eval"],
)
def test_the_hold_follows_the_model(change: Callable[[Any], object]) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    masks = some_masks(model)
    with masks.hold(model, optimizer):
        step(model, optimizer, 0)
        change(model)
        optimizer.state.clear()  # momentum in the old precision is the user's to convert
        for index in range(2):
            step(model, optimizer, index)
            assert removed_are_zero(masks, model)


def test_an_optimizer_that_loads_its_state_goes_on_holding() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step(model, optimizer, 0)
    masks = some_masks(model)
    with masks.hold(model, optimizer):
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        step(model, optimizer, 1)
        assert removed_are_zero(masks, model)


def test_two_holds_keep_what_both_keep() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    one, other = some_masks(model), Masks({"6.weight": torch.arange(24).reshape(3, 8) % 2 == 0})
    with one.hold(model, optimizer), other.hold(model, optimizer):
        step(model, optimizer, 0)
        assert removed_are_zero(one & other, model)


def test_a_held_model_can_be_copied_pickled_and_saved(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    masks = some_masks(model)
    keys = list(model.state_dict())
    with masks.hold(model, optimizer):
        step(model, optimizer, 0)
        assert list(model.state_dict()) == keys
        torch.save(model.state_dict(), tmp_path / "model.pt")
        fresh = net()
        fresh.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        for twin in (fresh, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert same(twin, model)
            free = torch.optim.SGD(twin.parameters(), lr=0.1)
            step(twin, free, 1)  # copies are nobody's: the hold is the original's
            assert not removed_are_zero(masks, twin)
        twin_optimizer = copy.deepcopy(optimizer)
        assert not twin_optimizer._optimizer_step_post_hooks
        pickle.loads(pickle.dumps(optimizer))
        step(model, optimizer, 1)
        assert removed_are_zero(masks, model)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_is_held(backend: str) -> None:
    held, expected = net(), net()
    masks = some_masks(held)
    compiled = torch.compile(held, backend=backend)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (held, expected)]
    with masks.hold(compiled, optimizers[0]):
        multiply(masks, expected)
        for index in range(3):
            step(compiled, optimizers[0], index)
            step(expected, optimizers[1], index)
            multiply(masks, expected)
            assert removed_are_zero(masks, held)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(held.parameters(), expected.parameters(), strict=True))
    torch._dynamo.reset()


DISTRIBUTED = """
import sys
import torch
import torch.distributed as dist
from torch import nn
import prunelab
from prunelab.schedule import Iterative

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
parallel = nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
pruner = prunelab.Pruner(parallel, optimizer, schedule=Iterative(0.75, rounds=3, start=2, every=2))
for step in range(8):
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(2 * step + rank))
    optimizer.zero_grad()
    parallel(x).square().mean().backward()
    optimizer.step()
    pruner.step()
    for name, mask in pruner.masks.items():
        assert not model.get_parameter(name)[~mask].any()
assert list(pruner.masks) == ["0.weight", "2.weight"]
torch.save({"weights": model.state_dict(), "pruner": pruner.state_dict()}, f"{folder}/{rank}.pt")
dist.barrier()
dist.destroy_process_group()
"""


def test_two_processes_that_share_their_gradients_hold_the_same_zeros(tmp_path: Path) -> None:
    """DistributedDataParallel over gloo: each process prunes by itself, and both come to the same bits."""
    command = [sys.executable, "-c", DISTRIBUTED]
    runs = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True) for rank in range(2)
    ]
    errors = [run.communicate(timeout=120)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first["weights"][key], second["weights"][key]) for key in first["weights"])
    assert Masks(first["pruner"]["masks"]) == Masks(second["pruner"]["masks"])
    assert Masks(first["pruner"]["masks"]).removed == round(0.75 * 64)


# --- no trace -----------------------------------------------------------------------------------------------------------


def hooks(thing: object) -> dict[str, Any]:
    """Every attribute that holds hooks, of torch's own naming, that is not empty."""
    return {name: value for name, value in vars(thing).items() if "hook" in name and isinstance(value, dict) and value}


def test_release_leaves_no_trace(device: torch.device) -> None:
    model = net(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    step(model, optimizer, 0)
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    optimizer_attributes, keys = set(vars(optimizer)), list(optimizer.state_dict()["state"][0])
    masks = some_masks(model)
    handle = masks.hold(model, optimizer)
    assert not any(hooks(module) for module in model.modules())
    step(model, optimizer, 1)
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    handle.release()
    handle.release()
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert set(vars(optimizer)) == optimizer_attributes
    assert list(optimizer.state_dict()["state"][0]) == keys
    assert not hooks(optimizer)
    assert not any(parameter._backward_hooks for parameter in model.parameters())
    free = net(device)  # goes on like a model that was never held
    free.load_state_dict(weights)
    other = torch.optim.SGD(free.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    other.load_state_dict(state)
    step(model, optimizer, 2)
    step(free, other, 2)
    assert same(model, free)
    assert not removed_are_zero(masks, model)


def test_what_is_kept_whole_is_not_touched() -> None:
    model = net()
    masks = Masks({name: torch.ones_like(p, dtype=torch.bool) for name, p in model.named_parameters()})
    versions = [parameter._version for parameter in model.parameters()]
    with masks.hold(model, torch.optim.SGD(model.parameters())):
        assert [parameter._version for parameter in model.parameters()] == versions


def test_autograd_notices_that_the_hold_wrote() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with some_masks(model).hold(model, optimizer):
        step(model, optimizer, 0)
        version = model[4].weight._version
        optimizer.zero_grad()  # no gradients: the optimizer writes nothing, the hold does
        optimizer.step()
        assert model[4].weight._version > version
