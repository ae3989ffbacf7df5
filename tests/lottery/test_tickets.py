"""Looking for tickets: against a search written out by hand, gone on with after a stop, over all that may come in."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import prunelab
from prunelab import Masks, criteria, lottery, scope
from prunelab import granularity as of
from prunelab.lottery import Recipe, Ticket, find_ticket, find_tickets

# On so small a network a layer may lose all its weights.
pytestmark = pytest.mark.filterwarnings("ignore::prunelab.scope.LayerCollapseWarning")

DRAW = torch.Generator().manual_seed(5)
INPUTS = torch.randn(40, 6, generator=DRAW)
TARGETS = torch.randint(3, (40,), generator=DRAW)
RECIPE = Recipe(INPUTS, TARGETS, steps=12, batch_size=8, schedule=lambda step, steps: 1 - 0.5 * step / steps)


def net(seed: int = 0) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def normed(seed: int = 0) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def made(seed: int, make: Any = net) -> nn.Module:
    torch.manual_seed(seed)
    return make()


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def same(one: Ticket, other: Ticket) -> bool:
    """Bit for bit, but for the function that makes the model."""
    rounds = zip(one.rounds, other.rounds, strict=True)
    return (
        equal(dict(one.rewound.weights), dict(other.rewound.weights))
        and repr(one.start.optimizer) == repr(other.start.optimizer)
        and (one.seed, one.start.step, one.oneshot, one.whole)
        == (other.seed, other.start.step, other.oneshot, other.whole)
        and equal(dict(one.initial), dict(other.initial))
        and all(
            (a.number, a.keep, a.masks, a.loss, a.score) == (b.number, b.keep, b.masks, b.loss, b.score)
            for a, b in rounds
        )
    )


def smallest_removed(model: nn.Module, kept: int) -> dict[str, torch.Tensor]:
    """Global magnitude pruning in three lines; what is removed already is zero."""
    weights = {name: one.detach() for name, one in model.named_parameters() if one.dim() > 1}
    bar = torch.cat([one.abs().flatten() for one in weights.values()]).sort(descending=True).values[kept - 1]
    return {name: one.abs() >= bar for name, one in weights.items()}


# 72 weights, of which keep ** (r / 4) stay: 72 * 0.1 ** 0.25 = 40.49, 22.77, 12.8, 7.2
COUNTS = [40, 23, 13, 7]


@pytest.mark.parametrize("step", [0, 5])
def test_it_is_the_search_by_hand(step: int) -> None:
    """Train, remove the smallest, put the rest back to where it was at `step`, momentum and schedule too."""
    ticket = find_ticket(net, RECIPE, keep=0.1, rounds=4, rewind_to=step, seed=3)
    assert [one.kept for one in ticket.rounds] == COUNTS
    early = RECIPE.train(model := made(3), seed=3, stop=step)
    masks = None
    for one, kept in zip(ticket.rounds, COUNTS, strict=True):
        RECIPE.train(model, masks, seed=3, resume=early)
        masks = Masks(smallest_removed(model, kept))
        assert one.masks == masks
    assert equal(dict(ticket.initial), dict(early.weights))
    assert ticket.start.step == step
    assert repr(ticket.start.optimizer) == repr(early.optimizer if step else None)


@pytest.mark.parametrize("step", [0, 5])
def test_learning_rate_rewinding_by_hand(step: int) -> None:
    """The weights stay as they are trained; the schedule and the order of the batches go back."""
    ticket = find_ticket(net, RECIPE, keep=0.1, rounds=4, rewind="learning rate", rewind_to=step, seed=3)
    state, masks = RECIPE.train(model := made(3), seed=3), None
    for one, kept in zip(ticket.rounds, COUNTS, strict=True):
        masks = Masks(smallest_removed(model, kept))
        assert one.masks == masks
        assert one.start is not None
        assert equal(dict(one.start.weights), dict(state.weights))
        assert (one.start.step, one.start.optimizer) == (step, None)
        state = RECIPE.train(model, masks, seed=3, resume=one.start)
    assert ticket.initial is ticket.rounds[-1].start.weights  # type: ignore[union-attr]
    assert ticket.at(2).initial is ticket.rounds[1].start.weights  # type: ignore[union-attr]


@pytest.mark.parametrize("make", [net, normed])
def test_rewinding_is_bit_exact(make: Any) -> None:
    """From the ticket's start, with nothing removed, training ends where the dense network's does."""
    ticket = find_ticket(make, RECIPE, keep=0.1, rounds=2, rewind_to=5, seed=3)
    dense = RECIPE.train(made(3, make), seed=3)
    again = RECIPE.train(made(99, make), seed=3, resume=ticket.start)
    assert equal(dict(again.weights), dict(dense.weights))  # running statistics too
    assert repr(again.optimizer) == repr(dense.optimizer)
    zero = find_ticket(make, RECIPE, keep=0.1, rounds=2, seed=3)
    assert equal(dict(zero.initial), made(3, make).state_dict())


def test_the_model_of_a_ticket() -> None:
    ticket = find_ticket(net, RECIPE, keep=0.3, rounds=2, seed=1)
    fresh = made(1)
    for name, value in ticket.model().state_dict().items():
        expected = fresh.state_dict()[name]
        assert torch.equal(value, expected * ticket.masks[name] if name in ticket.masks else expected)
    assert ticket.model() is not ticket.model()
    assert ticket.at(0).masks.sparsity == 0
    assert equal(ticket.at(0).model().state_dict(), fresh.state_dict())
    assert ticket.at(1).masks == ticket.rounds[0].masks
    for wrong in (3, -1):
        with pytest.raises(ValueError, match="round"):
            ticket.at(wrong)


CASES: dict[str, dict[str, Any]] = {
    "filters": {"granularity": of.Filter(), "parameters": ["0.weight"]},
    "local": {"scope": "local"},
    "taylor": {"criterion": criteria.Taylor()},
    "gradients": {"criterion": criteria.GradientMagnitude()},  # which what is removed has too
    "random": {"criterion": criteria.Random(seed=4)},
    "synflow": {"criterion": criteria.SynFlow(INPUTS[:1])},
    "blocks": {"granularity": of.Group(1, 4)},
    "biases too": {"parameters": ["*"]},
    "left out": {"exclude": ["2.weight"]},
    "late": {"rewind_to": 7},
    "schedule only": {"rewind": "learning rate", "rewind_to": 3},
    "one round": {"rounds": 1},
    "all": {"keep": 1.0},
    "all, once": {"keep": 1.0, "rounds": 1},
}


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_masks_nest_and_count(settings: dict) -> None:
    known = {"keep": 0.4, "rounds": 3} | settings
    ticket = find_ticket(net, RECIPE, **known)
    assert len(ticket.rounds) == len(ticket.oneshot) == known["rounds"]
    before = ticket.whole
    for one in ticket.rounds:
        assert one.masks & before == one.masks
        assert one.kept == sum(one.kept_by_parameter.values())
        sparsity, r = 1 - one.keep, one.number / known["rounds"]
        assert one.keep == pytest.approx(known["keep"] ** r)
        how = {k: v for k, v in settings.items() if k in {"granularity", "scope", "parameters", "exclude"}}
        assert one.masks.removed == prunelab.prune(made(0), sparsity, **how).removed
        before = one.masks
    assert [one.removed for one in ticket.oneshot] == [one.masks.removed for one in ticket.rounds]
    assert ticket.oneshot[0] == ticket.rounds[0].masks


def test_a_scope_that_fixes_what_goes() -> None:
    ticket = find_ticket(net, RECIPE, keep=None, rounds=1, scope=scope.NM(1, 2))
    assert ticket.masks.sparsity == 0.5
    assert ticket.rounds[0].keep == 0.5
    assert find_ticket(net, RECIPE, keep=0.5, rounds=1, scope=scope.NM(1, 2)).masks == ticket.masks
    with pytest.raises(ValueError, match="rounds is 2, but NM"):
        find_ticket(net, RECIPE, keep=0.5, rounds=2, scope=scope.NM(1, 2))
    by_name = find_ticket(net, RECIPE, keep=None, rounds=1, scope={"0.weight": 0.75})
    assert by_name.masks.sparsities == {"0.weight": 0.75}


# --- a function that trains ------------------------------------------------------------------------------------------


def test_a_function_is_as_good_as_a_recipe() -> None:
    calls = []

    def train(model: nn.Module, masks: Masks, seed: int) -> float:
        calls.append(masks.removed)
        return float(RECIPE.train(model, masks, seed).losses[-5:].double().mean())

    for rewind in ("weights", "learning rate"):
        ticket = find_ticket(net, train, keep=0.1, rounds=4, seed=3, rewind=rewind)
        assert same(ticket, find_ticket(net, RECIPE, keep=0.1, rounds=4, seed=3, rewind=rewind))
    assert calls == [0, *[72 - kept for kept in COUNTS[:3]]] * 2


def test_chance_is_the_seeds_own() -> None:
    """make_model and train draw from the global generators: they start from the seed, and come out untouched."""

    def train(model: nn.Module, masks: Masks, seed: int) -> str:
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        masks.apply_(model)
        return "done"

    before = torch.get_rng_state()
    one = find_ticket(net, train, keep=0.1, rounds=3, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert same(one, find_ticket(net, train, keep=0.1, rounds=3, seed=3))
    assert not same(one, find_ticket(net, train, keep=0.1, rounds=3, seed=4))
    assert one.rounds[0].loss is None


def test_a_function_that_does_not_hold_the_masks_is_found_out() -> None:
    with pytest.raises(ValueError, match=r"round 2 of seed 0 training moved weights of '0.weight' that are removed"):
        find_ticket(net, lambda model, masks, seed: RECIPE.train(model) and None, keep=0.1, rounds=3)


# --- stopped and gone on ---------------------------------------------------------------------------------------------


class Stop(Exception):
    """What a user's Ctrl-C does."""


