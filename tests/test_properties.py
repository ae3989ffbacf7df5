"""What holds for every network: drawn at random, with every criterion, granularity and scope that go together.

Which weights make a unit, and which units go, is found here once more by walking: over the channels of a layer as its
documentation numbers them, and over the units from the lowest score on.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvTransposeNd

import prunelab
from prunelab import Masks, Pruner, criteria, schedule
from prunelab.criteria import Criterion, Magnitude, Taylor
from prunelab.granularity import Channel, Filter, Granularity, Group, Kernel, Layer, Weight
from prunelab.scope import ERK, NM, Global, Local, PerRow, Scope

pytestmark = pytest.mark.filterwarnings("ignore::prunelab.scope.LayerCollapseWarning")

GRANULARITIES = [Weight(), Group(1, 3), Group(2, 2), Kernel(), Filter(), Channel(), Layer()]
SPARSITIES = st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1)


def profile(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


# --- networks drawn at random -----------------------------------------------------------------------------------------


SEEDS = st.randoms(use_true_random=True)  # hypothesis' own draws repeat themselves; these differ each time


def network(rng: random.Random, most: int = 3) -> nn.Sequential:
    """Convolutions of all kinds, each with a batch normalisation and a rectifier, and a Linear layer at the end."""
    channels, layers = 2, []
    for _ in range(rng.randint(1, most)):
        groups = rng.choice([1, 1, 2 - channels % 2, channels])
        kind = rng.choice([nn.Conv2d, nn.Conv2d, nn.ConvTranspose2d])
        wide = groups * rng.randint(1, 2 if groups > 1 else 3)
        shape = {"kernel_size": rng.choice([1, (1, 2), (3, 1)]), "padding": int(kind is nn.Conv2d), "groups": groups}
        layers += [kind(channels, wide, **shape, bias=rng.random() < 0.5), nn.BatchNorm2d(wide), nn.ReLU()]
        channels = wide
    head = nn.Linear(channels, 3, bias=rng.random() < 0.5)
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).double()
    generator = torch.Generator().manual_seed(rng.randrange(2**32))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


NETWORKS = SEEDS.map(network)


def batches(seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 2, 4, 4, generator=generator, dtype=torch.float64)
    return list(zip(x.split([4, 2]), torch.tensor([0, 1, 2, 2, 1, 0]).split([4, 2]), strict=True))


ANY_UNIT: list[Callable[[nn.Module], Criterion]] = [
    lambda model: Magnitude(),
    lambda model: Magnitude(2, reduction="mean"),
    lambda model: Magnitude(normalize="layer"),
    lambda model: Magnitude(normalize="lamp"),
    lambda model: criteria.GradientMagnitude(2),
    lambda model: Taylor(),
    lambda model: Taylor(joint=False, momentum=0.5),
    lambda model: criteria.SNIP(),
    lambda model: criteria.GraSP(),
    lambda model: criteria.SynFlow(batches()[0][0], rounds=1),
    lambda model: criteria.Wanda(),
    lambda model: criteria.OBD({name: p.detach().cos() for name, p in model.named_parameters()}),
    lambda model: criteria.Random(3),
]
LARGE_UNITS: list[Callable[[nn.Module], Criterion]] = [
    lambda model: criteria.FilterCorrelation(),
    lambda model: criteria.FilterCorrelation("cosine", "mean"),
    lambda model: criteria.GeometricMedian(),
]
CHANNELS: list[Callable[[nn.Module], Criterion]] = [
    lambda model: criteria.MutualInformation(),
    lambda model: criteria.MutualInformation("quantile", of="next"),
]
FILTERS: list[Callable[[nn.Module], Criterion]] = [
    lambda model: Taylor(of="activations"),
    lambda model: criteria.BatchNormScale(batches()[0][0]),
    lambda model: criteria.APoZ(),
    lambda model: criteria.HRank(),
]
MEANINGFUL = [
    *product(ANY_UNIT, GRANULARITIES),
    *product(LARGE_UNITS, [Group(1, 3), Filter(), Channel()]),
    *product(CHANNELS, [Filter(), Channel()]),
    *product(FILTERS, [Filter()]),
]


def question(rng: random.Random) -> tuple[nn.Sequential, dict[str, Any]] | None:
    """A network, and arguments of `prune` that go together."""
    model = network(rng)
    make, granularity = rng.choice(MEANINGFUL)
    scopes: list[str | Scope] = ["global", "local", ERK()]
    if isinstance(granularity, Weight | Kernel | Group):
        scopes.append(PerRow())
    how: dict[str, Any] = {"criterion": make(model), "granularity": granularity, "scope": rng.choice(scopes)}
    how |= {"data": batches(), "loss": F.cross_entropy}
    if isinstance(how["criterion"], criteria.APoZ | criteria.HRank | criteria.BatchNormScale):
        how["exclude"] = f"{len(model) - 1}.*"
    if isinstance(how["criterion"], criteria.FilterCorrelation) and min(map(members(granularity), layers(model))) < 2:
        return None  # a correlation needs units of two weights
    return model, how


QUESTIONS = SEEDS.map(question).filter(lambda one: one is not None)


def layers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]


# --- units, by walking over the channels ------------------------------------------------------------------------------


def units_of(module: nn.Module, granularity: Granularity) -> tuple[Tensor, Tensor]:
    """For every weight, as the layer stores it, the number of its unit, and of the row in which that competes."""
    weight, groups = module.weight, getattr(module, "groups", 1)
    transposed = isinstance(module, _ConvTransposeNd)
    inputs, outputs = (
        (weight.shape[0], weight.shape[1] * groups) if transposed else (weight.shape[1] * groups, len(weight))
    )
    kernel = list(np.ndindex(*weight.shape[2:]))
    columns = inputs // groups * len(kernel)
    unit, row = torch.zeros(weight.shape, dtype=torch.long), torch.zeros(weight.shape, dtype=torch.long)
    for out in range(outputs):
        group, out_in_group = divmod(out, outputs // groups)
        for number in range(inputs // groups):
            into = group * (inputs // groups) + number
            for place, where in enumerate(kernel):
                at = (into, out_in_group, *where) if transposed else (out, number, *where)
                column = number * len(kernel) + place
                row[at] = out
                if isinstance(granularity, Weight):
                    unit[at] = out * columns + column
                elif isinstance(granularity, Group):
                    row[at] = out // granularity.rows
                    unit[at] = row[at] * -(-columns // granularity.columns) + column // granularity.columns
                elif isinstance(granularity, Kernel):
                    unit[at] = out * (inputs // groups) + number
                elif isinstance(granularity, Filter):
                    unit[at] = out
                elif isinstance(granularity, Channel):
                    unit[at] = into
    return unit, row


def members(granularity: Granularity) -> Callable[[nn.Module], int]:
    return lambda module: int(units_of(module, granularity)[0].flatten().bincount().min())


def sizes_of(module: nn.Module, granularity: Granularity) -> Tensor:
    """The weights of each unit, and its biases where these go with it."""
    sizes = units_of(module, granularity)[0].flatten().bincount()
    if isinstance(granularity, Filter | Layer) and module.bias is not None:
        sizes = sizes + module.bias.numel() // len(sizes)
    return sizes


def check_counts(model: nn.Sequential, masks: Masks, sparsity: float, how: dict[str, Any]) -> None:
    """Whole units are gone, and so many as the scope says: exactly a share of units of one size, else what fits."""
    gone, sizes = {}, {}
    for name in (name for name in masks if name.endswith("weight")):
        module = model.get_submodule(name.removesuffix(".weight"))
        unit, _ = units_of(module, how["granularity"])
        kept = torch.zeros(int(unit.max()) + 1).index_add_(0, unit.flatten(), masks[name].flatten().float())
        assert ((kept == 0) | (kept == unit.flatten().bincount())).all()
        gone[name], sizes[name] = int((kept == 0).sum()), sizes_of(module, how["granularity"])
    arenas = [[name] for name in gone] if how["scope"] == "local" else [list(gone)]
    for names in arenas:
        together = torch.cat([sizes[name] for name in names])
        if len(together.unique()) == 1:
            assert sum(gone[name] for name in names) == round(sparsity * len(together))
        else:
            biases = [name.replace("weight", "bias") for name in names]
            removed = Masks({name: masks[name] for name in [*names, *biases] if name in masks}).removed
            left = round(sparsity * int(together.sum())) - removed
            assert left >= 0
            if how["scope"] != ERK():  # nothing else would have fitted
                assert left < max(int(together.max()), 1)


def lowest(units: list[tuple[float, int, int, Any]], sparsity: float) -> set[Any]:
    """Of units (score, order, size, name) those that go: a share of their number, or as many as fit into a share."""
    by_score = sorted(units, key=lambda unit: unit[:2])
    if len({size for _, _, size, _ in units}) <= 1:
        return {name for *_, name in by_score[: round(sparsity * len(units))]}
    left, gone = round(sparsity * sum(size for _, _, size, _ in units)), set()
    for _, _, size, name in by_score:
        if size <= left:
            left -= size
            gone.add(name)
    return gone


def expected_masks(model: nn.Sequential, sparsity: float, how: dict[str, Any]) -> dict[str, Tensor]:
    """The rule of the scope, on the scores of the criterion."""
    asked = {key: value for key, value in how.items() if key != "scope"}
    scores = prunelab.score(model, **asked)
    modules = {name: model.get_submodule(name.removesuffix(".weight")) for name in scores}
    arenas: dict[Any, list[tuple[float, int, int, Any]]] = {}
    order = 0
    for name, module in modules.items():
        unit, row = units_of(module, how["granularity"])
        sizes = sizes_of(module, how["granularity"])
        for number, score in enumerate(scores[name].tolist()):
            arena = {"global": None, "local": name}.get(how["scope"] if isinstance(how["scope"], str) else "", name)
            if isinstance(how["scope"], PerRow):
                arena = name, int(row[unit == number][0])
            arenas.setdefault(arena, []).append((score, order, int(sizes[number]), (name, number)))
            order += 1
    gone = set().union(*(lowest(units, sparsity) for units in arenas.values()))
    masks = {}
    for name, module in modules.items():
        unit, _ = units_of(module, how["granularity"])
        keep = torch.tensor([(name, number) not in gone for number in range(len(scores[name]))])
        masks[name] = keep[unit]
        if isinstance(how["granularity"], Filter | Layer) and module.bias is not None:
            masks[name.replace("weight", "bias")] = keep.expand(len(module.bias)) if len(keep) == 1 else keep
    return masks


# --- how many, and which ----------------------------------------------------------------------------------------------


@profile(150)
@given(question=QUESTIONS, sparsity=SPARSITIES)
def test_exactly_the_lowest_go(question: tuple[nn.Sequential, dict[str, Any]], sparsity: float) -> None:
    model, how = question
    assume(not isinstance(how["scope"], ERK))  # whose shares are another walk: tests/scope/test_erk.py
    expected, before = expected_masks(model, sparsity, how), copy.deepcopy(model)
    masks = prunelab.prune(model, sparsity, **how)
    assert dict(masks).keys() == expected.keys()
    for name, mask in masks.items():
        assert torch.equal(mask, expected[name]), name
    for name, parameter in model.named_parameters():
        was = before.get_parameter(name)
        assert torch.equal(parameter, was * masks[name] if name in masks else was)


@profile(60)
@given(question=QUESTIONS, sparsity=SPARSITIES)
def test_the_share_of_all_is_exact_in_every_scope(
    question: tuple[nn.Sequential, dict[str, Any]], sparsity: float
) -> None:
    model, how = question
    assume(not isinstance(how["scope"], PerRow))
    masks = prunelab.prune(model, sparsity, **how)
    check_counts(model, masks, sparsity, how)


@profile(60)
@given(model=NETWORKS, n=st.integers(0, 5), more=st.integers(1, 4), make=SEEDS.map(lambda rng: rng.choice(ANY_UNIT)))
def test_n_of_every_m_stay(model: nn.Sequential, n: int, more: int, make: Callable[[nn.Module], Criterion]) -> None:
    m = n + more
    masks = prunelab.prune(model, criterion=make(model), scope=NM(n, m), data=batches(), loss=F.cross_entropy)
    for module in layers(model):
        unit, _ = units_of(module, Weight())
        name = next(key for key, value in model.named_parameters() if value is module.weight)
        rows = module.weight.shape[1] * module.groups if isinstance(module, nn.ConvTranspose2d) else len(module.weight)
        kept = masks[name].flatten()[unit.flatten().argsort()].view(rows, -1)  # in the order of filters and inputs
        for group in kept.split(m, dim=1):
            assert (group.sum(1) == min(n, group.shape[1])).all()


@profile(60)
@given(model=NETWORKS, granularity=st.sampled_from(GRANULARITIES), sparsity=SPARSITIES, local=st.booleans())
def test_of_equals_the_first_go(model: nn.Sequential, granularity: Granularity, sparsity: float, local: bool) -> None:
    for module in layers(model):
        nn.init.ones_(module.weight)
    how: dict[str, Any] = {"granularity": granularity, "scope": "local" if local else "global"}
    how["criterion"] = Magnitude(float("inf"))  # the same for all units, whatever their size
    masks = prunelab.prune(model, sparsity, apply=False, **how)
    for name, mask in expected_masks(model, sparsity, how).items():
        assert torch.equal(masks[name], mask)
    if isinstance(granularity, Weight) and not local:
        ordered = [units_of(module, granularity)[0].flatten().argsort() for module in layers(model)]
        kept = torch.cat([mask.flatten()[order] for mask, order in zip(masks.values(), ordered, strict=True)])
        assert kept.tolist() == sorted(kept.tolist())


@profile(40)
@given(question=QUESTIONS)
def test_nothing_and_everything(question: tuple[nn.Sequential, dict[str, Any]]) -> None:
    model, how = question
    assert prunelab.prune(model, 0, **how).removed == 0
    assert prunelab.prune(model, 1, **how).sparsity == 1


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
@pytest.mark.parametrize("scope", ["global", "local", ERK(), Global(1), Local(), PerRow(), NM(1, 3)], ids=str)
def test_layers_without_weights_take_no_part(granularity: Granularity, scope: str | Scope) -> None:
    if isinstance(scope, PerRow) and not isinstance(granularity, Weight | Kernel | Group):
        return
    if isinstance(scope, NM) and not isinstance(granularity, Weight):
        return
    torch.manual_seed(0)
    full, empty = nn.Linear(6, 4), [nn.Linear(0, 3), nn.Linear(3, 0), nn.Conv2d(2, 0, 3), nn.Conv1d(0, 2, 1)]
    sparsity = None if isinstance(scope, NM) else 0.5
    if isinstance(granularity, Layer) and isinstance(scope, Global) and scope.minimum:
        sparsity = 0.0  # a layer is a unit, and one stays
    alone = prunelab.prune(full, sparsity, granularity=granularity, scope=scope, apply=False)
    for model in (nn.Sequential(full, *empty), nn.Sequential(*empty, full)):
        masks = prunelab.prune(model, sparsity, granularity=granularity, scope=scope, apply=False)
        at = next(name for name, module in model.named_children() if module is full)
        if not isinstance(granularity, Filter | Layer):  # there the biases of units without weights compete as well
            assert torch.equal(masks[f"{at}.weight"], alone["weight"])
        assert all(mask.shape == model.get_parameter(name).shape for name, mask in masks.items())


# --- what nests, and what is done twice -------------------------------------------------------------------------------


@profile(60)
@given(question=QUESTIONS, shares=st.tuples(SPARSITIES, SPARSITIES).map(sorted))
def test_masks_nest_and_the_same_again_changes_nothing(
    question: tuple[nn.Sequential, dict[str, Any]], shares: list[float]
) -> None:
    model, how = question
    first = prunelab.prune(model, shares[0], **how)
    second = prunelab.prune(model, shares[1], within=first, **how)
    assert second & first == second
    before = copy.deepcopy(model.state_dict())
    assert prunelab.prune(model, shares[1], within=second, **how) == second
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@profile(60)
@given(question=QUESTIONS, sparsity=st.floats(0.5, 1))
def test_what_within_has_removed_is_zero_whether_or_not_it_was_applied(
    question: tuple[nn.Sequential, dict[str, Any]], sparsity: float
) -> None:
    model, how = question
    before = prunelab.prune(model, 0.4, scope="local", exclude=how.get("exclude"), apply=False)  # single weights
    outcomes = []
    for one in (model, before.apply_(copy.deepcopy(model))):
        try:
            outcomes.append(prunelab.prune(one, sparsity, within=before, apply=False, **how))
        except ValueError as error:  # a row may have lost more before than it should now
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


SCHEDULES = [
    schedule.OneShot(0.7, at=2),
    schedule.Iterative(0.9, rounds=3, start=1, every=2),
    schedule.AGP(0.8, start=1, end=6, every=2),
    schedule.Linear(1.0, start=0, end=5),
    schedule.Exponential(0.95, start=1, end=4),
    schedule.Cosine(0.6, start=0, end=6, every=3, initial=0.2),
    schedule.OneCycle(0.9, start=0, end=6),
]


@profile(40)
@given(
    model=SEEDS.map(lambda rng: network(rng, most=2)), plan=st.sampled_from(SCHEDULES),
    granularity=st.sampled_from([Weight(), Kernel(), Filter()]),
    scope=st.sampled_from(["global", "local"]), make=SEEDS.map(lambda rng: rng.choice(ANY_UNIT)),
)  # fmt: skip
def test_a_pruner_only_ever_takes_away_and_takes_what_the_schedule_says(
    model: nn.Sequential, plan: schedule.Schedule, granularity: Granularity, scope: str, make: Callable[..., Criterion]
) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.01)
    how: dict[str, Any] = {"criterion": make(model), "granularity": granularity, "scope": scope}
    pruner = Pruner(model, optimizer, schedule=plan, data=batches(), loss=F.cross_entropy, **how)
    for step in range(1, 8):
        before = pruner.masks
        optimizer.zero_grad()
        F.cross_entropy(model(batches()[0][0]), batches()[0][1]).backward()
        optimizer.step()
        pruner.step()
        assert pruner.masks & before == pruner.masks
        due = [at for at in plan.steps() if at <= step]
        wanted = plan(due[-1]) if due else 0.0
        if pruner.masks:
            check_counts(model, pruner.masks, wanted, how)
        for name, mask in pruner.masks.items():
            assert not model.get_parameter(name)[~mask].any()


# --- symmetries -------------------------------------------------------------------------------------------------------


def chain(seed: int, hidden: int = 6) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, hidden, 3), nn.BatchNorm2d(hidden), nn.ReLU(),
        nn.Conv2d(hidden, 5, 2), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(),
    ).double()  # fmt: skip
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def permuted(model: nn.Sequential, order: list[int]) -> nn.Sequential:
    """The same function, its hidden channels in another order."""
    moved = copy.deepcopy(model)
    for parameter in [*moved[0].parameters(), *moved[1].parameters()]:
        parameter.data = parameter.data[order]
    moved[3].weight.data = moved[3].weight.data[:, order]
    return moved


@profile(100)
@given(question=SEEDS.map(lambda rng: rng.choice(MEANINGFUL)), order=st.permutations(range(6)), seed=st.integers(0, 99))
def test_hidden_channels_in_another_order_have_their_scores_and_masks_in_that_order(
    question: tuple[Callable[..., Criterion], Granularity], order: list[int], seed: int
) -> None:
    make, granularity = question
    assume(granularity not in (Group(1, 3), Group(2, 2)))  # other neighbours make other blocks
    model = chain(seed)
    assume(not isinstance(make(model), criteria.Random))
    names = ["0.weight", "3.weight"]
    how = {"granularity": granularity, "data": batches(), "loss": F.cross_entropy, "parameters": names}
    moved = permuted(model, order)
    scores = {}
    for one in (model, moved):
        found = prunelab.score(one, make(one), **how)
        as_weights = []
        for name in names:
            unit, _ = units_of(one.get_submodule(name[0]), granularity)
            as_weights.append(found[name].double()[unit])
        scores[one] = as_weights
    if isinstance(make(model), criteria.FilterCorrelation) and make(model).variant == "pairs":
        # Of the last two, position decides which goes; the number itself is the same.
        for one in (model, moved):
            scores[one] = [values.clamp(max=values.flatten().unique()[-2]) for values in scores[one]]
    torch.testing.assert_close(scores[moved][0], scores[model][0][order], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(scores[moved][1], scores[model][1][:, order], rtol=1e-9, atol=1e-12)
    masks = [prunelab.prune(one, 0.4, criterion=make(one), scope="local", apply=False, **how) for one in (model, moved)]
    for which, name in enumerate(names):
        kept, gone = scores[model][which][masks[0][name]], scores[model][which][~masks[0][name]]
        if not gone.numel() or kept.min() - gone.max() > 1e-9:  # no tie at the threshold
            there = masks[0][name][order] if which == 0 else masks[0][name][:, order]
            assert torch.equal(masks[1][name], there)


@profile(60)
@given(
    model=NETWORKS, granularity=st.sampled_from([Weight(), Group(1, 3), Filter(), Channel()]),
    power=st.integers(-8, 8), scope=st.sampled_from(["global", "local", ERK()]), sparsity=SPARSITIES,
)  # fmt: skip
def test_the_unit_of_the_weights_does_not_matter(
    model: nn.Sequential, granularity: Granularity, power: int, scope: str | Scope, sparsity: float
) -> None:
    scaled = copy.deepcopy(model)
    for module in layers(scaled):
        module.weight.data *= 2.0**power
    kinds: list[Criterion] = [Magnitude(), Magnitude(2), Magnitude(normalize="layer"), Magnitude(normalize="lamp")]
    if not isinstance(granularity, Weight):
        kinds.append(criteria.GeometricMedian())
    for criterion in kinds:
        how = {"criterion": criterion, "granularity": granularity, "scope": scope, "apply": False}
        assert prunelab.prune(scaled, sparsity, **how) == prunelab.prune(model, sparsity, **how)


@profile(40)
@given(seed=st.integers(0, 99), powers=st.lists(st.integers(-6, 6), min_size=2, max_size=2))
def test_the_unit_of_each_layer_does_not_matter_to_what_compares_layers_fairly(seed: int, powers: list[int]) -> None:
    model, scaled = chain(seed), chain(seed)
    for index, power in zip((0, 3), powers, strict=True):
        scaled[index].weight.data *= 2.0**power
    fair: list[Criterion] = [Magnitude(normalize="layer"), Magnitude(normalize="lamp")]
    fair += [
        criteria.FilterCorrelation(measure, variant)
        for measure in ("pearson", "cosine")
        for variant in ("pairs", "mean")
    ]
    for criterion in fair:
        how = {"criterion": criterion, "granularity": Filter(), "apply": False}
        assert prunelab.prune(scaled, 0.5, **how) == prunelab.prune(model, 0.5, **how)


@profile(15)
@given(seed=st.integers(0, 99), powers=st.lists(st.integers(-6, 6), min_size=6, max_size=6))
def test_what_a_rectifier_lets_through_may_be_scaled_before_and_back_after(seed: int, powers: list[int]) -> None:
    """relu(c z) / c = relu(z): |w · ∂L/∂w| does not see the c that each hidden unit may have, the magnitude does."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    scaled, factors = copy.deepcopy(model), 2.0 ** torch.tensor(powers, dtype=torch.float64)
    scaled[1].weight.data *= factors[:, None]
    scaled[1].bias.data *= factors
    scaled[3].weight.data /= factors
    for criterion in (Taylor(), Taylor(joint=False), criteria.SNIP(), criteria.SynFlow(batches()[0][0])):
        for granularity in (Weight(), Filter(), Channel()):
            how = {"granularity": granularity, "data": batches(), "loss": F.cross_entropy}
            found = prunelab.score(scaled, criterion, **how)
            for name, scores in prunelab.score(model, criterion, **how).items():
                torch.testing.assert_close(found[name], scores, rtol=1e-9, atol=1e-12)
    if len(set(powers)) > 1:
        assert prunelab.prune(scaled, 0.5, apply=False) != prunelab.prune(model, 0.5, apply=False)


