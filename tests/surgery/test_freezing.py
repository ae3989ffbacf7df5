"""What need not stay goes: sizes that depend on the data, results that nobody reads, code of which only a part fails."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import prunelab


def old_weight_norm(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, and in use everywhere
        return nn.utils.weight_norm(module)


def shrunk(model: nn.Module, *inputs: Tensor) -> prunelab.Shrunk:
    """Half of every group, and what is left computes what the masked network computes, on inputs of its own."""
    small = prunelab.shrink(model.eval(), inputs, sparsity=0.5)
    masked, fresh = small.plan.masked(model), [torch.randn_like(x) for x in inputs]
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = masked(*fresh)
        torch.manual_seed(5)
        torch.testing.assert_close(small.model(*fresh), expected, rtol=1e-4, atol=1e-5)
    return small


class Experts(nn.Module):
    """Each row goes to the expert that the router likes best: how many rows an expert gets depends on the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.router = nn.Linear(6, 16), nn.Linear(16, 3)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6) -> (N, 5)."""
        h = self.stem(x).relu()
        choice = self.router(h).argmax(1)
        out = h.new_zeros(len(x), 5)
        for number, expert in enumerate(self.experts):
            rows = (choice == number).nonzero()[:, 0]
            out.index_add_(0, rows, expert(h[rows]))
        return out


def test_experts_that_get_other_rows_when_there_are_fewer_channels() -> None:
    torch.manual_seed(3)
    model, x = Experts(), 3 * torch.randn(200, 6)
    small = shrunk(model, x)
    kept = small.plan.masked(model)
    dense, pruned = (m.router(m.stem(x).relu()).argmax(1).bincount(minlength=3).tolist() for m in (model, kept))
    assert dense != pruned, "the case is none: choose another seed"
    assert [expert[0].out_features for expert in small.model.experts] == [16, 16, 16]
    assert small.model.stem.out_features == 8


class Found(nn.Module):
    """As many results as there are points above a threshold."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.score, self.describe = nn.Conv2d(16, 1, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        scores = self.score(h).sigmoid()[0, 0]
        at = (scores > scores.mean()).nonzero()
        return self.describe(h)[0, :, at[:, 0], at[:, 1]].t(), scores


def test_as_many_points_as_are_found() -> None:
    small = shrunk(Found(), torch.randn(1, 3, 12, 12))
    assert [m.out_channels for m in small.model.modules() if isinstance(m, nn.Conv2d)] == [8, 8, 1, 4]


class Apart(nn.Module):
    """Falls into as many parts as there are rows whose score is high."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        score = self.score(x)[:, 0]
        high = (score > score.mean()).nonzero()[:, 0]
        rows = self.first(x).relu()[high].split(1)
        return self.second(torch.stack([row.sigmoid() for row in rows]).mean(0))


@pytest.mark.parametrize("seed", range(6))
def test_as_many_parts_as_the_data_say(seed: int) -> None:
    torch.manual_seed(seed)
    small = shrunk(Apart(), torch.randn(30, 6))
    assert [small.model.score[0].out_features, small.model.first.out_features] == [8, 8], small.explain()


class Stretched(nn.Module):
    """Draws how long its result is, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        times = int(torch.randint(1, 9, ()))
        return self.second(self.first(x).relu().repeat(times, 1))


def test_a_length_that_is_drawn() -> None:
    for seed in range(4):
        torch.manual_seed(seed)
        assert shrunk(Stretched(), torch.randn(4, 6)).model.first.out_features == 8


class Grouped(nn.Module):
    """A head of its attention is a group of the convolutions that make it: it cannot go without what they read."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.keys, self.values = (nn.Conv1d(8, 16, 1, groups=4) for _ in range(3))
        self.back, self.norm = nn.Conv1d(16, 8, 1), nn.LayerNorm(8)
        self.outer, self.end = nn.Conv1d(8, 32, 1), nn.Conv1d(32, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 8, L) -> (N, 8, L)."""
        q, k, v = (layer(x).view(len(x), 4, 4, -1).transpose(2, 3) for layer in (self.queries, self.keys, self.values))
        h = nn.functional.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(1, 2)
        h = self.norm((x + self.back(h)).transpose(1, 2)).transpose(1, 2)
        return h + self.end(self.outer(h).relu())


