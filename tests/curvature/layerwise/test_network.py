"""Whole networks, layer by layer, against one whole forward for each layer."""

from __future__ import annotations

import copy
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from prunelab import Masks
from prunelab.curvature import DampingWarning, InputCovariance, prune_layer, prune_layerwise, reconstruction_error
from prunelab.curvature.layerwise import walk
from prunelab.lab import models

Batches = list[Any]


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).mT / 3 + mask
        return self.out(scores.softmax(-1) @ self.value(x))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention, self.norm = Attention(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(inplace=True), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        x = x + self.attention(x, mask=mask)
        x += self.mlp(self.norm(x))  # writes into what it was not given
        return x, None


class Transformer(nn.Module):
    """Blocks that return tuples and take keywords, before them an embedding, behind them two heads."""

    def __init__(self, width: int = 6, depth: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.blocks = nn.Embedding(11, width), nn.ModuleList(Block(width) for _ in range(depth))
        self.first, self.second = nn.Linear(width, 4), nn.Linear(width, 3)

    def forward(self, tokens: Tensor, mask: Tensor) -> dict[str, Tensor]:
        x = self.embedding(tokens)
        for block in self.blocks:
            x, _ = block(x, mask=mask[:, None, :])
            x += self.embedding.weight[0]  # writes into what the block returned
        return {"first": self.first(x), "second": self.second(x.mean(1))}


class Twice(nn.Module):
    """A layer that runs twice, one in two places, and a block that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.c.weight = self.a.weight
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(6, 6), nn.Tanh()), Block(6)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.b(self.a(x)).relu())
        for block in (*self.blocks[0], *self.blocks[0]):
            x = block(x)
        return self.c(self.blocks[1](x, torch.zeros(1))[0].relu_())


class Cache(nn.Module):
    """Blocks that change what they are given, a list or a tensor: run again, or passed over, they would do otherwise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks, self.writers = (nn.ModuleList(kind() for _ in range(2)) for kind in (Remembering, Writing))

    def forward(self, x: Tensor) -> Tensor:
        memory: list[Tensor] = []
        for block in self.blocks:
            x = block(x, memory)
        for block in self.writers:
            x = block(x) + x
        return x


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, x: Tensor, memory: list[Tensor]) -> Tensor:
        memory.append(x)
        return self.second(self.first(x).relu() + sum(memory))


class Writing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        x += 0.5 * first  # so what the second reads is not what the first read
        return first + self.second(x)


class Routed(nn.Module):
    """Which layers run depends on the batch, and those of the second come between those of the first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = (
            nn.ModuleList(nn.Linear(5, 5) for _ in range(2)),
            nn.ModuleList(nn.Linear(5, 5) for _ in range(2)),
        )
        self.parts = nn.ModuleList([Part(self.a, "both"), Part(self.b, "one")])
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        positive = bool(x[0, 0] > 0)
        for part in self.parts:
            x = part(x, positive)
        return self.head(x)


class Part(nn.Module):
    def __init__(self, layers: nn.ModuleList, how: str) -> None:
        super().__init__()
        self.how, self.layers = how, layers

    def forward(self, x: Tensor, positive: bool) -> Tensor:
        if self.how == "both":
            x = self.layers[0](x).relu()
            return self.layers[1](x).relu() if positive else x
        return self.layers[int(not positive)](x)


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, (3, 1), padding=(1, 0), groups=8), nn.Conv2d(8, 6, 3, dilation=2, padding="same", bias=False),
        nn.ReLU(), nn.Flatten(1), nn.Linear(6 * 16, 5),
    )  # fmt: skip


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens(batches: int) -> Batches:
    draw = torch.Generator().manual_seed(0)
    lengths = [3 + number for number in range(batches)]
    return [
        {"tokens": torch.randint(11, (8, length), generator=draw), "mask": torch.zeros(8, length, dtype=torch.float64)}
        for length in lengths
    ]


CASES: dict[str, tuple[Callable[[], nn.Module], Batches]] = {
    "transformer": (Transformer, tokens(3)),
    "residual": (lambda: models.resnet20(2, seed=0), [gaussian(3, 2, 8, 8, seed=s) for s in range(2)]),
    "convolutions": (convolutions, [gaussian(n, 4, 8, 8, seed=n) for n in (5, 9)]),
    "singular": (lambda: nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 10)), [gaussian(30, 20)]),
    "what runs twice": (Twice, [gaussian(n, 3, 6, seed=n) for n in (4, 8)]),
    "what is changed": (Cache, [gaussian(n, 5, seed=n) for n in (20, 30)]),
    "what is routed": (Routed, [gaussian(20, 5).abs(), -gaussian(30, 5, seed=1).abs(), gaussian(9, 5, seed=2).abs()]),
}


def call(model: nn.Module, batch: Any) -> Any:
    return model(**batch) if isinstance(batch, dict) else model(batch)


def one_forward_each(model: nn.Module, batches: Batches, sparsity: float, method: Any) -> nn.Module:
    """A whole forward of all batches for each layer: what must come out."""
    model = copy.deepcopy(model).eval()
    owners = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    layers: dict[int, nn.Module] = {}
    for owner in owners:
        layers.setdefault(id(owner.weight), owner)

    def inputs() -> list[tuple[nn.Module, Tensor]]:
        seen: list[tuple[nn.Module, Tensor]] = []
        handles = [m.register_forward_pre_hook(lambda m, given: seen.append((m, given[0].clone()))) for m in owners]
        for batch in batches:
            call(model, batch)
        for handle in handles:
            handle.remove()
        return seen

    with torch.no_grad():
        for layer in layers.values():  # here they run in the order in which they are registered
            given = [x for module, x in inputs() if module.weight is layer.weight]
            if isinstance(layer, nn.Conv2d):
                assert layer.padding != "same" or layer.dilation == (2, 2)
                padding = 2 if layer.padding == "same" else layer.padding
                given = [F.unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride).mT for x in given]
            rows = torch.cat([x.flatten(0, -2) for x in given])
            groups = getattr(layer, "groups", 1)
            parts = zip(layer.weight.flatten(1).chunk(groups), rows.chunk(groups, 1), strict=True)
            new = torch.cat([prune_layer(weight, x, sparsity, method)[0] for weight, x in parts])
            layer.weight.copy_(new.view_as(layer.weight))
    return model


@pytest.mark.filterwarnings("ignore::prunelab.curvature.DampingWarning")
@pytest.mark.parametrize(
    ("case", "method"),
    [
        *((case, method) for case in CASES for method in ("sparsegpt", "wanda")),
        ("transformer", "obs"),
        ("singular", "obs"),
    ],
)
def test_each_layer_reads_what_the_pruned_layers_before_it_put_out(case: str, method: Any) -> None:
    make, batches = CASES[case]
    model = make().double()
    sparsity = 1 / 3 if case == "convolutions" else 0.5  # a whole number in each group, which are pruned apart here
    result = prune_layerwise(model, batches, sparsity, method, dtype=torch.float64)
    expected = one_forward_each(model, batches, sparsity, method).state_dict()
    for name, values in result.model.state_dict().items():
        torch.testing.assert_close(values, expected[name], rtol=1e-7, atol=1e-9)
    for name, mask in result.masks.items():
        assert not result.model.get_parameter(name)[~mask].any()
    assert {layer.name for layer in result.layers} == set(result.masks)


def test_the_blocks_of_a_transformer_run_a_few_times_and_not_once_for_every_layer() -> None:
    model, runs = Transformer().double(), Counter[str]()
    model.embedding.register_forward_hook(lambda *given: runs.update(["network"]))
    for number, block in enumerate(model.blocks):
        block.norm.register_forward_hook(lambda *given, name=f"half of {number}": runs.update([name]))
    result = prune_layerwise(model, tokens(1), 0.5, "wanda")
    assert len(result.layers) == 3 * 6 + 2
    # The network: to look, and for the inputs of three blocks and two heads. The first half of a block: to look, for
    # what the two layers behind it read, and once it is pruned; the norm is behind attention.
    assert runs == {"network": 1 + 3 + 2, "half of 0": 4, "half of 1": 4, "half of 2": 4}


def test_the_statistics_of_one_layer_are_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[InputCovariance] = weakref.WeakSet()
    most = 0

    class Counted(InputCovariance):
        def __init__(self, *args: Any) -> None:
            nonlocal most
            super().__init__(*args)
            alive.add(self)
            most = max(most, len(alive))

    monkeypatch.setattr(walk, "InputCovariance", Counted)
    result = prune_layerwise(Transformer().double(), tokens(2), 0.5)
    assert len(result.layers) == 20
    assert most == 1


@pytest.mark.parametrize("layer", [
    nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.Conv1d(2, 4, 3, stride=2, padding=2, padding_mode="reflect"),
    nn.Conv3d(1, 2, 2, dilation=(1, 2, 1), padding=1), nn.Conv2d(4, 4, (1, 3), padding="same", groups=2), nn.Conv2d(2, 2, 1, stride=2),
], ids=str)  # fmt: skip
def test_patches_are_what_a_convolution_multiplies(layer: Any) -> None:
    """The recorded error is that of the outputs, whatever the geometry."""
    layer = copy.deepcopy(layer).double()
    x = gaussian(3, layer.in_channels, *[5 + axis for axis in range(len(layer.kernel_size))])
    for single in (x, x[0]):
        result = prune_layerwise(layer, [single], 0.5, "magnitude", dtype=torch.float64)
        bias = layer.bias.detach().view(-1, *[1] * len(layer.kernel_size))
        whole, lost = layer(single) - bias, layer(single) - result.model(single)
        expected = float(lost.detach().square().sum() / whole.detach().square().sum())
        assert result.layers[0].error == pytest.approx(expected, rel=1e-9)
        assert result.layers[0].samples == layer(single).numel() // layer.out_channels


def test_the_output_projection_of_torchs_own_attention() -> None:
    """It is never called: its weight is read by its layer."""
    torch.manual_seed(0)
    one = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.3).double()
    model = nn.TransformerEncoder(one, 2, enable_nested_tensor=False)
    batches = [gaussian(4, n, 8, seed=n) for n in (5, 7)]
    result = prune_layerwise(model, batches, 0.5, dtype=torch.float64)
    assert [layer.name.removeprefix("layers.0.") for layer in result.layers[:3]] == [
        "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"
    ]  # fmt: skip
    attention, read = model.layers[0].self_attn, []
    for x in batches:
        q, k, v = (
            part.unflatten(-1, (2, 4)).transpose(1, 2)
            for part in F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
        )
        read.append(((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).flatten(2).flatten(0, 1))
    new, mask = prune_layer(attention.out_proj.weight, torch.cat(read), 0.5, "sparsegpt")
    name = "layers.0.self_attn.out_proj.weight"
    assert torch.equal(result.masks[name], mask)
    torch.testing.assert_close(result.model.get_parameter(name).detach(), new)
    torch.testing.assert_close(result.model.layers[0].self_attn.in_proj_weight, attention.in_proj_weight)


# --- what is left behind ------------------------------------------------------------------------------------------------


def test_the_model_stays_as_it_was_and_so_does_what_is_not_pruned_of_the_copy() -> None:
    model = convolutions().train()
    model.register_forward_pre_hook(lambda module, given: None)
    model[0].weight.requires_grad_(False)
    before, batch = copy.deepcopy(model.state_dict()), torch.randn(6, 4, 8, 8)
    state = torch.random.get_rng_state()
    result = prune_layerwise(model, [batch], 0.4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for original, module in zip(model.modules(), result.model.modules(), strict=True):
        assert module.training
        assert len(module._forward_pre_hooks) == len(original._forward_pre_hooks)
        assert not module._forward_hooks
        assert "forward" not in module.__dict__
    assert [p.requires_grad for p in result.model.parameters()] == [p.requires_grad for p in model.parameters()]
    for name, value in result.model.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in result.masks)


def test_the_result_says_what_became_of_each_layer() -> None:
    model, x = models.lenet_300_100(20, seed=0), gaussian(400, 20).float()
    result = prune_layerwise(model, [x[:100], x[100:]], 0.7, dtype=torch.float64)
    assert list(result.masks) == [layer.name for layer in result.layers] == ["fc1.weight", "fc2.weight", "fc3.weight"]
    for layer in result.layers:
        old, new = model.get_parameter(layer.name), result.model.get_parameter(layer.name)
        assert layer.shape == tuple(old.shape)
        assert layer.sparsity == pytest.approx(0.7, abs=1e-4)
        assert (layer.samples, layer.damping) == (400, 0.01)
        assert result.errors[layer.name] == layer.error
        if layer.name == "fc1.weight":
            assert layer.error == pytest.approx(reconstruction_error(old, new, x), rel=1e-6)
    assert isinstance(result.masks, Masks)
    assert "LayerwiseResult(3 layers, sparsity 0.7000, largest relative error" in repr(result)
    copied = copy.deepcopy(result.model)
    result.masks.apply_(copied)
    assert all(torch.equal(a, b) for a, b in zip(copied.parameters(), result.model.parameters(), strict=True))


def test_a_hook_that_stood_in_for_forward_is_there_again() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    plain = nn.Linear.forward
    model[0].forward = lambda x: 2 * plain(model[0], x)
    result = prune_layerwise(model, [torch.randn(9, 4)], 0.5)
    assert result.model[0].forward is model[0].forward


# --- what goes in -------------------------------------------------------------------------------------------------------


def test_batches_of_every_kind() -> None:
    model, x = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), gaussian(40, 6).float()
    expected = prune_layerwise(model, [x[:20], x[20:]], 0.5).masks
    labels = torch.zeros(40)
    for batches in (
        [(x[:20], labels[:20]), (x[20:], None)],
        (part for part in x.split(20)),
        DataLoader(TensorDataset(x), 20),
        DataLoader(TensorDataset(x, labels), 20),
        [{"input": x[:20]}, ((x[20:],), labels)],
    ):
        assert prune_layerwise(model, batches, 0.5).masks == expected


def test_parameters_and_exclude_choose_the_layers() -> None:
    model, x = models.lenet_300_100(20, seed=0), [gaussian(50, 20).float()]
    assert list(prune_layerwise(model, x, 0.5, exclude="fc1.*").masks) == ["fc2.weight", "fc3.weight"]
    assert list(prune_layerwise(model, x, 0.5, parameters=["fc[13].weight"]).masks) == ["fc1.weight", "fc3.weight"]


@pytest.mark.parametrize("method", ["obs", "sparsegpt", "wanda", "magnitude"])
def test_patterns_refits_and_exact_counts(method: Any) -> None:
    model, x = convolutions(), [gaussian(20, 4, 8, 8).float()]
    for options in ({"pattern": (2, 4)}, {"sparsity": 0.37}, {"sparsity": 0.37, "refit": True}):
        result = prune_layerwise(model, x, method=method, damping=0.01, **options)
        for name, mask in result.masks.items():
            rows = mask.flatten(1)
            if "pattern" in options:
                assert all((group.sum(1) == min(2, group.shape[1])).all() for group in rows.split(4, dim=1))
            elif method in ("sparsegpt", "magnitude"):
                assert int((~mask).sum()) == round(0.37 * mask.numel())
            else:
                assert (~rows).sum(1).tolist() == [round(0.37 * rows.shape[1])] * len(rows)
            assert torch.equal(result.model.get_parameter(name) != 0, mask)


def test_layers_that_read_the_same_only_in_some_batches_or_what_changes_in_between_are_apart() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)])

        def forward(self, x: Tensor) -> Tensor:
            first = self.layers[0](x)
            if x.shape[0] > 20:
                return first
            y = first + self.layers[1](x)
            x += 1
            return y + self.layers[2](x)

    model, x = Pair().double(), [gaussian(20, 4), gaussian(30, 4, seed=1)]
    result = prune_layerwise(model, x, 0.5, dtype=torch.float64)
    assert [layer.samples for layer in result.layers] == [50, 20, 20]
    for name, read in (("layers.0.weight", torch.cat(x)), ("layers.1.weight", x[0]), ("layers.2.weight", x[0] + 1)):
        assert torch.equal(result.masks[name], prune_layer(model.get_parameter(name), read, 0.5, "sparsegpt")[1])


def test_in_inference_mode() -> None:
    model, x = Transformer().double(), tokens(2)
    expected = prune_layerwise(model, x, 0.5)
    with torch.inference_mode():
        assert prune_layerwise(model, x, 0.5).masks == expected.masks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_networks(dtype: torch.dtype, device: torch.device) -> None:
    model, x = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4)), gaussian(200, 16).float()
    result = prune_layerwise(model.to(device, dtype), [x.to(dtype)], 0.5)
    assert all(p.dtype == dtype and p.device.type == device.type for p in result.model.parameters())
    assert result.masks.sparsity == 0.5
    assert max(result.errors.values()) < 0.5


def test_half_of_a_layer_may_see_no_samples_of_a_batch() -> None:
    """Two experts: each batch goes to one of them."""

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts, self.head = nn.ModuleList(nn.Linear(4, 4) for _ in range(2)), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.experts[int(x[0, 0] > 0)](x))

    x = [gaussian(30, 4).float().abs(), -gaussian(20, 4, seed=1).float().abs()]
    result = prune_layerwise(Experts(), x, 0.5)
    samples = {layer.name: layer.samples for layer in result.layers}
    assert samples == {"experts.1.weight": 30, "experts.0.weight": 20, "head.weight": 50}
    assert list(samples)[-1] == "head.weight"  # both experts run before it
    with pytest.raises(ValueError, match=r"the layers of 'experts.0.weight' did not run with these batches.*exclude="):
        prune_layerwise(Experts(), x[:1], 0.5)


def test_singular_covariances_are_named() -> None:
    model = models.lenet_300_100(20, seed=0)
    with pytest.warns(DampingWarning, match=r"the inputs of fc2.weight, fc3.weight depend on each other") as caught:
        result = prune_layerwise(model, [gaussian(50, 20).float()], 0.5, "sparsegpt", damping=0)
    assert caught[0].filename == __file__
    assert [layer.damping > 0 for layer in result.layers] == [False, True, True]


def not_a_number() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[1].weight.data[0, 0] = torch.nan
    return model


@pytest.mark.parametrize(
    ("model", "batches", "options", "error", "message"),
    [
        (nn.Linear(3, 2), torch.ones(4, 3), {}, TypeError, r"batches must be a list or loader.* one is \[inputs\]"),
        (nn.Linear(3, 2), {"input": torch.ones(4, 3)}, {}, TypeError, r"batches must be a list or loader"),
        (nn.Linear(3, 2), [], {}, ValueError, r"batches is empty: give at least one"),
        (nn.Linear(3, 2), [(1, 2, 3)], {}, TypeError, r"a batch is its inputs or a pair .*not 3 things"),
        (nn.Linear(3, 2), [torch.ones(0, 3)], {}, ValueError, r"'weight': .*holds? no sample|no inputs were added"),
        (nn.Linear(3, 2), [torch.ones(4, 3)], {"sparsity": 2}, ValueError, r"sparsity must lie between 0 and 1"),
        (nn.Linear(3, 2), [torch.ones(4, 3)], {"sparsity": None}, TypeError, r"give the fraction to remove"),
        (nn.Linear(3, 2), [torch.tensor([[1.0, torch.nan, 0]])], {}, ValueError, r"'weight': the inputs have 1 values"),
        (nn.Linear(3, 2), [torch.ones(4, 3)], {"dtype": torch.half}, ValueError, r"dtype must be torch.float64 or"),
        (not_a_number(), [torch.ones(4, 3)], {}, ValueError, r"'1.weight' has 1 values among its 6 that are NaN"),
        (nn.ConvTranspose1d(2, 2, 3), [torch.ones(1, 2, 5)], {}, ValueError, r"transposed convolution.*exclude=\['weight'\]"),
        (nn.MultiheadAttention(4, 2), [((torch.ones(3, 1, 4),) * 3, None)], {"parameters": ["in_proj_weight"]}, ValueError,
         r"'in_proj_weight' belongs to no Linear or convolution module"),
        (nn.Linear(3, 2), [torch.ones(4, 3)], {"parameters": ["nothing"]}, ValueError, r"unknown parameter 'nothing'"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(
    model: nn.Module, batches: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        prune_layerwise(model, batches, **{"sparsity": 0.5, **options})
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)


def test_an_error_of_the_model_comes_through_and_nothing_is_left_of_the_walk() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.calls = nn.Linear(3, 3), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("out of paper")
            return self.fc(x)

    with pytest.raises(RuntimeError, match="out of paper"):
        prune_layerwise(Late(), [torch.ones(4, 3)], 0.5)
