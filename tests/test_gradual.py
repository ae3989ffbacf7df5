"""Pruner: pruning while training, step by step against the definition, and resumed bit for bit."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import prunelab
from prunelab import Masks, Pruner
from prunelab.criteria import Criterion, Magnitude, Movement, Random, SynFlow
from prunelab.granularity import Filter
from prunelab.schedule import AGP, DSD, Iterative, Linear, OneCycle, OneShot, Schedule
from prunelab.scope import NM, Global, LayerCollapseWarning, Local, PerRow


class Saliency(Criterion):
    """A criterion that needs all there is, so that `data` and `loss` are passed on."""

    needs = frozenset({"weights", "gradients", "data"})

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        assert gradients is not None
        return (weights * gradients).sum(1).abs()


class LargestFirst(Criterion):
    """Would bring every removed weight back, at zero the most valuable of all, if masks did not nest."""

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        return -weights.abs().sum(1)


def net(device: torch.device | str = "cpu") -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Dropout(0.1), nn.Linear(10, 4)).to(device)  # 100 weights


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.01)


def batch(index: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(index)
    return torch.randn(8, 6, generator=generator), torch.randint(4, (8,), generator=generator)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, index: int) -> None:
    torch.manual_seed(index)  # of the dropout
    inputs, targets = (part.to(next(model.parameters()).device) for part in batch(index))
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()


def run(pruner: Pruner, steps: range) -> list[float]:
    """The sparsity after each step; the zeros are checked after each, too."""
    found = []
    for index in steps:
        train(pruner.model, pruner.optimizer, index)
        assert zeros_hold(pruner)
        pruner.step()
        assert zeros_hold(pruner)
        found.append(pruner.sparsity)
    return found


def zeros_hold(pruner: Pruner) -> bool:
    return all(not pruner.model.get_parameter(name)[~mask].any() for name, mask in pruner.masks.items())


def everything(pruner: Pruner) -> dict[str, Any]:
    """All that a refused call must leave alone."""
    return copy.deepcopy(
        {
            "model": pruner.model.state_dict(),
            "optimizer": pruner.optimizer.state_dict(),
            "pruner": pruner.state_dict(),
            "hooks": len(pruner.optimizer._optimizer_step_post_hooks),
            "attributes": {name: sorted(vars(module)) for name, module in pruner.model.named_modules()},
        }
    )


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0)) if one.is_floating_point() else one.equal(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


# --- when ---------------------------------------------------------------------------------------------------------------

# (schedule, the sparsity after each of the first calls)
TABLE: list[tuple[Schedule, list[float]]] = [
    (OneShot(0.9), [0.9, 0.9, 0.9]),
    (OneShot(0.9, at=1), [0.9, 0.9, 0.9]),
    (OneShot(0.9, at=3), [0, 0, 0.9, 0.9]),
    (Iterative(0.6, rounds=3, every=2), [0.2, 0.4, 0.4, 0.6, 0.6]),
    (Iterative(0.6, rounds=3, start=1, every=2), [0.2, 0.2, 0.4, 0.4, 0.6]),
    (Linear(0.8, start=0, end=4), [0.2, 0.4, 0.6, 0.8, 0.8]),
    (Linear(0.8, start=0, end=4, every=3), [0, 0, 0.6, 0.8, 0.8]),
    (AGP(0.8, start=2, end=4, initial=0.4), [0, 0.4, 0.75, 0.8, 0.8]),
    (AGP(0.8, start=3, end=3), [0, 0, 0.8, 0.8]),
    (DSD(0.5, start=2, end=4), [0, 0.5, 0.5, 0, 0]),
    (DSD(0.5, start=0, end=1), [0, 0]),
    (OneShot(0.0), [0, 0]),
    (OneShot(1.0, at=2), [0, 1, 1]),
]


@pytest.mark.parametrize(
    ("plan", "expected"), TABLE, ids=lambda value: repr(value) if isinstance(value, Schedule) else ""
)
@pytest.mark.filterwarnings("ignore::prunelab.scope.LayerCollapseWarning")
def test_the_sparsity_after_each_call(plan: Schedule, expected: list[float], device: torch.device) -> None:
    model = net(device)
    pruner = Pruner(model, sgd(model), schedule=plan)
    assert pruner.masks == Masks({})
    assert pruner.sparsity == 0
    assert run(pruner, range(len(expected))) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0, 1),
    st.integers(0, 4),
    st.integers(0, 6),
    st.integers(1, 4),
    st.sampled_from([AGP, Linear, OneCycle, Iterative, DSD]),
)
def test_after_k_calls_it_is_the_last_due_step_up_to_k(
    final: float, start: int, length: int, every: int, kind: Any
) -> None:
    if kind is Iterative:
        plan: Schedule = Iterative(final, rounds=length + 1, start=start, every=every)
    else:
        plan = DSD(final, start, start + length + 1) if kind is DSD else kind(final, start, start + length, every)
    model = net()
    pruner = Pruner(model, sgd(model), schedule=plan)
    before = Masks({})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for calls in range(1, plan.end + 3):
            pruner.step()
            due = [step for step in range(calls + 1) if plan.due(step)]
            wanted = plan(due[-1]) if due else 0.0
            assert round(pruner.sparsity * 100) == round(wanted * 100)
            if kind is not DSD:  # they nest: what is gone stays gone
                assert (pruner.masks & before) == pruner.masks
            before = pruner.masks


def test_each_pruning_is_prune_on_the_weights_of_that_moment() -> None:
    """Written out by hand: prune within what is left, multiply by the masks after every step."""
    plan = Iterative(0.8, rounds=4, start=2, every=3)
    pruned, by_hand = net(), net()
    pruner = Pruner(pruned, sgd(pruned), schedule=plan, scope="local", parameters=iter(["0.weight", "3.weight"]))
    optimizer, masks = sgd(by_hand), None
    for index in range(1, 15):
        train(pruned, pruner.optimizer, index)
        pruner.step()
        train(by_hand, optimizer, index)
        if masks is not None:
            masks.apply_(by_hand)
        if index in (2, 5, 8, 11):
            masks = prunelab.prune(by_hand, 0.2 * (index + 1) / 3, within=masks, scope="local")
        assert same(pruned.state_dict(), by_hand.state_dict())
    assert pruner.masks == masks


def test_what_is_gone_stays_gone_whatever_the_criterion_says() -> None:
    model = net()
    pruner = Pruner(model, sgd(model), schedule=Linear(0.8, 0, 4), criterion=LargestFirst())
    before = Masks({})
    for index in range(4):
        run(pruner, range(index, index + 1))
        assert (pruner.masks & before) == pruner.masks
        before = pruner.masks
    assert pruner.sparsity == 0.8


def test_every_argument_reaches_prune() -> None:
    model = net()
    data = [batch(0), batch(1)]
    how: dict[str, Any] = {
        "criterion": Saliency(),
        "granularity": Filter(),
        "scope": "local",
        "data": data,
        "loss": nn.functional.cross_entropy,
        "exclude": ["3.*"],
    }
    pruner = Pruner(model, sgd(model), schedule=OneShot(0.3), **how)
    expected = prunelab.prune(model, 0.3, apply=False, **how)
    pruner.step()
    assert pruner.masks == expected
    assert list(pruner.masks) == ["0.weight", "0.bias"]
    assert pruner.masks["0.weight"].any(1).sum() == 7


def test_n_of_m_goes_all_at_once() -> None:
    model = nn.Linear(8, 8)
    pruner = Pruner(model, sgd(model), schedule=DSD(0.5, start=1, end=3), scope=NM(2, 4))
    for expected in (0.5, 0.5, 0.0):
        pruner.step()
        assert pruner.sparsity == expected
    with pytest.raises(ValueError, match=r"0\.5"):
        Pruner(model, sgd(model), schedule=AGP(0.5, 0, 10), scope=NM(2, 4))


# --- giving back --------------------------------------------------------------------------------------------------------


def test_dense_again_the_weights_train_from_zero() -> None:
    model = net()
    pruner = Pruner(model, sgd(model), schedule=DSD(0.5, start=2, end=5))
    run(pruner, range(4))
    removed = ~pruner.masks["0.weight"]
    train(model, pruner.optimizer, 4)
    before = copy.deepcopy(model.state_dict())
    pruner.step()
    assert same(model.state_dict(), before)  # the weights stay as they are, zeros included
    assert pruner.masks.removed == 0
    assert set(pruner.masks) == {"0.weight", "3.weight"}
    assert not pruner.optimizer._optimizer_step_post_hooks
    run(pruner, range(5, 7))
    assert model[0].weight[removed].any()


class ThenLess(Schedule):
    """A schedule of one's own: 0.8, then back to 0.5, then 0.6."""

    end = 3

    def __call__(self, step: int) -> float:
        return (0.0, 0.8, 0.5, 0.6)[min(step, 3)]

    def due(self, step: int) -> bool:
        return 1 <= step <= 3