def test_the_code_of_a_layer_of_pytorch_is_not_to_blame() -> None:
    small = shrunk(nn.Sequential(Grouped(), Grouped()), torch.randn(3, 8, 5))
    assert [(block.keys.out_channels, block.outer.out_channels) for block in small.model] == [(16, 16), (16, 16)]


class Beside(nn.Module):
    """A second head that is not asked for, with dropout, which writes its mask in training."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 16), nn.Linear(16, 3)
        self.first, self.second, self.drop = nn.Linear(16, 16), nn.Linear(16, 16), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x).relu()
        extra = self.first(h).relu()
        self.kept = extra + self.drop(self.second(extra)) * torch.empty_like(extra).bernoulli_(0.5)
        return self.head(h)


def test_what_nobody_reads_shrinks_along() -> None:
    small = shrunk(Beside(), torch.randn(4, 6))
    assert [m.out_features for m in small.model.modules() if isinstance(m, nn.Linear)] == [8, 3, 8, 8]


class Waves(nn.Module):
    """As WaveNet does: the last block's residual connection leads nowhere, and its sum is computed all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.end = nn.Conv1d(1, 16, 1), nn.Conv1d(16, 4, 1)
        self.gates = nn.ModuleList(nn.Conv1d(16, 32, 2) for _ in range(2))
        self.residuals = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(2))
        self.skips = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h, total = self.stem(x), torch.zeros(())
        for gate, residual, skip in zip(self.gates, self.residuals, self.skips, strict=True):
            value, open_ = gate(h).chunk(2, 1)
            value = value.tanh() * open_.sigmoid()
            total = total + skip(value)[..., -8:]
            h = h[..., 1:] + residual(value)
        return self.end(total.relu())


def test_the_last_block_of_a_wavenet() -> None:
    small = shrunk(Waves(), torch.randn(2, 1, 20))
    assert [m.out_channels for m in small.model.modules() if isinstance(m, nn.Conv1d)] == [8, 4, 16, 16, 8, 8, 8, 8]


class Written(nn.Module):
    """What is written into a view, or into a buffer, is read through another name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        h.view(-1, 2, 8)[:, 0].mul_(3.0)
        return self.second(h)


def test_what_is_written_into_a_view_counts() -> None:
    model, x = Written(), torch.randn(4, 6)
    small = shrunk(model, x)
    followed = prunelab.trace.trace(model, x)
    assert any(op.name.startswith("aten::mul_") for op in followed.ops)
    assert small.check is not None
    assert small.check.holds


class Between(nn.Module):
    """Two convolutions, and something between them that runs along the axes of the image."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.middle, self.second = nn.Conv2d(3, 16, 3, padding=1), middle, nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.middle(self.first(x)))


ALONG: dict[str, Callable[[Tensor], Tensor]] = {
    "a real Fourier transform and back": lambda h: torch.fft.irfft2(torch.fft.rfft2(h).mul(0.5), s=h.shape[-2:]),
    "a complex one": lambda h: torch.fft.ifft(torch.fft.fft(h, dim=-1), dim=-1).real + torch.fft.fft2(h).imag,
    "unfolded and folded": lambda h: functional.fold(functional.unfold(h, 3, padding=1), h.shape[-2:], 3, padding=1),
    "the lower triangle": lambda h: h.tril() + h.triu(1).flip(-1),
    "real and imaginary parts": lambda h: torch.complex(h.relu(), (-h).relu()).abs(),
    "lengths and angles": lambda h: torch.polar(h.relu(), torch.ones_like(h)).real,
}