# --- number formats ---------------------------------------------------------------------------------------------------


@profile(60)
@given(
    data=st.data(), granularity=st.sampled_from(GRANULARITIES), p=st.sampled_from([1, float("inf")]),
    scope=st.sampled_from(["global", "local", ERK()]), sparsity=SPARSITIES,
)  # fmt: skip
def test_every_float_type_decides_alike_where_it_holds_the_same_numbers(
    data: st.DataObject, granularity: Granularity, p: float, scope: str | Scope, sparsity: float
) -> None:
    eighths = st.integers(-16, 16).map(lambda whole: whole / 8)  # exact in every type, their sums in float32; many tie
    model = nn.Sequential(nn.Conv2d(2, 4, (1, 3), groups=2), nn.ConvTranspose1d(3, 2, 2), nn.Linear(5, 3))
    for module in model:
        values = data.draw(st.lists(eighths, min_size=module.weight.numel(), max_size=module.weight.numel()))
        module.weight.data = torch.tensor(values).view_as(module.weight)
    found = [
        prunelab.prune(
            copy.deepcopy(model).to(dtype), sparsity, criterion=Magnitude(p), granularity=granularity, scope=scope
        )
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    ]
    assert found[1:] == found[:1] * 3


# --- the algebra of masks ---------------------------------------------------------------------------------------------

