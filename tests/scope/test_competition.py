"""Global and local competition, minimum and maximum: against a walk in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as peer

import prunelab
from prunelab.granularity import Filter, Kernel, Layer, Weight
from prunelab.scope import Candidates, Global, Local, Scope

few = st.sampled_from([0.0, 1.0, -1.0, 2.0, 3.0, -3.0, math.inf])  # few values: many ties


@st.composite
def parameters(draw: st.DrawFn, several_sizes: bool = False) -> list[Candidates]:
    drawn = []
    for index, scores in enumerate(draw(st.lists(st.lists(few, max_size=8), min_size=1, max_size=4))):
        alive = None
        if draw(st.booleans()):
            alive = torch.tensor(draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))), dtype=bool)
        sizes = torch.tensor(draw(st.lists(st.integers(1, 4), min_size=len(scores), max_size=len(scores))), dtype=int)
        drawn.append(Candidates(str(index), torch.tensor(scores), sizes if several_sizes else 3, alive))
    return drawn


def walk(candidates: list[Candidates], wanted: int, stay: list[int]) -> list[list[bool]] | None:
    """The rule, one unit at a time: the lowest goes if its parameter can spare it; None where too few can go."""
    kept = [[True] * one.units if one.alive is None else one.alive.tolist() for one in candidates]
    gone = sum(row.count(False) for row in kept)
    order = sorted(
        (float(score), p, u) for p, one in enumerate(candidates) for u, score in enumerate(one.scores) if kept[p][u]
    )
    for _, p, u in order:
        if gone < wanted and sum(kept[p]) > stay[p]:
            kept[p][u] = False
            gone += 1
    return kept if gone == wanted else None


@settings(max_examples=300, deadline=None)
@given(candidates=parameters(), sparsity=st.floats(0, 1), minimum=st.integers(0, 4), maximum=st.floats(0, 1))
def test_global_is_the_walk_with_its_limits(
    candidates: list[Candidates], sparsity: float, minimum: int, maximum: float
) -> None:
    wanted = round(sparsity * sum(one.units for one in candidates))
    stay = [max(min(minimum, one.units), one.units - round(maximum * one.units)) for one in candidates]
    expected = walk(candidates, wanted, stay)
    scope = Global(minimum, maximum)
    if expected is None:
        with pytest.raises(ValueError, match=r"can go|within= has already removed"):
            scope.keep(candidates, sparsity)
    else:
        assert [kept.tolist() for kept in scope.keep(candidates, sparsity)] == expected


@settings(max_examples=200, deadline=None)
@given(candidates=parameters(several_sizes=True), sparsity=st.floats(0, 1), minimum=st.integers(0, 3))
def test_the_best_stay_where_units_have_several_sizes(
    candidates: list[Candidates], sparsity: float, minimum: int
) -> None:
    assume(len({size for one in candidates for size in one.sizes.tolist()}) > 1)
    total = sum(int(one.sizes.sum()) for one in candidates)
    budget = round(sparsity * total)
    spent = sum(int(one.sizes[~one.living].sum()) for one in candidates)
    walked, can_go = [one.living.tolist() for one in candidates], spent
    loose = []
    for p, one in enumerate(candidates):
        living = [(float(one.scores[u]), p, u) for u in range(one.units) if walked[p][u]]
        loose += sorted(living)[: max(0, len(living) - minimum)]
    can_go += sum(int(candidates[p].sizes[u]) for _, p, u in loose)
    if spent > budget or budget > can_go:
        with pytest.raises(ValueError, match=r"can go|within= has already removed"):
            Global(minimum).keep(candidates, sparsity)
        return
    for _, p, u in sorted(loose):
        if spent + int(candidates[p].sizes[u]) <= budget:
            spent += int(candidates[p].sizes[u])
            walked[p][u] = False
    assert [kept.tolist() for kept in Global(minimum).keep(candidates, sparsity)] == walked


@settings(max_examples=100, deadline=None)
@given(candidates=parameters(), sparsity=st.floats(0, 1))
def test_local_is_the_walk_in_each_parameter(candidates: list[Candidates], sparsity: float) -> None:
    expected = [walk([one], round(sparsity * one.units), [0]) for one in candidates]
    if None in expected:
        with pytest.raises(ValueError, match="within= has already removed"):
            Local().keep(candidates, sparsity)
    else:
        assert [[kept.tolist()] for kept in Local().keep(candidates, sparsity)] == expected


def test_too_much_asked_of_the_limits_says_how_much_can_go() -> None:
    a = Candidates("a", torch.arange(4.0), 1)
    b = Candidates("b", torch.arange(2.0), 1)
    with pytest.raises(
        ValueError, match=r"sparsity 0\.9 means 5 units removed from the model, but with minimum=2 only 2"
    ):
        Global(minimum=2).keep([a, b], 0.9)
    with pytest.raises(ValueError, match="means 4 units removed from a, but with minimum=1 only 3 can go"):
        Local(minimum=1).keep([a, b], 1.0)
    with pytest.raises(ValueError, match=r"minimum=0, maximum=0\.5 only 2 can go"):
        Local(maximum=0.5).keep([a], 0.75)
    assert Local(minimum=2).keep([a, b], 0.0)[1].all()
    large = Candidates("c", torch.arange(2.0), torch.tensor([5, 5]))
    with pytest.raises(ValueError, match="means 16 parameters removed from the model, but with minimum=1 only 9"):
        Global(minimum=1).keep([a, b, large], 1.0)


@pytest.mark.parametrize("bad", [-1, 1.0, True, "1", None])
def test_a_minimum_is_a_number_of_units(bad: object) -> None:
    for scope in (Global, Local):
        with pytest.raises(ValueError, match="a whole number of units stays"):
            scope(minimum=bad)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"maximum must lie between 0 and 1, not 50; did you mean 0\.5"):
            scope(maximum=50)


# --- mistakes of the field ------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::prunelab.scope.LayerCollapseWarning")  # the only unit goes
@pytest.mark.parametrize("count", [1, 2, 4, 8, 16, 64])
@pytest.mark.parametrize("sparsity", [0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0])
@pytest.mark.parametrize("scope", ["global", "local"])
def test_kthvalue_with_at_least_removes_one_too_few(count: int, sparsity: float, scope: str) -> None:
    """The k-th smallest as threshold, and `>=` to keep: the k-th itself stays."""
    model = nn.Linear(count, 1, bias=False)
    assert int((prunelab.prune(model, sparsity, scope=scope)["weight"] == 0).sum()) == round(sparsity * count)


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_a_sorted_threshold_with_at_most_removes_one_too_many(sparsity: float) -> None:
    """`sorted[int(n * s)]` as threshold, and `<=` to remove: the first that should stay goes too; ties all go."""
    for weight in (torch.arange(1.0, 11).view(2, 5), torch.ones(2, 5)):
        model = nn.Linear(5, 2, bias=False)
        model.weight.data.copy_(weight)
        assert prunelab.prune(model, sparsity).removed == round(sparsity * 10)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("granularity", [Weight(), Kernel(), Filter(), Layer()], ids=repr)
@pytest.mark.parametrize("scope", ["global", "local", Global(), prunelab.scope.ERK()], ids=str)
def test_fraction_one_is_out_of_range(granularity: prunelab.granularity.Granularity, scope: str | Scope) -> None:
    """`sorted[int(n * 1.0)]` lies behind the last value. Here everything goes, and as asked for, so nothing is said."""
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 4, 3))
    assert prunelab.prune(model, 1.0, granularity=granularity, scope=scope).sparsity == 1
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 4, 3))
    assert prunelab.prune(model, 0.0, granularity=granularity, scope=scope).sparsity == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_peers_masks_in_other_float_types(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    ours = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Linear(5, 7)).to(dtype)
    theirs = [nn.Conv1d(2, 4, 3).to(dtype), nn.Linear(5, 7).to(dtype)]
    for mine, other in zip(ours, theirs, strict=True):
        other.load_state_dict(mine.state_dict())
    local = prunelab.prune(ours, 0.3, scope="local", apply=False)
    globally = prunelab.prune(ours, 0.3, apply=False)
    for index, module in enumerate(theirs):
        assert torch.equal(peer.l1_unstructured(module, "weight", 0.3).weight_mask.bool(), local[f"{index}.weight"])
        peer.remove(module, "weight")
        module.load_state_dict(ours[index].state_dict())
    peer.global_unstructured([(module, "weight") for module in theirs], peer.L1Unstructured, amount=0.3)
    if dtype == torch.float64:  # in 16 bits many magnitudes tie, and torch's topk breaks ties by chance
        assert all(torch.equal(m.weight_mask.bool(), globally[f"{i}.weight"]) for i, m in enumerate(theirs))
    assert sum(int((m.weight_mask == 0).sum()) for m in theirs) == globally.removed
