"""Mutual information against closed forms, exact tables, scikit-learn and the definitions in plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import digamma
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression
from sklearn.metrics import mutual_info_score
from torch import Tensor

from prunelab.criteria.estimators import bins_for, histogram, ksg, quantile

BINNED = [histogram, quantile]
ALL = [histogram, quantile, ksg]


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gaussians(samples: int, top: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Channels of every correlation up to `top` with a target, the target, and their exact information."""
    rho = torch.linspace(-top, top, 41, dtype=torch.float64)
    y = draws(samples, seed=seed)
    x = rho * y[:, None] + (1 - rho**2).sqrt() * draws(samples, 41, seed=seed + 1000)
    return x, y, -0.5 * torch.log1p(-(rho**2))


@pytest.mark.parametrize("estimate", BINNED)
def test_a_table_by_hand(estimate, device: torch.device) -> None:
    """Counts [[3, 1], [1, 3]]: 0.75 ln 1.5 + 0.25 ln 0.5, and (2 + 2 - 4 - 1) / 16 for the correction."""
    x = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0], device=device)[:, None]
    y = torch.tensor([5, 5, 5, -2, 5, -2, -2, -2], device=device)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5) - 1 / 16
    assert estimate(x, y).tolist() == pytest.approx([expected])
    assert estimate(x, y.double()).tolist() == pytest.approx([expected])  # two values are two classes
    assert estimate(x, y > 0).tolist() == pytest.approx([expected])
    same = math.log(2) + (2 + 2 - 2 - 1) / 16
    assert estimate(torch.stack([y, -y, y * 0], 1).float(), y).tolist() == pytest.approx([same, same, 0.0])


