"""Multiply-adds against closed forms, brute force, and torch's own counter."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prunelab.trace import map_tensors, trace
from prunelab.trace.macs import find_products
from prunelab.trace.record import Value


class Call(nn.Module):
    """A function of tensors as a model."""

    def __init__(self, function: Any, **kwargs: Any) -> None:
        super().__init__()
        self.function, self.kwargs = function, kwargs

    def forward(self, *tensors: Tensor) -> Any:
        return self.function(*tensors, **self.kwargs)


def peer_macs(model: nn.Module, *shapes: tuple[int, ...]) -> float:
    """FLOPs / 2 of torch's counter, on meta tensors (on the CPU it does not see fused attention)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.to("meta").eval()(*(torch.empty(shape, device="meta") for shape in shapes))
    return counter.get_total_flops() / 2


# --- matrix products ---------------------------------------------------------------------------------------------------

a, b, batch, other = (torch.ones(s) for s in [(3, 4), (4, 5), (2, 3, 4), (2, 4, 5)])

PRODUCTS = {  # what a reader would count on paper: result elements × length of the sum
    "mm": (torch.mm, [a, b], 3 * 5 * 4),
    "matmul of a batch by a matrix": (torch.matmul, [batch, b], 2 * 3 * 5 * 4),
    "matmul with broadcast batches": (torch.matmul, [torch.ones(6, 1, 3, 4), other], 6 * 2 * 3 * 5 * 4),
    "bmm": (torch.bmm, [batch, other], 2 * 3 * 5 * 4),
    "addmm": (torch.addmm, [torch.ones(3, 5), a, b], 3 * 5 * 4),
    "baddbmm": (torch.baddbmm, [torch.ones(2, 3, 5), batch, other], 2 * 3 * 5 * 4),
    "addbmm": (torch.addbmm, [torch.ones(3, 5), batch, other], 2 * 3 * 5 * 4),
    "mv": (torch.mv, [a, torch.ones(4)], 3 * 4),
    "addmv": (torch.addmv, [torch.ones(3), a, torch.ones(4)], 3 * 4),
    "dot": (torch.dot, [torch.ones(7), torch.ones(7)], 7),
    "einsum": (lambda x, y: torch.einsum("bij,bjk->bik", x, y), [batch, other], 2 * 3 * 5 * 4),
    "einsum over two indices": (lambda x, y: torch.einsum("bij,bjk->ik", x, y), [batch, other], 2 * 4 * 3 * 5),
    "tensordot": (lambda x, y: torch.tensordot(x, y, 1), [batch, b], 2 * 3 * 5 * 4),
    "linear on a vector": (F.linear, [torch.ones(4), torch.ones(6, 4)], 24),
    "linear without bias on a sequence": (F.linear, [torch.ones(2, 7, 4), torch.ones(6, 4)], 2 * 7 * 24),
    "bilinear": (F.bilinear, [torch.ones(2, 3), torch.ones(2, 4), torch.ones(5, 3, 4)], 2 * 5 * 3 * 4),
    "an empty batch": (torch.mm, [torch.ones(0, 4), b], 0),
    "an empty sum": (torch.mm, [torch.ones(3, 0), torch.ones(0, 5)], 0),
    "element-wise": (lambda x, y: x * y + x, [a, a], 0),
    "addmm_": (torch.Tensor.addmm_, [torch.ones(3, 5), a, b], 3 * 5 * 4),
    "baddbmm_": (torch.Tensor.baddbmm_, [torch.ones(2, 3, 5), batch, other], 2 * 3 * 5 * 4),
    "addbmm_": (torch.Tensor.addbmm_, [torch.ones(3, 5), batch, other], 2 * 3 * 5 * 4),
    "addmv_": (torch.Tensor.addmv_, [torch.ones(3), a, torch.ones(4)], 3 * 4),
    "mm into a given result": (lambda x, y: torch.mm(x, y, out=x.new_zeros(3, 5)), [a, b], 3 * 5 * 4),
    "element-wise in place": (lambda x, y: x.mul_(y).add_(x).relu_(), [a, a], 0),
}


@pytest.mark.parametrize(("function", "tensors", "expected"), PRODUCTS.values(), ids=PRODUCTS.keys())
def test_matrix_products(function: Any, tensors: list[Tensor], expected: int, device: torch.device) -> None:
    record = trace(Call(function).to(device), tuple(tensor.to(device) for tensor in tensors))
    assert record.macs == expected
    assert record.uncounted == ()


