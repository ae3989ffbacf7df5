"""Files of pruned networks: every bit back, small, safe to load, and whole or not there at all."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import prunelab
from prunelab.evaluate import encode, load_sparse, report, save_sparse, storage
from prunelab.evaluate.encoding import same_bits


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 50), nn.Linear(50, 10))


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return list(first) == list(second) and all(same_bits(first[name], second[name].cpu()) for name in first)


@pytest.mark.filterwarnings("ignore::prunelab.scope.LayerCollapseWarning")
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_pruned_network_comes_back(sparsity: float, dtype: torch.dtype, tmp_path: Path, device: torch.device) -> None:
    model = network().to(device, dtype)
    prunelab.prune(model, sparsity)
    size = save_sparse(tmp_path / "net", model)
    again = load_sparse(tmp_path / "net")
    assert same(again, model.state_dict())
    assert size == (tmp_path / "net").stat().st_size
    fresh = network().to(dtype)
    fresh.load_state_dict(again)
    assert same(fresh.state_dict(), model.state_dict())


def test_the_file_is_the_payloads_and_a_header(tmp_path: Path) -> None:
    model = network()
    prunelab.prune(model, 0.9)
    size = save_sparse(tmp_path / "net", model)
    header = 8 + int.from_bytes((tmp_path / "net").read_bytes()[:8], "little")
    payloads = sum(len(encode(tensor).payload) for tensor in model.state_dict().values())
    assert size == header + payloads
    assert payloads < report(model, torch.zeros(1, 1, 8, 8)).bytes / 4


def test_signs_of_zeros_and_nans_come_back(tmp_path: Path) -> None:
    """What a product with a mask leaves: every zero of a negative weight is -0.0."""
    weight = torch.randn(40, 40) * (torch.rand(40, 40) < 0.2)
    weight[3, 3] = torch.nan
    assert (torch.signbit(weight) & (weight == 0)).any()
    save_sparse(tmp_path / "w", {"w": weight})
    assert same(load_sparse(tmp_path / "w"), {"w": weight})


def test_shared_parameters_are_stored_once_and_shared_again(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(50, 20)
            self.head = nn.Linear(20, 50, bias=False)
            self.head.weight = self.embedding.weight

    size = save_sparse(tmp_path / "tied", Tied())
    again = load_sparse(tmp_path / "tied")
    assert list(again) == ["embedding.weight", "head.weight"]
    assert again["head.weight"] is again["embedding.weight"]
    assert 4_000 < size < 5_000


def test_views_of_one_memory_that_differ_are_stored_apart(tmp_path: Path) -> None:
    square = torch.randn(4, 4)
    state = {
        "w": square,
        "t": square.t(),
        "row": square[0],
        "bits": square.view(torch.int32),
        "none": torch.zeros(0),
        "": torch.zeros(0, 3),
    }
    save_sparse(tmp_path / "views", state)
    assert same(load_sparse(tmp_path / "views"), state)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_wrapped_models_are_saved_under_their_own_names(wrap, tmp_path: Path) -> None:
    model = network()
    save_sparse(tmp_path / "net", wrap(model))
    assert same(load_sparse(tmp_path / "net"), model.state_dict())


def test_any_name_and_kind_of_tensor(tmp_path: Path) -> None:
    state = OrderedDict({"__metadata__": torch.ones(3), "0": torch.tensor(5), "é\n": torch.tensor([True, False])})
    save_sparse(tmp_path / "odd", state)
    assert same(load_sparse(tmp_path / "odd"), state)
    save_sparse(tmp_path / "empty", {})
    assert load_sparse(tmp_path / "empty") == {}


def test_a_link_stays_one_and_an_old_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    save_sparse(str(tmp_path / "link"), {"w": torch.ones(2)})
    assert (tmp_path / "link").is_symlink()
    assert load_sparse(tmp_path / "real")["w"].tolist() == [1, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_what_does_not_read_back_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_sparse(tmp_path / "w", {"w": torch.ones(2)})
    monkeypatch.setattr(storage, "load_sparse", lambda path: {"w": torch.tensor([1.0, 2.0])})
    with pytest.raises(RuntimeError, match="'w' does not read back"):
        save_sparse(tmp_path / "w", {"w": torch.zeros(2)})
    assert load_sparse(tmp_path / "w")["w"].tolist() == [1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


# --- what is refused ---------------------------------------------------------------------------------------------------


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    good = {"w": torch.ones(2)}
    with pytest.raises(TypeError, match=r"a torch.nn.Module or its state_dict, not list"):
        save_sparse(tmp_path / "x", [torch.ones(2)])
    with pytest.raises(TypeError, match="'extra' is no tensor but str"):
        save_sparse(tmp_path / "x", {"extra": "state"})
    with pytest.raises(TypeError, match="by strings, not by 3"):
        save_sparse(tmp_path / "x", {3: torch.ones(2)})
    with pytest.raises(TypeError, match="'w': what is encoded must be a dense tensor"):
        save_sparse(tmp_path / "x", {"w": torch.eye(3).to_sparse()})
    with pytest.raises(ValueError, match="'weight': a tensor without values"):
        save_sparse(tmp_path / "x", nn.Linear(2, 2, device="meta"))
    with pytest.raises(IsADirectoryError, match="is a folder"):
        save_sparse(tmp_path, good)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        save_sparse(tmp_path / "none" / "x", good)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not there"):
        load_sparse(tmp_path / "x")
    with pytest.raises(FileNotFoundError, match="a folder"):
        load_sparse(tmp_path)
    (tmp_path / "text").write_text("no file of this kind")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load_sparse(tmp_path / "text")
    save_file({"w": torch.ones(2)}, tmp_path / "plain")
    with pytest.raises(ValueError, match="was not written by save_sparse"):
        load_sparse(tmp_path / "plain")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["w"].update(dtype="load"), "damaged"),  # a name of torch that is no dtype
        (lambda d: d["w"].update(dtype="nothing"), "damaged"),
        (lambda d: d["w"].update(dtype=None), "damaged"),
        (lambda d: d["w"].update(shape=[-1, 4]), "damaged"),
        (lambda d: d["w"].update(shape=5), "damaged"),
        (lambda d: d["w"].pop("encoding"), "damaged"),
        (lambda d: d["w"].update(encoding=4), "damaged"),
        (lambda d: d.update(w="other"), "damaged"),
        (lambda d: d["w"].update(nonzero=7), "cannot be read"),
        (lambda d: d["w"].update(shape=[400, 4]), "cannot be read"),
        (lambda d: d["w"].update(payload="9"), "is not a safetensors file"),
    ],
)
def test_a_damaged_description_is_refused(change, message: str, tmp_path: Path) -> None:
    save_sparse(tmp_path / "w", {"w": torch.eye(4)})
    with safe_open(tmp_path / "w", framework="pt") as file:
        metadata, payloads = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    described = json.loads(metadata["tensors"])
    change(described)
    save_file(payloads, tmp_path / "w", metadata | {"tensors": json.dumps(described)})
    with pytest.raises(ValueError, match=message):
        load_sparse(tmp_path / "w")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    save_sparse(tmp_path / "w", {"w": torch.eye(8)})
    whole = (tmp_path / "w").read_bytes()
    for size in range(0, len(whole), 7):
        (tmp_path / "w").write_bytes(whole[:size])
        with pytest.raises(ValueError, match="not a safetensors file"):
            load_sparse(tmp_path / "w")