def test_a_schedule_that_falls_to_another_sparsity_keeps_fewer_zeros() -> None:
    model = net()
    pruner = Pruner(model, sgd(model), schedule=ThenLess())
    run(pruner, range(1))
    eighty = pruner.masks
    assert run(pruner, range(1, 2)) == [0.5]
    fifty = pruner.masks
    assert (fifty | eighty) == fifty  # the smallest weights are zeros, so those that stay gone were gone
    assert run(pruner, range(2, 3)) == [0.6]
    assert (fifty & pruner.masks) == pruner.masks
    assert len(pruner.optimizer._optimizer_step_post_hooks) == 1


# --- resuming -----------------------------------------------------------------------------------------------------------

PLANS = [Iterative(0.8, 3, start=2, every=3), AGP(0.9, 1, 9, every=2), DSD(0.5, 2, 6), OneShot(0.7, at=11)]


@pytest.mark.parametrize("plan", PLANS, ids=repr)
@pytest.mark.parametrize("make", [sgd, adam])
@pytest.mark.parametrize("stop", [0, 1, 5, 8])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    plan: Schedule, make: Callable[..., Any], stop: int, tmp_path: Path, device: torch.device
) -> None:
    through = net(device)
    whole = Pruner(through, make(through), schedule=plan)
    run(whole, range(12))
    first = net(device)
    stopped = Pruner(first, make(first), schedule=plan)
    run(stopped, range(stop))
    state = {"model": first.state_dict(), "optimizer": stopped.optimizer.state_dict(), "pruner": stopped.state_dict()}
    torch.save(state, tmp_path / "checkpoint.pt")
    for order in (("model", "optimizer", "pruner"), ("pruner", "optimizer", "model")):
        loaded = torch.load(tmp_path / "checkpoint.pt", weights_only=True)  # afresh: optimizers train in what they load
        model = net(device)
        optimizer = make(model)
        pruner = Pruner(model, optimizer, schedule=plan)
        for part in order:
            {"model": model, "optimizer": optimizer, "pruner": pruner}[part].load_state_dict(loaded[part])
        run(pruner, range(stop, 12))
        assert same(model.state_dict(), through.state_dict())
        assert same(optimizer.state_dict(), whole.optimizer.state_dict())
        assert same(pruner.state_dict(), whole.state_dict())