def stopping(after: int) -> Any:
    """A score that breaks the search off in the middle of a round."""
    left = [after]

    def score(model: nn.Module) -> float:
        if left[0] == 0:
            raise Stop
        left[0] -= 1
        return float(model[0].weight.detach().abs().sum())  # type: ignore[index]

    return score


WAYS: dict[str, dict[str, Any]] = {
    "initialisation": {},
    "late": {"rewind_to": 7},
    "late, adam": {"rewind_to": 7, "train": Recipe(INPUTS, TARGETS, 12, 8, "adam", 0.01)},
    "schedule": {"rewind": "learning rate", "rewind_to": 2},
    "statistics": {"make_model": normed, "rewind_to": 3},
    "filters": {"granularity": of.Filter(), "parameters": ["0.weight"], "keep": 0.4},
}


@pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_search_that_was_stopped_ends_as_if_it_had_not_been(settings: dict, after: int, tmp_path: Path) -> None:
    known = {"make_model": net, "train": RECIPE, "keep": 0.2, "rounds": 4, "seed": 2} | settings
    whole = find_ticket(**known, score=stopping(-1))
    with pytest.raises(Stop):
        find_ticket(**known, folder=tmp_path, score=stopping(after))
    rest = stopping(4 - after)  # and no round is done twice
    assert same(find_ticket(**known, folder=tmp_path, score=rest), whole)
    assert same(find_ticket(**known, folder=tmp_path, score=stopping(0)), whole)
    assert same(Ticket.load(tmp_path / "ticket-2.safetensors", known["make_model"]), whole)


