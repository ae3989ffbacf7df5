"""Layers that lose everything although less was asked for: the warning, and the ways out that it names."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import prunelab
from prunelab import Masks
from prunelab.granularity import Filter, Layer
from prunelab.scope import ERK, NM, Global, LayerCollapseWarning


def net() -> nn.Sequential:
    """The first layer's weights are the smallest."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 4))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2], [3, 4]]))
        model[1].weight.copy_(torch.arange(5.0, 13).view(4, 2))
    return model


def test_the_warning_names_the_layer_the_ways_out_and_the_callers_line() -> None:
    with pytest.warns(LayerCollapseWarning) as caught:
        masks = prunelab.prune(net(), 0.5, apply=False)
    (warning,) = caught
    assert warning.filename == __file__
    for part in ("0.weight", "Global(minimum=1)", "'local'", "exclude="):
        assert part in str(warning.message)
    assert masks.collapsed == ("0.weight",)


@pytest.mark.filterwarnings("error::prunelab.scope.LayerCollapseWarning")
def test_the_ways_out_are_ways_out() -> None:
    assert prunelab.prune(net(), 0.5, scope=Global(minimum=1)).collapsed == ()
    kept = prunelab.prune(net(), 0.5, scope=Global(minimum=1))
    assert kept["0.weight"].int().tolist() == [[0, 0], [0, 1]]
    assert kept.removed == 6
    assert prunelab.prune(net(), 0.5, scope="local").collapsed == ()
    assert list(prunelab.prune(net(), 0.5, exclude="0.weight")) == ["1.weight"]
    assert prunelab.prune(net(), 0.5, scope=ERK()).collapsed == ()


@pytest.mark.filterwarnings("error::prunelab.scope.LayerCollapseWarning")
def test_no_warning_where_it_is_what_was_asked_for() -> None:
    assert prunelab.prune(net(), 1.0).collapsed == ("0.weight", "1.weight")
    prunelab.prune(net(), scope=NM(0, 2))
    prunelab.prune(net(), scope={"0.weight": 1, "1.weight": 0.5})
    prunelab.prune(net(), 0.4, granularity=Layer())
    prunelab.prune(net(), 0.5, parameters=["0.bias", "1.bias"])
    emptied = Masks({"0.weight": torch.zeros(2, 2, dtype=torch.bool)})
    prunelab.prune(net(), 0.5, within=emptied)  # it was empty before


def test_budgets_and_filters_warn_too() -> None:
    with pytest.warns(LayerCollapseWarning, match=r"every unit of 0\.weight is"):
        prunelab.prune(net(), scope={"0.weight": 0.9, "1.weight": 1})
    with pytest.warns(LayerCollapseWarning, match=r"every unit of 0\.weight is"):
        prunelab.prune(net(), 0.5, granularity=Filter())


def test_a_warning_turned_into_an_error_changes_nothing() -> None:
    model = net()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LayerCollapseWarning):
            prunelab.prune(model, 0.5)
    assert torch.equal(model[0].weight, net()[0].weight)


def test_masks_say_what_has_collapsed() -> None:
    gone, some, none = torch.zeros(3, dtype=torch.bool), torch.tensor([True, False]), torch.empty(0, dtype=torch.bool)
    masks = Masks({"a.weight": gone, "a.bias": gone, "b.in_proj_bias": gone, "<c>": gone, "d": some, "e": none})
    assert masks.collapsed == ("a.weight", "<c>")
    assert "nothing is left of a.weight, &lt;c&gt;</caption>" in masks._repr_html_()
    assert "nothing is left" not in Masks({"d": some})._repr_html_()
    assert Masks({}).collapsed == ()
