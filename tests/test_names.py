"""Parameters chosen and left out by name, glob and predicate."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as peer

import prunelab
from prunelab.granularity import Head
from prunelab.names import Exclude


def net() -> nn.Sequential:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
    return nn.Sequential(nn.Embedding(10, 4), block, nn.Linear(5, 4))


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        (None, ["1.0.weight", "1.2.weight", "2.weight"]),
        ([], ["1.0.weight", "1.2.weight", "2.weight"]),
        ("2.weight", ["1.0.weight", "1.2.weight"]),
        (["2.weight", "1.0.*"], ["1.2.weight"]),
        ("1.*", ["2.weight"]),
        ("2", ["1.0.weight", "1.2.weight"]),  # a module's name means all that it holds
        (["1"], ["2.weight"]),
        ("1.0", ["1.2.weight", "2.weight"]),
        ("1.?.weight", ["2.weight"]),
        ("*.bias", ["1.0.weight", "1.2.weight", "2.weight"]),  # matches, though nothing that is pruned
        (lambda name, parameter: parameter.dim() == 2, ["1.0.weight", "1.2.weight"]),
        ((lambda name, parameter: name.startswith("1"), "2.weight"), []),
        (iter(["2.weight"]), ["1.0.weight", "1.2.weight"]),
    ],
)
def test_exclude(exclude: Exclude | None, left: list[str]) -> None:
    model = net()
    if not left:
        with pytest.raises(ValueError, match="Sequential has no parameter to prune: exclude= leaves none"):
            prunelab.prune(model, 0.5, exclude=exclude)
        return
    masks = prunelab.prune(model, 0.5, exclude=exclude)
    assert list(masks) == left
    assert all(
        not (p == 0).any() for name, p in model.named_parameters() if name.endswith("weight") and name not in left
    )


def test_exclude_in_score_and_with_other_scopes() -> None:
    assert list(prunelab.score(net(), exclude="1.*")) == ["2.weight"]
    assert list(prunelab.prune(net(), 0.5, scope="local", exclude="1.*")) == ["2.weight"]
    assert list(prunelab.prune(net(), 0.5, parameters=["*.weight"], exclude=["2.*"])) == ["1.0.weight", "1.2.weight"]


def test_a_shared_parameter_is_left_out_under_any_of_its_names() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    for exclude in ("0.weight", "2.weight", lambda name, _: name == "2.weight"):
        assert list(prunelab.prune(model, 0.5, exclude=exclude)) == ["1.weight"]


def test_globs_in_parameters() -> None:
    assert list(prunelab.prune(net(), 0.5, parameters=["1.*.weight"])) == ["1.0.weight", "1.2.weight"]
    assert list(prunelab.prune(net(), 0.5, parameters=["*.bias"])) == ["1.0.bias", "1.1.bias", "1.2.bias", "2.bias"]
    assert list(prunelab.prune(net(), 0.5, parameters=["2.*", "0.*"])) == ["0.weight", "2.weight"]
    assert list(prunelab.score(net(), parameters=["[0-1].*"])) == ["1.0.weight", "1.2.weight"]


def test_a_name_may_look_like_a_glob() -> None:
    model = nn.Module()
    model.p = nn.ParameterDict({"a[0]": nn.Parameter(torch.ones(4)), "a0": nn.Parameter(torch.ones(4))})
    assert list(prunelab.prune(model, 0.5, parameters=["p.a[0]"])) == ["p.a[0]"]
    assert list(prunelab.prune(model, 0.5, parameters=["p.*"], exclude="p.a[0]")) == ["p.a0"]


def test_a_weight_that_is_computed_is_refused_until_it_is_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 3), parametrizations.weight_norm(nn.Linear(3, 3)))
    with pytest.raises(
        ValueError, match=r"the weight of '1' is computed .* or leave it out with exclude=\['1\.weight'\]"
    ):
        prunelab.prune(model, 0.5)
    with pytest.raises(ValueError, match="the weight of '1' is computed"):
        prunelab.prune(model, 0.5, parameters=["*.weight"])
    assert list(prunelab.prune(model, 0.5, exclude=["1.weight"])) == ["0.weight"]
    assert list(prunelab.prune(model, 0.5, parameters=["0.*"])) == ["0.weight"]
    single = peer.l1_unstructured(nn.Linear(3, 3), "weight", amount=0.5)
    with pytest.raises(ValueError, match=r"the weight of 'Linear' is computed .*exclude=\['weight'\]"):
        prunelab.prune(single, 0.5)


def test_attention_layers_may_be_left_out() -> None:
    model = nn.Sequential(nn.MultiheadAttention(4, 2), nn.MultiheadAttention(4, 2))
    for exclude in ("0.in_proj_weight", "0.out_proj.*", lambda name, _: name.startswith("0")):
        masks = prunelab.prune(model, 0.5, granularity=Head(2), exclude=exclude)
        assert all(name.startswith("1") for name in masks)


BAD = [
    (ValueError, r"unknown parameter '2\.wieght'; did you mean '2\.weight'", "2.wieght"),
    (ValueError, r"unknown parameter '3'; The model has 0\.weight, 1", ["3"]),
    (ValueError, r"no parameter matches 'fc\.\*'; The model has 0\.weight, 1", ["2.weight", "fc.*"]),
    (TypeError, r"exclude must be the name .* a glob such as 'head\.\*', a function .* not 3", 3),
    (TypeError, r"exclude must be .* not 0\.5", [0.5]),
    (TypeError, r"exclude must be .* not Linear", nn.Linear(2, 2)),
    (TypeError, r"exclude must be .* not Linear", [nn.Linear(2, 2)]),
    (TypeError, r"exclude must be .* not <class", [nn.Linear]),
]


@pytest.mark.parametrize(("kind", "message", "exclude"), BAD, ids=[message for _, message, _ in BAD])
def test_bad_exclusions_say_why_and_change_nothing(kind: type[Exception], message: str, exclude: object) -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    for call in (lambda: prunelab.prune(model, 0.5, exclude=exclude), lambda: prunelab.score(model, exclude=exclude)):
        with pytest.raises(kind, match=message):
            call()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