def test_several_seeds_that_were_stopped(tmp_path: Path) -> None:
    known = {"make_model": net, "train": RECIPE, "keep": 0.2, "rounds": 3}
    whole = find_tickets(**known, seeds=[4, 1, 2], score=stopping(-1))
    with pytest.raises(Stop):
        find_tickets(**known, seeds=[4, 1, 2], folder=tmp_path, score=stopping(5))
    (tmp_path / "ticket-1.safetensors").unlink()  # one is behind the others
    again = find_tickets(**known, seeds=[4, 1, 2], folder=tmp_path, score=stopping(-1))
    assert all(map(same, again, whole))
    assert [one.seed for one in again] == [4, 1, 2]
    more = find_tickets(**known, seeds=[2, 5], folder=tmp_path, score=stopping(3))  # what is there stays
    assert same(more[0], whole[2])


@pytest.mark.parametrize(
    "other",
    [
        {"keep": 0.3},
        {"rounds": 5},
        {"rewind_to": 1},
        {"criterion": criteria.Magnitude(p=2), "granularity": of.Filter(), "parameters": ["0.weight"]},
        {"train": Recipe(INPUTS, TARGETS, 13, 8)},
        {"train": Recipe(INPUTS + 1, TARGETS, 12, 8)},
        {"make_model": normed},
    ],
)
def test_a_folder_of_another_search_is_refused(other: dict, tmp_path: Path) -> None:
    known = {"make_model": net, "train": Recipe(INPUTS, TARGETS, 12, 8), "keep": 0.2, "rounds": 2}
    find_ticket(**known, folder=tmp_path)
    with pytest.raises(ValueError, match=r"belongs to another search: there|does not fit make_model"):
        find_ticket(**(known | other), folder=tmp_path)


def test_names_that_can_be_gone_through_once() -> None:
    for settings in ({"exclude": iter(["2.weight"])}, {"parameters": iter(["0.weight"])}):
        ticket = find_ticket(net, RECIPE, keep=0.5, rounds=3, **settings)
        assert list(ticket.masks) == ["0.weight"]


