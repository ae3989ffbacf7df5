"""Parameters that are not one plain tensor of one plain layer: shared, tied, transposed, computed, compiled."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import prunelab
from prunelab import Masks, criteria
from prunelab.granularity import Channel, Filter, Layer, Weight


def tied(transposed: bool = False) -> nn.Sequential:
    """Two Linear layers, 8 × 8, whose weights are two parameters over the same memory."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    data = model[0].weight.data
    model[1].weight = nn.Parameter(data.t() if transposed else data)
    return model


@pytest.mark.parametrize("criterion", [criteria.Magnitude(), criteria.Random()], ids=repr)
@pytest.mark.parametrize("transposed", [False, True])
def test_the_same_memory_counts_once(criterion: criteria.Criterion, transposed: bool) -> None:
    model = tied(transposed)
    masks = prunelab.prune(model, 0.5, criterion=criterion)
    assert list(masks) == ["0.weight"]
    assert int((model[0].weight == 0).sum()) == int((model[1].weight == 0).sum()) == 32


def test_a_transposed_twin_has_no_filters_of_its_own() -> None:
    for granularity in (Filter(), Channel(), Layer()):
        with pytest.raises(ValueError, match=r"'0.weight' is shared by layers that store it differently.*Weight\(\)"):
            prunelab.prune(tied(transposed=True), 0.5, granularity=granularity)
    mirrored = nn.Sequential(nn.Conv2d(3, 5, 2), nn.ConvTranspose2d(5, 3, 2))  # a tied autoencoder
    mirrored[1].weight = mirrored[0].weight
    assert prunelab.prune(mirrored, 0.5).removed == 30
    with pytest.raises(ValueError, match="store it differently"):
        prunelab.prune(mirrored, 0.5, granularity=Filter())


def test_within_may_use_any_name_of_a_shared_weight() -> None:
    half = torch.arange(64).reshape(8, 8) >= 32
    for model in (tied(), nn.Sequential(shared := nn.Linear(8, 8, bias=False), shared)):
        masks = prunelab.prune(model, 0.5, within=Masks({"1.weight": half}))
        assert masks == Masks({"0.weight": half})
    other = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 4, bias=False))
    other[1].weight = nn.Parameter(other[0].weight.data.t())
    with pytest.raises(ValueError, match=r"'0\.weight' seen another way"):
        prunelab.prune(other, 0.5, within=Masks({"1.weight": torch.ones(4, 2, dtype=torch.bool)}))


def test_weights_that_are_computed_can_be_pruned_one_by_one_only() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.ConvTranspose2d(3, 5, 2)))
    name = "0.parametrizations.weight.original1"
    assert prunelab.prune(model, 0.5, parameters=[name]).removed == 30
    with pytest.raises(ValueError, match="what a layer computes its weight from"):
        prunelab.prune(model, 0.5, parameters=[name], granularity=Filter())


def test_a_parameter_may_be_called_what_its_author_likes() -> None:
    model = nn.Module()
    model.w_v, model.proj_g = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(4, 3))
    masks = prunelab.prune(model, 0.5, granularity=Filter(), parameters=["w_v", "proj_g"], scope="local")
    assert masks.sparsities == {"w_v": 0.5, "proj_g": 0.5}


