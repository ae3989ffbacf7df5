"""The recursive feature machine: a kernel that learns its features from the gradients of its own predictor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from prunelab.criteria.members import finest
from prunelab.lottery.features.laplace import Laplace


@dataclass(frozen=True)
class Fit:
    """One kernel regression.

    Attributes:
        number: how often the feature matrix had been learned; 0 is the plain Laplace kernel.
        matrix: the feature matrix M that the kernel measured distances with: (d, d), or (d,) its diagonal.
        coefficients: α, (n, outputs), one row a training example.
    """

    number: int
    matrix: Tensor
    coefficients: Tensor


class RecursiveFeatureMachine:
    """Ridge regression with K(x, z) = exp(−√((x − z)ᵀ M (x − z)) / L), whose M is learned (Radhakrishnan et al. 2022).

    M starts as the identity. A round solves (K + ridge · I) α = y and puts the average gradient outer product of the
    predictor f(x) = Σ αᵢ K(x, xᵢ), over all training examples and outputs, in the place of M; after the last round α is
    solved for once more. The kernel has no gradient at distance 0: an example's own term, and that of examples that M
    cannot tell from it, is left out there. All is computed in float64 (float32 on MPS), and what is held is one
    kernel matrix of the training examples, (n, n), beside batches.

    >>> x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    >>> machine = RecursiveFeatureMachine(rounds=3).fit(x, x[:, 0] * x[:, 2])
    >>> machine.importance.argsort(descending=True)[:2].sort().values.tolist()
    [0, 2]

    Args:
        rounds: how often M is learned; 0 is kernel regression with the plain Laplace kernel.
        bandwidth: L > 0; the larger, the more slowly the kernel falls. Inputs should be of like scale; dividing each by
            its norm, as the authors' code does, makes all distances at most 2.
        ridge: what is added to the diagonal of K, 0 or more.
        diagonal: learn only the diagonal of M: a weight for each coordinate, and time and memory in proportion to them.
        normalise: scale M so that its diagonal has mean 1, as that of the identity: the bandwidth then keeps its
            meaning, whatever the scale of the targets. The authors' code does not.

    Attributes, after `fit`:
        fits: every regression as a `Fit`, `rounds + 1` of them.
        classes: the distinct classes, (k,), or None after targets that are measurements.
    """

    def __init__(
        self,
        rounds: int = 3,
        bandwidth: float = 10.0,
        ridge: float = 1e-3,
        *,
        diagonal: bool = False,
        normalise: bool = False,
    ) -> None:
        if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 0:
            raise ValueError(f"rounds={rounds!r}: a whole number, 0 or more")
        if _number("bandwidth", bandwidth) <= 0:
            raise ValueError(f"bandwidth={bandwidth!r}: the kernel is divided by it; it must be above 0")
        if _number("ridge", ridge) < 0:
            raise ValueError(f"ridge={ridge!r}: it is added to the diagonal; it must be 0 or more")
        self.rounds, self.bandwidth, self.ridge = rounds, float(bandwidth), float(ridge)
        self.diagonal, self.normalise = diagonal, normalise
        self.fits: tuple[Fit, ...] = ()
        self.classes: Tensor | None = None
        self._flat = False  # whether the targets were (n,), and predictions are

    def fit(self, inputs: Tensor, targets: Tensor) -> RecursiveFeatureMachine:
        """Learn from inputs (n, ...), which are flattened, and targets: floats (n,) or (n, k), or whole numbers (n,).

        Whole numbers are classes: the regression is on one output a class, 1 for its examples and 0 for the others.
        Returns the machine. Raises TypeError or ValueError for what cannot be learned from, and leaves the machine as
        it was.
        """
        x = _rows(inputs)
        y, classes = _outputs(targets, x)
        matrix = torch.ones_like(x[0]) if self.diagonal else torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        fits = []
        for number in range(self.rounds + 1):
            kernel = Laplace(x, matrix, self.bandwidth)
            fits.append(Fit(number, matrix, self._solved(kernel(x), y, number)))
            if number < self.rounds:
                matrix = self._learned(kernel.agop(x, fits[-1].coefficients))
        self.__dict__.pop("_kernels", None)
        self.fits, self.classes, self._centres = tuple(fits), classes, x
        self._flat = targets.dim() == 1
        return self

    def predict(self, inputs: Tensor, number: int = -1) -> Tensor:
        """Classes (m,), or measurements, (m,) or (m, k) as the targets were; after a `number` of rounds, -1: all."""
        out = self.outputs(inputs, number)
        if self.classes is not None:
            return self.classes[out.argmax(1)]
        return out[:, 0] if self._flat else out

    def outputs(self, inputs: Tensor, number: int = -1) -> Tensor:
        """f(x) for inputs (m, ...): (m, k), one column a class or target."""
        kernel, fit, x = self._at(inputs, number)
        parts = [kernel(part) @ fit.coefficients for part in kernel.batches(x)]
        return torch.cat(parts) if parts else x.new_zeros(0, fit.coefficients.shape[1])

    def gradients(self, inputs: Tensor, number: int = -1) -> Tensor:
        """∇f(x) for inputs (m, ...): (m, k, d)."""
        kernel, fit, x = self._at(inputs, number)
        return kernel.gradients(x, fit.coefficients)

    def agop(self, inputs: Tensor, number: int = -1) -> Tensor:
        """The average gradient outer product over inputs (m, ...): (d, d); with `diagonal`, its diagonal (d,)."""
        kernel, fit, x = self._at(inputs, number)
        return kernel.agop(x, fit.coefficients)

    def score(self, inputs: Tensor, targets: Tensor, number: int = -1) -> float:
        """The accuracy for classes, the coefficient of determination R² for measurements (mean over the targets)."""
        found = self.predict(inputs, number)
        if targets.shape != found.shape or not targets.numel():
            raise ValueError(f"targets of shape {tuple(targets.shape)} for predictions {tuple(found.shape)}")
        if self.classes is not None:
            return float((found == targets.to(found.device)).double().mean())
        truth = targets.to(found)
        left, whole = (found - truth).square().sum(0), (truth - truth.mean(0)).square().sum(0)
        return float((1 - left / whole).mean())

    @property
    def matrix(self) -> Tensor:
        """The feature matrix M of the last fit, (d, d); with `diagonal`, its diagonal (d,)."""
        return self._fitted()[-1].matrix

    @property
    def importance(self) -> Tensor:
        """The diagonal of the last feature matrix, (d,): how much f changes with each coordinate."""
        return self.matrix if self.diagonal else self.matrix.diagonal()

    def _solved(self, kernel: Tensor, y: Tensor, number: int) -> Tensor:
        kernel.diagonal().add_(self.ridge)
        factor, failed = torch.linalg.cholesky_ex(kernel)
        if failed or not factor.isfinite().all():
            raise ValueError(
                f"the kernel matrix of round {number} is singular with ridge={self.ridge}: some examples are equal, or "
                "equal in all that M sees; give a larger ridge"
            )
        return torch.cholesky_solve(y, factor)

    def _learned(self, matrix: Tensor) -> Tensor:
        mean = float((matrix if self.diagonal else matrix.diagonal()).mean())
        if not math.isfinite(mean) or mean <= 0:
            raise ValueError("the predictor does not change anywhere, so there are no features to learn: are all "
                             "targets, or all inputs, equal?")  # fmt: skip
        return matrix / mean if self.normalise else matrix

    def _at(self, inputs: Tensor, number: int) -> tuple[Laplace, Fit, Tensor]:
        fits = self._fitted()
        if not -len(fits) <= number < len(fits):
            raise ValueError(f"number={number!r}: the machine learned {self.rounds} rounds; 0 is the one before them")
        x = _rows(inputs, empty=True).to(self._centres)
        if x.shape[1] != self._centres.shape[1]:
            raise ValueError(f"{x.shape[1]} coordinates; the machine learned from {self._centres.shape[1]}")
        return self._kernels[number], fits[number], x

    @cached_property
    def _kernels(self) -> list[Laplace]:
        return [Laplace(self._centres, fit.matrix, self.bandwidth) for fit in self.fits]

    def _fitted(self) -> tuple[Fit, ...]:
        if not self.fits:
            raise ValueError("the machine has learned nothing yet; call fit(inputs, targets) first")
        return self.fits

    def __repr__(self) -> str:
        return (
            f"RecursiveFeatureMachine(rounds={self.rounds}, bandwidth={self.bandwidth:g}, ridge={self.ridge:g}, "
            f"diagonal={self.diagonal}, normalise={self.normalise})"
        )


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r}: a finite number")
    return float(value)


def _rows(inputs: Tensor, empty: bool = False) -> Tensor:
    """Examples as rows, (n, d), in the finest precision. Raises TypeError or ValueError for what is none."""
    if not isinstance(inputs, Tensor) or inputs.is_complex():
        raise TypeError(f"inputs must be a tensor of real numbers, not {type(inputs).__name__}")
    if inputs.dim() < 2 or not (inputs.shape[1:].numel() and (empty or len(inputs))):
        raise ValueError(f"inputs of shape {tuple(inputs.shape)}: give at least one example, (n, coordinates)")
    x = inputs.detach().flatten(1).to(finest(inputs.device))
    if not x.isfinite().all():
        raise ValueError("the inputs hold NaN or infinity, from which there is no distance")
    return x


def _outputs(targets: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The outputs to learn, (n, k), and the classes (k,), where the targets are whole numbers."""
    if not isinstance(targets, Tensor) or targets.dim() not in (1, 2) or len(targets) != len(x) or not targets.numel():
        shape = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
        raise ValueError(
            f"targets must be a tensor, (n,) or (n, k), with one row for each of {len(x)} examples, not {shape}"
        )
    if targets.is_floating_point():
        if not targets.isfinite().all():
            raise ValueError("the targets hold NaN or infinity")
        return targets.detach().reshape(len(x), -1).to(x), None
    if targets.dim() == 2:
        raise ValueError("targets (n, k) of whole numbers: give classes as (n,), or measurements as floats")
    classes, which = targets.to(x.device).unique(return_inverse=True)
    return torch.nn.functional.one_hot(which, len(classes)).to(x), classes
