"""The references behind the scheduling exercises, against oracles that share nothing with them."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn

from prunelab import Pruner
from prunelab.exercises.scheduling import agp_curve, bites, gone, held_steps
from prunelab.schedule import Iterative


def solved(module, name: str):
    namespace: dict = {"torch": torch}
    exec(module.SOLUTION, namespace)
    return namespace[name]


def test_the_solution_of_q1_is_what_a_pruner_removes():
    """A layer of 1000 weights, driven through all 100 steps, and counted."""
    for row, (at_50, at_100) in solved(gone, "gone").items():
        layer = nn.Linear(40, 25, bias=False)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        pruner = Pruner(layer, optimizer, schedule=gone._PLANS[row])
        counts = {}
        for step in range(1, 101):
            pruner.step()
            counts[step] = pruner.masks.removed
        assert (counts[50], counts[100]) == (at_50, at_100), row


def test_the_sparsities_of_q2_are_exact_fractions():
    agp = solved(agp_curve, "agp")
    for case in agp_curve._cases():
        step, start, end, *levels = case.arguments.values()
        initial, final = map(Fraction, levels)
        done = min(max(Fraction(step - start, end - start), Fraction(0)), Fraction(1))
        expected = float(final + (initial - final) * (1 - done) ** 3)
        assert float(agp_curve._reference(**case.arguments)) == pytest.approx(expected, abs=1e-12), case.about
        assert agp(**case.arguments) == pytest.approx(expected, abs=1e-12), case.about


def test_the_weights_of_q3_are_those_of_the_smaller_problem():
    """Held at zero, the kept weights descend as if the removed ones did not exist: rows and columns cut out."""
    for case in held_steps._cases():
        weight, buffer, mask, A, b, steps = case.arguments.values()
        small, velocity = weight[mask].double(), buffer[mask].double()
        for _ in range(steps):
            velocity = 0.9 * velocity + A[mask][:, mask].double() @ small - b[mask].double()
            small = small - 0.1 * velocity
        expected = torch.zeros_like(weight, dtype=torch.float64)
        expected[mask] = small
        for answer in (held_steps._reference, solved(held_steps, "train_held")):
            torch.testing.assert_close(answer(**case.arguments), expected, check_dtype=False, rtol=1e-4, atol=1e-5)


def test_the_misconceptions_of_q3_lead_to_different_weights_on_the_first_input():
    arguments = held_steps._cases()[0].arguments
    answers = [mistake.answer(**arguments) for mistake in held_steps.MISTAKES]
    answers.append(held_steps._reference(**arguments))
    for index, one in enumerate(answers):
        assert not any(torch.allclose(one, other) for other in answers[index + 1 :])


def test_the_bites_of_q4_are_counted_on_masks():
    """What each pruning of a layer removes, counted, over what was there before."""
    plan = Iterative(0.98, rounds=3, every=1)
    layer = nn.Linear(50, 60, bias=False)
    pruner = Pruner(layer, torch.optim.SGD(layer.parameters(), lr=0.1), schedule=Iterative(0.98, 3, start=1, every=1))
    counted, left = [], 3000
    for _ in range(3):
        pruner.step()
        now = 3000 - pruner.masks.removed
        counted.append((left - now) / left)
        left = now
    found = solved(bites, "bites")([plan(step) for step in plan.steps()])
    assert found == pytest.approx(counted, abs=1e-12)
    assert [f"{bite:.0%}" for bite in found] == ["33%", "49%", "94%"]  # as the takeaway says
    even = Iterative(0.98, rounds=3, law="geometric")
    assert {f"{bite:.0%}" for bite in solved(bites, "bites")([even(step) for step in even.steps()])} == {"73%"}
