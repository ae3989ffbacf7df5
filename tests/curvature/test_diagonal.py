"""The Hessian's diagonal against brute force, backpack, and LeCun's recursion written out."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import prunelab
from prunelab import criteria, curvature
from prunelab.curvature import hessian_diagonal, hutchinson
from prunelab.curvature.outputs import cross_entropy_columns, factor
from prunelab.lab import models

Loss = Callable[[Any, Any], Tensor]
Data = list[tuple[Any, Tensor]]


def flat(found: dict[str, Tensor]) -> Tensor:
    return torch.cat([values.reshape(-1) for values in found.values()])


def brute_force(model: nn.Module, data: Data, loss: Loss) -> Tensor:
    """∂²L/∂w² of every entry: torch.autograd twice, entry by entry."""
    weights, total = list(model.parameters()), 0.0
    count = sum(len(targets) for _, targets in data)
    for inputs, targets in data:
        slopes = torch.autograd.grad(loss(model(inputs), targets), weights, create_graph=True, allow_unused=True)
        seconds = []
        for weight, slope in zip(weights, slopes, strict=True):
            for i in range(weight.numel()):
                again = None
                if slope is not None and slope.requires_grad:
                    again = torch.autograd.grad(slope.reshape(-1)[i], weight, retain_graph=True, allow_unused=True)[0]
                seconds.append(weight.new_zeros(()) if again is None else again.reshape(-1)[i])
        total = total + torch.stack(seconds) * len(targets) / count
    return total.detach()


def gauss_newton(model: nn.Module, data: Data, loss: Loss) -> Tensor:
    return curvature.gauss_newton(model, data, loss).diagonal()


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """In float64, in eval mode, with statistics and affine parameters that are not those of the beginning."""
    torch.manual_seed(seed)
    model = model.double().eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                module.weight.data.normal_()
                module.bias.data.normal_()
    return model


class Residual(nn.Module):
    """Sums, differences, products with constants, slices and means, as functions and as methods."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1), nn.Linear(4, 3)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        first = self.activation(self.a(x)) / 2
        out = 0.7 * first - self.b(first) + x
        out = torch.cat([out[:, :1], self.activation(out[:, 1:]).neg(), out.flip(3)], dim=1)
        return self.c(out.mean(dim=(2, 3)).view(-1, 4) + 1)


def small(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """(network with at most about 200 weights, shape of an example)"""
    conv = nn.Conv2d
    networks: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "one layer": (nn.Linear(4, 3), (4,)),
        "no bias": (nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False)), (4,)),
        "sequence": (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Flatten(), nn.Linear(6, 3)), (3, 3)),
        "convolution": (nn.Sequential(conv(1, 2, (3, 2), stride=(2, 1), padding=(2, 1)), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)), (1, 3, 5)),
        "grouped": (nn.Sequential(conv(4, 4, 2, groups=2), nn.Tanh(), conv(4, 8, (2, 1), groups=4), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)), (4, 3, 3)),
        "depthwise": (nn.Sequential(conv(3, 3, 3, groups=3, dilation=2, padding=2), nn.ELU(), conv(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (3, 4, 4)),
        "1d and 3d": (nn.Sequential(nn.Conv1d(2, 3, 2, padding="same"), nn.Tanh(), nn.Unflatten(1, (1, 3)), nn.Unflatten(3, (2, 2)), nn.Conv3d(1, 2, (2, 1, 2)), nn.Flatten(), nn.Linear(8, 3)), (2, 4)),
        "circular": (nn.Sequential(conv(1, 2, 3, padding=1, padding_mode="circular"), nn.Softplus(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 3)), (1, 4, 4)),
        "normalised": (nn.Sequential(conv(2, 3, 2, bias=False), nn.BatchNorm2d(3), nn.SiLU(), nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4, affine=False), nn.GELU(), nn.BatchNorm1d(4), nn.Linear(4, 3)), (2, 3, 3)),
        "pooled": (nn.Sequential(conv(1, 3, 2, bias=False), nn.ReLU(inplace=True), nn.MaxPool2d(2, 1, padding=1), conv(3, 2, 2), nn.LeakyReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(8, 3)), (1, 4, 4)),
        "residual": (Residual(torch.tanh), (2, 4, 4)),
        "straight residual": (Residual(F.relu), (2, 4, 4)),
        "bent output": (nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 3), nn.Sigmoid()), (4,)),
        "deep": (nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(4, 4), nn.Tanh())], nn.Linear(4, 3)), (4,)),
    }  # fmt: skip
    return networks[name]


