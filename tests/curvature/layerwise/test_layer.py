"""Pruning one layer: how many go, which of equals, what is refused, and the ordering of the methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn

import prunelab
from prunelab import criteria, scope
from prunelab.curvature import DampingWarning, InputCovariance, prune_layer, reconstruction_error, refit

METHODS: tuple[Any, ...] = ("obs", "sparsegpt", "wanda", "magnitude")


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(samples: int, features: int, seed: int = 0) -> Tensor:
    """Each input is 0.9 times the one before, and something new."""
    x = gaussian(samples, features, seed=seed)
    for column in range(1, features):
        x[:, column] = 0.9 * x[:, column - 1] + 0.19**0.5 * x[:, column]
    return x


# --- which go, and how many ---------------------------------------------------------------------------------------------


@hypothesis_settings(max_examples=40)
@given(
    method=st.sampled_from(METHODS), outputs=st.integers(1, 5), inputs=st.integers(1, 20), sparsity=st.floats(0, 1), refits=st.booleans()
)  # fmt: skip
def test_exactly_so_many_go(method: Any, outputs: int, inputs: int, sparsity: float, refits: bool) -> None:
    weight, x = gaussian(outputs, inputs), correlated(3 * inputs + 1, inputs)
    before = weight.clone()
    new, mask = prune_layer(weight, x, sparsity, method, refit=refits)
    if method in ("obs", "wanda"):
        assert (~mask).sum(1).tolist() == [round(sparsity * inputs)] * outputs
    else:
        assert int((~mask).sum()) == round(sparsity * (outputs * inputs))
    assert not new[~mask].any()
    assert torch.equal(weight, before)
    if sparsity == 0 and not refits:
        assert torch.equal(new, weight)
    if method in ("wanda", "magnitude") and not refits:
        assert torch.equal(new, weight * mask)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pattern", [(2, 4), (1, 3), (0, 2), (5, 8)])
def test_patterns_hold_in_every_group_and_in_the_short_last_one(method: Any, pattern: tuple[int, int]) -> None:
    n, m = pattern
    new, mask = prune_layer(gaussian(4, 30), correlated(100, 30), method=method, pattern=pattern)
    for group in mask.split(m, dim=1):
        assert (group.sum(1) == min(n, group.shape[1])).all()
    assert not new[~mask].any()
    same = prune_layer(gaussian(4, 30), correlated(100, 30), 1 - n / m, method, pattern=scope.NM(n, m))
    assert torch.equal(same[1], mask)


def test_wanda_and_magnitude_decide_as_the_criteria_of_that_name() -> None:
    layer, x = nn.Linear(24, 8).double(), correlated(50, 24)
    data = [(x, torch.zeros(len(x)))]
    for method, criterion, among in (
        ("wanda", criteria.Wanda(), scope.PerRow()),
        ("wanda", criteria.Wanda(), scope.NM(2, 4)),
        ("magnitude", criteria.Magnitude(), "local"),
        ("magnitude", criteria.Magnitude(), scope.NM(2, 4)),
    ):
        expected = prunelab.prune(layer, 0.5, criterion=criterion, scope=among, data=data, apply=False)["weight"]
        pattern = (2, 4) if isinstance(among, scope.NM) else None
        assert torch.equal(prune_layer(layer.weight, x, 0.5, method, pattern=pattern)[1], expected)


def test_wanda_by_hand() -> None:
    weight = torch.tensor([[1.0, -4.0, 2.0], [3.0, 3.0, -1.0]])
    x = torch.tensor([[3.0, 0.0, 0.0], [4.0, 0.0, 2.0], [0.0, 1.0, 0.0]])  # norms 5, 1, 2
    new, mask = prune_layer(weight, x, 1 / 3, "wanda")
    assert mask.tolist() == [[True, False, True], [True, True, False]]  # of 5, 4, 4 and 15, 3, 2
    assert torch.equal(new, weight * mask)


@pytest.mark.parametrize("method", METHODS)
def test_of_equals_the_first_goes(method: Any) -> None:
    _, mask = prune_layer(torch.ones(1, 6), torch.eye(6), 0.5, method)
    assert mask.int().tolist() == [[0, 0, 0, 1, 1, 1]]


# --- the ordering of the methods ----------------------------------------------------------------------------------------


def low_rank(samples: int, features: int, seed: int = 0) -> Tensor:
    """A quarter as many directions as inputs, some noise, and inputs of very different sizes."""
    rank = features // 4
    mixed = gaussian(samples, rank, seed=seed) @ gaussian(rank, features, seed=seed + 50) / rank**0.5
    return (mixed + 0.1 * gaussian(samples, features, seed=seed + 99)) * gaussian(features, seed=seed + 7).div(2).exp()


def rectified(samples: int, features: int, seed: int = 0) -> Tensor:
    return (gaussian(samples, features, seed=seed) @ gaussian(features, features, seed=seed + 50)).relu()


INPUTS = {"autoregressive": correlated, "low rank": low_rank, "rectified": rectified, "independent": gaussian}


def errors(kind: str, pattern: tuple[int, int] | None, seed: int, *, held_out: bool = False) -> dict[str, float]:
    """Each method's error relative to magnitude's, on the samples that it saw or on as many others."""
    weight, seen = gaussian(64, 128, seed=1000 + seed), INPUTS[kind](1024, 128, seed=seed)
    seen, others = seen[:512], seen[512:]
    found = {}
    for method in METHODS:
        new, _ = prune_layer(weight, seen, 0.5, method, pattern=pattern)
        found[method] = reconstruction_error(weight, new, others if held_out else seen)
    refitted, _ = prune_layer(weight, seen, 0.5, "magnitude", pattern=pattern, refit=True)
    found["refit"] = reconstruction_error(weight, refitted, others if held_out else seen)
    return {method: error / found["magnitude"] for method, error in found.items()}


@pytest.mark.parametrize(
    ("kind", "pattern", "sparsegpt", "obs"),
    [
        ("autoregressive", None, (0.28, 0.36), (0.08, 0.12)),
        ("autoregressive", (2, 4), (0.19, 0.25), (0.085, 0.12)),
        ("low rank", None, (0.0, 0.25), (0.0, 0.07)),
        ("low rank", (2, 4), (0.0, 0.25), (0.0, 0.08)),
        ("rectified", None, (0.5, 0.68), (0.28, 0.42)),
        ("independent", None, (0.90, 0.97), (0.76, 0.84)),
    ],
)
def test_the_better_the_method_the_smaller_the_error(
    kind: str, pattern: tuple[int, int] | None, sparsegpt: tuple[float, float], obs: tuple[float, float]
) -> None:
    for seed in range(2):
        found = errors(kind, pattern, seed)
        assert found["obs"] < found["sparsegpt"] < 1
        assert sparsegpt[0] < found["sparsegpt"] < sparsegpt[1]
        assert obs[0] < found["obs"] < obs[1]
        assert found["obs"] < found["refit"] < 1
        if kind in ("autoregressive", "rectified"):  # the mask matters less than the refit
            assert found["refit"] < found["sparsegpt"]


def test_independent_inputs_are_the_counterexample() -> None:
    """Nothing can make up for anything there: what looks like a gain on the samples is a loss on others."""
    for seed in range(2):
        found = errors("independent", None, seed, held_out=True)
        assert min(error for method, error in found.items() if method != "magnitude") > 1


# --- refits -------------------------------------------------------------------------------------------------------------


def test_a_refit_is_least_squares_on_any_mask(device: torch.device) -> None:
    weight, x = gaussian(9, 20), correlated(60, 20)
    mask = gaussian(9, 20, seed=3) > 0.3
    mask[0], mask[1] = True, False  # everything, nothing, and rows of different lengths
    new = refit(weight.to(device), x.to(device), mask.to(device)).cpu()
    for row, kept in enumerate(mask):
        best = np.linalg.lstsq(x[:, kept].numpy(), (x @ weight[row]).numpy(), rcond=None)[0]
        torch.testing.assert_close(new[row, kept], torch.from_numpy(best), rtol=1e-9, atol=1e-10)
        assert not new[row, ~kept].any()
    torch.testing.assert_close(new[0], weight[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_refitting_never_makes_it_worse(method: Any) -> None:
    weight, x = gaussian(12, 40), correlated(100, 40)
    plain, mask = prune_layer(weight, x, 0.6, method)
    fitted, same = prune_layer(weight, x, 0.6, method, refit=True)
    assert torch.equal(mask, same)
    lost, left = reconstruction_error(weight, plain, x), reconstruction_error(weight, fitted, x)
    assert left < lost * (1 + 1e-9)
    again = refit(weight, x, mask, damping=0.01 if method == "sparsegpt" else 0)
    torch.testing.assert_close(fitted, again, rtol=1e-9, atol=1e-11)
    assert method == "obs" or left < 0.9 * lost


def test_damping_pulls_a_refit_towards_the_old_weights() -> None:
    weight, x = gaussian(1, 6), correlated(30, 6)
    mask = torch.tensor([[True, True, False, True, False, True]])
    ridge = 0.3 * float((x.T @ x / 30).diagonal().mean())
    kept = mask[0]
    hessian = x.T @ x / 30 + ridge * torch.eye(6, dtype=x.dtype)
    expected = torch.linalg.solve(hessian[kept][:, kept], (hessian @ weight[0])[kept])
    torch.testing.assert_close(refit(weight, x, mask, damping=0.3)[0, kept], expected)
    far = refit(weight, x, mask, damping=1e9)
    torch.testing.assert_close(far, weight * mask, rtol=1e-6, atol=1e-6)


def test_fewer_samples_than_inputs_need_no_damping_where_fewer_weights_are_kept() -> None:
    weight, x = gaussian(3, 40), gaussian(25, 40, seed=5)
    new, mask = prune_layer(weight, x, 0.5, "magnitude")  # no warning: 20 weights of a row, or so
    mask[:, 20:] = False
    new = refit(weight, x, mask)
    residual = x @ (weight - new).T
    assert (x.T @ residual)[mask.T].abs().max() < 1e-8  # normal equations


# --- whatever comes in --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_an_input_that_is_always_zero_goes_first_and_what_stays_of_it_stays(method: Any) -> None:
    weight, x = gaussian(4, 12) + 3, correlated(40, 12)
    x[:, [2, 7]] = 0
    for refits in (False, True):
        new, mask = prune_layer(weight, x, 3 / 12, method, refit=refits)
        if method in ("obs", "wanda"):
            assert not mask[:, [2, 7]].any()
        assert torch.equal(new[:, [2, 7]], (weight * mask)[:, [2, 7]])
        assert new.isfinite().all()
    new, mask = prune_layer(weight, torch.zeros(5, 12), 0.5, method)
    assert torch.equal(new, weight * mask)
    assert reconstruction_error(weight, new, torch.zeros(5, 12)) == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_dtype_comes_out_as_it_went_in(method: Any, dtype: torch.dtype, device: torch.device) -> None:
    weight, x = gaussian(6, 32).to(device, dtype), correlated(100, 32).to(device, dtype)
    new, mask = prune_layer(weight, x, 0.5, method)
    assert new.dtype == dtype
    assert mask.dtype == torch.bool
    exact, same = prune_layer(weight.double(), x.double(), 0.5, method)
    assert (mask != same).double().mean() < 0.02
    limit = {torch.float16: 1e-2, torch.bfloat16: 5e-2}.get(dtype, 1e-3)
    if torch.equal(mask, same):
        torch.testing.assert_close(new.double(), exact, rtol=limit, atol=limit)
    assert not prune_layer(nn.Parameter(weight), x, 0.5, method)[0].requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_how_the_weight_lies_in_memory_does_not_matter(method: Any) -> None:
    weight, x = gaussian(9, 16), correlated(60, 16)
    new, mask = prune_layer(weight, x, 0.5, method, refit=True)
    for turned in (weight.T.contiguous().T, torch.cat([weight, weight], 1)[:, :16]):
        again, same = prune_layer(turned, x.T.contiguous().T, 0.5, method, refit=True)
        assert torch.equal(same, mask)
        torch.testing.assert_close(again, new, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0), (1, 1)])
def test_small_and_empty_layers(method: Any, shape: tuple[int, int]) -> None:
    for pattern in (None, (1, 2)):
        new, mask = prune_layer(torch.ones(shape), torch.ones(5, shape[1]), 0.5, method, pattern=pattern, refit=True)
        assert new.shape == mask.shape == shape


@pytest.mark.parametrize("method", ["obs", "sparsegpt"])
def test_a_singular_covariance_is_never_replaced_by_the_identity(method: Any) -> None:
    """A failed Cholesky made the identity of the inverse: silently, pruning by magnitude. Here damping grows, and says so."""
    weight, x = gaussian(8, 40), correlated(15, 40)  # more inputs than samples
    with pytest.warns(
        DampingWarning, match=r"1e-06 of the mean was added .* instead of 0; give more samples"
    ) as caught:
        new, mask = prune_layer(weight, x, 0.5, method, damping=0)
    assert caught[0].filename == __file__
    magnitude, plain = prune_layer(weight, x, 0.5, "magnitude")
    assert not torch.equal(mask, plain)
    limit = 0.5 if method == "sparsegpt" else 1e-10  # the weights that are left could do all that the samples ask
    assert reconstruction_error(weight, new, x) < limit * reconstruction_error(weight, magnitude, x)
    quiet = prune_layer(weight, x, 0.5, method, damping=1e-6)
    assert torch.equal(quiet[1], mask)


def test_more_damping_is_found_where_a_little_is_not_enough() -> None:
    copies = InputCovariance(50, torch.float32)  # rounding errors of float32 are larger than 1e-6 in all
    copies.add(torch.ones(1, 50))
    weight = torch.arange(1.0, 51.0)[None]
    with pytest.warns(DampingWarning, match="1e-05 of the mean was added"):
        new, _ = prune_layer(weight, copies, 0.5)
    assert float(new.sum()) == pytest.approx(float(weight.sum()), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sparsity": 1.5}, ValueError, r"sparsity must lie between 0 and 1, not 1.5"),
        ({"sparsity": 50}, ValueError, r"did you mean 0.5\? It is a fraction"),
        (
            {"sparsity": None},
            TypeError,
            r"sparsity is None: give the fraction to remove.* or a pattern, such as \(2, 4\)",
        ),
        ({"sparsity": 0.3, "pattern": (2, 4)}, ValueError, r"NM\(2, 4\) removes 0.5 of the weights"),
        ({"pattern": (4, 4)}, ValueError, r"0 <= n < m"),
        ({"pattern": "2:4"}, TypeError, r"pattern must be \(n, m\).* not '2:4'"),
        ({"method": "gptq"}, ValueError, r"unknown method 'gptq'; use 'obs', 'sparsegpt', 'wanda', 'magnitude'"),
        ({"damping": -0.1}, ValueError, r"damping must be 0 or more, and finite, not -0.1; 0.01 is usual"),
        ({"damping": "a bit"}, TypeError, r"damping must be a number such as 0.01, or None"),
        ({"block_size": 0}, ValueError, r"block_size must be a whole number, 1 or more, not 0"),
        ({"weight": torch.ones(2, 4, 3, 3)}, ValueError, r"shape \(2, 4, 3, 3\).*weight.flatten\(1\)"),
        ({"weight": torch.ones(2, 4, dtype=torch.int32)}, TypeError, r"weight must be a float64.* not torch.int32"),
        (
            {"weight": torch.tensor([[1.0, torch.nan, torch.inf, 0.0]])},
            ValueError,
            r"2 values among its 4 that are NaN",
        ),
        ({"inputs": torch.ones(5, 3)}, ValueError, r"inputs of shape \(5, 3\) do not fit: the layer reads 4 features"),
        ({"inputs": torch.ones(0, 4)}, ValueError, r"inputs hold no sample"),
        ({"inputs": InputCovariance(4)}, ValueError, r"inputs hold no sample"),
        (
            {"inputs": InputCovariance(5)},
            ValueError,
            r"InputCovariance\(5 features, 0 samples\) belongs to another layer",
        ),
        ({"inputs": torch.tensor([[1.0, torch.nan, 0, 0]])}, ValueError, r"the inputs have 1 values that are NaN"),
        (
            {"inputs": [[1.0, 2.0, 3.0, 4.0]]},
            TypeError,
            r"inputs must be a floating tensor \(samples, features\), not list",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"weight": torch.ones(2, 4), "inputs": torch.ones(5, 4), "sparsity": 0.5, **change}
    with pytest.raises(error, match=message):
        prune_layer(**given)


def test_refits_refuse_masks_that_do_not_fit() -> None:
    weight, x = torch.ones(2, 4), torch.ones(5, 4)
    for mask in (torch.ones(2, 4), torch.ones(2, 3, dtype=torch.bool), None):
        with pytest.raises(ValueError, match="mask must be a bool tensor of the weight's shape"):
            refit(weight, x, mask)
    with pytest.raises(ValueError, match="are not of one layer"):
        reconstruction_error(weight, torch.ones(2, 3), x)