FRESH = """
import sys, torch, prunelab
from torch import nn
from prunelab.schedule import Iterative
path, start, stop = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
pruner = prunelab.Pruner(model, optimizer, schedule=Iterative(0.8, rounds=4, start=1, every=2))
parts = {"model": model, "optimizer": optimizer, "pruner": pruner}
if start:
    for name, state in torch.load(path, weights_only=True).items():
        parts[name].load_state_dict(state)
for step in range(start, stop):
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()
    pruner.step()
torch.save({name: part.state_dict() for name, part in parts.items()}, path)
"""


def test_a_run_goes_on_in_a_fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file, start, stop in (("whole", 0, 10), ("parts", 0, 4)):
        monkeypatch.setattr(sys, "argv", ["-c", str(tmp_path / file), str(start), str(stop)])
        exec(FRESH, {})
    subprocess.run([sys.executable, "-c", FRESH, str(tmp_path / "parts"), "4", "10"], check=True, timeout=120)
    whole, parts = (torch.load(tmp_path / file, weights_only=True) for file in ("whole", "parts"))
    assert same(whole, parts)
    assert Masks(whole["pruner"]["masks"]).sparsity == 0.8


def test_the_state_is_a_copy_of_plain_values() -> None:
    model = net()
    pruner = Pruner(model, sgd(model), schedule=Linear(0.5, 0, 5))
    run(pruner, range(2))
    state = pruner.state_dict()
    assert {name: type(value) for name, value in state.items()} == {
        "step": int, "due": int, "sparsity": float, "masks": dict, "criterion": dict
    }  # fmt: skip
    state["masks"]["0.weight"].fill_(False)
    assert pruner.masks["0.weight"].any()
    other = Pruner(model, sgd(model), schedule=Linear(0.5, 0, 5))
    state = pruner.state_dict()
    other.load_state_dict(state)
    state["masks"]["0.weight"].fill_(False)
    assert other.masks == pruner.masks


