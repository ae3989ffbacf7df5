"""The axes composed: what × which × among whom, applied once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral

import torch
from torch import Tensor, nn

from prunelab.criteria.base import Criterion
from prunelab.criteria.evidence import gather, score_targets
from prunelab.criteria.magnitude import Magnitude
from prunelab.criteria.measuring import Batches, Loss
from prunelab.granularity import Granularity, Weight
from prunelab.heads import targets_of
from prunelab.masks import Masks
from prunelab.names import Exclude
from prunelab.scope import Candidates, Scope, resolve, warn_of_collapse
from prunelab.scope.competition import AlreadyRemovedError
from prunelab.targets import Target, first_names, named_parameters

__all__ = ["prune", "score"]


@torch.no_grad()
def prune(
    model: nn.Module,
    sparsity: float | None = None,
    *,
    criterion: Criterion | None = None,
    granularity: Granularity | None = None,
    scope: str | Scope | Mapping[str, float] = "global",
    data: Batches | None = None,
    loss: Loss | None = None,
    parameters: Iterable[str] | None = None,
    exclude: Exclude | None = None,
    within: Masks | None = None,
    rounds: int | None = None,
    apply: bool = True,
) -> Masks:
    """Remove a fraction of a model's units: those with the lowest scores.

    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> masks = prune(model, 0.75)                                  # the 30 smallest of 40 weights
    >>> masks.sparsity, int((model[0].weight == 0).sum() + (model[2].weight == 0).sum())
    (0.75, 30)

    Args:
        model: any module. Its removed weights become zero; nothing is attached to it and its structure stays.
        sparsity: the fraction to remove, from 0 to 1. Units of one size: exactly round(sparsity * units), over all
            (`"global"`) or per parameter (`"local"`). Units of several sizes: from the lowest score on, each that still
            fits into round(sparsity * parameters). Ties go in order of position. None where the scope says it all.
        criterion: which units go; `criteria.Magnitude()` by default.
        granularity: what a unit is; `granularity.Weight()` by default.
        scope: among whom units compete: `"global"`, `"local"`, a `scope.Scope` such as `scope.NM(2, 4)`, or a dict,
            name or glob → the fraction to remove there; other parameters are then not pruned.
        data: batches (inputs, targets) for criteria that need them, something that can be iterated more than once.
        loss: loss(outputs, targets) → scalar, the mean over a batch, for criteria that need it.
        parameters: names or globs of the parameters to prune; by default the weights of all Linear and convolution
            modules. A glob means those of these that fit, or where none does, all parameters that fit.
        exclude: parameters to leave out: their names or those of modules, globs, functions (name, parameter) → bool, or
            a list of these.
        within: masks to stay inside: only what they keep is removed. What they removed counts towards the sparsity.
        rounds: remove in so many rounds, and measure the scores anew before each: after k of n rounds a fraction
            (1 - sparsity)**(k/n) is kept (Tanaka et al. 2020). By default the criterion's own number, mostly 1.
        apply: False leaves the model as it is and only returns the masks.

    Returns:
        the masks of the parameters that were pruned, biases of removed filters and layers included, and of those that
        `within` names. A bias that several layers share is kept while any of its units is.

    Raises:
        TypeError, ValueError: a bad argument, NaN weights, or a criterion without the data it needs. The model is then
            unchanged.

    Warns:
        LayerCollapseWarning: nothing is left of a parameter, though less than everything was asked for.
    """
    granularity, criterion, competition = _checked(granularity, criterion, scope, model)
    fraction = competition.check(sparsity)
    targets = targets_of(model, granularity, _named_once(competition, parameters), exclude)
    masks = kept = _restrict(within, model)
    shares = _shares(fraction, _check_rounds(rounds, criterion, competition), targets, kept)
    for number, share in enumerate(shares, start=1):
        candidates = _candidates(model, targets, criterion, granularity, data, loss, kept)
        try:
            units = competition.keep(candidates, share)
        except AlreadyRemovedError:
            if number == len(shares):
                raise
            continue  # on the way there, where one layer or row has lost more than the model on average
        warn_of_collapse(competition, candidates, units, fraction)
        decision = _unit_masks(model, targets, units, granularity)
        masks = kept = Masks(Masks(decision) & kept if kept else decision, model)
    if apply:
        masks.apply_(model)
    return masks


@torch.no_grad()
def score(
    model: nn.Module,
    criterion: Criterion | None = None,
    granularity: Granularity | None = None,
    *,
    data: Batches | None = None,
    loss: Loss | None = None,
    parameters: Iterable[str] | None = None,
    exclude: Exclude | None = None,
) -> dict[str, Tensor]:
    """Score every unit of a model: {parameter name: (units,)}, larger = keep. The model is left as it is.

    The arguments are those of `prune`.
    """
    granularity, criterion, _ = _checked(granularity, criterion, "global", model)
    targets = targets_of(model, granularity, parameters, exclude)
    return score_targets(model, targets, criterion, granularity, data, loss)


def _checked(
    granularity: Granularity | None,
    criterion: Criterion | None,
    scope: str | Scope | Mapping[str, float],
    model: nn.Module,
) -> tuple[Granularity, Criterion, Scope]:
    granularity = Weight() if granularity is None else granularity
    criterion = Magnitude() if criterion is None else criterion
    for value, kind, example in ((granularity, Granularity, "Filter()"), (criterion, Criterion, "Magnitude(p=1)")):
        if not isinstance(value, kind):
            call = f"; write {value.__name__}()" if isinstance(value, type) and issubclass(value, kind) else ""
            raise TypeError(f"{kind.__name__.lower()} must be a {kind.__name__} such as {example}, not {value!r}{call}")
    return granularity, criterion, resolve(scope, model)


def _named_once(scope: Scope, parameters: Iterable[str] | None) -> Iterable[str] | None:
    """The parameters to look at: those that the scope names, or else those that the user does."""
    if scope.names is not None and parameters is not None:
        raise ValueError("the scope already names the parameters to prune; leave parameters= out, or use exclude=")
    return parameters if scope.names is None else scope.names


def _check_rounds(rounds: int | None, criterion: Criterion, scope: Scope) -> int:
    given = criterion.rounds if rounds is None else rounds
    if not isinstance(given, Integral) or isinstance(given, bool) or given < 1:
        raise ValueError(f"rounds must be a whole number, at least 1, not {given!r}")
    if given > 1 and scope.fixed:
        whose = f"{criterion} removes in {given} rounds" if rounds is None else f"rounds is {given}"
        raise ValueError(f"{whose}, but {scope} fixes what goes, so that nothing is left to spread; write rounds=1")
    return int(given)


def _shares(sparsity: float, rounds: int, targets: list[Target], kept: Masks) -> list[float]:
    """The sparsity after each round, geometric from what is gone before the first; the last is exactly `sparsity`."""
    parts = [part for target in targets for part in target.parts]
    total = sum(part.weight.numel() for part in parts)
    gone = sum(int((~kept[part.name]).sum()) for part in parts if part.name in kept) / total if total else 0.0
    if sparsity <= gone:  # nothing to spread, or less than is gone already, which the scope refuses
        return [sparsity]
    left = (1 - sparsity) / (1 - gone)
    return [1 - (1 - gone) * left ** (k / rounds) for k in range(1, rounds)] + [sparsity]


def _candidates(
    model: nn.Module,
    targets: list[Target],
    criterion: Criterion,
    granularity: Granularity,
    data: Batches | None,
    loss: Loss | None,
    kept: Masks,
) -> list[Candidates]:
    """The units of every target with their scores; those that are not `kept` are there too, as no longer alive."""
    by_bits = _ranked_by_bits(criterion, granularity)
    if by_bits:
        evidence = gather(model, targets, criterion, granularity, data, loss, kept)
        scores = {name: one.weights[:, 0] for name, one in evidence.items()}
    else:
        scores = score_targets(model, targets, criterion, granularity, data, loss, kept)
    return [
        Candidates(
            name=target.name,
            scores=scores[target.name],
            sizes=_sizes(target, granularity, model),
            alive=_alive(target, granularity, kept),
            magnitude=by_bits,
            shape=tuple(target.weight.shape),
            layout=target.layout,
            granularity=granularity,
        )
        for target in targets
    ]


def _ranked_by_bits(criterion: Criterion, granularity: Granularity) -> bool:
    """|w| of single weights is ranked on their bits, so that no scores need to be computed or stored."""
    return type(criterion) is Magnitude and criterion.normalize is None and isinstance(granularity, Weight)


def _restrict(within: Masks | None, model: nn.Module) -> Masks:
    """What `within` keeps, under the first name of each parameter and on its device; empty without a restriction."""
    if within is None:
        return Masks({})
    if not isinstance(within, Masks):
        raise TypeError(f"within must be Masks, such as prune returned, not {type(within).__name__}")
    parameters, first = named_parameters(model), first_names(model)
    kept = Masks({})
    for name, mask in Masks(within, model).items():
        if mask.shape != parameters[first[name]].shape:
            raise ValueError(
                f"within= names {name!r}, which is {first[name]!r} seen another way (shape {tuple(mask.shape)}); "
                "name the mask after the first"
            )
        kept = kept & Masks({first[name]: mask.to(parameters[name].device)})
    return kept


def _alive(target: Target, granularity: Granularity, kept_before: Masks) -> Tensor | None:
    """(units,) bool: the units of which any weight was kept before; None where nothing was removed before."""
    if not any(part.name in kept_before for part in target.parts):
        return None
    kept = {p.name: kept_before.get(p.name, torch.ones_like(p.weight, dtype=torch.bool)) for p in target.parts}
    members = target.matrix({name: mask.to(torch.int8) for name, mask in kept.items()}, granularity)
    return members.any(1) if members.shape[1] else members.new_ones(members.shape[0], dtype=torch.bool)


def _sizes(target: Target, granularity: Granularity, model: nn.Module) -> int | Tensor:
    """Parameters in each unit, the biases that go with it included."""
    sizes = target.sizes(granularity)
    units = granularity.units(target.weight.shape, target.layout)[0]
    if not granularity.covers_bias or units == 0:
        return sizes
    parameters = named_parameters(model)
    return sizes + sum(parameters[bias].numel() // units for part in target.parts for bias in part.biases)


def _unit_masks(
    model: nn.Module, targets: list[Target], kept: list[Tensor], granularity: Granularity
) -> dict[str, Tensor]:
    """The decision about units as masks of the parameters; a bias shared by several layers is kept if any keeps it."""
    parameters = named_parameters(model)
    masks: dict[str, Tensor] = {}
    for target, keep in zip(targets, kept, strict=True):
        for part in target.parts:
            masks[part.name] = granularity.mask(keep, part.weight.shape, part.layout)
            for bias in part.biases if granularity.covers_bias and keep.numel() else ():
                mask = granularity.bias_mask(keep, parameters[bias].numel(), part.layout)
                masks[bias] = masks[bias] | mask if bias in masks else mask
    return masks
