"""Mistakes that careful people made in pruning libraries, each as a test that catches it here. Named after the mistake."""

from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune as peer

import prunelab
from prunelab import Pruner, criteria, granularity, regularize, schedule, scope
from prunelab.criteria import Criterion, Magnitude, Taylor
from prunelab.granularity import Channel, Filter, Group, Kernel, Weight
from prunelab.scope import NM

Batch = tuple[Tensor, Tensor]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(16, 3)
    )


def batches(*sizes: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    total = sum(sizes)
    x, y = torch.randn(total, 2, 6, 6, generator=generator), torch.randint(3, (total,), generator=generator)
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def linear(*rows: list[float]) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)
    return layer


MEASURED: list[Criterion] = [
    criteria.GradientMagnitude(),
    Taylor(),
    Taylor(of="activations"),
    criteria.SNIP(),
    criteria.GraSP(),
    criteria.Wanda(),
    criteria.MutualInformation(),
]


# --- gradients and data -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", MEASURED, ids=repr)
def test_only_the_last_batch_counts(criterion: Criterion) -> None:
    """An accumulator looked up by name, but stored by parameter, was begun anew at every batch."""
    data, how = batches(4, 4, 4), {"loss": F.cross_entropy}
    model = net()
    all_of_them = prunelab.score(model, criterion, Filter(), data=data, **how)
    turned = prunelab.score(model, criterion, Filter(), data=data[::-1], **how)
    only_the_last = prunelab.score(model, criterion, Filter(), data=data[-1:], **how)
    for name, scores in all_of_them.items():
        torch.testing.assert_close(turned[name], scores, rtol=1e-4, atol=1e-6)
    assert any(not torch.allclose(only_the_last[name], scores, rtol=1e-2) for name, scores in all_of_them.items())


@pytest.mark.parametrize("criterion", MEASURED, ids=repr)
def test_a_short_last_batch_counts_as_much_as_a_full_one(criterion: Criterion) -> None:
    """The mean over batches of their means: the examples of a short batch weigh more than the others."""
    model = net()
    whole = prunelab.score(model, criterion, Filter(), data=batches(9), loss=F.cross_entropy)
    uneven = prunelab.score(model, criterion, Filter(), data=batches(8, 1), loss=F.cross_entropy)
    for name, scores in whole.items():
        torch.testing.assert_close(uneven[name], scores, rtol=1e-4, atol=1e-6)


def test_gradients_add_up_to_those_that_were_there_before() -> None:
    """Scores read from `.grad`, into which the training step before had left its own gradients."""
    model, data = net(), batches(6)
    clean = prunelab.score(model, criteria.GradientMagnitude(), data=data, loss=F.cross_entropy)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    dirty = prunelab.score(model, criteria.GradientMagnitude(), data=data, loss=F.cross_entropy)
    assert all(torch.equal(clean[name], dirty[name]) for name in clean)
    assert all(bool((parameter.grad == 100).all()) for parameter in model.parameters())


@pytest.mark.parametrize("criterion", [criteria.GradientMagnitude(), Taylor(), criteria.SNIP()], ids=repr)
def test_a_gradient_that_is_none_is_used(criterion: Criterion) -> None:
    """`if grad is None:` and in that branch the gradient was read."""
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "idle": nn.Linear(2, 2)})
    model.forward = lambda x: model["used"](x)  # type: ignore[method-assign]
    scores = prunelab.score(model, criterion, data=[(torch.ones(2, 2), torch.tensor([0, 1]))], loss=F.cross_entropy)
    assert not scores["idle.weight"].any()
    assert scores["used.weight"].any()


@pytest.mark.parametrize(
    "criterion", [criteria.GradientMagnitude(), Taylor(), criteria.SNIP(), criteria.GraSP()], ids=repr
)
def test_a_criterion_falls_back_silently_without_gradients(criterion: Criterion) -> None:
    """Without gradients the criterion returned w², and said nothing."""
    for given in ({}, {"data": batches(2)}, {"loss": F.cross_entropy}):
        with pytest.raises(ValueError, match=r"data=|loss="):
            prunelab.prune(net(), 0.5, criterion=criterion, **given)


