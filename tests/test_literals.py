"""Tables of numbers worked out by hand: every criterion at every granularity at which it has a meaning.

Two tiny networks carry most of them. Their weights, gradients, curvatures and inputs are typed in here, and so are the
scores; comments say how they come about. Only roots and logarithms were taken from a calculator.

A convolution of two filters that read two channels with kernels (1, 2), followed by a neuron with weights 2 and -3:

    weights        filter 0: ( 1  -2 | 3  0)    filter 1: (-1  1 | 0  5)
    gradients      filter 0: ( 2   1 |-1  5)    filter 1: ( 1  1 | 3 -2)
    weight x gradient        ( 2  -2 |-3  0)              (-1  1 | 0 -10)
    curvature      filter 0: ( 1   1 | 0  2)    filter 1: ( 2  0 | 1  1)

Two heads of one row each, head 0 and head 1 in the rows of q, k, v, and in the columns of out:

    weights        q  1  0     k  0  1     v -1  2     out  1  0
                      2 -1        1  1        0  3          2 -2
    gradients      q  1  1     k  2 -1     v  1  1     out  1  1
                      0  2        1  1        1 -1         -2  1
    curvature      q  2        k  0        v  1        out  1       (the same for all weights of a projection)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import prunelab
from prunelab import criteria, scope
from prunelab.criteria import Criterion, Magnitude, Taylor
from prunelab.criteria.table import Row
from prunelab.granularity import Channel, Filter, Granularity, Group, Head, Kernel, Layer, Weight

WEIGHTS = {
    "0.weight": torch.tensor([[[[1.0, -2.0]], [[3.0, 0.0]]], [[[-1.0, 1.0]], [[0.0, 5.0]]]]),
    "q_proj.weight": torch.tensor([[1.0, 0.0], [2.0, -1.0]]),
    "k_proj.weight": torch.tensor([[0.0, 1.0], [1.0, 1.0]]),
    "v_proj.weight": torch.tensor([[-1.0, 2.0], [0.0, 3.0]]),
    "out_proj.weight": torch.tensor([[1.0, 0.0], [2.0, -2.0]]),
}
GRADIENTS = {
    "0.weight": torch.tensor([[[[2.0, 1.0]], [[-1.0, 5.0]]], [[[1.0, 1.0]], [[3.0, -2.0]]]]),
    "q_proj.weight": torch.tensor([[1.0, 1.0], [0.0, 2.0]]),
    "k_proj.weight": torch.tensor([[2.0, -1.0], [1.0, 1.0]]),
    "v_proj.weight": torch.tensor([[1.0, 1.0], [1.0, -1.0]]),
    "out_proj.weight": torch.tensor([[1.0, 1.0], [-2.0, 1.0]]),
}
CURVATURE = {
    "0.weight": torch.tensor([[[[1.0, 1.0]], [[0.0, 2.0]]], [[[2.0, 0.0]], [[1.0, 1.0]]]]),
    "q_proj.weight": torch.full((2, 2), 2.0),
    "k_proj.weight": torch.zeros(2, 2),
    "v_proj.weight": torch.ones(2, 2),
    "out_proj.weight": torch.ones(2, 2),
}
# Of two examples: channel 0 carries (3 1) and (4 0), channel 1 (2 0) and (0 2). Lengths over both: (5 1) and (2 2).
IMAGES = torch.tensor([[[[3.0, 1.0]], [[2.0, 0.0]]], [[[4.0, 0.0]], [[0.0, 2.0]]]])
VECTOR = torch.tensor([[1.0, 2.0]])


class Heads(nn.Module):
    """Projections as attention has them; that they are only added keeps the numbers small."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(2, 2, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(self.q_proj(x) + self.k_proj(x) + self.v_proj(x))


def network(granularity: Granularity, device: torch.device) -> nn.Module:
    model: nn.Module = Heads()
    if not isinstance(granularity, Head):
        model = nn.Sequential(nn.Conv2d(2, 2, (1, 2), bias=False), nn.Flatten(), nn.Linear(2, 1, bias=False))
        model[2].weight.data = torch.tensor([[2.0, -3.0]])
    for name, parameter in model.named_parameters():
        if name in WEIGHTS:
            parameter.data = WEIGHTS[name].clone()
    return model.to(device)


