"""What a record says of each operation: values, weights, modules; and what it does not hold."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from prunelab.trace import NonzeroCounter, Op, Trace, Weight, trace


def products(record: Trace) -> list[Op]:
    return [op for op in record.ops if op.macs]


def counted(model: nn.Module, inputs: Any) -> Trace:
    return trace(model, inputs, nonzero=NonzeroCounter(model))


def weights(record: Trace) -> list[tuple[str, ...]]:
    """The names of the parameters that each product reads as weights, in order."""
    return [weight.names for op in record.ops for product in op.products for weight in product.weights]


class Reads(nn.Module):
    """x @ f(w, v): a weight on its way from two parameters to a matrix product."""

    def __init__(self, f: Any) -> None:
        super().__init__()
        self.f = f
        self.w, self.v = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.f(self.w, self.v)


@pytest.mark.parametrize(
    ("f", "names"),
    [
        (lambda w, v: w, ("w",)),
        (lambda w, v: w.t(), ("w",)),
        (lambda w, v: w[:, 1:3], ("w",)),
        (lambda w, v: w.expand(2, 4, 4), ("w",)),
        (lambda w, v: w.reshape(2, 8).view(4, 4), ("w",)),
        (lambda w, v: w.double().float(), ("w",)),
        (lambda w, v: w * torch.eye(4, device=w.device), ("w",)),
        (lambda w, v: w + v, ("v", "w")),
        (lambda w, v: torch.cat([w, v], 1), ("v", "w")),
        (lambda w, v: torch.zeros_like(w).copy_(v), ("v", "w")),
    ],
    ids=["itself", "transposed", "slice", "expanded", "reshaped", "cast", "masked", "sum", "joined", "copied"],
)
def test_a_weight_is_known_by_the_parameters_it_is_computed_from(f: Any, names: Any, device: torch.device) -> None:
    assert weights(trace(Reads(f).to(device), torch.ones(2, 3, 4))) == [names]


def test_what_depends_on_the_input_is_no_weight() -> None:
    """Attention scores, gates, hypernetworks: computed with parameters, but not from them alone."""
    assert weights(trace(nn.Bilinear(4, 4, 3), (torch.ones(2, 4), torch.ones(2, 4)))) == [("weight",)]

    class Gated(Reads):
        def forward(self, x: Tensor) -> Tensor:
            return x @ (self.w * x.sum())

    assert weights(trace(Gated(None), torch.ones(2, 4))) == []


def test_a_bias_is_no_weight() -> None:
    assert weights(trace(nn.Linear(4, 3), torch.ones(2, 4))) == [("weight",)]


def test_weights_under_autocast(device: torch.device) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).to(device)
    with torch.autocast(device.type, torch.bfloat16):
        record = trace(model, torch.ones(2, 4))
    assert weights(record) == [("0.weight",), ("2.weight",)]
    assert products(record)[0].inputs[1].dtype == torch.bfloat16


def test_recurrent_weights(device: torch.device) -> None:
    record = trace(nn.LSTM(5, 7).to(device), torch.ones(4, 2, 5))
    assert set(weights(record)) == {("weight_ih_l0",), ("weight_hh_l0",)}


def test_shared_parameters_go_by_their_first_name() -> None:
    class Tied(nn.Module):
        def __init__(self, share: str) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
            if share == "parameter":
                self.head.weight = self.embedding.weight
            else:
                self.head.weight.data = self.embedding.weight.data

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.embedding(x))

    for share in ("parameter", "memory"):
        record = trace(Tied(share), torch.tensor([1, 2]))
        assert list(record.parameters) == ["embedding.weight"]
        assert weights(record) == [("embedding.weight",)]


def zeroed(weight: Tensor, count: int) -> None:
    with torch.no_grad():
        weight.view(-1)[:count] = 0


def test_nonzero_elements_are_those_of_the_operand(device: torch.device) -> None:
    model = nn.Linear(4, 3).to(device)
    nn.init.ones_(model.weight)
    zeroed(model.weight, 5)
    model.weight.data[2, 3] = float("nan")
    (op,) = products(counted(model, torch.ones(2, 4)))
    assert op.products[0].weights == (Weight(("weight",), 12, 7),)
    assert op.products[0].nonzero_macs == 14


def test_nonzero_elements_of_computed_weights() -> None:
    """Masks of torch.nn.utils.prune and parametrizations: what the product reads, not what the parameter holds."""
    pruned = nn.Linear(4, 3)
    prune.custom_from_mask(pruned, "weight", torch.tensor([[1.0], [0.0], [1.0]]).expand(3, 4))
    record = counted(pruned, torch.ones(1, 4))
    assert weights(record) == [("weight_orig",)]
    assert (record.macs, record.nonzero_macs) == (12, 8)

    normed = parametrizations.weight_norm(nn.Linear(4, 3))
    normed.parametrizations.weight.original0.data[1] = 0
    record = counted(normed, torch.ones(1, 4))
    assert weights(record) == [tuple(f"parametrizations.weight.original{i}" for i in (0, 1))]
    assert (record.macs, record.nonzero_macs) == (12, 8)


def test_a_weight_read_at_each_step_counts_at_each_step() -> None:
    cell = nn.GRUCell(2, 3)
    zeroed(cell.weight_hh, 9)

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: Tensor) -> Tensor:
            state = torch.zeros(1, 3)
            for step in x:
                state = self.cell(step, state)
            return state

    record = counted(Loop(), torch.ones(5, 1, 2))
    assert (record.macs, record.nonzero_macs) == (5 * (18 + 27), 5 * (18 + 18))


def test_parts_of_one_weight_are_counted_apart() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(4, 6))
            self.w.data[:, :3] = 0

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return tuple(x @ part for part in self.w.chunk(2, dim=1))

    first, second = products(counted(Halves(), torch.ones(1, 4)))
    assert [op.products[0].nonzero_macs for op in (first, second)] == [0, 12]


@pytest.mark.parametrize("f", [lambda w, k: w[:k], lambda w, k: w * (torch.arange(4) < k).float()[:, None]])
def test_one_count_is_not_taken_for_another(f: Any) -> None:
    """Views that start at the same place, and temporary weights that get the memory of freed ones."""

    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(4, 4))
            self.w.data[:, 0] = 0

        def forward(self, x: Tensor) -> list[Tensor]:
            return [F.linear(x, f(self.w, k)) for k in (1, 2, 3)]

    record = counted(Growing(), torch.ones(1, 4))
    assert [op.products[0].weights[0].nonzero for op in products(record)] == [3, 6, 9]


def test_a_product_of_two_weights_is_weighted_by_both() -> None:
    class LowRank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.ones(4, 2)), nn.Parameter(torch.ones(2, 4))
            self.a.data[:2], self.b.data[:, :1] = 0, 0

        def forward(self, x: Tensor) -> Tensor:
            return x @ (self.a @ self.b)

    inner, outer = products(counted(LowRank(), torch.ones(1, 4)))
    assert inner.products[0].nonzero_macs == 32 * (1 / 2) * (3 / 4)
    assert outer.products[0].nonzero_macs == 16 * (2 * 3) / 16


def test_without_a_counter_nothing_is_counted() -> None:
    record = trace(nn.Linear(4, 3), torch.ones(1, 4))
    assert products(record)[0].products[0].weights == (Weight(("weight",), 12, None),)
    with pytest.raises(ValueError, match=r"of weight were not counted; trace with nonzero=NonzeroCounter\(model\)"):
        record.nonzero_macs  # noqa: B018


@pytest.mark.parametrize(
    "view",
    [
        lambda w: w,
        lambda w: w.t(),
        lambda w: w.reshape(2, 6),
        lambda w: w[:, ::2],
        lambda w: w[:, :1].expand(4, 3),
        lambda w: w[:, 1:2].expand(4, 3),
        lambda w: w[1:],
        lambda w: w[:0],
        lambda w: w[0, 0],
        lambda w: w.bool(),
    ],
)
def test_a_counter_counts_each_view_for_itself(view: Any) -> None:
    model = nn.Linear(3, 4, bias=False)
    model.weight.data = torch.arange(12.0).view(4, 3) % 3  # the first column is zero
    counter = NonzeroCounter(model)
    w = model.weight.detach()
    for other in (w, w[:, :1].expand(4, 3), w[:2], w.view(-1)[:8]):
        counter.count(other)
    assert counter.count(view(w)) == sum(value != 0 for value in view(w).flatten().tolist())


RARE = ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3fnuz", "uint16", "uint32", "uint64", "bits8"]


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("name", [*RARE, "float4_e2m1fn_x2", "bits16", "complex32", "bool", "int16"])
@pytest.mark.parametrize("known", [True, False], ids=["a parameter", "temporary"])
def test_a_counter_counts_every_dtype(name: str, known: bool) -> None:
    dtype = getattr(torch, name)
    raw = torch.zeros(3, 2, dtype.itemsize, dtype=torch.uint8)
    raw[[0, 2], [1, 0], -1] = 1
    model = nn.Module()
    weight = raw.view(dtype).reshape(3, 2)
    model.weight = nn.Parameter(weight, requires_grad=False)
    assert NonzeroCounter(model).count(model.weight if known else weight.clone().t()) == 2
    assert NonzeroCounter(model).count(weight[:0]) == 0


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float32", "bfloat16"])
def test_negative_zeros_count_as_they_are_encoded(name: str) -> None:
    from prunelab.evaluate import encode

    weight = torch.tensor([0.0, -0.0, 1.0, torch.nan] * 20).to(getattr(torch, name))
    assert NonzeroCounter(nn.Module()).count(weight) == encode(weight, "bitmap").nonzero


def test_a_counter_counts_negated_and_conjugated_views() -> None:
    weight = torch.tensor([[1 + 2j, 0j], [3 + 0j, 4j]], dtype=torch.complex64)
    model = nn.Module()
    model.imag = nn.Parameter(weight.conj().imag)
    model.whole = nn.Parameter(weight.conj())
    assert model.imag.is_neg()
    counter = NonzeroCounter(model)
    assert (counter.count(model.imag), counter.count(model.whole)) == (2, 3)


@pytest.mark.filterwarnings(
    "ignore:Sparse .* is in beta|Sparse invariant checks|torch.quantize_per|The PyTorch API of nest"
)
def test_a_counter_counts_what_is_sparse() -> None:
    """What is stored and zero all the same is no element; nor what adds up to zero."""
    dense = torch.eye(4)
    parts = torch.sparse_coo_tensor([[0, 0, 1], [1, 1, 2]], [1.0, -1.0, 2.0], (4, 4))
    csr = torch.sparse_csr_tensor([0, 1, 2, 2], [0, 1], [0.0, 5.0], (3, 4))
    blocks = torch.eye(4).to_sparse_bsr((2, 2))
    counter = NonzeroCounter(nn.Module())
    sparse = [dense.to_sparse(), dense.to_sparse_csr(), dense.to_sparse_csc(), blocks, parts, csr, dense.to_mkldnn()]
    assert [counter.count(tensor) for tensor in sparse] == [4, 4, 4, 4, 1, 1, 4]
    assert counter.count(torch.quantize_per_tensor(dense, 0.1, 3, torch.qint8)) == 4
    assert counter.count(torch.nested.nested_tensor([torch.ones(2), torch.zeros(3)])) == 2


def test_a_counter_counts_what_is_no_parameter_anew() -> None:
    """A temporary weight's memory soon holds another."""
    counter, temporary = NonzeroCounter(nn.Linear(3, 4)), torch.zeros(4, 4)
    assert counter.count(temporary) == 0
    assert counter.count(temporary.fill_(1)) == 16


