"""What the outputs do not show: a branch behind a scale of a millionth must be right too.

A relative tolerance on the outputs lets any error of such a branch pass, so the branch itself is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import prunelab
from zoo.architecture import randomise


class Faint(nn.Module):
    """x + 10⁻⁶ · branch(x), as a fresh layer scale has it."""

    def __init__(self, middle: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(width, 8)
        self.middle, self.scale = middle, nn.Parameter(torch.full((8,), 1e-6))

    def branch(self, x: Tensor) -> Tensor:
        """(N, 8) -> (N, 8)."""
        return self.second(self.middle(self.first(x)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.branch(x)


def total(h: Tensor) -> Tensor:
    """Each channel times the sum of all: what a removed one holds, if it is not zero, changes all others."""
    return h * h.sum(1, keepdim=True)


def column_written(h: Tensor) -> Tensor:
    copy = h.clone()
    copy[:, 0] = 1.0
    return copy


def rows_written(h: Tensor) -> Tensor:
    copy = h.clone()
    copy[1:].copy_(torch.ones_like(copy[1:]))
    return total(copy)


def rows_filled(h: Tensor) -> Tensor:
    copy = h.clone()
    copy.view(-1, 16)[:1].detach().fill_(0.5)
    return total(copy)


MIDDLES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "a step": (lambda h: h[:, ::2], 8),
    "the first": (lambda h: h + h[:, :1], 16),
    "the last": (lambda h: h + h[:, -1:], 16),
    "one by number": (lambda h: h * h.select(1, 3)[:, None], 16),
    "the middle": (lambda h: h[:, 4:8], 4),
    "a column written": (column_written, 16),
    "rows written": (rows_written, 16),
    "a view of a view filled": (rows_filled, 16),
    "threshold": (lambda h: total(functional.threshold(h, 0.1, 0.7)), 16),
    "index_fill": (lambda h: total(h.index_fill(0, torch.tensor([0]), 0.5)), 16),
    "scatter": (lambda h: total(h.scatter(0, torch.zeros_like(h[:1]).long(), 0.5)), 16),
    "nothing by nothing": (lambda h: total(torch.nan_to_num(h / h, nan=0.3)), 16),
    "where": (lambda h: total(torch.where(h > 0, h, 0.5)), 16),
    "the first added to all": (lambda h: (h + h[:, :1]) * (h + h[:, :1]).norm(dim=1, keepdim=True), 16),
    "the mean added to all": (lambda h: total(h + h.mean(1, keepdim=True)), 16),
    "the sum times another": (lambda h: total(h.sum(1, keepdim=True) * h.cos()), 16),
    "two to the power": (lambda h: total(2.0**h), 16),
    "divided by the width": (lambda h: h / h.shape[1], 16),
    "its own spread, as a number": (lambda h: h * float(h.detach().std()), 16),
    "numbers of a fixed seed": (lambda h: h * torch.rand(h.shape, generator=torch.Generator().manual_seed(3)), 16),
    "sorted": (lambda h: h * torch.from_numpy(np.sort(h.detach().numpy(), 1)[:, -1:]), 16),
    "bounds that are tensors": (lambda h: total(torch.clamp(h, min=torch.full_like(h, 0.3))), 16),
}


@pytest.mark.parametrize("name", MIDDLES)
def test_a_branch_that_hardly_counts_is_right(name: str) -> None:
    torch.manual_seed(1)
    model, x = Faint(*MIDDLES[name]).eval(), torch.randn(4, 8)
    randomise(model.first)
    small = prunelab.shrink(model, x, sparsity=0.5)
    inputs = torch.randn(5, 8)
    mine, theirs = small.model.branch(inputs), small.plan.masked(model).branch(inputs)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5 * float(theirs.detach().abs().max()))


@pytest.mark.parametrize(
    ("middle", "width"),
    [(lambda h: torch.threshold(h, -0.5, 0.7), 16), (lambda h: h**2.0, 16), (lambda h: h[:, :16:1], 16)],
    ids=["threshold below zero", "square", "all of it"],
)
def test_what_stays_zero_still_goes(middle: Callable[[Tensor], Tensor], width: int) -> None:
    torch.manual_seed(1)
    small = prunelab.shrink(Faint(lambda h: total(middle(h)), width).eval(), torch.randn(4, 8), sparsity=0.5)
    assert small.model.first.out_features == 8


@cache
def table(size: int) -> Tensor:
    """Computed in the first forward only, as positions often are: more operations than in any forward after it."""
    steps = torch.arange(size)
    return ((steps[:, None] * 3 + steps[None] * 2 + 1) % size).float().mean(1).sqrt().cos().add(2).log()


class Remembered(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + table(x.shape[1])


class Late(Faint):
    """Something that is computed once comes before the faint branch."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__(middle, 16)
        self.remembered = Remembered()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.remembered(x))


