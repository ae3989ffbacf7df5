"""Layers pruned alone against loops written out; the model never changes; and what was not removed is not robust."""

from __future__ import annotations

import copy
import math
import random
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import prunelab
from prunelab import criteria
from prunelab.evaluate.layerwise import Reading, Sensitivity
from prunelab.evaluate.sensitivity import sensitivity
from prunelab.granularity import Channel, Filter, Group, Head, Weight
from prunelab.scope import LayerCollapseWarning

QUIET: dict[str, Any] = {"progress": False}
SPARSITIES = (0.25, 0.5, 0.9)


def conv_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2, padding=1), nn.ReLU(),
        nn.Conv2d(4, 6, 3, bias=False), nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip


X = torch.randn(12, 1, 4, 4, generator=torch.Generator().manual_seed(1))
Y = torch.arange(12) % 3
BATCHES = [(X[:8], Y[:8]), (X[8:], Y[8:])]
LOSS = nn.functional.cross_entropy


def score(model: nn.Module) -> float:
    """A number that any changed weight shows in."""
    parameter = next(model.parameters())
    return -float(LOSS(model(X.to(parameter)), Y.to(parameter.device)).detach().double())


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@dataclass(frozen=True)
class Deviation(criteria.Criterion):
    """Changes with what is gone already, so that its rounds matter."""

    rounds = 4

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        return (weights - weights.mean()).abs().sum(1)


CASES = [
    (Deviation(), Weight()),
    (None, None),
    (criteria.Magnitude(p=2), Filter()),
    (criteria.Magnitude(), Group(1, 4)),
    (criteria.Magnitude(), Channel()),
    (criteria.FilterCorrelation(), Filter()),
    (criteria.Taylor(), Weight()),
    (criteria.Taylor(of="activations"), Filter()),
    (criteria.Random(5), Weight()),
    (criteria.SynFlow(X[:1], rounds=3), Weight()),
]


@pytest.mark.parametrize(("criterion", "what"), CASES, ids=lambda value: str(value))
def test_the_numbers_are_those_of_the_loops(criterion: Any, what: Any, device: torch.device) -> None:
    model = conv_net().to(device).eval()
    how = {"criterion": criterion, "granularity": what, "data": BATCHES, "loss": LOSS}
    found = sensitivity(model, score, sparsities=SPARSITIES, seeds=[5], **how, **QUIET)
    expected = []
    for name in ("0.weight", "3.weight", "5.weight", "7.weight"):
        for sparsity in SPARSITIES:
            pruned = copy.deepcopy(model)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", LayerCollapseWarning)
                masks = prunelab.prune(pruned, sparsity, parameters=[name], **how)
            expected.append(Reading(name, sparsity, 5, masks.sparsity, score(pruned)))
    assert list(found.readings) == expected
    assert found.dense == {5: score(model)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types(dtype: torch.dtype) -> None:
    model = nn.Linear(16, 4).to(dtype)
    counts = sensitivity(model, lambda net: int((net.weight == 0).sum()), sparsities=[0.0, 0.25, 1.0], **QUIET)
    assert [one.score for one in counts.readings] == [0, 16, 64]


def test_the_frame_says_what_was_lost_and_what_was_really_removed() -> None:
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 8, bias=False))
    nn.init.ones_(model[0].weight), nn.init.ones_(model[1].weight)
    left = lambda net: float(sum(p.detach().sum() for p in net.parameters()))  # noqa: E731
    frame = sensitivity(model, left, sparsities=[0.1, 0.5], granularity=Filter(), **QUIET).frame()
    # 3 filters of 4 weights: round(0.1·3) = 0, round(0.5·3) = 2; 8 of 3 weights: round(0.8) = 1, 4
    assert frame.to_dict("list") == {
        "layer": ["0.weight", "0.weight", "1.weight", "1.weight"],
        "sparsity": [0.1, 0.5, 0.1, 0.5],
        "seed": [0, 0, 0, 0],
        "removed": [0.0, 2 / 3, 1 / 8, 1 / 2],
        "score": [36.0, 28.0, 33.0, 24.0],
        "dense": [36.0] * 4,
        "lost": [0.0, 8.0, 3.0, 12.0],
    }


# --- the model is left alone -----------------------------------------------------------------------------------------