def test_a_counter_needs_values() -> None:
    with pytest.raises(ValueError, match=r"'weight' holds no values.*load the weights first"):
        NonzeroCounter(nn.Linear(4, 3, device="meta"))
    with torch._subclasses.FakeTensorMode(), pytest.raises(ValueError, match="holds no values"):
        NonzeroCounter(nn.Linear(4, 3))


def test_values_link_operations() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 2))
    record = trace(model, torch.ones(1, 3, 4, 4))
    conv, relu, *_ = record.ops
    assert conv.name == "aten::convolution"
    assert conv.inputs == (*record.inputs, record.parameters["0.weight"], record.parameters["0.bias"])
    assert conv.args[3:] == ((1, 1), (0, 0), (1, 1), False, (0, 0), 1)
    assert conv.outputs[0].shape == (1, 4, 2, 2)
    assert relu.outputs == relu.inputs == conv.outputs  # in place: the same tensor, so the same value
    assert record.ops[-1].outputs == record.outputs
    produced = {value.id for op in record.ops for value in op.outputs}
    known = {value.id for value in (*record.inputs, *record.parameters.values())}
    assert all(value.id in produced | known for op in record.ops for value in op.inputs)


def test_a_shape_changed_in_place() -> None:
    class Squeeze(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 2).squeeze_().relu()

    double, squeeze, relu = trace(Squeeze(), torch.ones(1, 4)).ops
    assert squeeze.outputs[0].id == double.outputs[0].id
    assert (squeeze.inputs[0].shape, squeeze.outputs[0].shape, relu.inputs[0].shape) == ((1, 4), (4,), (4,))


