"""The references behind the granularity exercises, against oracles that share nothing with them."""

from __future__ import annotations

import itertools
from math import prod

import pytest
import torch
from torch import nn

import prunelab
from prunelab import granularity as units
from prunelab.exercises import granularity as ex
from prunelab.exercises.granularity import counts, filter_norms, kernel_mask
from prunelab.exercises.granularity.dead_channels_count import removable


def test_the_solution_of_q1_is_a_brute_force_count():
    namespace: dict = {}
    exec(counts.SOLUTION, namespace)
    found = namespace["counts"]
    filters, inputs, area = range(8), range(6), range(9)
    for groups, suffix in [(1, ""), (2, ", groups=2")]:
        # Every weight by hand: filter o reads input channel i where both are in the same group.
        weights = [
            (o, i, k) for o, i, k in itertools.product(filters, inputs, area) if o * groups // 8 == i * groups // 6
        ]
        for row, unit in [("Filter", lambda w: w[0]), ("Channel", lambda w: w[1]), ("Kernel", lambda w: w[:2])]:
            names = {unit(weight) for weight in weights}
            assert found[row + suffix] == (len(names), len(weights) / len(names))
    assert found["Weight"] == (8 * 54, 1)
    assert found["Layer"] == (1, 8 * 54)
    blocks = {(row // 2, column // 3) for row in range(8) for column in range(54)}
    assert found["Group(2, 3)"] == (len(blocks), 8 * 54 / len(blocks))


def test_the_norms_of_q2_agree_with_the_library():
    conv = nn.Conv2d(4, 6, 3, groups=2)
    namespace: dict = {}
    exec(filter_norms.SOLUTION, namespace)
    scores = prunelab.score(conv, prunelab.criteria.Magnitude(p=1), units.Filter())["weight"]
    torch.testing.assert_close(namespace["filter_norms"](conv.weight.detach()), scores, check_dtype=False)


def test_the_masks_of_q3_are_those_of_a_brute_force():
    namespace: dict = {"torch": torch}
    exec(kernel_mask.SOLUTION, namespace)
    for case in kernel_mask._cases():
        weight, sparsity = case.arguments.values()
        norms = {
            (o, i): weight[o, i].abs().sum().item() for o in range(weight.shape[0]) for i in range(weight.shape[1])
        }
        order = sorted(norms, key=lambda kernel: (norms[kernel], kernel))
        expected = torch.ones(weight.shape, dtype=torch.bool, device=weight.device)
        for kernel in order[: round(sparsity * len(norms))]:
            expected[kernel] = False
        assert torch.equal(kernel_mask._reference(weight, sparsity), expected), case.about
        assert torch.equal(namespace["kernel_mask"](weight, sparsity), expected), case.about


def test_the_misconceptions_of_q3_lead_to_different_masks_on_the_first_input():
    arguments = kernel_mask._cases()[0].arguments
    expected = kernel_mask._reference(**arguments)
    answers = [mistake.answer(**arguments) for mistake in kernel_mask.MISTAKES]
    mistaken = [answer for answer in answers if answer.shape != expected.shape or not torch.equal(answer, expected)]
    assert len(mistaken) == len(answers) - 3  # the three of rounding matter on other inputs only
    for one, other in itertools.combinations(mistaken, 2):
        assert one.shape != other.shape or not torch.equal(one, other)


def test_the_misconceptions_of_q2_lead_to_different_norms_on_the_first_input():
    weight = filter_norms._cases()[0].arguments["weight"]
    answers = [mistake.answer(weight) for mistake in filter_norms.MISTAKES]
    for one, other in itertools.combinations([*answers, weight.abs().sum((1, 2, 3))], 2):
        assert one.shape != other.shape or not torch.allclose(one, other)


@pytest.mark.parametrize("bias", [True, False])
def test_the_count_of_q4_is_what_a_smaller_network_that_computes_the_same_saves(bias):
    torch.manual_seed(0)
    convs = [nn.Conv2d(3, 6, 3, bias=bias), nn.Conv2d(6, 10, 3, bias=bias)]
    head = nn.Linear(10 * 4, 5, bias=bias)
    kept = [torch.tensor([0, 2, 5]), torch.tensor([1, 2, 3, 8])]
    masks = [torch.zeros_like(layer.weight, dtype=torch.bool) for layer in convs]
    for mask, filters in zip(masks, kept, strict=True):
        mask[filters] = True
    masks.append(torch.ones_like(head.weight, dtype=torch.bool))

    # The masked network: dead filters are zero, bias included.
    with torch.no_grad():
        for layer, mask in zip(convs, masks, strict=False):
            layer.weight *= mask
            if bias:
                layer.bias *= mask.flatten(1).any(1)
    # The small one: built by hand.
    first, second = nn.Conv2d(3, 3, 3, bias=bias), nn.Conv2d(3, 4, 3, bias=bias)
    last = nn.Linear(4 * 4, 5, bias=bias)
    features = torch.cat([torch.arange(4) + 4 * channel for channel in kept[1]])
    with torch.no_grad():
        first.weight.copy_(convs[0].weight[kept[0]])
        second.weight.copy_(convs[1].weight[kept[1]][:, kept[0]])
        last.weight.copy_(head.weight[:, features])
        if bias:
            first.bias.copy_(convs[0].bias[kept[0]])
            second.bias.copy_(convs[1].bias[kept[1]])
            last.bias.copy_(head.bias)
    big = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), nn.Flatten(), head)
    small = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), last)
    images = torch.randn(7, 3, 6, 6)
    torch.testing.assert_close(small(images), big(images))

    saved = sum(p.numel() for p in big.parameters()) - sum(p.numel() for p in small.parameters())
    assert removable([*convs, head], masks) == saved