# --- many seeds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"rewind_to": 4}, {"rewind": "learning rate"}], ids=str)
def test_many_seeds_find_what_each_finds(settings: dict) -> None:
    several = find_tickets(net, RECIPE, seeds=[3, 0, 5], keep=0.1, rounds=4, **settings)
    for seed, one in zip([3, 0, 5], several, strict=True):
        alone = find_ticket(net, RECIPE, keep=0.1, rounds=4, seed=seed, **settings)
        assert one.seed == seed
        assert [a.kept for a in one.rounds] == COUNTS
        assert sum(int((one.masks[n] != alone.masks[n]).sum()) for n in one.masks) <= 2  # all but equal weights
        for name, value in one.initial.items():
            torch.testing.assert_close(value, alone.initial[name], rtol=1e-3, atol=1e-5)


def test_many_seeds_of_a_function() -> None:
    def train(model: nn.Module, masks: Masks, seed: int) -> None:
        RECIPE.train(model, masks, seed)

    several = find_tickets(net, train, seeds=range(2), keep=0.5, rounds=2)
    assert all(same(one, find_ticket(net, train, keep=0.5, rounds=2, seed=one.seed)) for one in several)


# --- all that may come in --------------------------------------------------------------------------------------------


def test_frozen_weights_are_pruned_and_stay() -> None:
    def half_frozen(seed: int) -> nn.Sequential:
        model = net()
        model[0].weight.requires_grad_(False)
        return model

    ticket = find_ticket(half_frozen, RECIPE, keep=0.2, rounds=3, rewind_to=4)
    assert [one.kept for one in ticket.rounds] == [42, 25, 14]
    assert torch.equal(ticket.initial["0.weight"], made(0)[0].weight)  # type: ignore[index]


def test_shared_weights_count_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.second(self.first(x).relu()).relu())

    for tickets in (
        [find_ticket(lambda seed: Tied(), RECIPE, keep=0.25, rounds=2)],
        find_tickets(lambda seed: Tied(), RECIPE, seeds=[0, 1], keep=0.25, rounds=2),
    ):
        for ticket in tickets:
            assert list(ticket.masks) == ["first.weight", "last.weight"]
            assert ticket.rounds[-1].kept == 14  # of 54: 13.5
            assert ticket.model().first.weight is not None
            assert not ticket.model().second.weight[~ticket.masks["first.weight"]].any()  # type: ignore[union-attr, index, operator]


def test_running_statistics_are_rewound() -> None:
    ticket = find_ticket(normed, RECIPE, keep=0.5, rounds=2)
    model = ticket.model()
    assert not model[1].running_mean.any()  # type: ignore[index, union-attr, operator]
    assert model[1].num_batches_tracked == 0  # type: ignore[index]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype, tmp_path: Path) -> None:
    made_of = Recipe(INPUTS.to(dtype), TARGETS, 6, 8)
    known = {"make_model": lambda seed: net().to(dtype), "train": made_of, "keep": 0.2, "rounds": 3, "rewind_to": 2}
    ticket = find_ticket(**known)
    assert ticket.initial["0.weight"].dtype == dtype
    assert [one.kept for one in ticket.rounds] == [42, 25, 14]
    ticket.save(tmp_path / "one")
    assert same(Ticket.load(tmp_path / "one", known["make_model"]), ticket)
    assert len(find_tickets(**known, seeds=range(2))) == 2


def test_on_every_device(device: torch.device, tmp_path: Path) -> None:
    tickets = find_tickets(
        lambda seed: net().to(device), RECIPE, seeds=range(2), keep=0.2, rounds=2, rewind_to=3, folder=tmp_path
    )
    for ticket in tickets:
        assert next(ticket.model().parameters()).device.type == device.type
        again = Ticket.load(tmp_path / f"ticket-{ticket.seed}.safetensors", ticket.make_model)
        assert again.masks == ticket.masks.to("cpu")
        RECIPE.train(again.model(), again.masks, again.seed, resume=again.start)


def test_training_that_gives_no_numbers_is_told() -> None:
    wild = Recipe(INPUTS, TARGETS, 12, 8, learning_rate=1e30)
    for call in (
        lambda: find_ticket(net, wild, keep=0.5, rounds=2, seed=7),
        lambda: find_tickets(net, wild, seeds=[7, 8], keep=0.5, rounds=2),
    ):
        with pytest.raises(ValueError, match="round 1 of seed 7 training gave weights that are NaN or infinite"):
            call()


def never(*_: object) -> None:
    raise AssertionError("it was trained before the arguments were checked")


