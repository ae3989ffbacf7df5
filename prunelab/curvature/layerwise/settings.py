"""How layers are to be pruned: the arguments that one layer and a whole network share, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from prunelab.curvature.layerwise.damping import check_damping
from prunelab.schedule import check_sparsity, check_step
from prunelab.scope import NM

Method = Literal["obs", "sparsegpt", "wanda", "magnitude"]

_DAMPING: dict[Method, float] = {"obs": 0.0, "sparsegpt": 0.01, "wanda": 0.0, "magnitude": 0.0}  # as published


@dataclass(frozen=True)
class Settings:
    """`sparsity` is the fraction to remove, that of the `pattern` where there is one."""

    sparsity: float
    method: Method
    pattern: NM | None
    damping: float
    refit: bool
    block_size: int


def checked(
    sparsity: float | None,
    method: Method,
    pattern: tuple[int, int] | None,
    damping: float | None,
    refit: bool,
    block_size: int,
) -> Settings:
    """The user's arguments as settings. Raises TypeError and ValueError for what cannot be meant."""
    if method not in _DAMPING:
        raise ValueError(f"unknown method {method!r}; use {', '.join(map(repr, get_args(Method)))}")
    shape = None
    if pattern is not None:
        if isinstance(pattern, NM):
            pattern = pattern.n, pattern.m
        if not isinstance(pattern, tuple | list) or len(pattern) != 2:
            raise TypeError(f"pattern must be (n, m), n kept of every m, such as (2, 4), not {pattern!r}")
        shape = NM(*pattern)
        fraction = shape.check(sparsity)
    elif sparsity is None:
        raise TypeError("sparsity is None: give the fraction to remove, such as 0.5, or a pattern, such as (2, 4)")
    else:
        fraction = check_sparsity(sparsity)
    own = _DAMPING[method] if damping is None else check_damping(damping)
    return Settings(fraction, method, shape, own, bool(refit), check_step(block_size, "block_size", least=1))