@pytest.mark.parametrize(("function", "tensors", "expected"), PRODUCTS.values(), ids=PRODUCTS.keys())
def test_the_record_is_the_same_inside_inference_mode(function: Any, tensors: list[Tensor], expected: int) -> None:
    model, outside = Call(function), trace(Call(function), tuple(tensors))
    with torch.inference_mode():
        inside = trace(model, tuple(tensors))
    assert inside.macs == expected
    assert [op.name for op in inside.ops if op.macs] == [op.name for op in outside.ops if op.macs]


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
@pytest.mark.parametrize("make", [Tensor.to_sparse, Tensor.to_sparse_csr], ids=["COO", "CSR"])
def test_a_sparse_factor_counts_what_it_stores(make: Any) -> None:
    """Its 5 elements times the columns, or rows, of the other factor."""
    sparse, x = make(torch.eye(5)), torch.ones(5, 3)
    assert trace(Call(lambda a, x: a @ x), (sparse, x)).macs == 5 * 3
    assert trace(Call(lambda a, x: a @ x[:, 0]), (sparse, x)).macs == 5
    assert trace(Call(lambda x, a: x.T @ a), (x, sparse)).macs == 3 * 5
    record = trace(Call(lambda a, b: a @ b), (sparse, sparse))  # depends on where the elements are
    assert (record.macs, len(record.uncounted)) == (0, 1)


# --- convolutions ------------------------------------------------------------------------------------------------------

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@settings(max_examples=60, deadline=None)
@given(
    dims=st.integers(1, 3),
    batch_size=st.integers(0, 3),
    groups=st.integers(1, 3),
    per_group=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    transposed=st.booleans(),
)
def test_convolutions(
    dims: int, batch_size: int, groups: int, per_group: tuple[int, int], kernel: int, stride: int, dilation: int,
    transposed: bool,
) -> None:  # fmt: skip
    """Every site multiplies (I/g)·k… for each of O outputs; the sites of a transposed convolution are its inputs'."""
    inputs, outputs = (groups * n for n in per_group)
    layer = (TRANSPOSED if transposed else CONVOLUTIONS)[dims](
        inputs, outputs, kernel, stride=stride, dilation=dilation, groups=groups, padding=1
    )
    x = torch.zeros(batch_size, inputs, *[6] * dims)
    padded = 6 + 2 * 1 - dilation * (kernel - 1) - 1
    sites = 6 if transposed else padded // stride + 1
    assert trace(layer, x).macs == batch_size * sites**dims * outputs * inputs // groups * kernel**dims