def test_filters_are_ranked_by_the_signed_sum() -> None:
    """Σ w · g without an absolute value, the largest kept: it removed those that the loss needs most."""
    model = linear([3.0], [-5.0], [0.1])  # without them the sum of the outputs changes by -3, +5 and -0.1
    data = [(torch.ones(1, 1), torch.zeros(1))]
    masks = prunelab.prune(
        model, 1 / 3, criterion=Taylor(), granularity=Filter(), data=data, loss=lambda outputs, _: outputs.sum()
    )
    assert masks["weight"].flatten().tolist() == [True, True, False]


def test_absolute_values_are_added_where_the_sum_is_meant() -> None:
    """Σ |w · g| over a filter whose members cancel: the filter looked important, and did nothing."""
    model, data = linear([5.0, -5.0], [1.0, 1.0]), [(torch.ones(1, 2), torch.zeros(1))]
    scores = prunelab.score(model, Taylor(), Filter(), data=data, loss=lambda outputs, _: outputs.sum())
    assert scores["weight"].tolist() == [0.0, 2.0]


def test_weight_times_gradient_is_sold_as_gradient_magnitude() -> None:
    """|w · g| under the name of |g|: the weights decided too."""
    weights, gradients = torch.tensor([[9.0], [0.1]]), torch.tensor([[1.0], [2.0]])
    assert criteria.GradientMagnitude().score(weights, gradients, None).tolist() == [1.0, 2.0]


def test_a_saliency_is_the_l1_norm_by_another_name() -> None:
    """A "saliency" that read no gradient."""
    weights, gradients = torch.tensor([[9.0], [0.1]]), torch.tensor([[0.0], [2.0]])
    assert Taylor().score(weights, gradients, None).argmin() == 0


def test_a_missing_curvature_is_replaced_by_the_identity() -> None:
    """Where the Hessian failed, the identity stood in for it: silently that is the magnitude."""
    with pytest.raises(ValueError, match=r"has no curvature for '3\.weight'"):
        prunelab.prune(net(), 0.5, criterion=criteria.OBD({"0.weight": torch.ones(4, 2, 3, 3)}))


def test_data_are_used_up_by_the_first_pass() -> None:
    """A generator of batches: the second round measured nothing."""
    with pytest.raises(TypeError, match="iterated more than once"):
        prunelab.prune(net(), 0.5, criterion=Taylor(), data=iter(batches(2)), loss=F.cross_entropy)


def test_eval_mode_is_never_restored() -> None:
    """`model.eval()` for the measurement, and training went on without dropout and with frozen statistics."""
    model = net().train()
    model[1].eval()
    for criterion in (*MEASURED, criteria.SynFlow(torch.ones(1, 2, 6, 6))):
        prunelab.prune(model, 0.1, criterion=criterion, granularity=Filter(), data=batches(4), loss=F.cross_entropy)
        assert [module.training for module in model] == [True, False, True, True, True, True]


def test_measuring_moves_the_running_statistics() -> None:
    """Forwards in training mode: batch normalisation took the calibration data for training data."""
    model = net().train()
    before = copy.deepcopy(dict(model.named_buffers()))
    for criterion in MEASURED:
        prunelab.score(model, criterion, Filter(), data=batches(4), loss=F.cross_entropy)
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())


def test_a_bare_except_hides_the_models_own_error() -> None:
    """`except:` around the forward: whatever went wrong, the next line failed with something else. And hooks stayed."""
    model = net()
    with pytest.raises(RuntimeError, match="expected input"):
        prunelab.score(model, criteria.Wanda(), data=[(torch.ones(1, 5, 6, 6), torch.zeros(1))])
    assert not any(module._forward_hooks for module in model.modules())


# --- redundancy and norms ---------------------------------------------------------------------------------------------


def test_a_filter_and_its_negative_look_identical() -> None:
    """Distances between |w|, not between w: a filter lay on top of its mirror image."""
    filters = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    assert criteria.GeometricMedian().score(filters, None, None).tolist() == pytest.approx([20**0.5, 20**0.5])


