"""Exact and approximate Hessians against torch.autograd, finite differences, and sums written out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from prunelab import curvature
from prunelab.curvature.inverse import inverse_of_outer_products

Loss = Callable[[Any, Any], Tensor]


def network(seed: int = 0, activation: type[nn.Module] = nn.Tanh, outputs: int = 2) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), activation(), nn.Linear(4, outputs)).double()


def examples(count: int = 7, outputs: int = 2, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return x, torch.randn(count, outputs, generator=generator, dtype=torch.float64)


def eye(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def by_autograd(model: nn.Module, loss: Loss, x: Any, y: Any, names: list[str] | None = None) -> Tensor:
    """torch.autograd.functional.hessian over the named parameters, in the model's order."""
    chosen = {n: p for n, p in model.named_parameters() if names is None or n in names}

    def value(vector: Tensor) -> Tensor:
        parts = vector.split([p.numel() for p in chosen.values()])
        values = {n: part.view_as(p) for (n, p), part in zip(chosen.items(), parts, strict=True)}
        return loss(functional_call(model, values, (x,)), y)

    return torch.autograd.functional.hessian(value, torch.cat([p.detach().reshape(-1) for p in chosen.values()]))


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.GELU])
@pytest.mark.parametrize("loss", [F.mse_loss, F.cross_entropy, F.smooth_l1_loss])
def test_the_hessian_is_that_of_torch_autograd(loss: Loss, activation: type[nn.Module]) -> None:
    model, (x, y) = network(activation=activation), examples()
    y = y.argmax(1) if loss is F.cross_entropy else y
    uneven = [(x[:5], y[:5]), (x[5:], y[5:])]  # the mean over examples, not over batches
    found = curvature.hessian(model, uneven, loss)
    torch.testing.assert_close(found, by_autograd(model, loss, x, y), atol=1e-12, rtol=0)
    assert torch.equal(found, found.T)
    decayed = curvature.hessian(model, uneven, loss, weight_decay=0.3)
    torch.testing.assert_close(decayed, found + 0.3 * eye(len(found)), atol=1e-12, rtol=0)


def test_the_hessian_is_the_difference_of_gradients() -> None:
    model, (x, y) = network(), examples()
    found = curvature.hessian(model, [(x, y)], F.mse_loss)
    start, step = flat(model), 1e-5

    def slope(at: Tensor) -> Tensor:
        other = copy.deepcopy(model)
        nn.utils.vector_to_parameters(at, other.parameters())
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(F.mse_loss(other(x), y), other.parameters())])

    for i in range(len(start)):
        e = torch.zeros_like(start)
        e[i] = step
        torch.testing.assert_close(found[i], (slope(start + e) - slope(start - e)) / (2 * step), atol=1e-8, rtol=0)


def test_of_some_parameters_by_name_or_glob_in_the_models_order() -> None:
    model, (x, y) = network(), examples()
    everything = by_autograd(model, F.mse_loss, x, y)
    picked = curvature.hessian(model, [(x, y)], F.mse_loss, parameters=["2.bias", "0.weight"])
    rows = torch.tensor([*range(12), *range(24, 26)])
    torch.testing.assert_close(picked, everything[rows][:, rows], atol=1e-12, rtol=0)
    glob = curvature.hessian(model, [(x, y)], F.mse_loss, ["*.weight"])
    rows = torch.tensor([*range(12), *range(16, 24)])
    torch.testing.assert_close(glob, everything[rows][:, rows], atol=1e-12, rtol=0)


