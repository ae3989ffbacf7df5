"""prune and score: exact counts, agreement with torch.nn.utils.prune, and errors that leave the model alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune as peer

import prunelab
from prunelab import Masks
from prunelab.criteria import Criterion, Magnitude, Random
from prunelab.granularity import Channel, Filter, Granularity, Group, Kernel, Layer, Weight


def net(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Sequential:
    """Two convolutions and a Linear layer whose filters, kernels and layers all differ in size."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 5)
    ).to(device, dtype)


WEIGHTS = ["0.weight", "3.weight", "5.weight"]
GRANULARITIES = [Weight(), Group(1, 4), Group(2, 5), Kernel(), Filter(), Channel(), Layer()]
SPARSITIES = [0.0, 0.001, 0.1, 1 / 3, 0.5, 0.75, 0.999, 1.0]


# --- agreement with the peer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("seed", range(3))
def test_global_magnitude_is_the_peers(sparsity: float, seed: int, device: torch.device) -> None:
    ours, theirs = net(device, seed=seed), net(device, seed=seed)
    masks = prunelab.prune(ours, sparsity)
    pairs = [(theirs[index], "weight") for index in (0, 3, 5)]
    peer.global_unstructured(pairs, peer.L1Unstructured, amount=sparsity)
    for name, (module, _) in zip(WEIGHTS, pairs, strict=True):
        assert torch.equal(masks[name], module.weight_mask.bool())
        assert torch.equal(ours.get_parameter(name), module.weight)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_local_magnitude_is_the_peers(sparsity: float, device: torch.device) -> None:
    model, theirs = net(device), net(device)
    masks = prunelab.prune(model, sparsity, scope="local")
    for index in (0, 3, 5):
        peer.l1_unstructured(theirs[index], "weight", amount=sparsity)
        assert torch.equal(masks[f"{index}.weight"], theirs[index].weight_mask.bool())


@pytest.mark.parametrize("p", [1, 2, math.inf])
@pytest.mark.parametrize(("granularity", "dim"), [(Filter(), 0), (Channel(), 1)])
def test_filter_and_channel_norms_are_the_peers(p: float, granularity: Granularity, dim: int) -> None:
    for index in (0, 5):  # the peer knows no groups
        model, theirs = net(), net()
        name = f"{index}.weight"
        masks = prunelab.prune(
            model, 0.4, criterion=Magnitude(p), granularity=granularity, scope="local", parameters=[name]
        )
        peer.ln_structured(theirs[index], "weight", amount=0.4, n=p, dim=dim)
        assert torch.equal(masks[name], theirs[index].weight_mask.bool())


# --- how many go ----------------------------------------------------------------------------------------------------


def removed_units(masks: Masks, granularity: Granularity, model: nn.Module) -> dict[str, int]:
    from prunelab.targets import find_targets

    counts = {}
    for target in find_targets(model):
        kept = granularity.view(masks[target.name].int(), target.layout)
        assert ((kept == 0).all(1) | kept.any(1)).all()
        counts[target.name] = int((kept == 0).all(1).sum())
    return counts


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=repr)
def test_local_removes_exactly_the_rounded_share_of_equal_units(granularity: Granularity, sparsity: float) -> None:
    model = net()
    removed = removed_units(prunelab.prune(model, sparsity, granularity=granularity, scope="local"), granularity, model)
    for index in (0, 3, 5):
        module = model[index]
        layout = prunelab.granularity.Layout(groups=getattr(module, "groups", 1))
        if isinstance(granularity.sizes(module.weight.shape, layout), int):
            units = granularity.units(module.weight.shape, layout)[0]
            assert removed[f"{index}.weight"] == round(sparsity * units)