def test_a_convolution_counts_what_a_loop_multiplies() -> None:
    """The same convolution as loops, counting each product (padding taps too) and checking the sum that it makes."""
    layer = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2), groups=2, bias=False).double()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    expected = layer(x)
    padded, counted, result = F.pad(x, (1, 1, 1, 1)), 0, torch.zeros_like(expected)
    for n, o, i, j in torch.cartesian_prod(*map(torch.arange, expected.shape)).tolist():
        for c in range(2):
            for u in range(3):
                for v in range(2):
                    tap = padded[n, (o // 3) * 2 + c, 2 * i + u, j + 2 * v]
                    result[n, o, i, j] += layer.weight[o, c, u, v].detach() * tap
                    counted += 1
    torch.testing.assert_close(result, expected.detach())
    assert trace(layer, x).macs == counted


def test_a_convolution_in_time() -> None:
    """(T, B, I) by (k, I, O): each of the 8 steps of 2 sequences multiplies 3·4·5; with padding there are 12 steps."""
    x, weight, bias = torch.zeros(10, 2, 4), torch.zeros(3, 4, 5), torch.zeros(5)
    assert trace(Call(torch.conv_tbc), (x, weight, bias)).macs == 8 * 2 * 60
    assert trace(Call(torch.conv_tbc, pad=2), (x, weight, bias)).macs == 12 * 2 * 60


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
def test_a_padding_mode_does_not_change_the_cost(mode: str) -> None:
    assert trace(nn.Conv2d(4, 6, 3, padding="same", padding_mode=mode), torch.zeros(4, 5, 5)).macs == 25 * 6 * 4 * 9


# --- attention ---------------------------------------------------------------------------------------------------------


def attention_macs(b: int, h: int, s: int, t: int, d: int, e: int) -> int:
    return b * h * s * t * (d + e)  # scores: s·t sums over d; context: s·e sums over t


@pytest.mark.parametrize(
    ("q", "k", "v", "options"),
    [
        ((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 8), {}),
        ((2, 4, 5, 8), (2, 2, 7, 8), (2, 2, 7, 8), {"enable_gqa": True}),
        ((2, 4, 7, 8), (2, 4, 7, 8), (2, 4, 7, 8), {"is_causal": True}),
        ((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 6), {}),
        ((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 8), {"attn_mask": torch.zeros(5, 7)}),
        ((1, 4, 5, 8), (1, 4, 7, 8), (1, 4, 7, 8), {"dropout_p": 0.5}),
    ],
    ids=["plain", "grouped queries", "causal", "narrow values", "mask", "dropout"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_attention(q: Any, k: Any, v: Any, options: dict[str, Any], dtype: torch.dtype, device: torch.device) -> None:
    """Whatever kernel serves it, attention is two batched products over every query head."""
    options = {key: o.to(device, dtype) if isinstance(o, Tensor) else o for key, o in options.items()}
    tensors = tuple(torch.zeros(shape, device=device, dtype=dtype) for shape in (q, k, v))
    record = trace(Call(F.scaled_dot_product_attention, **options), tensors)
    assert record.macs == attention_macs(q[0], q[1], q[2], k[2], q[3], v[3])
    assert record.uncounted == ()


def test_attention_agrees_with_its_spelling_in_matrix_products() -> None:
    def spelled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.softmax(q @ k.mT, -1) @ v

    tensors = tuple(torch.zeros(2, 4, 5, 8) for _ in range(3))
    assert trace(Call(spelled), tensors).macs == trace(Call(F.scaled_dot_product_attention), tensors).macs


@pytest.mark.parametrize("weights", [True, False], ids=["with weights", "fused"])
@pytest.mark.parametrize("widths", [{}, {"kdim": 6, "vdim": 6}], ids=["packed", "separate"])
def test_multihead_attention(weights: bool, widths: dict[str, int], device: torch.device) -> None:
    layer = nn.MultiheadAttention(8, 2, batch_first=True, **widths).to(device)
    q = torch.zeros(3, 5, 8, device=device)
    kv = torch.zeros(3, 7, widths.get("kdim", 8), device=device)
    projections = 3 * (5 * 8 * 8 + 2 * 7 * 8 * kv.shape[-1] + 5 * 8 * 8)
    record = trace(layer, {"query": q, "key": kv, "value": kv, "need_weights": weights})
    assert record.macs == projections + attention_macs(3, 2, 5, 7, 4, 4)


@pytest.mark.parametrize("masked", [True, False], ids=["padding mask", "no mask"])
def test_a_transformer_encoder_is_seen_whole(masked: bool, device: torch.device) -> None:
    """In evaluation mode torch runs each layer as one fused operation: the trace has to take it apart."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).to(device)
    arguments: dict[str, Tensor] = {"src": torch.zeros(3, 5, 8, device=device)}
    if masked:
        arguments["src_key_padding_mask"] = torch.arange(5, device=device).expand(3, 5) > 3
    expected = 2 * (3 * 5 * (4 * 8 * 8 + 2 * 8 * 16) + attention_macs(3, 2, 5, 5, 4, 4))
    record = trace(model, arguments)
    assert (record.macs, record.uncounted) == (expected, ())


# --- recurrent networks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)  # float32 is one fused operation on the CPU
def test_recurrent_networks(kind: type[nn.RNNBase], bidirectional: bool, dtype: torch.dtype, device: Any) -> None:
    """Each step multiplies the gates' (G·H, I) and (G·H, H), in each layer and direction."""
    gates, ways = {nn.RNN: 1, nn.GRU: 3, nn.LSTM: 4}[kind], 1 + bidirectional
    model = kind(5, 7, num_layers=2, bidirectional=bidirectional, batch_first=True).to(device, dtype)
    first, second = gates * 7 * (5 + 7), gates * 7 * (ways * 7 + 7)
    x = torch.zeros(3, 4, 5, dtype=dtype, device=device)
    assert trace(model, x).macs == 3 * 4 * ways * (first + second)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_lstm_with_projection(device: torch.device) -> None:
    model = nn.LSTM(5, 7, proj_size=3).to(device)
    assert trace(model, torch.zeros(4, 2, 5, device=device)).macs == 4 * 2 * (28 * 5 + 28 * 3 + 3 * 7)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_packed_sequences_cost_their_real_steps(kind: type[nn.RNNBase], device: torch.device) -> None:
    model = kind(5, 7).to(device)
    packed = nn.utils.rnn.pack_padded_sequence(torch.zeros(4, 3, 5), [1, 4, 2], enforce_sorted=False)
    gates = 4 if kind is nn.LSTM else 3
    record = trace(model, packed)
    assert record.macs == (4 + 2 + 1) * gates * 7 * (5 + 7)
    assert record.ops[-1].name.startswith("aten::index_select")  # the states, put back into the caller's order


# --- whole models, against torch's counter -----------------------------------------------------------------------------


class Block(nn.Module):
    """A pre-norm transformer block: width d, h heads, hidden layer m."""

    def __init__(self, d: int, h: int, m: int) -> None:
        super().__init__()
        self.h = h
        self.norms = nn.ModuleList([nn.LayerNorm(d), nn.LayerNorm(d)])
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, m), nn.GELU(), nn.Linear(m, d))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, self.h, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))