@pytest.mark.parametrize("name", ALONG)
def test_along_the_axes_of_the_image(name: str) -> None:
    small = shrunk(Between(ALONG[name]), torch.randn(2, 3, 8, 8))
    assert small.model.first.out_channels == 8, small.explain()


def test_a_fourier_transform_over_the_channels_keeps_them() -> None:
    small = shrunk(Between(lambda h: torch.fft.fft(h, dim=1).real), torch.randn(2, 3, 8, 8))
    assert "a Fourier transform runs over it" in small.explain()
    assert small.model.first.out_channels == 16


class Normed(nn.Module):
    """Weight normalisation, as PyTorch has it now, or as it had it before."""

    def __init__(self, norm: Callable[[nn.Module], nn.Module], groups: int = 1) -> None:
        super().__init__()
        self.first, self.second = norm(nn.Conv1d(3, 16, 3)), norm(nn.Conv1d(16, 24, 3, groups=groups))
        self.third = norm(nn.Linear(24, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x).relu()).relu().mean(2))


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("ran", [False, True])
@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, old_weight_norm], ids=["new", "old"])
def test_weight_normalisation(norm: Callable[[nn.Module], nn.Module], ran: bool, groups: int) -> None:
    torch.manual_seed(0)
    model, x = Normed(norm, groups), torch.randn(2, 3, 12)
    if ran:
        model(x)
    small = shrunk(model, x)
    assert [layer.out_channels for layer in (small.model.first, small.model.second)] == [8, 12]
    assert (small.model.third.in_features, small.model.second.groups) == (12, groups)
    assert sum(p.numel() for p in small.model.parameters()) < 0.5 * sum(p.numel() for p in model.parameters())
    again = prunelab.surgery.Plan.from_dict(json.loads(json.dumps(small.plan.to_dict())))
    torch.testing.assert_close(again.masked(model)(x), small.model(x), rtol=1e-4, atol=1e-5)
    small.model(x).sum().backward()
    assert all(p.grad is not None for p in small.model.parameters())


def test_the_row_that_goes_has_no_length_in_the_masked_network() -> None:
    """v · g / ‖v‖ of a row of zeros is no number: g is zeroed alone."""
    torch.manual_seed(0)
    model, x = Normed(nn.utils.parametrizations.weight_norm), torch.randn(2, 3, 12)
    masked = shrunk(model, x).plan.masked(model)
    scales, rows = (getattr(masked.first.parametrizations.weight, f"original{i}").detach() for i in (0, 1))
    assert int((scales == 0).sum()) == 8
    assert not (rows == 0).flatten(1).all(1).any()
    assert int((masked.first.weight == 0).flatten(1).all(1).sum()) == 8


class Settings:
    def __init__(self) -> None:
        self.heads, self.width, self.positions, self.seed = 4, 4, 16, 16


@dataclass(frozen=True)
class Frozen:
    heads: int = 4
    width: int = 4
    positions: int = 16
    seed: int = 16


class Shared(Settings):
    """The same for all models, however they are copied."""

    def __deepcopy__(self, memo: Any) -> Shared:
        return self


class Sizes(Enum):
    SMALL = (4, 4, 16, 16)

    @property
    def heads(self) -> int:
        return int(self.value[0])

    @property
    def width(self) -> int:
        return int(self.value[1])