@settings(max_examples=60, deadline=None)
@given(sparsity=st.floats(0, 1), granularity=st.sampled_from(GRANULARITIES), seed=st.integers(0, 5))
def test_global_is_the_walk_over_all_units(sparsity: float, granularity: Granularity, seed: int) -> None:
    """The rule of the design, written as plainly as possible: sort, walk, take what still fits."""
    from prunelab.targets import find_targets

    model = net(seed=seed)
    units = []
    for order, target in enumerate(find_targets(model)):
        matrix = granularity.view(target.weight.detach(), target.layout)
        sizes = torch.as_tensor(granularity.sizes(target.weight.shape, target.layout)).expand(matrix.shape[0])
        for unit, row in enumerate(matrix):
            biases = model.get_submodule(target.name.rpartition(".")[0]).bias.numel()
            bias = {Filter(): 1, Layer(): biases}.get(granularity, 0)
            units.append((float(row.abs().sum()), order, unit, int(sizes[unit]) + bias, target.name))
    budget, spent, expected = round(sparsity * sum(size for *_, size, _ in units)), 0, set()
    for _, _, unit, size, name in sorted(units, key=lambda u: u[:3]):
        if spent + size <= budget:
            spent += size
            expected.add((name, unit))
    masks = prunelab.prune(model, sparsity, granularity=granularity)
    assert sum(removed_units(masks, granularity, model).values()) == len(expected)
    got = {
        (target.name, unit)
        for target in find_targets(model)
        for unit, row in enumerate(granularity.view(masks[target.name].int(), target.layout))
        if not row.any()
    }
    assert got == expected
    assert masks.removed == spent


def test_ties_go_in_order_of_position() -> None:
    model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 2, bias=False))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    masks = prunelab.prune(model, 5 / 12)
    assert torch.cat([mask.flatten() for mask in masks.values()]).tolist() == [False] * 5 + [True] * 7
    masks = prunelab.prune(model, 0.5, granularity=Filter(), scope="local", parameters=["0.weight"])
    assert masks["0.weight"].tolist() == [[False] * 4, [True] * 4]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("granularity", [Weight(), Filter(), Kernel()], ids=repr)
def test_other_float_types(dtype: torch.dtype, granularity: Granularity, device: torch.device) -> None:
    model = net(device, dtype)
    wide = copy.deepcopy(model).double()
    masks = prunelab.prune(model, 0.5, granularity=granularity)
    reference = prunelab.prune(wide, 0.5, granularity=granularity)
    if granularity == Weight():  # no arithmetic, so no rounding
        assert masks == reference
    assert masks.removed == reference.removed
    assert all(parameter.dtype == dtype for parameter in model.parameters())


def test_float_types_may_be_mixed() -> None:
    model = net()
    model[0].half()
    model[3].double()
    assert prunelab.prune(model, 0.5, apply=False) == prunelab.prune(copy.deepcopy(model).double(), 0.5)


# --- what is covered ------------------------------------------------------------------------------------------------


def test_a_removed_filter_outputs_zero() -> None:
    model = net().eval()
    masks = prunelab.prune(model, 0.5, granularity=Filter(), scope="local")
    assert set(masks) == {"0.weight", "0.bias", "3.weight", "3.bias", "5.weight", "5.bias"}
    output = model[0](torch.randn(1, 2, 8, 8))
    dead = ~masks["0.bias"]
    assert int(dead.sum()) == 3
    assert not output[:, dead].any()
    assert output[:, ~dead].all()


def test_a_filter_is_as_large_as_its_weights_and_its_bias() -> None:
    model = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 4))
    with torch.no_grad():
        model[0].weight.fill_(0.01)
        model[1].weight.copy_(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    # One filter of 4 parameters and four of 2: of a budget of round(12 / 4) = 3 only one of the small ones fits.
    masks = prunelab.prune(model, 0.25, granularity=Filter())
    assert masks["0.bias"].tolist() == [True]
    assert masks["1.bias"].tolist() == [False, True, True, True]


def test_layers_without_bias_and_other_modules() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 3, bias=False), nn.BatchNorm1d(3), nn.Embedding(4, 3), nn.LSTM(3, 3))
    assert list(prunelab.prune(model, 0.5, granularity=Filter())) == ["0.weight"]
    named = prunelab.prune(model, 0.5, granularity=Filter(), parameters=["2.weight"], scope="local")
    assert removed_rows(named["2.weight"]) == 2
    assert list(prunelab.prune(model, 0.5, parameters=["1.weight", "3.bias_hh_l0"])) == ["1.weight", "3.bias_hh_l0"]


def removed_rows(mask: Tensor) -> int:
    return int((~mask).all(1).sum())


def test_shared_and_frozen_weights_count_once_and_may_be_pruned() -> None:
    encoder, decoder = nn.Linear(4, 4), nn.Linear(4, 4)
    decoder.weight = encoder.weight
    encoder.weight.requires_grad_(False)
    model = nn.Sequential(encoder, decoder)
    masks = prunelab.prune(model, 0.5)
    assert list(masks) == ["0.weight"]
    assert int((decoder.weight == 0).sum()) == 8
    filters = prunelab.prune(model, 0.5, granularity=Filter())
    assert set(filters) == {"0.weight", "0.bias", "1.bias"}  # both layers lose the same outputs
    assert torch.equal(filters["0.bias"], filters["1.bias"])
    assert list(prunelab.prune(model, 0.5, parameters=["1.weight"])) == ["0.weight"]


