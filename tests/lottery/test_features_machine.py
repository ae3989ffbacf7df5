"""The recursive feature machine against NumPy, scikit-learn, autograd and xrfm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.kernel_ridge import KernelRidge
from torch import Tensor

from prunelab.lottery.features import RecursiveFeatureMachine, agop


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sparse(seed: int, n: int = 300, d: int = 12) -> tuple[Tensor, Tensor]:
    """A target of coordinates 1, 4 and 5 among d."""
    x = drawn(n, d, seed=seed)
    return x, x[:, 1] * x[:, 4] + torch.sin(2 * x[:, 5])


def numpy_machine(x, y, z, rounds: int, bandwidth: float, ridge: float):
    """The definition, with loops over the examples: predictions at z after each round, and every M."""
    n, d = x.shape
    matrix, found, matrices = np.eye(d), [], []
    for _ in range(rounds + 1):
        matrices.append(matrix)
        alpha = np.linalg.solve(np.exp(-cdist(x, x, "mahalanobis", VI=matrix) / bandwidth) + ridge * np.eye(n), y)
        found.append(np.exp(-cdist(z, x, "mahalanobis", VI=matrix) / bandwidth) @ alpha)
        total = np.zeros((d, d))
        for p in range(n):
            gradient = np.zeros((y.shape[1], d))
            for i in range(n):
                if i != p:
                    difference = x[p] - x[i]
                    distance = np.sqrt(difference @ matrix @ difference)
                    slope = -np.exp(-distance / bandwidth) / (bandwidth * distance) * (matrix @ difference)
                    gradient += alpha[i][:, None] * slope
            total += gradient.T @ gradient
        matrix = total / n
    return found, matrices


def test_against_the_definition_in_numpy() -> None:
    x, y, z = drawn(30, 4), drawn(30, 2, seed=1), drawn(7, 4, seed=2)
    machine = RecursiveFeatureMachine(rounds=3, bandwidth=2.0, ridge=0.01).fit(x, y)
    predictions, matrices = numpy_machine(x.numpy(), y.numpy(), z.numpy(), 3, 2.0, 0.01)
    for number in range(4):
        np.testing.assert_allclose(machine.fits[number].matrix, matrices[number], rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(machine.predict(z, number), predictions[number], rtol=1e-7, atol=1e-9)
    assert torch.equal(machine.predict(z), machine.predict(z, 3))


def test_no_rounds_are_kernel_ridge_regression() -> None:
    x, y, z = drawn(60, 5), drawn(60, seed=1), drawn(20, 5, seed=2)
    machine = RecursiveFeatureMachine(rounds=0, bandwidth=3.0, ridge=0.1).fit(x, y)
    peer = KernelRidge(alpha=0.1, kernel="precomputed").fit(np.exp(-cdist(x, x) / 3.0), y)
    np.testing.assert_allclose(machine.predict(z), peer.predict(np.exp(-cdist(z, x) / 3.0)), rtol=1e-9, atol=1e-11)
    assert machine.score(x, y) == pytest.approx(peer.score(np.exp(-cdist(x, x) / 3.0), y))


@pytest.mark.parametrize("diagonal", [False, True])
def test_its_gradients_and_outer_product_are_autograds(diagonal: bool) -> None:
    x, y = sparse(0, 50, 6)
    machine = RecursiveFeatureMachine(rounds=2, bandwidth=2.0, diagonal=diagonal).fit(x, torch.stack([y, y**2], dim=1))
    fit, z = machine.fits[-1], drawn(9, 6, seed=3)
    matrix = torch.diag(fit.matrix) if diagonal else fit.matrix

    def f(points: Tensor) -> Tensor:
        difference = points[:, None] - x  # (m, n, d)
        distance = torch.einsum("mni,ij,mnj->mn", difference, matrix, difference).sqrt()
        return torch.exp(-distance / 2.0) @ fit.coefficients

    torch.testing.assert_close(machine.outputs(z), f(z))
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda p: f(p[None])[0], point) for point in z])
    torch.testing.assert_close(machine.gradients(z), jacobian)
    expected = agop(f, z)
    torch.testing.assert_close(machine.agop(z), expected.diagonal() if diagonal else expected)


def test_the_tip_of_the_kernel_is_left_out() -> None:
    """One example: its own term has no gradient. Two: each feels the other's only."""
    one = RecursiveFeatureMachine(rounds=0, bandwidth=1.0, ridge=0.0).fit(torch.zeros(1, 2), torch.ones(1))
    assert torch.equal(one.gradients(torch.zeros(1, 2)), torch.zeros(1, 1, 2).double())
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    two = RecursiveFeatureMachine(rounds=0, bandwidth=5.0, ridge=0.0).fit(x, torch.tensor([0.0, 1.0]))
    alpha = float(two.fits[0].coefficients[1, 0])
    expected = alpha * np.exp(-1) / 5 * torch.tensor([0.6, 0.8]).double()
    torch.testing.assert_close(two.gradients(x[:1])[0, 0], expected)
    # What M cannot see is as good as equal, although it differs.
    three = RecursiveFeatureMachine(rounds=1, ridge=1e-3).fit(
        torch.cat([x, x + torch.tensor([8.0, -6.0])]), torch.ones(4)
    )
    blind = three.fits[1].matrix
    assert blind.isfinite().all()


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("normalise", [False, True])
def test_it_finds_the_coordinates_of_a_sparse_target(diagonal: bool, normalise: bool) -> None:
    for seed in range(3):
        x, y = sparse(seed)
        test = sparse(seed + 100)
        machine = RecursiveFeatureMachine(rounds=4, diagonal=diagonal, normalise=normalise).fit(x, y)
        assert sorted(machine.importance.argsort(descending=True)[:3].tolist()) == [1, 4, 5]
        assert machine.score(*test) > machine.score(*test, number=0) + 0.2
        if normalise:
            assert float(machine.importance.mean()) == pytest.approx(1)