def saved(steps: int, plan: Schedule | None = None, model: nn.Module | None = None, **how: Any) -> dict[str, Any]:
    model = net() if model is None else model
    pruner = Pruner(model, sgd(model), schedule=plan or Linear(0.5, 0, 5), **how)
    for _ in range(steps):
        pruner.step()
    return pruner.state_dict()


@pytest.mark.parametrize(
    ("state", "kind", "message"),
    [
        (lambda: None, TypeError, "state must be what Pruner.state_dict returned, not NoneType"),
        (dict, ValueError, r"must have the keys \['criterion', 'due', 'masks', 'sparsity', 'step'\].*not \[\]"),
        (lambda: {**saved(2), "lr": 1}, ValueError, "must have the keys"),
        (lambda: {**saved(2), "step": -1}, ValueError, r"state\['step'\] must be a whole number, 0 or more, not -1"),
        (lambda: {**saved(2), "step": 2.5}, ValueError, r"state\['step'\]"),
        (lambda: {**saved(2), "step": 3}, ValueError, "belongs to another schedule"),
        (
            lambda: saved(3, Linear(0.6, 0, 5)),
            ValueError,
            r"pruned at 3 to a sparsity of 0\.36, but .*says at 3 to 0\.3",
        ),
        (lambda: saved(0, Linear(0.5, 0, 5)) | {"due": 0}, ValueError, "belongs to another schedule"),
        (lambda: {**saved(2), "masks": {}}, ValueError, "the state masks nothing, this Pruner 0.weight, 3.weight"),
        (lambda: {**saved(0), "masks": saved(1)["masks"]}, ValueError, "this Pruner nothing by then"),
        (lambda: {**saved(2), "masks": None}, TypeError, "masks must be a mapping"),
        (lambda: saved(2, granularity=Filter()), ValueError, "other parameters= or another granularity"),
        (lambda: saved(2, parameters=["0.weight"]), ValueError, "other parameters= or another granularity"),
        (lambda: saved(2, model=nn.Linear(6, 10)), ValueError, "the model has no parameter 'weight'"),
        (lambda: saved(2, model=nn.Sequential(nn.Linear(7, 10))), ValueError, "belong to another model"),
    ],
)
def test_a_wrong_state_is_refused_and_changes_nothing(
    state: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    model = net()
    pruner = Pruner(model, sgd(model), schedule=Linear(0.5, 0, 5))
    run(pruner, range(4))
    before = everything(pruner)
    with pytest.raises(kind, match=message):
        pruner.load_state_dict(state())
    assert same(everything(pruner), before)
    run(pruner, range(4, 6))
    assert pruner.sparsity == 0.5


# --- errors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ({"schedule": AGP}, TypeError, r"not <class .*AGP'>; write AGP\(...\)"),
        ({"schedule": 0.9}, TypeError, r"schedule must be a Schedule such as AGP\(0.9, start=0, end=1000\), not 0.9"),
        ({"scope": "lokal"}, ValueError, "unknown scope 'lokal'"),
        ({"scope": {"0.weight": 0.5}}, ValueError, "a fraction for each parameter leaves nothing to a schedule"),
        ({"criterion": Magnitude}, TypeError, r"write Magnitude\(\)"),
        ({"granularity": Filter}, TypeError, r"write Filter\(\)"),
        ({"criterion": Saliency()}, ValueError, r"must be given data= and loss="),
        ({"criterion": Saliency(), "data": [batch(0)]}, ValueError, "loss="),
        ({"criterion": Saliency(), "data": iter([batch(0)]), "loss": nn.functional.cross_entropy}, TypeError, "once"),
        ({"parameters": ["9.weight"]}, ValueError, "9.weight"),
        ({"parameters": "0.weight"}, TypeError, r"0.weight"),
        ({"exclude": ["nothing"]}, ValueError, "nothing"),
    ],
)
def test_a_bad_argument_is_refused_before_training(how: dict[str, Any], kind: type[Exception], message: str) -> None:
    model = net()
    optimizer = sgd(model)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(kind, match=message):
        Pruner(model, optimizer, **{"schedule": OneShot(0.5, at=100), **how})
    assert same(model.state_dict(), before)
    assert not optimizer._optimizer_step_post_hooks


