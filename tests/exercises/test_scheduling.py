"""The references behind the scheduling exercises, against oracles that share nothing with them."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn

from prunelab import Pruner
from prunelab.exercises.scheduling import bites, gone, held_steps, power_curve
from prunelab.schedule import AGP, Iterative, Linear


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
    gradual = solved(power_curve, "gradual")
    for case in power_curve._cases():
        step, start, end, *levels, power = case.arguments.values()
        initial, final = map(Fraction, levels)
        done = min(max(Fraction(step - start, end - start), Fraction(0)), Fraction(1))
        expected = float(final + (initial - final) * (1 - done) ** power)
        assert float(power_curve._reference(**case.arguments)) == pytest.approx(expected, abs=1e-12), case.about
        assert gradual(**case.arguments) == pytest.approx(expected, abs=1e-12), case.about


@pytest.mark.parametrize(("power", "schedule"), [(1, Linear), (3, AGP)])
def test_q2_is_the_schedule_of_the_library(power, schedule):
    plan = schedule(0.84, 10, 90, initial=0.1)
    for step in range(0, 120, 7):
        assert float(power_curve._reference(step, 10, 90, 0.1, 0.84, power)) == pytest.approx(plan(step), abs=1e-12)


def test_the_curves_of_q2_go_at_the_pace_of_the_derivation():
    """dr/dt = -m r / (T - t), by finite differences: what is missing shrinks m times as fast as just in time."""
    gradual = solved(power_curve, "gradual")
    for power in (0.5, 1, 2, 3):
        for step in (20.0, 50.0, 80.0):
            before, after = (gradual(step + by, 10, 90, 0.1, 0.84, power) for by in (-1e-4, 1e-4))
            missing = 0.84 - gradual(step, 10, 90, 0.1, 0.84, power)
            assert (after - before) / 2e-4 == pytest.approx(power * missing / (90 - step), rel=1e-6)


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
    plan = Iterative(0.96, rounds=4, every=1)
    layer = nn.Linear(50, 60, bias=False)
    pruner = Pruner(layer, torch.optim.SGD(layer.parameters(), lr=0.1), schedule=Iterative(0.96, 4, start=1, every=1))
    counted, left = [], 3000
    for _ in range(4):
        pruner.step()
        now = 3000 - pruner.masks.removed
        counted.append((left - now) / left)
        left = now
    found = solved(bites, "bites")([plan(step) for step in plan.steps()])
    assert found == pytest.approx(counted, abs=1e-12)
    assert [f"{bite:.0%}" for bite in found] == ["24%", "32%", "46%", "86%"]  # as the takeaway says
    even = Iterative(0.96, rounds=4, law="geometric")
    assert {f"{bite:.0%}" for bite in solved(bites, "bites")([even(step) for step in even.steps()])} == {"55%"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_q4_takes_a_right_answer_in_either_precision(dtype):
    def answer(sparsities):
        after = torch.tensor(sparsities, dtype=dtype)
        before = torch.cat([torch.zeros(1, dtype=dtype), after])[:-1]
        return ((after - before) / (1 - before)).nan_to_num(0.0) if len(after) else after

    assert bites.QUESTION.check(answer)


@pytest.mark.parametrize("there", ["1.0", "0.5", "float('nan')", "float('inf')"])
def test_q4_blames_the_fraction_of_nothing_and_nothing_else(there):
    """Right but for the place where nothing was left: on [0.5, 1, 1] a 1.0 there looks like the sparsities."""
    namespace: dict = {}
    exec(bites.SOLUTION.replace("else 0.0", f"else {there}"), namespace)
    verdict = bites.QUESTION.check(namespace["bites"])
    assert verdict.message == "Where nothing was left the fraction is 0.0."
