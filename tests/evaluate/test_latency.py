"""Latency: what runs, in which state, beside what; and that nothing is left changed. No test looks at real times."""

from __future__ import annotations

import json
import math
import pickle
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunelab import evaluate
from prunelab.evaluate import Latency, latency, report, timing


class Watched(nn.Module):
    """Notes how it is called. Its forward draws a random number and changes a buffer."""

    def __init__(self, notes: list[Any], name: str = "model") -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))
        self.note, self.name = notes.append, name  # a list of its own would be put back

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        self.calls += 1
        torch.rand(3)
        self.note(
            (self.name, self.training, self.drop.training, torch.is_grad_enabled(), torch.get_num_threads(), scale)
        )
        return x.mul_(scale) + self.drop(self.fc(x))


def test_it_runs_in_evaluation_mode_without_gradients_on_so_many_threads() -> None:
    notes: list[Any] = []
    latency(Watched(notes).train(), {"x": torch.ones(2, 4), "scale": 2.0}, repeats=2, warmup=1, threads=2)
    assert notes == [("model", False, False, False, 2, 2.0)] * 4  # once to see that it runs, one warm-up, two rounds


@pytest.mark.parametrize("fails", [True, False])
def test_everything_is_as_it_was(fails: bool, device: torch.device) -> None:
    model, other, x = Watched([]).to(device).train(), Watched([]).to(device).eval(), torch.ones(2, 4)
    model.drop.eval()
    before = [{name: t.clone() for name, t in m.state_dict().items()} for m in (model, other)]
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    inputs = (torch.ones(2, 5),) if fails else (x,)
    try:
        latency(model, inputs, other, repeats=3, threads=2)
    except RuntimeError:
        assert fails
    assert (model.training, model.drop.training, other.training) == (True, False, False)
    for m, tensors in zip((model, other), before, strict=True):
        assert all(torch.equal(t, tensors[name]) for name, t in m.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert torch.equal(x, torch.ones(2, 4))
    assert torch.backends.mha.get_fastpath_enabled()


def test_networks_run_in_turn() -> None:
    notes: list[Any] = []
    networks = {name: Watched(notes, name) for name in ("small", "dense")}
    found = latency(Watched(notes), torch.ones(1, 4), networks, repeats=2, warmup=1)
    first = ["model", "small", "dense"]
    assert [note[0] for note in notes] == first + first + first + first[::-1]
    assert list(found.against) == ["small", "dense"]
    assert len(found.seconds) == len(found.against["small"].seconds) == 2


class InPlace(nn.Module):
    """Notes its inputs, and does `change` to them."""

    def __init__(self, seen: list[Any], change: Any) -> None:
        super().__init__()
        self.note, self.change = seen.append, change

    def forward(self, x: Any) -> Any:
        self.note((id(x), x.tolist() if isinstance(x, Tensor) else sorted(x)))
        return self.change(x)


IN_PLACE = {
    "floats": (lambda x: x.sub_(0.45).div_(0.22), torch.ones(2), [1.0, 1.0]),
    "indices": (lambda x: x.add_(1), torch.tensor([0, 1]), [0, 1]),
    "past autograd": (lambda x: x.data.add_(1), torch.ones(2), [1.0, 1.0]),
    "shape": (lambda x: x.unsqueeze_(0), torch.ones(2), [1.0, 1.0]),
    "a dictionary": (lambda x: x.pop("b"), ({"a": torch.ones(1), "b": torch.ones(1)},), ["a", "b"]),
}


@pytest.mark.parametrize(("change", "inputs", "expected"), IN_PLACE.values(), ids=IN_PLACE.keys())
@pytest.mark.parametrize("inference", [False, True], ids=["", "in inference mode"])
def test_each_forward_sees_the_inputs_as_given(change: Any, inputs: Any, expected: Any, inference: bool) -> None:
    """Also beside a network that leaves them alone, which reads one copy again and again."""
    seen: list[Any] = []
    left: list[Any] = []
    with torch.inference_mode(inference):
        latency(InPlace(seen, change), inputs, InPlace(left, lambda x: x), repeats=4, warmup=1)
    assert [given for _, given in seen] == [given for _, given in left] == [expected] * 6
    assert len({address for address, _ in left[1:]}) == 1  # the first is before it is known that one is enough


def test_copies_of_the_inputs_take_no_measured_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that moves with what is done: a copy takes an hour, a forward a second."""
    now = [0.0]
    module = import_module("prunelab.evaluate.latency")
    arguments = module.call_arguments

    def copying(*args: Any) -> Any:
        now[0] += 3600
        return arguments(*args)

    def change(x: Tensor) -> Tensor:
        now[0] += 1
        return x.add_(1)

    monkeypatch.setattr(module, "call_arguments", copying)
    monkeypatch.setattr(timing, "clock", lambda: now[0])
    assert latency(InPlace([], change), torch.ones(2), repeats=3).seconds == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("enabled", [True, False])
def test_fused_layers_stay_on_where_they_are(enabled: bool) -> None:
    """`trace` turns the fast path of encoder layers off; what is measured is the network in use."""
    seen = []

    class Asking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(torch.backends.mha.get_fastpath_enabled())
            return x

    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        latency(Asking(), torch.ones(1), repeats=1)
        assert torch.backends.mha.get_fastpath_enabled() is enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert set(seen) == {enabled}


def test_a_compiled_network_runs_compiled() -> None:
    import torch.nn.attention.flex_attention  # where it is imported, `trace` turns compiling off

    compiled = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        def run(*args: Any) -> Any:
            compiled.append(True)
            return graph(*args)

        return run

    torch._dynamo.reset()
    latency(torch.compile(nn.Linear(3, 3), backend=backend), torch.ones(1, 3), repeats=2, warmup=1)
    assert len(compiled) == 4


def test_a_network_without_parameters(device: torch.device) -> None:
    found = latency(nn.ReLU(), torch.ones(2, device=device), repeats=1)
    assert found.device.startswith(device.type)


# --- what it says -------------------------------------------------------------------------------------------------------


def two() -> Latency:
    other = Latency("dense", (0.002, 0.004, 0.006, 0.004, 0.002), "cpu", 2)
    return Latency("model", (0.001, 0.001, 0.002, 0.002, 0.001), "cpu", 2, {"dense": other})


def test_medians_quartiles_and_the_speedup() -> None:
    found = two()
    assert (found.median, found.quartiles) == (0.001, (0.001, 0.002))
    assert found.speedup == found.speedups["dense"]
    assert (found.speedup.ratio, found.speedup.paired) == (4.0, 2.0)
    assert (found.speedup.low, found.speedup.high) == (2.0, 4.0)


def test_as_text_and_as_table() -> None:
    assert str(two()).splitlines() == [
        "network  median     quartiles  speedup of the model",
        "---------------------------------------------------",
        "model      1 ms  1 ms to 2 ms",
        "dense      4 ms  2 ms to 4 ms  2.00× (2.00 to 4.00)",
        "",
        "5 rounds on cpu, 2 threads; speedup: median of the rounds' ratios, and its interval of 93.8% confidence",
    ]
    html = two()._repr_html_()
    assert html.count("<tr>") == 3
    assert "2.00× (2.00 to 4.00)" in html
    assert "5 rounds on cpu, 2 threads" in html
    assert "color" not in html
    alone = Latency("model", (0.001,), "cpu", 1)
    assert str(alone).endswith("1 rounds on cpu, 1 thread")


def test_names_are_escaped() -> None:
    other = Latency("<b>", (1.0,), "cpu", 1)
    assert "<b>" not in Latency("model", (1.0,), "cpu", 1, {"<b>": other})._repr_html_()


def test_as_dictionary() -> None:
    found = json.loads(json.dumps(two().to_dict()))
    assert (found["median"], found["device"], found["threads"]) == (0.001, "cpu", 2)
    assert found["against"]["dense"]["seconds"] == [0.002, 0.004, 0.006, 0.004, 0.002]
    assert found["speedups"]["dense"]["paired"] == 2.0


def test_a_speedup_needs_one_other() -> None:
    alone = Latency("model", (1.0,), "cpu", 1)
    with pytest.raises(ValueError, match="measured alone; give latency against="):
        alone.speedup  # noqa: B018
    several = Latency("model", (1.0,), "cpu", 1, {"a": alone, "b": alone})
    with pytest.raises(ValueError, match=r"beside a, b; ask .speedups"):
        several.speedup  # noqa: B018


# --- what is refused ----------------------------------------------------------------------------------------------------


def test_what_cannot_be_measured_is_refused() -> None:
    model, x = nn.Linear(3, 3), torch.ones(1, 3)
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, not str"):
        latency("model", x)
    with pytest.raises(TypeError, match=r"against must be a torch.nn.Module, or several by name, not list"):
        latency(model, x, [model])
    with pytest.raises(TypeError, match=r"dense must be a torch.nn.Module, not int"):
        latency(model, x, {"dense": 3})
    with pytest.raises(ValueError, match="'model' is the name of the model itself"):
        latency(model, x, {"model": model})
    with pytest.raises(ValueError, match="model holds no values"):
        latency(nn.Linear(3, 3, device="meta"), x)
    with pytest.raises(ValueError, match="against holds no values"):
        latency(model, x, nn.Linear(3, 3, device="meta"))
    with pytest.raises(TypeError, match="example_inputs must be"):
        latency(model, [x])
    with pytest.raises(ValueError, match="repeats must be"):
        latency(model, x, repeats=0)


def test_an_error_of_a_network_says_which() -> None:
    with pytest.raises(RuntimeError) as caught:
        latency(nn.Linear(3, 3), torch.ones(1, 3), {"dense": nn.Linear(4, 4)})
    assert str(caught.value).startswith("dense does not run on example_inputs, which are the same for all networks: ")
    assert str(caught.value).endswith(str(caught.value.__cause__))
    assert "cannot be multiplied" in str(caught.value.__cause__)
    with pytest.raises(RuntimeError, match=r"^against does not run"):
        latency(nn.Linear(3, 3), torch.ones(1, 3), nn.Linear(4, 4))
    with pytest.raises(RuntimeError, match=r"^model does not run"):
        latency(nn.Linear(4, 4), torch.ones(1, 3), nn.Linear(3, 3))
    with pytest.raises(TypeError, match="example_inputs must be"):
        latency(nn.Linear(3, 3), [torch.ones(1, 3)], nn.Linear(3, 3))


def test_an_error_of_a_network_alone_passes_through() -> None:
    class Full(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError, match="full") as caught:
        latency(Full(), torch.ones(1, 3))
    assert "raised in the forward of the model" in caught.value.__notes__[-1]


# --- in a report --------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rounds by a clock in which every reading is a millisecond after the one before."""
    now = iter(range(10**9))
    monkeypatch.setattr(timing, "clock", lambda: next(now) * 1e-3)
    monkeypatch.setattr(timing, "MOST", 7)


def pruned() -> nn.Module:
    model = nn.Sequential(nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 5))
    with torch.no_grad():
        model[0].weight[:5] = 0
    return model