REFUSED: dict[str, tuple[dict, type[Exception], str]] = {
    "late, with a function": ({"rewind_to": 5}, ValueError, "can only train from the beginning: give a lottery.Recipe"),
    "later than the end": ({"train": RECIPE, "rewind_to": 12}, ValueError, "less than the 12 steps"),
    "before the beginning": ({"train": RECIPE, "rewind_to": -1}, ValueError, "rewind_to must be a whole number"),
    "what to rewind": ({"rewind": "rate"}, ValueError, "'weights' or 'learning rate', not 'rate'"),
    "keep nothing": ({"keep": 0}, ValueError, "keep is 0"),
    "keep too much": ({"keep": 20}, ValueError, "did you mean 0.2"),
    "keep what": ({"keep": None}, TypeError, "fraction to keep"),
    "no rounds": ({"rounds": 0}, ValueError, "rounds must be a whole number, 1 or more"),
    "half a round": ({"rounds": 2.5}, ValueError, "rounds must be a whole number"),
    "no training": ({"train": "sgd"}, TypeError, "lottery.Recipe or a function"),
    "a model": ({"make_model": net(0)}, TypeError, "must be a function make_model"),
    "no model": ({"make_model": lambda seed: seed}, TypeError, "must give a torch.nn.Module, not int"),
    "no function": ({"make_model": 3}, TypeError, "must be a function make_model"),
    "nothing to prune": ({"make_model": lambda seed: nn.BatchNorm1d(6)}, ValueError, "has no parameter to prune"),
    "seed": ({"seed": -1}, ValueError, "a seed is a whole number"),
    "score": ({"score": 0.5}, TypeError, "score must be a function"),
    "criterion": ({"criterion": "magnitude"}, TypeError, "criterion must be a Criterion"),
    "without data": ({"criterion": criteria.Taylor()}, ValueError, "data"),
    "no such parameter": ({"parameters": ["3.weight"]}, ValueError, "3.weight"),
    "no folder": ({"folder": "nowhere/at/all"}, FileNotFoundError, "make it first"),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_arguments_are_refused_before_anything_is_trained(
    settings: dict, kind: type[Exception], message: str
) -> None:
    known = {"make_model": net, "train": never, "keep": 0.5, "rounds": 2} | settings
    with pytest.raises(kind, match=message):
        find_ticket(**known)


def test_an_unknown_argument_is_named() -> None:
    with pytest.raises(TypeError, match="no argument colour"):
        find_tickets(net, RECIPE, seeds=range(2), keep=0.5, rounds=2, colour="red")


# --- how it looks ----------------------------------------------------------------------------------------------------


def test_the_history_and_its_looks() -> None:
    scored: list[nn.Module] = []

    def score(model: nn.Module) -> float:
        scored.append(copy.deepcopy(model))
        return len(scored) / 10

    ticket = find_ticket(net, RECIPE, keep=0.1, rounds=4, seed=3, score=score)
    assert [one.score for one in ticket.rounds] == [0.1, 0.2, 0.3, 0.4]
    state = RECIPE.train(made(3), seed=3)
    assert equal(scored[0].state_dict(), dict(state.weights))  # the dense network, before its pruning
    assert ticket.rounds[0].loss == pytest.approx(float(state.losses[-5:].mean()))  # an epoch has 5 batches
    assert int((scored[2][0].weight == 0).sum() + (scored[2][2].weight == 0).sum()) == 72 - COUNTS[1]  # type: ignore[index, union-attr]
    assert repr(ticket) == "Ticket(seed 3: 7 of 72 entries kept after 4 rounds, starts at step 0)"
    assert repr(ticket.rounds[1]) == "Round(2: 23 of 72 entries kept)"
    page = ticket._repr_html_()
    assert '<th scope="row"' in page
    assert all(text in page for text in ("0.weight", "2.weight", ">23<", ">0.3194<", ">0.2<"))
    alt = ticket.plot("Kept").prunelab_alt
    assert alt.startswith("Kept. 0.weight: ")
    assert alt.endswith("had left: 0.1, 0.2, 0.3, 0.4.")
    assert "score" not in find_ticket(net, RECIPE, keep=0.1, rounds=2).plot().prunelab_alt
    assert "–" in find_ticket(net, RECIPE, keep=0.1, rounds=2)._repr_html_()


def test_it_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[int, int]] = []
    monkeypatch.setattr(lottery.search.Progress, "show", lambda self, done: said.append((done, self._total)))
    find_tickets(net, RECIPE, seeds=range(2), keep=0.5, rounds=3)
    assert said == [(2, 6), (4, 6), (6, 6)]
