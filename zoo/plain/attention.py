"""Transformers as people write them by hand: fused and separate projections, grouped queries, tied embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Encoder(nn.Module):
    """torch's own encoder layers behind an embedding and a learned position, averaged, with logits."""

    def __init__(self, width: int = 32, *, norm_first: bool = False) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(50, width), nn.Parameter(torch.zeros(1, 16, width))
        block = nn.TransformerEncoderLayer(width, 4, 64, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, length <= 16) -> logits (N, 5)."""
        x = self.embedding(tokens) + self.position[:, : tokens.shape[1]]
        return self.head(self.encoder(x).mean(1))


class FusedAttention(nn.Module):
    """One projection for queries, keys and values, taken apart by reshaping, as timm writes it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, s, _ = x.shape
        qkv = self.qkv(x).reshape(n, s, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # each (n, heads, s, head_dim)
        weights = (q @ k.transpose(-2, -1) * self.head_dim**-0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(n, s, -1))


class ViTBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(width), FusedAttention(width, heads), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches, a class token, learned positions, blocks, logits from the class token (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token, self.position = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.zeros(1, 17, width))
        self.blocks = nn.ModuleList(ViTBlock(width, heads) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> logits (N, 10)."""
        x = self.patches(images).flatten(2).transpose(1, 2)  # (N, 16, width)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class Conv1D(nn.Module):
    """A linear layer that stores its weight as (inputs, outputs), as GPT-2's code does."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(inputs, outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return flat.view(*x.shape[:-1], flat.shape[-1])


class GPTBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.heads, self.width = nn.LayerNorm(width), nn.LayerNorm(width), heads, width
        self.c_attn, self.c_proj = Conv1D(3 * width, width), Conv1D(width, width)
        self.up, self.down = Conv1D(4 * width, width), Conv1D(width, 4 * width)

    def attention(self, x: Tensor) -> Tensor:
        n, s, _ = x.shape
        parts = self.c_attn(x).split(self.width, dim=2)
        q, k, v = (part.view(n, s, self.heads, -1).transpose(1, 2) for part in parts)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(out.transpose(1, 2).contiguous().view(n, s, self.width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    """Next-token logits; the head's weight is the embedding's."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(50, width), nn.Embedding(16, width)
        self.blocks = nn.ModuleList(GPTBlock(width, heads) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, length <= 16) -> logits (N, length, 50)."""
        x = self.embedding(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def rotated(x: Tensor) -> Tensor:
    """Rotary positions on (N, heads, length, size), the halves of `size` being the two coordinates."""
    length, half = x.shape[-2], x.shape[-1] // 2
    angles = torch.outer(
        torch.arange(length, dtype=x.dtype, device=x.device), 10.0 ** -torch.linspace(0, 2, half).to(x)
    )
    cosine, sine = torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()
    return x * cosine + torch.cat([-x[..., half:], x[..., :half]], -1) * sine


class GroupedAttention(nn.Module):
    """Separate projections; each key and value head serves several query heads (Ainslie et al. 2023)."""

    def __init__(self, width: int, heads: int, groups: int, size: int) -> None:
        super().__init__()
        self.repeats, self.size = heads // groups, size
        self.q, self.k = nn.Linear(width, heads * size, bias=False), nn.Linear(width, groups * size, bias=False)
        self.v, self.o = nn.Linear(width, groups * size, bias=False), nn.Linear(heads * size, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, s, _ = x.shape
        q, k, v = (p(x).view(n, s, -1, self.size).transpose(1, 2) for p in (self.q, self.k, self.v))
        q, k = rotated(q), rotated(k)
        k, v = k.repeat_interleave(self.repeats, 1), v.repeat_interleave(self.repeats, 1)
        hidden = torch.ones(s, s, dtype=torch.bool, device=x.device).triu(1)
        weights = (q @ k.transpose(2, 3) / math.sqrt(self.size)).masked_fill(hidden, -torch.inf).softmax(-1)
        return self.o((weights @ v).transpose(1, 2).reshape(n, s, -1))


class LlamaBlock(nn.Module):
    def __init__(self, width: int, heads: int, groups: int, size: int, inner: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.attention = GroupedAttention(width, heads, groups, size)
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        normed = self.norm2(x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))


class Llama(nn.Module):
    """Next-token logits with RMSNorm, rotary positions, grouped queries and a gated MLP (Touvron et al. 2023)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, width)
        self.blocks = nn.ModuleList(LlamaBlock(width, 8, 4, 8, 64) for _ in range(2))
        self.norm, self.head = RMSNorm(width), nn.Linear(width, 50, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, length) -> logits (N, length, 50)."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class BiasedAttention(nn.Module):
    """Unscaled attention with a learned bias for each head and clipped distance, as T5's (Raffel et al. 2020)."""

    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.n_heads, self.size = heads, size
        self.q, self.k, self.v = (nn.Linear(width, heads * size, bias=False) for _ in range(3))
        self.o, self.distance = nn.Linear(heads * size, width, bias=False), nn.Embedding(9, heads)

    def forward(self, x: Tensor) -> Tensor:
        n, s, _ = x.shape
        q, k, v = (p(x).view(n, -1, self.n_heads, self.size).transpose(1, 2) for p in (self.q, self.k, self.v))
        places = torch.arange(s, device=x.device)
        bias = self.distance((places[None] - places[:, None]).clamp(-4, 4) + 4)  # (s, s, heads)
        scores = q @ k.transpose(3, 2) + bias.permute(2, 0, 1).unsqueeze(0)
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).contiguous().view(n, -1, self.n_heads * self.size))


class T5(nn.Module):
    """Encoder of two blocks with relative positions and an MLP with a rectifier; logits for every token."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, width)
        self.norms = nn.ModuleList(RMSNorm(width) for _ in range(5))
        self.attentions = nn.ModuleList(BiasedAttention(width, 4, 8) for _ in range(2))
        self.wi = nn.ModuleList(nn.Linear(width, 64, bias=False) for _ in range(2))
        self.wo = nn.ModuleList(nn.Linear(64, width, bias=False) for _ in range(2))

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, length) -> logits (N, length, 50), with the embedding as the last layer."""
        x = self.embedding(tokens)
        for i, attention in enumerate(self.attentions):
            x = x + attention(self.norms[2 * i](x))
            x = x + self.wo[i](F.relu(self.wi[i](self.norms[2 * i + 1](x))))
        return F.linear(self.norms[4](x) * x.shape[-1] ** -0.5, self.embedding.weight)