def test_a_filter_and_its_negative_look_different() -> None:
    """The other way round, of correlation: the next layer can use either, so one of them is redundant."""
    filters = torch.tensor([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0], [1.0, -2.0, 1.0]])
    assert criteria.FilterCorrelation().score(filters, None, None).tolist() == [0.0, 1.0, 1.0]


def test_both_of_a_redundant_pair_go() -> None:
    """Both twins scored zero, and with them went what only they knew."""
    masks = prunelab.prune(
        linear([1.0, 2.0, 4.0], [2.0, 4.0, 8.0], [1.0, -1.0, 1.0], [3.0, 0.0, 1.0]),
        0.5,
        criterion=criteria.FilterCorrelation(),
        granularity=Filter(),
    )
    assert masks["weight"].any(1).tolist()[:2] in ([True, False], [False, True])


def test_the_padding_of_a_short_group_counts() -> None:
    """Means over the padded length: short groups looked weaker than they are."""
    model = linear([1.0, 1.0, 1.0, 1.0, 1.0])
    assert prunelab.score(model, Magnitude(reduction="mean"), Group(1, 4))["weight"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("unit", [Filter(), Channel(), Kernel(), Group(1, 2)], ids=str)
def test_the_group_penalty_is_plain_l1(unit: granularity.Granularity) -> None:
    """Σ |w| within the groups and then over the groups: the same number for every granularity, and no group ends."""
    model = net()
    of_groups, of_weights = regularize.GroupLasso(1.0, unit).penalty(model), regularize.L1(1.0).penalty(model)
    assert of_groups.item() != pytest.approx(of_weights.item(), rel=1e-3)
    layer = linear([3.0, 4.0])
    assert regularize.GroupLasso(1.0).penalty(layer).item() == pytest.approx(5 * 2**0.5)  # not 7


# --- how many ---------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::prunelab.scope.LayerCollapseWarning")
@pytest.mark.parametrize(
    ("count", "sparsity", "gone"), [(4, 0.5, 2), (8, 0.5, 4), (16, 0.5, 8), (64, 0.5, 32), (64, 0.01, 1)]
)
@pytest.mark.parametrize("how", ["global", "local", scope.PerRow()], ids=str)
def test_kth_value_with_greater_equal_removes_one_too_few(
    count: int, sparsity: float, gone: int, how: str | scope.Scope
) -> None:
    """The k-th smallest as threshold, and `>=` to keep: the k-th stayed, and of 64 weights 1 % was none."""
    assert prunelab.prune(nn.Linear(count, 1, bias=False), sparsity, scope=how).removed == gone


@pytest.mark.parametrize("values", [list(range(10)), [1] * 10, [0] * 5 + [1] * 5])
def test_a_sorted_threshold_with_less_equal_removes_one_too_many(values: list[int]) -> None:
    """`sorted[int(n * s)]` as threshold, and `<=` to remove: one too many goes, and of ties all."""
    for sparsity, gone in ((0.1, 1), (0.5, 5), (0.9, 9)):
        model = linear([float(value) for value in values])
        assert prunelab.prune(model, sparsity).removed == gone


@pytest.mark.parametrize("unit", [Weight(), Filter(), Kernel()], ids=str)
def test_fraction_one_is_out_of_range(unit: granularity.Granularity) -> None:
    """`sorted[int(n * 1.0)]` lies behind the last value."""
    for how in ("global", "local"):
        assert prunelab.prune(net(), 1.0, granularity=unit, scope=how).sparsity == 1
        assert prunelab.prune(net(), 0.0, granularity=unit, scope=how).sparsity == 0


def test_the_fraction_to_prune_is_the_fraction_to_keep() -> None:
    """`int(n * (1 - ratio))` units removed, for a ratio that was documented as the one to remove."""
    assert prunelab.prune(nn.Linear(10, 8, bias=False), 0.25, granularity=Filter()).removed == 20


@pytest.mark.parametrize("wrong", [50, 1.5, -0.1, float("nan"), True, "0.5"])
def test_half_is_taken_for_half_a_percent(wrong: Any) -> None:
    """Fractions and percentages told apart by size: 0.5 meant 0.5 %, and 1 nobody knew what."""
    with pytest.raises((ValueError, TypeError), match="between 0 and 1"):
        prunelab.prune(net(), wrong)


def test_of_what_is_left_again_the_same_fraction() -> None:
    """A second call at 0.5 removed half of what the first had left: 0.75 in all."""
    model = net()
    once = prunelab.prune(model, 0.5)
    assert prunelab.prune(model, 0.5) == once
    assert prunelab.prune(model, 0.5, within=once) == once


def test_a_shared_weight_is_counted_twice() -> None:
    """One tensor under two names: the sparsity that was reported counted its zeros twice."""
    model = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False)])
    model[1].weight = model[0].weight
    masks = prunelab.prune(model, 0.5)
    assert (masks.total, masks.removed) == (24, 12)