def vandal(model: nn.Module) -> float:
    """A score that ruins what it is given."""
    model.train()
    value = score(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    model.register_forward_hook(lambda *_: 0)
    return value


def test_a_score_that_ruins_its_model_ruins_a_copy() -> None:
    model = conv_net().eval()
    before = copy.deepcopy(model)
    found = sensitivity(model, vandal, sparsities=[0.5], **QUIET)
    assert same(model, before)
    assert not model.training
    assert not model._forward_hooks
    assert all(math.isfinite(one.score) for one in found.readings)  # and no copy inherits it


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("when", [1, 4])
def test_nothing_has_changed_when_it_raises_or_is_interrupted(error: type[BaseException], when: int) -> None:
    model, calls = conv_net(), []
    before, states = copy.deepcopy(model), (torch.get_rng_state(), random.getstate())
    gradients = [p.requires_grad for p in model.parameters()]

    def stops(net: nn.Module) -> float:
        calls.append(1)
        torch.rand(3), random.random()
        if len(calls) == when:
            raise error
        return score(net)

    with pytest.raises(error):
        sensitivity(model, stops, criterion=criteria.Taylor(), data=BATCHES, loss=LOSS, **QUIET)
    assert same(model, before)
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == gradients
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


@pytest.mark.parametrize("bad", ["good", None, True, {"a": 1.0}, torch.ones(2)])
def test_what_is_no_score_is_refused(bad: object) -> None:
    with pytest.raises(TypeError, match=r"score\(model\) must return a number"):
        sensitivity(conv_net(), lambda model: bad, **QUIET)


def test_a_score_may_be_a_tensor() -> None:
    model = nn.Linear(2, 2)
    found = sensitivity(model, lambda net: net.weight.square().sum(), sparsities=[1.0], **QUIET)
    assert found.readings[0].score == 0.0
    assert found.dense[0] == pytest.approx(float(model.weight.detach().square().sum()))


# --- seeds -----------------------------------------------------------------------------------------------------------


def test_random_units_over_several_seeds_spread() -> None:
    model = conv_net().eval()
    found = sensitivity(model, score, sparsities=[0.5], criterion=criteria.Random(), seeds=range(4), **QUIET)
    for name in ("0.weight", "3.weight"):
        by_seed = [one.score for one in found.readings if one.layer == name]
        assert len(set(by_seed)) == 4
        expected = []
        for seed in range(4):
            pruned = copy.deepcopy(model)
            prunelab.prune(pruned, 0.5, criterion=criteria.Random(seed), parameters=[name])
            expected.append(score(pruned))
        assert by_seed == expected
        interval = found.interval(name, 0.5)
        low, high = stats.t.interval(0.95, 3, loc=sum(by_seed) / 4, scale=stats.sem(by_seed))
        assert (interval.low, interval.high) == pytest.approx((low, high))


def test_the_score_meets_the_same_chance_for_every_layer() -> None:
    found = sensitivity(conv_net(), lambda model: float(torch.rand(())), sparsities=[0.3, 0.6], seeds=[1, 2], **QUIET)
    assert {(one.seed, one.score) for one in found.readings} == set(found.dense.items())


# --- coupled layers --------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Two layers that write to the same four channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.block(x))


def zeros(model: nn.Module) -> list[list[int]]:
    return [(p.abs().sum(1) == 0).nonzero().flatten().tolist() for p in (model.stem.weight, model.block.weight)]


def test_a_group_loses_the_same_units_by_the_mean_of_their_scores() -> None:
    """Ranked one at a time, coupled layers look robust: the others still fill the channel."""
    model, seen = Residual(), []
    with torch.no_grad():
        model.stem.weight.copy_(torch.tensor([4.0, 1.0, 2.0, 3.0])[:, None].expand(4, 3) / 3)
        model.block.weight.copy_(torch.tensor([1.0, 9.0, 2.0, 3.0])[:, None].expand(4, 4) / 4)
        # L1 norms: stem 4 1 2 3, block 1 9 2 3; means 2.5 5 2 3: first go units 2, then 0

    def watch(net: nn.Module) -> float:
        seen.append(zeros(net))
        return 0.0

    groups = {"stream": ["stem.weight", "block.*"]}
    found = sensitivity(
        model, watch, sparsities=[0.25, 0.5], granularity=Filter(), groups=groups, exclude="head.*", **QUIET
    )
    assert seen == [[[], []], [[2], [2]], [[0, 2], [0, 2]]]
    assert [(one.layer, one.removed) for one in found.readings] == [("stream", 0.25), ("stream", 0.5)]
    assert found.parameters == {"stream": ("stem.weight", "block.weight")}
    assert found.threshold(1.0) == {"stem.weight": 0.5, "block.weight": 0.5}


def test_the_biases_of_a_group_go_too() -> None:
    model, seen = Residual(), []

    def watch(net: nn.Module) -> float:
        seen.append([int((p == 0).sum()) for p in (net.stem.bias, net.block.bias)])
        return 0.0

    groups = {"stream": ["stem.weight", "block.weight"]}
    sensitivity(
        model,
        watch,
        sparsities=[0.5],
        granularity=Filter(),
        groups=groups,
        parameters=["stem.weight", "block.weight"],
        **QUIET,
    )
    assert seen == [[0, 0], [2, 2]]


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ({"g": ["stem.weight", "head.weight"]}, ValueError, "'g' lose the same units, .*stem.weight has 4, head.weight has 2"),
        ({"g": ["stem.weight"], "h": ["stem.weight"]}, ValueError, "'stem.weight' is in the groups 'g' and 'h'"),
        ({"g": ["nowhere"]}, ValueError, "names 'nowhere'; what is pruned is stem.weight, block.weight, head.weight"),
        ({"g": "stem.weight"}, TypeError, "must be a list of names, not a string"),
        ({"head.weight": ["stem.weight", "block.weight"]}, ValueError, "a group cannot be called 'head.weight'"),
        ({"stem.weight": ["stem.weight", "block.weight"]}, ValueError, "a group cannot be called 'stem.weight'"),
    ],
)  # fmt: skip
def test_groups_that_cannot_be(groups: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        sensitivity(Residual(), lambda model: 0.0, granularity=Filter(), groups=groups, **QUIET)


def test_a_group_cannot_share_rounds() -> None:
    groups = {"stream": ["stem.weight", "block.weight"]}
    synflow = criteria.SynFlow(torch.ones(1, 3), rounds=5)
    with pytest.raises(ValueError, match="removes in 5 rounds, which groups cannot share"):
        sensitivity(Residual(), lambda model: 0.0, criterion=synflow, granularity=Filter(), groups=groups, **QUIET)


def test_attention_heads_are_one_layer_each() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 4)

    model, lost = Attention(), []

    def watch(net: nn.Module) -> float:
        lost.append(int((net.attention.out_proj.weight.abs().sum(0) == 0).sum()))
        return 0.0

    found = sensitivity(model, watch, sparsities=[0.5], granularity=Head(4), **QUIET)
    assert lost == [0, 4]
    assert [one.layer for one in found.readings] == ["attention.in_proj_weight"]