NAMES = ["one layer", "no bias", "sequence", "convolution", "grouped", "depthwise", "1d and 3d", "circular", "normalised", "pooled", "residual", "straight residual", "bent output", "deep"]  # fmt: skip
STRAIGHT = {"one layer", "pooled", "straight residual"}


def batches(shape: tuple[int, ...], loss: Loss, seed: int = 1, count: int = 5) -> Data:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    y = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    y = y.argmax(1) if loss is F.cross_entropy else y
    return [(x[:2], y[:2]), (x[2:], y[2:])]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("loss", [F.mse_loss, F.cross_entropy], ids=["squared", "cross-entropy"])
@pytest.mark.parametrize("name", NAMES)
def test_the_sweep_is_the_diagonal_entry_by_entry(name: str, loss: Loss) -> None:
    model, shape = small(name)
    model = randomised(model)
    data = batches(shape, loss)
    exact = brute_force(model, data, loss)
    found = hessian_diagonal(model, data, loss)
    assert list(found) == [n for n, _ in model.named_parameters()]
    assert all(found[n].shape == p.shape for n, p in model.named_parameters())
    torch.testing.assert_close(flat(found), exact, atol=1e-11, rtol=1e-9)
    swept = flat(hessian_diagonal(model, data, loss, "gauss-newton"))
    torch.testing.assert_close(swept, gauss_newton(model, data, loss), atol=1e-11, rtol=1e-9)
    assert torch.allclose(swept, flat(found), atol=1e-11) == (name in STRAIGHT)
    decayed = flat(hessian_diagonal(model, data, loss, weight_decay=0.25))
    torch.testing.assert_close(decayed, exact + 0.25, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize(
    "loss",
    [
        F.smooth_l1_loss,
        F.soft_margin_loss,
        lambda o, t: torch.log_softmax(o, 1).mul(t.softmax(1)).sum(1).neg().mean(),
        lambda o, t: (torch.sigmoid(3 * o) - t).square().mean(),  # not convex in the outputs
        lambda o, t: (o * t).mean(),  # linear in them
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)),
        nn.CrossEntropyLoss(label_smoothing=0.3),
        nn.CrossEntropyLoss(),
    ],
)
@pytest.mark.parametrize("name", ["no bias", "convolution", "pooled"])
def test_whatever_the_loss(name: str, loss: Loss) -> None:
    model, shape = small(name)
    model = randomised(model)
    data = batches(shape, F.cross_entropy if isinstance(loss, nn.CrossEntropyLoss) else loss)
    if isinstance(loss, nn.CrossEntropyLoss) and loss.weight is not None:
        data = [(torch.cat([x for x, _ in data]), torch.cat([y for _, y in data]))]  # weighted within a batch
    torch.testing.assert_close(
        flat(hessian_diagonal(model, data, loss)), brute_force(model, data, loss), atol=1e-11, rtol=1e-9
    )


@settings(max_examples=15)
@given(
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    activation=st.sampled_from([nn.Tanh, nn.ReLU, nn.GELU, nn.Hardswish, nn.LogSigmoid]),
    classes=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)
def test_of_random_networks(widths: list[int], activation: type[nn.Module], classes: int, seed: int) -> None:
    torch.manual_seed(seed)
    sizes = [3, *widths, classes]
    layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), activation())][:-1]
    model = nn.Sequential(*layers).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    data = [(x, torch.randint(classes, (4,)))]
    found = hessian_diagonal(model, data, F.cross_entropy)
    torch.testing.assert_close(flat(found), brute_force(model, data, F.cross_entropy), atol=1e-11, rtol=1e-9)


def test_labels_that_the_loss_leaves_out() -> None:
    model, (x, y) = randomised(small("convolution")[0]), batches((1, 3, 5), F.cross_entropy)[1]
    data = [(x, torch.tensor([y[0], -100, y[2]]))]
    torch.testing.assert_close(
        flat(hessian_diagonal(model, data, F.cross_entropy)),
        brute_force(model, data, F.cross_entropy),
        atol=1e-11,
        rtol=1e-9,
    )


