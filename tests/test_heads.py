"""Attention heads against attention that is computed head by head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import prunelab
from prunelab import criteria
from prunelab.granularity import Head, Layout


def attention(kdim: int | None = None, bias: bool = True) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(12, 3, kdim=kdim, vdim=kdim, bias=bias, batch_first=True)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def head_by_head(layer: nn.MultiheadAttention, x: Tensor, heads: list[int]) -> Tensor:
    """Self-attention written out for the given heads only."""
    q, k, v = (x @ layer.in_proj_weight.T + layer.in_proj_bias).split(12, dim=-1)
    total = layer.out_proj.bias.expand_as(x).clone()
    for head in heads:
        rows = slice(4 * head, 4 * head + 4)
        weights = (q[..., rows] @ k[..., rows].mT / 4**0.5).softmax(-1)
        total += weights @ v[..., rows] @ layer.out_proj.weight[:, rows].T
    return total


@pytest.mark.parametrize(("sparsity", "gone"), [(0, 0), (1 / 3, 1), (2 / 3, 2), (1, 3)])
def test_a_pruned_head_is_a_head_that_is_not_there(sparsity: float, gone: int, device: torch.device) -> None:
    layer, x = attention().eval(), torch.randn(2, 5, 12)
    scores = prunelab.score(layer, granularity=Head(3))["in_proj_weight"]
    left = sorted(scores.argsort()[gone:].tolist())
    expected = head_by_head(layer, x, left)
    masks = prunelab.prune(layer.to(device), sparsity, granularity=Head(3))
    assert list(masks) == ["in_proj_weight", "in_proj_bias", "out_proj.weight"]
    assert masks.removed == gone * (3 * 4 * 12 + 3 * 4 + 4 * 12)
    on = x.to(device)
    torch.testing.assert_close(layer(on, on, on, need_weights=False)[0], expected.to(device))


def test_the_score_of_a_head_is_over_all_its_projections() -> None:
    layer = attention()
    scores = prunelab.score(layer, criteria.Magnitude(p=1), Head(3))
    assert list(scores) == ["in_proj_weight"]
    packed, out = layer.in_proj_weight.detach().abs(), layer.out_proj.weight.detach().abs()
    for head in range(3):
        rows = [4 * head + i for i in range(4)]
        expected = sum(packed[[12 * part + i for i in rows]].sum() for part in range(3)) + out[:, rows].sum()
        torch.testing.assert_close(scores["in_proj_weight"][head], expected)


def test_gradients_of_all_projections_join() -> None:
    layer, x = attention(), torch.randn(2, 5, 12)

    class WeightTimesGradient(criteria.Criterion):
        needs = frozenset({"weights", "gradients"})

        def score(self, weights, gradients, statistics):
            return (weights * gradients).sum(1)

    found = prunelab.score(
        layer, WeightTimesGradient(), Head(3), data=[((x, x, x), torch.zeros(2))], loss=lambda out, _: out[0].square().mean()
    )["in_proj_weight"]  # fmt: skip
    layer.eval()(x, x, x)[0].square().mean().backward()
    both = [(p * p.grad).detach() for p in (layer.in_proj_weight, layer.out_proj.weight)]
    expected = both[0].reshape(3, 3, 48).sum((0, 2)) + both[1].reshape(12, 3, 4).sum((0, 2))
    torch.testing.assert_close(found, expected)


class Named(nn.Module):
    """Self-attention as other libraries write it."""

    def __init__(self, names: tuple[str, ...], out: str, queries: int = 12, keys: int = 12) -> None:
        super().__init__()
        for position, name in enumerate(names):
            width = 36 if len(names) == 1 else queries if position == 0 else keys
            self.add_module(name, nn.Linear(12, width))
        self.add_module(out, nn.Linear(queries, 12))


@pytest.mark.parametrize(
    ("names", "out"),
    [
        (("q_proj", "k_proj", "v_proj"), "o_proj"), (("q_proj", "k_proj", "v_proj"), "out_proj"),
        (("q_lin", "k_lin", "v_lin"), "out_lin"), (("to_q", "to_k", "to_v"), "to_out"), (("qkv",), "proj"),
    ],
)  # fmt: skip
def test_projections_are_found_by_the_names_that_libraries_use(names: tuple[str, ...], out: str) -> None:
    model = nn.ModuleDict({"block": Named(names, out), "other": nn.Linear(12, 12)})
    masks = prunelab.prune(model, 1 / 3, granularity=Head(3))
    weights = [f"block.{name}.weight" for name in (*names, out)]
    assert [name for name in masks if name.endswith("weight")] == weights
    assert [name for name in masks if name.endswith("bias")] == [f"block.{name}.bias" for name in names]
    assert all(abs(masks[name].float().mean() - 2 / 3) < 1e-6 for name in masks)
    rows = masks[weights[0]].any(1)  # (12,) or (36,): the same heads in every projection
    assert torch.equal(masks[weights[-1]], rows[:12].expand(12, 12))


def test_bert_reads_its_heads_one_level_up() -> None:
    inner = Named(("query", "key", "value"), "unused")
    del inner.unused
    layer = nn.ModuleDict({"self": inner, "output": nn.ModuleDict({"dense": nn.Linear(12, 12)})})
    masks = prunelab.prune(layer, 0.5, granularity=Head(2))
    assert [name for name in masks if "weight" in name] == [
        "self.query.weight", "self.key.weight", "self.value.weight", "output.dense.weight",
    ]  # fmt: skip


def test_query_heads_that_share_a_key_go_together() -> None:
    model = Named(("q_proj", "k_proj", "v_proj"), "o_proj", queries=12, keys=6)  # 4 query heads of 3, 2 of keys
    masks = prunelab.prune(model, 0.5, granularity=Head(2))
    assert masks["q_proj.weight"].any(1).sum() == 6
    assert masks["k_proj.weight"].any(1).sum() == 3
    with pytest.raises(ValueError, match=r"'k_proj.weight'.* do not divide into 4 heads"):
        prunelab.prune(model, 0.5, granularity=Head(4))


def test_two_layers_compete_or_not() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 3, 24, batch_first=True), 2)
    with torch.no_grad():
        model.layers[0].self_attn.in_proj_weight.mul_(100)
    masks = prunelab.prune(model, 0.5, granularity=Head(3), apply=False)
    names = [f"layers.{i}.self_attn.in_proj_weight" for i in (0, 1)]
    assert [masks.sparsities[name] for name in names] == [0.0, 1.0]
    masks = prunelab.prune(model, 1 / 3, granularity=Head(3), scope="local", apply=False)
    assert [round(masks.sparsities[name], 6) for name in names] == [0.333333] * 2
    only = prunelab.prune(model, 1 / 3, granularity=Head(3), parameters=["layers.1.self_attn.out_proj.weight"])
    assert only["layers.1.self_attn.in_proj_weight"].any()
    assert not any(name.startswith("layers.0") for name in only)
    nested = prunelab.prune(model, 2 / 3, granularity=Head(3), scope="local", within=masks)
    assert (nested & masks) == nested


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a layer with 3 attention heads, not 4; write granularity.Head\(3\)"):
        prunelab.prune(attention(), 0.5, granularity=Head(4))
    with pytest.raises(ValueError, match=r"has no attention layer to prune: known are torch.nn.MultiheadAttention"):
        prunelab.prune(nn.Linear(3, 3), 0.5, granularity=Head(3))
    with pytest.raises(ValueError, match="three projections with one bias"):
        prunelab.prune(attention(kdim=7), 0.5, granularity=Head(3))
    mixed = nn.ModuleList([attention(), nn.MultiheadAttention(12, 2)])
    assert list(prunelab.score(mixed, granularity=Head(3), exclude=["1.*"])) == ["0.in_proj_weight"]
    assert len(prunelab.prune(attention(kdim=7, bias=False), 1 / 3, granularity=Head(3))) == 4
    for heads in (0, 1.5, True):
        with pytest.raises(ValueError, match="a whole number of heads"):
            Head(heads)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2-dimensional"):
        Head(2).view(torch.zeros(4))


@pytest.mark.parametrize("layout", [Layout(), Layout(packed=3), Layout(heads="columns")])
def test_restore_undoes_view(layout: Layout) -> None:
    weight = torch.arange(12.0 * 24).reshape(12, 24)
    matrix = Head(2).view(weight, layout)
    assert matrix.shape == (2, 144)
    assert torch.equal(Head(2).restore(matrix, weight.shape, layout), weight)
