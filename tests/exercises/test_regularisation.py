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
        weight, bias = case.arguments.values()
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], bias=bias is not None)
        conv.weight = nn.Parameter(weight.cpu())
        if bias is not None:
            conv.bias = nn.Parameter(bias.cpu())
        by_loop = 0.0
        for number, one in enumerate(weight):
            members = one.flatten().tolist() + ([] if bias is None else [float(bias[number])])
            by_loop += math.sqrt(len(members)) * math.sqrt(sum(w * w for w in members))
        for price in (GroupLasso(1.0, Filter()).penalty(conv).detach(), namespace["group_lasso"](weight, bias)):
            assert float(price) == pytest.approx(by_loop, rel=1e-5)


def test_the_step_of_q3_agrees_with_the_library() -> None:
    namespace: dict = {"torch": torch}
    exec(group_step.SOLUTION, namespace)
    for case in group_step._cases():
        matrix, sizes, t = (one.cpu() if isinstance(one, torch.Tensor) else one for one in case.arguments.values())
        expected = torch.zeros_like(matrix)
        for row, size, out in zip(matrix, sizes.tolist(), expected, strict=True):
            assert not row[size:].any()
            layer = nn.Linear(size, 1, bias=False)
            layer.weight = nn.Parameter(row[None, :size].clone())
            GroupLasso(1.0, Filter()).proximal_(layer, lr=t)
            out[:size] = layer.weight.data[0]
        for found in (namespace["proximal"](matrix, sizes, t), group_step._expected(matrix, sizes, t)):
            torch.testing.assert_close(found, expected)


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


def test_what_the_chapter_prints_does_not_answer_q2_and_q3() -> None:
    """Its functions know of no bias, and of no units that differ in size."""

    def group_price(matrix: torch.Tensor) -> torch.Tensor:
        return matrix.shape[1] ** 0.5 * matrix.norm(dim=1).sum()

    def block_soft_threshold(matrix: torch.Tensor, t: float) -> torch.Tensor:
        length = matrix.norm(dim=1, keepdim=True).clamp(min=1e-30)
        return matrix * (1 - t * matrix.shape[1] ** 0.5 / length).clamp(min=0)

    pasted = ex.q2.check(lambda weight, bias: group_price(weight.flatten(1)))
    assert "biases are missing" in str(pasted)
    pasted = ex.q3.check(lambda matrix, sizes, t: block_soft_threshold(matrix, t))
    assert "its size is in `sizes`" in str(pasted)


@pytest.mark.parametrize(
    "answer",
    [
        lambda weight, bias: sum(
            row.numel() ** 0.5 * row.norm()
            for row in (weight.flatten(1) if bias is None else torch.cat([weight.flatten(1), bias[:, None]], 1))
        ),
        lambda weight, bias: float(
            (weight[0].numel() + (bias is not None)) ** 0.5
            * torch.hypot(
                weight.flatten(1).norm(dim=1), torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias
            ).sum()
        ),
    ],
)
def test_other_solutions_of_q2_pass(answer: object) -> None:
    assert ex.q2.check(answer)


@pytest.mark.parametrize(
    "answer",
    [
        lambda matrix, sizes, t: torch.stack(
            [
                row * max(0.0, 1 - t * int(size) ** 0.5 / float(row.norm())) if row.any() else row
                for row, size in zip(matrix, sizes, strict=True)
            ]
        ),
        lambda matrix, sizes, t: (
            matrix
            - matrix
            * (t * sizes.to(matrix.dtype).sqrt()[:, None] / matrix.norm(dim=1, keepdim=True).clamp(min=1e-30)).clamp(
                max=1
            )
        ),
        lambda matrix, sizes, t: (
            torch.nn.functional.normalize(matrix, dim=1, eps=1e-30)
            * (matrix.norm(dim=1) - t * sizes.to(matrix.dtype).sqrt()).relu()[:, None]
        ),
        lambda matrix, sizes, t: (
            matrix * (1 - t * sizes[:, None] ** 0.5 / (matrix.norm(dim=1, keepdim=True) + 1e-8)).clamp(min=0)
        ),
    ],
)
def test_other_solutions_of_q3_pass(answer: object) -> None:
    assert ex.q3.check(answer)


def test_other_solutions_of_q4_pass() -> None:
    assert ex.q4.check(by_watching)
    assert ex.q4.check(lambda norm: {kind: torch.tensor(count) for kind, count in by_watching(norm).items()})
