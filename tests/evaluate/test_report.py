"""Counts and ratios of a network against counts made by hand."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prunelab
from prunelab import evaluate
from prunelab.evaluate import report, sizes


class LeNet300(nn.Sequential):
    """LeNet-300-100 (LeCun et al. 1998): three fully connected layers on 28 × 28 pixels."""

    def __init__(self) -> None:
        super().__init__(
            nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
        )


class LeNet5(nn.Sequential):
    """LeNet-5 as in Caffe's MNIST example, the network of Han et al. 2015."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
        )  # fmt: skip


# By hand, weights + biases:
#   784·300 + 300 = 235 500;  300·100 + 100 = 30 100;  100·10 + 10 = 1 010          sum 266 610
# and multiply-adds of one image, one a weight: 235 200 + 30 000 + 1 000             sum 266 200
LENET_300 = {"1": (235_500, 235_200), "3": (30_100, 30_000), "5": (1_010, 1_000)}
# 20·(1·25) + 20 = 520;  50·(20·25) + 50 = 25 050;  800·500 + 500 = 400 500;  500·10 + 10 = 5 010   sum 431 080
# The first convolution makes 24 × 24 sites of 20 · 25 = 500 products: 288 000; pooled to 12 × 12, the second
# makes 8 × 8 sites of 50 · 500 = 25 000: 1 600 000; then 400 000 and 5 000.                       sum 2 293 000
LENET_5 = {"0": (520, 288_000), "2": (25_050, 1_600_000), "5": (400_500, 400_000), "7": (5_010, 5_000)}


def ones(model: nn.Module) -> nn.Module:
    """A fresh weight can be zero by chance (once in 40 LeNet-5s): make sure that none is."""
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    return model


LENETS = [(LeNet300, LENET_300, 266_610, 266_200), (LeNet5, LENET_5, 431_080, 2_293_000)]


@pytest.mark.parametrize(("make", "layers", "params", "macs"), LENETS, ids=["LeNet-300-100", "LeNet-5"])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_lenets(make, layers, params, macs, batch, device) -> None:
    r = report(ones(make()).to(device), torch.zeros(batch, 1, 28, 28))
    assert (r.params, r.nonzero, r.macs, r.nonzero_macs) == (params, params, batch * macs, batch * macs)
    assert r.bytes == 4 * params
    assert (r.compression_ratio, r.theoretical_speedup) == (1, 1)
    assert {layer.name: (layer.params, layer.macs) for layer in r.layers} == {
        name: (p, batch * m) for name, (p, m) in layers.items()
    }


def remove(weight: Tensor, count: int) -> None:
    with torch.no_grad():
        weight.view(-1)[:count] = 0


def test_pruned_lenet(device) -> None:
    """A tenth left of each layer's weights: 23 520 + 3 000 + 100, and all 410 biases."""
    model = ones(LeNet300()).to(device)
    for i, left in ((1, 23_520), (3, 3_000), (5, 100)):
        remove(model[i].weight, model[i].weight.numel() - left)
    r = report(model, torch.zeros(1, 1, 28, 28))
    assert (r.params, r.macs) == (266_610, 266_200)
    assert (r.nonzero, r.nonzero_macs) == (26_620 + 410, 26_620)
    assert r.compression_ratio == 266_610 / 27_030
    assert r.theoretical_speedup == 10
    assert r.layers[1].sparsity == pytest.approx(1 - 3_100 / 30_100)


def test_layers_weigh_by_their_own_sparsity() -> None:
    """The last layers of a CNN hold its parameters, the first do its work: the two ratios are not one (Hubens 2020)."""
    model = ones(LeNet5())
    remove(model[5].weight, 400_000)  # all of the large Linear layer
    r = report(model, torch.zeros(1, 1, 28, 28))
    assert r.compression_ratio == 431_080 / 31_080
    assert r.theoretical_speedup == 2_293_000 / 1_893_000


