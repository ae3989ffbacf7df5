"""The average gradient outer product against closed forms and finite differences; the ansatz."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunelab import lab
from prunelab.lottery.features import agop, correlation, neural_feature_matrix


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_differences(f, x: Tensor, step: float = 1e-5) -> Tensor:
    """(1/n) Σ JᵀJ from central differences, in NumPy, one coordinate at a time."""
    flat = x.flatten(1)
    columns = []
    for i in range(flat.shape[1]):
        shift = torch.zeros_like(flat)
        shift[:, i] = step
        up, down = (f((flat + sign * shift).reshape(x.shape)).detach().reshape(len(x), -1) for sign in (1, -1))
        columns.append(((up - down) / (2 * step)).numpy())
    jacobian = np.stack(columns, axis=2)  # (n, outputs, d)
    return torch.from_numpy(np.einsum("nki,nkj->ij", jacobian, jacobian) / len(x))


def test_a_linear_model_is_its_own_feature_matrix(device: torch.device) -> None:
    model = nn.Linear(7, 4).double().to(device)
    found = agop(model, drawn(10, 7).to(device))
    expected = (model.weight.T @ model.weight).detach()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(neural_feature_matrix(model), expected, rtol=1e-12, atol=1e-12)
    assert found.dtype == torch.float64


def test_a_quadratic_has_the_closed_form() -> None:
    """f = xᵀAx/2 has the gradient Ax, so the mean is A (1/n Σ xxᵀ) A."""
    a = drawn(5, 5)
    a = a + a.T
    x = drawn(40, 5, seed=1)
    found = agop(lambda x: 0.5 * torch.einsum("ni,ij,nj->n", x, a, x), x)
    torch.testing.assert_close(found, a @ (x.T @ x / 40) @ a)


@pytest.mark.parametrize("batch_size", [1, 4, 5, 256])
def test_any_network_against_finite_differences(batch_size: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 4), nn.GELU()
    ).double()
    model[1].running_mean += 0.3
    x = drawn(9, 1, 4, 4)
    found = agop(model, x, batch_size=batch_size)
    assert model.training
    model.eval()
    torch.testing.assert_close(found, by_differences(model, x), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(agop(model, x, diagonal=True), found.diagonal())


def test_a_layer_is_read_where_it_reads() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x = drawn(11, 6)
    found = agop(model, x, layer="2")
    hidden = model[:2](x).detach()
    torch.testing.assert_close(found, by_differences(model[2:], hidden), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(agop(model, x, layer="0"), agop(model, x))
    assert neural_feature_matrix(model, "2").shape == found.shape == (5, 5)


def test_a_shortcut_round_the_layer_is_held_constant() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4).double()

        def forward(self, x: Tensor) -> Tensor:
            return x + self.inner(x)

    model = Residual()
    torch.testing.assert_close(agop(model, drawn(3, 4), layer="inner"), neural_feature_matrix(model, "inner"))


def test_nothing_is_left_behind() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3), nn.Dropout()).requires_grad_(False)
    x = drawn(6, 4).float()
    before = x.clone()
    with torch.no_grad():
        found = agop(model, x, layer="1")
    with torch.inference_mode():
        assert torch.equal(agop(model, x, layer="1"), found)
    agop(model, x)
    assert torch.equal(x, before)
    assert not x.requires_grad
    assert model.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_outputs_that_do_not_depend_on_the_input_count_as_zero() -> None:
    x = drawn(5, 3)
    found = agop(lambda x: torch.stack([x[:, 0], torch.ones(len(x)).double()], dim=1), x)
    assert torch.equal(found, torch.diag(torch.tensor([1.0, 0.0, 0.0]).double()))
    assert torch.equal(agop(lambda x: torch.ones(len(x), 2), x), torch.zeros(3, 3).double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_precisions(dtype: torch.dtype) -> None:
    model = nn.Linear(5, 2).to(dtype)
    found = agop(model, drawn(4, 5).to(dtype))
    torch.testing.assert_close(found, neural_feature_matrix(model), rtol=1e-12, atol=1e-12)


TWICE = nn.Linear(3, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: agop(nn.Linear(3, 2), torch.ones(4, 3, dtype=torch.long)), TypeError, "tensor of floats.*int64"),
        (lambda: agop(nn.Linear(3, 2), torch.ones(0, 3)), ValueError, r"\(0, 3\): give at least one example"),
        (lambda: agop(nn.Linear(3, 2), torch.ones(3)), ValueError, r"shape \(3,\)"),
        (lambda: agop(nn.Linear(3, 2), torch.ones(4, 3), batch_size=0), ValueError, "batch_size=0"),
        (lambda: agop("net", torch.ones(4, 3)), TypeError, "not a str"),
        (lambda: agop(nn.Linear(3, 2), torch.ones(4, 3), layer="fc"), ValueError, "'fc' is no module"),
        (lambda: agop(torch.tanh, torch.ones(4, 3), layer="fc"), TypeError, "give a torch.nn.Module"),
        (lambda: agop(lambda x: x.sum(), torch.ones(4, 3)), ValueError, r"shape \(\) for 4 examples"),
        (lambda: agop(lambda x: x[:, :0], torch.ones(4, 3)), ValueError, r"shape \(4, 0\) for 4"),
        (lambda: agop(nn.Sequential(TWICE, TWICE), torch.ones(4, 3), layer="0"), ValueError, "runs 2 times"),
        (lambda: agop(nn.Linear(3, 2), torch.full((4, 3), math.nan).square(), layer=None), ValueError, None),
        (lambda: agop(lambda x: x.sqrt(), torch.zeros(4, 3)), ValueError, "NaN or infinity"),
        (lambda: neural_feature_matrix(nn.Conv2d(1, 1, 3)), TypeError, "is a Conv2d"),
        (lambda: neural_feature_matrix(nn.Sequential(nn.ReLU()), "1"), ValueError, "modules are 0"),
        (lambda: correlation(torch.ones(2, 2), torch.eye(3)), ValueError, "one shape"),
        (lambda: correlation(torch.eye(2), torch.ones(2, 2)), ValueError, "b is constant"),
        (lambda: correlation(torch.eye(2), torch.eye(2), initial=torch.eye(2)), ValueError, "once initial"),
        (lambda: correlation(torch.eye(2), torch.eye(2), initial=torch.eye(3)), ValueError, "initial has shape"),
        (lambda: correlation(torch.eye(2), torch.eye(2) * math.inf), ValueError, "infinity"),
    ],
)
def test_what_makes_no_sense_is_refused(call, error: type[Exception], message: str | None) -> None:
    if message is None:  # a linear model has finite gradients whatever its inputs
        assert call().isfinite().all()
        return
    with pytest.raises(error, match=message):
        call()


def test_correlation_is_numpys_and_the_cosine() -> None:
    a, b, c = drawn(6, 6), drawn(6, 6, seed=1), drawn(6, 6, seed=2)
    assert correlation(a, b) == pytest.approx(np.corrcoef(a.flatten(), b.flatten())[0, 1])
    cosine = float((a * b).sum() / (a.norm() * b.norm()))
    assert correlation(a, b, centred=False) == pytest.approx(cosine)
    assert correlation(a + c, b, initial=c) == pytest.approx(correlation(a, b))
    assert correlation(3 * a, a) == pytest.approx(1)
    assert correlation(-a, a) == pytest.approx(-1)


def test_the_ansatz_holds_better_after_training() -> None:
    """On digits the first layer's WᵀW agrees with the outer product after training, and not before."""
    data = lab.data.digits()
    x, y = data.train[0].flatten(1)[:400], data.train[1][:400]
    for seed in range(3):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        start = correlation(neural_feature_matrix(model, "0"), agop(model, x, layer="0"))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
        for _ in range(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        end = correlation(neural_feature_matrix(model, "0"), agop(model, x, layer="0"))
        assert end > start + 0.2, (start, end)
