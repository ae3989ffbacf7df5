"""Among whom units compete: a scope says which units are ranked together, and so where the sparsity is counted."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from prunelab.scope.base import Candidates, Scope
from prunelab.scope.budgets import Budgets
from prunelab.scope.collapse import LayerCollapseWarning, warn_of_collapse
from prunelab.scope.erk import ERK
from prunelab.scope.everyone import Global, Local
from prunelab.scope.pattern import NM
from prunelab.scope.per_row import PerRow

__all__ = [
    "ERK",
    "NM",
    "Budgets",
    "Candidates",
    "Global",
    "LayerCollapseWarning",
    "Local",
    "PerRow",
    "Scope",
    "resolve",
    "warn_of_collapse",
]

_BY_NAME: dict[str, Scope] = {"global": Global(), "local": Local()}


def resolve(scope: str | Scope | Mapping[str, float], model: nn.Module | None = None) -> Scope:
    """The scope that a user's argument names. A mapping, name or glob → fraction, is looked up in `model`."""
    if isinstance(scope, Scope):
        return scope
    if isinstance(scope, str) and scope in _BY_NAME:
        return _BY_NAME[scope]
    if isinstance(scope, Mapping) and model is not None:
        return Budgets.of(model, scope)
    if isinstance(scope, type) and issubclass(scope, Scope):
        raise TypeError(f"scope must be a Scope, not the class {scope.__name__}; write {scope.__name__}()")
    raise ValueError(
        f"unknown scope {scope!r}; use {' or '.join(map(repr, _BY_NAME))}, a dict {{name: fraction}}, or a scope.Scope "
        "such as PerRow(), NM(2, 4), ERK()"
    )