class Twice(nn.Module):
    """One weight in two layers, a tuple of inputs, a frozen parameter, dropout, and a running mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.first.bias.requires_grad_(False)
        self.norm.running_mean.normal_()  # type: ignore[union-attr]

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.drop(self.norm(self.second(torch.tanh(self.first(x))))) * scale


def test_shared_and_frozen_parameters_and_a_model_in_training_mode() -> None:
    torch.manual_seed(0)
    model = Twice().double()
    x, y = examples(outputs=3)
    scale = torch.rand(7, 1, dtype=torch.float64)
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    found = curvature.hessian(model, [((x, scale), y)], F.mse_loss)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.first.bias.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert found.shape == (18, 18)  # 9 shared weights once, 3 biases, 3 scales, 3 shifts

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs * scale, targets)

    plain = copy.deepcopy(model).eval()
    plain.forward = lambda x: plain.norm(plain.second(torch.tanh(plain.first(x))))  # type: ignore[method-assign]
    torch.testing.assert_close(found, by_autograd(plain, loss, x, y), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("dtype", "out"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_it_is_computed_in_float64_and_comes_in_the_models_dtype(
    dtype: torch.dtype, out: torch.dtype, device: torch.device
) -> None:
    model, (x, y) = network().to(dtype), examples()
    exact = by_autograd(copy.deepcopy(model).double(), F.mse_loss, x, y)
    found = curvature.hessian(model.to(device), [(x.to(device), y.to(device))], F.mse_loss)
    assert found.dtype == out
    assert found.device.type == device.type
    torch.testing.assert_close(found.cpu().double(), exact, atol=1e-6, rtol=1e-6)
    assert next(model.parameters()).dtype == dtype


def test_a_loss_with_weights_of_its_own() -> None:
    model, (x, y) = network().float(), examples()
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]))
    found = curvature.hessian(model, [(x.float(), y.argmax(1))], loss)
    exact = by_autograd(copy.deepcopy(model).double(), copy.deepcopy(loss).double(), x.float().double(), y.argmax(1))
    torch.testing.assert_close(found.double(), exact, atol=1e-7, rtol=1e-5)
    assert loss.weight is not None
    assert loss.weight.dtype == torch.float32
    bound = torch.tensor([1.0, 3.0])
    with pytest.raises(ValueError, match=r"cannot run in it .*should be a torch\.nn\.Module"):
        curvature.hessian(model, [(x.float(), y.argmax(1))], lambda o, t: F.cross_entropy(o, t, weight=bound))


def test_attention_has_second_derivatives() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=3, batch_first=True).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    H = curvature.exact(layer, [(x, x)], F.mse_loss)
    v = torch.randn(H.places.size, dtype=torch.float64)
    with sdpa_kernel(SDPBackend.MATH):  # which the library chooses by itself
        exact = by_autograd(layer.eval(), F.mse_loss, x, x)
    torch.testing.assert_close(H @ v, exact @ v, atol=1e-9, rtol=1e-7)


def test_a_loss_that_is_linear_has_no_curvature() -> None:
    model, (x, y) = nn.Linear(3, 2).double(), examples()
    assert not curvature.hessian(model, [(x, y)], lambda o, t: (o * t).mean()).any()
    # One linear layer has none of its own, two have.
    assert curvature.hessian(
        nn.Sequential(model, nn.Linear(2, 2).double()), [(x, y)], lambda o, t: (o * t).mean()
    ).any()


# --- Gauss-Newton, Fisher, samples -------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [F.mse_loss, F.cross_entropy, lambda o, t: (o - t).square().sum() / (2 * len(o))])
def test_gauss_newton_is_the_mean_of_jsj(loss: Loss) -> None:
    model, (x, y) = network(), examples()
    y = y.argmax(1) if loss is F.cross_entropy else y
    G = curvature.gauss_newton(model, [(x[:2], y[:2]), (x[2:], y[2:])], loss, weight_decay=0.1)
    names = [n for n, _ in model.named_parameters()]
    expected = 0.1 * eye(26)
    for a, b in zip(x, y, strict=True):
        jacobian = torch.func.jacrev(lambda p, a=a: functional_call(model, p, (a[None],))[0])(
            dict(model.named_parameters())
        )
        J = torch.cat([jacobian[n].reshape(2, -1) for n in names], 1).detach()
        S = torch.autograd.functional.hessian(lambda o, b=b: loss(o[None], b[None]), model(a[None])[0].detach())
        expected += J.T @ S @ J / 7
    torch.testing.assert_close(G.matrix(), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(G.diagonal(), expected.diag(), atol=1e-12, rtol=0)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)

    def forward(self, x: Tensor, extra: dict[str, Tensor]) -> Tensor:
        return self.norm(torch.tanh(self.layer(x))) + extra["shift"]


def test_gauss_newton_takes_any_inputs_and_dtypes() -> None:
    torch.manual_seed(0)
    model, (x, y) = TwoInputs(), examples()
    shift = torch.randn(7, 2)
    inputs = {"x": x.float(), "extra": {"shift": shift}}
    found = curvature.gauss_newton(model, [(inputs, y)], F.mse_loss)
    plain = copy.deepcopy(model).double().eval()
    rows = []
    for a, s in zip(x.float().double(), shift.double(), strict=True):
        for k in range(2):
            out = plain(a[None], {"shift": s[None]})[0, k]
            rows.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(out, plain.parameters())]))
    J = torch.stack(rows)
    torch.testing.assert_close(found.matrix(), J.T @ J / 7, atol=1e-12, rtol=0)  # S = 2 / 2


def test_the_papers_gauss_newton_matrix_is_the_mean_of_x_x() -> None:
    """E = 1 / 2P · Σ ‖t - o‖², H = 1 / P · Σ X Xᵀ with X = ∂F/∂w (Hassibi & Stork 1993)."""
    model, (x, y) = network(outputs=1), examples(outputs=1)
    G = curvature.gauss_newton(model, [(x, y)], lambda o, t: (o - t).square().mean() / 2)
    X = []
    for a in x:
        slopes = torch.autograd.grad(model(a[None])[0, 0], model.parameters())
        X.append(torch.cat([s.reshape(-1) for s in slopes]))
    rows = torch.stack(X)
    torch.testing.assert_close(G.matrix(), rows.T @ rows / 7, atol=1e-13, rtol=0)


def test_gauss_newton_is_the_hessian_where_the_fit_is_perfect_or_the_network_linear() -> None:
    model, (x, y) = network(), examples()
    fitted = model(x).detach()
    exact = curvature.hessian(model, [(x, fitted)], F.mse_loss)
    torch.testing.assert_close(
        curvature.gauss_newton(model, [(x, fitted)], F.mse_loss).matrix(), exact, atol=1e-12, rtol=0
    )
    linear = nn.Linear(3, 2).double()
    exact = curvature.hessian(linear, [(x, y.argmax(1))], F.cross_entropy)
    found = curvature.gauss_newton(linear, [(x, y.argmax(1))], F.cross_entropy).matrix()
    torch.testing.assert_close(found, exact, atol=1e-12, rtol=0)


def test_gauss_newton_is_the_fisher_information_of_the_cross_entropy() -> None:
    """The expectation of g gᵀ over labels drawn from the network's own probabilities, written out."""
    model, (x, _) = network(outputs=3), examples()
    y = torch.zeros(7, dtype=torch.long)
    expected = torch.zeros(31, 31, dtype=torch.float64)
    for a in x:
        p = model(a[None])[0].softmax(0).detach()
        for label in range(3):
            slopes = torch.autograd.grad(F.cross_entropy(model(a[None]), torch.tensor([label])), model.parameters())
            g = torch.cat([s.reshape(-1) for s in slopes])
            expected += p[label] * torch.outer(g, g) / 7
    torch.testing.assert_close(
        curvature.gauss_newton(model, [(x, y)], F.cross_entropy).matrix(), expected, atol=1e-12, rtol=0
    )


