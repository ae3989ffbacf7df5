from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunelab.lab import data
from prunelab.lab.data import Batches, Dataset, split_indices


def test_digits_are_the_1797_images_in_disjoint_stratified_parts() -> None:
    targets = torch.arange(1797) % 10
    parts = split_indices(targets, val=0.15, test=0.25, seed=0)
    rows = torch.cat(list(parts.values()))
    assert sorted(rows.tolist()) == list(range(1797))  # each once: disjoint, nothing lost
    assert {name: len(index) for name, index in parts.items()} == {"train": 1078, "val": 270, "test": 449}
    for index in parts.values():
        counts = torch.bincount(targets[index], minlength=10)
        assert counts.max() - counts.min() <= 1


def test_digits_keep_every_pixel_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    digits = data.digits()
    images = torch.cat([digits.train[0], digits.val[0], digits.test[0]])
    raw = (images * digits.std + digits.mean) * 16
    ours = sorted(tuple(row) for row in raw.round().long().flatten(1).tolist())
    assert ours == sorted(tuple(row) for row in load_digits().data.astype(int).tolist())


def test_digits_are_normalised_by_the_training_part() -> None:
    digits = data.digits()
    inputs, targets = digits.train
    assert inputs.shape == (1078, 1, 8, 8)
    assert inputs.dtype == torch.float32
    assert targets.dtype == torch.int64
    assert inputs.mean().abs() < 1e-5
    assert (inputs.std() - 1).abs() < 1e-5
    assert digits.test[0].mean().abs() > 1e-5  # of its own pixels nothing was used


def test_the_split_belongs_to_the_seed() -> None:
    one, same, other = data.digits(seed=1), data.digits(seed=1), data.digits(seed=2)
    assert torch.equal(one.test[0], same.test[0])
    assert not torch.equal(one.test[1], other.test[1])


