"""The forward of a trace leaves no mark on the model, its inputs, or the random state; its errors say what to do."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prunelab.trace import trace


class Nuisance(nn.Module):
    """Does in its forward all that a forward should not: draws, updates buffers and rebinds them, works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(3))
        self.register_buffer("cache", torch.full((2,), float("nan")))
        self.fail = False

    def forward(self, x: Tensor) -> Tensor:
        self.calls[0] += 1
        self.cache = torch.cat([self.cache, self.cache])
        statistics = self.norm.running_mean, self.norm.running_var
        nn.functional.batch_norm(x, *statistics, training=True)
        x.add_(torch.randn_like(x))
        torch.rand(3)
        if self.fail:
            raise FloatingPointError("boom")
        return self.dropout(self.norm(self.linear(x)))


def everything(model: nn.Module) -> dict[str, Any]:
    """All the state that a trace could touch, as comparable values."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {
        "bytes": {name: tensor.detach().cpu().numpy().tobytes() for name, tensor in tensors.items()},
        "identity": {name: id(tensor) for name, tensor in tensors.items()},
        "gradients": {
            n: None if p.grad is None else (id(p.grad), p.grad.tolist()) for n, p in model.named_parameters()
        },
        "modes": [module.training for module in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "random": torch.get_rng_state().tolist(),
        "cuda random": torch.cuda.get_rng_state().tolist() if torch.cuda.is_available() else None,
        "grad mode": torch.is_grad_enabled(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
    }


@pytest.mark.parametrize("fail", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("grad", [False, True])
def test_everything_is_as_it_was(fail: bool, grad: bool, device: torch.device) -> None:
    model = Nuisance().to(device)
    model.linear(torch.ones(2, 4, device=device)).sum().backward()
    model.train()
    model.norm.eval()  # a frozen normalisation in a model that trains
    model.fail = fail
    x = torch.ones(2, 4, device=device, requires_grad=True)
    with torch.set_grad_enabled(grad):
        before = everything(model)
        if fail:
            with pytest.raises(FloatingPointError):
                trace(model, x)
        else:
            trace(model, x)
        assert everything(model) == before
    assert x.tolist() == [[1.0] * 4] * 2
    assert x.grad is None


def test_the_forward_runs_in_evaluation_mode() -> None:
    seen = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((self.training, torch.is_grad_enabled()))
            return x

    trace(nn.Sequential(Spy()).train(), torch.ones(1))
    assert seen == [(False, False)]


def test_eval_and_train_of_the_model_are_not_called() -> None:
    """Adapters merge their weights in `train`: a trace must not."""

    class Merging(nn.Linear):
        def train(self, mode: bool = True) -> nn.Module:
            raise AssertionError("called")

    assert trace(Merging(4, 3), torch.ones(1, 4)).macs == 12


def test_a_graph_that_saved_a_buffer_still_goes_back() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    loss = model(torch.ones(2, 4)).sum()
    trace(model, torch.ones(2, 4))
    loss.backward()


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.complex64, torch.int64]
)
@pytest.mark.parametrize("shape", [(3,), ()])
def test_a_buffer_that_the_forward_leaves_alone_is_not_written(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Also one that holds NaN, which equals nothing."""
    model = nn.Linear(4, 4)
    model.register_buffer("unset", torch.full(shape, 0 if dtype == torch.int64 else float("nan")).to(dtype))
    version = model.unset._version
    trace(model, torch.ones(2, 4))
    assert model.unset._version == version


def test_a_buffer_with_nan_that_the_forward_changes_is_put_back() -> None:
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("cache", torch.tensor([float("nan"), 1.0, 2.0]))

        def forward(self, x: Tensor) -> Tensor:
            self.cache[2] = float("nan")
            return x

    model = Writing()
    trace(model, torch.ones(2))
    torch.testing.assert_close(model.cache, torch.tensor([float("nan"), 1.0, 2.0]), equal_nan=True)


SPARSE = {
    "COO": lambda dense: dense.to_sparse(),
    "CSR": lambda dense: dense.to_sparse_csr(),
    "CSC": lambda dense: dense.to_sparse_csc(),
    "BSR": lambda dense: dense.to_sparse_bsr((2, 2)),
    "BSC": lambda dense: dense.to_sparse_bsc((2, 2)),
}


class Neighbours(nn.Module):
    """A layer of a graph network, whose forward does `change` to the sparse adjacency."""

    def __init__(self, adjacency: Tensor, change: Any = None) -> None:
        super().__init__()
        self.register_buffer("adjacency", adjacency)
        self.linear, self.change = nn.Linear(4, 3), change

    def forward(self, x: Tensor) -> Tensor:
        if self.change is not None:
            self.change(self.adjacency)
        return self.linear(x)