def test_wrapped_models_keep_their_names() -> None:
    expected = prunelab.prune(net(), 0.5)
    assert prunelab.prune(nn.DataParallel(net()), 0.5) == expected
    assert prunelab.prune(torch.compile(net()), 0.5) == expected


def test_transposed_convolutions_share_the_meaning_not_the_layout() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2))
    masks = prunelab.prune(model, 0.5, granularity=Filter())
    output = model(torch.randn(1, 4, 5, 5))
    assert (output.abs().amax((0, 2, 3)) > 0).tolist() == masks["0.bias"].tolist()
    assert int(masks["0.bias"].sum()) == 3


# --- within, apply --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("apply", [True, False])
@pytest.mark.parametrize("granularity", [Weight(), Kernel(), Filter()], ids=repr)
@pytest.mark.parametrize("scope", ["global", "local"])
def test_masks_nest(granularity: Granularity, scope: str, apply: bool) -> None:
    model = net()
    first = prunelab.prune(model, 0.3, granularity=granularity, scope=scope, apply=apply)
    kept = copy.deepcopy(model)
    second = prunelab.prune(model, 0.6, granularity=granularity, scope=scope, within=first, apply=apply)
    assert second & first == second
    # The lowest 30 %, then the lowest of the rest up to 60 %: that is the lowest 60 %, where units are alike.
    if scope == "local" or granularity == Weight():
        assert second == prunelab.prune(net(), 0.6, granularity=granularity, scope=scope)
    assert prunelab.prune(kept, 0.3, granularity=granularity, scope=scope, within=first) == first


def test_within_may_have_another_granularity() -> None:
    model = net()
    filters = prunelab.prune(model, 0.25, granularity=Filter(), scope="local")
    weights = prunelab.prune(model, 0.8, within=filters)
    assert set(weights) == set(filters)
    assert sum(int((~weights[name]).sum()) for name in WEIGHTS) == round(0.8 * sum(weights[n].numel() for n in WEIGHTS))
    assert weights & filters == weights


def test_within_cannot_give_back() -> None:
    model = net()
    half = prunelab.prune(model, 0.5)
    with pytest.raises(ValueError, match=r"sparsity 0.4 means .* but within= has already removed"):
        prunelab.prune(model, 0.4, within=half)


def test_without_apply_the_model_stays_as_it_is() -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    prunelab.prune(model, 0.5, apply=False)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


# --- criteria of one's own ------------------------------------------------------------------------------------------


class Saliency(Criterion):
    needs = frozenset({"weights", "gradients"})

    def score(self, weights, gradients, statistics):
        return (weights * gradients).sum(1).abs()


def mean_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean()


def examples(device: torch.device, count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 2, 8, 8, generator=generator).to(device), torch.randn(count, 5, generator=generator).to(
        device
    )


@pytest.mark.parametrize("sizes", [[12], [5, 5, 2], [1] * 12])
def test_gradients_are_those_of_the_mean_loss_whatever_the_batches(sizes: list[int], device: torch.device) -> None:
    model = net(device).train()
    model[3].weight.requires_grad_(False)
    x, y = examples(device)
    data = list(zip(x.cpu().split(sizes), y.cpu().split(sizes), strict=True))
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = copy.deepcopy(model)
    state = torch.get_rng_state()
    scores = prunelab.score(model, Saliency(), Filter(), data=data, loss=mean_square)

    reference = copy.deepcopy(before).eval().requires_grad_(True)
    reference.zero_grad()
    mean_square(reference(x), y).backward()
    for name in WEIGHTS:
        p = reference.get_parameter(name)
        torch.testing.assert_close(scores[name], (p * p.grad).flatten(1).sum(1).abs().detach(), rtol=1e-4, atol=1e-6)
    # Nothing of the model has changed: modes, gradients, flags, BatchNorm statistics, random state.
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert not model[3].weight.requires_grad
    assert model[3].weight.grad is None
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert all(torch.equal(before.state_dict()[key], value) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_inputs_may_be_several_or_named() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 2)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.a(x) * scale

    model, x, scale, y = Two(), torch.randn(4, 3), torch.rand(4, 1), torch.randn(4, 2)
    by_position = prunelab.score(model, Saliency(), data=[((x, scale), y)], loss=mean_square)
    by_name = prunelab.score(model, Saliency(), data=[({"x": x, "scale": scale}, y)], loss=mean_square)
    assert torch.equal(by_position["a.weight"], by_name["a.weight"])
    loader = torch.utils.data.DataLoader([((a, b), c) for a, b, c in zip(x, scale, y, strict=True)], batch_size=3)
    torch.testing.assert_close(
        prunelab.score(model, Saliency(), data=loader, loss=mean_square)["a.weight"], by_name["a.weight"]
    )