class Encoder(nn.Module):
    """Twelve blocks between an embedding of the input and a head for one token."""

    def __init__(self, embed: nn.Module, tokens: int, d: int, h: int, outputs: int, depth: int = 12) -> None:
        super().__init__()
        self.embed, self.position = embed, nn.Parameter(torch.zeros(tokens, d))
        self.blocks = nn.Sequential(*(Block(d, h, 4 * d) for _ in range(depth)))
        self.head = nn.Linear(d, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x.flatten(2).mT if x.dim() == 4 else x
        x = F.pad(x, (0, 0, len(self.position) - x.shape[1], 0)) + self.position
        return self.head(self.blocks(x)[:, 0])


# Vision transformer, small, 16 × 16 patches of 224 × 224 pixels, and a class token; BERT, base, 128 tokens, and a pooler.
# Their figures are published as 4.6 G multiply-adds and 11.2 G.
WHOLE = {
    "ViT-S": (lambda: Encoder(nn.Conv2d(3, 384, 16, 16), 197, 384, 6, 1000), (1, 3, 224, 224), 4.599e9),
    "BERT-base": (lambda: Encoder(nn.LayerNorm(768), 128, 768, 12, 768), (1, 128, 768), 11.174e9),
}


@pytest.mark.parametrize(("make", "shape", "expected"), WHOLE.values(), ids=WHOLE.keys())
def test_transformers_on_the_meta_device(make: Any, shape: tuple[int, ...], expected: float) -> None:
    with torch.device("meta"):
        model = make()
    record = trace(model, torch.zeros(shape))
    assert math.isclose(record.macs, expected, rel_tol=2e-4)
    assert record.macs == peer_macs(model, shape)


def mixer() -> nn.Module:
    """Every kind of convolution in a row, and a Linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 10),
    )


SMALL = {
    "convolutions": (mixer, [(2, 3, 12, 12)]),
    "transformer": (lambda: Encoder(nn.Conv2d(3, 16, 4, 4), 10, 16, 2, 5, depth=2), [(3, 3, 12, 12)]),
    "decoder": (
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2),
        [(3, 4, 8), (3, 5, 8)],
    ),
}


@pytest.mark.parametrize(("make", "shapes"), SMALL.values(), ids=SMALL.keys())
def test_real_forwards_agree_with_the_counter_on_meta(make: Any, shapes: list[Any], device: torch.device) -> None:
    model = make().to(device)
    real = trace(model, tuple(torch.zeros(shape) for shape in shapes))
    assert real.macs == peer_macs(model, *shapes)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_attention_counts_as_attention() -> None:
    flex = pytest.importorskip("torch.nn.attention.flex_attention")
    q = torch.zeros(1, 2, 16, 8)
    assert trace(Call(flex.flex_attention), (q, q, q)).macs == attention_macs(1, 2, 16, 16, 8, 8)


def test_an_operation_of_unknown_cost_is_named() -> None:
    library = torch.library.Library("prunelab_test", "DEF")
    library.define("mystery(Tensor x) -> Tensor")
    library.impl("mystery", lambda x: x @ x.mT, "CompositeExplicitAutograd")
    record = trace(Call(torch.ops.prunelab_test.mystery), torch.ones(2, 3))
    assert (record.macs, record.uncounted) == (0, ("prunelab_test::mystery",))


UNCOUNTED = {
    "distances": (lambda x: torch.cdist(x, x), "aten::_cdist_forward"),
    "distances through a product": (
        lambda x: torch.cdist(x, x, compute_mode="use_mm_for_euclid_dist"),
        "aten::_euclidean_dist",
    ),
    "distances within a set": (torch.pdist, "aten::_pdist_forward"),
    "sparse.mm": (lambda x: torch.sparse.mm(torch.eye(4).to_sparse(), x), "aten::_sparse_addmm"),
    "sparse.addmm": (lambda x: torch.sparse.addmm(x, torch.eye(4).to_sparse(), x), "aten::_sparse_addmm"),
    "sparse times sparse": (
        lambda x: torch.sparse.mm(x.to_sparse(), x.to_sparse()),
        "aten::_sparse_sparse_matmul",
    ),
    "exponential": (torch.matrix_exp, "aten::linalg_matrix_exp"),
    "Fourier transform": (torch.fft.fft2, "aten::_fft_c2c"),
    "real Fourier transform": (torch.fft.rfft, "aten::_fft_r2c"),
    "inverse Fourier transform": (lambda x: torch.fft.irfft(x + 0j), "aten::_fft_c2r"),
    "system of equations": (lambda x: torch.linalg.solve(x, x), "aten::_linalg_solve_ex"),
    "triangular system": (lambda x: torch.linalg.solve_triangular(x, x, upper=True), "aten::linalg_solve_triangular"),
    "least squares": (lambda x: torch.linalg.lstsq(x, x).solution, "aten::linalg_lstsq"),
    "inverse": (torch.linalg.inv, "aten::linalg_inv_ex"),
    "Cholesky": (torch.linalg.cholesky, "aten::linalg_cholesky_ex"),
    "Cholesky, then a system": (lambda x: torch.cholesky_solve(x, x), "aten::cholesky_solve"),
    "QR": (torch.linalg.qr, "aten::linalg_qr"),
    "LU": (torch.linalg.lu_factor, "aten::linalg_lu_factor_ex"),
    "singular values": (torch.linalg.svdvals, "aten::_linalg_svd"),
    "eigenvalues": (torch.linalg.eigvals, "aten::linalg_eig"),
    "symmetric eigenvalues": (torch.linalg.eigvalsh, "aten::_linalg_eigh"),
    "determinant": (torch.linalg.det, "aten::_linalg_det"),
    "logarithm of the determinant": (torch.logdet, "aten::_linalg_slogdet"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize(("function", "name"), UNCOUNTED.values(), ids=UNCOUNTED.keys())
def test_a_product_in_disguise_is_named(function: Any, name: str) -> None:
    record = trace(Call(function), torch.eye(4))
    assert record.macs == 0
    assert record.uncounted == (name,)


def test_weights_of_a_product_in_place_are_found() -> None:
    class InPlace(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return x.new_zeros(len(x), self.out_features).addmm_(x, self.weight.T)

    record = trace(InPlace(4, 5), torch.ones(3, 4))
    (product,) = [product for op in record.ops for product in op.products]
    assert (product.macs, product.weights[0].names) == (3 * 5 * 4, ("weight",))


def empty(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


ELSEWHERE = {  # operations that only other devices run, called by their schema
    "cuDNN recurrence": (
        "aten::_cudnn_rnn",
        [empty(4, 3, 5), [empty(28, 5), empty(28, 7), empty(28), empty(28), empty(2, 7)], 5],
        [4 * 3 * 28 * 5, 4 * 3 * 28 * 7, 4 * 3 * 2 * 7],
    ),
    "attention with narrow values": (
        "aten::_scaled_dot_product_efficient_attention",
        [empty(2, 4, 5, 8), empty(2, 4, 7, 8), empty(2, 4, 7, 6), None, False],
        [2 * 4 * 5 * 7 * 8, 2 * 4 * 5 * 7 * 6],
    ),
    "whole linear": ("aten::linear", [empty(2, 5, 4), empty(6, 4), empty(6)], [2 * 5 * 24]),
    "whole linear to a number": ("aten::linear", [empty(2, 5, 4), empty(4)], [2 * 5 * 4]),
    "experts": ("aten::_grouped_mm", [empty(10, 4), empty(3, 4, 5), empty(3)], [10 * 4 * 5]),
}


@pytest.mark.parametrize(("name", "args", "expected"), ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_operations_of_other_devices(name: str, args: list[Any], expected: list[int]) -> None:
    values = map_tensors(lambda tensor: Value(0, tuple(tensor.shape), tensor.dtype), args)
    assert [macs for macs, _ in find_products(name, None, values) or []] == expected


def test_products_without_a_formula_are_not_taken_for_free() -> None:
    assert find_products("aten::_native_multi_head_attention", None, []) is None
    assert find_products("aten::relu", None, []) == []
