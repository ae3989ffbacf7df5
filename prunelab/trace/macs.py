"""Multiply-adds of one operation: a table from operators to closed forms over the shapes they were called with.

A formula gets the operator's result and its arguments, as data, and returns (multiply-adds, factors) for each product
that the operation performs. Only factors can be weights: a bias is added, not multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import torch

from prunelab.trace.record import Value

Products: TypeAlias = list[tuple[int, tuple[Value, ...]]]


def find_products(name: str, result: Any, args: Sequence[Any]) -> Products | None:
    """The products of the operator `name` ("aten::mm"); [] where it has none, None where its cost is unknown."""
    formula = _formula(name)
    return None if formula is None else formula(result, *args)


@cache
def _formula(name: str) -> Callable[..., Products | None] | None:
    operator = name.partition(".")[0].removesuffix("_")  # "aten::addmm_" is "aten::addmm" in place: the same arguments
    known = operator.startswith(("aten::", "prims::", "prim::", "profiler::")) and operator not in _UNKNOWN
    return _FORMULAS.get(operator, _none if known else None)


def _none(*_: Any) -> Products:
    return []


def _matmul(_: Value, a: Value, b: Value, *__: Any) -> Products | None:
    """(…, m, k) @ (…, k, n): m·k·n for each matrix of the batch; of a sparse factor each element that it stores, times
    n or m. Of two sparse ones it depends on where they are."""
    of_a, of_b = a.stored, b.stored
    if of_b is None:
        return [((a.numel() if of_a is None else of_a) * b.shape[-1], (a, b))]
    return None if of_a is not None else [(a.shape[-2] * of_b, (a, b))]


def _add_matmul(out: Value, _: Value, a: Value, b: Value, *__: Any) -> Products | None:
    return _matmul(out, a, b)


def _matvec(_: Value, a: Value, b: Value, *__: Any) -> Products:
    """(m, k) @ (k,): m·k; the same for a dot product, with m = 1."""
    return [(a.numel() if a.stored is None else a.stored, (a, b))]


def _add_matvec(out: Value, _: Value, a: Value, b: Value, *__: Any) -> Products:
    return _matvec(out, a, b)


def _linear(_: Value, x: Value, weight: Value, *__: Any) -> Products:
    """x (…, I), weight (O, I) or (I,): every output reads a whole row. Most devices show it as mm or addmm."""
    outputs = weight.shape[0] if weight.dim() == 2 else 1
    return [(x.numel() * outputs, (x, weight))]


def _convolution(
    out: Value, x: Value, weight: Value, _bias: Any, _stride: Any, _padding: Any, _dilation: Any, transposed: bool,
    *_: Any,
) -> Products:  # fmt: skip
    """The whole kernel (O, I/g, k…) is applied once at each output site; a transposed one once at each input site."""
    batch, _channels, *sites = (x if transposed else out).shape
    return [(batch * math.prod(sites) * weight.numel(), (x, weight))]


def _convolution_in_time(out: Value, x: Value, weight: Value, *_: Any) -> Products:
    """x (T, B, I), weight (k, I, O): the whole kernel once at each output step of each sequence."""
    steps, batch, _outputs = out.shape
    return [(steps * batch * weight.numel(), (x, weight))]


def _attention(_: Any, q: Value, k: Value, v: Value, *__: Any) -> Products:
    """q (B, H, S, D), k (B, H', T, D), v (B, H', T, E): S·T·D + S·T·E for each of the H query heads.

    With fewer key than query heads (grouped-query attention) the kernel repeats the keys: the cost is that of H heads.
    """
    scores = math.prod(q.shape[:-1]) * k.shape[-2]
    return [(scores * q.shape[-1], (q, k)), (scores * v.shape[-1], (v,))]


def _recurrent(x: Value, weights: Sequence[Value]) -> Products:
    """x (T, B, I), or (steps, I) when packed: every weight matrix is multiplied once at each step of each sequence."""
    steps = math.prod(x.shape[:-1])
    return [(steps * weight.numel(), (weight,)) for weight in weights if weight.dim() == 2]


def _trilinear(
    _: Value, a: Value, b: Value, c: Value, ones_a: list[int], ones_b: list[int], ones_c: list[int], *__: Any
) -> Products:
    """Σ a·b·c after inserting dimensions of size 1 (`nn.Bilinear`): one multiply-add a term, B·O·I₁·I₂."""

    def inserted(shape: Sequence[int], at: list[int]) -> list[int]:
        sizes = list(shape)
        for dim in sorted(at):
            sizes.insert(dim, 1)
        return sizes

    terms = torch.broadcast_shapes(inserted(a.shape, ones_a), inserted(b.shape, ones_b), inserted(c.shape, ones_c))
    return [(math.prod(terms), (a, b, c))]


_FORMULAS: dict[str, Callable[..., Products | None]] = {
    **dict.fromkeys(["aten::mm", "aten::bmm", "aten::_int_mm", "aten::_scaled_mm", "aten::_grouped_mm"], _matmul),
    **dict.fromkeys(["aten::addmm", "aten::baddbmm", "aten::addbmm", "aten::_addmm_activation"], _add_matmul),
    **dict.fromkeys(["aten::mv", "aten::dot", "aten::vdot"], _matvec),
    "aten::addmv": _add_matvec,
    "aten::linear": _linear,
    **dict.fromkeys(["aten::convolution", "aten::_convolution", "aten::convolution_overrideable"], _convolution),
    "aten::conv_tbc": _convolution_in_time,
    **dict.fromkeys(
        [
            "aten::_scaled_dot_product_flash_attention",
            "aten::_scaled_dot_product_flash_attention_for_cpu",
            "aten::_scaled_dot_product_efficient_attention",
            "aten::_scaled_dot_product_cudnn_attention",
            "aten::_scaled_dot_product_fused_attention_overrideable",
            "aten::_scaled_dot_product_attention_math_for_mps",
            "flex_attention",
        ],
        _attention,
    ),
    "aten::mkldnn_rnn_layer": lambda _, x, w_ih, w_hh, *__: _recurrent(x, [w_ih, w_hh]),
    "aten::_cudnn_rnn": lambda _, x, weights, *__: _recurrent(x, weights),
    "aten::miopen_rnn": lambda _, x, weights, *__: _recurrent(x, weights),
    "aten::_lstm_mps": lambda _, x, _state, weights, *__: _recurrent(x, weights),
    "aten::_trilinear": _trilinear,
}

# Products of matrices in disguise, sums over all pairs of rows, Fourier transforms, decompositions and systems of
# equations, without a formula here: better said than taken for free. What a product of sparse tensors costs depends on
# where their zeros are.
_UNKNOWN = frozenset(
    f"aten::{name}"
    for name in (
        "_flash_attention_forward",
        "_efficient_attention_forward",
        "_native_multi_head_attention",
        "_transformer_encoder_layer_fwd",
        "_cslt_sparse_mm",
        "_sparse_semi_structured_linear",
        "_sparse_semi_structured_mm",
        "_sparse_semi_structured_addmm",
        "_weight_int4pack_mm",
        "_weight_int4pack_mm_for_cpu",
        "_weight_int4pack_mm_with_scales_and_zeros",
        "_weight_int8pack_mm",
        "_dyn_quant_matmul_4bit",
        "_mixed_dtypes_linear",
        "_scaled_mm_v2",
        "_scaled_grouped_mm",
        "_scaled_grouped_mm_v2",
        "_foreach_mm",
        "_sparse_mm",
        "_sparse_addmm",
        "_sparse_mm_reduce_impl",
        "_sparse_sparse_matmul",
        "sparse_sampled_addmm",
        "hspmm",
        "sspaddmm",
        "_cdist_forward",
        "_euclidean_dist",
        "_pdist_forward",
        "linalg_matrix_exp",
        "_fft_r2c",
        "_fft_c2r",
        "_fft_c2c",
        "_linalg_solve_ex",
        "_linalg_det",
        "_linalg_slogdet",
        "_linalg_svd",
        "_linalg_eigh",
        "_linalg_eigvals",
        "linalg_eig",
        "linalg_eigvals",
        "linalg_qr",
        "linalg_lu",
        "linalg_lu_factor_ex",
        "linalg_lu_solve",
        "linalg_ldl_factor_ex",
        "linalg_ldl_solve",
        "linalg_lstsq",
        "linalg_inv_ex",
        "linalg_pinv",
        "linalg_cholesky_ex",
        "linalg_solve_triangular",
        "linalg_householder_product",
        "cholesky",
        "cholesky_inverse",
        "cholesky_solve",
        "triangular_solve",
        "geqrf",
        "ormqr",
        "_spsolve",
    )
)
