"""Explicit budgets: each parameter is pruned to the sparsity that it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from prunelab.names import expand, is_glob
from prunelab.schedule import check_sparsity
from prunelab.scope.base import Candidates, Scope
from prunelab.scope.competition import compete
from prunelab.targets import default_names, first_names


@dataclass(frozen=True)
class Budgets(Scope):
    """Units compete within their own parameter, each with a sparsity of its own; other parameters are not pruned.

    Users write a dict, `scope={"fc1.weight": 0.9, "layer3.*.weight": 0.5}`, and `Budgets.of` looks its names up.

    Args:
        fractions: parameter name → fraction to remove, by the first name of each parameter.
    """

    fixed: ClassVar[bool] = True

    fractions: Mapping[str, float]

    @classmethod
    def of(cls, model: nn.Module, fractions: Mapping[str, float]) -> Budgets:
        """Look names and globs up in a model. A glob means the parameters that are pruned by default, or where none of
        these fits, all that fit; a parameter's own name comes before globs.

        Raises TypeError or ValueError where a name means nothing, a fraction is none, or globs contradict each other.
        """
        for pattern in fractions:
            if not isinstance(pattern, str):
                raise TypeError(f"a scope names parameters by strings such as 'fc1.weight', not {pattern!r:.60}")
        first = first_names(model)
        default = default_names(model)
        chosen: dict[str, tuple[str, float]] = {}
        for pattern in sorted(fractions, key=lambda name: is_glob(name) and name not in first):  # names before globs
            fraction = check_sparsity(fractions[pattern], f"the sparsity of {pattern!r}")
            for name in expand(pattern, list(first), default):
                other, before = chosen.setdefault(first[name], (pattern, fraction))
                by_name = other in first and pattern not in first
                if before != fraction and not by_name:
                    raise ValueError(
                        f"{other!r} asks for a sparsity of {before} in {name!r}, and {pattern!r} for {fraction}; "
                        "let no two of them speak of the same parameter"
                    )
        if not chosen:
            raise ValueError("scope={} names no parameter; write {'fc1.weight': 0.9}, or use 'global' or 'local'")
        return cls({name: fraction for name, (_, fraction) in chosen.items()})

    def check(self, sparsity: float | None) -> float:
        if sparsity is not None:
            raise ValueError(
                f"the scope already says how much goes from each parameter; sparsity must be None, not {sparsity}"
            )
        return max(self.fractions.values())

    def asked(self, name: str, sparsity: float) -> float:  # noqa: ARG002
        if name not in self.fractions:
            raise ValueError(f"the scope says nothing of {name!r}, by which its units go; name it, or use a glob")
        return self.fractions[name]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.fractions)

    def keep(self, candidates: Sequence[Candidates], sparsity: float) -> list[Tensor]:
        return [compete([one], self.asked(one.name, sparsity))[0] for one in candidates]
