"""Mutual information as a criterion: what is planted in a network is found, and the score reads data alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import prunelab
from prunelab.criteria import Activations, MutualInformation
from prunelab.criteria.estimators import histogram, quantile
from prunelab.granularity import Channel, Filter, Group, Kernel, Layer, Weight

ESTIMATORS = ["histogram", "quantile", "ksg"]


def examples(count: int = 400) -> tuple[Tensor, Tensor]:
    """Images of 2 channels: the first is brighter the higher the class, the second is noise."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (count,), generator=draw)
    images = torch.randn(count, 2, 6, 6, dtype=torch.float64, generator=draw)
    images[:, 0] += labels[:, None, None]
    return images, labels


def network() -> nn.Sequential:
    """Filters 1 and 4 read the channel that knows the class, 0 and 2 the noise; 3 is dead behind its ReLU."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 5), nn.ReLU(), nn.Linear(5, 4)
    ).double()
    with torch.no_grad():
        model[0].weight.abs_()
        model[0].weight[[1, 4], 1] = 0
        model[0].weight[[0, 2], 0] = 0
        model[0].bias[3] = -1e3
    return model


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_planted_channels_are_found_and_a_dead_one_knows_nothing(estimator: str, device: torch.device) -> None:
    model, (x, y) = network().to(device), examples()
    options = {"criterion": MutualInformation(estimator), "granularity": Filter(), "data": [(x, y)]}
    scores = prunelab.score(model, parameters=["0.weight"], **options)["0.weight"]
    assert scores[3] == 0
    assert scores[[1, 4]].min() > 0.8
    assert scores[[0, 2]].max() < 0.1
    masks = prunelab.prune(model, 0.6, parameters=["0.weight"], **options)
    assert masks["0.bias"].tolist() == [False, True, False, False, True]
    inputs = prunelab.score(model, parameters=["0.weight"], **{**options, "granularity": Channel()})["0.weight"]
    assert inputs[0] > 0.8 > 0.1 > inputs[1]


@pytest.mark.parametrize("of", ["labels", "next"])
def test_batch_sizes_do_not_matter(of: str) -> None:
    model, (x, y) = network(), examples()
    criterion = MutualInformation(of=of)
    whole = prunelab.score(model, criterion, Filter(), data=[(x, y)])
    parts = prunelab.score(model, criterion, Filter(), data=list(zip(x.split(150), y.split(150), strict=True)))
    for name, scores in whole.items():
        torch.testing.assert_close(parts[name], scores)


def test_the_activation_is_what_follows_the_layer() -> None:
    model, (x, y) = network(), examples()
    scores = prunelab.score(model, MutualInformation("quantile", bins=7), Filter(), data=[(x, y)])
    with torch.no_grad():
        carried = model[:2](x).mean((2, 3))
        logits = model(x)
    torch.testing.assert_close(scores["0.weight"], quantile(carried, y, 7))
    torch.testing.assert_close(scores["5.weight"], quantile(logits, y, 7))
    assert not torch.allclose(scores["0.weight"], quantile(model[0](x).detach().mean((2, 3)), y, 7))


def test_next_is_the_mean_over_the_channels_that_read_the_unit() -> None:
    model, (x, y) = network(), examples()
    with torch.no_grad():
        first, hidden, logits = model[:2](x), model[:5](x), model(x)
    scores = prunelab.score(model, MutualInformation(of="next"), Filter(), data=[(x, y)])
    torch.testing.assert_close(scores["0.weight"], histogram(first.mean((2, 3)), hidden).mean(1))
    torch.testing.assert_close(scores["3.weight"], histogram(hidden, logits).mean(1))
    torch.testing.assert_close(scores["5.weight"], histogram(logits, y))  # the last layer: the labels
    scores = prunelab.score(model, MutualInformation(of="next"), Channel(), data=[(x, y)])
    torch.testing.assert_close(scores["0.weight"], histogram(x.mean((2, 3)), first.mean((2, 3))).mean(1))
    torch.testing.assert_close(scores["3.weight"], histogram(first.flatten(1), hidden).mean(1))
    torch.testing.assert_close(scores["5.weight"], histogram(hidden, logits).mean(1))


def test_inputs_and_outputs_of_a_square_layer_are_told_apart() -> None:
    layer = nn.Linear(3, 3).double()
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[2, 0] = 1.0
    x = torch.randn(300, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    data = [(x, (x[:, 0] > 0).long())]
    assert prunelab.score(layer, MutualInformation(), Channel(), data=data)["weight"].argmax() == 0
    assert prunelab.score(layer, MutualInformation(), Filter(), data=data)["weight"].argmax() == 2


def statistics(targets: object) -> Activations:
    draw = torch.Generator().manual_seed(0)
    inputs, outputs = torch.randn(60, 2, generator=draw), torch.randn(60, 3, generator=draw)
    return Activations(inputs=inputs, outputs=torch.full((60, 3), torch.nan), activated=outputs, targets=targets)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_pure_score_reads_neither_weights_nor_gradients(estimator: str) -> None:
    y = torch.arange(60) % 3
    nothing = torch.full((3, 4), torch.nan)
    score = MutualInformation(estimator).score
    found = score(torch.ones(3, 4), None, statistics(y))
    assert torch.equal(score(nothing, nothing, statistics(y)), found)
    assert not torch.equal(score(nothing, None, statistics(y // 2)), found)
    assert len(score(torch.ones(2, 4), None, statistics(y))) == 2  # as many units as inputs: those are scored


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_way_to_write_a_label(estimator: str) -> None:
    def score(targets: Tensor) -> Tensor:
        return MutualInformation(estimator).score(torch.ones(3, 1), None, statistics(targets))

    y = torch.arange(60) % 3
    classes = score(y)
    one_hot = nn.functional.one_hot(y, 3)
    for same in (y[:, None], y.double(), y.int() * 1000 - 7, one_hot, one_hot.float(), one_hot.bool()):
        torch.testing.assert_close(score(same), classes)
    wave = torch.linspace(0, 7, 60).sin()
    torch.testing.assert_close(score(wave[:, None]), score(wave))
    torch.testing.assert_close(score(torch.stack([wave, y.float()], 1)), (score(wave) + classes) / 2)
    several = one_hot.clone()
    several[0] = 1  # one row with several labels: no classes, three questions
    torch.testing.assert_close(score(several), torch.stack([score(column) for column in several.T]).mean(0))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([torch.zeros(30, 2), torch.zeros(30, 3)], r"could be joined \(list of 2\): data= must yield"),
        (torch.zeros(60, 4, 4), r"not torch.float32 of shape \(60, 4, 4\)"),
        (torch.zeros(59), r"for the 60 examples"),
        (torch.zeros(60, dtype=torch.complex64), "real numbers"),
        (torch.full((60,), torch.nan), "the targets hold NaN"),
    ],
)
def test_labels_that_are_none_are_refused(targets: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MutualInformation().score(torch.ones(3, 1), None, statistics(targets))


def test_diverged_activations_are_refused_and_the_model_stays() -> None:
    model, (x, y) = network(), examples(50)
    with torch.no_grad():
        model[0].bias[0] = torch.nan
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"'0\.weight': the activations hold NaN or infinity"):
        prunelab.prune(model, 0.5, criterion=MutualInformation(), granularity=Filter(), data=[(x, y)])
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("granularity", [Weight(), Kernel(), Group(1, 2), Layer()])
def test_units_without_an_activation_are_refused(granularity) -> None:
    with pytest.raises(ValueError, match=r"MutualInformation has no meaning.*Filter.*Channel"):
        prunelab.score(network(), MutualInformation(), granularity, data=[examples(20)])


def test_it_is_refused_without_data_and_other_data_change_it() -> None:
    with pytest.raises(ValueError, match="MutualInformation needs data, so it must be given data="):
        prunelab.score(network(), MutualInformation(), Filter())
    x, y = examples()
    one = prunelab.score(network(), MutualInformation(), Filter(), data=[(x, y)])["0.weight"]
    other = prunelab.score(network(), MutualInformation(), Filter(), data=[(x, y.flip(0))])["0.weight"]
    assert one[1] > 0.8 > 0.1 > other[1]


def test_one_bit_of_knowledge_is_ln_2() -> None:
    layer = nn.Linear(1, 1, bias=False)
    x = torch.tensor([[-1.0], [1.0]] * 200)
    for estimator in ("histogram", "quantile"):
        scores = prunelab.score(layer, MutualInformation(estimator), Filter(), data=[(x, x[:, 0] > 0)])
        assert float(scores["weight"]) == pytest.approx(math.log(2), abs=2e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"estimator": "kde"}, "estimator='kde'.*'histogram', 'quantile', 'ksg'"),
        ({"of": "previous"}, "of='previous'.*'labels', 'next'"),
        ({"bins": 1}, "bins=1.*at least 2"),
        ({"bins": True}, "bins=True"),
        ({"estimator": "ksg", "bins": 5}, "no bins"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MutualInformation(**arguments)


def test_the_largest_value_in_place_of_the_mean() -> None:
    """A feature that is somewhere in the image: its place differs, and noise around it hides it in the mean."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (400,), generator=generator)
    images = torch.rand(400, 2, 8, 8, generator=generator)
    place = torch.randint(64, (400,), generator=generator)
    images[:, 0].view(400, 64)[torch.arange(400), place] += 1.0 * labels
    layer = nn.Conv2d(2, 2, 1, bias=False)
    layer.weight.data = torch.eye(2)[..., None, None].clone()
    mean, largest = (
        prunelab.score(layer, MutualInformation(pool=pool), Filter(), data=[(images, labels)])["weight"]
        for pool in ("mean", "max")
    )
    assert largest[0] > 0.5 > 2 * mean[0]
    assert largest[1] < 0.1
    with pytest.raises(ValueError, match=r"MutualInformation\(pool='sum'\): use one of 'mean', 'max'"):
        MutualInformation(pool="sum")