class Biases(nn.Module):
    """A bias for each head, whose number it holds; asked for by a method, so that the module itself never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.table = 4, nn.Parameter(torch.randn(4))

    def added(self, scores: Tensor) -> Tensor:
        return scores + self.table.view(self.heads, 1, 1)


class Configured(nn.Module):
    """One product for queries, keys and values, cut where settings say that an object and a part hold."""

    def __init__(self, settings: Any) -> None:
        super().__init__()
        self.settings, self.biases = settings, Biases()
        self.all, self.back = nn.Linear(8, 48), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, 8) -> (N, L, 8)."""
        held = self.settings
        size, h = held.heads * held.width, self.all(x)
        parts = h[..., :size], h[..., size : 2 * size], h[..., 2 * size :]
        q, k, v = (part.reshape(*x.shape[:2], -1, held.width).transpose(1, 2) for part in parts)
        weights = self.biases.added(q @ k.mT).softmax(-1)
        return self.back((weights @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("kind", [Settings, Frozen, lambda: SimpleNamespace(**vars(Settings()))])
def test_numbers_that_settings_and_parts_hold(kind: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    model = Configured(kind())
    small = shrunk(model, torch.randn(2, 5, 8))
    assert small.model.all.out_features == 24, small.explain()
    found = small.model.settings
    assert (found.heads, found.width, found.positions, found.seed) == (2, 4, 16, 16)
    assert (small.model.biases.heads, model.biases.heads, model.settings.heads) == (2, 4, 4)


def test_settings_that_are_not_the_copys_own_are_left_alone() -> None:
    for settings in (Shared(), Sizes.SMALL):
        model = Configured(settings)
        small = shrunk(model, torch.randn(2, 5, 8))
        assert small.model.all.out_features == 48
        assert (settings.heads, settings.width) == (4, 4)
    assert Sizes.SMALL.value == (4, 4, 16, 16)


class Split(nn.Module):
    """The size of a path is what is said of all paths, divided by their number."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.paths = 16, 2
        self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.first(x).split(self.width // self.paths, 1)
        return self.second(one * other.sigmoid())


def test_numbers_that_are_multiples_of_sizes_and_no_others() -> None:
    small = shrunk(Split(), torch.randn(2, 3, 5, 5))
    assert (small.model.first.out_channels, small.model.width, small.model.paths) == (8, 8, 2)


class Enlarge(nn.Module):
    def __init__(self, settings: SimpleNamespace) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(x, scale_factor=self.settings.scale)


class Literal(nn.Module):
    """Its code asks for 48 in so many words; the settings hold a 2, which goes into 48."""

    def __init__(self, settings: SimpleNamespace) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 48, *x.shape[2:])


class Enlarged(nn.Sequential):
    def __init__(self) -> None:
        settings = SimpleNamespace(scale=2)
        first = [Enlarge(settings), nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 48, 1)]
        super().__init__(*first, Literal(settings), nn.Conv2d(48, 4, 1))


def test_a_number_whose_change_breaks_what_had_run_is_put_back() -> None:
    small = shrunk(Enlarged(), torch.randn(2, 3, 5, 5))
    assert (small.model[1].out_channels, small.model[3].out_channels) == (8, 48), small.explain()
    assert small.model[0].settings.scale == 2


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("own", [False, True])
def test_what_is_left_of_a_constant_image_is_no_difference(value: float, own: bool) -> None:
    """Less its mean a constant is rounding, which a normalisation makes large."""

    def centred(h: Tensor) -> Tensor:
        apart = h - h.mean((2, 3), keepdim=True)
        return apart * (apart.square().mean((2, 3), keepdim=True) + 1e-5).rsqrt()

    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity() if own else nn.InstanceNorm2d(32)

        def forward(self, h: Tensor) -> Tensor:
            return centred(h) if own else self.layer(h)

    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3), Norm(), nn.ReLU(), nn.Conv2d(32, 32, 3), Norm(), nn.ReLU()]
    layers += [nn.Conv2d(32, 32, 3), Norm(), nn.ReLU(), nn.Conv2d(32, 4, 1)]
    small = prunelab.shrink(nn.Sequential(*layers).eval(), torch.full((2, 3, 12, 12), value), sparsity=0.5)
    assert [layer.out_channels for layer in small.model if isinstance(layer, nn.Conv2d)] == [16, 16, 16, 4], (
        small.explain()
    )


def test_blame_that_climbs_to_the_root_comes_to_an_end() -> None:
    """What fails is a layer of PyTorch's, and so is all that it is a part of."""
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 3))
    model[1].register_forward_hook(lambda _, inputs, result: result / inputs[0].shape[1])
    assert shrunk(model, torch.randn(5, 8)).model[0].out_features == 16


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, old_weight_norm], ids=["new", "old"])
def test_dead_rows_of_weight_normalisation_are_those_without_length(norm: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = Normed(norm).eval(), torch.randn(2, 3, 12)
    small = shrunk(model, x)
    again = prunelab.shrink(small.plan.masked(model), x)
    assert again.plan.params[1] == small.plan.params[1]


def test_the_computed_weight_is_small_before_the_first_forward() -> None:
    small = shrunk(Normed(old_weight_norm), torch.randn(2, 3, 12))
    fresh = small.plan.apply(Normed(old_weight_norm))
    assert fresh.first.weight.shape == (8, 3, 3)
    assert fresh.second.weight.shape == (12, 8, 3)


def test_a_recurrent_layer_with_computed_weights() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.utils.parametrizations.weight_norm(nn.LSTM(3, 8), "weight_hh_l0")
            self.end = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.end(self.layer(x)[0])

    shrunk(Recurrent(), torch.randn(5, 2, 3))


class Half(nn.Module):
    """The first eight go through an activation; where no more than eight are left, that slice is no operation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        h[:, :8] = h[:, :8].relu()
        result: Tensor = self.last(h)
        return result


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.75])
def test_a_slice_that_takes_everything_that_is_left(sparsity: float, verify: bool) -> None:
    torch.manual_seed(0)
    model, x = Half().eval(), torch.randn(4, 6)
    small = prunelab.shrink(model, x, sparsity=sparsity, verify=verify)
    torch.testing.assert_close(small.model(x), small.plan.masked(model)(x))


def test_spectral_normalisation_of_a_network_in_training_mode() -> None:
    """Each look at its weight in that mode changes the vectors from which it is computed."""
    for seed in range(3):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 12)), nn.ReLU(), nn.Linear(12, 3))
        x = torch.randn(4, 6)
        small = prunelab.shrink(model, x, sparsity=0.5)
        assert small.model[2].in_features == 6, small.explain()
        again = small.plan.apply(model)
        for made in (small.model, again):
            assert made.training
            torch.testing.assert_close(made.eval()(x), small.plan.masked(model).eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_an_embedding_with_a_largest_norm_is_left_as_it_is(kind: Any) -> None:
    model = nn.Sequential(kind(10, 8, max_norm=0.5), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    before = model[0].weight.detach().clone()
    ids = torch.randint(0, 10, (4, 5))
    prunelab.shrink(model, ids, sparsity=0.5)
    prunelab.evaluate.report(model, ids)
    assert torch.equal(model[0].weight, before)


def test_padded_positions_of_the_fast_path_are_told() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    x, padded = torch.randn(3, 6, 16), torch.zeros(3, 6, dtype=torch.bool)
    padded[1, 4:] = True
    for nested in (True, False):
        model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested).eval()
        plan = prunelab.shrink(model, {"src": x, "src_key_padding_mask": padded}, sparsity=0.5).plan
        assert any("fast path returns zeros for padded positions" in note for note in plan.notes) == nested


def test_a_model_without_values_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'0.weight' is on the meta device and has no values; load the weights"):
        prunelab.shrink(nn.Sequential(nn.Linear(4, 4, device="meta")), torch.randn(2, 4), sparsity=0.5)


class Graph(nn.Module):
    """The edges are a sparse buffer."""

    def __init__(self, edges: Tensor) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)
        self.register_buffer("edges", edges)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.edges @ self.last((self.edges @ self.first(x)).relu())  # type: ignore[operator]
        return result


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_the_sparse_matrix_of_a_graph(layout: torch.layout) -> None:
    torch.manual_seed(0)
    dense = torch.rand(9, 9) * (torch.rand(9, 9) < 0.3)
    x = torch.randn(9, 8)
    small = shrunk(Graph(dense.to_sparse(layout=layout)), x)
    assert small.model.first.out_features == 8
    torch.testing.assert_close(small.model.edges.to_dense(), dense)