def test_a_failing_model_is_left_as_it_was() -> None:
    model = net().train()
    model[0].weight.requires_grad_(False)
    with pytest.raises(RuntimeError):
        prunelab.prune(model, 0.5, criterion=Saliency(), data=[(torch.zeros(1, 9), torch.zeros(1))], loss=mean_square)
    assert model.training
    assert model[1].training
    assert not model[0].weight.requires_grad


def test_random_is_reproducible_everywhere_and_differs_between_layers(device: torch.device) -> None:
    state = torch.get_rng_state()
    scores = prunelab.score(net(device), Random(seed=1))
    again, other = prunelab.score(net("cpu", seed=9), Random(seed=1)), prunelab.score(net(), Random(seed=2))
    assert torch.equal(torch.get_rng_state(), state)
    for name in WEIGHTS:
        assert torch.equal(scores[name].cpu(), again[name])
        assert not torch.equal(scores[name].cpu(), other[name])
    twins = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    first, second = prunelab.score(twins, Random(seed=1)).values()
    assert not torch.equal(first, second)
    assert 0.4 < float(torch.cat(list(scores.values())).mean()) < 0.6


def test_score_gives_one_number_a_unit() -> None:
    model = net()
    scores = prunelab.score(model, Magnitude(2), Filter())
    assert {name: tuple(s.shape) for name, s in scores.items()} == dict(zip(WEIGHTS, [(6,), (4,), (5,)], strict=True))
    torch.testing.assert_close(scores["5.weight"], model[5].weight.detach().norm(dim=1))


# --- bad input: the value, the reason, the way out; the model unchanged ------------------------------------------------


def nan_net() -> nn.Module:
    model = net()
    with torch.no_grad():
        model[3].weight[0, 0, 0, 0] = float("nan")
    return model


class ListOfScores(Criterion):
    def score(self, weights, gradients, statistics):
        return weights.sum(1)

    def scores(self, evidence):
        return [self.score(one.weights, None, None) for one in evidence.values()]


class TooFew(Criterion):
    def score(self, weights, gradients, statistics):
        return weights.sum()