@pytest.mark.parametrize("bins", [2, 5, 11])
def test_counting_against_scikit_learn_on_bins_by_numpy(bins: int) -> None:
    x, y = draws(300, 4).exp(), torch.randint(3, (300,), generator=torch.Generator().manual_seed(1))
    for estimate in BINNED:
        expected = []
        for channel in x.T.numpy():
            if estimate is histogram:
                low = max(channel.min(), channel.mean() - 2 * channel.std())
                high = min(channel.max(), channel.mean() + 2 * channel.std())
                edges = np.linspace(low, high, bins + 1)[1:-1]
            else:
                edges = np.sort(channel)[[300 * step // bins for step in range(1, bins)]]
            codes = np.digitize(channel, edges)
            occupied = [len(set(codes)), len(set(y.tolist())), len(set(zip(codes, y.tolist(), strict=True)))]
            correction = (occupied[0] + occupied[1] - occupied[2] - 1) / 600
            expected.append(max(0.0, mutual_info_score(codes, y.numpy()) + correction))
        assert estimate(x, y, bins).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("estimate", "samples", "bound"),
    [
        (histogram, 500, 0.045),
        (histogram, 2000, 0.025),
        (quantile, 500, 0.05),
        (quantile, 2000, 0.03),
        (ksg, 500, 0.045),
    ],
)
def test_gaussian_information_in_closed_form(estimate, samples: int, bound: float) -> None:
    for seed in range(1 if estimate is ksg else 3):
        x, y, exact = gaussians(samples, 0.95, seed)
        found = estimate(x, y)
        assert (found - exact).abs().mean() < bound
        assert found[20] < 0.05  # independent


def test_default_bins_are_near_the_best() -> None:
    for samples in (500, 2000):
        errors = {}
        for bins in (4, bins_for(samples), 40):
            cases = [gaussians(samples, 0.95, seed) for seed in range(3)]
            errors[bins] = np.mean([float((histogram(x, y, bins) - exact).abs().mean()) for x, y, exact in cases])
        assert min(errors, key=lambda bins: errors[bins]) == bins_for(samples)
    assert [bins_for(n) for n in (1, 10, 100)] == [4, 4, 6]
    assert bins_for(2000, classes=1000) == 4


def test_ksg_against_scikit_learn_for_measurements_and_classes() -> None:
    x, y, _ = gaussians(400, 0.95, 3)
    x = x[:, ::8]
    # scikit-learn adds noise of 1e-10, which moves no neighbour here.
    theirs = mutual_info_regression(x.numpy(), y.numpy(), random_state=0)
    np.testing.assert_allclose(ksg(x, y).numpy(), theirs, atol=1e-12)
    for neighbours in (1, 5):
        theirs = mutual_info_regression(x.numpy(), y.numpy(), n_neighbors=neighbours, random_state=0)
        np.testing.assert_allclose(ksg(x, y, neighbours).numpy(), theirs, atol=1e-12)
    classes = y.argsort().argsort() // 100  # of small classes theirs takes distances with rounding errors
    theirs = mutual_info_classif(x.numpy(), classes.numpy(), random_state=0)
    np.testing.assert_allclose(ksg(x, classes).numpy(), theirs, atol=1e-12)


def test_ksg_against_its_definitions_in_loops() -> None:
    x, y = draws(60, 1), draws(60, seed=1)
    x[:, 0] += y
    a, b = ((v - v.mean()) / v.std() for v in (x[:, 0].numpy(), y.numpy()))
    total, apart = 0.0, np.maximum(abs(a[:, None] - a), abs(b[:, None] - b))
    for i in range(60):
        radius = sorted(apart[i])[3]  # 0 is the point itself
        inside = [sum(abs(v - v[i]) < radius) - 1 for v in (a, b)]
        total += sum(digamma(n + 1) for n in inside) / 60
    assert ksg(x, y).tolist() == pytest.approx([digamma(3) + digamma(60) - total], abs=1e-12)

    classes = np.array([0] * 30 + [1] * 27 + [2] * 2 + [3])  # the last has no neighbour of its kind and does not count
    total = 0.0
    c = x[:59, 0].numpy() / x[:, 0].numpy().std()
    for i in range(59):
        kind = c[classes[:59] == classes[i]]
        k = min(3, len(kind) - 1)
        radius = sorted(abs(kind - c[i]))[k]
        total += (digamma(k) - digamma(len(kind)) - digamma(sum(abs(c - c[i]) < radius))) / 59
    assert ksg(x, torch.tensor(classes)).tolist() == pytest.approx([max(0.0, digamma(59) + total)], abs=1e-12)


@pytest.mark.parametrize("estimate", ALL)
def test_channels_and_samples_may_come_in_any_order_and_any_affine_map(estimate) -> None:
    y = draws(300, seed=1)
    x = draws(300, 5) + torch.linspace(0, 2, 5, dtype=torch.float64) * y[:, None]
    found = estimate(x, y)
    draw = torch.Generator().manual_seed(0)
    channels, samples = torch.randperm(5, generator=draw), torch.randperm(300, generator=draw)
    torch.testing.assert_close(estimate(x[:, channels], y), found[channels])
    torch.testing.assert_close(estimate(x[samples], y[samples]), found)
    torch.testing.assert_close(estimate(3 - 0.5 * x if estimate is ksg else 3 + 0.5 * x, 7 * y + 1), found)
    several = torch.stack([y, y * 0, draws(300, seed=2)], 1)
    by_target = estimate(x, several)  # (channels, targets)
    torch.testing.assert_close(by_target[:, 0], found)
    assert by_target[:, 1].tolist() == [0.0] * 5
    torch.testing.assert_close(by_target[:, 2], estimate(x, several[:, 2]))


@pytest.mark.parametrize("estimate", ALL)
def test_constants_tell_exactly_nothing(estimate) -> None:
    x = torch.tensor([0.0, 0.1, -3.7, 1e30]).expand(50, 4)
    for target in (torch.arange(50), torch.arange(50.0), torch.arange(50) % 3):
        assert estimate(x, target).tolist() == [0.0] * 4
    assert estimate(draws(50, 2), torch.ones(50)).tolist() == [0.0] * 2
    assert estimate(draws(1, 2), torch.ones(1)).tolist() == [0.0] * 2
    assert estimate(draws(5, 0), torch.arange(5)).tolist() == []


def test_zeros_have_a_bin_of_their_own() -> None:
    """After a ReLU a positive value says: class 1. Bins by rank alone would mix zeros with the smallest positives."""
    y = (torch.arange(1200) % 3 == 0).long()
    x = torch.where(y == 1, torch.linspace(1e-6, 1, 1200), torch.tensor(0.0))[:, None]
    entropy = math.log(3) - 2 / 3 * math.log(2)
    assert float(quantile(x, y, 4)) == pytest.approx(entropy + (5 + 2 - 5 - 1) / 2400)
    assert float(quantile(-x, y, 4)) == pytest.approx(entropy + (5 + 2 - 5 - 1) / 2400)
    assert float(quantile(x + 1, y, 4)) < entropy - 0.1  # no zeros: a bin holds both


@given(st.lists(st.integers(0, 3), min_size=8, max_size=40))
def test_quantiles_do_not_read_the_order_of_ties(values: list[int]) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    y = torch.arange(len(values)) * 4 // len(values)  # sorted by class: breaking ties by position would tell it
    draw = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(quantile(x[:, None], y, 4), quantile(x[draw, None], y[draw], 4))
    constant = torch.ones(len(values), 1)
    assert quantile(constant, y, 4).tolist() == [0.0]


def test_quantiles_survive_every_increasing_function_that_keeps_zeros() -> None:
    y = draws(400, seed=1)
    x = (y[:, None] + draws(400, 3)).relu()
    torch.testing.assert_close(quantile(x**3, y.exp()), quantile(x, y), rtol=0, atol=0)


def test_many_classes_and_large_tables_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from prunelab.criteria import estimators

    x, y = draws(300, 6), torch.randint(50, (300,), generator=torch.Generator().manual_seed(1)) * 10**12
    whole = histogram(x, y)
    monkeypatch.setattr(estimators, "_CELLS", 700)
    assert torch.equal(histogram(x, y), whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("estimate", ALL)
def test_every_type(estimate, dtype: torch.dtype) -> None:
    x, y = (draws(200, 3) + draws(200, seed=1)[:, None]).to(dtype), draws(200, seed=1).to(dtype)
    found = estimate(x, y)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, estimate(x.double(), y.double()), atol=0.02, rtol=0)


@pytest.mark.parametrize("estimate", ALL)
def test_what_cannot_be_estimated_is_refused(estimate) -> None:
    x, y = draws(10, 2), torch.arange(10)
    for value in (torch.nan, torch.inf, -torch.inf):
        broken = x.clone()
        broken[3, 1] = value
        with pytest.raises(ValueError, match="the activations hold NaN or infinity"):
            estimate(broken, y)
        with pytest.raises(ValueError, match="the targets hold NaN or infinity"):
            estimate(x, broken[:, 1])
    with pytest.raises(ValueError, match=r"not \(10, 2\) and \(9,\)"):
        estimate(x, y[:9])
    with pytest.raises(ValueError, match="at least one sample"):
        estimate(x[:0], y[:0])
    for wrong in (0, True, 1.5):
        with pytest.raises(ValueError, match="whole number of"):
            estimate(x, y, wrong)
