"""Feature tickets: which coordinates stay, and the controls."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from prunelab.lottery.features import RecursiveFeatureMachine, feature_controls, feature_ticket, kept_only

F = torch.tensor([4.0, 0.0, 0.2, 1.0, 4.0, 0.21])


def test_by_threshold_after_min_max() -> None:
    # (F - 0) / 4 = 1, 0, 0.05, 0.25, 1, 0.0525: strictly above 0.05
    expected = [True, False, False, True, True, True]
    assert feature_ticket(F).tolist() == expected
    assert feature_ticket(7 * F.double() - 3, threshold=0.051).tolist() == expected
    assert feature_ticket(F, threshold=0).tolist() == [True, False, True, True, True, True]
    assert feature_ticket(F, threshold=1).sum() == 0


@pytest.mark.parametrize(
    ("keep", "stay"), [(0, []), (0.1, [0]), (1 / 6, [4]), (0.5, [0, 3, 4]), (0.83, [0, 2, 3, 4, 5]), (1, range(6))]
)
def test_by_fraction_exactly_and_ties_by_position(keep: float, stay) -> None:
    found = feature_ticket(F, keep=keep)
    assert int(found.sum()) == round(keep * 6)
    if keep == 0.1:  # round(0.6) is 1: of the two fours the first goes
        stay = [4]
    assert found.nonzero().flatten().tolist() == list(stay)


def test_shape_dtype_and_device_stay(device: torch.device) -> None:
    image = F.reshape(2, 3).half().to(device)
    for ticket in (feature_ticket(image, keep=0.5), feature_ticket(image)):
        assert ticket.shape == image.shape
        assert ticket.dtype == torch.bool
        assert ticket.device == image.device
    x = torch.arange(12.0).reshape(2, 1, 2, 3)
    assert kept_only(x, feature_ticket(F.reshape(2, 3), keep=0.5)).tolist() == [[0, 3, 4], [6, 9, 10]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: feature_ticket([1.0]), TypeError, "tensor of floats"),
        (lambda: feature_ticket(torch.arange(3)), TypeError, "tensor of floats"),
        (lambda: feature_ticket(F[:0]), ValueError, "empty"),
        (lambda: feature_ticket(F / 0), ValueError, "NaN or infinity"),
        (lambda: feature_ticket(F, keep=math.nan), ValueError, "keep=nan"),
        (lambda: feature_ticket(F, keep=50), ValueError, "keep=50: a fraction"),
        (lambda: feature_ticket(F, threshold=-0.1), ValueError, "threshold=-0.1"),
        (lambda: feature_ticket(F, 0.5, 0.05), ValueError, "give one of them"),
        (lambda: feature_ticket(torch.ones(4)), ValueError, "equally important"),
        (lambda: kept_only(torch.ones(2, 3), F > 1), ValueError, "6 entries for inputs of 3"),
        (lambda: kept_only(torch.ones(2, 6), F), ValueError, "needs a bool"),
    ],
)
def test_what_makes_no_sense_is_refused(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def sparse(seed: int) -> tuple[Tensor, Tensor]:
    """Coordinates 0 and 1 multiply, so that neither alone tells anything but its size; 2 is seen by itself."""
    x = torch.randn(400, 10, generator=torch.Generator().manual_seed(seed))
    return x, 2 * x[:, 0] * x[:, 1] + x[:, 2]


def kernel(train, test, seed: int) -> float:
    return RecursiveFeatureMachine(rounds=0).fit(*train).score(*test)


def test_the_controls() -> None:
    train, test = sparse(0), sparse(1)
    machine = RecursiveFeatureMachine(rounds=3).fit(*train)
    results = feature_controls(dict.fromkeys(range(3), machine.importance), train, test, kernel, keep=[0.3, 0.6])
    assert results.columns.tolist() == ["arm", "seed", "keep", "kept", "score"]
    assert results.groupby("arm").size().to_dict() == {"ticket": 6, "random": 6, "information": 6, "all": 3}
    assert results.groupby("keep")["kept"].unique().apply(list).to_dict() == {0.3: [3], 0.6: [6], 1.0: [10]}
    means = results[results.keep.isin([0.3, 1.0])].groupby("arm")["score"].mean()
    assert means["ticket"] > means["all"] + 0.1 > means["random"] + 0.2


def test_what_each_arm_keeps() -> None:
    x, y = sparse(0)
    x[:, 7] = y + 0.01 * x[:, 7]  # a copy of the target, which information must find
    seen: list[tuple[int, list[list[float]]]] = []

    def look(train, test, seed: int) -> float:
        seen.append((seed, train[0][:2].tolist(), torch.rand(1).item()))
        assert train[0].shape[1] == test[0].shape[1]
        return len(seen)

    importance = torch.arange(10.0)
    results = feature_controls({3: importance, 8: importance}, (x, y), (x, y), look, keep=0.1)
    by_arm = {(arm, seed): found for arm, seed, found in zip(results.arm, results.seed, seen, strict=True)}
    for seed in (3, 8):
        assert by_arm["ticket", seed][1] == x[:2, 9:].tolist()
        assert by_arm["information", seed][1] == x[:2, 7:8].tolist()
        assert by_arm["all", seed][1] == x[:2].tolist()
        assert len({by_arm[arm, seed][2] for arm in results.arm}) == 1  # chance starts from the seed in every arm
    assert by_arm["random", 3][1] != by_arm["random", 8][1]
    assert results["score"].tolist() == list(range(1, 9))


def test_the_controls_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    train = sparse(0)
    with pytest.raises(ValueError, match="there are ticket, all"):
        feature_controls({0: F}, train, train, kernel, keep=0.5, arms=["shuffled"])
    with pytest.raises(ValueError, match="empty"):
        feature_controls({}, train, train, kernel, keep=0.5)
    with pytest.raises(ValueError, match="6 entries for inputs of 10"):
        feature_controls({0: F}, train, train, kernel, keep=0.5)
    with pytest.raises(ValueError, match="keep=30: a fraction"):
        feature_controls({0: torch.rand(10)}, train, train, kernel, keep=30)