def test_against_a_dense_network() -> None:
    """Channels really removed: the model has fewer parameters and runs fewer products than the dense one."""
    dense = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 4))
    small = ones(nn.Sequential(nn.Linear(10, 2), nn.ReLU(), nn.Linear(2, 4)))
    remove(small[0].weight, 10)
    r = report(small, torch.zeros(3, 10), dense=dense)
    assert (r.params, r.dense_params) == (20 + 2 + 8 + 4, 80 + 8 + 32 + 4)
    assert (r.macs, r.dense_macs) == (3 * 28, 3 * 112)
    assert r.compression_ratio == 124 / 24
    assert r.theoretical_speedup == 112 / 18


def test_the_dense_network_counts_whole_whatever_it_holds() -> None:
    dense, model = nn.Linear(10, 8), ones(nn.Linear(10, 4))
    remove(dense.weight, 80)
    meta = nn.Linear(10, 8, device="meta")
    for other in (dense, meta):
        r = report(model, torch.zeros(1, 10), dense=other)
        assert (r.compression_ratio, r.theoretical_speedup) == (2, 2)


def test_all_parameters_count_shared_ones_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 4)
            self.norm = nn.BatchNorm1d(4)
            self.head = nn.Linear(4, 10)
            self.head.weight = self.embedding.weight
            self.norm.requires_grad_(False)
            self.register_buffer("kept", torch.zeros(7, dtype=torch.float64))
            self.register_buffer("recomputed", torch.zeros(1000), persistent=False)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.norm(self.embedding(tokens)))

    r = report(Tied(), torch.tensor([1, 2]))
    assert r.params == 40 + 8 + 10  # embedding; scale and shift, frozen; bias of the head
    assert r.nonzero == 40 + 4 + 10  # a fresh shift is zero
    # float32 parameters; running mean and variance; int64 number of batches; the float64 buffer
    assert r.bytes == 4 * 58 + 4 * 8 + 8 + 8 * 7
    assert [(layer.name, layer.params, layer.macs) for layer in r.layers] == [
        ("embedding", 40, 0),
        ("norm", 8, 0),
        ("head", 10, 80),
    ]


def test_half_precision_stores_half() -> None:
    assert report(nn.Linear(4, 3).bfloat16(), torch.zeros(1, 4, dtype=torch.bfloat16)).bytes == 2 * 15


