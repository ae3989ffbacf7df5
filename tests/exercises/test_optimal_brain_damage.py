"""The references behind the exercises on Optimal Brain Damage, against oracles that share nothing with them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, mse_loss

from prunelab import curvature
from prunelab.exercises import optimal_brain_damage as ex
from prunelab.exercises.optimal_brain_damage import by_hand, kinds, shared, together


def solved(module: object) -> dict:
    namespace: dict = {"torch": torch, "nn": nn}
    exec(module.SOLUTION, namespace)  # type: ignore[attr-defined]
    return namespace


def test_q1_is_what_a_parabola_does() -> None:
    """Each row as a function of two weights, minimum and slope where the row says, evaluated before and after."""
    H, slopes = torch.tensor([[2.0, 1.0], [1.0, 4.0]]), {"(1, 0)": (1.0, 0.0), "(1, -2)": (1.0, -2.0)}
    for row, (predicted, real) in solved(by_hand)["increase"].items():
        w = torch.tensor([3.0, -1.0 if "(3, -1)" in row else 1.0])
        g = torch.tensor(next((slope for text, slope in slopes.items() if f"gradient {text}" in row), (0.0, 0.0)))
        full = H + (2 * torch.eye(2) if "decay" in row else 0)
        after = w * torch.tensor([row.startswith("w2"), row.startswith("w1")])

        def loss(v: Tensor, w: Tensor = w, g: Tensor = g, full: Tensor = full) -> Tensor:
            return g @ (v - w) + (v - w) @ full @ (v - w) / 2

        assert float(loss(after) - loss(w)) == pytest.approx(real)
        alone = [torch.tensor([0.0, float(w[1])]), torch.tensor([float(w[0]), 0.0])]
        each = [float(loss(v) - loss(w) - g @ (v - w)) for v in alone]  # the slope left out
        gone = [k for k in (0, 1) if float(after[k]) == 0]
        assert sum(each[k] for k in gone) == pytest.approx(predicted)


def test_q1_accepts_any_kind_of_pair() -> None:
    right = solved(by_hand)["increase"]
    assert ex.q1.check({row: torch.tensor(pair) for row, pair in right.items()})
    assert ex.q1.check({row: list(pair) for row, pair in right.items()})


def test_the_saliencies_of_q2_are_those_of_a_convolution() -> None:
    """A linear convolution on one example: the sum over connections, each alone, against the shared parameters' own
    curvature, where no two connections of a parameter meet in one output's square."""
    x = torch.tensor([[[1.0, -2.0, 3.0, 0.5]]], dtype=torch.float64)
    u = torch.tensor([0.5, -1.5], dtype=torch.float64, requires_grad=True)

    def loss(u: Tensor) -> Tensor:
        return conv1d(x, u.view(1, 1, 2)).square().sum() / 2

    h = torch.autograd.functional.hessian(loss, u).diag()
    connections = torch.cat([x[0, 0, k : k + 3].square() for k in (0, 1)])  # three outputs, each with its own input
    owner = torch.tensor([0, 0, 0, 1, 1, 1])
    found = solved(shared)["saliencies"](connections, owner, u.detach())
    torch.testing.assert_close(found, h * u.detach() ** 2 / 2)


def test_the_increase_of_q3_is_that_of_a_quadratic_function() -> None:
    draw = torch.Generator().manual_seed(0)
    A = torch.randn(5, 5, generator=draw, dtype=torch.float64)
    b, w = torch.randn(2, 5, generator=draw, dtype=torch.float64)
    gone = torch.tensor([True, False, True, False, True])

    def loss(v: Tensor) -> Tensor:
        return (A @ v).square().sum() + b @ v

    g, H = torch.autograd.functional.jacobian(loss, w), torch.autograd.functional.hessian(loss, w)
    exact = loss(w * ~gone) - loss(w)
    torch.testing.assert_close(solved(together)["expected_increase"](g, H, w, gone), exact)
    torch.testing.assert_close(together._correct(g, H, w, gone), exact)


def test_the_suspects_of_q4_are_what_they_are_called() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2), nn.Linear(2, 2)).double()
    x, y = torch.randn(2, 7, 2, dtype=torch.float64)
    found = {
        kind: torch.cat([v.flatten() for v in kinds.Suspect(kind)(model, [(x, y)]).values()]) for kind in kinds.KINDS
    }
    full = curvature.hessian(model, [(x, y)], mse_loss).diag()
    torch.testing.assert_close(found["exact"], full)
    torch.testing.assert_close(found["gauss-newton"], curvature.gauss_newton(model, [(x, y)], mse_loss).diagonal())
    torch.testing.assert_close(found["fisher"], curvature.empirical_fisher(model, [(x, y)], mse_loss).diagonal())
    for index, one in enumerate(found.values()):
        assert not any(torch.allclose(one, other) for other in list(found.values())[index + 1 :])


def test_q4_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    ex.q4.check(lambda diagonal: str(nn.Linear(3, 3)))
    assert torch.equal(torch.rand(2), expected)