def test_a_branch_is_compared_after_operations_that_run_only_once() -> None:
    torch.manual_seed(1)
    table.cache_clear()
    model, x = Late(lambda h: h / h.shape[1]).eval(), torch.randn(4, 8)
    small = prunelab.shrink(model, x, sparsity=0.5)
    assert small.model.first.out_features == 16
    assert "returns something else when there are fewer" in small.explain()
    torch.testing.assert_close(small.model.branch(x), model.branch(x))


def through_unfilled_memory(h: Tensor) -> Tensor:
    """Written into memory that holds anything before, as padding by what is on the other side is, and copied so."""
    first, second = torch.empty(len(h) + 2, h.shape[1]), torch.empty(len(h) + 2, h.shape[1])
    first.numpy()[:] = np.random.default_rng().normal(size=first.shape)  # behind the dispatcher's back
    first[1:-1].copy_(h)
    second.copy_(first)
    return second[1:-1]


def test_memory_that_is_not_filled_yet_is_not_compared() -> None:
    torch.manual_seed(1)
    small = prunelab.shrink(Faint(through_unfilled_memory, 16).eval(), torch.randn(4, 8), sparsity=0.5)
    assert small.model.first.out_features == 8, small.explain()


class Drawing(nn.Module):
    """Drops what a random number says, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu()) * (torch.rand(*x.shape[:2], 1) > 0.5)


@pytest.mark.parametrize("seed", range(4))
def test_a_network_that_draws_is_compared_on_the_same_draws(seed: int) -> None:
    torch.manual_seed(seed)
    small = prunelab.shrink(Drawing().eval(), torch.randn(2, 6, 8), sparsity=0.5)
    assert small.model.first.out_features == 8


class Written(nn.Module):
    """A network that writes the kernels of another's convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.writer = nn.Conv2d(3, 8, 1), nn.Linear(6, 8 * 8 * 9)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        kernels = self.writer(z).view(-1, 8, 3, 3)
        return functional.conv2d(self.stem(x).reshape(1, -1, 8, 8), kernels, groups=len(x))


def test_kernels_that_are_computed_for_every_example() -> None:
    inputs = torch.randn(2, 3, 8, 8), torch.randn(2, 6)
    small = prunelab.shrink(Written(), inputs, sparsity=0.5)
    assert small.model.stem.out_channels == 8
    assert small.check.holds


class Waves(nn.Module):
    """Complex between two layers: rectified part by part, taken for pairs of real numbers, or turned."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second = nn.Linear(6, 16, dtype=torch.cfloat), nn.Linear(16, 4, dtype=torch.cfloat)
        self.phase, self.pairs = nn.Parameter(torch.randn(16)), nn.Linear(6, 16)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6) -> (N, 4)."""
        if self.kind == "pairs":
            z = torch.view_as_complex(self.pairs(x).view(-1, 8, 2))
            return torch.view_as_real(z * z).flatten(1)[:, :4] + torch.view_as_real(z).sum((1, 2))[:, None]
        z = self.first(x.to(torch.cfloat))
        if self.kind == "rectified":
            z = torch.complex(z.real.relu(), z.imag.relu())
        elif self.kind == "stacked":
            z = torch.view_as_complex(torch.view_as_real(z).tanh().contiguous())
        else:
            z = z * torch.polar(torch.ones_like(self.phase), self.phase)
        return self.second(z).abs()


@pytest.mark.parametrize("kind", ["rectified", "stacked", "turned", "pairs"])
def test_complex_numbers(kind: str) -> None:
    torch.manual_seed(0)
    model, x = Waves(kind).eval(), torch.randn(4, 6)
    small = prunelab.shrink(model, x, sparsity=0.5)
    inputs = torch.randn(5, 6)
    torch.testing.assert_close(small.model(inputs), small.plan.masked(model)(inputs), rtol=1e-4, atol=1e-5)
    assert small.model.first.out_features in {8, 16}
    if kind in {"stacked", "rectified"}:
        assert small.model.first.out_features == 8, small.explain()


def test_complex_weights_are_compared_by_their_modulus() -> None:
    model = Waves("stacked").eval()
    with torch.no_grad():
        model.first.weight.copy_(torch.complex(torch.full((16, 6), 1e-3), torch.arange(16.0)[:, None].expand(16, 6)))
    small = prunelab.shrink(model, torch.randn(4, 6), sparsity=0.5)
    assert small.model.first.weight.imag[:, 0].tolist() == list(range(8, 16))


def test_generators_of_other_devices_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.manual_seed` sets those of every device, also of those that nothing here runs on."""

    def refused(_: int) -> None:
        raise AssertionError("the generators of all devices are set")

    torch.manual_seed(0)
    model, x, before = Drawing().eval(), torch.randn(2, 6, 8), torch.get_rng_state()
    monkeypatch.setattr(torch, "manual_seed", refused)
    assert prunelab.shrink(model, x, sparsity=0.5).model.first.out_features == 8
    assert torch.equal(torch.get_rng_state(), before)
