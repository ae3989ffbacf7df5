"""The same answer as other people's code, on random problems: torch.nn.utils.prune, scikit-learn, SciPy and torch.

Where a peer is right, ours is the same to the last bit or to rounding; where it is not, a test says how it differs.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression
from sklearn.linear_model import Lasso, MultiTaskLasso
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import prune as peer
from torch.optim import lr_scheduler

import prunelab
from prunelab import criteria, regularize, schedule
from prunelab.criteria import Magnitude, MutualInformation, Taylor
from prunelab.granularity import Channel, Filter
from prunelab.scope import LayerCollapseWarning

pytestmark = pytest.mark.filterwarnings(f"ignore::{LayerCollapseWarning.__module__}.LayerCollapseWarning")

AMOUNTS = st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1)


def profile(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, derandomize=True)


# --- torch.nn.utils.prune ---------------------------------------------------------------------------------------------


@st.composite
def layers(draw: st.DrawFn) -> nn.Module:
    torch.manual_seed(draw(st.integers(0, 9999)))
    kind = draw(st.sampled_from([nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d]))
    into, out, bias = draw(st.integers(1, 7)), draw(st.integers(1, 7)), draw(st.booleans())
    return kind(into, out, bias=bias) if kind is nn.Linear else kind(into, out, draw(st.integers(1, 3)), bias=bias)


@profile(100)
@given(layer=layers(), amount=AMOUNTS)
def test_l1_unstructured_of_any_layer(layer: nn.Module, amount: float) -> None:
    theirs = peer.l1_unstructured(copy.deepcopy(layer), "weight", amount)
    masks = prunelab.prune(layer, amount, scope="local")
    assert torch.equal(masks["weight"], theirs.weight_mask.bool())
    assert torch.equal(layer.weight, theirs.weight)


@profile(150)
@given(layer=layers(), amount=AMOUNTS, p=st.sampled_from([1, 2, math.inf]), dim=st.integers(0, 1))
def test_ln_structured_along_both_dimensions(layer: nn.Module, amount: float, p: float, dim: int) -> None:
    """Of a transposed convolution dimension 0 are the inputs; theirs does not know, so we ask for what it does."""
    theirs = peer.ln_structured(copy.deepcopy(layer), "weight", amount, n=p, dim=dim)
    transposed = isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d)
    granularity = Filter() if (dim == 0) != transposed else Channel()
    masks = prunelab.prune(layer, amount, criterion=Magnitude(p), granularity=granularity, scope="local")
    assert torch.equal(masks["weight"], theirs.weight_mask.bool())


@profile(60)
@given(several=st.lists(layers(), min_size=1, max_size=4), seed=st.integers(0, 9999), amount=AMOUNTS)
def test_global_unstructured_over_any_layers(several: list[nn.Module], seed: int, amount: float) -> None:
    torch.manual_seed(seed)
    for layer in several:
        nn.init.normal_(layer.weight)  # no two alike: of equals the peer takes any
    model = nn.Sequential(*several)
    theirs = copy.deepcopy(model)
    peer.global_unstructured([(layer, "weight") for layer in theirs], peer.L1Unstructured, amount=amount)
    masks = prunelab.prune(model, amount)
    for index, layer in enumerate(theirs):
        assert torch.equal(masks[f"{index}.weight"], layer.weight_mask.bool())


@profile(40)
@given(layer=layers(), amount=st.floats(0, 1), seed=st.integers(0, 9))
def test_scores_of_ones_own_are_importance_scores(layer: nn.Module, amount: float, seed: int) -> None:
    scores = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(seed))

    class Given(criteria.Criterion):
        def observe(self, subject: Any) -> dict[str, Any]:
            return {"weight": criteria.watching.PerWeight(scores)}

        def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
            return statistics[:, 0]

    theirs = peer.l1_unstructured(copy.deepcopy(layer), "weight", amount, importance_scores=scores)
    assert torch.equal(prunelab.prune(layer, amount, criterion=Given())["weight"], theirs.weight_mask.bool())


def test_where_the_peer_is_not_right() -> None:
    # The bias of a removed filter stays, so that the channel puts out a constant.
    torch.manual_seed(0)
    theirs = peer.ln_structured(nn.Conv2d(2, 4, 3), "weight", 0.5, n=2, dim=0)
    assert "bias_mask" not in dict(theirs.named_buffers())
    assert "bias" in prunelab.prune(nn.Conv2d(2, 4, 3), 0.5, granularity=Filter())

    # In a grouped convolution the second dimension is no input channel: one index means one channel in each group.
    grouped = nn.Conv2d(4, 4, 1, groups=2)
    theirs = peer.ln_structured(copy.deepcopy(grouped), "weight", 0.5, n=1, dim=1)
    read = torch.eye(4).view(4, 4, 1, 1)  # each example lights one input channel
    silent = ~(theirs(read) - theirs.bias[:, None, None]).flatten(1).any(1)
    assert silent.tolist() in ([True, False] * 2, [False, True] * 2)  # coupled across the groups, whatever their norms
    norms = prunelab.score(grouped, granularity=Channel())["weight"]
    masks = prunelab.prune(grouped, 0.5, granularity=Channel())
    silent = ~(grouped(read) - grouped.bias[:, None, None]).flatten(1).any(1)
    assert sorted(norms[silent].tolist()) == norms.sort().values[:2].tolist()
    assert masks.removed == 4

    # Asked for the same share again, it takes that share of what is left.
    twice = nn.Linear(8, 1)
    for _ in range(2):
        peer.l1_unstructured(twice, "weight", 0.5)
    assert int((twice.weight_mask == 0).sum()) == 6
    once = prunelab.prune(nn.Linear(8, 1, bias=False), 0.5)
    assert once.removed == 4


# --- mutual information: scikit-learn, and Gaussians in closed form ---------------------------------------------------


def observed(classes: bool) -> tuple[nn.Sequential, list[tuple[Tensor, Tensor]], Tensor, Tensor]:
    """A network, data in uneven batches, and what its convolution carries: after the rectifier, and what it reads."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)).double()
    x = torch.randn(300, 3, 5, 5, dtype=torch.float64) + torch.randn(300, 3, 1, 1, dtype=torch.float64)
    y = x[:, 0].mean((1, 2)) + 0.3 * torch.randn(300, dtype=torch.float64)
    target = (y > 0).long() + (y > 0.8).long() if classes else y
    carried = F.elu(F.conv2d(x, model[0].weight, model[0].bias)).mean((2, 3)).detach()
    return model, list(zip(x.split([128, 128, 44]), target.split([128, 128, 44]), strict=True)), carried, x.mean((2, 3))


