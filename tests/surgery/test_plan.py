"""A plan is plain data: through JSON, in a new process, on a fresh network; refused by another one."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunelab
from prunelab.surgery import Part, Plan
from prunelab.surgery.slices import Cut, Slices
from prunelab.trace import trace

NETWORK = '''
import torch
from torch import nn

class Net(nn.Module):
    """Every kind of change: convolutions plain, grouped and transposed, statistics, attention, numbers, a new bias."""

    def __init__(self):
        super().__init__()
        self.heads = 4
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.grouped, self.depthwise = nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up = nn.ConvTranspose2d(8, 12, 2, 2)
        self.attention = nn.MultiheadAttention(12, 4, batch_first=True)
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12, bias=False)
        self.last = nn.Linear(12, 6)
        self.end = nn.Linear(6, 3, bias=False)

    def forward(self, x):
        x = self.depthwise(self.grouped(self.norm(self.first(x)).relu())).sigmoid()
        x = self.up(x).flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x)[0]
        b, s, _ = x.shape
        q, k, v = self.qkv(x).view(b, s, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, s, -1)
        return self.end(self.last((x + self.out(y)).mean(1)).sigmoid())
'''
_space: dict[str, Any] = {}
exec(NETWORK, _space)


def make(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = _space["Net"]()
    model.norm.running_mean.normal_()
    return model.double().eval()


def image(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def small() -> Any:
    return prunelab.shrink(make(), image(), sparsity=0.5)


def test_it_covers_every_kind_of_change(small: Any) -> None:
    plan = small.plan
    assert plan.replaced == ("attention",)
    assert "end.bias" in plan.biases
    assert any(path == "" and attribute == "heads" for path, attribute, _ in plan.attributes)
    assert any(len(cut.dims) == 2 for slices in plan.slices.values() for cut in slices.cuts)
    assert "norm.running_mean" in plan.slices


def test_through_json_nothing_changes(small: Any, tmp_path: Path) -> None:
    plan = small.plan
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    path = tmp_path / "plan.json"
    path.write_text("something older")
    plan.save(path)
    assert Plan.load(path) == plan
    assert Plan.load(str(path)).to_dict() == plan.to_dict()
    assert list(tmp_path.iterdir()) == [path]  # nothing unfinished left behind
    assert str(Plan.load(path)) == str(plan)
    assert "<table" in plan._repr_html_()


def test_applied_to_the_same_network_it_is_the_small_one(small: Any) -> None:
    again = small.plan.apply(make())
    assert again.state_dict().keys() == small.model.state_dict().keys()
    for name, value in again.state_dict().items():
        assert torch.equal(value, small.model.state_dict()[name]), name
    assert torch.equal(again(image(1)), small.model(image(1)))


def test_the_counts_are_those_of_the_small_network(small: Any) -> None:
    assert small.plan.params == (
        sum(p.numel() for p in make().parameters()),
        sum(p.numel() for p in small.model.parameters()),
    )
    assert small.plan.macs == (trace(make(), image()).macs, trace(small.model, image()).macs)


def test_rebuilt_in_a_new_process(small: Any, tmp_path: Path) -> None:
    """The architecture from its own code and the plan, the weights with weights_only=True, strictly."""
    small.plan.save(tmp_path / "plan.json")
    torch.save(small.model.state_dict(), tmp_path / "weights.pt")
    torch.save((image(3), small.model(image(3)).detach()), tmp_path / "seen.pt")
    code = (
        NETWORK
        + "from prunelab.surgery import Plan\n"
        + "model = Plan.load('plan.json').apply(Net().double()).eval()\n"
        + "model.load_state_dict(torch.load('weights.pt', weights_only=True), strict=True)\n"
        + "x, y = torch.load('seen.pt', weights_only=True)\n"
        + "assert torch.equal(model(x), y)\nprint(sum(p.numel() for p in model.parameters()))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == small.plan.params[1]


def other(**changes: nn.Module) -> nn.Module:
    model = make()
    for name, module in changes.items():
        setattr(model, name, module)
    return model


def without(name: str) -> nn.Module:
    model = make()
    delattr(model, name)
    return model


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (other(grouped=nn.Conv2d(8, 10, 1, groups=2)), r"grouped\.(weight|bias)"),
        (other(qkv=nn.Linear(12, 48)), r"qkv\.(weight|bias)"),
        (other(norm=nn.BatchNorm2d(9)), r"norm\."),
        (without("up"), r"up\.(weight|bias)"),
        (other(norm=nn.Identity()), r"norm\."),
        (other(attention=nn.Identity()), r"attention"),
        (nn.Linear(3, 3), r"Linear|weight"),
    ],
    ids=["wider", "qkv", "norm", "missing", "identity", "no_attention", "another"],
)
@pytest.mark.parametrize("what", ["apply", "masked"])
def test_another_network_is_refused_by_name(small: Any, model: nn.Module, words: str, what: str) -> None:
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=words):
        getattr(small.plan, what)(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_small_network_is_not_cut_again(small: Any) -> None:
    with pytest.raises(ValueError, match="plan was made for"):
        small.plan.apply(small.model)


def test_masked_leaves_the_model_as_it_was(small: Any) -> None:
    model = make()
    model.train()
    model.first.weight.requires_grad_(False)
    before, parameters = copy.deepcopy(model.state_dict()), dict(model.named_parameters())
    masked = small.plan.masked(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(model.get_parameter(name) is p for name, p in parameters.items())
    assert masked.training
    assert not masked.first.weight.requires_grad
    assert {name: v.shape for name, v in masked.state_dict().items() if name in before} == {
        name: v.shape for name, v in before.items()
    }
    with torch.no_grad():
        for parameter in masked.parameters():
            parameter.fill_(7)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_masked_zeroes_what_goes_and_nothing_else(small: Any) -> None:
    model = make()
    masked = small.plan.masked(model)
    for name, value in model.state_dict().items():
        cut = small.plan.slices.get(name)
        stays = torch.ones_like(value, dtype=torch.bool) if cut is None else cut.mask()
        added = torch.tensor(small.plan.biases.get(name, (0.0,)), dtype=torch.float64)
        expected = torch.where(stays, value, torch.zeros_like(value)) + (added if name in small.plan.biases else 0)
        torch.testing.assert_close(masked.state_dict()[name], expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"format": "prunelab.masks.1"},
        {"format": "prunelab.plan.1"},
        {"format": "prunelab.plan.1", "model": "Net", "slices": {"a": 3}},
        {"format": "prunelab.plan.2", "model": "Net"},
        [],
        None,
        "plan",
    ],
    ids=repr,
)
def test_what_is_no_plan_is_refused(data: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plan"):
        Plan.from_dict(data)
    (tmp_path / "other.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match="plan"):
        Plan.load(tmp_path / "other.json")


def test_files_that_are_not_there_or_not_json(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Plan.load(tmp_path / "nothing.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match="not JSON"):
        Plan.load(tmp_path / "binary")
    (tmp_path / "cut").write_text('{"format": "prunelab.plan.1", "mod')
    with pytest.raises(ValueError, match="not JSON"):
        Plan.load(tmp_path / "cut")


def test_a_plan_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("older")
    with pytest.raises(TypeError):
        Plan(model="Net", slices={}, notes=(object(),)).save(path)  # type: ignore[arg-type]
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


# --- by hand -------------------------------------------------------------------------------------------------------------


def hand() -> Plan:
    """Of a Linear(3, 4) and a Linear(4, 2), rows 1 and 3 of the first go."""
    rows = Cut((0,), (4,), (2,), (0, 2))
    columns = Cut((1,), (4,), (2,), (0, 2))
    return Plan(
        model="Sequential",
        slices={
            "0.weight": Slices((4, 3), (rows,)),
            "0.bias": Slices((4,), (rows,)),
            "1.weight": Slices((2, 4), (columns,)),
        },
        biases={"1.bias": (10.0, 20.0)},
        parts=(Part("0", 4, 2, 1, ("0.weight",), ("0.weight", "0.bias", "1.weight")),),
        params=(26, 14),
        macs=(20, 10),
    )


def test_a_plan_written_by_hand() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    small = hand().apply(model)
    assert torch.equal(small[0].weight, model[0].weight[[0, 2]])
    assert torch.equal(small[0].bias, model[0].bias[[0, 2]])
    assert torch.equal(small[1].weight, model[1].weight[:, [0, 2]])
    torch.testing.assert_close(small[1].bias, model[1].bias + torch.tensor([10.0, 20.0]))
    assert (small[0].out_features, small[1].in_features) == (2, 2)
    assert "0: 2 of 4 channels removed" in str(hand())
    assert "26 → 14 parameters" in str(hand())


def test_positions_over_two_dimensions() -> None:
    """Each row keeps other columns: what stays is read row by row, and fills a box."""
    cut = Slices((2, 3), (Cut((0, 1), (2, 3), (2, 2), (0, 2, 4, 5)),))
    assert cut.left == (2, 2)
    assert cut.keep(torch.arange(6).reshape(2, 3)).tolist() == [[0, 2], [4, 5]]
    assert cut.mask().tolist() == [[True, False, True], [False, True, True]]
    assert Slices.from_dict(json.loads(json.dumps(cut.to_dict()))) == cut
    with pytest.raises(ValueError, match=r"\(3, 3\).*\(2, 3\)"):
        cut.keep(torch.zeros(3, 3))


def test_html_escapes_what_a_name_holds() -> None:
    part = Part("<b>", 4, 2, 1, ("<b>.weight",), ("<b>.weight",), "")
    shown = Plan(model="<script>", slices={}, parts=(part,), frozen=(part,), notes=("<i>",))._repr_html_()
    assert "<script>" not in shown
    assert "<b>" not in shown
    assert "<i>" not in shown