def test_the_empirical_fisher_is_the_mean_of_g_g() -> None:
    model, (x, y) = network(), examples()
    labels = y.argmax(1)
    found = curvature.empirical_fisher(
        model, [(x[:3], labels[:3]), (x[3:], labels[3:])], F.cross_entropy, weight_decay=0.1
    )
    expected = 0.1 * eye(26)
    for a, b in zip(x, labels, strict=True):
        slopes = torch.autograd.grad(F.cross_entropy(model(a[None]), b[None]), model.parameters())
        g = torch.cat([s.reshape(-1) for s in slopes])
        expected += torch.outer(g, g) / 7
    torch.testing.assert_close(found.matrix(), expected, atol=1e-13, rtol=0)


def test_a_loss_that_is_not_convex_in_the_outputs_is_refused_by_gauss_newton() -> None:
    model, (x, y) = network(), examples()
    with pytest.raises(ValueError, match="not convex in the outputs"):
        curvature.gauss_newton(model, [(x, y)], lambda o, t: (torch.sigmoid(5 * o) - t).square().mean())


@pytest.mark.parametrize("loss", [F.mse_loss, F.cross_entropy])
def test_the_recursion_over_samples_is_the_inverse(loss: Loss) -> None:
    model, (x, y) = network(), examples()
    y = y.argmax(1) if loss is F.cross_entropy else y
    data = [(x[:2], y[:2]), (x[2:], y[2:])]
    found = curvature.inverse_hessian(model, data, loss, damping=1e-4, method="samples")
    raised = curvature.gauss_newton(model, data, loss).matrix() + 1e-4 * eye(26)
    torch.testing.assert_close(found @ raised, eye(26), atol=1e-8, rtol=0)
    decayed = curvature.inverse_hessian(model, data, loss, damping=1e-4, method="samples", weight_decay=0.5)
    raised += 0.5 * eye(26)
    torch.testing.assert_close(decayed, torch.linalg.inv(raised), atol=1e-11, rtol=0)


def test_batches_of_samples_are_the_papers_recursion_word_for_word() -> None:
    generator = torch.Generator().manual_seed(0)
    X, alpha = torch.randn(150, 9, generator=generator, dtype=torch.float64), 1e-4
    inverse = torch.eye(9, dtype=torch.float64) / alpha
    for x in X:  # H⁻¹ - H⁻¹ X Xᵀ H⁻¹ / (P + Xᵀ H⁻¹ X)
        inverse = inverse - torch.outer(inverse @ x, x @ inverse) / (150 + x @ inverse @ x)
    exact = torch.linalg.inv(X.T @ X / 150 + alpha * eye(9))
    for batch in (1, 7, 64, 200):
        found = inverse_of_outer_products([X[:100] / 150**0.5, X[100:] / 150**0.5], 9, alpha, batch=batch)
        torch.testing.assert_close(found, inverse, atol=1e-9, rtol=0)  # α⁻¹ costs digits on the way
        torch.testing.assert_close(found, exact, atol=1e-9, rtol=0)