def test_a_report_measures_when_asked_and_keeps_it(quick: None) -> None:
    r = report(pruned(), torch.ones(1, 20))
    assert not r.measured
    assert "not measured" in str(r)
    assert r.to_dict()["latency"] is None
    found = r.latency
    assert r.latency is found
    assert r.measured
    assert list(found.against) == ["dense"]
    assert (found.speedup.paired, found.speedup.low, found.speedup.high) == pytest.approx((1, 1, 1))
    lines = str(r).splitlines()
    assert lines[2].startswith("latency: 7 rounds on cpu, ")
    row = next(line for line in lines if line.startswith("measured speedup"))
    assert " ".join(row.split()) == "measured speedup (latency) practice 1 ms 1 ms 1.00× (1.00 to 1.00)"
    assert "1.00× (1.00 to 1.00)" in r._repr_html_()
    assert json.loads(json.dumps(r.to_dict()))["latency"]["median"] == pytest.approx(1e-3)


def test_a_report_measures_at_once(quick: None) -> None:
    assert report(pruned(), torch.ones(1, 20), measure=True).measured


def test_looking_at_a_report_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    r = report(pruned(), torch.ones(1, 20))
    monkeypatch.setattr(timing, "clock", None)
    for look in (str, repr, lambda r: r._repr_html_(), lambda r: r.to_dict(), lambda r: r == r, pickle.dumps):
        look(r)
    assert not r.measured


