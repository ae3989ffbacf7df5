"""Masks: a validated mapping, its algebra, and what it does to models, optimizers and files."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prunelab import Masks


def net(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2)).to(device, dtype)


def some_masks(model: nn.Module) -> Masks:
    generator = torch.Generator().manual_seed(0)
    return Masks({n: torch.rand(p.shape, generator=generator) > 0.5 for n, p in model.named_parameters()}, model)


def mask(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)


def test_a_mapping_in_the_models_order() -> None:
    model = net()
    names = [name for name, _ in model.named_parameters()]
    shuffled = {name: torch.ones_like(model.get_parameter(name), dtype=torch.bool) for name in reversed(names)}
    masks = Masks(shuffled, model)
    assert list(masks) == names
    assert len(masks) == 4
    assert masks["0.bias"].tolist() == [True] * 3
    with pytest.raises(KeyError, match=r"no mask is named '1.weight'.*0.weight"):
        masks["1.weight"]


def test_counts() -> None:
    masks = Masks({"a": mask(1, 0, 0), "b": mask(1)})
    assert (masks.total, masks.removed, masks.sparsity) == (4, 2, 0.5)
    assert masks.sparsities == {"a": pytest.approx(2 / 3), "b": 0.0}
    assert Masks({}).sparsity == 0.0
    assert "2 of 4 entries removed" in repr(masks)
    assert "<caption>" in masks._repr_html_()
    assert "&lt;b&gt;" in Masks({"<b>": mask(1)})._repr_html_()


def test_algebra_treats_what_is_not_named_as_kept_whole() -> None:
    a, b = Masks({"x": mask(1, 0, 1), "y": mask(0, 1)}), Masks({"x": mask(1, 1, 0), "z": mask(0)})
    assert a & b == Masks({"x": mask(1, 0, 0), "y": mask(0, 1), "z": mask(0)})
    assert a | b == Masks({"x": mask(1, 1, 1), "y": mask(1, 1), "z": mask(1)})
    assert ~a == Masks({"x": mask(0, 1, 0), "y": mask(1, 0)})
    assert a != b
    assert a["x"].tolist() == [True, False, True]  # neither side has changed
    with pytest.raises(ValueError, match=r"'x' have shapes \(3,\) and \(2,\)"):
        a & Masks({"x": mask(1, 1)})
    with pytest.raises(TypeError):
        a & {"x": mask(1, 1, 1)}  # type: ignore[operator]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"0.bias": [True]}, "must be a bool tensor.*not list"),
        ({"0.bias": torch.ones(3)}, r"not torch.float32; use .bool\(\)"),
        ({3: mask(1)}, "named by strings"),
        (None, "a mapping from parameter names to bool tensors, not NoneType"),
        ([mask(1)], "a mapping from parameter names to bool tensors, not list"),
    ],
)
def test_refuses_what_is_no_mask(bad: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Masks(bad)


def test_a_lazy_module_has_to_run_first() -> None:
    with pytest.raises(ValueError, match=r"'0\.weight' has no values yet \(a lazy module\): run the model once"):
        Masks({"0.weight": torch.ones(3, 2, dtype=torch.bool)}).apply_(nn.Sequential(nn.LazyLinear(3)))


def test_a_model_is_a_module() -> None:
    for use in (
        Masks({}).apply_,
        lambda m: Masks({}, m),
        lambda m: Masks({}).hold(m, torch.optim.SGD([torch.ones(1)])),
    ):
        with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, not OrderedDict"):
            use(net().state_dict())


@pytest.mark.parametrize(
    ("name", "shape", "message"), [("9.weight", (3,), "no parameter '9.weight'.*0.weight"), ("0.bias", (4,), r"\(3,\)")]
)
def test_masks_of_another_model_change_nothing(name: str, shape: tuple[int, ...], message: str) -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    masks = Masks({"0.weight": torch.zeros(3, 1, 2, 2, dtype=torch.bool), name: torch.zeros(shape, dtype=torch.bool)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for use in (masks.apply_, lambda m: masks.hold(m, optimizer), lambda m: Masks(masks, m)):
        with pytest.raises(ValueError, match=message):
            use(model)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not optimizer._optimizer_step_post_hooks


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_apply_zeroes_the_removed_and_keeps_every_other_bit(dtype: torch.dtype, device: torch.device) -> None:
    model = net(device, dtype)
    special = torch.tensor([float("nan"), float("inf"), -1.5], dtype=dtype, device=device)
    for removed in (True, False):
        with torch.no_grad():
            model[0].bias.copy_(special)
        before = copy.deepcopy(model)
        masks = Masks({"0.bias": torch.full((3,), not removed), "3.weight": torch.rand(2, 27) > 0.5})
        assert masks.apply_(model) is model
        assert torch.equal(model[0].bias, torch.zeros_like(special)) if removed else True
        assert removed or torch.allclose(model[0].bias, special, rtol=0, atol=0, equal_nan=True)
        kept = masks["3.weight"].to(device)
        assert torch.equal(model[3].weight[kept], before[3].weight[kept])
        assert not model[3].weight[~kept].any()
        assert not torch.signbit(model[3].weight[~kept]).any()
        assert torch.equal(model[0].weight, before[0].weight)


def test_apply_to_weights_that_are_not_contiguous() -> None:
    model = net().to(memory_format=torch.channels_last)
    model[3].weight.data = model[3].weight.data.t().contiguous().t()
    masks = some_masks(model)
    expected = {name: (p.detach() * masks[name]).clone() for name, p in model.named_parameters()}
    masks.apply_(model)
    assert all(torch.equal(p, expected[name]) for name, p in model.named_parameters())


def test_autograd_notices_the_write() -> None:
    model = net()
    loss = model(torch.randn(2, 1, 4, 4)).square().sum()
    some_masks(model).apply_(model)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9),
}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> None:
    device = next(model.parameters()).device
    for step in range(steps):
        x = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(step)).to(device)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_hold_survives_every_step_and_leaves_no_trace(make, device: torch.device) -> None:
    model = net(device)
    keys = list(model.state_dict())
    optimizer = make(model.parameters())
    train(model, optimizer)  # momentum for the weights that will be removed
    masks = some_masks(model)
    handle = masks.hold(model, optimizer)
    for _ in range(3):
        train(model, optimizer, steps=1)
        for name, parameter in model.named_parameters():
            assert not parameter[~masks[name].to(device)].any()
    assert list(model.state_dict()) == keys
    held = copy.deepcopy(model.state_dict())
    handle.release()
    handle.release()
    assert all(torch.equal(held[key], value) for key, value in model.state_dict().items())
    assert not optimizer._optimizer_step_post_hooks
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    train(model, optimizer, steps=1)  # free again: this is what shows that the hold did the work
    assert any(p[~masks[n].to(device)].any() for n, p in model.named_parameters())


def test_a_held_model_can_be_copied_pickled_and_wrapped() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    masks = some_masks(model)
    with masks.hold(model, optimizer):
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
        pickle.dumps(optimizer)
        assert not optimizer.state_dict()["state"]
    assert not optimizer._optimizer_step_post_hooks
    assert masks.apply_(nn.DataParallel(net())) is not None
    assert not masks.apply_(torch.compile(net()))._orig_mod[3].weight[~masks["3.weight"]].any()


def test_hold_follows_a_model_to_another_dtype() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    masks = some_masks(model)
    with masks.hold(model, optimizer):
        model.double()
        optimizer.zero_grad()
        model(torch.randn(8, 1, 4, 4, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
        assert not model[3].weight[~masks["3.weight"]].any()


def test_hold_wants_an_optimizer_of_this_model() -> None:
    model = net()
    with pytest.raises(ValueError, match="trains none of the masked parameters"):
        some_masks(model).hold(model, torch.optim.SGD(copy.deepcopy(model).parameters()))
    with pytest.raises(ValueError, match="LBFGS evaluates the model within its step"):
        some_masks(model).hold(model, torch.optim.LBFGS(model.parameters()))
    with pytest.raises(TypeError, match=r"must be a torch.optim.Optimizer, not float"):
        some_masks(net()).hold(net(), 0.1)  # type: ignore[arg-type]


def test_save_and_load(tmp_path: Path) -> None:
    model = net()
    masks = some_masks(model)
    odd = Masks(
        {"scalar": torch.tensor(True), "empty": torch.zeros(0, dtype=torch.bool), "a view": mask(1, 0).expand(3, 2)}
    )
    for index, saved in enumerate((masks, odd, Masks({}))):
        path = tmp_path / f"{index}.safetensors"
        saved.save(path)
        loaded = Masks.load(os.fspath(path))
        assert loaded == saved
        assert list(loaded) == list(saved)
    assert Masks.load(tmp_path / "0.safetensors", model) == masks
    with pytest.raises(ValueError, match="no parameter 'scalar'"):
        Masks.load(tmp_path / "1.safetensors", model)
    assert sorted(os.listdir(tmp_path)) == ["0.safetensors", "1.safetensors", "2.safetensors"]


def test_a_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, masks = tmp_path / "masks.safetensors", Masks({"a": mask(1, 0)})
    masks.save(path)

    def full_disk(_tensors: object, file: Path, *_: object) -> None:
        Path(file).write_bytes(b"half of the masks")
        raise OSError("No space left on device")

    monkeypatch.setattr("prunelab.masks.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        (~masks).save(path)
    assert Masks.load(path) == masks
    assert os.listdir(tmp_path) == ["masks.safetensors"]


def test_save_says_what_it_cannot_do_and_follows_links(tmp_path: Path) -> None:
    masks = Masks({"a": mask(1, 0)})
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        masks.save(tmp_path / "missing" / "masks")
    with pytest.raises(IsADirectoryError, match="is a folder; name a file"):
        masks.save(tmp_path)
    with pytest.raises(ValueError, match="reserves the name '__metadata__'"):
        Masks({"__metadata__": mask(1)}).save(tmp_path / "masks")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    masks.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert Masks.load(tmp_path / "file") == masks


def test_load_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not there; masks are read"):
        Masks.load(tmp_path / "missing")
    (tmp_path / "text").write_text("not tensors")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        Masks.load(tmp_path / "text")
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError, match="is a folder"):
        Masks.load(tmp_path)
    save_file({"a": torch.ones(2)}, tmp_path / "disordered", {"format": "prunelab.masks.1"})
    with pytest.raises(ValueError, match="holds no masks"):
        Masks.load(tmp_path / "disordered")
    save_file({"a": torch.ones(2)}, tmp_path / "weights")
    with pytest.raises(ValueError, match=r"holds no masks written by Masks.save"):
        Masks.load(tmp_path / "weights")
