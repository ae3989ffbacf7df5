"""Tensors from nothing: code that makes one of a channel's size is expected to make a smaller one."""

from __future__ import annotations

from prunelab.surgery.follow import Follower, Rule
from prunelab.surgery.operations import arguments
from prunelab.surgery.rules.pointwise import elementwise
from prunelab.trace import Op


def uniform(run: Follower, op: Op) -> None:
    """Constants and noise: every dimension gets channels of its own, which tie to what they meet.

    Whether the code then really asks for the smaller size shows when the smaller network runs.
    """
    for value in op.outputs:
        run.set(value, run.fresh(value.shape), zero="zeros" in op.name)


def like(run: Follower, op: Op) -> None:
    """As large as its argument, whatever that is."""
    source = arguments(op).get("self") or op.inputs[0]
    for value in op.outputs:
        run.set(
            value, run.of(source) if value.shape == source.shape else run.fresh(value.shape), zero="zeros" in op.name
        )


def bernoulli(run: Follower, op: Op) -> None:
    """Noise of the size of its argument."""
    elementwise(run, op)


def counted(run: Follower, op: Op) -> None:
    """Values that depend on the position (a range): their positions cannot go."""
    for value in op.outputs:
        run.set(value, [])


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        [
            "zeros",
            "ones",
            "empty",
            "full",
            "rand",
            "randn",
            "randint",
            "new_zeros",
            "new_ones",
            "new_empty",
            "new_full",
            "scalar_tensor",
            "empty_strided",
            "new_empty_strided",
            "empty_permuted",
            "normal_functional",
        ],
        uniform,
    ),
    **dict.fromkeys(
        ["zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like"], like
    ),
    "bernoulli": bernoulli,
    **dict.fromkeys(
        ["arange", "linspace", "logspace", "eye", "randperm", "tril_indices", "triu_indices", "range"], counted
    ),
}