@pytest.mark.parametrize("classes", [True, False])
def test_information_of_a_networks_channels_is_scikit_learns(classes: bool) -> None:
    model, data, carried, read = observed(classes)
    target = torch.cat([y for _, y in data]).numpy()
    theirs = mutual_info_classif if classes else mutual_info_regression
    for granularity, values in ((Filter(), carried), (Channel(), read)):
        found = prunelab.score(model, MutualInformation("ksg"), granularity, data=data, parameters=["0.weight"])
        expected = theirs(values.numpy(), target, random_state=0)
        np.testing.assert_allclose(found["0.weight"].numpy(), expected, rtol=0, atol=1e-9)
        counted = prunelab.score(model, MutualInformation(), granularity, data=data, parameters=["0.weight"])
        assert np.abs(counted["0.weight"].numpy() - expected).mean() < 0.1


@pytest.mark.parametrize(("estimator", "error"), [("histogram", 0.03), ("quantile", 0.035), ("ksg", 0.05)])
def test_information_of_gaussian_filters_in_closed_form(estimator: str, error: float) -> None:
    """Neuron (a, b) puts out a x + b z, and the target is x: a correlation of a / √(a² + b²), and -ln(1 - ρ²) / 2."""
    generator = torch.Generator().manual_seed(0)
    samples = 700 if estimator == "ksg" else 4000
    x, z = torch.randn(2, samples, generator=generator, dtype=torch.float64)
    model = nn.Linear(2, 5).double()
    model.weight.data = torch.tensor([[0.0, 1.0], [3.0, 4.0], [4.0, -3.0], [-12.0, 5.0], [1.0, 1.0]]).double()
    exact = [0.0, -math.log(1 - 0.36) / 2, -math.log(1 - 0.64) / 2, math.log(169 / 25) / 2, math.log(2) / 2]
    found = prunelab.score(model, MutualInformation(estimator), Filter(), data=[(torch.stack([x, z], 1), x)])["weight"]
    assert (found - torch.tensor(exact)).abs().mean() < error
    assert found.argsort().tolist() == [0, 1, 4, 2, 3]


# --- derivatives ------------------------------------------------------------------------------------------------------


def smooth() -> tuple[nn.Sequential, Tensor, Tensor]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(9, 3)).double()
    return model, torch.randn(5, 2, 4, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])


def test_gradients_by_finite_differences() -> None:
    """SciPy's, of the loss as a function of one vector of all weights."""
    model, x, y = smooth()
    names = ["0.weight", "3.weight"]
    start = torch.cat([model.get_parameter(name).detach().flatten() for name in names]).numpy()

    def value(vector: np.ndarray) -> float:
        parts = torch.from_numpy(vector).split([model.get_parameter(name).numel() for name in names])
        moved = {n: part.view_as(model.get_parameter(n)) for n, part in zip(names, parts, strict=True)}
        return F.cross_entropy(functional_call(model, moved, (x,)), y).item()

    slopes = approx_fprime(start, value, 1e-7)
    how = {"data": [(x[:4], y[:4]), (x[4:], y[4:])], "loss": F.cross_entropy}
    for criterion, expected in (
        (criteria.GradientMagnitude(), np.abs(slopes)),
        (Taylor(), np.abs(start * slopes)),
        (criteria.SNIP(), np.abs(start * slopes) / np.abs(start * slopes).sum()),
    ):
        found = prunelab.score(model, criterion, **how)
        np.testing.assert_allclose(torch.cat(list(found.values())).numpy(), expected, rtol=1e-4, atol=1e-7)


