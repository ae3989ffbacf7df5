"""Activations against the layers' own inputs and outputs, computed by hand; gradients stand in tests/test_pruner.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import prunelab
from prunelab.criteria import Activations, Criterion
from prunelab.granularity import Filter


class Watching(Criterion):
    """Remembers what it is given; scores a filter by the variance of what it puts out."""

    needs = frozenset({"data"})

    def __init__(self) -> None:
        self.seen: list[Activations] = []

    def score(self, weights, gradients, statistics):
        assert gradients is None
        self.seen.append(statistics)
        return statistics.outputs.var(0, correction=0)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(64, 3))


def examples(device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(10, 2, 6, 6, generator=generator).to(device), torch.arange(10).to(device)


@pytest.mark.parametrize("sizes", [[10], [4, 4, 2]])
def test_channel_means_of_every_example_in_the_order_of_the_data(sizes: list[int], device: torch.device) -> None:
    model = network().to(device).train()
    model[0].weight.requires_grad_(False)
    x, y = examples(device)
    criterion = Watching()
    data = list(zip(x.split(sizes), y.split(sizes), strict=True))
    scores = prunelab.score(model, criterion, Filter(), data=data)

    convolution, linear = criterion.seen
    model.eval()
    with torch.no_grad():
        after = model[0](x)
        torch.testing.assert_close(convolution.inputs, x.mean((2, 3)))
        torch.testing.assert_close(convolution.outputs, after.mean((2, 3)))
        torch.testing.assert_close(linear.inputs, model[1:4](after))
        torch.testing.assert_close(linear.outputs, model(x))
    assert convolution.targets.tolist() == linear.targets.tolist() == list(range(10))
    torch.testing.assert_close(scores["0.weight"], convolution.outputs.var(0, correction=0))
    assert not any(module._forward_hooks for module in model.modules())


def test_sequences_repeated_calls_and_single_examples() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.line = nn.Linear(3, 2), nn.Conv1d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.tokens(x)  # (N, T, 2)
            return self.line(self.line(x.transpose(-1, -2)))

    model, x = Twice(), torch.randn(4, 5, 3)
    criterion = Watching()
    prunelab.score(model, criterion, Filter(), data=[(x, torch.zeros(4))])
    tokens, line = criterion.seen
    with torch.no_grad():
        first = model.tokens(x).transpose(1, 2)
        second = model.line(first)
        torch.testing.assert_close(tokens.inputs, x.mean(1))
        torch.testing.assert_close(line.inputs, (first.mean(2) + second.mean(2)) / 2)
        torch.testing.assert_close(line.outputs, (second.mean(2) + model.line(second).mean(2)) / 2)
    alone = Watching()
    prunelab.score(nn.Sequential(nn.Conv2d(2, 4, 3)), alone, Filter(), data=[(torch.ones(2, 6, 6), torch.zeros(1))])
    assert alone.seen[0].inputs.tolist() == [[1.0, 1.0]]


def test_a_criterion_may_need_everything_at_once() -> None:
    class Everything(Criterion):
        needs = frozenset({"weights", "gradients", "data"})

        def score(self, weights, gradients, statistics):
            assert gradients.shape == weights.shape
            return (weights * gradients).sum(1).abs() * statistics.outputs.abs().mean(0)

    x, y = examples(torch.device("cpu"))
    masks = prunelab.prune(
        network(), 0.5, criterion=Everything(), granularity=Filter(), scope="local", data=[(x, y % 3)],
        loss=nn.functional.cross_entropy,
    )  # fmt: skip
    assert masks["0.bias"].sum() == 2


def test_rows_that_are_no_examples_are_refused() -> None:
    class Flattened(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x.reshape(-1, 4)).reshape(*x.shape[:2], 2)

    with pytest.raises(ValueError, match=r"'a.weight' saw 10 rows where the batch has 2 examples.*exclude="):
        prunelab.score(Flattened(), Watching(), Filter(), data=[(torch.ones(2, 5, 4), torch.zeros(2))])


def test_inputs_by_name_and_targets_of_several_shapes() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(input=x)

    criterion = Watching()
    batches = [(torch.ones(2, 4), torch.zeros(2, 3)), (torch.ones(2, 4), torch.zeros(2, 5))]
    prunelab.score(Named(), criterion, Filter(), data=batches)
    assert criterion.seen[0].inputs.shape == (4, 4)
    assert [tuple(target.shape) for target in criterion.seen[0].targets] == [(2, 3), (2, 5)]
    attention = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    with pytest.raises(ValueError, match=r"'self_attn.out_proj.weight' did not run in every forward.*exclude="):
        prunelab.score(attention, Watching(), Filter(), data=[(torch.ones(2, 3, 4), torch.zeros(2))])


def test_what_cannot_be_watched_is_said_and_hooks_go_even_when_the_model_raises() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) if float(x.sum()) > 0 else self.b(self.a(x))

    model = Sometimes()
    batches = [(torch.ones(1, 2), torch.zeros(1)), (-torch.ones(1, 2), torch.zeros(1))]
    with pytest.raises(ValueError, match=r"'b.weight' did not run in every forward"):
        prunelab.score(model, Watching(), Filter(), data=batches)
    with pytest.raises(RuntimeError):
        prunelab.score(model, Watching(), Filter(), data=[(torch.ones(1, 3), torch.zeros(1))])
    assert not any(module._forward_hooks for module in model.modules())
    embedding = nn.Sequential(nn.Embedding(3, 2))
    with pytest.raises(ValueError, match=r"'0.weight' belongs to no Linear or convolution"):
        prunelab.score(embedding, Watching(), Filter(), data=batches, parameters=["0.weight"])
    with pytest.raises(ValueError, match="Watching needs data, so it must be given data="):
        prunelab.score(model, Watching(), Filter())