def test_size_28_is_the_same_digits_upsampled() -> None:
    small, large = data.digits(), data.digits(size=28)
    assert large.train[0].shape == (1078, 1, 28, 28)
    assert torch.equal(small.test[1], large.test[1])
    # Bilinear by 3.5: output pixel 3 of a row lies at (3 + 0.5) / 3.5 - 0.5 = 0.5, half-way between pixels 0 and 1.
    raw = small.test[0] * small.std + small.mean
    up = large.test[0] * large.std + large.mean
    torch.testing.assert_close(up[:, 0, 3, 3], raw[:, 0, :2, :2].mean((1, 2)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", [None, 0, 7])
def test_a_pass_meets_every_example_once(seed: int | None) -> None:
    inputs = torch.arange(10.0)
    batches = Batches(inputs, inputs.long(), 4, seed)
    assert len(batches) == 3
    for _ in range(3):
        met = list(batches)
        assert [len(targets) for _, targets in met] == [4, 4, 2]
        assert sorted(torch.cat([targets for _, targets in met]).tolist()) == list(range(10))
        assert all(torch.equal(x.long(), y) for x, y in met)


def test_seeded_batches_reshuffle_each_pass_and_repeat_from_the_seed() -> None:
    inputs = torch.arange(50)

    def passes(seed: int) -> list[list[int]]:
        batches = Batches(inputs, inputs, 8, seed)
        return [torch.cat([y for _, y in batches]).tolist() for _ in range(3)]

    first = passes(3)
    assert first == passes(3)
    assert len({tuple(order) for order in first}) == 3
    assert first != passes(4)


def test_an_abandoned_pass_counts_as_one() -> None:
    inputs = torch.arange(50)
    whole, broken = Batches(inputs, inputs, 8, 3), Batches(inputs, inputs, 8, 3)
    list(whole)
    next(iter(broken))
    assert torch.equal(next(iter(whole))[1], next(iter(broken))[1])


def test_batches_leave_the_global_random_state_alone() -> None:
    state = torch.get_rng_state()
    list(data.digits().batches("train", 64, seed=5))
    assert torch.equal(state, torch.get_rng_state())


def test_batches_move_to_the_device(device: torch.device) -> None:
    digits = data.digits()
    x, y = next(iter(digits.batches("val", 16, seed=0, device=device)))
    assert x.device.type == y.device.type == device.type
    assert torch.equal(x.cpu(), next(iter(digits.batches("val", 16, seed=0)))[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.digits(size=16), "size=16"),
        (lambda: data.digits(val=15), "val=15 is not a fraction"),
        (lambda: data.digits(val=0.5, test=0.5), "nothing to train on"),
        (lambda: data.digits().batches("training"), "split='training'.*'train', 'val', 'test'"),
        (lambda: data.digits().batches("train", 0), "batch_size=0"),
        (lambda: Batches(torch.zeros(3), torch.zeros(2)), "3 inputs but 2 targets"),
        (lambda: Dataset(*[(torch.zeros(0), torch.zeros(0))] * 3, classes=2), "0 inputs"),
    ],
)
def test_errors_name_the_value(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_fractional_batch_size_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"batch_size=0\.5 is a float"):
        data.digits().batches("train", 0.5)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def test_mnist1d_is_what_its_package_makes(home: Path) -> None:
    from mnist1d.data import get_dataset_args, make_dataset

    made = make_dataset(get_dataset_args())
    ours = data.mnist1d(data_home=home)
    assert repr(ours) == "Dataset(mnist1d: train 4000, val 1000, test 1000; inputs (40,), 10 classes)"
    assert torch.equal(ours.train[0], torch.from_numpy(made["x"]).float())
    assert torch.equal(ours.test[0], torch.from_numpy(made["x_test"]).float())
    assert ours.train[1].tolist() == made["y"].tolist()
    assert ours.test[1].tolist() == made["y_test"].tolist()
    assert ours.train[0].dtype == ours.val[0].dtype == torch.float32
    assert ours.train[1].dtype == ours.val[1].dtype == torch.int64


def test_mnist1d_validates_on_signals_of_its_own(home: Path) -> None:
    ours = data.mnist1d(data_home=home)
    assert torch.bincount(ours.val[1]).tolist() == [100] * 10
    signals = torch.cat([ours.train[0], ours.val[0], ours.test[0]])
    assert len({tuple(row) for row in signals.tolist()}) == 6000
    assert abs(ours.val[0].mean()) < 1e-5
    assert abs(ours.val[0].std() - 1) < 1e-4
    # The same world: the classes' mean signals are alike, as far as so few that are shifted at random can be.
    means = [torch.stack([x[y == label].mean(0) for label in range(10)]).flatten() for x, y in (ours.train, ours.val)]
    assert torch.corrcoef(torch.stack(means))[0, 1] > 0.6


def test_mnist1d_is_made_once_and_leaves_chance_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mnist1d.data

    first = data.mnist1d(data_home=home)
    with monkeypatch.context() as patched:
        patched.setattr(mnist1d.data, "make_dataset", lambda *_: pytest.fail("it was kept"))
        assert torch.equal(data.mnist1d(data_home=home).val[0], first.val[0])
    # Few of them, so that it is quick; into a place that cannot be written: made, and not kept.
    make = mnist1d.data.make_dataset

    def few(settings: Any) -> dict[str, Any]:
        settings.num_samples = 100
        return make(settings)

    monkeypatch.setattr(mnist1d.data, "make_dataset", few)
    monkeypatch.setenv("PRUNELAB_DATA", str(home / "mnist1d-42.safetensors"))

    def chance() -> list[object]:
        return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # noqa: NPY002

    before = chance()
    assert len(data.mnist1d(seed=7).train[1]) == 80
    assert before == chance()
    assert [path.name for path in home.iterdir()] == ["mnist1d-42.safetensors"]


@pytest.mark.parametrize("seed", [-1, 2**31, 1.0, True])
def test_mnist1d_refuses_a_seed_that_is_none(seed: Any) -> None:
    with pytest.raises(ValueError, match=f"seed={seed!r}"):
        data.mnist1d(seed=seed)
