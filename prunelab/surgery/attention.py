"""Multi-head attention with fewer heads: what takes the place of `nn.MultiheadAttention` when heads go."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class SlimAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` whose heads no longer fill its width: `num_heads` × `head_dim` may be below `embed_dim`.

    The parameters have the names and the layout of the original: `in_proj_weight` (3·heads·head_dim, embed_dim), or
    `q_proj_weight`, `k_proj_weight`, `v_proj_weight`; `out_proj.weight` (embed_dim, heads·head_dim).
    """

    @classmethod
    def of(cls, layer: nn.MultiheadAttention) -> SlimAttention:
        """Take over the parameters and settings of a layer whose parameters were cut already."""
        slim = cls.__new__(cls)
        nn.Module.__init__(slim)
        slim.__dict__.update(layer.__dict__)
        slim.num_heads = layer.out_proj.weight.shape[1] // layer.head_dim
        slim.embed_dim = layer.out_proj.weight.shape[0]
        keys = layer.in_proj_weight if layer.in_proj_weight is not None else layer.k_proj_weight
        values = layer.in_proj_weight if layer.in_proj_weight is not None else layer.v_proj_weight
        slim.kdim, slim.vdim = keys.shape[1], values.shape[1]
        slim._qkv_same_embed_dim = False  # so that encoder layers do not take the path that fuses the whole layer
        return slim

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As the original's: query (B, S, E) where `batch_first`, else (S, B, E), or (S, E) without a batch."""
        batched = query.dim() == 3
        if not batched:
            query, key, value = (t.unsqueeze(0) for t in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        q, k, v = (self._heads(t) for t in self._project(query, key, value))  # (B, H, S, D)
        mask = _as_bias(key_padding_mask, attn_mask, is_causal and not need_weights, q, k)
        k, v, mask = self._extended(k, v, mask)
        out, weights = _attend(q, k, v, mask, self.dropout if self.training else 0.0, need_weights)
        out = self.out_proj(out.transpose(1, 2).flatten(2))  # (B, S, E)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return (out if self.batch_first else out.transpose(0, 1)), weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        return tuple(functional.linear(t, w, b) for t, w, b in zip((query, key, value), weights, biases, strict=True))

    def _heads(self, t: Tensor) -> Tensor:
        return t.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _extended(self, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """With the learned extra key and value, and the zero one, where the layer has them."""
        extra = 0
        if self.bias_k is not None and self.bias_v is not None:
            more = (self._heads(b.transpose(0, 1).expand(k.shape[0], -1, -1)) for b in (self.bias_k, self.bias_v))
            k, v = (torch.cat(pair, 2) for pair in zip((k, v), more, strict=True))
            extra += 1
        if self.add_zero_attn:
            k, v = (functional.pad(t, (0, 0, 0, 1)) for t in (k, v))
            extra += 1
        return k, v, mask if mask is None or not extra else functional.pad(mask, (0, extra))


def _as_bias(padding: Tensor | None, mask: Tensor | None, causal: bool, q: Tensor, k: Tensor) -> Tensor | None:
    """Both masks as one that is added to the scores, broadcastable to (B, H, S, T)."""
    if mask is None and causal:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).triu(1)
    total = None
    if mask is not None:
        mask = _additive(mask, q)
        # (S, T) for all, or (B·heads, S, T) for the heads that there were.
        total = mask if mask.dim() == 2 else mask.unflatten(0, (q.shape[0], -1))
    if padding is not None:
        hidden = _additive(padding, q)[:, None, None]  # (B, 1, 1, T)
        total = hidden if total is None else total + hidden
    return total


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, -math.inf)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, need_weights: bool
) -> tuple[Tensor, Tensor | None]:
    if not need_weights:
        return functional.scaled_dot_product_attention(q, k, v, mask, dropout), None
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    weights = functional.dropout((scores if mask is None else scores + mask).softmax(-1), dropout, training=True)
    return weights @ v, weights