def test_the_groups_of_a_convolution_are_ignored() -> None:
    """Filters of a grouped convolution counted with all inputs: twice their size here."""
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2, bias=False), nn.Conv2d(2, 4, 3, bias=False))
    masks = prunelab.prune(model, 0.5, granularity=Filter())  # all have 18 weights: exactly half of eight
    assert masks.removed == 4 * 18


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (1, 2), (2, 3), (4, 8), (0, 5)])
@pytest.mark.parametrize(
    "make", [lambda: nn.Linear(10, 3), lambda: nn.Conv1d(5, 3, 3), lambda: nn.Conv2d(4, 4, 1, groups=2)]
)
def test_n_of_m_works_for_2_of_4_of_a_convolution_only(n: int, m: int, make: Any) -> None:
    """2:4 and four dimensions written into the code, and a number of inputs that 16 divides."""
    model = make()
    masks = prunelab.prune(model, scope=NM(n, m))
    for row in masks["weight"].flatten(1):
        assert all(int(group.sum()) == min(n, len(group)) for group in row.split(m))


def test_ties_keep_more_than_n_of_m() -> None:
    """A threshold in each group: where all four weights are alike, all four stayed."""
    masks = prunelab.prune(linear([1.0] * 8, [0.0] * 8), scope=NM(2, 4))
    assert masks["weight"].tolist() == [[False, False, True, True] * 2] * 2


def test_chance_decides_between_ties() -> None:
    """`topk` promises no order of equals: the same model was pruned in another way on another machine."""
    masks = prunelab.prune(linear([1.0, -1.0, 1.0], [1.0, 1.0, -1.0]), 0.5)
    assert masks["weight"].tolist() == [[False] * 3, [True] * 3]


def test_a_layer_is_emptied_in_silence() -> None:
    """All that is left of a small layer goes in a global competition: the network is dead, and nobody was told."""
    model = nn.Sequential(linear([0.1, 0.1]), linear([1.0], [1.0], [1.0]))
    with pytest.warns(scope.LayerCollapseWarning, match=r"0\.weight"):
        prunelab.prune(model, 0.4)


# --- what is named, and what is chosen --------------------------------------------------------------------------------


def test_an_ignored_layer_is_pruned_all_the_same() -> None:
    """The layer to leave out was looked up by identity in a copy, and so never found."""
    model = net()
    before = model[5].weight.clone()
    masks = prunelab.prune(model, 0.9, exclude="5.*", scope="local")
    assert "5.weight" not in masks
    assert torch.equal(model[5].weight, before)


def test_a_name_that_means_nothing_prunes_nothing_in_silence() -> None:
    """A misspelt name: pruning went well, and removed nothing."""
    for wrong in ({"parameters": ["5.wieght"]}, {"exclude": "fc.*"}, {"scope": {"5.wieght": 0.5}, "sparsity": None}):
        with pytest.raises(ValueError, match=r"no parameter matches|unknown parameter"):
            prunelab.prune(net(), wrong.pop("sparsity", 0.5), **wrong)  # type: ignore[arg-type]


def test_a_criterion_is_listed_and_never_defined() -> None:
    """A name in the list of criteria, or an import, behind which there was nothing."""
    for module in (criteria, granularity, scope, schedule, regularize):
        for name in module.__all__:
            assert getattr(module, name) is not None


@pytest.mark.parametrize(
    "wrong", [{"criterion": Magnitude}, {"criterion": "l1"}, {"granularity": Filter}, {"granularity": "filter"}]
)
def test_a_type_check_that_never_fires(wrong: dict[str, Any]) -> None:
    """The check read an attribute that was spelled otherwise: whatever was given passed, and failed much later."""
    with pytest.raises(TypeError, match="must be a"):
        prunelab.prune(net(), 0.5, **wrong)


