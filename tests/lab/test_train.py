from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prunelab
from prunelab.lab import data, models, train
from prunelab.lab.data import Dataset
from prunelab.lab.history import Epoch, History

DIGITS = data.digits()
QUIET = {"progress": False}


def weights(model: nn.Module) -> Tensor:
    return torch.cat([value.detach().flatten().float() for value in model.state_dict().values()])


def tiny(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 10))


def test_digits_are_learned(device: torch.device) -> None:
    model = models.lenet_300_100(64, seed=0)
    history = train.fit(model, DIGITS, epochs=8, device=device, **QUIET)
    assert next(model.parameters()).device.type == device.type
    assert len(history) == 8
    assert history[-1].steps == 8 * math.ceil(1078 / 64)
    assert train.accuracy(model, DIGITS.test) > 0.94


def test_one_step_of_sgd_is_the_gradient_times_the_rate() -> None:
    model, twin = tiny(), tiny()
    inputs, targets = DIGITS.train[0][:32], DIGITS.train[1][:32]
    history = train.fit(model, [(inputs, targets)], steps=1, lr=0.1, optimizer=torch.optim.SGD, **QUIET)
    value = F.cross_entropy(twin(inputs), targets)
    value.backward()
    for got, before in zip(model.parameters(), twin.parameters(), strict=True):
        assert before.grad is not None
        torch.testing.assert_close(got, before - 0.1 * before.grad, rtol=0, atol=1e-7)
    assert history[0].train_loss == pytest.approx(value.item(), abs=1e-6)
    assert history[0].train_accuracy == (twin(inputs).argmax(1) == targets).float().mean().item()
    assert history[0].val_loss is None


def test_a_seed_makes_training_exact_and_leaves_chance_alone() -> None:
    runs = []
    for seed, noise in ((1, 5), (1, 6), (2, 5)):
        model = tiny(dropout=0.5)
        torch.manual_seed(noise)  # what chance was before must not matter
        state = torch.get_rng_state()
        history = train.fit(model, DIGITS, epochs=2, seed=seed, **QUIET)
        assert torch.equal(state, torch.get_rng_state())
        runs.append((weights(model), history.epochs))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert not torch.equal(runs[0][0], runs[2][0])


def test_without_a_seed_chance_is_torchs_own() -> None:
    results = []
    for seed in (3, 3, 4):
        model = tiny()
        torch.manual_seed(seed)
        train.fit(model, DIGITS, steps=5, seed=None, **QUIET)
        results.append(weights(model))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_steps_end_where_they_say_and_equal_whole_epochs() -> None:
    a, b = tiny(), tiny()
    per_epoch = len(DIGITS.batches("train", 64))
    one = train.fit(a, DIGITS, epochs=2, **QUIET)
    two = train.fit(b, DIGITS, steps=2 * per_epoch, **QUIET)
    assert one.epochs == two.epochs
    assert torch.equal(weights(a), weights(b))
    part = train.fit(tiny(), DIGITS, steps=per_epoch + 3, **QUIET)
    assert [record.steps for record in part.epochs] == [per_epoch, per_epoch + 3]


def test_early_stopping_gives_the_best_weights_back() -> None:
    # A rate this high overfits 40 examples within a few epochs: the validation loss turns upwards.
    few = Dataset((DIGITS.train[0][:40], DIGITS.train[1][:40]), DIGITS.val, DIGITS.test, classes=10)
    model = tiny()
    history = train.fit(model, few, epochs=400, lr=0.03, patience=5, **QUIET)
    losses = [record.val_loss for record in history.epochs]
    best = losses.index(min(losses))
    assert len(history) == best + 1 + 5 < 400
    assert history.restored == best + 1
    assert F.cross_entropy(model(few.val[0]), few.val[1]).item() == pytest.approx(losses[best], abs=1e-5)
    # The weights are those of a run that ends there.
    twin = tiny()
    train.fit(twin, few, epochs=best + 1, lr=0.03, **QUIET)
    assert torch.equal(weights(model), weights(twin))