def test_grouped_convolutions_and_batched_products() -> None:
    """6 × 6 sites of 8 filters that read 2 of 4 channels, 3 × 3 each, half of them zero; then 2 · (3 · 6) · 5 in bmm."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 8, 3, groups=2, bias=False)
            self.mixing = nn.Parameter(torch.ones(2, 6, 5))

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x).mean((0, 1)).reshape(2, 3, 6)
            return torch.bmm(y, self.mixing)

    model = ones(Network())
    remove(model.conv.weight, 72)
    remove(model.mixing, 15)
    r = report(model, torch.zeros(1, 4, 8, 8))
    conv, bmm = 36 * 8 * 2 * 9, 2 * 3 * 6 * 5
    assert {layer.name: layer.macs for layer in r.layers} == {"conv": conv, "": bmm}
    assert (r.macs, r.nonzero_macs) == (conv + bmm, conv / 2 + bmm * 3 / 4)


# --- bytes with zeros left out ------------------------------------------------------------------------------------------


def scattered(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def spread(weight: Tensor, left: int) -> None:
    """Set all but `left` weights to zero, at places that have no pattern."""
    with torch.no_grad():
        weight.view(-1)[scattered(weight.numel())[left:]] = 0


def test_the_file_of_a_pruned_lenet() -> None:
    """A tenth left of the first two layers, nothing of the third: bitmaps of 29 400 and 3 750 bytes and four bytes a
    weight; 11 row pointers of one byte and no elements; and the biases."""
    model = ones(LeNet300())
    for i, left in ((1, 23_520), (3, 3_000), (5, 0)):
        spread(model[i].weight, left)
    r = report(model, torch.zeros(1, 1, 28, 28))
    sizes = [29_400 + 94_080 + 1_200, 3_750 + 12_000 + 400, 11 + 40]
    assert [(layer.bytes, layer.sparse_bytes, layer.encoding) for layer in r.layers] == [
        (942_000, sizes[0], "bitmap + dense"),
        (120_400, sizes[1], "bitmap + dense"),
        (4_040, sizes[2], "CSR + dense"),
    ]
    assert (r.bytes, r.sparse_bytes, r.dense_bytes) == (1_066_440, sum(sizes), 1_066_440)
    assert r.bytes_ratio == 1_066_440 / sum(sizes)


def test_two_of_four_is_recognised() -> None:
    model = nn.Linear(16, 8, bias=False)
    prunelab.prune(model, scope=prunelab.scope.NM(2, 4))
    layer = report(model, torch.zeros(1, 16)).layers[0]
    assert layer.encoding in ("2:4", "1:2")  # by chance, every pair may hold one: then a bit less each
    assert layer.sparse_bytes <= 4 * 64 + 16


def test_without_zeros_nothing_is_saved() -> None:
    r = report(ones(LeNet300()), torch.zeros(1, 1, 28, 28))
    assert (r.sparse_bytes, r.bytes_ratio) == (r.bytes, 1.0)
    assert {layer.encoding for layer in r.layers} == {"dense"}


def test_smaller_layers_need_no_encoding() -> None:
    dense, small = nn.Linear(10, 8), ones(nn.Linear(10, 2))
    r = report(small, torch.zeros(1, 10), dense=dense)
    assert (r.bytes, r.sparse_bytes, r.dense_bytes, r.bytes_ratio) == (88, 88, 352, 4.0)
    meta = report(small, torch.zeros(1, 10), dense=nn.Linear(10, 8, device="meta"))
    assert meta.dense_bytes == 352


def test_shared_weights_and_buffers_are_stored_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)
            self.second.weight = self.first.weight
            self.register_buffer("mask", torch.zeros(800, dtype=torch.bool))
            self.register_buffer("cache", torch.zeros(999), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    model = ones(Tied())
    spread(model.first.weight, 1_000)
    r = report(model, torch.zeros(1, 64))
    # The bitmap of 4 096 weights and 1 000 of them; two pointers of an empty row. The buffer's module has no row.
    assert r.sparse_bytes == 512 + 4_000 + 2
    assert [(layer.name, layer.sparse_bytes) for layer in r.layers] == [("first", 4_512), ("second", 0)]
    assert r.bytes == 4 * 4_096 + 800
    model.second.weight = nn.Parameter(model.first.weight.detach().t())  # another parameter over the same memory
    assert report(model, torch.zeros(1, 64)).sparse_bytes == r.sparse_bytes


def test_the_file_that_is_written_is_as_large(tmp_path: Path) -> None:
    """`save_sparse` writes those bytes and a header."""
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 10))
    prunelab.prune(model, 0.8)
    size = evaluate.save_sparse(tmp_path / "net", model)
    header = 8 + int.from_bytes((tmp_path / "net").read_bytes()[:8], "little")
    assert size - header == report(model, torch.zeros(1, 1, 8, 8)).sparse_bytes


def test_an_encoding_that_does_not_read_back_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ones(LeNet300())
    spread(model[1].weight, 5)
    monkeypatch.setattr(sizes, "decode", lambda encoded: torch.ones(encoded.shape))
    with pytest.raises(RuntimeError, match="does not read back"):
        report(model, torch.zeros(1, 1, 28, 28))


@pytest.mark.filterwarnings("ignore:.*quantized:UserWarning", "ignore:.*quantized:DeprecationWarning")
class Graph(nn.Module):
    """A layer of a graph network over 50 nodes, which are their own neighbours."""

    def __init__(self, adjacency: Tensor) -> None:
        super().__init__()
        self.register_buffer("adjacency", adjacency)
        self.linear = ones(nn.Linear(8, 6))

    def forward(self, x: Tensor) -> Tensor:
        """(50, 8) -> (50, 6)."""
        return self.linear(self.adjacency @ x)


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
@pytest.mark.parametrize("make", [Tensor.to_sparse, Tensor.to_sparse_csr], ids=["COO", "CSR"])
def test_a_network_with_a_sparse_buffer(make: Callable[[Tensor], Tensor]) -> None:
    r = report(Graph(make(torch.eye(50))), torch.randn(50, 8), measure=True)
    assert (r.params, r.nonzero, r.bytes) == (54, 54, 4 * (54 + 2500))
    assert list(r.latency.against) == ["dense"]


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
def test_a_sparse_weight_counts_what_it_stores() -> None:
    model = Graph(torch.eye(50).to_sparse_csr())
    remove(model.linear.weight, 40)
    model.linear.weight = nn.Parameter(model.linear.weight.detach().to_sparse_csr())
    r = report(model, torch.randn(50, 8))
    assert (r.params, r.nonzero, r.layers[-1].sparsity) == (54, 14, pytest.approx(40 / 54))


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "uint16", "uint32", "uint64"])
@pytest.mark.parametrize("as_parameter", [False, True])
def test_dtypes_that_torch_does_not_count(name: str, as_parameter: bool) -> None:
    """The ten elements that have a bit set, and as CSR the columns of each and two pointers, of one byte."""
    dtype, model = getattr(torch, name), ones(nn.Linear(4, 3))
    raw = torch.zeros(100, dtype.itemsize, dtype=torch.uint8)
    raw[:10, -1] = 1
    tensor = raw.view(dtype).reshape(100)
    if as_parameter:
        model.extra = nn.Parameter(tensor, requires_grad=False)
    else:
        model.register_buffer("extra", tensor)
    r = report(model, torch.zeros(1, 4))
    assert (r.params, r.nonzero) == ((115, 25) if as_parameter else (15, 15))
    assert r.sparse_bytes == 4 * 15 + 12 + 10 * dtype.itemsize


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_and_virtual_tensors_count_as_they_are() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("virtual", torch.zeros(100, device="meta"))
            self.register_buffer("quantised", torch.quantize_per_tensor(torch.zeros(50), 1.0, 0, torch.qint8))

        def forward(self, x: Tensor) -> Tensor:
            return x

    r = report(Holder(), torch.ones(1))
    assert r.bytes == r.sparse_bytes == 450


def test_nothing_left() -> None:
    model = LeNet300()
    for p in model.parameters():
        nn.init.zeros_(p)
    r = report(model, torch.zeros(1, 1, 28, 28))
    assert (r.nonzero, r.sparsity, r.compression_ratio, r.theoretical_speedup) == (0, 1, math.inf, math.inf)
    assert "compression ratio inf×" in str(r)


def test_nothing_there() -> None:
    r = report(nn.Flatten(), torch.zeros(2, 3))
    assert (r.params, r.macs, r.bytes, r.layers) == (0, 0, 0, ())
    assert (r.compression_ratio, r.theoretical_speedup, r.sparsity) == (1, 1, 0)
    assert "total" in str(r)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_a_layer_without_inputs() -> None:
    r = report(nn.Linear(0, 3), torch.zeros(2, 0))
    assert (r.params, r.macs, r.theoretical_speedup) == (3, 0, 1)


def test_nan_and_infinity_are_not_zero() -> None:
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = torch.tensor([[float("nan"), 0.0], [-0.0, float("inf")]])
    assert report(model, torch.zeros(1, 2)).nonzero == 2


def test_attention_products_belong_to_the_module_they_run_in() -> None:
    layer = ones(nn.MultiheadAttention(8, 2, batch_first=True))
    remove(layer.in_proj_weight, 96)
    r = report(layer, {"query": (x := torch.zeros(1, 5, 8)), "key": x, "value": x})
    projection, output, attention = 5 * 3 * 64, 5 * 64, 2 * 5 * 5 * 8
    assert [(row.name, row.macs) for row in r.layers] == [("", projection + attention), ("out_proj", output)]
    assert r.nonzero_macs == projection / 2 + output + attention


def test_rows_add_up() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    for p in model.parameters():
        remove(p, p.numel() // 3)
    r = report(model, torch.zeros(2, 5, 8))
    for field in ("params", "nonzero", "macs", "nonzero_macs"):
        assert sum(getattr(layer, field) for layer in r.layers) == pytest.approx(getattr(r, field))


def test_a_module_used_twice_does_its_work_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = self.second = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.second(self.first(x)))

    r = report(Twice(), torch.zeros(1, 4))
    assert (r.params, r.macs) == (20, 32)
    assert [layer.name for layer in r.layers] == ["first"]


def test_the_model_is_unchanged() -> None:
    model = LeNet5().train()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    report(model, torch.zeros(1, 1, 28, 28))
    assert model.training
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())


def test_what_cannot_be_counted_is_refused() -> None:
    x = torch.zeros(1, 4)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, not str"):
        report("model", x)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, not NoneType"):
        report(None, x)
    with pytest.raises(TypeError, match=r"dense must be a torch\.nn\.Module, not int"):
        report(nn.Linear(4, 3), x, dense=3)
    with pytest.raises(ValueError, match=r"'weight' holds no values.*load the weights"):
        report(nn.Linear(4, 3, device="meta"), x)
    with pytest.raises(TypeError, match="example_inputs must be"):
        report(nn.Linear(4, 3), [x])


# --- what it shows -----------------------------------------------------------------------------------------------------


def test_as_text() -> None:
    """3 000 bits are 375 bytes, and 600 weights of four bytes are 2 400; the dense layer has 1 200."""
    model = ones(nn.Sequential(nn.Linear(100, 30, bias=False), nn.ReLU(), nn.Linear(30, 10, bias=False)))
    spread(model[0].weight, 600)
    assert str(report(model, torch.zeros(1, 100))).splitlines() == [
        "Sequential: 3,300 parameters, 900 nonzero, 3,300 MACs, 13.2 kB",
        "compression ratio 3.67×, theoretical speedup 3.67× (dense: 3,300 parameters, 3,300 MACs)",
        "latency: measured when asked for, by .latency or report(..., measure=True)",
        "",
        "ratio                                   kind        dense  this network  dense / this",
        "-------------------------------------------------------------------------------------",
        "compression ratio (nonzero parameters)  theory      3,300           900         3.67×",
        "theoretical speedup (nonzero MACs)      theory      3,300           900         3.67×",
        "file, zeros stored                      practice  13.2 kB       13.2 kB         1.00×",
        "file, zeros left out                    practice  13.2 kB       3.98 kB         3.32×",
        "measured speedup (latency)              practice        –             –  not measured",
        "",
        "layer  type    parameters  nonzero  sparsity   MACs  nonzero MACs     file  encoding",
        "------------------------------------------------------------------------------------",
        "0      Linear       3,000      600     0.800  3,000           600  2.77 kB    bitmap",
        "2      Linear         300      300     0.000    300           300   1.2 kB     dense",
        "------------------------------------------------------------------------------------",
        "total               3,300      900     0.727  3,300           900  3.98 kB",
    ]


def test_as_dictionary() -> None:
    r = report(ones(LeNet300()), torch.zeros(1, 1, 28, 28))
    d = json.loads(json.dumps(r.to_dict()))
    for name in ("params", "nonzero", "macs", "bytes", "sparse_bytes", "dense_bytes", "compression_ratio",
                 "theoretical_speedup", "bytes_ratio", "sparsity"):  # fmt: skip
        assert d[name] == getattr(r, name)
    assert d["latency"] is None
    assert not [name for name in d if name.startswith("_")]
    assert d["layers"][2] == {
        "name": "5", "kind": "Linear", "params": 1_010, "nonzero": 1_010, "macs": 1_000, "nonzero_macs": 1_000.0,
        "bytes": 4_040, "sparse_bytes": 4_040, "encoding": "dense", "sparsity": 0.0,
    }  # fmt: skip


class Table(HTMLParser):
    """Collects what a screen reader would use, and checks that every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text.append(data)