def test_a_resnet() -> None:
    model = randomised(models.resnet20(1, 3, width=0.125, projection=True))
    data = batches((1, 8, 8), F.cross_entropy)
    exact = curvature.hessian(
        model, data, F.cross_entropy, parameters=["bn1.weight", "conv1.weight", "blocks.3.conv1.weight", "fc.weight"]
    )
    found = hessian_diagonal(model, data, F.cross_entropy)
    names = ["conv1.weight", "bn1.weight", "blocks.3.conv1.weight", "fc.weight"]
    torch.testing.assert_close(flat({n: found[n] for n in names}), exact.diag(), atol=1e-10, rtol=1e-8)


def test_backpack_says_the_same() -> None:
    backpack = pytest.importorskip("backpack")
    extensions = pytest.importorskip("backpack.extensions")
    torch.manual_seed(0)
    for model, shape in (
        (nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3)), (4,)),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)), (1, 6, 6)),
    ):
        model = model.double()
        x, y = torch.randn(5, *shape, dtype=torch.float64), torch.randint(3, (5,))
        extended, loss = backpack.extend(copy.deepcopy(model)), backpack.extend(nn.CrossEntropyLoss())
        with warnings.catch_warnings(), backpack.backpack(extensions.DiagHessian(), extensions.DiagGGNExact()):
            warnings.simplefilter("ignore")
            loss(extended(x), y).backward()
        for method, field in (("exact", "diag_h"), ("gauss-newton", "diag_ggn_exact")):
            found = hessian_diagonal(model, [(x, y)], F.cross_entropy, method)  # type: ignore[arg-type]
            theirs = {n: getattr(p, field) for n, p in extended.named_parameters()}
            torch.testing.assert_close(found, theirs, atol=1e-12, rtol=1e-9)


def test_uses_of_a_weight_and_an_activation_in_several_places() -> None:
    """A weight that is used twice has cross terms: gauss-newton has them, exact refuses."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)).double()
    model[2].weight = model[0].weight
    model[2].bias = model[0].bias
    data = batches((3,), F.mse_loss)
    swept = hessian_diagonal(model, data, F.mse_loss, "gauss-newton")
    assert list(swept) == ["0.weight", "0.bias"]
    torch.testing.assert_close(flat(swept), gauss_newton(model, data, F.mse_loss), atol=1e-11, rtol=1e-9)
    with pytest.raises(ValueError, match=r"'0\.(weight|bias)' is used more than once.*curvature\.hutchinson"):
        hessian_diagonal(model, data, F.mse_loss)
    model[2].bias = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"'0\.weight' is used more than once, with different weights or biases"):
        hessian_diagonal(model, data, F.mse_loss, "gauss-newton")


class Rows(nn.Module):
    """Puts the positions of all examples into one dimension, or before the examples."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.layer, self.first = nn.Linear(2, 3), first

    def forward(self, x: Tensor) -> Tensor:
        rows = x.transpose(0, 1) if self.first else x.reshape(-1, 2)
        out = torch.tanh(self.layer(rows))
        return out.mean(0) if self.first else out.view(len(x), -1, 3).mean(1)


@pytest.mark.parametrize("first", [True, False])
def test_examples_that_do_not_come_first_are_refused_and_not_mixed_up(first: bool) -> None:
    torch.manual_seed(0)
    model, data = Rows(first).double(), batches((4, 2), F.mse_loss)
    with pytest.raises(
        ValueError, match=r"layer of 'layer\.weight' puts out \((4, 2|8), .*batch of 2: its first dimension"
    ):
        hessian_diagonal(model, data, F.mse_loss)
    assert hessian_diagonal(model, data, F.mse_loss, "lecun")  # which adds up over positions, wherever they are


# --- LeCun's recursion -------------------------------------------------------------------------------------------