def loss_of(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss that has the gradients and the curvature of the tables, where the weights are those of the tables."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        terms = []
        for name, parameter in model.named_parameters():
            if name in WEIGHTS:
                here, slope, curvature = (table[name].to(parameter.device) for table in (WEIGHTS, GRADIENTS, CURVATURE))
                terms.append((slope * (parameter - here) + curvature * (parameter - here).square() / 2).sum())
        return torch.stack(terms).sum()

    return loss


def watched(model: nn.Module) -> Criterion:
    """Two steps that move nothing: one with the gradients of the table, one in which all gradients are 1."""
    movement, optimizer = criteria.Movement(), torch.optim.SGD(model.parameters(), lr=0.0)
    with movement.watch(model, optimizer):
        for name, parameter in model.named_parameters():
            parameter.grad = GRADIENTS[name].to(parameter.device, copy=True) if name in GRADIENTS else None
        optimizer.step()
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    return movement


def example_inputs(model: nn.Module) -> Tensor:
    return VECTOR if isinstance(model, Heads) else IMAGES


W, G, K, F, C, L, H = Weight(), Group(1, 3), Kernel(), Filter(), Channel(), Layer(), Head(2)
EVERY = (W, G, K, F, C, L, H)
Table = dict[Granularity, list[float]]

# A group (1, 3) takes three weights of a filter, and one that is left over.
OF_THE_TWO_NETWORKS: dict[str, tuple[Callable[[nn.Module], Criterion], Table]] = {
    # The absolute values of the weights, added up.
    "Magnitude": (
        lambda model: Magnitude(),
        {W: [1, 2, 3, 0, 1, 1, 0, 5], G: [6, 0, 2, 5], K: [3, 3, 2, 5], F: [6, 7], C: [5, 8], L: [13], H: [8, 10]},
    ),
    # The roots of 14, 0, 2, 25; 5, 9, 2, 25; 14, 27; 7, 34; 41; 12, 20.
    "Magnitude p=2": (
        lambda model: Magnitude(p=2),
        {
            W: [1, 2, 3, 0, 1, 1, 0, 5],
            G: [3.741657, 0, 1.414214, 5],
            K: [2.236068, 3, 1.414214, 5],
            F: [3.741657, 5.196152],
            C: [2.645751, 5.830952],
            L: [6.403124],
            H: [3.464102, 4.472136],
        },
    ),
    "Magnitude p=inf": (
        lambda model: Magnitude(p=math.inf),
        {W: [1, 2, 3, 0, 1, 1, 0, 5], G: [3, 0, 1, 5], K: [2, 3, 1, 5], F: [3, 5], C: [2, 5], L: [5], H: [2, 3]},
    ),
    # The left over group has one weight, not three.
    "Magnitude mean": (
        lambda model: Magnitude(reduction="mean"),
        {
            W: [1, 2, 3, 0, 1, 1, 0, 5],
            G: [2, 0, 0.6666667, 5],
            K: [1.5, 1.5, 1, 2.5],
            F: [1.5, 1.75],
            C: [1.25, 2],
            L: [1.625],
            H: [1, 1.25],
        },
    ),
    # The roots of 14/3, 0, 2/3, 25; 5/2, 9/2, 1, 25/2; 7/2, 27/4; 7/4, 17/2; 41/8; 12/8, 20/8.
    "Magnitude p=2 mean": (
        lambda model: Magnitude(2, reduction="mean"),
        {
            W: [1, 2, 3, 0, 1, 1, 0, 5],
            G: [2.160247, 0, 0.8164966, 5],
            K: [1.581139, 2.121320, 1, 3.535534],
            F: [1.870829, 2.598076],
            C: [1.322876, 2.915476],
            L: [2.263846],
            H: [1.224745, 1.581139],
        },
    ),
    # Divided by the layer's length: 5, 8 by the root of 89, 6, 7 by that of 85.
    "Magnitude layer": (
        lambda model: Magnitude(normalize="layer"),
        {C: [0.5299989, 0.8479983], L: [1], F: [0.6507914, 0.7592566]},
    ),
    # Squares as a share of what is left. Filters: 36 of 85. Kernels, in the order 2, 3, 3, 5: 4 of 47, 9 of 43, 9 of 34.
    "Magnitude lamp": (
        lambda model: Magnitude(normalize="lamp"),
        {F: [0.4235294, 1], K: [0.2093023, 0.2647059, 0.0851064, 1], L: [1]},
    ),
    "GradientMagnitude": (
        lambda model: criteria.GradientMagnitude(),
        {W: [2, 1, 1, 5, 1, 1, 3, 2], G: [4, 5, 5, 2], K: [3, 6, 2, 5], F: [9, 7], C: [5, 11], L: [16], H: [10, 8]},
    ),
    # The products of the table are added before their sign is lost.
    "Taylor": (
        lambda model: Taylor(),
        {W: [2, 2, 3, 0, 1, 1, 0, 10], G: [3, 0, 0, 10], K: [0, 3, 0, 10], F: [3, 10], C: [0, 13], L: [13], H: [2, 5]},
    ),
    "Taylor squared": (
        lambda model: Taylor(squared=True),
        {W: [4, 4, 9, 0, 1, 1, 0, 100], G: [9, 0, 0, 100], K: [0, 9, 0, 100], F: [9, 100], C: [0, 169], H: [4, 25]},
    ),
    "Taylor one by one": (
        lambda model: Taylor(joint=False),
        {W: [2, 2, 3, 0, 1, 1, 0, 10], G: [7, 0, 2, 10], K: [4, 3, 2, 10], F: [7, 12], C: [6, 13], L: [19], H: [10, 9]},
    ),
    # -w g + h w² / 2 is (-1.5 4 | 3 0) and (2 -1 | 0 22.5); of the heads 2 + 6 and 5 + 11.5.
    "Taylor order 2": (
        lambda model: Taylor(order=2, curvature=CURVATURE),
        {
            W: [1.5, 4, 3, 0, 2, 1, 0, 22.5],
            G: [5.5, 0, 1, 22.5],
            K: [2.5, 3, 1, 22.5],
            F: [5.5, 23.5],
            C: [3.5, 25.5],
            L: [29],
            H: [8, 16.5],
        },
    ),
    # h w² / 2 is (0.5 2 | 0 0) and (1 0 | 0 12.5); of the heads 1 + 0 + 2.5 + 2.5 and 5 + 0 + 4.5 + 2.
    "OBD": (
        lambda model: criteria.OBD(CURVATURE),
        {
            W: [0.5, 2, 0, 0, 1, 0, 0, 12.5],
            G: [2.5, 0, 1, 12.5],
            K: [2.5, 0, 1, 12.5],
            F: [2.5, 13.5],
            C: [3.5, 12.5],
            L: [16],
            H: [6, 11.5],
        },
    ),
    # The scores of Taylor as shares: of 19, 13, 13, 13, 13, 13 and 7.
    "SNIP": (
        lambda model: criteria.SNIP(),
        {
            W: [0.1052632, 0.1052632, 0.1578947, 0, 0.0526316, 0.0526316, 0, 0.5263158],
            G: [0.2307692, 0, 0, 0.7692308],
            K: [0, 0.2307692, 0, 0.7692308],
            F: [0.2307692, 0.7692308],
            C: [0, 1],
            L: [1],
            H: [0.2857143, 0.7142857],
        },
    ),
    # The Hessian is diagonal, so w (H g) is h w g: (2 -2 | 0 0), (-2 0 | 0 -10); heads 2 + 0 + 1 - 3, -4 + 0 - 3 - 2.
    "GraSP": (
        lambda model: criteria.GraSP(),
        {
            W: [2, -2, 0, 0, -2, 0, 0, -10],
            G: [0, 0, -2, -10],
            K: [0, 0, -2, -10],
            F: [0, -12],
            C: [-2, -10],
            L: [-12],
            H: [0, -9],
        },
    ),
    # |w| times the lengths of the inputs is (5 2 | 6 0) and (5 1 | 0 10). The projections read (1 2) and out (6 9):
    # heads 1 + 2 + 5 + 18 and 4 + 3 + 6 + 18.
    "Wanda": (
        lambda model: criteria.Wanda(),
        {
            W: [5, 2, 6, 0, 5, 1, 0, 10],
            G: [13, 0, 6, 10],
            K: [7, 6, 6, 10],
            F: [13, 16],
            C: [13, 16],
            L: [29],
            H: [26, 31],
        },
    ),
    # What flows through filter 0 comes out twice, through filter 1 three times: (2 4 | 6 0) and (3 3 | 0 15).
    # Heads: rows 1, 1, 3 come out three times, column 3 is met by 5; rows 3, 2, 3 twice, column 2 by 8.
    "SynFlow": (
        lambda model: criteria.SynFlow(example_inputs(model)[:1]),
        {
            W: [2, 4, 6, 0, 3, 3, 0, 15],
            G: [12, 0, 6, 15],
            K: [6, 6, 6, 15],
            F: [12, 21],
            C: [12, 21],
            L: [33],
            H: [30, 32],
        },
    ),
    # -w g - w is (-3 4 | 0 0) and (2 -2 | 0 5); heads 2 - 6 and 5 - 4.
    "Movement": (
        watched,
        {W: [-3, 4, 0, 0, 2, -2, 0, 5], G: [1, 0, 0, 5], K: [1, 0, 0, 5], F: [1, 5], C: [1, 5], L: [6], H: [-4, 1]},
    ),
    # The Mersenne twister seeded with 0: 64-bit words, of which the low 53 bits count. NumPy's gives the same.
    "Random": (
        lambda model: criteria.Random(),
        {
            W: [0.9700530, 0.7078199, 0.4593829, 0.9207477, 0.6450241, 0.7911479, 0.1786062, 0.3511076],
            G: [0.9700530, 0.7078199, 0.4593829, 0.9207477],
            K: [0.9700530, 0.7078199, 0.4593829, 0.9207477],
            F: [0.9700530, 0.7078199],
            C: [0.9700530, 0.7078199],
            L: [0.9700530],
            H: [0.9700530, 0.7078199],
        },
    ),
    # Of two units both are as far from the other, and of a pair the first goes. Heads, in mean and products:
    # 0.75, 0.5, 5 - 8 · 0.75 · 0.5 = 2, over the root of 7.5 · 18. Distance² 22. For the others see the next table.
    "FilterCorrelation": (lambda model: criteria.FilterCorrelation(), {H: [0.8278674, 1]}),
    "GeometricMedian": (lambda model: criteria.GeometricMedian(), {H: [4.6904158, 4.6904158]}),
}


def cases(tables: dict[str, tuple[Callable[..., Criterion], Table]]) -> list:
    return [
        pytest.param(make, granularity, expected, id=f"{name}-{granularity}")
        for name, (make, table) in tables.items()
        for granularity, expected in table.items()
    ]


@pytest.mark.parametrize(("make", "granularity", "expected"), cases(OF_THE_TWO_NETWORKS))
def test_scores_of_the_two_networks(
    make: Callable[[nn.Module], Criterion], granularity: Granularity, expected: list[float], device: torch.device
) -> None:
    model = network(granularity, device)
    data = [(example_inputs(model), torch.zeros(len(example_inputs(model))))]
    names = ["q_proj.weight"] if isinstance(granularity, Head) else ["0.weight"]
    scores = prunelab.score(model, make(model), granularity, data=data, loss=loss_of(model), parameters=names)
    assert scores[names[0]].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-7)


