"""Networks for the MONK's problems, trained so that Optimal Brain Surgeon's table of 1993 comes out again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunelab.curvature import Run
from prunelab.lab.monks import Pair


@dataclass(frozen=True)
class Recipe:
    """A network with one hidden layer for one of the MONK's problems, and its objective, mean loss + λ/2 · ‖w‖².

    The paper does not say all of it (Hassibi & Stork 1993, Table 1): that the counts come out depends on the loss, on
    the network's output, and on λ, which is larger in training than when weights are deleted. In float64.

    Attributes:
        problem: 1, 2 or 3.
        hidden: hidden units.
        activation: theirs.
        squared: the loss is ½ · the mean squared error of a logistic output, not the cross-entropy of a logit.
        weight_decays: λ of each stage of training, biases included; the last is that of the pruning.
        enough: training examples that must be right.
    """

    problem: int
    hidden: int
    activation: type[nn.Module]
    squared: bool
    weight_decays: tuple[float, ...]
    enough: int

    @property
    def weight_decay(self) -> float:
        """λ of the objective that is pruned under."""
        return self.weight_decays[-1]

    def network(self, seed: int = 0) -> nn.Sequential:
        """17-3-1 (58 weights) or 17-2-1 (39), float64. The global random state is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            layers = [nn.Linear(17, self.hidden), self.activation(), nn.Linear(self.hidden, 1)]
        return nn.Sequential(*layers, *([nn.Sigmoid()] if self.squared else [])).double()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of outputs (N, 1) for targets (N,) 0 or 1."""
        outputs, targets = outputs[:, 0], targets.to(outputs.dtype)
        if self.squared:
            return (outputs - targets).square().mean() / 2
        return F.binary_cross_entropy_with_logits(outputs, targets)

    def train(self, model: nn.Module, data: Pair) -> None:
        """Train in place on all examples at once, to convergence, with one λ after the other."""
        inputs, targets = data[0].double(), data[1]
        weights = list(model.parameters())
        for decay in self.weight_decays:
            optimizer = torch.optim.LBFGS(
                weights, max_iter=3000, tolerance_grad=1e-10, tolerance_change=1e-16, line_search_fn="strong_wolfe"
            )

            def objective(optimizer: torch.optim.Optimizer = optimizer, decay: float = decay) -> Tensor:
                optimizer.zero_grad()
                size = torch.stack([weight.square().sum() for weight in weights]).sum()
                value = self.loss(model(inputs), targets) + decay / 2 * size
                value.backward()
                return value

            optimizer.step(objective)

    @torch.no_grad()
    def correct(self, model: nn.Module, data: Pair) -> int:
        """How many examples are right. An output on the boundary is wrong: it decides nothing."""
        outputs = model(data[0].double())[:, 0] - (0.5 if self.squared else 0.0)
        return int((outputs * (2 * data[1] - 1) > 0).sum())

    def fewest(self, run: Run, data: Pair) -> int | None:
        """The fewest weights with which a run had enough of the training examples right; None where it never had."""
        counts = [run.weights, *(step.weights_left for step in run.steps)]
        return min((c for c in counts if self.correct(run.model_at(c), data) >= self.enough), default=None)


RECIPES = {
    1: Recipe(1, 3, nn.Tanh, True, (3e-3, 1e-3), 124),
    2: Recipe(2, 2, nn.Tanh, False, (1e-2, 3e-4), 169),
    3: Recipe(3, 2, nn.Sigmoid, False, (2e-2,), 114),
}