def chain(activation: type[nn.Module]) -> nn.Sequential:
    """One unit a layer, so that nothing is left out."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(1, 1), activation(), nn.Linear(1, 1), activation(), nn.Linear(1, 1)).double()


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Sigmoid, nn.GELU, nn.ReLU])
def test_the_recursion_is_exact_on_a_chain_of_single_units_and_its_sign_is_plus(activation: type[nn.Module]) -> None:
    model = chain(activation)
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    data = [(x, x.cos())]
    found = flat(hessian_diagonal(model, data, F.mse_loss, "lecun"))
    torch.testing.assert_close(found, brute_force(model, data, F.mse_loss), atol=1e-12, rtol=1e-9)


def by_hand(model: nn.Sequential, x: Tensor, t: Tensor, bends: bool) -> Tensor:
    """Eqs. 5 to 8 for E = Σ_i (d_i - x_i)² of a tanh network with a linear last layer, pattern by pattern."""
    first, last = model[0], model[2]
    total = 0.0
    for pattern, target in zip(x, t, strict=True):
        a = first.weight @ pattern + first.bias
        hidden = a.tanh()
        output = last.weight @ hidden + last.bias
        curve_out = torch.full_like(output, 2.0)  # f linear: 2 f'² - 2 (d - x) f''
        slope_hidden = last.weight.T @ (2 * (output - target))
        first_slope, second_slope = 1 - hidden**2, -2 * hidden * (1 - hidden**2)
        curve = first_slope**2 * ((last.weight**2).T @ curve_out)
        if bends:
            curve = curve + second_slope * slope_hidden
        parts = [torch.outer(curve, pattern**2), curve, torch.outer(curve_out, hidden**2), curve_out]
        total = total + torch.cat([part.reshape(-1) for part in parts]) / len(x)
    return total.detach()


@pytest.mark.parametrize(("method", "bends"), [("lecun", True), ("levenberg-marquardt", False)])
def test_the_papers_equations_written_out(method: Any, bends: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, t = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    squared = lambda o, d: (o - d).square().sum(1).mean()  # noqa: E731
    data = [(x[:4], t[:4]), (x[4:], t[4:])]
    found = flat(hessian_diagonal(model, data, squared, method))
    torch.testing.assert_close(found, by_hand(model, x, t, bends), atol=1e-12, rtol=1e-9)
    if not bends:
        assert bool((found >= 0).all())


def layer_jacobian(layer: nn.Module, read: Tensor, parameter: Tensor | None = None) -> Tensor:
    """Derivatives of a layer's outputs in its input, or in one of its parameters: (outputs, inputs or entries)."""

    def outputs(values: Tensor) -> Tensor:
        if parameter is None:
            return layer(values.clone()).reshape(-1)
        changed = {name: values for name, p in layer.named_parameters() if p is parameter}
        return torch.func.functional_call(layer, changed, (read.clone(),)).reshape(-1)

    at = read if parameter is None else parameter.detach()
    jacobian = torch.autograd.functional.jacobian(outputs, at)
    return jacobian.reshape(len(jacobian), -1)


def second_derivative(layer: nn.Module, read: Tensor) -> Tensor:
    """f'' of an activation function, entry by entry."""
    second = torch.func.grad(torch.func.grad(lambda u: layer(u.clone()[None])[0]))
    return torch.stack([second(u) for u in read.reshape(-1)])


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # one of the networks pads an even kernel on purpose
@pytest.mark.parametrize("name", [name for name in NAMES if "residual" not in name])
@pytest.mark.parametrize("method", ["lecun", "levenberg-marquardt"])
def test_the_recursion_is_what_squared_jacobians_say(name: str, method: Any) -> None:
    """One example at a time, from the outputs back: squares of each layer's derivatives, and f'' · ∂E/∂x."""
    model, shape = small(name)
    model = randomised(model)
    layers = list(model) if isinstance(model, nn.Sequential) else [model]
    data = batches(shape, F.mse_loss)
    names = {id(p): n for n, p in model.named_parameters()}
    expected = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for x, t in zip(torch.cat([x for x, _ in data]), torch.cat([t for _, t in data]), strict=True):
        values = [x[None]]
        for layer in layers:
            values.append(layer(values[-1].clone()).detach())
        curve, slope = torch.full((3,), 2 / 3, dtype=torch.float64), 2 * (values[-1][0] - t) / 3
        for layer, read in zip(layers[::-1], values[-2::-1], strict=True):
            for p in layer.parameters():
                J = layer_jacobian(layer, read, p)
                expected[names[id(p)]] += ((J**2).T @ curve).reshape(p.shape) / 5
            J = layer_jacobian(layer, read)
            before, curve = curve, (J**2).T @ curve
            if method == "lecun" and type(layer).__module__ == "torch.nn.modules.activation":
                curve = curve + second_derivative(layer, read) * slope
            slope = J.T @ slope
            assert len(before) == len(J)
    torch.testing.assert_close(hessian_diagonal(model, data, F.mse_loss, method), expected, atol=1e-10, rtol=1e-8)


