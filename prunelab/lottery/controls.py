"""A ticket's race against its controls, at the same budget and with paired seeds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from prunelab.curvature.progress import Progress
from prunelab.evaluate.engine import Engine
from prunelab.evaluate.seeding import check_seeds, seeded
from prunelab.extras import extra
from prunelab.lottery import arms as entering
from prunelab.lottery.arms import Entrant, MakeSmall
from prunelab.lottery.search import Score
from prunelab.lottery.ticket import Ticket
from prunelab.lottery.training import Train, check_train, train_all

if TYPE_CHECKING:
    import pandas as pd

_ENTER: dict[str, Callable[[Ticket], Entrant]] = {
    "ticket": entering.ticket,
    "reinit": entering.reinit,
    "random": entering.random,
    "shuffled": entering.shuffled,
    "oneshot": entering.oneshot,
    "dense": entering.dense,
}
ARMS = (*_ENTER, "small")


def controls(
    tickets: Ticket | Iterable[Ticket],
    train: Train,
    score: Score,
    arms: Iterable[str] | None = None,
    *,
    rounds: Iterable[int] | None = None,
    make_small: MakeSmall | None = None,
    jobs: int = 1,
    engine: Engine | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train each ticket and what it must beat, in the same way, and score them: one row a network.

    - `"ticket"`: its masks, its initial weights.
    - `"reinit"`: its masks, the initial weights of another seed (Frankle & Carbin 2019).
    - `"random"`: random masks that keep as many units of each parameter, its initial weights.
    - `"shuffled"`: its masks with rows and columns permuted, so that each unit has as many weights as before, but
      others; its initial weights. For masks of single weights or kernels.
    - `"oneshot"`: as much removed at once from the trained dense network.
    - `"dense"`: the whole network. Its `round` is 0.
    - `"small"`: a dense network with as many parameters as the ticket has left.

    All networks of one seed see the same batches in the same order, so compare them in pairs: `differences`. A ticket
    that starts at a later step trains from there on; arms with fresh weights (reinit, dense, small) train all the
    steps, so that they have had as many as it has had in all.

    Args:
        tickets: one for each seed.
        train: a `Recipe`, with which all networks of a round are trained at once, or a function as in `find_ticket`.
        score: score(model) → a number, larger is better, of a trained network.
        arms: which; by default all that can be made.
        rounds: after which rounds of the search to race; the last by default. Each is a race of its own.
        make_small: make_small(seed, parameters) → a dense network with about so many parameters, for the arm "small".
        jobs, engine: processes that train the networks of a recipe, as in `train_stacked`.
        progress: say how far it is, if it takes more than two seconds.

    Returns:
        a DataFrame with the columns arm, seed, round, kept (the fraction of the entries that the masks keep; 1 where
        there are none) and score, in the order of rounds, arms and seeds.

    Raises:
        TypeError, ValueError: a bad argument, before anything is trained.

    Warns:
        RuntimeWarning: the training of some network diverged. It is scored as it is.
    """
    entered = [tickets] if isinstance(tickets, Ticket) else list(tickets)
    _check(entered, score)
    chosen = _chosen(arms, entered, make_small)
    numbers = [len(entered[0].rounds)] if rounds is None else _numbers(rounds)
    levels = {number: [one.at(number) for one in entered] for number in numbers}
    check_train(train, [one.start for several in levels.values() for one in several])
    rows: list[dict[str, Any]] = []
    total = len(entered) * (len(numbers) * len(set(chosen) - {"dense"}) + ("dense" in chosen))
    with Progress("controls", total, progress) as shown:
        for position, several in enumerate(levels.values()):
            now = [arm for arm in chosen if arm != "dense" or position == 0]
            field = [_enter(arm, one, make_small) for arm in now for one in several]
            rows += _raced(field, train, score, jobs, engine)
            shown.show(len(rows))
    with extra("a table"):
        import pandas as pd
    return pd.DataFrame(rows)


def _raced(
    field: Sequence[Entrant], train: Train, score: Score, jobs: int, engine: Engine | None
) -> list[dict[str, Any]]:
    """The rows of the networks, once they are trained."""
    models = [one.model for one in field]
    states = train_all(train, models, field, jobs=jobs, engine=engine)
    if wild := [f"{one.arm} of seed {one.seed}" for one, state in zip(field, states, strict=True) if not state.finite]:
        message = f"training gave weights that are NaN or infinite: {', '.join(wild):.200}; lower the learning rate"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    rows = []
    for one in field:
        with seeded(one.seed):
            value = float(score(one.model))
        rows.append({"arm": one.arm, "seed": one.seed, "round": one.round, "kept": one.kept, "score": value})
    return rows


def _enter(arm: str, found: Ticket, make_small: MakeSmall | None) -> Entrant:
    if arm == "small" and make_small is not None:
        return entering.small(found, make_small)
    return _ENTER[arm](found)


def _check(entered: Sequence[Ticket], score: Score) -> None:
    for one in entered:
        if not isinstance(one, Ticket):
            raise TypeError(f"tickets must be Tickets, such as find_ticket returns, not {one!r:.60}")
    check_seeds([one.seed for one in entered])
    if len({len(one.rounds) for one in entered}) != 1:
        raise ValueError("the tickets were found in different numbers of rounds; race those of one length: ticket.at")
    if not callable(score):
        raise TypeError(f"score must be a function score(model) → number, not {score!r:.60}")


def _numbers(rounds: Iterable[int]) -> list[int]:
    if isinstance(rounds, int):
        raise TypeError(f"rounds must be a list of numbers, not {rounds!r}; write [{rounds!r}]")
    if not (numbers := list(dict.fromkeys(rounds))):
        raise ValueError("rounds is empty; name at least one, or leave it out for the last")
    return numbers


def _chosen(arms: Iterable[str] | None, entered: Sequence[Ticket], make_small: MakeSmall | None) -> list[str]:
    if arms is None:
        without = set() if all(map(entering.can_shuffle, entered)) else {"shuffled"}
        without |= set() if make_small is not None else {"small"}
        return [arm for arm in ARMS if arm not in without]
    if isinstance(arms, str):
        raise TypeError(f"arms must be a list of names, not the string {arms!r}; write [{arms!r}]")
    chosen = list(dict.fromkeys(arms))
    for arm in chosen:
        if arm not in ARMS:
            raise ValueError(f"there is no arm {arm!r}; choose from {', '.join(ARMS)}")
    if not chosen:
        raise ValueError(f"arms is empty; choose from {', '.join(ARMS)}")
    if "small" in chosen and not callable(make_small):
        raise ValueError("the arm 'small' needs make_small(seed, parameters) → a dense network of about that size")
    return chosen
