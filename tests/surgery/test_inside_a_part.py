"""What runs inside each head, group or piece leaves the heads apart: whole ones go, and their insides stay together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import prunelab

WIDTH, HEADS = 32, 4
SIZE = WIDTH // HEADS


class Attention(nn.Module):
    """`kind` says what happens to the queries and keys of each head."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.heads = kind, HEADS
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm = nn.LayerNorm(SIZE)
        nn.init.normal_(self.norm.bias)  # what a head without weights emits is not zero

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.kind == "layer norm":
            q, k = self.norm(q), self.norm(k)
        elif self.kind == "root mean square":
            q, k = (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-6) for y in (q, k))
        elif self.kind == "cosine":
            q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        elif self.kind == "linear attention":
            return self.join(q.softmax(-1) @ (k.softmax(-2).transpose(-1, -2) @ v))
        elif self.kind == "values":
            v = self.norm(v).softmax(-1)
        return self.join((q @ k.transpose(-1, -2) / 3).softmax(-1) @ v)

    def join(self, y: Tensor) -> Tensor:
        joined: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return joined


class GraphAttention(nn.Module):
    """Velickovic et al. (2018), eq. 3: a score for each head and pair of nodes, from a product with every feature."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = HEADS
        self.q, self.out = nn.Linear(10, WIDTH, bias=False), nn.Linear(WIDTH, 3)
        self.here, self.there = (nn.Parameter(torch.randn(1, HEADS, SIZE)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 10) -> (N, 3)."""
        z = self.q(x).view(len(x), self.heads, -1)
        scores = (z * self.here).sum(-1)[:, None] + (z * self.there).sum(-1)[None]  # (N, N, H)
        mixed = torch.einsum("ijh,jhc->ihc", functional.leaky_relu(scores).softmax(1), z)
        result: Tensor = self.out(mixed.flatten(1).relu())
        return result


class Pieces(nn.Module):
    """Each hidden unit is made of three pieces, next to each other or a third of the width apart."""

    def __init__(self, how: str, apart: bool) -> None:
        super().__init__()
        self.how, self.apart = how, apart
        self.q, self.out = nn.Linear(10, 36), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.q(x)
        pieces, dim = (y.view(len(x), 3, -1), 1) if self.apart else (y.view(len(x), -1, 3), 2)
        reduced = getattr(torch, self.how)(pieces, dim)
        result: Tensor = self.out(reduced.values if self.how == "max" else reduced)
        return result


def shrunk(model: nn.Module, x: Tensor) -> prunelab.Shrunk:
    """Half of every group; on another input it computes what is computed with the removed channels unread."""
    small = prunelab.shrink(model.eval(), x, sparsity=0.5)
    other = torch.randn_like(x)
    masked = small.plan.masked(model)
    torch.testing.assert_close(small.model(other), masked(other), rtol=1e-4, atol=1e-5)
    left = sum(p.numel() for p in small.model.parameters()) / sum(p.numel() for p in model.parameters())
    assert left < 0.55
    return small


def removed(small: prunelab.Shrunk) -> Tensor:
    """(outputs of q,): which are gone."""
    rows = torch.ones(small.plan.slices["q.weight"].shape[0], dtype=torch.bool)
    rows[torch.from_numpy(small.plan.slices["q.weight"].rows())] = False
    return rows


@pytest.mark.parametrize("kind", ["layer norm", "root mean square", "cosine", "linear attention", "values"])
def test_whole_heads_go_where_something_runs_inside_each(kind: str) -> None:
    gone = removed(shrunk(Attention(kind), torch.randn(2, 7, WIDTH))).view(HEADS, SIZE)
    assert gone.all(1).sum() == HEADS // 2 == gone.any(1).sum()


def test_the_heads_of_graph_attention() -> None:
    gone = removed(shrunk(GraphAttention(), torch.randn(9, 10))).view(HEADS, SIZE)
    assert gone.all(1).sum() == HEADS // 2 == gone.any(1).sum()


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("how", ["max", "amin", "prod", "logsumexp", "mean", "std"])
def test_the_pieces_of_a_unit_go_together(how: str, apart: bool) -> None:
    gone = removed(shrunk(Pieces(how, apart), torch.randn(5, 10)))
    gone = gone.view(3, 12).T if apart else gone.view(12, 3)
    assert gone.all(1).sum() == 6 == gone.any(1).sum()


class Divided(nn.Module):
    """Cosine attention that trusts its queries and keys to have a length."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = HEADS
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
        q, k = (y / y.norm(dim=-1, keepdim=True) for y in (q, k))
        result: Tensor = self.out(((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2).flatten(2))
        return result


def test_what_would_be_divided_by_zero_stays() -> None:
    model, x = Divided().eval(), torch.randn(2, 7, WIDTH)
    plan = prunelab.shrink(model, x, sparsity=0.5, verify=False).plan
    assert any("divided by it" in part.reason for part in plan.frozen)
    torch.testing.assert_close(plan.masked(model)(x), model(x))


@pytest.mark.parametrize("kind", ["plain", "layer norm"])
def test_a_head_whose_values_are_zero_is_dead(kind: str) -> None:
    """Whatever its queries and keys attend to: here also those that a shift makes the same for all positions."""
    model, x = Attention(kind).eval(), torch.randn(2, 7, WIDTH)
    with torch.no_grad():
        for layer in (model.q, model.k, model.v):
            layer.weight[:SIZE] = 0
            layer.bias[:SIZE] = 0
    small = prunelab.shrink(model, x)
    assert small.model.q.out_features == WIDTH - SIZE, small.explain()
    torch.testing.assert_close(small.model(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_head_of_constant_values_is_not_dead() -> None:
    model, x = Attention("plain").eval(), torch.randn(2, 7, WIDTH)
    with torch.no_grad():
        for layer in (model.q, model.k, model.v):
            layer.weight[:SIZE] = 0
    small = prunelab.shrink(model, x)
    assert small.model.q.out_features == WIDTH
    torch.testing.assert_close(small.model(x), model(x), rtol=1e-4, atol=1e-5)