def test_gates_by_finite_differences() -> None:
    """Each example's own loss as a channel is closed by a little, the mean of the absolute slopes."""
    model, x, y = smooth()
    found = prunelab.score(
        model, Taylor(of="activations"), Filter(), data=[(x, y)], loss=F.cross_entropy, parameters=["0.weight"]
    )["0.weight"]
    for channel in range(3):

        def losses(by: float, channel: int = channel) -> Tensor:
            carried = model[1](model[0](x))
            gate = torch.ones(3, 1, dtype=torch.float64)
            gate[channel] += by
            return F.cross_entropy(model[3](model[2](carried * gate)), y, reduction="none").detach()

        slopes = (losses(1e-6) - losses(-1e-6)) / 2e-6
        assert found[channel].item() == pytest.approx(slopes.abs().mean().item(), rel=1e-6)


def test_second_order_from_torchs_hessian_of_a_network() -> None:
    """The diagonal of torch.autograd.functional.hessian, of a network that is not quadratic."""
    model, x, y = smooth()
    names, curvature, change = ["0.weight", "3.weight"], {}, {}
    for name in names:
        weight = model.get_parameter(name).detach()

        def value(moved: Tensor, name: str = name) -> Tensor:
            return F.cross_entropy(functional_call(model, {name: moved}, (x,)), y)

        full = torch.autograd.functional.hessian(value, weight).reshape(weight.numel(), weight.numel())
        slope = torch.autograd.functional.jacobian(value, weight)
        curvature[name] = full.diag().view_as(weight)
        change[name] = (-slope * weight + full.diag().view_as(weight) * weight**2 / 2).flatten(1).sum(1).abs()
    found = prunelab.score(model, Taylor(order=2, curvature=curvature), Filter(), data=[(x, y)], loss=F.cross_entropy)
    for name in names:
        torch.testing.assert_close(found[name], change[name], rtol=1e-9, atol=1e-12)


# --- regularisation: scikit-learn's solvers ---------------------------------------------------------------------------


def regression() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(80, 8, dtype=torch.float64)
    truth = torch.zeros(8, 3, dtype=torch.float64)
    truth[:3] = torch.randn(3, 3, dtype=torch.float64)
    return x, x @ truth + 0.5 * torch.randn(80, 3, dtype=torch.float64)


def descend(model: nn.Linear, x: Tensor, y: Tensor, regulariser: Any) -> None:
    """Proximal gradient descent on mean squares / 2, as scikit-learn weighs them."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(400):
        optimizer.zero_grad()
        ((model(x) - y).square().sum() / (2 * len(x))).backward()
        optimizer.step()
        regulariser.proximal_(model, lr=0.3)


def test_the_soft_threshold_finds_scikit_learns_lasso() -> None:
    x, y = regression()
    model = nn.Linear(8, 3, bias=False).double()
    descend(model, x, y, regularize.L1(0.2))
    theirs = Lasso(alpha=0.2, fit_intercept=False, tol=1e-12, max_iter=10000).fit(x.numpy(), y.numpy()).coef_
    np.testing.assert_allclose(model.weight.detach().numpy(), theirs, atol=1e-8)
    assert np.array_equal(model.weight.detach().numpy() == 0, theirs == 0)
    assert 0 < (theirs == 0).sum() < theirs.size


def test_the_block_threshold_finds_scikit_learns_multi_task_lasso() -> None:
    """Its groups are the features, over all tasks: input channels, of √3 = √size each."""
    x, y = regression()
    model = nn.Linear(8, 3, bias=False).double()
    descend(model, x, y, regularize.GroupLasso(0.3 / math.sqrt(3), Channel()))
    theirs = MultiTaskLasso(alpha=0.3, fit_intercept=False, tol=1e-12, max_iter=10000).fit(x.numpy(), y.numpy()).coef_
    np.testing.assert_allclose(model.weight.detach().numpy(), theirs, atol=1e-8)
    gone = (theirs == 0).all(0)
    assert 0 < gone.sum() < 8
    assert np.array_equal((model.weight.detach().numpy() == 0).all(0), gone)


# --- schedules: what is left, as a learning rate ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "make"),
    [
        (schedule.AGP(1.0, start=0, end=20), lambda o: lr_scheduler.PolynomialLR(o, total_iters=20, power=3)),
        (schedule.Linear(1.0, start=0, end=20), lambda o: lr_scheduler.PolynomialLR(o, total_iters=20, power=1)),
        (schedule.Cosine(1.0, start=0, end=20), lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=20)),
        (schedule.Exponential(0.9, start=0, end=20), lambda o: lr_scheduler.ExponentialLR(o, gamma=0.1 ** (1 / 20))),
        (
            schedule.Iterative(0.875, rounds=3, start=5, every=5, law="geometric"),
            lambda o: lr_scheduler.StepLR(o, 5, 0.5),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_left_falls_as_torchs_learning_rates_do(plan: schedule.Schedule, make: Any) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    for step in range(min(21, plan.end + 1)):
        assert 1 - plan(step) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        scheduler.step()