class After(nn.Module):
    """A Linear layer, and something linear without parameters behind it."""

    def __init__(self, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.after = nn.Linear(2, 4), after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.layer(x))


CONSTANT = torch.arange(1.0, 13.0, dtype=torch.float64)


@pytest.mark.parametrize(
    "after",
    [
        lambda h: h.mean(1, keepdim=True),
        lambda h: torch.mean(h, dim=1, keepdim=True) - 3,
        lambda h: 3 * h / 2,
        lambda h: h * CONSTANT[:4] + CONSTANT[:4],
        lambda h: CONSTANT[:4] - h,
        lambda h: h @ CONSTANT.view(4, 3),
        lambda h: torch.matmul(CONSTANT.view(3, 4), h[:, :, None])[..., 0],
        lambda h: F.conv_transpose1d(h[:, None], CONSTANT[:2].view(1, 1, 2), CONSTANT[:1], stride=2).flatten(1),
        lambda h: torch.cat([-h[:, 1:], h.flip(1)], 1).view(-1, 7, 1).squeeze(2),
        lambda h: F.avg_pool2d(h.view(-1, 1, 2, 2), 2, divisor_override=3).flatten(1),
        lambda h: F.adaptive_avg_pool1d(h[:, None], 2).flatten(1),
        lambda h: F.max_pool1d(h[:, None], 2).flatten(1),
        lambda h: torch.stack([h.unbind(1)[2], h[:, :2].sum(1)], 1),
    ],
)
def test_the_recursion_squares_what_is_linear(after: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = After(after).double()
    x, t = torch.randn(3, 2, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)
    squared = lambda o, t: (o - t).square().sum() / (2 * len(o))  # noqa: E731  # second derivatives 1 / N
    found = hessian_diagonal(model, [(x, t)], squared, "lecun")
    expected = torch.zeros(4, 2, dtype=torch.float64)
    for row in x:
        h = model.layer(row[None]).detach()
        J = torch.autograd.functional.jacobian(after, h)[0, :, 0]  # (outputs, 4)
        expected += torch.outer((J**2).sum(0), row**2) / 3
    torch.testing.assert_close(found["layer.weight"], expected, atol=1e-12, rtol=1e-9)


class Skip(nn.Module):
    """o = v · tanh(w x) - w x / 2 + 1, one number after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a = self.w(x)
        return torch.sub(self.v(torch.tanh(a)), a, alpha=0.5) + 1


def test_the_recursion_adds_up_where_paths_meet() -> None:
    model = Skip().double()
    model.w.weight.data.fill_(0.7)
    model.v.weight.data.fill_(-1.3)
    x, t = torch.tensor([[0.9]], dtype=torch.float64), torch.tensor([[0.4]], dtype=torch.float64)
    a, v = 0.7 * 0.9, -1.3
    f, slope = torch.tanh(torch.tensor(a, dtype=torch.float64)).item(), 2 * (model(x).item() - 0.4)
    f1, f2 = 1 - f**2, -2 * f * (1 - f**2)
    found = hessian_diagonal(model, [(x, t)], F.mse_loss, "lecun")
    curve = 2 * v**2 * f1**2 + f2 * slope * v + 2 * 0.25  # the squares of both paths; their product is left out
    assert found["w.weight"].item() == pytest.approx(curve * 0.81)
    assert found["v.weight"].item() == pytest.approx(2 * f**2)


@pytest.mark.parametrize("method", ["lecun", "levenberg-marquardt"])
def test_the_recursion_on_shared_weights_sums_over_their_uses(method: Any) -> None:
    """Eq. 5: h_kk is the sum over the connections that share the weight."""
    torch.manual_seed(0)
    apart = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    apart[2].load_state_dict(apart[0].state_dict())
    shared = copy.deepcopy(apart)
    shared[2] = shared[0]
    data = batches((3,), F.mse_loss)
    two, one = (hessian_diagonal(model, data, F.mse_loss, method) for model in (apart, shared))
    torch.testing.assert_close(one["0.weight"], two["0.weight"] + two["2.weight"], atol=1e-12, rtol=0)
    torch.testing.assert_close(one["0.bias"], two["0.bias"] + two["2.bias"], atol=1e-12, rtol=0)


# --- Hutchinson --------------------------------------------------------------------------------------------------


def test_hutchinsons_estimate_lies_within_its_error() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    data = batches((4,), F.cross_entropy)
    exact = curvature.hessian(model, data, F.cross_entropy, weight_decay=0.1)
    few, many = (hutchinson(model, data, F.cross_entropy, samples, weight_decay=0.1) for samples in (50, 800))
    for estimate in (few, many):
        distance = (flat(estimate.values) - exact.diag()).abs() / flat(estimate.errors)
        assert float((distance < 3).double().mean()) > 0.95
    # In theory the variance of a sample is the sum of the squares off the diagonal.
    spread = (exact - torch.diag(exact.diag())).square().sum(1).div(800).sqrt()
    torch.testing.assert_close(flat(many.errors), spread, rtol=0.2, atol=1e-9)
    ratio = float((flat(few.errors) / flat(many.errors)).mean())
    assert 3 < ratio < 5  # √(800 / 50) = 4
    same = hutchinson(model, data, F.cross_entropy, 50, weight_decay=0.1)
    assert torch.equal(flat(same.values), flat(few.values))
    other = hutchinson(model, data, F.cross_entropy, 50, seed=1)
    assert not torch.equal(flat(other.values), flat(few.values))


def test_hutchinsons_mean_and_standard_error_written_out() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, 3)).double()
    data = batches((4,), F.mse_loss)
    exact = curvature.hessian(model, data, F.mse_loss)
    generator = torch.Generator().manual_seed(7)
    signs = torch.stack([torch.randint(2, (19,), generator=generator) for _ in range(3)]).double() * 2 - 1
    samples = signs * (signs @ exact)
    found = hutchinson(model, data, F.mse_loss, 3, seed=7)
    torch.testing.assert_close(flat(found.values), samples.mean(0), atol=1e-12, rtol=0)
    torch.testing.assert_close(flat(found.errors), samples.std(0) / 3**0.5, atol=1e-8, rtol=0)


def test_hutchinson_is_exact_for_a_diagonal_hessian() -> None:
    model = nn.Linear(3, 1, bias=False).double()
    x = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    found = hutchinson(model, [(x, x[:, :1])], F.mse_loss, 2)
    assert found.values["weight"].tolist() == [pytest.approx([2 / 3, 8 / 3, 6.0])]
    assert not found.errors["weight"].any()


def test_hutchinson_works_where_no_sweep_does() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(4, 2, dim_feedforward=3, batch_first=True).double()
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    found = hessian_diagonal(model, [(x, x)], F.mse_loss, "hutchinson")
    exact = curvature.hessian(model, [(x, x)], F.mse_loss).diag()
    error = flat(hutchinson(model, [(x, x)], F.mse_loss).errors)
    assert float(((flat(found) - exact).abs() < 3 * error + 1e-9).double().mean()) > 0.95


# --- how it is called --------------------------------------------------------------------------------------------


def test_it_plugs_into_the_criterion() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    data = [(x.float(), y) for x, y in batches((4,), F.cross_entropy)]
    diagonal = hessian_diagonal(model, data, F.cross_entropy)
    scores = prunelab.score(model, criteria.OBD(diagonal))
    torch.testing.assert_close(
        scores["0.weight"], (diagonal["0.weight"] * model[0].weight.detach() ** 2 / 2).reshape(-1)
    )
    assert prunelab.prune(model, 0.5, criterion=criteria.OBD(diagonal)).sparsity == pytest.approx(0.5, abs=0.02)


def test_of_some_parameters_only() -> None:
    """The others are constants: nothing is asked of the functions before the first wanted layer."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 4), nn.Softmax(1), nn.Linear(4, 3)
    ).double()
    data = batches((4,), F.cross_entropy)
    found = hessian_diagonal(model, data, F.cross_entropy, parameters=["5.weight", "5.bias"])
    exact = curvature.hessian(model, data, F.cross_entropy, parameters=["5.weight", "5.bias"]).diag()
    torch.testing.assert_close(flat(found), exact, atol=1e-12, rtol=1e-9)
    # Gauss-Newton goes through anything that has a gradient.
    swept = hessian_diagonal(model, data, F.cross_entropy, "gauss-newton", parameters=["0.weight", "3.bias"])
    exact = curvature.gauss_newton(model, data, F.cross_entropy, parameters=["0.weight", "3.bias"]).diagonal()
    torch.testing.assert_close(flat(swept), exact, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("method", ["exact", "lecun", "hutchinson"])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, method: Any, device: torch.device) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(device=device, dtype=dtype)
    data = [(x.to(device=device, dtype=torch.float32), y.to(device)) for x, y in batches((4,), F.cross_entropy)]
    found = hessian_diagonal(model, data, F.cross_entropy, method)
    exact = hessian_diagonal(copy.deepcopy(model).double(), [(x.double(), y) for x, y in data], F.cross_entropy, method)
    assert all(values.dtype == torch.float32 and values.device.type == device.type for values in found.values())
    torch.testing.assert_close(flat(found), flat(exact).float(), atol=1e-5, rtol=1e-4)
    assert model[0].weight.dtype == dtype