def test_as_table() -> None:
    html = report(ones(LeNet300()), torch.zeros(1, 1, 28, 28))._repr_html_()
    table = Table(html)
    tags = [tag for tag, _ in table.tags]
    assert (tags.count("thead"), tags.count("tfoot")) == (2, 1)
    assert [a["scope"] for tag, a in table.tags if tag == "th"] == ["col"] * 5 + ["row"] * 5 + ["col"] * 9 + ["row"] * 4
    assert "compression ratio 1.00×" in "".join(table.text)
    assert re.findall(r"<th [^>]*></th>", html) == []  # a column without a name says nothing to a screen reader
    regions = [attributes for _, attributes in table.tags if attributes.get("role") == "region"]
    assert [region["aria-label"] for region in regions] == [
        "Theory and practice of LeNet300",
        "Size of LeNet300, layer by layer",
    ]
    assert [region["tabindex"] for region in regions] == ["0", "0"]
    assert "color" not in html  # nor background-color: both themes keep their own
    assert "background" not in html


def test_on_a_narrow_screen_the_tables_scroll_and_the_headline_does_not() -> None:
    html = report(ones(LeNet300()), torch.zeros(1, 1, 28, 28))._repr_html_()
    headline, *regions = html.split('role="region"')
    assert len(regions) == 2
    assert "theoretical speedup" in headline
    for region in regions:
        assert "overflow-x:auto" in region.partition(">")[0]
        assert "<table" in region