def test_modes_come_out_as_they_went_in() -> None:
    model = models.vgg(width=0.125, seed=0).train()
    model.get_submodule("bn1a").eval()
    before = {name: module.training for name, module in model.named_modules()}
    train.fit(model, DIGITS, steps=2, **QUIET)
    train.accuracy(model, DIGITS.val)
    assert {name: module.training for name, module in model.named_modules()} == before


class Recorder:
    """Stands where `Masks` stands: pins a weight to zero after every step of the optimizer it was given."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    @contextmanager
    def hold(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        weight = model.get_submodule("1").weight
        self.calls.append("hold")
        weight.data[0] = 0
        hook = optimizer.register_step_post_hook(lambda *_: weight.data[0].zero_())
        try:
            yield
        finally:
            self.calls.append("release")
            hook.remove()


def test_masks_hold_from_before_the_first_step_until_the_end() -> None:
    model, masks = tiny(), Recorder()
    train.fit(model, DIGITS, steps=20, masks=masks, **QUIET)
    assert masks.calls == ["hold", "release"]
    weight = model.get_submodule("1").weight
    assert not weight[0].any()
    assert weight[1].all()


def test_real_masks_hold() -> None:
    model = tiny()
    keep = torch.rand(16, 64) > 0.5
    train.fit(model, DIGITS, epochs=1, masks=prunelab.Masks({"1.weight": keep}), **QUIET)
    weight = model.get_submodule("1").weight
    assert torch.equal(weight != 0, keep)


def test_a_run_that_diverges_says_so_and_gives_the_weights_back() -> None:
    model, masks = tiny(), Recorder()
    before = weights(model)
    before[:64] = 0  # the masks were applied; that is not undone by training
    sgd = partial(torch.optim.SGD, momentum=0.9)
    masks_arg: object = masks
    with pytest.raises(ValueError, match=r"training loss became (nan|inf) in epoch \d+ \(lr=1e\+20\)"):
        train.fit(model, DIGITS, epochs=3, lr=1e20, optimizer=sgd, masks=masks_arg, **QUIET)
    assert masks.calls == ["hold", "release"]
    assert model.training
    assert torch.equal(weights(model)[64:], before[64:])


class FakePruner:
    """Stands where `prunelab.Pruner` stands: removes one row of the first layer at every tenth step."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.weight, self.optimizer = model.get_submodule("1").weight, optimizer
        self.keep = torch.ones(16, 64, dtype=torch.bool)
        self.steps = self.released = 0

    @property
    def masks(self) -> prunelab.Masks:
        return prunelab.Masks({"1.weight": self.keep.clone()})

    def step(self) -> None:
        assert not self.released
        self.steps += 1
        if self.steps % 10 == 0:
            self.keep[self.steps // 10 - 1] = False
        self.weight.data *= self.keep

    def release(self) -> None:
        self.released += 1


def test_a_pruner_steps_after_the_optimizer_and_its_masks_end_up_in_the_history() -> None:
    made: list[FakePruner] = []

    def make(model: nn.Module, optimizer: torch.optim.Optimizer) -> FakePruner:
        made.append(FakePruner(model, optimizer))
        return made[-1]

    model = tiny()
    per_epoch = len(DIGITS.batches("train", 64))
    history = train.fit(model, DIGITS, steps=2 * per_epoch, pruner=make, **QUIET)
    (pruner,) = made
    assert isinstance(pruner.optimizer, torch.optim.Adam)
    assert (pruner.steps, pruner.released) == (2 * per_epoch, 1)
    assert history.masks == pruner.masks
    rows = [per_epoch // 10, 2 * per_epoch // 10]
    assert [record.sparsity for record in history.epochs] == [row / 16 for row in rows]
    assert torch.equal(model.get_submodule("1").weight != 0, pruner.keep)
    assert '<th scope="col">sparsity</th>' in history._repr_html_()
    assert train.fit(tiny(), DIGITS, steps=1, **QUIET).masks is None


def test_a_pruner_is_released_when_training_fails() -> None:
    made: list[FakePruner] = []

    def make(model: nn.Module, optimizer: torch.optim.Optimizer) -> FakePruner:
        made.append(FakePruner(model, optimizer))
        return made[-1]

    model = tiny()
    before = weights(model)
    with pytest.raises(ValueError, match="training loss became"):
        train.fit(model, DIGITS, epochs=3, lr=1e20, optimizer=torch.optim.SGD, pruner=make, **QUIET)
    assert made[0].released == 1
    assert torch.equal(weights(model), before)


def test_a_penalty_adds_its_gradient_and_stays_out_of_the_reported_loss() -> None:
    """Half the squared norm, weighed with 3: its gradient is three times the weights."""
    model, twin = tiny(), tiny()
    batch = DIGITS.train[0][:32], DIGITS.train[1][:32]

    def penalty(net: nn.Module) -> Tensor:
        return 1.5 * sum((value.square().sum() for value in net.parameters()), torch.zeros(()))

    settings: dict = {"steps": 1, "lr": 0.1, "optimizer": torch.optim.SGD, **QUIET}
    history = train.fit(model, [batch], penalty=penalty, **settings)
    value = F.cross_entropy(twin(batch[0]), batch[1])
    value.backward()
    for got, before in zip(model.parameters(), twin.parameters(), strict=True):
        assert before.grad is not None
        torch.testing.assert_close(got, before - 0.1 * (before.grad + 3 * before), rtol=0, atol=1e-6)
    assert history[0].train_loss == pytest.approx(value.item(), abs=1e-6)
    assert history[0].penalty == pytest.approx(1.5 * weights(twin).square().sum().item(), rel=1e-5)
    assert '<th scope="col">penalty</th>' in history._repr_html_()
    # A penalty of zero changes no bit.
    nothing, plain = tiny(), tiny()
    train.fit(nothing, DIGITS, epochs=2, penalty=lambda net: torch.zeros(()), **QUIET)
    train.fit(plain, DIGITS, epochs=2, **QUIET)
    assert torch.equal(weights(nothing), weights(plain))


def test_a_proximal_step_follows_each_step_with_the_current_rate() -> None:
    rates: list[float] = []

    class Halving(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            super().step()
            self.param_groups[0]["lr"] /= 2

    def proximal(model: nn.Module, lr: float) -> None:
        rates.append(lr)
        model.get_submodule("1").weight.data[0] = 0

    model = tiny()
    train.fit(model, DIGITS, steps=3, lr=0.8, optimizer=Halving, proximal=proximal, **QUIET)
    assert rates == [0.4, 0.2, 0.1]
    weight = model.get_submodule("1").weight
    assert not weight[0].any()
    assert weight[1].all()


def test_a_step_goes_optimizer_then_proximal_then_pruner() -> None:
    order: list[str] = []

    class Told(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            order.append("optimizer")

    class Pruner(FakePruner):
        def step(self) -> None:
            order.append("pruner")

    def penalty(model: nn.Module) -> Tensor:
        order.append("penalty")
        return torch.zeros(())

    hooks: dict = {"penalty": penalty, "proximal": lambda *_: order.append("proximal"), "pruner": Pruner}
    train.fit(tiny(), DIGITS, steps=2, optimizer=Told, **hooks, **QUIET)
    assert order == 2 * ["penalty", "optimizer", "proximal", "pruner"]


def test_a_penalty_that_is_no_number_any_more_is_named() -> None:
    model = tiny()
    before = weights(model)
    with pytest.raises(ValueError, match=r"penalty became inf in epoch 1 \(lr=0.001\)"):
        train.fit(model, DIGITS, steps=1, penalty=lambda net: torch.tensor(math.inf), **QUIET)
    assert torch.equal(weights(model), before)
    wrong: tuple[tuple[object, str], ...] = (
        (lambda net: 1.0, r"penalty\(model\) gave 1.0; it must give a tensor with one number"),
        (lambda net: net[1].bias, r"gave a tensor of shape \(16,\)"),
    )
    for penalty, message in wrong:
        arguments: dict = {"penalty": penalty, **QUIET}
        with pytest.raises(TypeError, match=message):
            train.fit(model, DIGITS, steps=1, **arguments)
        assert torch.equal(weights(model), before)


def test_accuracy_of_a_pair_of_batches_and_by_hand() -> None:
    model = tiny()
    inputs, targets = DIGITS.test
    by_hand = sum(int(model(x[None]).argmax()) == int(y) for x, y in zip(inputs, targets, strict=True)) / len(targets)
    assert train.accuracy(model, DIGITS.test) == by_hand
    assert train.accuracy(model, DIGITS.batches("test", 7)) == by_hand
    assert train.accuracy(model, list(DIGITS.batches("test", 100))) == by_hand


def test_accuracy_is_measured_in_eval_mode() -> None:
    model = tiny(dropout=1.0).train()  # in training mode nothing would come through
    train.fit(model, DIGITS, steps=1, **QUIET)
    nn.init.zeros_(model[-1].weight)
    model[-1].weight.data[:, :10] = torch.eye(10)
    hidden = torch.relu(model[1](DIGITS.val[0].flatten(1)))[:, :10] + model[-1].bias
    assert train.accuracy(model, DIGITS.val) == (hidden.argmax(1) == DIGITS.val[1]).double().mean().item()
    assert model.training


def test_a_progress_bar_is_silent_while_the_book_is_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train.fit(tiny(), DIGITS, steps=2)
    assert "training" in capsys.readouterr().err
    train.fit(tiny(), DIGITS, steps=2, progress=False)
    monkeypatch.setenv("PRUNELAB_BUILD", "1")
    train.fit(tiny(), DIGITS, steps=2)
    assert capsys.readouterr().err == ""


def test_history_reads_as_text_table_and_picture() -> None:
    history = History([Epoch(n, 17 * n, 1 / n, 0.5, 0.9, 0.6) for n in range(1, 41)], restored=24)
    assert str(history) == (
        "History: 40 epochs, 680 steps; train 0.5000, validation 0.6000; weights of epoch 24 restored"
    )
    html = history._repr_html_()
    assert html.count("<tr>") == 1 + 11
    assert "24 (restored)" in html
    assert history.plot().prunelab_alt


def generator() -> Iterator[tuple[Tensor, Tensor]]:
    yield DIGITS.train


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, ValueError, "epochs=None and steps=None"),
        ({"epochs": 1, "steps": 1}, ValueError, "exactly one"),
        ({"epochs": 0}, ValueError, "epochs=0 must be at least 1"),
        ({"steps": 1.5}, TypeError, "steps=1.5 is a float"),
        ({"epochs": 1, "lr": -1}, ValueError, "lr=-1"),
        ({"epochs": 1, "data": generator()}, TypeError, "generator.*Dataset"),
        ({"epochs": 1, "data": DIGITS.train}, TypeError, "one pair of tensors.*Batches"),
        ({"epochs": 1, "data": [DIGITS.train], "patience": 2}, ValueError, "patience=2 needs validation"),
        (
            {"epochs": 1, "pruner": FakePruner, "patience": 2},
            ValueError,
            "patience=2 could give back weights from before",
        ),
        ({"epochs": 1, "pruner": FakePruner, "masks": prunelab.Masks({})}, ValueError, "both decide what is zero"),
        ({"epochs": 1, "pruner": 0.9}, TypeError, "pruner is a float, which cannot be called; give functools.partial"),
        ({"epochs": 1, "penalty": 1e-4}, TypeError, "penalty is a float.*give regularize.L1"),
        ({"epochs": 1, "proximal": 1e-4}, TypeError, "proximal is a float.*give regularize.L1"),
        ({"epochs": 1, "model": nn.ReLU()}, ValueError, "no parameter"),
        ({"epochs": 1, "model": "net"}, TypeError, "model is a str"),
    ],
)
def test_errors_come_before_any_work(settings: dict[str, object], error: type[Exception], message: str) -> None:
    model = tiny()
    before = weights(model)
    arguments: dict = {"model": model, "data": DIGITS, **QUIET, **settings}
    with pytest.raises(error, match=message):
        train.fit(arguments.pop("model"), arguments.pop("data"), **arguments)
    assert torch.equal(weights(model), before)
