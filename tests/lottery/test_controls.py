"""The controls: each differs from its ticket in what it says, and in nothing else."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pandas as pd
import pytest
import scipy.stats
import torch
from torch import nn

import prunelab
from prunelab import Masks, criteria
from prunelab import granularity as of
from prunelab.lottery import Recipe, Ticket, controls, differences, find_ticket, find_tickets, means, race

pytestmark = pytest.mark.filterwarnings("ignore::prunelab.scope.LayerCollapseWarning")

DRAW = torch.Generator().manual_seed(5)
INPUTS = torch.randn(40, 6, generator=DRAW)
TARGETS = torch.randint(3, (40,), generator=DRAW)
RECIPE = Recipe(INPUTS, TARGETS, steps=12, batch_size=8)
ARMS = ["ticket", "reinit", "random", "shuffled", "oneshot", "dense"]


def net(seed: int = 0) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def made(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return net()


def tickets(**settings: Any) -> list[Ticket]:
    return find_tickets(net, RECIPE, **({"seeds": [3, 1], "keep": 0.3, "rounds": 3} | settings))


def score(model: nn.Module) -> float:
    """A number that no other network has."""
    return sum(float(one.detach().double().abs().sum()) for one in model.parameters())


def watched(found: list[Ticket], **settings: Any) -> tuple[pd.DataFrame, list[dict[str, torch.Tensor]], list[Masks]]:
    """The frame, and for each row the weights that its training started from, and its masks."""
    begun: list[dict[str, torch.Tensor]] = []
    held: list[Masks] = []

    def train(model: nn.Module, masks: Masks, seed: int) -> None:
        begun.append({name: value.clone() for name, value in model.state_dict().items()})
        held.append(masks)

    return controls(found, train, score, **settings), begun, held


def row(frame: pd.DataFrame, arm: str, seed: int) -> int:
    (place,) = frame.index[(frame["arm"] == arm) & (frame["seed"] == seed)]
    return int(place)


def test_the_frame() -> None:
    frame = controls(tickets(), RECIPE, score)
    assert list(frame.columns) == ["arm", "seed", "round", "kept", "score"]
    assert frame["arm"].tolist() == [arm for arm in ARMS for _ in range(2)]
    assert frame["seed"].tolist() == [3, 1] * 6
    assert frame["round"].tolist() == [3] * 10 + [0, 0]
    assert frame["kept"].round(6).tolist() == [round(22 / 72, 6)] * 10 + [1.0, 1.0]
    assert frame["score"].is_unique


def test_what_each_arm_starts_from() -> None:
    found = tickets()
    frame, begun, held = watched(found)
    for ticket in found:
        at = {arm: row(frame, arm, ticket.seed) for arm in ARMS}
        initial = {name: value.clone() for name, value in made(ticket.seed).state_dict().items()}
        for arm in ("ticket", "random", "shuffled", "oneshot", "dense"):
            for name, value in begun[at[arm]].items():
                assert torch.equal(value, initial[name] * held[at[arm]].get(name, torch.ones_like(value))), arm
        assert held[at["ticket"]] == held[at["reinit"]] == ticket.masks
        assert held[at["dense"]].sparsity == 0
        kept = ticket.masks["0.weight"]
        assert not bool((begun[at["reinit"]]["0.weight"] == initial["0.weight"])[kept].any())
        counts = ticket.masks.sparsities
        for arm in ("random", "shuffled"):
            assert held[at[arm]].sparsities == counts
            assert held[at[arm]] != ticket.masks
        assert held[at["random"]] != held[at["shuffled"]]
        dense = made(ticket.seed)
        RECIPE.train(dense, seed=ticket.seed)
        oneshot = prunelab.prune(dense, 0.7)
        assert sum(int((held[at["oneshot"]][name] != oneshot[name]).sum()) for name in oneshot) <= 2  # to rounding


def test_shuffled_rows_and_columns_are_those_of_the_ticket() -> None:
    found = tickets()
    frame, _, held = watched(found, arms=["shuffled"])
    for ticket in found:
        for name, mask in held[row(frame, "shuffled", ticket.seed)].items():
            for dim in (0, 1):
                assert mask.sum(dim).sort().values.tolist() == ticket.masks[name].sum(dim).sort().values.tolist()


def test_chance_is_paired_and_repeats() -> None:
    found = tickets()
    before = torch.get_rng_state()
    one = controls(found, RECIPE, score)
    assert torch.equal(torch.get_rng_state(), before)
    pd.testing.assert_frame_equal(one, controls(found, RECIPE, score))
    draws = watched(found, arms=["random"], rounds=[2, 3])[2]
    assert len({repr([mask.tolist() for mask in masks.values()]) for masks in draws}) == 4  # seeds and rounds differ
    other = [dataclasses.replace(found[0], seed=9)]  # with the same masks to draw from
    for arm in ("random", "shuffled"):
        assert watched(other, arms=[arm])[2] != watched(found[:1], arms=[arm])[2]


@pytest.mark.parametrize("settings", [{}, {"rewind_to": 5}, {"rewind": "learning rate", "rewind_to": 2}], ids=str)
def test_the_scores_are_those_of_training_one_by_one(settings: dict) -> None:
    """Later steps for the ticket and what shares its weights; all steps for what starts afresh."""
    found = tickets(**settings)
    frame = controls(found, RECIPE, score)
    for ticket in found:
        model = ticket.model()
        RECIPE.train(model, ticket.masks, ticket.seed, resume=ticket.start)
        assert frame["score"][row(frame, "ticket", ticket.seed)] == pytest.approx(score(model), rel=1e-4)
        dense = made(ticket.seed)
        RECIPE.train(dense, seed=ticket.seed)
        assert frame["score"][row(frame, "dense", ticket.seed)] == pytest.approx(score(dense), rel=1e-4)
        model = net()
        begin = ticket.rounds[0].start or ticket.rewound
        RECIPE.train(model, ticket.oneshot[-1], ticket.seed, resume=begin)
        assert frame["score"][row(frame, "oneshot", ticket.seed)] == pytest.approx(score(model), rel=1e-4)


def test_a_function_trains_as_a_recipe() -> None:
    found = tickets()
    by_function = controls(found, lambda model, masks, seed: RECIPE.train(model, masks, seed), score)
    pd.testing.assert_frame_equal(by_function, controls(found, RECIPE, score), rtol=1e-4)


def test_a_race_of_several_rounds() -> None:
    found = tickets()
    frame = controls(found, RECIPE, score, rounds=[1, 3], arms=["dense", "ticket"])
    assert frame["round"].tolist() == [0, 0, 1, 1, 3, 3]
    alone = controls(found, RECIPE, score, rounds=[1], arms=["ticket"])
    assert alone["score"].tolist() == pytest.approx(frame["score"][2:4].tolist(), rel=1e-4)
    assert alone["kept"].tolist() == [48 / 72] * 2  # 0.3 ** (1/3) of 72 is 48.2


def test_one_ticket_and_whole_tickets() -> None:
    (one, _) = tickets()
    assert controls(one, RECIPE, score, arms=["ticket"])["seed"].tolist() == [3]
    whole = controls(one.at(0), RECIPE, score)
    same = whole[whole["arm"].isin(["ticket", "random", "shuffled", "oneshot", "dense"])]
    assert same["score"].tolist() == pytest.approx([same["score"].iloc[0]] * 5, rel=1e-5)


def test_a_small_dense_network() -> None:
    asked: list[tuple[int, int]] = []

    def make_small(seed: int, parameters: int) -> nn.Module:
        asked.append((seed, parameters))
        hidden = (parameters - 3) // 10
        return nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 3))

    frame = controls(tickets(), RECIPE, score, make_small=make_small)
    assert frame["arm"].tolist()[-2:] == ["small", "small"]
    assert asked == [(3, 22 + 11), (1, 22 + 11)]  # weights and biases
    assert frame["round"].tolist()[-2:] == [3, 3]


@pytest.mark.parametrize("granularity", [of.Filter(), of.Group(1, 2), of.Channel(), of.Kernel()], ids=str)
def test_random_units_are_whole(granularity: of.Granularity) -> None:
    found = tickets(granularity=granularity, parameters=["0.weight"], keep=0.5)
    frame, _, held = watched(found, arms=["random"])
    for ticket in found:
        masks = held[row(frame, "random", ticket.seed)]
        assert masks.sparsities == ticket.masks.sparsities
        units = granularity.view(masks["0.weight"].float())
        assert bool((units == units[:, :1]).all())
        if "0.bias" in masks:
            assert masks["0.bias"].tolist() == masks["0.weight"].any(1).tolist()


def test_larger_units_are_not_shuffled() -> None:
    found = tickets(granularity=of.Filter(), parameters=["0.weight"], keep=0.5)
    assert "shuffled" not in set(controls(found, RECIPE, score)["arm"])
    with pytest.raises(ValueError, match="rows and columns of masks of single weights"):
        controls(found, RECIPE, score, arms=["shuffled"])


def test_pruned_biases_have_random_masks_too() -> None:
    found = tickets(parameters=["*"], keep=0.4)
    frame, _, held = watched(found, arms=["random", "shuffled"])
    assert all(held[i].sparsities == found[i % 2].masks.sparsities for i in frame.index)


def test_training_that_diverges_is_told_and_scored() -> None:
    found = tickets()
    wild = dataclasses.replace(RECIPE, learning_rate=1e30)
    with pytest.warns(RuntimeWarning, match="NaN or infinite: ticket of seed 3, ticket of seed 1"):
        frame = controls(found, wild, score, arms=["ticket"])
    assert not any(map(math.isfinite, frame["score"]))


def never(*_: object) -> None:
    raise AssertionError("it was trained before the arguments were checked")


def test_bad_arguments_are_refused_before_anything_is_trained() -> None:
    found = tickets()
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (found, {"arms": ["tiket"]}, ValueError, "no arm 'tiket'; choose from ticket, reinit, random"),
        (found, {"arms": "ticket"}, TypeError, r"write \['ticket'\]"),
        (found, {"arms": []}, ValueError, "arms is empty"),
        (found, {"arms": ["small"]}, ValueError, "needs make_small"),
        (found, {"rounds": [4]}, ValueError, "there is no round 4"),
        (found, {"rounds": []}, ValueError, "rounds is empty"),
        (found, {"rounds": 3}, TypeError, r"write \[3\]"),
        (found, {"score": 1.0}, TypeError, "score must be a function"),
        (found, {"train": 1.0}, TypeError, "train must be a lottery.Recipe"),
        (found, {"make_small": lambda seed, parameters: parameters}, TypeError, "make_small"),
        ([], {}, ValueError, "empty"),
        ([found[0], found[0]], {}, ValueError, "twice"),
        ([found[0], found[1].at(2)], {}, ValueError, "different numbers of rounds"),
        (["ticket"], {}, TypeError, "tickets must be Tickets"),
        (tickets(rewind_to=5), {}, ValueError, "start at step 5, but a function"),
        (tickets(rewind_to=5), {"train": Recipe(INPUTS, TARGETS, 5)}, ValueError, "has only 5 steps"),
        ([dataclasses.replace(found[0], granularity=None)], {"arms": ["random"]}, ValueError, r"granularity=\.\.\."),
    ]
    for given, settings, kind, message in cases:
        known = {"train": never, "score": score} | settings
        with pytest.raises(kind, match=message):
            controls(given, **known)


# --- what they say ---------------------------------------------------------------------------------------------------

FRAME = pd.DataFrame(
    [
        ("ticket", 0, 3, 0.1, 0.90), ("ticket", 1, 3, 0.1, 0.80), ("ticket", 2, 3, 0.1, 0.85),
        ("reinit", 0, 3, 0.1, 0.70), ("reinit", 1, 3, 0.1, 0.75), ("reinit", 2, 3, 0.1, 0.80),
        ("dense", 0, 0, 1.0, 0.80), ("dense", 1, 0, 1.0, 0.80), ("dense", 2, 0, 1.0, 0.90),
        ("ticket", 0, 4, 0.05, 0.60), ("ticket", 1, 4, 0.05, 0.70),
    ],
    columns=["arm", "seed", "round", "kept", "score"],
)  # fmt: skip


def test_means_are_students() -> None:
    found = means(FRAME).set_index(["arm", "round"]).loc[("reinit", 3)]
    low, high = scipy.stats.t.interval(0.95, 2, loc=0.75, scale=scipy.stats.sem([0.7, 0.75, 0.8]))
    assert found[["mean", "low", "high", "count"]].tolist() == pytest.approx([0.75, low, high, 3])
    assert means(FRAME, confidence=0.5)["high"].max() < means(FRAME)["high"].max()


def test_differences_are_those_of_pairs() -> None:
    found = differences(FRAME)
    assert found[["over", "round", "count"]].values.tolist() == [["reinit", 3, 3], ["dense", 3, 3], ["dense", 4, 2]]
    gaps = [0.2, 0.05, 0.05]
    low, high = scipy.stats.t.interval(0.95, 2, loc=0.1, scale=scipy.stats.sem(gaps))
    assert found[["mean", "low", "high", "worst"]].iloc[0].tolist() == pytest.approx([0.1, low, high, 0.05])
    assert found["mean"].tolist() == pytest.approx([0.1, 0.85 - 2.5 / 3, -0.15])
    assert differences(FRAME, "reinit")["mean"].tolist() == pytest.approx([-0.1, -0.25 / 3])
    again = FRAME.assign(score=FRAME["score"].where(FRAME.index != 1))
    assert math.isnan(differences(again)["worst"].iloc[0])


def test_a_table_of_something_else_is_refused() -> None:
    for call in (means, differences, race):
        with pytest.raises(ValueError, match="no column seed, round, kept"):
            call(pd.DataFrame({"arm": ["ticket"], "score": [0.5]}))
    with pytest.raises(ValueError, match="no arm 'random' in the frame; it has ticket, reinit, dense"):
        differences(FRAME, "random")


def test_the_race_says_what_it_shows() -> None:
    alt = race(FRAME, score="accuracy").prunelab_alt
    assert alt.startswith("Mean accuracy against the fraction of weights kept, over 3 seeds. dense: 0.833")
    assert "ticket: 0.850\u00a0±\u00a00.124 at 0.1, 0.650" in alt
    small = pd.concat([FRAME, pd.DataFrame([("small", 0, 3, 1.0, 0.4)], columns=FRAME.columns)])
    assert "small: 0.400 at 0.1" in race(small).prunelab_alt  # it stands where the ticket of its size does


def test_a_ticket_alone_of_any_criterion() -> None:
    one = find_ticket(net, RECIPE, keep=0.5, rounds=2, criterion=criteria.Taylor())
    assert len(controls(one, RECIPE, score)) == 6
