"""The references behind the regularisation exercises, against oracles that share nothing with them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from prunelab.exercises import regularisation as ex
from prunelab.exercises.regularisation import group_price, group_step, one_step, slimmed
from prunelab.granularity import Filter
from prunelab.regularize import GroupLasso


def test_the_solution_of_q1_minimises_what_defines_the_step() -> None:
    """Against a fine grid: ½(x - v)² plus the price, weight by weight for L2 and L1, along the unit for group lasso."""
    namespace: dict = {}
    exec(one_step.SOLUTION, namespace)
    grid = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    for row, pair in namespace["after"].items():
        rule, unit = row.split(", ")
        values = one_step._VALUES[unit]
        if rule == "group lasso":
            length = math.hypot(*values)
            shorter = grid[(0.5 * (grid - length) ** 2 + 2 * grid.abs()).argmin()].item()
            expected = [value * shorter / length for value in values[:2]]
        else:
            price = grid.abs() if rule == "L1" else grid.square() / 2
            expected = [grid[(0.5 * (grid - value) ** 2 + price).argmin()].item() for value in values[:2]]
        assert list(pair) == pytest.approx(expected, abs=1e-3)


def test_q1_accepts_rounded_numbers_and_any_kind_of_pair() -> None:
    namespace: dict = {}
    exec(one_step.SOLUTION, namespace)
    right = namespace["after"]
    assert ex.q1.check({row: [round(float(one), 2) for one in pair] for row, pair in right.items()})
    assert ex.q1.check({row: torch.tensor(pair) for row, pair in right.items()})


def test_the_price_of_q2_agrees_with_the_library_and_with_a_loop() -> None:
    namespace: dict = {}
    exec(group_price.SOLUTION, namespace)
    for case in group_price._cases():
        weight = case.arguments["weight"].cpu()
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], bias=False)
        conv.weight = nn.Parameter(weight)
        by_loop = sum(math.sqrt(one.numel()) * math.sqrt(sum(w * w for w in one.flatten().tolist())) for one in weight)
        for price in (GroupLasso(1.0, Filter()).penalty(conv).detach(), namespace["group_lasso"](weight)):
            assert float(price) == pytest.approx(by_loop, rel=1e-5)


def test_the_step_of_q3_agrees_with_the_library() -> None:
    namespace: dict = {"torch": torch}
    exec(group_step.SOLUTION, namespace)
    for case in group_step._cases():
        matrix, t = case.arguments.values()
        layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
        layer.weight = nn.Parameter(matrix.cpu().clone())
        GroupLasso(1.0, Filter()).proximal_(layer, lr=t)
        for found in (namespace["proximal"](matrix.cpu(), t), group_step._expected(matrix.cpu(), t)):
            torch.testing.assert_close(found, layer.weight.data)


def test_the_misconceptions_of_q2_and_q3_lead_to_different_results_on_the_first_input() -> None:
    for exercise in (group_price, group_step):
        arguments = exercise._cases()[0].arguments
        answers = [mistake.answer(**arguments) for mistake in exercise.MISTAKES]
        for one, other in itertools.combinations(answers, 2):
            assert one.shape != other.shape or not torch.allclose(one, other)


def test_the_kinds_of_q4_are_what_the_network_outputs() -> None:
    """Feed noise through the normalisation and a ReLU, and look: the answer without looking at scale or shift."""
    namespace: dict = {}
    exec(slimmed.SOLUTION, namespace)
    draw = torch.Generator().manual_seed(0)
    kinds = set()
    for case in slimmed._cases():
        norm = case.arguments["norm"]
        with torch.no_grad():
            out = torch.relu(norm(100 * torch.randn(256, norm.num_features, 3, 3, generator=draw)))
        out = out.transpose(0, 1).flatten(1)  # (channels, samples)
        same = (out == out[:, :1]).all(1)
        seen = {
            "alive": int((~same).sum()),
            "constant": int((same & (out[:, 0] > 0)).sum()),
            "silent": int((same & (out[:, 0] == 0)).sum()),
        }
        assert namespace["slimmed"](norm) == seen, case.about
        kinds |= {kind for kind, count in seen.items() if count}
    assert kinds == set(slimmed.KINDS)


def by_watching(norm: nn.BatchNorm2d) -> dict[str, int]:
    counts = {"alive": 0, "constant": 0, "silent": 0}
    for scale, shift in zip(norm.weight.tolist(), norm.bias.tolist(), strict=True):
        counts["alive" if scale else "constant" if shift > 0 else "silent"] += 1
    return counts


@pytest.mark.parametrize(
    "answer",
    [
        lambda weight: sum(f.numel() ** 0.5 * f.norm() for f in weight),
        lambda weight: float(torch.linalg.vector_norm(weight, dim=(1, 2, 3)).sum() * weight[0].numel() ** 0.5),
        lambda weight: ((weight**2).mean((1, 2, 3)) ** 0.5).sum() * weight[0].numel(),
    ],
)
def test_other_solutions_of_q2_pass(answer: object) -> None:
    assert ex.q2.check(answer)


@pytest.mark.parametrize(
    "answer",
    [
        lambda matrix, t: torch.stack(
            [row * max(0.0, 1 - t * len(row) ** 0.5 / float(row.norm())) if row.any() else row for row in matrix]
        ),
        lambda matrix, t: (
            matrix
            - matrix * (t * matrix.shape[1] ** 0.5 / matrix.norm(dim=1, keepdim=True).clamp(min=1e-30)).clamp(max=1)
        ),
        lambda matrix, t: (
            torch.nn.functional.normalize(matrix, dim=1, eps=1e-30)
            * (matrix.norm(dim=1) - t * matrix.shape[1] ** 0.5).relu()[:, None]
        ),
    ],
)
def test_other_solutions_of_q3_pass(answer: object) -> None:
    assert ex.q3.check(answer)


def test_other_solutions_of_q4_pass() -> None:
    assert ex.q4.check(by_watching)
    assert ex.q4.check(lambda norm: {kind: torch.tensor(count) for kind, count in by_watching(norm).items()})