def test_a_meaningless_combination_is_carried_out() -> None:
    """Numbers came out, of the information of a single weight, or a pattern of filters; they meant nothing."""
    with pytest.raises(ValueError, match=r"scores units of Filter\(\.\.\.\) or Channel\(\.\.\.\)"):
        prunelab.prune(net(), 0.5, criterion=criteria.MutualInformation(), data=batches(8))
    with pytest.raises(ValueError, match="is a pattern of single weights"):
        prunelab.prune(net(), granularity=Filter(), scope=NM(2, 4))


def test_strings_are_compared_by_identity() -> None:
    """`mode is "out"`: true for a literal in the same file, false for the same word that was read from elsewhere."""
    read = "".join(["lo", "cal"]), "".join(["me", "an"]), "".join(["la", "yer"]), "".join(["cos", "ine"])
    assert prunelab.prune(net(), 0.5, scope=read[0]) == prunelab.prune(net(), 0.5, scope="local")
    weights = torch.tensor([[1.0, 2.0], [3.0, 5.0], [0.0, 1.0]])
    for one, same in (
        (Magnitude(reduction=read[1]), Magnitude(reduction="mean")),
        (Magnitude(normalize=read[2]), Magnitude(normalize="layer")),
        (criteria.FilterCorrelation(read[3], read[1]), criteria.FilterCorrelation("cosine", "mean")),
    ):
        assert torch.equal(one.score(weights, None, None), same.score(weights, None, None))


def test_default_arguments_are_shared_between_pruners() -> None:
    """`def __init__(self, ignored={})`, and what one pruner wrote into it the next one found."""
    callables = [prunelab.prune, prunelab.score, Pruner.__init__]
    for module in (criteria, granularity, scope, schedule, regularize):
        callables += [kind.__init__ for name in module.__all__ if isinstance(kind := getattr(module, name), type)]
    for function in callables:
        for parameter in inspect.signature(function).parameters.values():
            assert not isinstance(parameter.default, list | dict | set), f"{function.__qualname__}({parameter})"
    first, second = net(), net()
    one = Pruner(first, torch.optim.SGD(first.parameters(), lr=0.1), schedule=schedule.OneShot(0.5), exclude="5.*")
    two = Pruner(second, torch.optim.SGD(second.parameters(), lr=0.1), schedule=schedule.OneShot(0.5))
    one.step()
    two.step()
    assert set(one.masks) == {"0.weight", "3.weight"}
    assert set(two.masks) == {"0.weight", "3.weight", "5.weight"}


def test_chance_of_the_whole_program_is_seeded() -> None:
    """A seed for random pruning set torch's own: every run of the training drew the same batches."""
    model, expected = nn.Linear(4, 4), torch.rand(3, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(5)
    prunelab.prune(model, 0.5, criterion=criteria.Random(seed=1))
    assert torch.equal(torch.rand(3), expected)


# --- training with masks ----------------------------------------------------------------------------------------------


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 2) -> None:
    for x, y in batches(*[4] * steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("kind", "options"),
    [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.SGD, {"weight_decay": 0.1}), (torch.optim.AdamW, {})],
)
def test_momentum_moves_what_was_pruned(kind: Any, options: dict[str, float]) -> None:
    """Zeros without a hold: their momentum and their gradients brought them back."""
    model = net()
    optimizer = kind(model.parameters(), lr=0.1, **options)
    trained(model, optimizer)
    masks = prunelab.prune(model, 0.5)
    with masks.hold(model, optimizer):
        trained(model, optimizer)
        assert all(not model.get_parameter(name)[~mask].any() for name, mask in masks.items())
    trained(model, optimizer)
    assert any(model.get_parameter(name)[~mask].any() for name, mask in masks.items())  # that is the mistake


