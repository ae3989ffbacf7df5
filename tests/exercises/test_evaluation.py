"""The references behind the exercises on evaluation, against oracles that share nothing with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from prunelab.evaluate import report
from prunelab.exercises import evaluation as ex
from prunelab.exercises.evaluation import conv_macs, counts, paired, suspects


def solved(module):
    namespace: dict = {"torch": torch, "nn": nn}
    exec(module.SOLUTION, namespace)
    return namespace[module.QUESTION.answer]


def cases(module):
    return [pytest.param(case.arguments, id=case.about) for case in module._cases()]


def test_the_counts_of_q1_written_out_by_hand():
    assert solved(counts) == {
        "Linear(20, 5)": (105, 100),
        "Linear(20, 5, bias=False), 7 vectors": (100, 700),
        "Conv2d(4, 8, 3, padding=1)": (296, 28_800),
        "Conv2d(4, 8, 3)": (296, 18_432),
        "Conv2d(4, 8, 3, padding=1, stride=2)": (296, 7_200),
        "Conv2d(4, 8, 3, padding=1, groups=4)": (80, 7_200),
        "Conv2d(4, 8, 1), half of its weights zero": (40, 3_200),
        "BatchNorm2d(8)": (16, 0),
    }


def test_zeros_of_q1_are_held_and_run():
    conv = nn.Conv2d(4, 8, 1)
    conv.weight.data[:4] = 0
    found = report(conv, torch.zeros(1, 4, 10, 10))
    assert (found.params, found.macs) == solved(counts)["Conv2d(4, 8, 1), half of its weights zero"]


@pytest.mark.parametrize("case", cases(conv_macs))
def test_the_macs_of_q2_are_multiplications_that_are_really_there(case):
    conv, shape = case["conv"], case["shape"]
    ones = nn.utils.skip_init(
        nn.Conv2d, conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, (0, 0), conv.dilation,
        conv.groups, bias=False, dtype=torch.float64,
    )  # fmt: skip
    nn.init.ones_(ones.weight)
    high, wide = conv.padding
    padded = torch.ones(shape[0], shape[1], shape[2] + 2 * high, shape[3] + 2 * wide, dtype=torch.float64)
    assert solved(conv_macs)(conv, shape) == int(ones(padded).sum())  # every product is 1


def test_q2_lets_one_find_out_instead_of_computing():
    def by_running(conv, shape):
        return conv(torch.zeros(shape))[:, 0].numel() * conv.weight.numel()

    assert ex.q2.check(by_running)
    assert ex.q2.check(lambda conv, shape: torch.tensor(float(by_running(conv, shape))))


@pytest.mark.parametrize("case", cases(paired)[:-1])
def test_the_interval_of_q3_is_scipys(case):
    ours, theirs = case["ours"], case["theirs"]
    common = sorted(ours.keys() & theirs.keys())
    a, b = ([scores[seed] for seed in common] for scores in (ours, theirs))
    mean, half = solved(paired)(ours, theirs)
    assert mean == pytest.approx(np.mean(a) - np.mean(b), abs=1e-12)
    if np.ptp(np.subtract(a, b)) == 0:
        assert half == 0
    else:
        low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
        assert (mean - half, mean + half) == pytest.approx((low, high))
    assert np.allclose(paired._reference(ours, theirs), (mean, half))


def test_students_quantile_of_q3_is_scipys():
    for degrees in (1, 2, 4, 9):
        assert paired._quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees))


def test_q3_takes_a_pair_of_any_kind_and_infinity_for_one_seed():
    solve = solved(paired)
    assert ex.q3.check(lambda ours, theirs: torch.tensor(solve(ours, theirs), dtype=torch.float64))
    assert ex.q3.check(lambda ours, theirs: list(map(np.float64, solve(ours, theirs))))
    assert not ex.q3.check(lambda ours, theirs: (solve(ours, theirs)[0], math.nan))
    assert "other order" in ex.q3.check(lambda a, b: paired._by_position(a, b).tolist()).case.replace(
        "another", "other"
    )


def test_the_six_numbers_of_q4_on_a_layer_worked_out_by_hand():
    weight, bias = torch.ones(3, 4), torch.ones(3)
    weight[0], bias[0] = 0, 0  # 15 parameters, 10 of them not zero; 12 and 8; 3 and 2
    found = {kind: suspects.Suspect(kind)(weight, bias) for kind in suspects.KINDS}
    right = {
        "compression ratio": 1.5,
        "kept fraction": 2 / 3,
        "sparsity": 1 / 3,
        "percent removed": 100 / 3,
        "weights only": 1.5,
        "mean of ratios": 1.5,
    }
    assert found == pytest.approx(right)
    assert suspects.Suspect("percent removed", decimals=1)(weight, bias) == 33.3


def test_q4_can_be_solved_by_experiments_alone():
    def identify(metric):
        whole, zeros = metric(torch.ones(10, 10), torch.ones(10)), torch.zeros(10, 10)
        zeros[0, 0] = 1
        if whole == 0:
            return "percent removed" if metric(zeros, torch.ones(10)) > 1 else "sparsity"
        if metric(zeros, torch.ones(10)) < 1:
            return "kept fraction"
        half = torch.cat([torch.zeros(5), torch.ones(5)])
        if metric(zeros, torch.ones(10)) == metric(zeros, half):
            return "weights only"
        return "mean of ratios" if metric(torch.ones(99, 10), torch.eye(99)[0]) > 10 else "compression ratio"

    assert ex.q4.check(identify)


def test_every_confusion_of_q4_has_a_reason():
    pairs = {(named, kind) for named, *kinds in suspects.WHY for kind in kinds}
    assert pairs == {(a, b) for a in suspects.KINDS for b in suspects.KINDS if a != b}