# --- redundancy: units of two weights are all alike, so here a kernel has three ---------------------------------------

# filter 0: (1 2 3 | 1 -2 1), filter 1: (-2 -4 -6 | 1 0 0). A group (1, 4) takes four of six: (1 2 3 1), (-2 1), ...
TRIPLES = torch.tensor([[[[1.0, 2.0, 3.0]], [[1.0, -2.0, 1.0]]], [[[-2.0, -4.0, -6.0]], [[1.0, 0.0, 0.0]]]])

OF_TRIPLES: dict[str, tuple[Callable[[], Criterion], Table]] = {
    # Kernels a, b, c, d: |ab| = |bc| = 0, |ac| = 1, |ad| = |cd| = 3 / √12, |bd| = 1/2. Of a and c the first goes, then
    # d, which c resembles most and which resembles b too. Filters: 16 / √(14 · 221/6). Channels: 1 / √(64 · 41/6).
    # Groups: 1.75 / √(2.75 · 4.75), 7.75 / √(2.75 · 26.75), 2.75 / √(4.75 · 26.75), and one of zeros, which goes first.
    "FilterCorrelation": (
        criteria.FilterCorrelation,
        {
            Group(1, 4): [0.0964057, 0.7560371, 1, 0],
            K: [0, 1, 1, 0.1339746],
            F: [0.2954117, 1],
            C: [0.9521818, 1],
        },
    ),
    # Kernels: 1 - (0 + 1 + 3/√12) / 3, 1 - (1/2) / 3, the first again, 1 - (3/√12 + 1/2 + 3/√12) / 3.
    "FilterCorrelation mean": (
        lambda: criteria.FilterCorrelation(variant="mean"),
        {
            Group(1, 4): [0.3061028, 0.6359184, 0.4262214, 0],
            K: [0.3779915, 0.8333333, 0.3779915, 0.2559830],
            F: [0.2954117, 0.2954117],
            C: [0.9521818, 0.9521818],
        },
    ),
    # Kernels: ab 0, ac 1, ad 1/√14, bc 0, bd 1/√6, cd 1/√14: after a goes d, which resembles b most, and c as well.
    # Filters: 27 / √(20 · 57). Channels: 2 / √(70 · 7).
    "FilterCorrelation cosine": (
        lambda: criteria.FilterCorrelation(measure="cosine"),
        {K: [0, 1, 1, 0.5917517], F: [0.2003290, 1], C: [0.9096492, 1]},
    ),
    # Kernels: √20 + √126 + √13, √20 + √62 + √5, √126 + √62 + √61, √13 + √5 + √61. Filters √131, channels √81.
    # Groups: √20 + √126 + √15, √20 + √62 + √5, √126 + √62 + √57, √15 + √5 + √57.
    "GeometricMedian": (
        criteria.GeometricMedian,
        {
            Group(1, 4): [19.5700913, 14.5822115, 26.6488139, 13.6588856],
            K: [19.3026592, 14.5822115, 26.9092322, 13.6518690],
            F: [11.4455231, 11.4455231],
            C: [9, 9],
        },
    ),
}