def test_by_default_the_dense_network_is_a_copy_without_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, nn.Module] = {}

    def instead(model: nn.Module, example_inputs: Any, against: Any = None) -> str:
        seen.update(against or {}, model=model)
        return "measured"

    # evaluate.latency is the function, not the module that it hides.
    monkeypatch.setattr(import_module("prunelab.evaluate.latency"), "latency", instead)
    model = pruned()
    with torch.no_grad():
        model[2].weight.zero_()
        model[0].bias.fill_(math.nan)
        model[0].weight[5, 5] = math.inf  # beside zeros, which need a size all the same
    before = {name: t.clone() for name, t in model.state_dict().items()}
    assert report(model, torch.ones(1, 20)).latency == "measured"
    assert seen["model"] is model
    dense = seen["dense"]
    assert dense is not model
    for name, parameter in dense.named_parameters():
        assert (parameter != 0).all()
        kept = before[name] != 0
        assert torch.equal(parameter[kept].nan_to_num(), before[name][kept].nan_to_num())
        assert torch.isfinite(parameter[~kept]).all()
    assert all(torch.equal(t.nan_to_num(), before[name].nan_to_num()) for name, t in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_copy_without_zeros_in_other_dtypes(dtype: torch.dtype, quick: None) -> None:
    assert len(report(pruned().to(dtype), torch.ones(1, 20, dtype=dtype)).latency.seconds) == 7


def test_a_given_dense_network_is_the_one_that_runs(quick: None) -> None:
    notes: list[Any] = []
    dense = Watched(notes, "dense")
    r = report(nn.Linear(4, 4), torch.ones(1, 4), dense=dense)
    notes.clear()
    assert list(r.latency.against) == ["dense"]
    assert notes


def test_a_dense_network_on_the_meta_device_is_left_out(quick: None) -> None:
    r = report(nn.Linear(4, 2), torch.ones(1, 4), dense=nn.Linear(4, 4, device="meta"), measure=True)
    assert r.latency.against == {}
    row = next(line for line in str(r).splitlines() if line.startswith("measured speedup"))
    assert " ".join(row.split()) == "measured speedup (latency) practice – 1 ms –"


def test_a_model_that_cannot_be_copied_is_measured_alone(quick: None) -> None:
    model = nn.Linear(4, 2)
    model.graph = model.weight * 2  # torch copies no tensor of a graph
    assert report(model, torch.ones(1, 4)).latency.against == {}


def test_a_copy_of_a_report_holds_no_network(quick: None) -> None:
    r = report(pruned(), torch.ones(1, 20))
    again = pickle.loads(pickle.dumps(r))
    assert again == r
    with pytest.raises(ValueError, match="copy without the network"):
        again.latency  # noqa: B018
    found = r.latency
    assert pickle.loads(pickle.dumps(r)).latency == found


def test_the_plot_of_a_report_shows_theory_beside_practice(quick: None) -> None:
    pytest.importorskip("matplotlib")
    figure = report(pruned(), torch.ones(1, 20)).plot()
    names = [label.get_text().replace("\n", " ") for label in figure.axes[0].get_yticklabels()]
    assert names == [
        "compression ratio (theory)", "file, zeros left out (practice)", "theoretical speedup (theory)",
        "measured speedup (practice)",
    ]  # fmt: skip
    # 265 of 165 parameters that are not zero; 250 of 150 multiply-adds
    assert "compression ratio (theory) 1.61×" in figure.prunelab_alt
    assert "theoretical speedup (theory) 1.67×" in figure.prunelab_alt
    assert "measured speedup (practice) 1.00×, interval 1.00 to 1.00" in figure.prunelab_alt
    figure.draw_without_rendering()


def test_a_ratio_without_bound_can_be_plotted(quick: None) -> None:
    pytest.importorskip("matplotlib")
    model = nn.Linear(4, 2)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    figure = report(model, torch.ones(1, 4), dense=nn.Linear(4, 2, device="meta")).plot()
    assert "compression ratio (theory) inf×" in figure.prunelab_alt
    assert len(figure.axes[0].get_yticklabels()) == 3
    figure.draw_without_rendering()


def test_public_names() -> None:
    assert evaluate.latency is latency
    assert {"Latency", "Speedup", "latency", "sparse_runtime", "save_sparse", "load_sparse"} <= set(evaluate.__all__)
