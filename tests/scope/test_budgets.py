"""Explicit budgets by name and glob."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import prunelab
from prunelab.granularity import Filter
from prunelab.scope import Budgets, resolve


def net() -> nn.Sequential:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
    return nn.Sequential(nn.Embedding(10, 4), block, nn.Linear(5, 4))


def removed(masks: prunelab.Masks) -> dict[str, int]:
    return {name: int((~mask).sum()) for name, mask in masks.items()}


def test_each_parameter_has_its_own_sparsity_and_others_none() -> None:
    model = net()
    assert removed(prunelab.prune(model, scope={"2.weight": 0.25, "1.2.weight": 1})) == {
        "1.2.weight": 144,
        "2.weight": 5,
    }
    assert not (model[1][0].weight == 0).any()
    local = prunelab.prune(net(), 0.3, scope="local")
    assert prunelab.prune(net(), None, scope=dict.fromkeys(local, 0.3)) == local


def test_globs_mean_what_is_pruned_by_default_and_names_anything() -> None:
    assert removed(prunelab.prune(net(), scope={"1.*.weight": 0.5})) == {"1.0.weight": 36, "1.2.weight": 72}
    assert removed(prunelab.prune(net(), scope={"[12].*": 0.5})) == {"1.0.weight": 36, "1.2.weight": 72, "2.weight": 10}
    assert removed(prunelab.prune(net(), scope={"0.weight": 0.1, "1.1.weight": 0.5})) == {
        "0.weight": 4,
        "1.1.weight": 2,
    }
    assert removed(prunelab.prune(net(), scope={"1.1.*": 0.5})) == {"1.1.weight": 2, "1.1.bias": 2}  # nothing else fits


def test_a_name_comes_before_a_glob_and_globs_must_agree() -> None:
    for scope in ({"*": 0.5, "2.weight": 0.25}, {"2.weight": 0.25, "*": 0.5}):
        assert removed(prunelab.prune(net(), scope=scope)) == {"1.0.weight": 36, "1.2.weight": 72, "2.weight": 5}
    assert prunelab.prune(net(), scope={"1.*": 0.5, "*.0.weight": 0.5}, apply=False).removed == 108
    with pytest.raises(
        ValueError, match=r"'1\.\*' asks for a sparsity of 0\.5 in '1\.0\.weight', and '\*\.0\.weight' for 0\.4"
    ):
        prunelab.prune(net(), scope={"1.*": 0.5, "*.0.weight": 0.4})
    tied = net()
    tied[0].weight = tied[1][1].weight = nn.Parameter(torch.randn(4))
    with pytest.raises(ValueError, match=r"'0.weight' asks for .* in '1.1.weight', and '1.1.weight' for 0.4"):
        prunelab.prune(tied, scope={"0.weight": 0.5, "1.1.weight": 0.4})
    assert removed(prunelab.prune(tied, scope={"1.1.weight": 0.5})) == {"0.weight": 2}


def test_units_and_exclusion() -> None:
    masks = prunelab.prune(net(), scope={"1.*.weight": 0.5}, granularity=Filter(), exclude="1.0.*")
    assert removed(masks) == {"1.2.weight": 72, "1.2.bias": 2}


def test_what_within_has_removed_counts() -> None:
    model = net()
    before = prunelab.prune(model, scope={"2.weight": 0.5}, apply=False)
    after = prunelab.prune(model, scope={"2.weight": 0.75}, within=before, apply=False)
    assert removed(after) == {"2.weight": 15}
    assert after & before == after
    with pytest.raises(ValueError, match=r"means 5 units removed from 2\.weight, but within= has already removed 10"):
        prunelab.prune(model, scope={"2.weight": 0.25}, within=before)


BAD = [
    (ValueError, r"unknown parameter '2\.wieght'; did you mean '2\.weight'", None, {"2.wieght": 0.5}, {}),
    (ValueError, r"unknown parameter '2'; did you mean '2\.weight' or '2\.bias'", None, {"2": 0.5}, {}),
    (ValueError, r"no parameter matches 'fc\*'; .*The model has 0\.weight", None, {"fc*": 0.5}, {}),
    (
        ValueError,
        r"the sparsity of '2\.weight' must lie between 0 and 1, not 50; did you mean 0\.5",
        None,
        {"2.weight": 50},
        {},
    ),
    (TypeError, r"the sparsity of '2\.weight' must be a number", None, {"2.weight": None}, {}),
    (TypeError, r"a scope names parameters by strings .* not 2", None, {2: 0.5}, {}),
    (ValueError, r"scope=\{\} names no parameter", None, {}, {}),
    (ValueError, r"sparsity must be None, not 0\.5", 0.5, {"2.weight": 0.5}, {}),
    (ValueError, r"leave parameters= out", None, {"2.weight": 0.5}, {"parameters": ["2.weight"]}),
    (ValueError, r"exclude= leaves none", None, {"2.weight": 0.5}, {"exclude": "2.weight"}),
]


@pytest.mark.parametrize(("kind", "message", "sparsity", "scope", "options"), BAD)
def test_bad_budgets_say_why(kind: type[Exception], message: str, sparsity: object, scope: dict, options: dict) -> None:
    with pytest.raises(kind, match=message):
        prunelab.prune(net(), sparsity, scope=scope, **options)  # type: ignore[arg-type]


def test_a_mapping_is_looked_up_in_a_model() -> None:
    assert resolve({"2.*": 0.5}, net()) == Budgets({"2.weight": 0.5})
    with pytest.raises(ValueError, match="unknown scope"):
        resolve({"2.*": 0.5})