def test_half_of_the_filters_on_both_sides_leave_a_quarter():
    layers = [nn.Conv2d(4, 8, 3, bias=False), nn.Conv2d(8, 8, 3, bias=False)]
    masks = prunelab.prune(nn.Sequential(*layers), 0.5, granularity=units.Filter(), scope="local", apply=False)
    gone = removable(layers, [masks["0.weight"], masks["1.weight"]])
    assert gone == prod((8, 4, 9)) // 2 + prod((8, 8, 9)) * 3 // 4


@pytest.mark.parametrize(
    "source",
    [
        "lambda weight: weight.abs().sum((1, 2, 3))",
        "lambda weight: torch.linalg.vector_norm(weight, 1, (1, 2, 3))",
        "lambda weight: weight.norm(p=1, dim=(1, 2, 3))",
        "lambda weight: torch.stack([kernel.abs().sum() for kernel in weight])",
        "lambda weight: torch.einsum('oikl->o', weight.abs())",
    ],
)
def test_other_solutions_of_q2_pass(source):
    assert ex.q2.check(eval(source))


def kernel_by_kernel(weight, sparsity):
    norms = [(float(kernel.abs().sum()), o, i) for o, row in enumerate(weight) for i, kernel in enumerate(row)]
    mask = torch.ones(weight.shape, dtype=torch.bool, device=weight.device)
    for _, o, i in sorted(norms)[: round(sparsity * len(norms))]:
        mask[o, i] = False
    return mask


def by_rank(weight, sparsity):
    norms = weight.abs().mean((2, 3)).flatten()  # a mean ranks like a sum
    rank = norms.argsort(stable=True).argsort(stable=True)
    keep = rank >= round(sparsity * len(norms))
    return keep.repeat_interleave(weight[0, 0].numel()).reshape(weight.shape)


def by_the_library(weight, sparsity):
    keep = by_rank(weight, sparsity).flatten(2).any(2).flatten()
    return units.Kernel().mask(keep, weight.shape)


@pytest.mark.parametrize("answer", [kernel_by_kernel, by_rank, by_the_library])
def test_other_solutions_of_q3_pass(answer):
    assert ex.q3.check(answer)


def weight_by_weight(layers, masks):
    """Each parameter on its own: does it belong to a dead filter, or read one?"""
    count, before = 0, [False]
    for layer, mask in zip(layers, masks, strict=True):
        rows = mask.reshape(len(mask), -1).tolist()
        dead = [not any(row) for row in rows]
        for row, gone in zip(rows, dead, strict=True):
            count += gone and layer.bias is not None
            count += sum(gone or before[column * len(before) // len(row)] for column in range(len(row)))
        before = dead
    return count


def by_what_stays(layers, masks):
    """All parameters, less those of the smaller dense layers."""
    total = sum(parameter.numel() for layer in layers for parameter in layer.parameters())
    share = 1.0
    for layer, mask in zip(layers, masks, strict=True):
        alive = int(mask.flatten(1).any(1).sum())
        total -= alive * round(share * layer.weight[0].numel()) + (alive if layer.bias is not None else 0)
        share = alive / len(mask)
    return total


@pytest.mark.parametrize("answer", [weight_by_weight, by_what_stays])
def test_other_solutions_of_q4_pass(answer):
    assert ex.q4.check(answer)


def test_a_result_on_another_device_is_told_so():
    verdict = ex.q2.check(lambda weight: weight.abs().sum((1, 2, 3)).to("meta"))
    assert verdict.message.startswith("The result is on meta, but the input is on cpu.")
    verdict = ex.q3.check(lambda weight, sparsity: torch.ones(weight.shape, dtype=torch.bool, device="meta"))
    assert verdict.message.startswith("The result is on meta, but the input is on cpu.")


def test_q1_accepts_any_kind_of_number_and_pair():
    namespace: dict = {}
    exec(counts.SOLUTION, namespace)
    right = namespace["counts"]
    assert ex.q1.check({row: [float(units), members] for row, (units, members) in right.items()})
    assert ex.q1.check({row: torch.tensor(pair) for row, pair in right.items()})


def test_q4_accepts_a_tensor_and_a_whole_float():
    assert ex.q4.check(lambda layers, masks: torch.tensor(removable(layers, masks)))
    assert ex.q4.check(lambda layers, masks: float(removable(layers, masks)))