NAMES = {"a": (2, 3), "b": (4,), "c": (0, 2), "d": ()}


@st.composite
def some_masks(draw: st.DrawFn, names: list[str] | None = None) -> Masks:
    chosen = draw(st.lists(st.sampled_from(list(NAMES)), unique=True)) if names is None else names
    found = {}
    for name in chosen:
        count = int(np.prod(NAMES[name]))
        found[name] = torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=torch.bool)
        found[name] = found[name].view(NAMES[name])
    return Masks(found)


ALL = some_masks(list(NAMES))
WHOLE = Masks({name: torch.ones(shape, dtype=torch.bool) for name, shape in NAMES.items()})
NOTHING = ~WHOLE


@profile(100)
@given(a=ALL, b=ALL, c=ALL)
def test_masks_of_the_same_parameters_are_a_boolean_algebra(a: Masks, b: Masks, c: Masks) -> None:
    assert a & b == b & a
    assert a | b == b | a
    assert (a & b) & c == a & (b & c)
    assert (a | b) | c == a | (b | c)
    assert a & (b | c) == (a & b) | (a & c)
    assert a | (b & c) == (a | b) & (a | c)
    assert a & (a | b) == a == a | (a & b)
    assert a & a == a == a | a
    assert ~~a == a
    assert ~(a & b) == ~a | ~b
    assert ~(a | b) == ~a & ~b
    assert a & ~a == NOTHING
    assert a | ~a == WHOLE
    assert a & WHOLE == a == a | NOTHING
    assert a.removed + b.removed == (a & b).removed + (a | b).removed
    assert a.sparsity + (~a).sparsity == pytest.approx(1)
    assert a.total == sum(mask.numel() for mask in a.values())
    for both in (a & b, a | b, ~a):
        assert both.removed == sum(int((~mask).sum()) for mask in both.values())


