"""A wrong answer to a granularity exercise hears of its own mistake, and not of another that looks alike."""

from __future__ import annotations

import math
import re

import pytest
import torch

from prunelab.exercises import granularity as ex
from prunelab.exercises.granularity import kernel_mask
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