@pytest.mark.parametrize("show", [repr, str, "{!r}".format])
def test_a_terminal_shows_the_text_and_not_the_fields(show: Callable[[object], str]) -> None:
    shown = show(report(ones(LeNet300()), torch.zeros(1, 1, 28, 28)))
    assert shown.startswith("LeNet300: 266,610 parameters")
    assert "Layer(" not in shown


def test_a_notebook_gets_the_text_and_the_table() -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    r = report(nn.Linear(2, 2), torch.zeros(1, 2))
    data, _ = formatters.DisplayFormatter().format(r)
    assert (data["text/plain"], data["text/html"]) == (str(r), r._repr_html_())


def test_names_are_escaped() -> None:
    odd = type("<script>", (nn.Sequential,), {})(type("<i>", (nn.Linear,), {})(2, 2))
    html = report(odd, torch.zeros(1, 2))._repr_html_()
    assert "<script>" not in html
    assert "<i>" not in html


@pytest.mark.parametrize(("n", "shown"), [(249, "996 bytes"), (250, "1 kB"), (249_900, "1 MB"), (249_000, "996 kB")])
def test_sizes(n: int, shown: str) -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = nn.Parameter(torch.ones(n))

        def forward(self, x: Tensor) -> Tensor:
            return x

    assert str(report(Holder(), torch.ones(1))).splitlines()[0].endswith(shown)


def test_public_names() -> None:
    assert set(evaluate.__all__) >= {"report", "Report"}
    assert evaluate.report is report


def test_an_operation_of_unknown_cost_is_said() -> None:
    library = torch.library.Library("prunelab_report_test", "DEF")
    library.define("mystery(Tensor x) -> Tensor")
    library.impl("mystery", lambda x: x.clone(), "CompositeExplicitAutograd")

    class Custom(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.prunelab_report_test.mystery(x)

    r = report(Custom(), torch.ones(2))
    assert r.uncounted == ("prunelab_report_test::mystery",)
    assert "not counted in the MACs (unknown operations): prunelab_report_test::mystery" in str(r)