BAD: list[tuple[type[Exception], str, Callable[[nn.Module], object]]] = [
    (ValueError, r"between 0 and 1, not 1.2; did you mean 0.012", lambda m: prunelab.prune(m, 1.2)),
    (ValueError, "between 0 and 1, not -0.1", lambda m: prunelab.prune(m, -0.1)),
    (ValueError, "between 0 and 1, not nan", lambda m: prunelab.prune(m, float("nan"))),
    (ValueError, "did you mean 0.5", lambda m: prunelab.prune(m, 50)),
    (TypeError, "'50%'.*0.5", lambda m: prunelab.prune(m, "50%")),
    (TypeError, "None", lambda m: prunelab.prune(m, None)),
    (TypeError, "True", lambda m: prunelab.prune(m, True)),
    (TypeError, "must be a number between 0 and 1, not tensor", lambda m: prunelab.prune(m, torch.tensor(1j))),
    (TypeError, "True", lambda m: prunelab.prune(m, torch.tensor(True))),
    (
        ValueError,
        "unknown parameter '0'; did you mean '0.weight' or '0.bias'",
        lambda m: prunelab.prune(m, 0.5, parameters=["0"]),
    ),
    (ValueError, "did you mean '0.weight'", lambda m: prunelab.prune(m, 0.5, parameters=["0.wieght"])),
    (
        TypeError,
        "must hold names such as '0.weight', not Parameters",
        lambda m: prunelab.prune(m, 0.5, parameters=[m[0].weight]),
    ),
    (TypeError, r"not the class Local; write Local\(\)", lambda m: prunelab.prune(m, 0.5, scope=prunelab.scope.Local)),
    (TypeError, r"write Filter\(\)", lambda m: prunelab.prune(m, 0.5, granularity=Filter)),
    (TypeError, "loss must be a function", lambda m: prunelab.score(m, Saliency(), data=[], loss="mse")),
    (TypeError, "data must be batches", lambda m: prunelab.score(m, Saliency(), data=mean_square, loss=mean_square)),
    (
        TypeError,
        r"a single batch is data=\[\(inputs, targets\)\]",
        lambda m: prunelab.score(m, Saliency(), data=examples(torch.device("cpu")), loss=mean_square),
    ),
    (
        ValueError,
        "the loss has no gradient",
        lambda m: prunelab.score(
            m, Saliency(), data=[examples(torch.device("cpu"))], loss=lambda o, t: mean_square(o.detach(), t)
        ),
    ),
    (ValueError, "scores must return a dict", lambda m: prunelab.score(m, ListOfScores())),
    (ValueError, "unknown parameter 'fc'; The model has 0.weight", lambda m: prunelab.prune(m, 0.5, parameters=["fc"])),
    (TypeError, r"write \['0.weight'\]", lambda m: prunelab.prune(m, 0.5, parameters="0.weight")),
    (ValueError, "no parameter to prune", lambda m: prunelab.prune(m, 0.5, parameters=[])),
    (
        ValueError,
        r"'1.weight'.*at least 2 dim",
        lambda m: prunelab.prune(m, 0.5, granularity=Filter(), parameters=["1.weight"]),
    ),
    (ValueError, "'regional'.*'global' or 'local'", lambda m: prunelab.prune(m, 0.5, scope="regional")),
    (TypeError, r"must be a Granularity such as Filter\(\)", lambda m: prunelab.prune(m, 0.5, granularity="filter")),
    (TypeError, r"must be a Granularity", lambda m: prunelab.prune(m, 0.5, granularity=Filter)),
    (TypeError, r"must be a Criterion such as Magnitude", lambda m: prunelab.prune(m, 0.5, criterion="l1")),
    (TypeError, "must be a torch.nn.Module, not OrderedDict", lambda m: prunelab.prune(m.state_dict(), 0.5)),
    (
        ValueError,
        "Saliency needs gradients and weights.*data= and loss=",
        lambda m: prunelab.prune(m, 0.5, criterion=Saliency()),
    ),
    (ValueError, "given loss=", lambda m: prunelab.score(m, Saliency(), data=[])),
    (TypeError, "more than once", lambda m: prunelab.score(m, Saliency(), data=iter([]), loss=mean_square)),
    (ValueError, "data is empty", lambda m: prunelab.score(m, Saliency(), data=[], loss=mean_square)),
    (
        TypeError,
        r"\(inputs, targets\) pairs",
        lambda m: prunelab.score(m, Saliency(), data=[torch.ones(3, 2)], loss=mean_square),
    ),
    (
        ValueError,
        "scalar",
        lambda m: prunelab.score(m, Saliency(), data=[examples(torch.device("cpu"))], loss=torch.sub),
    ),
    (
        ValueError,
        r"TooFew must score '0.weight'.*shape \(108,\), but it gave shape \(\)",
        lambda m: prunelab.prune(m, 0.5, criterion=TooFew()),
    ),
    (TypeError, "within must be Masks", lambda m: prunelab.prune(m, 0.5, within={"0.weight": 1})),
    (
        ValueError,
        "another model",
        lambda m: prunelab.prune(m, 0.5, within=Masks({"x": torch.ones(1, dtype=torch.bool)})),
    ),
]


@pytest.mark.parametrize(("kind", "message", "call"), BAD, ids=[message[:40] for _, message, _ in BAD])
def test_bad_input_says_why_and_changes_nothing(kind: type[Exception], message: str, call: Callable) -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(kind, match=message):
        call(model)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("granularity", [Weight(), Kernel(), Filter()], ids=repr)
@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 1.0])
def test_nan_weights_are_refused_by_name(granularity: Granularity, scope: str, sparsity: float) -> None:
    model = nan_net()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"'3.weight' has 1 NaN among .*parameters="):
        prunelab.prune(model, sparsity, granularity=granularity, scope=scope)
    unchanged = {key for key, value in model.state_dict().items() if torch.equal(before[key], value)}
    assert set(before) - unchanged == {"3.weight"}  # NaN is not equal to itself
    assert int(model[3].weight.isnan().sum()) == 1
    prunelab.prune(model, 0.5, parameters=["0.weight", "5.weight"], granularity=granularity)