@pytest.mark.parametrize(("make", "granularity", "expected"), cases(OF_TRIPLES))
def test_redundancy_of_kernels_of_three(
    make: Callable[[], Criterion], granularity: Granularity, expected: list[float], device: torch.device
) -> None:
    model = nn.Conv2d(2, 2, (1, 3), bias=False)
    model.weight.data = TRIPLES.clone()
    model.to(device)
    assert prunelab.score(model, make(), granularity)["weight"].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-7)


# --- what channels carry ----------------------------------------------------------------------------------------------


def information_model() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """Channel 0 is the label. Channel 1 agrees with it in three of four. The neurons read them crosswise."""
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    y = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    x = torch.stack([y.float(), torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0])], 1)
    return model, [(x, y)]


def rectified_model() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """Two filters (1, 1), w = 1 and w = -2, a batch normalisation with scales -0.5 and 0.25, and a rectifier.

    With statistics 0 and 1, no eps and no shift, the filters carry -0.5 x and -0.5 x too: then a rectifier. The maps are
    (-2 -4 / -2 -4) and (2 0 / 0 2) of two examples.
    """
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2, eps=0.0), nn.ReLU())
    model[0].weight.data = torch.tensor([1.0, -2.0]).view(2, 1, 1, 1)
    model[1].weight.data = torch.tensor([-0.5, 0.25])
    x = torch.tensor([[[[-2.0, -4.0], [-2.0, -4.0]]], [[[2.0, 0.0], [0.0, 2.0]]]])
    return model, [(x, torch.zeros(2))]