def test_pruning_leaves_the_optimizer_with_dead_parameters() -> None:
    """New parameters in the model, the old ones in the optimizer: one of eight was still trained."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    prunelab.prune(model, 0.5, granularity=Filter()).hold(model, optimizer)
    assert {id(parameter) for parameter in model.parameters()} == known


def test_masks_are_not_updated_at_the_next_step() -> None:
    """The first mask was used at every step: the weights of the day before decided."""
    model = linear([1.0, 2.0, 3.0, 4.0])
    pruner = Pruner(
        model, torch.optim.SGD(model.parameters(), lr=0.1), schedule=schedule.Linear(0.5, start=1, end=3, every=1)
    )
    pruner.step()
    pruner.step()
    assert pruner.masks["weight"].tolist() == [[False, True, True, True]]
    model.weight.data = torch.tensor([[0.0, 9.0, 9.0, 1.0]])
    pruner.step()
    assert pruner.masks["weight"].tolist() == [[False, True, True, False]]


def test_keys_of_the_state_dict_change() -> None:
    """`weight_orig` and `weight_mask` in place of `weight`: the checkpoint fitted no other model."""
    model = net()
    keys = list(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, optimizer, schedule=schedule.OneShot(0.5))
    trained(model, optimizer)
    pruner.step()
    assert list(model.state_dict()) == keys
    net().load_state_dict(model.state_dict())


def test_a_pruned_model_cannot_be_copied() -> None:
    """The weight became a tensor that was computed, which deepcopy refuses."""
    theirs = net()
    peer.l1_unstructured(theirs[5], "weight", 0.5)
    theirs(torch.ones(1, 2, 6, 6))
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(theirs)
    model = net()
    masks = prunelab.prune(model, 0.5)
    masks.hold(model, torch.optim.SGD(model.parameters(), lr=0.1))
    model(torch.ones(1, 2, 6, 6)).sum().backward()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_backward_fails_after_pruning() -> None:
    """A graph that was recorded before the weight was replaced, or that ran through the mask twice."""
    model = net()
    prunelab.prune(model, 0.5)
    for _ in range(2):
        F.cross_entropy(model(batches(4)[0][0]), batches(4)[0][1]).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_saving_resets_the_weights_first(tmp_path: Path) -> None:
    """Before it saved the masks, the model was set back to its first weights; and the module to copy it was missing."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, optimizer, schedule=schedule.OneShot(0.5))
    trained(model, optimizer)
    pruner.step()
    before = copy.deepcopy(model.state_dict())
    pruner.masks.save(tmp_path / "masks.safetensors")
    pruner.state_dict()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert prunelab.Masks.load(tmp_path / "masks.safetensors", model) == pruner.masks


# --- biases -----------------------------------------------------------------------------------------------------------


def test_a_removed_filter_still_puts_out_its_bias() -> None:
    """Structured pruning that zeroes the weights and leaves the bias: the channel lives on as a constant."""
    x = torch.randn(2, 2, 6, 6)
    theirs = net()
    peer.ln_structured(theirs[0], "weight", 0.5, n=1, dim=0)
    gone = ~theirs[0].weight_mask.flatten(1).any(1)
    assert theirs[0](x)[:, gone].any()
    model = net()
    masks = prunelab.prune(model, 0.5, granularity=Filter(), parameters=["0.weight"])
    assert torch.equal(~masks["0.bias"], gone)
    assert not model[0](x)[:, gone].any()


def test_the_shift_of_a_batch_normalisation_keeps_a_channel_alive() -> None:
    """The filter and its bias were gone, and the next layer still read a constant: the shift of the normalisation.

    Masks of filters name the layer's weight and bias and nothing of the normalisation, so the constant
    shift - scale * mean / deviation stays; masks of the normalisation's own scale and shift silence the channel.
    """
    model = net().eval()
    nn.init.constant_(model[1].bias, 0.5)
    masks = prunelab.prune(model, 0.5, granularity=Filter(), parameters=["0.weight"])
    assert set(masks) == {"0.weight", "0.bias"}
    gone, x = ~masks["0.bias"], torch.randn(2, 2, 6, 6)
    after = model[:3](x)[:, gone]
    torch.testing.assert_close(after, torch.full_like(after, 0.5))
    (masks & prunelab.Masks({"1.weight": ~gone, "1.bias": ~gone})).apply_(model)
    assert not model[:3](x)[:, gone].any()