# --- thresholds ------------------------------------------------------------------------------------------------------


def readings(table: dict[str, list[tuple[float, float, float]]], dense: float = 1.0) -> Sensitivity:
    rows = [
        Reading(layer, sparsity, 0, removed, score) for layer, row in table.items() for sparsity, removed, score in row
    ]
    return Sensitivity(tuple(rows), {0: dense}, {layer: (layer,) for layer in table})


def test_the_largest_sparsity_that_costs_at_most_so_much() -> None:
    found = readings(
        {
            "a": [(0.25, 0.25, 0.75), (0.5, 0.5, 0.5), (0.75, 0.75, 0.25)],
            "uneven": [(0.25, 0.25, 0.5), (0.5, 0.5, 1.5), (0.75, 0.75, 0.0)],
            "whole": [(0.25, 0.0, 1.0), (0.5, 0.0, 1.0), (0.75, 1.0, 0.0)],
            "nan": [(0.25, 0.25, math.nan), (0.5, 0.5, math.nan), (0.75, 0.75, math.nan)],
        }
    )
    assert found.threshold(0.0) == {"a": 0.0, "uneven": 0.5, "whole": 0.0, "nan": 0.0}
    assert found.threshold(0.25) == {"a": 0.25, "uneven": 0.5, "whole": 0.0, "nan": 0.0}  # the bound counts
    assert found.threshold(0.5)["a"] == 0.5
    assert found.threshold(1.0) == {"a": 0.75, "uneven": 0.75, "whole": 0.75, "nan": 0.0}
    assert found.threshold(-0.1) == {"a": 0.0, "uneven": 0.5, "whole": 0.0, "nan": 0.0}
    assert found.threshold(math.inf)["a"] == 0.75