def test_the_optimizer_must_train_this_model() -> None:
    model = net()
    make = partial(Pruner, model, schedule=OneShot(0.5))
    with pytest.raises(ValueError, match="trains none of the masked parameters"):
        make(sgd(net()))
    with pytest.raises(TypeError, match=r"must be a torch.optim.Optimizer, not float"):
        make(0.1)
    with pytest.raises(ValueError, match="LBFGS"):
        make(torch.optim.LBFGS(model.parameters()))
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module"):
        Pruner(model.state_dict(), sgd(model), schedule=OneShot(0.5))  # type: ignore[arg-type]


class Never(ThenLess):
    def due(self, step: int) -> bool:
        return False


def test_a_schedule_that_never_does_anything_is_refused() -> None:
    with pytest.raises(ValueError, match=r"never has anything due up to its end, step 3"):
        Pruner(net(), sgd(net()), schedule=Never())


def test_making_a_pruner_changes_nothing() -> None:
    model = net()
    model.train()[2].eval()
    optimizer = sgd(model)
    train(model, optimizer, 0)
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    versions = [parameter._version for parameter in model.parameters()]
    before, random = copy.deepcopy((model.state_dict(), optimizer.state_dict())), torch.get_rng_state()
    Pruner(
        model, optimizer, schedule=OneShot(0.9), criterion=Saliency(), data=[batch(1)], loss=nn.functional.cross_entropy
    )
    assert same((model.state_dict(), optimizer.state_dict()), before)
    assert [parameter._version for parameter in model.parameters()] == versions
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert [module.training for module in model] == [True, True, False, True]
    assert torch.equal(torch.get_rng_state(), random)
    assert not optimizer._optimizer_step_post_hooks


def test_a_pruning_that_fails_changes_nothing_and_can_be_repeated() -> None:
    model = net()
    pruner = Pruner(model, sgd(model), schedule=Iterative(0.6, rounds=3, start=1, every=2))
    run(pruner, range(2))
    train(model, pruner.optimizer, 2)
    kept = pruner.masks["0.weight"].nonzero()[0].tolist()
    value = model[0].weight[kept[0], kept[1]].item()
    with torch.no_grad():
        model[0].weight[kept[0], kept[1]] = torch.nan
    before = everything(pruner)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"'0.weight' has 1 NaN"):
            pruner.step()
    assert same(everything(pruner), before)
    train(model, pruner.optimizer, 3)
    assert zeros_hold(pruner)  # the earlier zeros are held on
    with torch.no_grad():
        model.load_state_dict(before["model"])
        model[0].weight[kept[0], kept[1]] = value
    pruner.step()
    assert pruner.sparsity == pytest.approx(0.4)


# --- letting go ---------------------------------------------------------------------------------------------------------


def test_release_leaves_the_weights_and_no_trace() -> None:
    model = net()
    attributes = {name: sorted(vars(module)) for name, module in model.named_modules()}
    with Pruner(model, sgd(model), schedule=OneShot(0.5)) as pruner:
        run(pruner, range(3))
        state = pruner.state_dict()
        before = copy.deepcopy(model.state_dict())
    pruner.release()
    assert same(model.state_dict(), before)
    assert not pruner.optimizer._optimizer_step_post_hooks
    assert {name: sorted(vars(module)) for name, module in model.named_modules()} == attributes
    train(model, pruner.optimizer, 3)
    assert not zeros_hold(pruner)
    with pytest.raises(ValueError, match="this Pruner was released; make a new one"):
        pruner.step()
    pruner.load_state_dict(state)
    run(pruner, range(3, 5))
    assert pruner.sparsity == 0.5


def test_it_says_what_it_is_doing() -> None:
    model = net()
    pruner = Pruner(model, sgd(model), schedule=Linear(0.5, 0, 5))
    run(pruner, range(2))
    assert repr(pruner) == "Pruner(Linear(final=0.5, start=0, end=5, every=1, initial=0.0), step 2, sparsity 0.2000)"