@profile(100)
@given(a=some_masks(), b=some_masks())
def test_what_is_not_named_is_kept_whole(a: Masks, b: Masks) -> None:
    def spelled_out(masks: Masks) -> Masks:
        return Masks({name: masks[name] if name in masks else WHOLE[name] for name in NAMES})

    assert spelled_out(a & b) == spelled_out(a) & spelled_out(b)
    assert spelled_out(a | b) == spelled_out(a) | spelled_out(b)
    assert spelled_out(a).removed == a.removed
    assert set(a & b) == set(a | b) == set(a) | set(b)
    assert (a & b).removed >= max(a.removed, b.removed)


# --- what stays as it was ---------------------------------------------------------------------------------------------


def everything(model: nn.Module) -> list[Any]:
    """All that a pruning could leave behind, in bits and identities."""
    bits = [(name, id(p), p.data_ptr(), p.detach().numpy().tobytes()) for name, p in model.named_parameters()]
    grads = [None if p.grad is None else (id(p.grad), p.grad.numpy().tobytes()) for p in model.parameters()]
    hooks = [
        tuple(map(len, (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks, m._backward_pre_hooks)))
        for m in model.modules()
    ]
    attributes = [sorted(module.__dict__) for module in model.modules()]
    buffers = [(name, buffer.numpy().tobytes()) for name, buffer in model.named_buffers()]
    flags = [(m.training, *(p.requires_grad for p in m.parameters(recurse=False))) for m in model.modules()]
    chance = torch.get_rng_state().tolist(), random.getstate()
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()
    return [bits, grads, hooks, attributes, buffers, flags, chance, modes]


