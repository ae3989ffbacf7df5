"""The references behind the exercises on Optimal Brain Surgeon, against oracles that share nothing with them."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from prunelab import obs
from prunelab.curvature import inverse_hessian
from prunelab.curvature.inverse import ShrinkingInverse
from prunelab.exercises import optimal_brain_surgeon as ex
from prunelab.exercises.optimal_brain_surgeon import groups, shrunk, suspects, three_weights
from prunelab.granularity import Layer


def solved(module):
    namespace: dict = {"torch": torch, "nn": nn}
    exec(module.SOLUTION, namespace)
    return namespace[module.QUESTION.answer]


def cases(module):
    return [pytest.param(case.arguments, id=case.about) for case in module._cases()]


def rise(hessian: Tensor, step: Tensor) -> float:
    return float(step @ hessian @ step) / 2


def test_the_outcomes_of_q1_written_out_by_hand():
    expected = {
        "magnitude": (1, 250),
        "Damage": (3, 216),
        "Surgeon": (2, 48.4),
        "magnitude's choice, repaired": (1, 50),
        "Damage's choice, repaired": (3, 216),
        "Surgeon's choice, not repaired": (2, 242),
        "weights 1 and 3 after Surgeon": (18.8, 12),
    }
    found = solved(three_weights)
    assert found.keys() == expected.keys()
    for row, pair in expected.items():
        assert found[row] == pytest.approx(pair)
        assert three_weights._right()[row] == pytest.approx(pair)


def test_the_rises_of_q1_are_those_of_the_quadratic():
    weights, hessian = three_weights._problem()
    assert torch.allclose(torch.linalg.inv(hessian), torch.tensor([[1, -1, 0], [-1, 1.25, 0], [0, 0, 1 / 3]]).double())
    for q, row in ((0, "magnitude"), (2, "Damage"), (1, "Surgeon's choice, not repaired")):
        step = torch.zeros(3, dtype=torch.float64)
        step[q] = -weights[q]
        assert solved(three_weights)[row] == pytest.approx((q + 1, rise(hessian, step)))
    after = torch.tensor([18.8, 0.0, 12.0], dtype=torch.float64)
    assert rise(hessian, after - weights) == pytest.approx(solved(three_weights)["Surgeon"][1])


@pytest.mark.parametrize("case", cases(groups))
def test_no_other_weights_without_the_group_of_q2_are_lower(case):
    weights, group = case["weights"], case["group"]
    hessian = torch.linalg.inv(case["inverse"])
    after = solved(groups)(**case)
    assert not after[group].any()
    slope = hessian @ (after - weights)  # of the quadratic, where one may still move
    left = [q for q in range(len(weights)) if q not in group.tolist()]
    assert slope[left].abs().sum() < 1e-9
    torch.testing.assert_close(groups._reference(**case), after, rtol=0, atol=1e-9)


def test_q2_is_what_the_library_does_with_a_whole_layer():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)).double()
    x = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    data, flat = [(x, x[:, :1])], torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    run = obs(model, data, nn.functional.mse_loss, 8, granularity=Layer(), exclude="0.*", damping=0.5, weight_decay=1.0)
    inverse = inverse_hessian(model, data, nn.functional.mse_loss, 0.5, weight_decay=1.0)
    expected = solved(groups)(flat, inverse, torch.arange(8, 11))
    found = torch.cat([p.detach().reshape(-1) for p in run.model.parameters()])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("case", cases(shrunk))
def test_the_inverse_of_q3_is_the_librarys_shrinking_one(case):
    inverse, gone = case["inverse"], case["gone"]
    library = ShrinkingInverse(inverse)
    library.remove(torch.tensor([gone]), torch.ones(1, dtype=torch.float64))
    left = torch.tensor([q for q in range(len(inverse)) if q != gone], dtype=torch.long)
    torch.testing.assert_close(solved(shrunk)(inverse, gone), library.block(left), rtol=0, atol=1e-12)
    torch.testing.assert_close(shrunk._reference(inverse, gone), library.block(left), rtol=0, atol=1e-9)


def test_q3_refuses_whoever_inverts_after_all():
    assert "n³ operations" in str(ex.q3.check(shrunk._reference))

    def inverts_alone(inverse, gone):
        left = torch.arange(len(inverse)) != gone
        return torch.cholesky_inverse(torch.linalg.cholesky(inverse.inverse()[left][:, left]))

    verdict = ex.q3.check(inverts_alone)
    assert not verdict
    assert "n³ operations" in str(verdict)


def test_the_programs_of_q4_do_what_their_names_say():
    weights = torch.tensor([10.0, 11.0, 11.6], dtype=torch.float64)
    hessian = torch.tensor([[5.0, 4.0, 0.5], [4.0, 4.0, 0.5], [0.5, 0.5, 3.0]], dtype=torch.float64)
    gone = {"magnitude": 0, "Damage": 2, "Surgeon": 1}
    for kind, damping in itertools.product(suspects.KINDS, (0.0, 0.01)):
        choice, what = kind.split(", ")
        after = suspects.Suspect(kind, damping)(weights, hessian)
        assert (after == 0).nonzero()[:, 0].tolist() == [gone[choice]]
        left = after != 0
        assert torch.equal(after[left], weights[left]) == (what == "not repaired")
    best = min(rise(hessian, suspects.Suspect(kind)(weights, hessian) - weights) for kind in suspects.KINDS)
    surgeon = suspects.Suspect("Surgeon, repaired")(weights, hessian)
    assert rise(hessian, surgeon - weights) == pytest.approx(best)
