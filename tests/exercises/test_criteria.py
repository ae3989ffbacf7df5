"""The references behind the exercises on criteria, against oracles that share nothing with them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

import prunelab
from prunelab import criteria as library
from prunelab import granularity as units
from prunelab.exercises import criteria as ex
from prunelab.exercises.criteria import correlation, information, needs, suspects, taylor


def solved(module, name):
    namespace: dict = {"torch": torch}
    exec(module.SOLUTION, namespace)
    return namespace[name]


def test_the_table_of_q1_is_what_changing_one_argument_shows():
    draw = torch.Generator().manual_seed(0)
    weights, gradients, other = torch.randn(3, 6, 8, generator=draw)
    means, labels = torch.randn(40, 6, generator=draw), torch.randint(0, 3, (40,), generator=draw)
    statistics = library.Activations(means, means, means, labels)
    filled_in = solved(needs, "needs")
    judges = {
        "Weight Magnitude": (library.Magnitude(), None),
        "Filter Correlation": (library.FilterCorrelation(), None),
        "Gradient Magnitude": (library.GradientMagnitude(), None),
        "Taylor Expansion": (library.Taylor(), None),
        "Mutual Information": (library.MutualInformation(), statistics),
        "Gradients, Hubens 2020": (library.Taylor(joint=False), None),
        "Wanda": (library.Wanda(), means[:8].abs().T),
        "Random": (library.Random(), None),
    }
    assert list(judges) == list(filled_in)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(3 * 4, 2))
    for row, (criterion, seen) in judges.items():
        before = criterion.score(weights, gradients, seen)
        found = {
            "weights": not torch.equal(before, criterion.score(other, gradients, seen)),
            "gradients": not torch.equal(before, criterion.score(weights, other, seen)),
        }
        try:
            prunelab.score(model, criterion, units.Filter())
        except ValueError as error:
            found["data"] = "data=" in str(error)
        assert filled_in[row] == {"data": False} | found, row


def test_every_cell_of_q1_has_its_own_question():
    assert set(needs.WHY) == set(itertools.product(solved(needs, "needs"), needs.COLUMNS))
    assert len(set(needs.WHY.values())) == len(needs.WHY)


def test_q1_takes_ones_and_zeros():
    answer = {row: {c: int(v) for c, v in line.items()} for row, line in solved(needs, "needs").items()}
    assert ex.q1.check(answer)


def test_the_score_of_q2_is_the_slope_of_a_gate_on_each_filter():
    conv = nn.Conv2d(3, 5, 3, bias=False).double()
    images = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    gates = torch.ones(5, dtype=torch.float64, requires_grad=True)

    def loss(weight):
        return torch.nn.functional.conv2d(images, weight).square().mean()

    (slopes,) = torch.autograd.grad(loss(conv.weight * gates.reshape(5, 1, 1, 1)), gates)
    (gradient,) = torch.autograd.grad(loss(conv.weight), conv.weight)
    found = solved(taylor, "taylor_scores")(conv.weight.detach(), gradient)
    torch.testing.assert_close(found, slopes.abs())


@pytest.mark.parametrize(
    "source",
    [
        "lambda weight, gradient: (weight * gradient).sum((1, 2, 3)).abs()",
        "lambda weight, gradient: torch.einsum('oikl,oikl->o', weight, gradient).abs()",
        "lambda w, g: torch.stack([torch.dot(a.flatten(), b.flatten()).abs() for a, b in zip(w, g)])",
    ],
)
def test_other_solutions_of_q2_pass(source):
    assert ex.q2.check(eval(source))


def test_the_correlations_of_q3_are_numpys():
    for case in correlation._cases():
        weight = case.arguments["weight"]
        with np.errstate(invalid="ignore", divide="ignore"):
            theirs = np.atleast_2d(np.corrcoef(weight.flatten(1).double().numpy()))
        matrix = weight.flatten(1)
        idle = (matrix == matrix[:, :1]).all(1).numpy()
        theirs[idle], theirs[:, idle] = 0, 0
        for found in (correlation._reference(weight), solved(correlation, "correlation")(weight)):
            np.testing.assert_allclose(found.numpy(), np.abs(theirs), atol=1e-5, err_msg=case.about)


def pair_by_pair(weight):
    rows = weight.flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    found = torch.zeros(len(rows), len(rows), dtype=weight.dtype)
    for i, j in itertools.product(range(len(rows)), repeat=2):
        lengths = rows[i].norm() * rows[j].norm()
        found[i, j] = (rows[i] @ rows[j] / lengths).abs() if lengths > 1e-6 else 0
    return found


def by_corrcoef(weight):
    return torch.corrcoef(weight.flatten(1)).abs().nan_to_num(0).reshape(len(weight), len(weight))


def by_standard_scores(weight):
    rows = weight.flatten(1)
    deviation = rows.std(1, correction=0, keepdim=True)
    scores = (rows - rows.mean(1, keepdim=True)) / deviation.clamp(min=1e-6)
    found = (scores @ scores.T / rows.shape[1]).abs()
    return found * (deviation > 1e-6) * (deviation > 1e-6).T


@pytest.mark.parametrize("answer", [pair_by_pair, by_standard_scores])
def test_other_solutions_of_q3_pass(answer):
    assert ex.q3.check(answer)


def test_rounding_errors_of_a_constant_filter_are_no_deviation():
    verdict = ex.q3.check(by_corrcoef)
    assert verdict.case == "all weights of one filter are the same"
    assert "Its mean is rounded" in verdict.message


def test_the_information_of_q4_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    found = solved(information, "mutual_information")
    for case in information._cases():
        counts = case.arguments["counts"]
        pairs = [(x, y) for (x, y), n in np.ndenumerate(counts.numpy()) for _ in range(n)]
        theirs = metrics.mutual_info_score(*zip(*pairs, strict=True))
        assert information._reference(counts) == pytest.approx(theirs, abs=1e-9), case.about
        assert found(counts) == pytest.approx(theirs, abs=1e-9), case.about


def by_conditional_entropies(counts):
    joint = counts.double() / counts.sum()
    total = 0.0
    for row in joint:
        for column, cell in enumerate(row):
            if cell > 0:
                total += float(cell) * math.log(float(cell) / (float(row.sum()) * float(joint[:, column].sum())))
    return total


@pytest.mark.parametrize(
    "answer",
    [
        by_conditional_entropies,
        lambda counts: torch.tensor(by_conditional_entropies(counts)),
        lambda counts: np.float32(by_conditional_entropies(counts)),
    ],
)
def test_other_solutions_of_q4_pass(answer):
    assert ex.q4.check(answer)


def test_the_suspects_of_q5_are_what_they_are_called_and_every_confusion_is_explained():
    draw = torch.Generator().manual_seed(0)
    weights, gradients = torch.randn(2, 7, 4, generator=draw)
    truth = {
        "magnitude": library.Magnitude(),
        "gradient": library.GradientMagnitude(),
        "taylor": library.Taylor(),
        "members": library.Taylor(joint=False),
    }
    for kind in suspects.KINDS:
        scores = suspects.Suspect(kind)(weights, gradients)
        if kind in truth:
            torch.testing.assert_close(scores, truth[kind].score(weights, gradients, None))
        else:
            torch.testing.assert_close(scores, torch.stack([w @ g for w, g in zip(weights, gradients, strict=True)]))
        relative = suspects.Suspect(kind, scale=2.0, relative=True)(weights, gradients)
        torch.testing.assert_close(relative, 2 * scores / scores.abs().max())
    for named, kind in itertools.permutations(suspects.KINDS, 2):
        whys = [key for key in suspects.WHY if key[0] == named and kind in key[1:]]
        assert len(whys) == 1, (named, kind)


def by_random_probes(score):
    """Ranks each suspect's scores of random units against those of all five kinds."""
    draw = torch.Generator().manual_seed(1)
    weights, gradients = torch.randn(2, 50, 3, generator=draw)
    found = score(weights, gradients)
    for kind in suspects.KINDS:
        theirs = suspects.Suspect(kind)(weights, gradients)
        if torch.equal(found.argsort(), theirs.argsort()):
            return kind
    return "nobody"


def test_other_solutions_of_q5_pass():
    assert ex.q5.check(by_random_probes)


def test_a_suspect_does_not_say_who_it_is():
    verdict = ex.q5.check(lambda score: "taylor")
    assert "a_library" in repr(verdict.arguments["score"])
    assert "members" not in repr(verdict)


@pytest.mark.parametrize(
    ("module", "call"),
    [
        (taylor, lambda mistake, case: mistake.answer(**case.arguments)),
        (correlation, lambda mistake, case: mistake.answer(**case.arguments)),
        (information, lambda mistake, case: torch.tensor(mistake[0](**case.arguments))),
    ],
    ids=["q2", "q3", "q4"],
)
def test_misconceptions_lead_to_different_answers_on_the_first_input(module, call):
    case = module._cases()[0]
    answers = [call(mistake, case) for mistake in module.MISTAKES]
    alike = [
        (one, other)
        for one, other in itertools.combinations(range(len(answers)), 2)
        if answers[one].shape == answers[other].shape and torch.allclose(answers[one], answers[other])
    ]
    if module is correlation:  # the last two are about filters that do not vary, and here all do
        alike = [pair for pair in alike if max(pair) < len(answers) - 2]
    assert not alike
