"""`SlimAttention` against `nn.MultiheadAttention` with the same heads zeroed, for every setting and every argument."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunelab
from prunelab.surgery import SlimAttention

E, HEADS, DIM = 12, 4, 3
KEPT = (1, 3)
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no_bias": {"bias": False},
    "other_widths": {"kdim": 5, "vdim": 7},
    "extra_token": {"add_bias_kv": True},
    "zero_token": {"add_zero_attn": True},
    "both_tokens": {"add_bias_kv": True, "add_zero_attn": True, "kdim": 5, "vdim": 7, "bias": False},
}


def kept_rows() -> Tensor:
    """The rows of Q, K and V that belong to the heads in KEPT."""
    return torch.cat([torch.arange(h * DIM, (h + 1) * DIM) for h in KEPT])


def pair(**settings: Any) -> tuple[nn.MultiheadAttention, SlimAttention]:
    """A layer whose other heads are zeroed by hand, and the one from which they were cut by hand."""
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(E, HEADS, dtype=torch.float64, **settings).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    rows, gone = kept_rows(), torch.ones(E, dtype=torch.bool)
    gone[rows] = False
    cut = copy.deepcopy(layer)
    thrice = torch.cat([rows, rows + E, rows + 2 * E])
    for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_weight", "in_proj_bias"):
        if (parameter := getattr(layer, name)) is not None:
            stacked = name.startswith("in_proj")
            setattr(cut, name, nn.Parameter(parameter.detach()[thrice if stacked else rows]))
            with torch.no_grad():
                parameter[gone.repeat(3) if stacked else gone] = 0
    for name in ("bias_k", "bias_v"):
        if (parameter := getattr(layer, name)) is not None:
            setattr(cut, name, nn.Parameter(parameter.detach()[..., rows]))
            with torch.no_grad():
                parameter[..., gone] = 0
    cut.out_proj.weight = nn.Parameter(layer.out_proj.weight.detach()[:, rows])
    with torch.no_grad():
        layer.out_proj.weight[:, gone] = 0
    return layer, SlimAttention.of(cut)


def inputs(settings: dict[str, Any], batched: bool = True, sizes: tuple[int, int] = (5, 6)) -> tuple[Tensor, ...]:
    """query (B, S, E), key (B, T, kdim), value (B, T, vdim), by the layout of the settings."""
    s, t = sizes
    torch.manual_seed(1)
    found = [torch.randn(2, n, w, dtype=torch.float64)
             for n, w in ((s, E), (t, settings.get("kdim", E)), (t, settings.get("vdim", E)))]  # fmt: skip
    if not batched:
        return tuple(x[0] for x in found)
    return tuple(x if settings.get("batch_first") else x.transpose(0, 1) for x in found)


def agree(layer: nn.MultiheadAttention, slim: SlimAttention, given: tuple[Tensor, ...], **options: Any) -> None:
    """The same outputs; the weights of the attention are those of the heads that stay."""
    expected, weights = layer(*given, **{**options, "average_attn_weights": False})
    found, slim_weights = slim(*given, **options)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    if not options.get("need_weights", True):
        assert slim_weights is None
        return
    per_head = weights[..., list(KEPT), :, :]
    if options.get("average_attn_weights", True):
        per_head = per_head.mean(-3)
    torch.testing.assert_close(slim_weights, per_head, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_of_the_layer(name: str, batch_first: bool) -> None:
    settings = {**SETTINGS[name], "batch_first": batch_first}
    layer, slim = pair(**settings)
    for need, average in ((True, True), (True, False), (False, True)):
        agree(layer, slim, inputs(settings), need_weights=need, average_attn_weights=average)


def masks_of_scores(s: int, t: int) -> dict[str, Tensor | None]:
    torch.manual_seed(2)
    hidden = torch.rand(s, t) < 0.4
    hidden[:, 0] = False  # a row without any key has no attention
    return {"none": None, "bool": hidden, "float": torch.randn(s, t, dtype=torch.float64)}


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", ["plain", "both_tokens"])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")
def test_every_mask(name: str, batch_first: bool, need_weights: bool) -> None:
    settings = {**SETTINGS[name], "batch_first": batch_first}
    layer, slim = pair(**settings)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[0, 4:] = True
    added = torch.zeros(2, 6, dtype=torch.float64).masked_fill(padding, -3.0)
    for mask, hidden in itertools.product(masks_of_scores(5, 6).values(), (None, padding, added)):
        agree(layer, slim, inputs(settings), attn_mask=mask, key_padding_mask=hidden, need_weights=need_weights)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_a_causal_mask(padded: bool, need_weights: bool) -> None:
    layer, slim = pair(batch_first=True)
    causal = nn.Transformer.generate_square_subsequent_mask(6, dtype=torch.float64)
    padding = torch.zeros(2, 6, dtype=torch.float64)
    padding[1, 5] = -torch.inf
    given = inputs({"batch_first": True}, sizes=(6, 6))
    agree(layer, slim, given, attn_mask=causal, is_causal=True, need_weights=need_weights,
          key_padding_mask=padding if padded else None)  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("need_weights", [True, False])
def test_without_a_batch(name: str, need_weights: bool) -> None:
    layer, slim = pair(**SETTINGS[name])
    mask, padding = masks_of_scores(5, 6)["bool"], torch.tensor([False] * 5 + [True])
    agree(layer, slim, inputs(SETTINGS[name], batched=False), need_weights=need_weights)
    agree(layer, slim, inputs(SETTINGS[name], batched=False), need_weights=need_weights, attn_mask=mask,
          key_padding_mask=padding)  # fmt: skip


def test_a_mask_for_each_head_that_is_left() -> None:
    """(B·heads, S, T): the small layer takes one for each of its own heads."""
    layer, slim = pair(batch_first=True)
    torch.manual_seed(3)
    each = torch.randn(2, HEADS, 5, 6, dtype=torch.float64)
    given = inputs({"batch_first": True})
    expected, _ = layer(*given, attn_mask=each.flatten(0, 1), need_weights=False)
    for need in (True, False):
        found, _ = slim(*given, attn_mask=each[:, list(KEPT)].flatten(0, 1), need_weights=need)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_gradients_are_those_of_the_heads_that_stay() -> None:
    layer, slim = pair(batch_first=True)
    given = inputs({"batch_first": True})
    for network in (layer, slim):
        network(*given)[0].square().sum().backward()
    rows = kept_rows()
    assert layer.in_proj_weight.grad is not None
    assert layer.out_proj.weight.grad is not None
    torch.testing.assert_close(
        slim.in_proj_weight.grad, layer.in_proj_weight.grad[torch.cat([rows, rows + E, rows + 2 * E])]
    )
    torch.testing.assert_close(slim.out_proj.weight.grad, layer.out_proj.weight.grad[:, rows])


def test_dropout_is_for_training_only() -> None:
    """All attention is dropped in training mode (p = 1): what is left is the bias of the output projection."""
    layer, slim = pair(batch_first=True)
    slim.dropout = layer.dropout = 1.0
    given = inputs({"batch_first": True})
    agree(layer, slim, given)
    slim.train()
    for need in (True, False):
        found, _ = slim(*given, need_weights=need)
        torch.testing.assert_close(found, slim.out_proj.bias.expand_as(found))


def test_it_can_be_copied_pickled_and_loaded() -> None:
    layer, slim = pair()
    given = inputs({})
    for other in (copy.deepcopy(slim), pickle.loads(pickle.dumps(slim))):
        agree(layer, other, given)
    again = pair()[1]
    again.load_state_dict(slim.state_dict(), strict=True)
    agree(layer, again, given)


# --- through shrink ------------------------------------------------------------------------------------------------------


def encoder_layer(**options: Any) -> tuple[nn.Module, Any]:
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, dtype=torch.float64, **options)
    return layer, torch.randn(2, 5, 16, dtype=torch.float64)


def decoder_layer() -> tuple[nn.Module, Any]:
    layer = nn.TransformerDecoderLayer(16, 4, 24, batch_first=True, dtype=torch.float64)
    return layer, (torch.randn(2, 5, 16, dtype=torch.float64), torch.randn(2, 7, 16, dtype=torch.float64))


def encoder() -> tuple[nn.Module, Any]:
    layer, x = encoder_layer()
    assert isinstance(layer, nn.TransformerEncoderLayer)
    return nn.TransformerEncoder(layer, 2), x


def both() -> tuple[nn.Module, Any]:
    model = nn.Transformer(16, 4, 1, 1, 24, batch_first=True, dtype=torch.float64)
    return model, (torch.randn(2, 5, 16, dtype=torch.float64), torch.randn(2, 4, 16, dtype=torch.float64))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("make", [encoder_layer, lambda: encoder_layer(norm_first=True), decoder_layer, encoder, both],
                         ids=["encoder_layer", "norm_first", "decoder_layer", "encoder", "transformer"])  # fmt: skip
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_heads_go_from_pytorchs_own_transformers(make: Any, mode: str) -> None:
    """In evaluation mode without gradients PyTorch fuses whole layers; the small ones must not."""
    torch.manual_seed(0)
    model, x = make()
    model.train(mode == "train")
    small = prunelab.shrink(model, x, sparsity=0.5)
    slim = [m for m in small.model.modules() if isinstance(m, SlimAttention)]
    assert len(slim) == sum(isinstance(m, nn.MultiheadAttention) for m in model.modules())
    assert {m.num_heads for m in slim} == {2}
    assert small.model.training == model.training
    masked = small.plan.masked(model).eval()
    small.model.eval()
    fresh = [torch.randn_like(t) for t in (x if isinstance(x, tuple) else (x,))]
    with torch.no_grad():
        torch.testing.assert_close(small.model(*fresh), masked(*fresh), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(small.model(*fresh), masked(*fresh), rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_padding_mask_hides_the_same_keys() -> None:
    torch.manual_seed(0)
    model, x = encoder()
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[0, 3:] = True
    model.eval()
    small = prunelab.shrink(model, {"src": x, "src_key_padding_mask": padding}, sparsity=0.5)
    fresh, seen = torch.randn_like(x), ~padding
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            found = small.model(fresh, src_key_padding_mask=padding)
            expected = small.plan.masked(model)(fresh, src_key_padding_mask=padding)
        torch.testing.assert_close(found[seen], expected[seen], rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_padding_mask_does_not_keep_the_heads() -> None:
    torch.manual_seed(0)
    model, x = encoder()
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[0, 3:] = True
    small = prunelab.shrink(model.eval(), {"src": x, "src_key_padding_mask": padding}, sparsity=0.5)
    assert [m.num_heads for m in small.model.modules() if isinstance(m, SlimAttention)] == [2, 2]
