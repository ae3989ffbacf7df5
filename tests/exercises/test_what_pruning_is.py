"""The references behind the exercises of the first chapter, against oracles that share nothing with them."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import prunelab
from prunelab import granularity as units
from prunelab.exercises import what_pruning_is as ex
from prunelab.exercises.what_pruning_is import budget, global_masks, ratio, revived, zeros


def solved(module):
    namespace: dict = {"torch": torch}
    exec(module.SOLUTION, namespace)
    return namespace[module.QUESTION.answer]


def test_the_solution_of_q1_is_what_the_report_says_of_such_layers():
    torch.manual_seed(0)
    dense, image = nn.Linear(20, 10), torch.zeros(1, 20)
    zeroed, removed = nn.Linear(20, 10), nn.Linear(20, 5)
    prunelab.prune(zeroed, 0.5)
    found = solved(zeros)
    for column, layer in enumerate((zeroed, removed)):
        report = prunelab.evaluate.report(layer, image, dense=dense)
        right = {
            "parameters held": report.params,
            "parameters not zero": report.nonzero,
            "bytes stored": report.bytes,
            "MACs run": report.macs,
            "compression ratio": report.compression_ratio,
            "theoretical speedup": report.theoretical_speedup,
        }
        assert {row: pair[column] for row, pair in found.items()} == right


def test_q1_accepts_ratios_as_a_reader_rounds_them_and_counts_exactly():
    right = solved(zeros)
    assert ex.q1.check(right | {"compression ratio": (1.91, 2)})
    assert ex.q1.check(right | {"compression ratio": [1.9, 2.0]})
    assert not ex.q1.check(right | {"compression ratio": (1.8, 2)})
    assert not ex.q1.check(right | {"parameters held": (210.5, 105)})
    assert "upside down" in str(ex.q1.check(right | {"compression ratio": (0.52, 0.5)}))


def test_the_ratio_of_q2_is_the_one_that_the_report_counts_once_the_masks_are_applied():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    for what, sparsity in itertools.product((units.Weight(), units.Filter()), (0.25, 0.5)):
        masks = prunelab.prune(net, sparsity, granularity=what, scope="local", apply=False)
        expected = solved(ratio)(net, masks)
        assert ratio._reference(net, masks) == expected
        pruned = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
        for parameter in pruned.parameters():
            nn.init.ones_(parameter)
        masks.apply_(pruned)
        assert prunelab.evaluate.report(pruned, torch.zeros(1, 2, 4, 4)).compression_ratio == expected


@pytest.mark.parametrize("case", ratio._cases(), ids=lambda case: case.about)
def test_each_network_of_q2_has_masks_that_fit_it_and_no_zero_of_its_own(case):
    model, masks = case.arguments.values()
    prunelab.Masks(masks, model)
    assert all((parameter != 0).all() for parameter in model.parameters())


def test_the_sparsity_of_q3_is_the_smallest_that_fits():
    for weights, others, room in [(12, 5, 9), (7, 0, 3), (30, 11, 11), (10, 4, 14), (10, 4, 20)]:
        fits = [gone for gone in range(weights + 1) if weights - gone + others <= room]
        sparsity = solved(budget)(weights, others, room)
        assert round(sparsity * weights) == fits[0]
        assert budget._reference(weights, others, room) == sparsity


def test_a_network_pruned_to_the_sparsity_of_q3_fills_its_budget():
    net = prunelab.lab.models.lenet_300_100(64, seed=0)
    weights = sum(p.numel() for name, p in net.named_parameters() if name.endswith("weight"))
    others = sum(p.numel() for p in net.parameters()) - weights
    for room in (20_000, 25_061, 50_609):
        sparsity = solved(budget)(weights, others, room)
        masks = prunelab.prune(net, sparsity, apply=False)
        assert masks.total - masks.removed + others == room


@pytest.mark.parametrize(
    "source",
    [
        "lambda weights, others, budget: 1 - min(budget - others, weights) / weights",
        "lambda weights, others, budget: min(max(0, 1 - (budget - others) / weights), 1)",
        "lambda weights, others, budget: torch.tensor(max(weights + others - budget, 0) / weights)",
    ],
)
def test_other_solutions_of_q3_pass(source):
    verdict = ex.q3.check(eval(source))
    assert verdict, verdict


@pytest.mark.parametrize("case", global_masks._cases(), ids=lambda case: case.about)
def test_the_masks_of_q4_are_those_of_a_brute_force(case):
    weights, sparsity = case.arguments.values()
    places = [(n, i) for n, weight in enumerate(weights) for i in range(weight.numel())]
    order = sorted(places, key=lambda place: (abs(weights[place[0]].flatten()[place[1]].item()), place))
    masks = [torch.ones(weight.numel(), dtype=torch.bool) for weight in weights]
    for n, i in order[: round(sparsity * len(places))]:
        masks[n][i] = False
    assert torch.equal(global_masks._reference(weights, sparsity).cpu(), torch.cat(masks))
    for found, expected, weight in zip(solved(global_masks)(weights, sparsity), masks, weights, strict=True):
        assert torch.equal(found.cpu(), expected.reshape(weight.shape))


def test_the_misconceptions_of_q4_lead_to_different_masks_on_the_first_input():
    arguments = global_masks._cases()[0].arguments
    expected = global_masks._reference(**arguments)
    answers = [mistake.answer(**arguments) for mistake in global_masks.MISTAKES]
    mistaken = [answer for answer in answers if not torch.equal(answer, expected)]
    assert len(mistaken) == len(answers) - 3  # the three of rounding matter on other inputs only
    for one, other in itertools.combinations(mistaken, 2):
        assert not torch.equal(one, other)


def weight_by_weight(weights, sparsity):
    places = [(abs(v), n, i) for n, w in enumerate(weights) for i, v in enumerate(w.flatten().tolist())]
    masks = [torch.ones(w.numel(), dtype=torch.bool, device=w.device) for w in weights]
    for _, n, i in sorted(places)[: round(sparsity * len(places))]:
        masks[n][i] = False
    return [mask.reshape(w.shape) for mask, w in zip(masks, weights, strict=True)]


def threshold_with_a_count_of_ties(weights, sparsity):
    """A threshold does work if ties are counted."""
    row = torch.cat([w.flatten() for w in weights]).square()
    k = round(sparsity * len(row))
    if k == 0:
        return [torch.ones_like(w, dtype=torch.bool) for w in weights]
    threshold = row.sort().values[k - 1]
    equal = row == threshold
    keep = (row > threshold) | (equal & (equal.cumsum(0) > k - (row < threshold).sum()))
    return [part.reshape(w.shape) for part, w in zip(keep.split([w.numel() for w in weights]), weights, strict=True)]


@pytest.mark.parametrize("answer", [weight_by_weight, threshold_with_a_count_of_ties])
def test_other_solutions_of_q4_pass(answer):
    assert ex.q4.check(answer)


def test_the_threshold_of_the_chapter_passes_until_the_ties_come():
    namespace: dict = {"torch": torch}
    exec(ex.q4.material.wrong[0][0], namespace)
    assert ex.q4.check(namespace["global_masks"]).case == "many weights of the same magnitude"


def test_what_q5_lets_the_learner_predict_is_what_happens():
    counts = {case.about: revived._counts(**case.arguments, count=revived._right) for case in revived._cases()}
    back = {about for about, count in counts.items() if sum(count.values())}
    assert back == {
        "plain SGD and nothing else",
        "momentum, and gradients set to zero",
        "a tiny learning rate",
        "momentum and nothing else",
        "a mask for one of the layers only",
        "plain SGD, and the masks held until the last step",
    }
    masks, model = revived._cases()[0].arguments.values()
    silent = model.get_parameter("0.weight")[:, :3]  # these read an input that is always zero
    assert (~masks["0.weight"][:, :3]).any()
    assert not silent[~masks["0.weight"][:, :3]].any()


def test_the_counts_of_q5_are_those_of_a_loop():
    for case in revived._cases():
        masks, model = case.arguments.values()
        for name, mask in masks.items():
            values = model.get_parameter(name).flatten().tolist()
            count = sum(
                1 for value, kept in zip(values, mask.flatten().tolist(), strict=True) if not kept and value != 0
            )
            assert solved(revived)(masks, model)[name] == revived._counts(masks, model, revived._right)[name] == count


def test_the_misconceptions_of_q5_lead_to_different_counts_on_the_first_network():
    arguments = revived._cases()[0].arguments
    answers = [revived._counts(**arguments, count=count) for count, _ in revived.MISTAKES]
    answers.append(revived._counts(**arguments, count=revived._right))
    for one, other in itertools.combinations(answers, 2):
        assert one != other


def test_q5_accepts_tensors_and_a_model_in_any_mode():
    assert ex.q5.check(
        lambda masks, model: {name: (model.get_parameter(name)[~mask] != 0).sum() for name, mask in masks.items()}
    )
    with torch.no_grad():
        assert ex.q5.check(solved(revived))
    assert torch.is_grad_enabled()