def test_the_model_can_be_copied_and_compiled_while_it_is_pruned() -> None:
    model = net()
    compiled = torch.compile(model, backend="eager")
    pruner = Pruner(compiled, sgd(compiled), schedule=Linear(0.5, 0, 4), criterion=Random(seed=1))
    keys = list(model.state_dict())
    for index in range(4):
        train(compiled, pruner.optimizer, index)
        pruner.step()
    assert pruner.sparsity == 0.5
    assert all(not model.get_parameter(name)[~mask].any() for name, mask in pruner.masks.items())
    assert list(model.state_dict()) == keys
    assert same(copy.deepcopy(model).state_dict(), model.state_dict())
    torch._dynamo.reset()


def test_movement_goes_on_bit_for_bit() -> None:
    plan = AGP(0.8, start=2, end=10, every=2)

    def resumed(cut: int) -> dict[str, Any]:
        model, state, movement = net(), None, Movement()
        optimizer = adam(model)
        for start, stop in ((0, cut), (cut, 12)):
            if state is not None:
                model, movement = net(), Movement()
                optimizer = adam(model)
                model.load_state_dict(state["model"])
                optimizer.load_state_dict(state["optimizer"])
            with movement.watch(model, optimizer):
                pruner = Pruner(model, optimizer, schedule=plan, criterion=movement)
                if state is not None:
                    pruner.load_state_dict(state["pruner"])
                run(pruner, range(start, stop))
                parts = {"model": model, "optimizer": optimizer, "pruner": pruner}
                state = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
        assert state is not None
        return state["model"]

    whole = resumed(0)
    for cut in (1, 5, 9):
        assert all(torch.equal(whole[name], value) for name, value in resumed(cut).items())


def test_a_state_of_another_criterion_is_refused_and_changes_nothing() -> None:
    state = saved(3)
    state["criterion"] = {"steps": 3}
    model = net()
    pruner = Pruner(model, optimizer := sgd(model), schedule=Linear(0.5, 0, 5))
    with pytest.raises(ValueError, match="Magnitude has no state, but was given one with steps"):
        pruner.load_state_dict(state)
    assert pruner.sparsity == 0
    assert not optimizer._optimizer_step_post_hooks


@pytest.mark.parametrize(
    ("scope", "granularity", "message"),
    [
        (Local(minimum=3), Filter(), "with minimum=3 only"),
        (Global(maximum=0.5), None, "with minimum=0, maximum=0.5 only"),
        (NM(2, 4), None, r"NM\(2, 4\)"),
    ],
)
def test_what_only_the_last_pruning_would_refuse_is_refused_at_once(scope: Any, granularity: Any, message: str) -> None:
    model = net()
    with pytest.raises(ValueError, match=message):
        Pruner(model, sgd(model), schedule=AGP(0.9, start=0, end=20), scope=scope, granularity=granularity)


def test_making_a_pruner_warns_of_nothing() -> None:
    model = net()
    with torch.no_grad():
        model[3].weight.mul_(1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner = Pruner(model, sgd(model), schedule=OneShot(0.9))
    with pytest.warns(LayerCollapseWarning, match="3.weight"):
        pruner.step()


def test_nothing_to_remove_costs_no_pass_over_the_data() -> None:
    class Counted(list):  # type: ignore[type-arg]
        passes = 0

        def __iter__(self) -> Any:
            self.passes += 1
            return super().__iter__()

    data, model = Counted([batch(0)]), net()
    how = {"criterion": Saliency(), "data": data, "loss": nn.functional.cross_entropy}
    pruner = Pruner(model, sgd(model), schedule=AGP(0.5, start=1, end=3, every=1), **how)  # type: ignore[arg-type]
    assert data.passes == 1
    run(pruner, range(1))
    assert data.passes == 1
    assert pruner.masks.total == 100
    run(pruner, range(1, 3))
    assert data.passes == 3


@pytest.mark.parametrize("scope", ["global", "local", Global(minimum=1), PerRow()])
@pytest.mark.parametrize("granularity", [None, Filter()])
def test_a_criterion_with_rounds_follows_a_schedule(scope: Any, granularity: Any) -> None:
    if granularity and scope == PerRow():
        return
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(7, 13), nn.ReLU(), nn.Linear(13, 5), nn.ReLU(), nn.Linear(5, 3))
    pruner = Pruner(
        model, sgd(model), schedule=AGP(0.6, start=0, end=12, every=1),
        criterion=SynFlow(torch.ones(1, 7), rounds=10), scope=scope, granularity=granularity,
    )  # fmt: skip
    for _ in range(12):
        pruner.step()
    assert pruner.sparsity == pytest.approx(0.6, abs=0.08)
