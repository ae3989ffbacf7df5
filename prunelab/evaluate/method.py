"""What a sweep compares: methods, and the baselines that go with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import nn

from prunelab.criteria.base import Criterion
from prunelab.criteria.magnitude import Magnitude
from prunelab.criteria.measuring import Batches, Loss
from prunelab.criteria.random import Random
from prunelab.evaluate.fingerprint import describe
from prunelab.granularity import Granularity, Weight
from prunelab.masks import Masks
from prunelab.names import Exclude
from prunelab.pruner.once import prune
from prunelab.scope import Scope, resolve


class PruningFunction(Protocol):
    """Prunes `model`, a copy of its own, and returns the masks to apply to it, or the pruned network itself."""

    def __call__(self, model: nn.Module, sparsity: float, seed: int, /) -> Masks | nn.Module:
        """The masks, or the network."""


@dataclass(frozen=True)
class Method:
    """A way to prune, for `sweep`: the arguments of `prunelab.prune`.

    It is called as any method of one's own is: method(model, sparsity, seed) → masks. With `criterion=` another
    criterion takes the place of its own: so is its random baseline made, at the same granularity, scope and parameters.

    >>> import torch
    >>> from prunelab.granularity import Filter
    >>> Method(granularity=Filter())(torch.nn.Linear(4, 4), 0.5, 0).sparsity
    0.5

    Raises TypeError or ValueError for what cannot work: a scope that fixes each layer's sparsity, a criterion without
    the data that it needs or at a granularity where it has no meaning.
    """

    criterion: Criterion = field(default_factory=Magnitude)
    granularity: Granularity | None = None
    scope: str | Scope = "global"
    parameters: Iterable[str] | None = None
    exclude: Exclude | None = None
    data: Batches | None = field(default=None, repr=False)
    loss: Loss | None = field(default=None, repr=False)
    rounds: int | None = None

    def __post_init__(self) -> None:
        for name, kind, example in (("criterion", Criterion, "Magnitude()"), ("granularity", Granularity, "Filter()")):
            value = getattr(self, name)
            if not isinstance(value, kind) and not (value is None and name == "granularity"):
                call = f"; write {value.__name__}()" if isinstance(value, type) else ""
                raise TypeError(f"{name} must be a {kind.__name__} such as {example}, not {value!r}{call}")
        if isinstance(self.scope, Mapping):
            raise ValueError(
                "a scope that names a fraction for each parameter leaves no sparsity to sweep; use 'global', 'local' "
                "or a scope.Scope, or a function (model, sparsity, seed) that calls prune"
            )
        resolve(self.scope)
        if self.granularity is not None:
            self.criterion.check(self.granularity)
        if {"gradients", "data"} & set(self.criterion.needs) and self.data is None:
            raise ValueError(f"{self.criterion} needs data: Method({self.criterion}, data=batches, loss=...)")
        for name in ("parameters", "exclude"):  # used again and again
            names = getattr(self, name)
            if isinstance(names, Iterable) and not isinstance(names, str):
                object.__setattr__(self, name, tuple(names))

    def __call__(self, model: nn.Module, sparsity: float, seed: int, /, *, criterion: Criterion | None = None) -> Masks:  # noqa: ARG002
        """The masks that keep all but the fraction `sparsity`; the model is not changed. `seed` is not used."""
        return prune(
            model,
            sparsity,
            criterion=criterion or self.criterion,
            granularity=self.granularity,
            scope=self.scope,
            data=self.data,
            loss=self.loss,
            parameters=self.parameters,
            exclude=self.exclude,
            rounds=self.rounds,
            apply=False,
        )


@dataclass(frozen=True)
class Chance:
    """The random baseline of a method: the same procedure, with random scores in place of its criterion."""

    method: Callable[..., Masks | nn.Module]

    def __call__(self, model: nn.Module, sparsity: float, seed: int, /) -> Masks | nn.Module:
        """What the method makes of the model when chance, from `seed`, decides."""
        return self.method(model, sparsity, seed, criterion=Random(seed))


@dataclass(frozen=True)
class Arm:
    """One line of the comparison.

    `kind` is "method", "random" or "dense". `key` is the same in every run of the same sweep; `chance` is the key of
    the arm's random baseline, empty where it has none of its own. `run` prunes; None for the dense network.
    """

    name: str
    kind: str
    key: str
    granularity: str = ""
    scope: str = ""
    definition: str = ""
    chance: str = ""
    run: PruningFunction | None = field(default=None, repr=False)


DENSE = Arm("dense", "dense", "dense")


def arms_of(methods: Mapping[str, Any], granularities: Iterable[Granularity] | None = None) -> tuple[Arm, ...]:
    """All arms: dense, every method (at each of the granularities, unless it says its own), and their random baselines.

    Methods that differ in nothing but the criterion share a baseline. Raises TypeError for what is no method.
    """
    if not isinstance(methods, Mapping) or not methods:
        raise TypeError(f"methods must be a mapping of names, such as {{'magnitude': Method()}}, not {methods!r:.60}")
    kinds = (Weight(),) if granularities is None else _checked(granularities)
    arms: dict[str, Arm] = {DENSE.key: DENSE}
    chances: dict[str, Arm] = {}
    for name, given in methods.items():
        for method in _at_each(name, given, kinds):
            chance = _chance(name, method)
            if chance is not None:
                chances.setdefault(chance.key, chance)
            arm = _arm(name, method, chance)
            if arm.key in arms:
                raise ValueError(f"two methods are called {arm.key.removeprefix('method ')!r}; rename one of {name!r}")
            arms[arm.key] = arm
    if not chances:  # functions that take no criterion: there is chance at single weights, at least
        chance = _chance("", Method(granularity=Weight()))
        assert chance is not None  # a Method has one
        chances = {chance.key: chance}
    return (*arms.values(), *_told_apart(list(chances.values()), list(arms.values())))


def _checked(granularities: Any) -> tuple[Granularity, ...]:
    if isinstance(granularities, Granularity | str) or not isinstance(granularities, Iterable):
        raise TypeError(f"granularities must be several, such as [Weight(), Filter()], not {granularities!r}")
    if not (kinds := tuple(granularities)):
        raise ValueError("granularities is empty; give at least one, or None for single weights")
    return kinds


def _at_each(name: str, given: Any, granularities: tuple[Granularity, ...]) -> list[Any]:
    """A method at each granularity; a criterion alone stands for the method that uses it."""
    if not isinstance(name, str) or not name or name in {"dense", "random"}:
        raise ValueError(f"a method cannot be called {name!r}: give it a name; dense and random are there anyway")
    if isinstance(given, Criterion):
        given = Method(given)
    if not callable(given) or isinstance(given, type | nn.Module):
        call = f"; write {given.__name__}()" if isinstance(given, type) and issubclass(given, Criterion) else ""
        raise TypeError(
            f"the method {name!r} must be a Method, a criterion, or a function (model, sparsity, seed) → masks or "
            f"network, not {given!r:.60}{call}"
        )
    if isinstance(given, Method) and given.granularity is None:
        return [replace(given, granularity=granularity) for granularity in granularities]
    return [given]


def _arm(name: str, method: Any, chance: Arm | None) -> Arm:
    granularity, scope = _where(method)
    return Arm(
        name=name,
        kind="method",
        key=f"method {name} {granularity}".rstrip(),
        granularity=granularity,
        scope=scope,
        definition=describe(method),
        chance=chance.key if chance else "",
        run=method,
    )


def _chance(name: str, method: Any) -> Arm | None:
    """The random baseline of a method; None where it lets no criterion take the place of its own."""
    granularity, scope = _where(method)
    if isinstance(method, Method):
        definition = describe(replace(method, criterion=Random(), data=None, loss=None))
    elif _takes_criterion(method):
        definition = f"{name}: {describe(method)}"
    else:
        return None
    return Arm("random", "random", f"random {definition}", granularity, scope, definition, run=Chance(method))


def _takes_criterion(method: Any) -> bool:
    try:
        return "criterion" in inspect.signature(method).parameters
    except (TypeError, ValueError):  # built in, with no signature
        return False


def _where(method: Any) -> tuple[str, str]:
    return (_text(method.granularity), _text(method.scope)) if isinstance(method, Method) else ("", "")


def _text(setting: Any) -> str:
    """The same in every process, also for a class of one's own that does not say how it is shown."""
    return type(setting).__name__ if type(setting).__repr__ is object.__repr__ else str(setting)


def _told_apart(chances: list[Arm], arms: list[Arm]) -> list[Arm]:
    """Baselines by their names: "random", and whose where several share a granularity and a scope."""
    places = [(chance.granularity, chance.scope) for chance in chances]
    return [
        chance
        if places.count(place) == 1
        else replace(chance, name=f"random for {', '.join(arm.name for arm in arms if arm.chance == chance.key)}")
        for chance, place in zip(chances, places, strict=True)
    ]