def test_a_bias_that_is_computed_cannot_go_with_its_filter() -> None:
    class Shift(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    model = nn.Sequential(nn.Linear(3, 4))
    parametrize.register_parametrization(model[0], "bias", Shift())
    with pytest.raises(ValueError, match=r"'0\.weight' has a bias that is computed"):
        prunelab.prune(model, 0.5, granularity=Filter())
    assert prunelab.prune(model, 0.5, granularity=Weight()).removed == 6


def test_biases_of_other_modules_go_with_their_rows() -> None:
    model = nn.ModuleDict({"b": nn.Bilinear(2, 3, 4), "a": nn.MultiheadAttention(4, 2), "e": nn.Embedding(5, 3)})
    names = ["b.weight", "a.in_proj_weight", "e.weight"]
    masks = prunelab.prune(model, 0.5, granularity=Filter(), parameters=names, scope="local")
    assert set(masks) == {*names, "b.bias", "a.in_proj_bias"}
    x, y = torch.randn(1, 2), torch.randn(1, 3)
    assert (model["b"](x, y)[0] != 0).tolist() == masks["b.bias"].tolist()
    assert torch.equal(masks["a.in_proj_weight"].any(1), masks["a.in_proj_bias"])


def test_a_compiled_part_keeps_its_names() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    masks = prunelab.prune(model, 0.5)
    model[1] = torch.compile(model[1])
    assert prunelab.prune(model, 0.5) == masks
    masks.apply_(model)


def test_layers_without_outputs_or_inputs() -> None:
    model = nn.Sequential(nn.Linear(3, 0), nn.Linear(0, 3), nn.Linear(2, 2))
    masks = prunelab.prune(model, 0.5, granularity=Filter())
    assert masks["2.bias"].tolist().count(False) <= 1
    everything = Masks({name: torch.ones_like(p, dtype=torch.bool) for name, p in model.named_parameters()})
    assert prunelab.prune(model, 0.0, granularity=Filter(), within=everything).removed == 0


# --- nothing half-changed -------------------------------------------------------------------------------------------


def test_apply_changes_all_or_nothing() -> None:
    model = nn.Module()
    model.a, model.b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1).expand(2))
    masks = Masks({"a": torch.zeros(2) > 0, "b": torch.zeros(2) > 0})
    with pytest.raises(ValueError, match="'b' is expanded"):
        masks.apply_(model)
    assert model.a.tolist() == [1, 1]
    model.b = nn.Parameter(torch.ones(2).to(torch.float8_e4m3fn), requires_grad=False)
    masks.apply_(model)
    assert model.a.tolist() == model.b.float().tolist() == [0, 0]


def test_a_criterion_cannot_reach_the_model() -> None:
    class InPlace(criteria.Criterion):
        def score(self, weights, gradients, statistics):
            return weights.abs_().sum(1)

    class Part(criteria.Criterion):
        def score(self, weights, gradients, statistics):
            return weights[:, 0]

    model = nn.Linear(3, 2)
    before = copy.deepcopy(model.state_dict())
    prunelab.score(model, InPlace(), Filter())
    scores = prunelab.score(model, Part(), Filter())["weight"]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    prunelab.prune(model, 1.0)
    assert torch.equal(scores, before["weight"][:, 0])


def test_gradients_within_masks_are_those_of_the_masked_network() -> None:
    class Saliency(criteria.Criterion):
        needs = frozenset({"weights", "gradients"})

        def score(self, weights, gradients, statistics):
            return (weights * gradients).sum(1).abs()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    before = copy.deepcopy(model.state_dict())
    given = {
        "criterion": Saliency(),
        "within": prunelab.prune(model, 0.5, apply=False),
        "data": [(torch.randn(8, 4), torch.randn(8, 2))],
        "loss": nn.functional.mse_loss,
    }
    beside = prunelab.prune(model, 0.75, **given, apply=False)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    given["within"].apply_(model)
    assert prunelab.prune(model, 0.75, **given) == beside


@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_of_two_parameters_over_the_same_memory_are_refused(transposed: bool) -> None:
    model, data = tied(transposed), [(torch.randn(4, 8), torch.zeros(4, dtype=torch.long))]
    loss = nn.functional.cross_entropy
    for criterion in (criteria.Taylor(), criteria.GraSP(), criteria.SynFlow(torch.ones(1, 8))):
        with pytest.raises(ValueError, match=r"'0.weight' and '1.weight' are two parameters over the same memory"):
            prunelab.score(model, criterion, data=data, loss=loss)
    model[1].weight = model[0].weight
    assert list(prunelab.score(model, criteria.Taylor(), data=data, loss=loss)) == ["0.weight"]