def test_models_that_cannot_be_pruned_say_so() -> None:
    with pytest.raises(ValueError, match="ReLU has no parameter to prune"):
        prunelab.prune(nn.ReLU(), 0.5)
    with pytest.raises(ValueError, match="run the model once"):
        prunelab.prune(nn.Sequential(nn.LazyLinear(3)), 0.5)
    masked = nn.Sequential(nn.Linear(3, 3))
    peer.l1_unstructured(masked[0], "weight", amount=0.5)
    with pytest.raises(ValueError, match=r"the weight of '0' is computed.*remove_parametrizations"):
        prunelab.prune(masked, 0.5)
    assert prunelab.prune(masked, 4 / 9, parameters=["0.weight_orig"]).removed == 4
    with pytest.raises(ValueError, match="what a layer computes its weight from"):
        prunelab.prune(masked, 0.5, parameters=["0.weight_orig"], granularity=Filter())
    with pytest.raises(ValueError, match=r"'0.weight' has no values \(it is on the meta device\)"):
        prunelab.prune(nn.Sequential(nn.Linear(3, 3, device="meta")), 0.5)
    with pytest.raises(ValueError, match="the weight of 'Linear' is computed"):
        prunelab.prune(peer.l1_unstructured(nn.Linear(3, 3), "weight", amount=0.5), 0.5)
    quantised = nn.Sequential(nn.Linear(3, 3).to(torch.float8_e4m3fn))
    with pytest.raises(ValueError, match=r"has dtype torch\.float8_e4m3fn"):
        prunelab.prune(quantised, 0.5)


def test_empty_layers() -> None:
    model = nn.Sequential(nn.Linear(0, 3), nn.Linear(3, 0), nn.Linear(2, 2, bias=False))
    assert prunelab.prune(model, 0.5).removed == 2


def test_magnitude_refuses_norms_that_are_none() -> None:
    for p in (0, -1, float("nan"), "2", True):
        with pytest.raises(ValueError, match="above 0"):
            Magnitude(p)  # type: ignore[arg-type]


def test_numbers_of_other_libraries_are_numbers() -> None:
    import numpy as np

    assert Magnitude(np.float32(2)) == Magnitude(2)
    assert Random(np.int64(2)) == Random(2)
    assert Group(np.int64(2), 2) == Group(2, 2)
    for seed in (2**70, -1):
        with pytest.raises(ValueError, match="a seed lies between"):
            Random(seed)
    with pytest.raises(TypeError, match="a seed is a whole number"):
        Random(0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("targets", [[0, 0, 0], [{"box": torch.zeros(5, 4)}] * 3, None])
def test_targets_need_not_be_tensors(targets: object) -> None:
    model = nn.Linear(4, 1, bias=False)
    nn.init.ones_(model.weight)
    data = [(torch.ones(3, 4), targets), (torch.full((1, 4), 2.0), [0])]
    scores = prunelab.score(model, Saliency(), Filter(), data=data, loss=lambda outputs, _: outputs.square().mean())
    # d/dw mean(x·w)² = 2·mean((x·w)·x): (3·8 + 1·32)/4 = 14 for each of 4 weights
    assert scores["weight"].tolist() == [56.0]


def test_gradients_inside_inference_mode() -> None:
    x, y = examples(torch.device("cpu"))
    expected = prunelab.score(net(), Saliency(), data=[(x, y)], loss=mean_square)
    model = net()
    with torch.inference_mode():
        found = prunelab.score(model, Saliency(), data=[(x, y)], loss=mean_square)
    assert all(torch.equal(found[name], expected[name]) for name in WEIGHTS)


def test_a_criterion_names_only_evidence_that_exists() -> None:
    with pytest.raises(TypeError, match=r"needs must be a set such as \{'gradients'\}"):
        type("Odd", (Criterion,), {"needs": "gradients"})
    with pytest.raises(ValueError, match=r"names \['labels'\]; choose from"):
        type("Odd", (Criterion,), {"needs": {"labels"}})


def test_sparsity_may_be_a_number_of_any_library() -> None:
    import numpy as np

    for half in (0.5, np.float32(0.5), torch.tensor(0.5)):
        assert prunelab.prune(net(), half).removed == 268  # type: ignore[arg-type]