def test_the_inverse_hessian_is_the_inverse_with_damping() -> None:
    model, (x, y) = network(outputs=2), examples(40)
    data = [(x, y)]
    matrix = curvature.hessian(model, data, F.mse_loss, weight_decay=0.5)
    found = curvature.inverse_hessian(model, data, F.mse_loss, damping=0.2, weight_decay=0.5)
    torch.testing.assert_close(found, torch.linalg.inv(matrix + 0.2 * eye(26)), atol=1e-11, rtol=0)
    part = curvature.inverse_hessian(model, data, F.mse_loss, 0.2, parameters=["2.bias"], weight_decay=0.5)
    torch.testing.assert_close(part, torch.linalg.inv(matrix[24:, 24:] + 0.2 * eye(2)), atol=1e-11, rtol=0)


# --- what is refused ---------------------------------------------------------------------------------------------


class TwoOutputs(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"data": None}, TypeError, r"data must be batches of \(inputs, targets\), not None"),
        ({"data": iter([])}, TypeError, r"used up after one pass; wrap it in list"),
        ({"data": []}, ValueError, "data is empty"),
        ({"loss": None}, TypeError, "loss must be a function of"),
        ({"loss": nn.MSELoss}, TypeError, r"write MSELoss\(\)"),
        ({"loss": lambda o, t: (o - t).square()}, ValueError, r"loss must return a scalar tensor.*shape \(7, 2\)"),
        ({"loss": lambda o, t: 1.0}, ValueError, "it returned float"),
        ({"loss": lambda o, t: F.mse_loss(o.detach(), t)}, ValueError, "the loss has no gradient"),
        ({"weight_decay": -1.0}, ValueError, r"weight_decay must be finite and at least 0, not -1\.0"),
        ({"weight_decay": float("nan")}, ValueError, "weight_decay must be finite"),
        ({"weight_decay": "0.1"}, TypeError, "weight_decay must be a number"),
        ({"parameters": ["3.weight"]}, ValueError, "unknown parameter '3.weight'"),
        ({"parameters": "0.weight"}, TypeError, r"write \['0\.weight'\]"),
        ({"model": nn.ReLU()}, ValueError, "no parameter"),
        ({"model": 3}, TypeError, "must be a torch.nn.Module"),
        ({"model": nn.LazyLinear(2)}, ValueError, "no values yet"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    given: dict[str, Any] = {"model": network(), "data": [examples()], "loss": F.mse_loss, **change}
    with pytest.raises(kind, match=message):
        curvature.hessian(**given)


def test_two_parameters_over_one_memory_are_refused() -> None:
    model, (x, y) = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).double(), examples(outputs=3)
    model[1].weight = nn.Parameter(model[0].weight.data)
    with pytest.raises(ValueError, match=r"'0\.weight' and '1\.weight' are two parameters over the same memory"):
        curvature.hessian(model, [(x, y)], F.mse_loss)


def test_a_matrix_that_no_memory_holds_is_refused_with_the_way_out() -> None:
    model, (x, y) = nn.Linear(300, 200), examples()
    with pytest.raises(ValueError, match=r"60,200 parameters would take 29 GB; use H @ v or"):
        curvature.hessian(model, [(x, y)], F.mse_loss)
    with pytest.raises(ValueError, match="would take 29 GB"):
        curvature.inverse_hessian(model, [(x, y)], F.mse_loss)


def test_other_settings_are_refused() -> None:
    data = [examples()]
    with pytest.raises(ValueError, match="method must be 'exact' or 'samples', not 'fisher'"):
        curvature.inverse_hessian(network(), data, F.mse_loss, method="fisher")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"give damping above 0 .*1e-8 to 1e-4"):
        curvature.inverse_hessian(network(), data, F.mse_loss, method="samples")
    with pytest.raises(ValueError, match="damping must be finite and at least 0"):
        curvature.inverse_hessian(network(), data, F.mse_loss, damping=-1)
    with pytest.raises(ValueError, match=r"one tensor with a row for each of the 7 examples.*it returned tuple"):
        curvature.gauss_newton(TwoOutputs(3, 2).double(), data, lambda o, t: F.mse_loss(o[0], t))
    broken = network()
    broken[0].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="entries that are NaN or infinite"):
        curvature.inverse_hessian(broken, data, F.mse_loss)