def test_no_value_is_taken_for_another(device: torch.device) -> None:
    """Freed tensors leave their addresses to later ones: each result must still have an id of its own."""
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(50))).to(device)
    ids = [value.id for op in trace(model, torch.ones(4, 8)).ops for value in op.outputs]
    assert len(ids) == len(set(ids))


def test_modules_are_known() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.body(x)) @ x.t()

    assert [op.module for op in products(trace(Net(), torch.ones(2, 4)))] == ["body.0", "body.1", ""]


class InAnotherThread(nn.Module):
    """While an operation runs here, another thread is inside of the module `busy`."""

    def __init__(self) -> None:
        super().__init__()
        self.busy = Busy()

    def forward(self, x: Tensor) -> Tensor:
        thread = threading.Thread(target=self.busy, args=(x,))
        thread.start()
        self.busy.inside.wait()
        x = x + 1
        self.busy.go_on.set()
        thread.join()
        return x * 2


class Busy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside, self.go_on = threading.Event(), threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        self.inside.set()
        self.go_on.wait()
        return x


def test_modules_that_run_in_other_threads_do_not_count() -> None:
    record = trace(InAnotherThread(), torch.ones(1))
    assert [(op.name, op.module) for op in record.ops] == [("aten::add.Tensor", ""), ("aten::mul.Tensor", "")]


