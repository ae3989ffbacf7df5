"""The axes composed over time: prune while a network trains, as a schedule says."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from torch import nn
from torch.optim import Optimizer

from prunelab.criteria.base import Criterion
from prunelab.criteria.magnitude import Magnitude
from prunelab.criteria.measuring import Batches, Loss
from prunelab.granularity import Granularity
from prunelab.hold import Hold
from prunelab.masks import Masks
from prunelab.names import Exclude
from prunelab.pruner.once import prune
from prunelab.schedule import Schedule, check_step
from prunelab.scope import LayerCollapseWarning, Scope

__all__ = ["Pruner"]

_RELEASED = "this Pruner was released; make a new one, or give it a state with load_state_dict"
_STATE = {"step", "due", "sparsity", "masks", "criterion"}


class Pruner:
    """Prunes a model while it trains, and holds the zeros. Driven like a learning-rate scheduler:

    >>> import torch
    >>> from prunelab.schedule import AGP
    >>> model = torch.nn.Linear(10, 10)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> pruner = Pruner(model, optimizer, schedule=AGP(0.9, start=0, end=20, every=5))
    >>> for _ in range(20):
    ...     optimizer.zero_grad()
    ...     model(torch.randn(4, 10)).square().mean().backward()
    ...     optimizer.step()
    ...     pruner.step()
    >>> pruner.sparsity, int((model.weight == 0).sum())
    (0.9, 90)

    After k calls of `step` the sparsity is that of the schedule's last due step up to k, as nearly as whole units (of
    several sizes) allow: t counts optimizer steps that
    are done, the first call is t = 1, and it makes up for what was due at 0. So `OneShot(0.9)` prunes at the first
    call, and a run of exactly `end` steps ends exactly at the final sparsity. Masks nest: what is gone stays gone,
    until the schedule falls (dense-sparse-dense). Then the weights that are free again train on, from zero.

    Args:
        model, optimizer: what is trained. Nothing is attached to the model; the optimizer gets one hook.
        schedule: how much is gone when, a `Schedule`.
        criterion, granularity, scope, data, loss, parameters, exclude: as for `prune`.

    Raises:
        TypeError, ValueError: whatever `prune` would refuse at the schedule's largest sparsity, a scope that fixes
            another one, an optimizer of another model, or no schedule. Making a Pruner goes through one pruning without
            applying it to find that out, so `data` is read once; the model and the optimizer stay as they were.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        schedule: Schedule,
        criterion: Criterion | None = None,
        granularity: Granularity | None = None,
        scope: str | Scope = "global",
        data: Batches | None = None,
        loss: Loss | None = None,
        parameters: Iterable[str] | None = None,
        exclude: Exclude | None = None,
    ) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, _checked_schedule(schedule)
        self._how: dict[str, Any] = {
            "criterion": criterion,
            "granularity": granularity,
            "scope": scope,
            "data": data,
            "loss": loss,
            "parameters": _reusable(parameters),
            "exclude": _reusable(exclude),
        }
        self._step = 0  # optimizer steps that are done
        self._due: int | None = None  # the schedule's step that was carried out last
        self._masks = Masks({})
        self._hold: Hold | None = None
        self._released = False
        self._whole = self._rehearse()

    @property
    def masks(self) -> Masks:
        """What is kept now; empty before anything was due. They are the ones that are held: copy before you write."""
        return self._masks

    @property
    def sparsity(self) -> float:
        """The fraction of the masked parameters' entries that is gone now."""
        return self._masks.sparsity

    def step(self) -> None:
        """Prune if something is due. Call it once after each `optimizer.step()`.

        Raises what `prune` raises, such as ValueError for NaN weights. Masks,
        hold and step count are then unchanged.
        """
        if self._released:
            raise ValueError(_RELEASED)
        now = self._step + 1
        unseen = range(now if self._step else 0, now + 1)
        due = max(filter(self.schedule.due, unseen), default=None)
        if due is not None:
            self._prune(due)
        self._step = now

    def release(self) -> None:
        """Stop holding, for good. The weights stay as they are; calling it again does nothing."""
        self._replace_hold(None)
        self._released = True

    def __enter__(self) -> Pruner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"Pruner({self.schedule!r}, step {self._step}, sparsity {self.sparsity:.4f})"

    # --- resuming ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state, in numbers and tensors, to be saved with those of the model and the optimizer.

        A run that loads all three goes on bit for bit as if it had never stopped.
        """
        return {
            "step": self._step,
            "due": self._due,
            "sparsity": self._wanted(self._due),
            "masks": {name: mask.detach().clone() for name, mask in self._masks.items()},
            "criterion": self._criterion.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken, with a Pruner made with the same arguments.

        Raises:
            TypeError, ValueError: no such state, or one that belongs to another model, schedule or granularity. Nothing
                has changed then.
        """
        step, due, masks = self._checked_state(state)
        hold = masks.hold(self.model, self.optimizer) if masks.removed else None
        try:
            self._criterion.load_state_dict(state["criterion"])
        except (TypeError, ValueError):
            if hold is not None:
                hold.release()
            raise
        self._replace_hold(hold)
        self._step, self._due, self._masks, self._released = step, due, masks, False

    def _checked_state(self, state: Mapping[str, Any]) -> tuple[int, int | None, Masks]:
        if not isinstance(state, Mapping):
            raise TypeError(f"state must be what Pruner.state_dict returned, not {type(state).__name__}")
        if set(state) != _STATE:
            raise ValueError(
                f"state must have the keys {sorted(_STATE)}, as Pruner.state_dict gives, not {list(state)}"
            )
        step, masks = check_step(state["step"], "state['step']"), state["masks"]
        expected = self._last_due(step)
        if (state["due"], state["sparsity"]) != (expected, self._wanted(expected)):
            raise ValueError(
                f"the state at step {step} was last pruned at {state['due']} to a sparsity of {state['sparsity']}, but "
                f"{self.schedule!r} says at {expected} to {self._wanted(expected)}: it belongs to another schedule"
            )
        masks = Masks(masks, self.model)
        names = set(self._whole) if expected is not None else set()
        if set(masks) != names:
            raise ValueError(
                f"the state masks {', '.join(masks) or 'nothing'}, this Pruner {', '.join(sorted(names)) or 'nothing'} "
                "by then: it was made with other parameters= or another granularity"
            )
        return step, expected, Masks({name: mask.clone() for name, mask in masks.items()})

    # --- one pruning ---------------------------------------------------------------------------------------------

    def _prune(self, due: int) -> None:
        sparsity = self.schedule(due)
        falls = sparsity < self._wanted(self._due)
        if sparsity == 0 and (falls or not self._masks.removed):
            masks = Masks({name: mask.clone() for name, mask in self._whole.items()})
        else:
            within = self._masks if self._masks and not falls else None
            masks = prune(self.model, sparsity, within=within, apply=False, **self._how)
        self._replace_hold(masks.hold(self.model, self.optimizer) if masks.removed else None)
        self._masks, self._due = masks, due

    @property
    def _criterion(self) -> Criterion:
        return self._how["criterion"] or Magnitude()

    def _rehearse(self) -> Masks:
        """Prune to the largest sparsity, not applied: what cannot work fails now. Returns masks that keep all."""
        peak = max((self.schedule(step) for step in self.schedule.steps()), default=None)
        if peak is None:
            raise ValueError(f"{self.schedule!r} never has anything due up to its end, step {self.schedule.end}")
        self._check_scope()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LayerCollapseWarning)  # these weights are not the ones that will be pruned
            masks = _kept_whole(prune(self.model, peak, rounds=1, apply=False, **self._how))
        masks.hold(self.model, self.optimizer).release()  # for its checks: it has nothing to hold
        return masks

    def _check_scope(self) -> None:
        """Raises ValueError for a scope that fixes how much goes, where the schedule says otherwise."""
        scope = self._how["scope"]
        if isinstance(scope, Mapping):
            raise ValueError(
                "a scope that names a fraction for each parameter leaves nothing to a schedule; prune with it once, "
                "with prunelab.prune, or use 'global', 'local', scope.PerRow() or scope.ERK() here"
            )
        if isinstance(scope, Scope) and scope.fixed:
            for sparsity in {self.schedule(step) for step in self.schedule.steps()} - {0.0}:
                scope.check(sparsity)

    def _replace_hold(self, hold: Hold | None) -> None:
        if self._hold is not None:
            self._hold.release()
        self._hold = hold

    def _last_due(self, step: int) -> int | None:
        """The due step that `step` calls have carried out last."""
        steps: Iterable[int] = range(min(step, self.schedule.end), -1, -1) if step else ()
        return next((at for at in steps if self.schedule.due(at)), None)

    def _wanted(self, due: int | None) -> float:
        return 0.0 if due is None else self.schedule(due)


def _kept_whole(masks: Masks) -> Masks:
    return masks | ~masks


def _reusable(names: Any) -> Any:
    """What is asked for at every pruning must not be used up by the first."""
    return list(names) if isinstance(names, Iterator) else names


def _checked_schedule(schedule: Schedule) -> Schedule:
    if isinstance(schedule, Schedule):
        return schedule
    call = f"; write {schedule.__name__}(...)" if isinstance(schedule, type) and issubclass(schedule, Schedule) else ""
    raise TypeError(f"schedule must be a Schedule such as AGP(0.9, start=0, end=1000), not {schedule!r:.60}{call}")
