"""Early-bird tickets: the mask that pruning would choose settles long before the weights do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from prunelab.criteria.base import Criterion
from prunelab.criteria.measuring import Batches, Loss
from prunelab.evaluate.seeding import seeded
from prunelab.granularity import Granularity
from prunelab.lottery.recipe import Recipe
from prunelab.lottery.state import State, mixed, weights_of
from prunelab.lottery.ticket import MakeModel, make
from prunelab.lottery.training import Train
from prunelab.masks import Masks
from prunelab.names import Exclude
from prunelab.pruner import prune
from prunelab.schedule.base import check_sparsity, check_step
from prunelab.scope import Scope


@dataclass(frozen=True, eq=False)
class EarlyBird:
    """A mask drawn while a network was still being trained.

    Attributes:
        masks: what pruning chose after `epoch` epochs.
        found: whether the masks had settled by then; False where training ended first.
        epoch: epochs that were trained.
        distances: `mask_distance` between the masks of each epoch and those of the epoch before; the first belongs to
            epoch 2.
        history: the masks of every epoch, from epoch 1 on.
        weights: the network's `state_dict` at the end of `epoch`, not masked: training goes on from here.
    """

    masks: Masks
    found: bool
    epoch: int
    distances: tuple[float, ...]
    history: tuple[Masks, ...] = field(repr=False)
    weights: Mapping[str, Tensor] = field(repr=False)

    def matrix(self) -> Tensor:
        """The distance of every two epochs, (epochs, epochs) float64, as You et al. 2020 draw it."""
        flat = torch.stack([torch.cat([mask.flatten() for mask in masks.values()]) for masks in self.history]).double()
        # Two masks agree in kept entries, a·b, and in removed ones, (1-a)·(1-b).
        return 1 - (flat @ flat.T + (1 - flat) @ (1 - flat).T) / max(1, flat.shape[1])


def mask_distance(a: Masks, b: Masks) -> float:
    """The fraction of entries in which two masks differ (You et al. 2020): 0 for equal ones, 1 for opposite ones.

    >>> mask_distance(Masks({"w": torch.tensor([True, True, False, True])}),
    ...               Masks({"w": torch.tensor([True, False, False, False])}))
    0.5

    Raises ValueError for masks of different models.
    """
    if a.keys() != b.keys() or any(mask.shape != b[name].shape for name, mask in a.items()):
        raise ValueError(f"the masks belong to different models: {a!r} and {b!r}")
    differ = sum(int((mask ^ b[name].to(mask.device)).sum()) for name, mask in a.items())
    return differ / a.total if a.total else 0.0


def early_bird(
    make_model: MakeModel,
    train: Train,
    *,
    keep: float,
    epochs: int | None = None,
    threshold: float = 0.1,
    patience: int = 5,
    seed: int = 0,
    criterion: Criterion | None = None,
    granularity: Granularity | None = None,
    scope: str | Scope | Mapping[str, float] = "global",
    data: Batches | None = None,
    loss: Loss | None = None,
    parameters: Iterable[str] | None = None,
    exclude: Exclude | None = None,
) -> EarlyBird:
    """Train a dense network until the mask that pruning would choose has settled (You et al. 2020).

    After every epoch the masks are drawn, without pruning anything. Training stops when the last `patience` distances
    between the masks of consecutive epochs are all smaller than `threshold`: the defaults are the paper's. (Small steps
    may still lead far: `EarlyBird.matrix` shows the distance of any two epochs.)

    Args:
        make_model: make_model(seed) → a fresh network.
        train: a `Recipe`, or a function (model, masks, seed) that trains one epoch in place; the masks are empty,
            and the seed is another in each epoch.
        keep: the fraction that the masks keep, from 0 to 1.
        epochs: how many at most; by default all that the recipe's steps make. A function does not know: say it then.
        threshold: above 0. Two random masks that keep a fraction k differ in 2k(1 - k) of the entries: for a `keep`
            near 0 or 1 that is below 0.1 from the start, so choose the threshold smaller there.
        patience: how many distances must be small, at least 1.
        criterion, granularity, scope, data, loss, parameters, exclude: as for `prunelab.prune`.

    Raises:
        TypeError, ValueError: a bad argument.
    """
    sparsity = 1 - check_sparsity(keep, "keep")
    if not threshold > 0:
        raise ValueError(f"threshold={threshold!r} must be above 0: no distance is smaller than that")
    check_step(patience, "patience", least=1)
    model = make(make_model, seed)
    history: list[Masks] = []
    distances: list[float] = []
    found = False
    for _ in _epochs(model, train, epochs, seed):
        history.append(
            prune(
                model, sparsity, criterion=criterion, granularity=granularity, scope=scope, data=data, loss=loss,
                parameters=parameters, exclude=exclude, apply=False,
            )
        )  # fmt: skip
        if len(history) > 1:
            distances.append(mask_distance(history[-2], history[-1]))
        found = len(distances) >= patience and max(distances[-patience:]) < threshold
        if found:
            break
    return EarlyBird(history[-1], found, len(history), tuple(distances), tuple(history), weights_of(model))


def _epochs(model: nn.Module, train: Train, epochs: int | None, seed: int) -> Iterator[None]:
    """Trains the model epoch by epoch."""
    if epochs is not None:
        check_step(epochs, "epochs", least=1)
    if isinstance(train, Recipe):
        length = -(-len(train.inputs) // train.batch_size)
        state: State | None = None
        for end in [*range(length, train.steps, length), train.steps][:epochs]:
            state = train.train(model, None, seed, resume=state, stop=end)
            yield
        return
    if not callable(train):
        raise TypeError(f"train must be a Recipe or a function (model, masks, seed), not {type(train).__name__}")
    if epochs is None:
        raise ValueError("epochs=None: a function does not say when its training ends; give the most epochs to train")
    for epoch in range(epochs):
        own = mixed(seed, epoch)
        with seeded(own):
            train(model, Masks({}), own)
        yield