CHANGES = {
    "not at all": None,
    "other elements": lambda a: a.values().mul_(2) if a.layout != torch.sparse_coo else a._values().mul_(2),
    "NaN": lambda a: a.values().fill_(torch.nan) if a.layout != torch.sparse_coo else a._values().fill_(torch.nan),
}


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
@pytest.mark.parametrize("make", SPARSE.values(), ids=SPARSE.keys())
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_sparse_buffer_is_put_back(make: Any, change: Any) -> None:
    dense = torch.eye(4)
    dense[0, 3] = torch.nan  # which equals nothing, and has to be left alone all the same
    model = Neighbours(make(dense), change)
    trace(model, torch.ones(2, 4))
    torch.testing.assert_close(model.adjacency.to_dense(), dense, equal_nan=True)
    if change is None:
        assert model.adjacency._version == 0


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
@pytest.mark.parametrize("make", [SPARSE["COO"], SPARSE["CSR"]], ids=["COO", "CSR"])
def test_a_sparse_buffer_that_gains_elements_is_put_back(make: Any) -> None:
    model = Neighbours(make(torch.eye(4)), lambda a: a.add_(make(torch.ones(4, 4))))
    trace(model, torch.ones(2, 4))
    assert model.adjacency._nnz() == 4
    assert torch.equal(model.adjacency.to_dense(), torch.eye(4))


def test_a_buffer_in_the_layout_of_another_library_is_put_back() -> None:
    model = Neighbours(torch.eye(4).to_mkldnn(), lambda a: a.mul_(2))
    trace(model, torch.ones(2, 4))
    assert torch.equal(model.adjacency.to_dense(), torch.eye(4))


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
def test_a_sparse_buffer_hides_no_error_of_the_model() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        trace(Neighbours(torch.eye(4).to_sparse_csr()), torch.ones(2, 5))


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("name", ["complex32", "bits8", "float4_e2m1fn_x2", "float8_e4m3fn", "uint16"])
@pytest.mark.parametrize("changed", [False, True])
def test_buffers_of_rare_dtypes_are_put_back(name: str, changed: bool) -> None:
    """Some of which torch cannot compare."""
    raw = torch.arange(8, dtype=torch.uint8)
    buffer = raw.clone().view(getattr(torch, name))
    model = Neighbours(buffer, (lambda b: b.view(torch.uint8).add_(1)) if changed else None)
    before = buffer._version
    trace(model, torch.ones(2, 4))
    assert torch.equal(buffer.view(torch.uint8), raw)
    assert changed or buffer._version == before


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex32, torch.complex64])
def test_a_single_element_with_a_stride_is_left_alone(dtype: torch.dtype) -> None:
    buffer = torch.tensor([torch.nan, 1.0]).to(dtype)[::2]
    trace(Neighbours(buffer), torch.ones(2, 4))
    assert buffer._version == 0


@pytest.mark.parametrize(
    "inputs",
    [
        (torch.ones(2, 4), torch.ones(2, 4)),
        {"a": torch.ones(2, 4), "b": torch.ones(2, 4)},
        (torch.ones(2, 4), [torch.ones(2, 4)]),
        (torch.ones(2, 4), {"b": (torch.ones(2, 4), None, "text")}),
    ],
    ids=["tuple", "dict", "nested list", "nested dict"],
)
def test_forms_of_example_inputs(inputs: Any, device: torch.device) -> None:
    """Every tensor reaches the model on the model's device, also from inside a container."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, a: Tensor, b: Any) -> Tensor:
            while not isinstance(b, Tensor):
                b = b["b"] if isinstance(b, dict) else b[0]
            return self.linear(a) + self.linear(b)

    record = trace(Two().to(device), inputs)
    assert record.macs == 2 * 2 * 12
    assert [value.shape for value in record.inputs] == [(2, 4), (2, 4)]


def test_a_model_without_parameters(device: torch.device) -> None:
    record = trace(nn.Flatten(), torch.ones(2, 3, 4, device=device))
    assert (record.macs, dict(record.parameters)) == (0, {})


def test_a_model_on_the_meta_device() -> None:
    assert trace(nn.Linear(4, 3, device="meta"), torch.ones(2, 4)).macs == 24


def test_a_fake_model() -> None:
    with torch._subclasses.FakeTensorMode():
        model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        assert trace(model, torch.ones(2, 4)).macs == 24


def test_inside_other_modes() -> None:
    model, x = nn.Linear(4, 3), torch.ones(2, 4)
    with FlopCounterMode(display=False) as counter:
        assert trace(model, x).macs == 24
    assert counter.get_total_flops() == 48

    class Tracing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert trace(model, x).macs == 24
            return x

    trace(Tracing(), x)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([torch.ones(2, 4)], r"not list; write tuple\(inputs\)"),
        (np.ones((2, 4)), r"not ndarray; convert it with torch.as_tensor"),
        (None, r"not NoneType; .*write \(inputs,\)"),
        ({0: torch.ones(2, 4)}, r"key must be a string, not 0"),
    ],
    ids=["list", "array", "nothing", "number as key"],
)
def test_other_example_inputs_are_refused(inputs: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        trace(nn.Linear(4, 3), inputs)


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, not function"):
        trace(lambda x: x, torch.ones(1))  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_lazy_module_is_refused_and_stays_lazy() -> None:
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"'0.weight' has no values yet"):
        trace(model, torch.ones(2, 4))
    assert isinstance(model[0], nn.LazyLinear)


class Unfinished(nn.Module):
    """Makes what is missing when it first runs."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.inner = kind, nn.Sequential(nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4) -> (N, 3)."""
        if self.kind == "a buffer" and not hasattr(self.inner, "made"):
            self.inner.register_buffer("made", torch.ones(3), persistent=False)
        if self.kind == "a parameter" and not hasattr(self.inner, "made"):
            self.inner.made = nn.Parameter(torch.ones(3))
        if self.kind == "a layer" and not hasattr(self.inner, "made"):
            self.inner.add_module("made", nn.Sequential(nn.Linear(3, 3)))
        if self.kind == "an activation" and not hasattr(self.inner, "made"):
            self.inner.add_module("made", nn.ReLU())
        return self.inner(x)


