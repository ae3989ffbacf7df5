"""A wrong answer to a granularity exercise hears of its own mistake, and not of another that looks alike."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn

from prunelab.exercises import granularity as ex
from prunelab.exercises.granularity import dead_channels, kernel_mask
from prunelab.exercises.granularity.dead_channels_count import EXPLANATIONS, removable
from prunelab.exercises.outcome import Wrong


def reasons(answer, cases):
    """What q3 says of each case that the answer fails, whichever comes first."""
    found = {}
    for case in cases:
        try:
            kernel_mask._judge(answer(**case.arguments), **case.arguments)
        except Wrong as finding:
            found[case.about] = finding.reason
    return found


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (lambda exact: math.ceil(exact), "`ceil` always rounds up"),
        (lambda exact: math.floor(exact), "cut it off"),
        (lambda exact: math.floor(exact + 0.5), "ends in one half"),
        (lambda exact: math.ceil(exact - 0.5), "ends in one half"),
    ],
    ids=["ceil", "floor", "half up", "half down"],
)
def test_q3_hears_of_the_rounding_before_any_pattern(count, message):
    """Also where the kernels that go happen to be whole filters."""

    def answer(weight, sparsity):
        norms = weight.abs().sum((2, 3)).flatten()
        keep = torch.ones_like(norms, dtype=torch.bool)
        keep[norms.argsort(stable=True)[: count(sparsity * len(norms))]] = False
        return keep.reshape(*weight.shape[:2], 1, 1).expand(weight.shape)

    verdict = ex.q3.check(answer)
    assert message in verdict.message
    several = [case for case in kernel_mask._cases() if len(case.arguments["weight"].unique()) > 9]
    for about, reason in reasons(answer, several).items():
        assert message in reason or "half" in about, about  # at a half several explain the same mask


def test_q3_tells_an_order_among_equals_from_a_wrong_ranking():
    def unstable(weight, sparsity):
        """As a sort that leaves equals in any order."""
        norms = weight.abs().sum((2, 3)).flatten()
        shuffled = torch.randperm(len(norms), generator=torch.Generator().manual_seed(1))
        order = shuffled[norms[shuffled].argsort(stable=True)]
        keep = torch.ones_like(norms, dtype=torch.bool)
        keep[order[: round(sparsity * len(norms))]] = False
        return keep.reshape(*weight.shape[:2], 1, 1).expand(weight.shape)

    verdict = ex.q3.check(unstable)
    assert verdict.case == "many kernels of the same norm"
    assert "among kernels of equal norm the wrong ones go" in verdict.message
    found = reasons(unstable, kernel_mask._cases())
    assert len(found) == 3
    assert all("among kernels of equal norm the wrong ones go" in reason for reason in found.values())


def test_the_call_that_failed_can_be_repeated_with_names_of_ones_own():
    def mask_of(w, s):
        return torch.ones_like(w, dtype=torch.bool)

    verdict = ex.q3.check(mask_of)
    call = re.search("`(kernel_mask[^`]*)` repeats", verdict.advice)[1]
    assert eval(call, {"ex": ex, "kernel_mask": mask_of}).shape == verdict.arguments["weight"].shape


def test_each_misconception_of_q4_has_a_count_of_its_own_where_it_fails_first():
    cases = [case.arguments for case in dead_channels._cases()]
    right = [removable(**arguments) for arguments in cases]
    counts = {mistake: [removable(**arguments, mistake=mistake) for arguments in cases] for mistake in EXPLANATIONS}
    counts["zeros"] = [sum(int((~mask).sum()) for mask in arguments["masks"]) for arguments in cases]
    parameters = [sum(p.numel() for layer in case["layers"] for p in layer.parameters()) for case in cases]
    counts["stays"] = [every - gone for every, gone in zip(parameters, right, strict=True)]
    fails = {
        mistake: next(i for i, (one, other) in enumerate(zip(found, right, strict=True)) if one != other)
        for mistake, found in counts.items()
    }
    assert len({(case, counts[mistake][case]) for mistake, case in fails.items()}) == len(counts)
    # No other mistake that has come as far is blamed for it.
    for mistake, case in fails.items():
        alike = [m for m in counts if counts[m][case] == counts[mistake][case] and fails[m] >= case]
        assert alike == [mistake]


def hand_count(layers, masks, *, dead):
    """All filters that `dead` names, with their readers; the rest of the bookkeeping is right."""
    count, before = 0, [False]
    for layer, mask, gone in zip(layers, masks, dead, strict=True):
        for row, is_gone in zip(mask.flatten(1).tolist(), gone, strict=True):
            count += is_gone and layer.bias is not None
            count += sum(is_gone or before[column * len(before) // len(row)] for column in range(len(row)))
        before = gone
    return count


def own(masks):
    return [[not row.any() for row in mask] for mask in masks]


def without_the_last_layer(layers, masks):
    return hand_count(layers, masks, dead=[*own(masks[:-1]), [False] * len(masks[-1])])


def with_the_unread(layers, masks):
    dead = own(masks)
    for gone, mask in zip(dead, masks[1:], strict=False):
        read = mask.flatten(1).any(0).reshape(len(gone), -1).any(1)
        gone[:] = [is_gone or not is_read for is_gone, is_read in zip(gone, read.tolist(), strict=True)]
    return hand_count(layers, masks, dead=dead)


def with_the_cascade(layers, masks):
    dead = own(masks)
    for before, gone, mask in zip(dead, dead[1:], masks[1:], strict=False):
        parts = mask.reshape(len(mask), len(before), -1).any(2)  # (O, channels): does it keep a reader?
        gone[:] = [not any(k and not b for k, b in zip(row, before, strict=True)) for row in parts.tolist()]
    return hand_count(layers, masks, dead=dead)


def without_linear_layers(layers, masks):
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    return hand_count(convs, masks[: len(convs)], dead=own(masks[: len(convs)]))


def without_the_flatten(layers, masks):
    """Each kind of layer is a chain of its own: nothing passes from a convolution to a Linear layer."""
    convs = sum(isinstance(layer, nn.Conv2d) for layer in layers)
    chains = (slice(convs), slice(convs, None))
    return sum(hand_count(layers[part], masks[part], dead=own(masks[part])) for part in chains)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (without_the_last_layer, "The last layer's dead outputs are not counted"),
        (with_the_unread, "because nobody reads it"),
        (with_the_cascade, "because the channels that it reads are"),
        (without_linear_layers, "Only the convolutions are counted"),
        (without_the_flatten, "also right after a Flatten"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_q4_names_the_rule_that_was_read_differently(answer, message):
    verdict = ex.q4.check(answer)
    assert not verdict
    assert message in verdict.message


def test_q4_tells_how_many_are_dead_where_it_knows_no_better():
    verdict = ex.q4.check(lambda layers, masks: removable(layers, masks) + 1)
    assert verdict.message.endswith(
        "too large. Of the outputs of these layers, in order, 3 of 6, 5 of 10, 0 of 5 are dead."
    )


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_prediction_that_q4_compares_with_is_right(share):
    assert "Compare with your prediction" in ex.q4.material.takeaway
    assert "1 - (1 - s)²" in ex.q4.material.takeaway
    convs = [nn.Conv2d(8, 8, 1, bias=False), nn.Conv2d(8, 12, 1, bias=False)]
    filters = [torch.arange(n).reshape(n, 1, 1, 1) >= share * n for n in (8, 12)]
    masks = [kept.expand(conv.weight.shape) for kept, conv in zip(filters, convs, strict=True)]
    assert removable(convs, masks) == share * 64 + (1 - (1 - share) ** 2) * 96
    columns = [torch.arange(8).reshape(1, 8, 1, 1) >= share * 8] * 2  # scattered: as many zeros, no row without any
    masks = [kept.expand(conv.weight.shape) for kept, conv in zip(columns, convs, strict=True)]
    assert removable(convs, masks) == 0