def disturb(model: nn.Sequential, data: st.DataObject) -> None:
    """Some modules in eval mode, some parameters frozen, some with gradients."""
    for module in model:
        module.train(data.draw(st.booleans()))
    for parameter in model.parameters():
        parameter.requires_grad_(data.draw(st.booleans()))
        if data.draw(st.booleans()):
            parameter.grad = torch.full_like(parameter, 7.0)


@profile(40)
@given(question=QUESTIONS, sparsity=SPARSITIES, data=st.data())
def test_without_apply_nothing_changes(
    question: tuple[nn.Sequential, dict[str, Any]], sparsity: float, data: st.DataObject
) -> None:
    model, how = question
    disturb(model, data)
    before = everything(model)
    masks = prunelab.prune(model, sparsity, apply=False, **how)
    assert everything(model) == before
    assert prunelab.prune(model, sparsity, apply=False, within=masks, **how) == masks
    assert everything(model) == before


class BrokenError(Exception):
    pass


class Stumbling(nn.Module):
    """A layer that raises at its second batch."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 2:
            raise BrokenError
        return x


def broken_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    if len(targets) == 2:
        raise BrokenError
    return F.cross_entropy(outputs, targets)


@profile(20)
@given(question=QUESTIONS, data=st.data())
@pytest.mark.parametrize("mistake", ["sparsity", "data", "model", "loss", "nan", "name", "within", "granularity"])
def test_an_error_leaves_everything_as_it_was(
    mistake: str, question: tuple[nn.Sequential, dict[str, Any]], data: st.DataObject
) -> None:
    model, how = question
    sparsity, needs = 0.5, how["criterion"].needs
    if mistake == "sparsity":
        sparsity = data.draw(st.sampled_from([-0.1, 1.5, 50, float("nan")]))
    elif mistake == "data":
        assume({"gradients", "data"} & set(needs))
        how["data"] = data.draw(st.sampled_from([None, [], [(batches()[0][0],)], [*batches(), "x"]]))
    elif mistake == "model":
        assume({"gradients", "data"} & set(needs))
        model.insert(len(model) - 1, Stumbling())
        how.pop("exclude", None)
    elif mistake == "loss":
        assume("gradients" in needs)
        how["loss"] = broken_loss
    elif mistake == "nan":
        assume(isinstance(how["criterion"], Magnitude))
        model[0].weight.data.view(-1)[-1] = torch.nan
    elif mistake == "name":
        how["parameters"], _ = ["0.wight"], how.pop("exclude", None)
    elif mistake == "within":
        how["within"] = prunelab.prune(model, 1.0, apply=False)
    else:
        how["granularity"] = "filter"
    disturb(model, data)
    before = everything(model)
    with pytest.raises((ValueError, TypeError, BrokenError)):
        prunelab.prune(model, sparsity, **how)
    assert everything(model) == before