@pytest.mark.parametrize("kind", ["a buffer", "an activation", "a parameter", "a layer"])
def test_what_the_first_forward_makes_is_not_left_behind(kind: str) -> None:
    """Parameters that a model gets when it first runs: it has to run before it is looked at."""
    model, again = Unfinished(kind), Unfinished(kind)
    refused = kind in {"a parameter", "a layer"}
    with (
        pytest.raises(ValueError, match=r"'inner.made' is made by .* run the model once") if refused else nullcontext()
    ):
        trace(model, torch.ones(2, 4))
    assert not hasattr(model.inner, "made")
    assert model.inner._non_persistent_buffers_set == set()
    assert model.state_dict().keys() == again.state_dict().keys()
    model(torch.ones(2, 4))
    assert trace(model, torch.ones(2, 4)).macs >= 24
    assert hasattr(model.inner, "made")


def test_an_error_of_the_model_comes_before_what_it_made() -> None:
    model = nn.Sequential(Unfinished("a parameter"), nn.Linear(7, 1))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        trace(model, torch.ones(2, 4))
    assert not hasattr(model[0].inner, "made")


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


def test_an_error_of_the_model_says_where() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Linear(5, 2)))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        trace(model, torch.ones(2, 4))
    assert "the module '1.0' of Sequential" in notes(caught.value)
    assert "forward(torch.float32 (2, 4))" in notes(caught.value)


def test_a_call_that_does_not_fit_the_signature_says_how_it_was_made() -> None:
    with pytest.raises(TypeError, match="unexpected keyword") as caught:
        trace(nn.Linear(4, 3), {"x": torch.ones(2, 4)})
    assert "forward(x=torch.float32 (2, 4)); a tuple holds positional" in notes(caught.value)


def test_an_error_that_the_model_handles_is_no_error() -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wrong, self.right = nn.Linear(5, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.wrong(x)
            except RuntimeError:
                return self.right(x)

    record = trace(Careful(), torch.ones(2, 4))
    assert [op.module for op in record.ops if op.macs] == ["right"]


def wrappers(model: nn.Module) -> Iterator[nn.Module]:
    yield torch.compile(model, backend="eager")
    yield nn.DataParallel(model)


def test_wrapped_models_are_traced_under_their_own_names() -> None:
    for wrapped in wrappers(nn.Sequential(nn.Linear(4, 3))):
        assert list(trace(wrapped, torch.ones(2, 4)).parameters) == ["0.weight", "0.bias"]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_a_scripted_part_is_traced() -> None:
    scripted = torch.jit.script(nn.Linear(4, 3))
    record = trace(nn.Sequential(nn.Linear(4, 4), scripted), torch.ones(2, 4))
    assert record.macs == 2 * (16 + 12)


def test_a_traced_model_can_still_be_copied_and_trained(device: torch.device) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).to(device)
    trace(model, torch.ones(2, 4))
    twin = copy.deepcopy(model)
    twin(torch.randn(5, 4, device=device)).sum().backward()
    assert twin[0].weight.grad is not None