def test_modules_of_another_model_do_not_count() -> None:
    other = nn.Linear(1, 1)

    class Calls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = nn.ReLU()
            self.others = [other]  # no submodule

        def forward(self, x: Tensor) -> Tensor:
            return self.own(self.others[0](x))

    assert [op.module for op in trace(Calls(), torch.ones(1, 1)).ops if op.name != "aten::t"] == ["", "own"]


def test_no_tensor_outlives_the_forward(device: torch.device) -> None:
    alive: list[Any] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            alive.append(weakref.ref(x))
            return x * 2

    model = nn.Sequential(nn.Linear(4, 4), Spy(), nn.Linear(4, 4), Spy()).to(device)
    record = trace(model, torch.ones(2, 4, device=device))
    gc.collect()
    assert [ref() for ref in alive] == [None, None]
    assert record.outputs[0].shape == (2, 4)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_objects_in_arguments_are_kept_as_names() -> None:
    flex = pytest.importorskip("torch.nn.attention.flex_attention")

    class Flex(nn.Module):
        def forward(self, q: Tensor) -> Tensor:
            return flex.flex_attention(q, q, q)

    (op,) = products(trace(Flex(), torch.ones(1, 2, 16, 8)))
    assert op.args[3].startswith("<")  # the score modifier, a function that could hold anything alive