@pytest.mark.parametrize("method", ["exact", "gauss-newton", "lecun", "hutchinson"])
def test_the_model_is_left_as_it_was(method: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 5), nn.BatchNorm1d(5), nn.SiLU(inplace=True), nn.Dropout(0.5), nn.Linear(5, 3)
    ).double()
    model[0].weight.requires_grad_(False)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    data = batches((4,), F.cross_entropy)
    found = hessian_diagonal(model, data, F.cross_entropy, method)
    assert "0.weight" in found  # frozen ones too
    assert not any(values.requires_grad for values in found.values())
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True, True, True]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    if method == "exact":
        torch.testing.assert_close(
            flat(found), curvature.hessian(model, data, F.cross_entropy).diag(), atol=1e-11, rtol=1e-9
        )


class Wrapped(nn.Module):
    """A module in the middle of a network."""

    def __init__(self, middle: nn.Module, width: int = 4) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(4, 4), middle, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)))


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Attention(nn.MultiheadAttention):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x[:, None], x[:, None], x[:, None])[0][:, 0]


class Table(nn.Embedding):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x.detach().abs() * 3).long()).sum(1)


@pytest.mark.parametrize("method", ["exact", "lecun"])
@pytest.mark.parametrize(
    ("middle", "message"),
    [
        (nn.Softmax(1), r"softmax \(in 'middle', a Softmax\) mixes"),
        (nn.LayerNorm(4, elementwise_affine=False), r"layer_norm \(in 'middle', a LayerNorm\) mixes"),
        (nn.LayerNorm(4), r"'middle\.weight' is read by layer_norm \(in 'middle', a LayerNorm\)"),
        (nn.Sequential(nn.Identity(), nn.PReLU()), r"'middle\.1\.weight' is read by prelu \(in 'middle\.1', a PReLU\)"),
        (Attention(4, 2), r"'middle\..*' is read by multi_head_attention_forward \(in 'middle', a Attention\)"),
        (
            nn.Sequential(nn.Unflatten(1, (4, 1)), nn.ConvTranspose1d(4, 4, 1), nn.Flatten()),
            r"'middle\.1\.weight' is read by conv_transpose1d",
        ),
        (Scale(), r"'middle\.gamma' is read by mul \(in 'middle', a Scale\)"),
        (Gate(), r"mul \(in 'middle', a Gate\) mixes"),
        (Table(50, 4), r"'middle\.weight' is read by embedding \(in 'middle', a Table\)"),
    ],
    ids=str,
)
def test_a_module_that_it_cannot_handle_is_named_with_the_way_out(method: Any, middle: nn.Module, message: str) -> None:
    model = Wrapped(middle).double()
    with pytest.raises(ValueError, match=message) as error:
        hessian_diagonal(model, batches((4,), F.cross_entropy), F.cross_entropy, method)
    assert "curvature.hutchinson" in str(error.value)
    assert all(p.requires_grad for p in model.parameters())
    assert model.training