def plain_model() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """Two filters, w = 1 and w = -2, and a rectifier: of the maps (1 -1) and (2 3) they leave (1 0), (2 3); (0 2), 0."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU())
    model[0].weight.data = torch.tensor([1.0, -2.0]).view(2, 1, 1, 1)
    return model, [(torch.tensor([[[[1.0, -1.0]]], [[[2.0, 3.0]]]]), torch.zeros(2))]


def ranked_model() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """The first filter passes on, the second adds both columns. Maps: (1 0 / 0 1) and (1 2 / 2 4)."""
    model = nn.Conv2d(1, 2, (1, 2), padding=(0, 1), bias=False)  # three columns: before, both, after
    model.weight.data = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 0.0]]]])
    return model, [(torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]], [[[1.0, 2.0], [2.0, 4.0]]]]), torch.zeros(2))]


def first_example_twice(outputs: Tensor, targets: Tensor) -> Tensor:
    """The sum of filter 0 less three times that of filter 1, and in the second example the opposite; the mean."""
    sums = outputs.sum((2, 3))  # (2, 2)
    return ((sums[0, 0] - 3 * sums[0, 1]) - (sums[1, 0] - 3 * sums[1, 1])) / 2


Made = tuple[nn.Module, list[tuple[Tensor, Tensor]]]
OF_ACTIVATIONS: list[tuple[str, Callable[[], Made], Callable[[Tensor], Criterion], Granularity, list[float]]] = [
    # ln 2 and (2 + 2 - 2 - 1) / 16 for the label; 3/4 ln 3/2 + 1/4 ln 1/2 and (2 + 2 - 4 - 1) / 16 for the other.
    ("MutualInformation", information_model, lambda x: criteria.MutualInformation(), F, [0.0683120, 0.7556472]),
    ("MutualInformation", information_model, lambda x: criteria.MutualInformation(), C, [0.7556472, 0.0683120]),
    ("BatchNormScale", rectified_model, criteria.BatchNormScale, F, [0.5, 0.25]),
    # Both normalised maps are -0.5 x: (1 2 / 1 2), and (-1 0 / 0 -1), of which nothing is left. Four of eight.
    ("APoZ", rectified_model, lambda x: criteria.APoZ(), F, [0.5, 0.5]),
    # Three of four, and one of four.
    ("APoZ", plain_model, lambda x: criteria.APoZ(), F, [0.75, 0.25]),
    # Rank 1 of (1 2 / 1 2) and 0 of nothing.
    ("HRank", rectified_model, lambda x: criteria.HRank(), F, [0.5, 0.5]),
    # With a column of zeros in front: rank 2 and rank 1; and nothing of a filter of zeros.
    ("HRank", ranked_model, lambda x: criteria.HRank(), F, [1.5, 0.0]),
    # Filter 0: 1 and 2 + 3, mean 3. Filter 1: 3 · 2 and nothing, mean 3. Squares: 1 and 25; 36 and 0.
    ("Taylor of activations", plain_model, lambda x: Taylor(of="activations"), F, [3.0, 3.0]),
    ("Taylor of activations", plain_model, lambda x: Taylor(of="activations", squared=True), F, [13.0, 18.0]),
]


@pytest.mark.parametrize(("name", "model", "make", "granularity", "expected"), OF_ACTIVATIONS)
def test_what_channels_carry(
    name: str,
    model: Callable[[], Made],
    make: Callable[[Tensor], Criterion],
    granularity: Granularity,
    expected: list[float],
    device: torch.device,
) -> None:
    net, data = model()
    net.to(device)
    (scores,) = prunelab.score(
        net, make(data[0][0]), granularity, data=data, loss=first_example_twice
    ).values()  # one layer each
    assert scores.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-7)


# --- nothing is left out ----------------------------------------------------------------------------------------------

HAVE = {
    (name.split()[0], type(granularity)) for name, (_, table) in OF_THE_TWO_NETWORKS.items() for granularity in table
}
HAVE |= {(name.split()[0], type(granularity)) for name, (_, table) in OF_TRIPLES.items() for granularity in table}
HAVE |= {(name, type(granularity)) for name, _, _, granularity, _ in OF_ACTIVATIONS}

NEED_AN_ARGUMENT: dict[str, Callable[[type[Criterion]], Criterion]] = {
    "BatchNormScale": lambda kind: kind(IMAGES),  # type: ignore[call-arg]
    "OBD": lambda kind: kind(CURVATURE),  # type: ignore[call-arg]
    "SynFlow": lambda kind: kind(IMAGES),  # type: ignore[call-arg]
}


@pytest.mark.parametrize("row", criteria.table().rows, ids=lambda row: row.criterion)
@pytest.mark.parametrize("granularity", EVERY, ids=str)
def test_every_criterion_has_literals_at_every_granularity_at_which_it_has_a_meaning(
    row: Row, granularity: Granularity
) -> None:
    kind = getattr(criteria, row.criterion)
    criterion = NEED_AN_ARGUMENT.get(row.criterion, lambda kind: kind())(kind)
    try:
        criterion.check(granularity)
        meaningful = True
    except ValueError:
        meaningful = False
    assert meaningful == ((row.criterion, type(granularity)) in HAVE)


# --- layers that store their weights differently ----------------------------------------------------------------------

# (inputs, outputs of a group, 1, 2): of four inputs the first two make output 0, the others output 1.
TRANSPOSED = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]], [[[5.0, 6.0]]], [[[7.0, 8.0]]]])
# Groups of two: filter 0 and 1 read channels 0 and 1, filters 2 and 3 read channels 2 and 3.
GROUPED = torch.arange(1.0, 9.0).view(4, 2, 1, 1)


@pytest.mark.parametrize(
    ("layer", "weight", "granularity", "expected"),
    [
        (lambda: nn.ConvTranspose2d(4, 2, (1, 2), groups=2), TRANSPOSED, Filter(), [10, 26]),
        (lambda: nn.ConvTranspose2d(4, 2, (1, 2), groups=2), TRANSPOSED, Channel(), [3, 7, 11, 15]),
        (lambda: nn.ConvTranspose2d(4, 2, (1, 2), groups=2), TRANSPOSED, Kernel(), [3, 7, 11, 15]),
        # Plain: outputs are columns. Filter 0 is (1 2 5 6), filter 1 is (3 4 7 8).
        (lambda: nn.ConvTranspose2d(2, 2, (1, 2)), TRANSPOSED.view(2, 2, 1, 2), Filter(), [14, 22]),
        (lambda: nn.ConvTranspose2d(2, 2, (1, 2)), TRANSPOSED.view(2, 2, 1, 2), Channel(), [10, 26]),
        (lambda: nn.ConvTranspose2d(2, 2, (1, 2)), TRANSPOSED.view(2, 2, 1, 2), Kernel(), [3, 11, 7, 15]),
        (lambda: nn.ConvTranspose2d(2, 2, (1, 2)), TRANSPOSED.view(2, 2, 1, 2), Group(2, 2), [10, 26]),
        (lambda: nn.Conv2d(4, 4, 1, groups=2), GROUPED, Filter(), [3, 7, 11, 15]),
        (lambda: nn.Conv2d(4, 4, 1, groups=2), GROUPED, Channel(), [4, 6, 12, 14]),
        (lambda: nn.Conv2d(4, 4, 1, groups=4), GROUPED[:, :1], Channel(), [1, 3, 5, 7]),  # depthwise
        (lambda: nn.Conv2d(4, 4, 1, groups=4), GROUPED[:, :1], Filter(), [1, 3, 5, 7]),
        # Blocks of 2 x 2 of a matrix 3 x 3: three of them are short.
        (lambda: nn.Linear(3, 3), torch.arange(1.0, 10.0).view(3, 3), Group(2, 2), [12, 9, 15, 9]),
    ],
)
def test_how_a_layer_stores_its_units(
    layer: Callable[[], nn.Module], weight: Tensor, granularity: Granularity, expected: list[float]
) -> None:
    model = layer()
    model.weight.data = weight.clone()
    assert prunelab.score(model, granularity=granularity)["weight"].tolist() == expected


# --- masks ------------------------------------------------------------------------------------------------------------

# Two Linear layers (3 -> 2) and (2 -> 2). Sorted: 1 1 2 2 2 3 4 5 6 7.
FIRST, SECOND = [[1.0, -2.0, 3.0], [4.0, 5.0, -1.0]], [[2.0, 6.0], [2.0, -7.0]]


@pytest.mark.parametrize(
    ("how", "sparsity", "granularity", "first", "second"),
    [
        ("global", 0.0, W, [[1, 1, 1], [1, 1, 1]], [[1, 1], [1, 1]]),
        ("global", 0.3, W, [[0, 0, 1], [1, 1, 0]], [[1, 1], [1, 1]]),  # of three twos the first goes
        ("global", 0.4, W, [[0, 0, 1], [1, 1, 0]], [[0, 1], [1, 1]]),
        ("global", 0.5, W, [[0, 0, 1], [1, 1, 0]], [[0, 1], [0, 1]]),
        ("global", 0.9, W, [[0, 0, 0], [0, 0, 0]], [[0, 0], [0, 1]]),
        ("global", 1.0, W, [[0, 0, 0], [0, 0, 0]], [[0, 0], [0, 0]]),
        ("local", 0.5, W, [[0, 0, 1], [1, 1, 0]], [[0, 1], [0, 1]]),
        ("local", 0.25, W, [[0, 1, 1], [1, 1, 0]], [[0, 1], [1, 1]]),  # round(1.5) = 2 of six, and 1 of four
        (scope.PerRow(), 0.34, W, [[0, 1, 1], [1, 1, 0]], [[0, 1], [0, 1]]),  # 1 of three, round(0.68) of two
        (scope.NM(1, 2), None, W, [[0, 1, 1], [0, 1, 1]], [[0, 1], [0, 1]]),  # the third of a row is alone
        (scope.NM(2, 3), None, W, [[0, 1, 1], [1, 1, 0]], [[1, 1], [1, 1]]),
        (scope.Global(minimum=2), 0.6, W, [[0, 0, 0], [1, 1, 0]], [[0, 1], [0, 1]]),
        ({"1.*": 0.75}, None, W, None, [[0, 0], [0, 1]]),
        # Neurons: norms 6, 10 with 4 parameters each; 8, 9 with 3. Of 14 parameters round(7) may go: 4, then 3.
        ("global", 0.5, F, [[0, 0, 0], [1, 1, 1]], [[0, 0], [1, 1]]),
        # Of round(5.6) = 6: 4, and no other fits.
        ("global", 0.4, F, [[0, 0, 0], [1, 1, 1]], [[1, 1], [1, 1]]),
        # Of round(2.8) = 3 the first does not fit, the next does.
        ("global", 0.2, F, [[1, 1, 1], [1, 1, 1]], [[0, 0], [1, 1]]),
        ("local", 0.5, F, [[0, 0, 0], [1, 1, 1]], [[0, 0], [1, 1]]),
        # Inputs: 5, 7, 4 with 2 weights each; 4, 13 with 2: of equals the first.
        ("global", 0.2, C, [[1, 1, 0], [1, 1, 0]], [[1, 1], [1, 1]]),
        ("global", 0.4, C, [[1, 1, 0], [1, 1, 0]], [[0, 1], [0, 1]]),
        ("global", 0.6, C, [[0, 1, 0], [0, 1, 0]], [[0, 1], [0, 1]]),
        # Vectors of two: 3, 3 (one weight); 9, 1 (one weight); 8; 9. Of round(4) weights: 1, then 3 with two, then 3.
        ("global", 0.4, Group(1, 2), [[0, 0, 0], [1, 1, 0]], [[1, 1], [1, 1]]),
        # Layers: norm 16 with 8 parameters, 17 with 6. Of round(8.4) = 8 the first fits; of 7 only the second.
        ("global", 0.6, L, [[0, 0, 0], [0, 0, 0]], [[1, 1], [1, 1]]),
        ("global", 0.5, L, [[1, 1, 1], [1, 1, 1]], [[0, 0], [0, 0]]),
    ],
)
@pytest.mark.filterwarnings("ignore::prunelab.scope.LayerCollapseWarning")
def test_masks_by_hand(
    how: str | scope.Scope | dict[str, float],
    sparsity: float | None,
    granularity: Granularity,
    first: list[list[int]] | None,
    second: list[list[int]],
) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model[0].weight.data, model[1].weight.data = torch.tensor(FIRST), torch.tensor(SECOND)
    masks = prunelab.prune(model, sparsity, granularity=granularity, scope=how)
    found = [masks[name].int().tolist() if name in masks else None for name in ("0.weight", "1.weight")]
    assert found == [first, second]
    for name in ("0.bias", "1.bias"):  # a neuron's bias goes with it
        if granularity in (F, L):
            assert torch.equal(masks[name], masks[name.replace("bias", "weight")].any(1))
        else:
            assert name not in masks


@pytest.mark.parametrize(
    ("first", "second", "bias"),
    [([1.0, 9.0], [9.0, 1.0], [1, 1]), ([9.0, 1.0], [1.0, 9.0], [1, 1]), ([1.0, 9.0], [2.0, 8.0], [0, 1])],
)
def test_a_bias_that_two_layers_share_stays_while_either_keeps_its_neuron(
    first: list[float], second: list[float], bias: list[int]
) -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.Linear(1, 2))
    model[1].bias = model[0].bias
    for layer, weights in zip(model, (first, second), strict=True):
        layer.weight.data = torch.tensor(weights)[:, None]
    masks = prunelab.prune(model, 0.5, granularity=Filter(), scope="local")
    assert set(masks) == {"0.weight", "1.weight", "0.bias"}
    assert masks["0.bias"].int().tolist() == bias
