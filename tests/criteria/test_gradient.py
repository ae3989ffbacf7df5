"""Gradient magnitude against autograd, and what all criteria that read gradients have in common."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import prunelab
from prunelab.criteria import SNIP, Criterion, Evidence, GradientMagnitude, GraSP, Taylor
from prunelab.granularity import Channel, Filter, Granularity, Group, Head, Kernel, Layer, Weight

BOTH = [
    GradientMagnitude(),
    GradientMagnitude(p=2),
    Taylor(),
    Taylor(joint=False, squared=True),
    Taylor(of="activations"),
    SNIP(),
    GraSP(),
]
OF_WEIGHTS = [criterion for criterion in BOTH if criterion != Taylor(of="activations")]
GRANULARITIES = [Weight(), Group(2, 4), Kernel(), Filter(), Channel(), Layer()]


def name(value: Any) -> str:
    return str(value)


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Softplus(),
        nn.ConvTranspose2d(4, 6, 2, groups=2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(54, 3),
    ).to(dtype)


def examples(count: int = 7, dtype: torch.dtype = torch.float64, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, 6, 6, generator=generator, dtype=torch.float64).to(dtype), torch.arange(count) % 3


def test_norms_by_hand(device: torch.device) -> None:
    gradients = torch.tensor([[3.0, -4.0], [1.0, 1.0]], device=device)
    for p, expected in ((1, [7.0, 2.0]), (2, [5.0, math.sqrt(2)]), (math.inf, [4.0, 1.0])):
        scores = GradientMagnitude(p).score(torch.full_like(gradients, 9.0), gradients, None)
        torch.testing.assert_close(scores, torch.tensor(expected, device=device))


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=name)
def test_the_gradient_of_the_mean_loss_at_every_granularity(granularity: Granularity, device: torch.device) -> None:
    model, (x, y) = network().to(device), examples()
    scores = prunelab.score(model, GradientMagnitude(), granularity, data=[(x, y)], loss=F.cross_entropy)
    F.cross_entropy(model.eval()(x.to(device)), y.to(device)).backward()
    expected = {key: p.grad.abs() for key, p in model.named_parameters() if p.dim() > 1}
    assert list(scores) == list(expected)
    for key, found in scores.items():
        assert found.sum().item() == pytest.approx(expected[key].sum().item(), rel=1e-12)
    if isinstance(granularity, Filter):
        torch.testing.assert_close(scores["3.weight"], expected["3.weight"].sum((1, 2, 3)))
        out = expected["5.weight"].sum((2, 3))  # (I, O/groups): the first two inputs make the first three outputs
        torch.testing.assert_close(scores["5.weight"], torch.cat([out[:2].sum(0), out[2:].sum(0)]))
    if isinstance(granularity, Channel):
        torch.testing.assert_close(scores["5.weight"], expected["5.weight"].sum((1, 2, 3)))


def test_regression_what_is_sold_as_gradient_magnitude_depends_on_the_weights() -> None:
    weights, gradients = torch.tensor([[1.0, -2.0], [3.0, 0.5]]), torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    of_gradients, of_products = GradientMagnitude(), Taylor(joint=False)
    assert of_gradients.score(weights, gradients, None).tolist() == [3.0, 2.0]
    assert of_gradients.score(10 * weights, gradients, None).tolist() == [3.0, 2.0]
    assert of_products.score(weights, gradients, None).tolist() == [4.0, 3.5]
    assert of_products.score(10 * weights, gradients, None).tolist() == [40.0, 35.0]


@pytest.mark.parametrize("p", [0, -1, "2", True, math.nan])
def test_what_is_no_order_of_a_norm_is_refused(p: Any) -> None:
    with pytest.raises(ValueError, match="the order of the norm is a number above 0"):
        GradientMagnitude(p=p)


# --- all criteria that read gradients -------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
@pytest.mark.parametrize("criterion", BOTH, ids=name)
def test_scores_do_not_depend_on_how_the_data_are_cut(criterion: Criterion, sizes: list[int]) -> None:
    model, (x, y) = network(), examples(sum(sizes))
    whole = prunelab.score(model, criterion, Filter(), data=[(x, y)], loss=F.cross_entropy)
    data = list(zip(x.split(sizes), y.split(sizes), strict=True))
    parts = prunelab.score(model, criterion, Filter(), data=data, loss=F.cross_entropy)
    for key, scores in whole.items():
        torch.testing.assert_close(parts[key], scores, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("criterion", BOTH, ids=name)
def test_the_model_is_left_as_it_was(criterion: Criterion) -> None:
    model, data = network().train(), [examples()]
    model[0].weight.requires_grad_(False)
    model[8].weight.grad = torch.ones_like(model[8].weight)
    before, state = copy.deepcopy(model), torch.get_rng_state()

    def broken(outputs: Tensor, targets: Tensor) -> Tensor:
        raise RuntimeError("a loss that raises")

    scores = prunelab.score(model, criterion, Filter(), data=data, loss=F.cross_entropy)
    with pytest.raises(RuntimeError, match="a loss that raises"):
        prunelab.score(model, criterion, Filter(), data=data, loss=broken)
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in before.parameters()]
    assert torch.equal(model[8].weight.grad, torch.ones_like(model[8].weight))
    assert all(p.grad is None for key, p in model.named_parameters() if key != "8.weight")
    assert all(torch.equal(before.state_dict()[key], value) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    # Frozen or not, in inference mode or not: the same scores.
    with torch.inference_mode():
        again = prunelab.score(before.requires_grad_(True), criterion, Filter(), data=data, loss=F.cross_entropy)
    assert all(torch.equal(again[key], values) and not values.requires_grad for key, values in scores.items())


@pytest.mark.parametrize("criterion", BOTH, ids=name)
def test_refused_without_data_or_loss_and_other_data_give_other_scores(criterion: Criterion) -> None:
    model, data = network(), [examples()]
    for missing in ({"data": data}, {"loss": F.cross_entropy}, {}):
        with pytest.raises(ValueError, match=f"{type(criterion).__name__} needs .*(data=|loss=)"):
            prunelab.prune(model, 0.5, criterion=criterion, granularity=Filter(), **missing)
    with pytest.raises(ValueError, match="data is empty"):
        prunelab.prune(model, 0.5, criterion=criterion, granularity=Filter(), data=[], loss=F.cross_entropy)
    with pytest.raises(TypeError, match="loss"):
        prunelab.score(model, criterion, Filter(), data=data, loss="mse")
    assert all(bool(p.all()) for p in model.parameters() if p.dim() > 1)  # nothing was removed
    one = prunelab.score(model, criterion, Filter(), data=data, loss=F.cross_entropy)
    other = prunelab.score(model, criterion, Filter(), data=[examples(seed=2)], loss=F.cross_entropy)
    assert all(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("criterion", [GradientMagnitude(), Taylor(), Taylor(squared=True), SNIP()], ids=name)
def test_regression_missing_gradients_silently_become_the_squared_weight(criterion: Criterion) -> None:
    with pytest.raises(ValueError, match=r"scores with gradients, and none were given; prune\(\.\.\., data=, loss=\)"):
        criterion.score(torch.ones(3, 2), None, None)


@pytest.mark.parametrize("criterion", OF_WEIGHTS, ids=name)
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=name)
def test_one_finite_score_a_unit_and_exactly_so_many_go(criterion: Criterion, granularity: Granularity) -> None:
    model = network()
    how: dict[str, Any] = {"data": [examples()], "loss": F.cross_entropy}
    scores = prunelab.score(model, criterion, granularity, **how)
    for key, values in scores.items():
        layout = prunelab.granularity.Layout(
            groups=model[int(key[0])].groups if key[0] in "35" else 1, transposed=key[0] == "5"
        )
        assert values.shape == granularity.units(model.get_parameter(key).shape, layout)[:1]
        assert values.isfinite().all()
    for sparsity in (0.0, 0.5, 1.0):
        masks = prunelab.prune(
            copy.deepcopy(model), sparsity, criterion=criterion, granularity=Weight(), scope="local", **how
        )
        assert masks.removed == sum(round(sparsity * mask.numel()) for mask in masks.values())


@pytest.mark.parametrize("criterion", OF_WEIGHTS, ids=name)
def test_heads_are_scored_over_all_their_projections(criterion: Criterion) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True).double()
    nn.init.normal_(layer.self_attn.in_proj_bias)
    x, how = torch.randn(5, 3, 8, dtype=torch.float64), {"loss": lambda outputs, _: outputs.tanh().square().mean()}
    data = [(x[:2], torch.zeros(2)), (x[2:], torch.zeros(3))]
    (scores,) = prunelab.score(layer, criterion, Head(2), data=data, **how).values()
    weights = {"packed": layer.self_attn.in_proj_weight, "out": layer.self_attn.out_proj.weight}
    both = list(weights.values())
    with sdpa_kernel(SDPBackend.MATH):
        slopes = torch.autograd.grad(how["loss"](layer.eval()(x), None), both, create_graph=True)
        flow = sum(slope.square().sum() for slope in slopes) / 2  # its gradient is Hg
        products = dict(zip(weights, torch.autograd.grad(flow, both), strict=True))
    gradients = dict(zip(weights, slopes, strict=True))

    def head(values: dict[str, Tensor], which: int) -> Tensor:
        rows = values["packed"].detach().reshape(3, 2, 4, 8)[:, which]
        return torch.cat([rows.flatten(), values["out"].detach()[:, 4 * which : 4 * which + 4].flatten()])[None]

    evidence = {
        str(which): Evidence(head(weights, which), head(gradients, which), head(products, which)) for which in range(2)
    }
    if isinstance(criterion, Taylor):
        evidence = {which: Evidence(one.weights, one.gradients) for which, one in evidence.items()}
    expected = torch.cat(list(criterion.scores(evidence).values()))
    torch.testing.assert_close(scores, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("criterion", BOTH, ids=name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_half_precision_is_accumulated_in_float32(criterion: Criterion, dtype: torch.dtype) -> None:
    model = network(dtype)
    x, y = examples(24, dtype)
    data = [(one, target) for one, target in zip(x.split(2), y.split(2), strict=True)]
    exact = prunelab.score(
        copy.deepcopy(model).double(), criterion, Filter(), data=[(x.double(), y)], loss=F.cross_entropy
    )
    scores = prunelab.score(
        model, criterion, Filter(), data=data, loss=lambda outputs, targets: F.cross_entropy(outputs.float(), targets)
    )
    for key, values in scores.items():
        assert values.dtype in (torch.float32, torch.float64)
        scale = exact[key].abs().max()
        within = {torch.float32: 1e-5, torch.float16: 0.02, torch.bfloat16: 0.15}[dtype]
        assert (values.double() - exact[key]).abs().max() <= within * scale


class Tied(nn.Module):
    """Two layers that share one weight, and one that the loss does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.idle = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        self.idle(x)
        return self.b(self.a(x).tanh()).tanh()


@pytest.mark.parametrize("criterion", BOTH, ids=name)
def test_shared_weights_count_once_and_what_the_loss_does_not_depend_on_scores_zero(criterion: Criterion) -> None:
    model = Tied().double()
    x = torch.randn(4, 3, dtype=torch.float64)
    scores = prunelab.score(
        model, criterion, Filter(), data=[(x, torch.zeros(4))], loss=lambda outputs, _: outputs.square().mean()
    )
    assert list(scores) == ["a.weight", "idle.weight"]
    assert scores["idle.weight"].tolist() == [0.0, 0.0]
    assert scores["a.weight"].all()
    if criterion == GradientMagnitude():
        (gradient,) = torch.autograd.grad(model(x).square().mean(), [model.a.weight])  # through both layers
        torch.testing.assert_close(scores["a.weight"], gradient.abs().sum(1))