def test_a_loss_that_is_the_bound_but_for_rounding_counts() -> None:
    found = readings({"a": [(0.5, 0.5, 0.89)], "b": [(0.5, 0.5, 0.8899)]}, dense=0.90)
    assert 0.90 - 0.89 > 0.01
    assert found.threshold(0.01) == {"a": 0.5, "b": 0.0}


@pytest.mark.parametrize("loss", [math.nan, "0.1", None, True])
def test_no_threshold(loss: Any) -> None:
    with pytest.raises(ValueError, match="loss must be the score that may be lost"):
        readings({"a": [(0.5, 0.5, 1.0)]}).threshold(loss)


def test_a_layer_too_small_to_be_pruned_is_not_the_most_robust() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 8))
    found = sensitivity(model, lambda net: 1.0, sparsities=[0.1, 0.2], granularity=Filter(), **QUIET)
    assert found.threshold(0.5) == {"0.weight": 0.0, "2.weight": 0.2}
    assert found._repr_html_().count(">–</td>") == 2
    assert "0.weight: nothing could be removed" in found.plot().prunelab_alt


def test_the_thresholds_are_a_scope() -> None:
    model = conv_net().eval()
    found = sensitivity(model, score, sparsities=SPARSITIES, **QUIET)
    limits = found.threshold(0.01)
    masks = prunelab.prune(copy.deepcopy(model), scope=limits, apply=False)
    assert masks.sparsities == {name: pytest.approx(limit, abs=0.02) for name, limit in limits.items()}


# --- pictures --------------------------------------------------------------------------------------------------------


def test_the_chart_names_every_layer_and_says_its_numbers() -> None:
    found = readings({"conv": [(0.5, 0.5, 0.9), (0.8, 0.8, 0.6)], "fc": [(0.5, 0.5, 0.95), (0.8, 0.8, 0.94)]})
    drawn = found.plot("LeNet")
    assert (
        drawn.prunelab_alt == "LeNet. dense: 1.000. conv: 0.900 at 0.5, 0.600 at 0.8. fc: 0.950 at 0.5, 0.940 at 0.8."
    )
    (axes,) = drawn.axes
    assert [text.get_text() for text in axes.texts] == ["conv", "fc"]
    lines = [container.lines[0] for container in axes.containers]
    assert [list(line.get_ydata()) for line in lines] == [[1.0, 0.9, 0.6], [1.0, 0.95, 0.94]]


def test_the_chart_of_several_seeds_has_intervals() -> None:
    rows = tuple(Reading("a", 0.5, seed, 0.5, value) for seed, value in enumerate([0.1, 0.2, 0.3]))
    drawn = Sensitivity(rows, dict.fromkeys(range(3), 1.0), {"a": ("a",)}).plot()
    assert "a: 0.200 ± 0.248 at 0.5" in drawn.prunelab_alt.replace("\u00a0", " ")  # 4.302653 · 0.1 / sqrt(3)


def test_the_table_escapes_names() -> None:
    shown = readings({"<b>": [(0.5, 0.5, 0.9)]})._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown
    assert '<td style="padding:0.2em 0.6em;text-align:right">0.900</td>' in shown


# --- bad arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sparsities": []}, ValueError, "sparsities is empty"),
        ({"sparsities": [0.5, 0.5]}, ValueError, "twice"),
        ({"sparsities": [50]}, ValueError, "did you mean 0.5"),
        ({"seeds": []}, ValueError, "seeds is empty"),
        ({"parameters": ["nowhere"]}, ValueError, "unknown parameter 'nowhere'"),
        ({"criterion": criteria.Magnitude}, TypeError, r"write Magnitude\(\)"),
        ({"granularity": Filter}, TypeError, r"write Filter\(\)"),
        ({"criterion": criteria.Taylor()}, ValueError, "needs data"),
    ],
)  # fmt: skip
def test_a_bad_argument_is_refused(change: dict, error: type, message: str) -> None:
    model = conv_net()
    before = copy.deepcopy(model)
    with pytest.raises(error, match=message):
        sensitivity(model, score, **change, **QUIET)
    assert same(model, before)