def test_it_finds_a_rotated_direction() -> None:
    """A target of one direction: the top eigenvector of M is that direction, which no coordinate is."""
    direction = torch.ones(8).double() / 8**0.5
    x = drawn(200, 8)
    machine = RecursiveFeatureMachine(rounds=3).fit(x, torch.sin(2 * x @ direction))
    values, vectors = torch.linalg.eigh(machine.matrix)
    assert abs(float(vectors[:, -1] @ direction)) > 0.98
    assert values[-1] > 0.9 * values.sum()


def test_classes() -> None:
    x = drawn(120, 3)
    names = torch.tensor([7, -2, 30])
    y = names[(x[:, 0] > 0).long() + (x[:, 0] > 0.8).long()]
    machine = RecursiveFeatureMachine(rounds=1).fit(x, y)
    assert machine.classes.tolist() == [-2, 7, 30]
    assert machine.outputs(x).shape == (120, 3)
    assert machine.predict(x).dtype == torch.int64
    assert machine.score(x, y) == float((machine.predict(x) == y).double().mean()) > 0.95
    one_hot = (y[:, None] == machine.classes).double()
    torch.testing.assert_close(RecursiveFeatureMachine(rounds=1).fit(x, one_hot).outputs(x), machine.outputs(x))


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = sparse(0, 40, 6)
    whole = RecursiveFeatureMachine(rounds=2).fit(x, y)
    monkeypatch.setattr("prunelab.lottery.features.laplace._CELLS", 130)
    parts = RecursiveFeatureMachine(rounds=2).fit(x, y)
    torch.testing.assert_close(parts.matrix, whole.matrix)
    torch.testing.assert_close(parts.predict(x), whole.predict(x))
    torch.testing.assert_close(parts.gradients(x), whole.gradients(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_other_inputs(dtype: torch.dtype, device: torch.device) -> None:
    x = (3 * drawn(30, 2, 3)).to(dtype).to(device)
    y = drawn(30, seed=1).float().to(device)
    machine = RecursiveFeatureMachine(rounds=1, ridge=0.1).fit(x, y)
    assert machine.matrix.dtype == torch.float64
    assert machine.matrix.shape == (6, 6)
    assert machine.predict(x).shape == (30,)
    assert machine.predict(x[:0]).shape == (0,)
    assert machine.gradients(x[:0]).shape == (0, 1, 6)


def test_equal_examples_need_a_ridge() -> None:
    x = torch.ones(3, 2)
    with pytest.raises(ValueError, match="give a larger ridge"):
        RecursiveFeatureMachine(rounds=0, ridge=0).fit(x, torch.arange(3.0))
    assert RecursiveFeatureMachine(rounds=0, ridge=1.0).fit(x, torch.arange(3.0)).predict(x)[0] == pytest.approx(0.75)


X, Y = torch.eye(3), torch.arange(3.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: RecursiveFeatureMachine(rounds=-1), ValueError, "rounds=-1"),
        (lambda: RecursiveFeatureMachine(bandwidth=0), ValueError, "must be above 0"),
        (lambda: RecursiveFeatureMachine(bandwidth=float("nan")), ValueError, "finite"),
        (lambda: RecursiveFeatureMachine(ridge=-1), ValueError, "ridge=-1"),
        (lambda: RecursiveFeatureMachine().predict(X), ValueError, "call fit"),
        (lambda: RecursiveFeatureMachine().fit(X[0], Y), ValueError, r"\(3,\)"),
        (lambda: RecursiveFeatureMachine().fit([[1.0]], Y), TypeError, "list"),
        (lambda: RecursiveFeatureMachine().fit(X / 0, Y), ValueError, "inputs hold NaN"),
        (lambda: RecursiveFeatureMachine().fit(X, Y / 0), ValueError, "targets hold NaN"),
        (lambda: RecursiveFeatureMachine().fit(X, Y[:2]), ValueError, "each of 3 examples"),
        (lambda: RecursiveFeatureMachine().fit(X, X.long()), ValueError, "classes as"),
        (lambda: RecursiveFeatureMachine().fit(X, 0 * Y), ValueError, "does not change"),
        (lambda: RecursiveFeatureMachine(1).fit(X, Y).predict(X[:, :2]), ValueError, "2 coordinates.*from 3"),
        (lambda: RecursiveFeatureMachine(1).fit(X, Y).predict(X, 2), ValueError, "learned 1 rounds"),
        (lambda: RecursiveFeatureMachine(1).fit(X, Y).score(X, X), ValueError, "targets of shape"),
    ],
)
def test_what_makes_no_sense_is_refused(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_failed_fit_leaves_the_machine_as_it_was() -> None:
    machine = RecursiveFeatureMachine(1).fit(X, Y)
    before = machine.predict(X)
    with pytest.raises(ValueError, match="targets hold"):
        machine.fit(X, Y / 0)
    assert torch.equal(machine.predict(X), before)
    assert not torch.equal(machine.fit(X, Y.flip(0)).predict(X), before)


def test_against_xrfm() -> None:
    """Kernel and outer product of the authors' later package, where it is installed."""
    kernels = pytest.importorskip("xrfm.rfm_src.kernels")
    peer = kernels.LaplaceKernel(bandwidth=2.0, exponent=1.0)
    x, y = drawn(50, 5), drawn(50, 2, seed=1)
    machine = RecursiveFeatureMachine(rounds=3, bandwidth=2.0).fit(x, y)
    for before, after in zip(machine.fits[:-1], machine.fits[1:], strict=True):
        values, vectors = torch.linalg.eigh(before.matrix)
        root = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
        kernel = peer.get_kernel_matrix(x, x, root) + 1e-3 * torch.eye(50)
        torch.testing.assert_close(torch.linalg.solve(kernel, y), before.coefficients, rtol=1e-5, atol=1e-6)
        theirs = peer.get_agop(x, x, before.coefficients.T.contiguous(), root) / 50
        torch.testing.assert_close(theirs, after.matrix, rtol=1e-5, atol=1e-7)