def test_batch_statistics_and_uneven_windows_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)).double()
    with pytest.raises(ValueError, match="track_running_stats=True"):
        hessian_diagonal(model, batches((4,), F.cross_entropy), F.cross_entropy)
    for pool in (
        nn.AvgPool2d(2, padding=1, count_include_pad=False),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.AdaptiveAvgPool2d(2),
    ):
        model = nn.Sequential(nn.Conv2d(1, 2, 1), pool, nn.Flatten(), nn.LazyLinear(3)).double()
        data = batches((1, 3, 3), F.cross_entropy)
        model(data[0][0])
        exact = curvature.hessian(model, data, F.cross_entropy).diag()
        torch.testing.assert_close(flat(hessian_diagonal(model, data, F.cross_entropy)), exact, atol=1e-11, rtol=1e-9)
        with pytest.raises(ValueError, match=r"avg_pool2d \(in '1'.*windows of several sizes"):
            hessian_diagonal(model, data, F.cross_entropy, "lecun")


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"method": "fisher"}, ValueError, "method must be one of 'exact', 'gauss-newton', .*, not 'fisher'"),
        ({"data": []}, ValueError, "data is empty"),
        ({"data": iter([])}, TypeError, "used up after one pass"),
        ({"loss": nn.MSELoss}, TypeError, r"write MSELoss\(\)"),
        ({"loss": lambda o, t: o}, ValueError, "loss must return a scalar tensor"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay must be finite"),
        ({"parameters": ["3"]}, ValueError, "unknown parameter '3'"),
        ({"model": nn.Flatten(0)}, ValueError, "no parameter"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    given: dict[str, Any] = {
        "model": nn.Linear(4, 3).double(),
        "data": batches((4,), F.mse_loss),
        "loss": F.mse_loss,
        **change,
    }
    with pytest.raises(kind, match=message):
        hessian_diagonal(**given)


def test_hutchinsons_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="samples must be a whole number, 2 or more"):
        hutchinson(nn.Linear(4, 3).double(), batches((4,), F.mse_loss), F.mse_loss, 1)


# --- factors of the loss's second derivatives --------------------------------------------------------------------


@settings(max_examples=40)
@given(classes=st.integers(1, 6), scale=st.floats(0, 60), seed=st.integers(0, 10**6))
def test_the_cross_entropys_factor_in_closed_form(classes: int, scale: float, seed: int) -> None:
    logits = scale * torch.randn(4, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    p = logits.softmax(1)
    exact = (torch.diag_embed(p) - p[:, :, None] * p[:, None]) / 4
    columns = cross_entropy_columns(logits)
    assert columns.shape == (classes - 1, 4, classes)
    torch.testing.assert_close(torch.einsum("cni,cnj->nij", columns, columns), exact, atol=1e-16, rtol=1e-9)
    assert bool(cross_entropy_columns((1e30 * logits).float()).isfinite().all())


@settings(max_examples=40)
@given(size=st.integers(1, 6), rank=st.integers(0, 6), signs=st.booleans(), seed=st.integers(0, 10**6))
def test_any_symmetric_matrices_as_signed_columns(size: int, rank: int, signs: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(3, size, rank, generator=generator, dtype=torch.float64)
    weights = torch.randn(3, rank, generator=generator, dtype=torch.float64) if signs else torch.ones(3, rank)
    matrices = torch.einsum("nir,nr,njr->nij", X, weights.double(), X)
    columns, found = factor(matrices)
    weighted = columns if found is None else columns * found[..., None]
    scale = float(matrices.abs().max()) + 1e-300 if rank else 1.0
    torch.testing.assert_close(torch.einsum("cni,cnj->nij", weighted, columns), matrices, atol=1e-13 * scale, rtol=0)


@pytest.mark.parametrize("loss", ["cross-entropy", "indefinite"])
def test_columns_squared_one_by_one_give_what_all_at_once_do(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    batches = [(torch.randn(n, 4).double(), torch.randint(3, (n,))) for n in (6, 2)]

    def indefinite(outputs: Tensor, _: Tensor) -> Tensor:
        return (outputs[:, 0] * outputs[:, 1] - outputs[:, 2].square()).mean()

    function = F.cross_entropy if loss == "cross-entropy" else indefinite
    at_once = hessian_diagonal(model, batches, function)
    monkeypatch.setattr("prunelab.curvature.uses.SMALL", 0)
    for name, values in hessian_diagonal(model, batches, function).items():
        torch.testing.assert_close(values, at_once[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("sizes", [(0, 3, 2), (3, 0, 2)])
def test_layers_of_no_width_in_several_batches(sizes: tuple[int, int, int]) -> None:
    first, middle, last = sizes
    with warnings.catch_warnings(action="ignore"):  # of initialising nothing
        model = nn.Sequential(nn.Linear(first, middle), nn.ReLU(), nn.Linear(middle, last))
    batches = [(torch.randn(4, first), torch.randint(2, (4,))) for _ in range(2)]
    found = hessian_diagonal(model, batches, F.cross_entropy)
    assert {name: values.shape for name, values in found.items()} == {n: p.shape for n, p in model.named_parameters()}
