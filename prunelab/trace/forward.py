"""Run a model once and leave no mark: arguments from example inputs, and everything put back afterwards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.rnn import PackedSequence

from prunelab.anatomy import INTERNAL, Anatomy


def device_of(model: nn.Module) -> torch.device | None:
    """Where the model's inputs belong: the device of its first parameter, else of its first buffer, else None."""
    for module in model.modules():  # nearly always the first few; `parameters()` takes several times as long
        for parameter in module._parameters.values():
            if parameter is not None:
                return parameter.device
    return next((buffer.device for buffer in model.buffers()), None)


def call_arguments(example_inputs: Any, device: torch.device | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(positional, keyword) arguments of one call, copied to `device` (None: where they are).

    `example_inputs` is a tensor (one positional argument), a tuple (positional arguments) or a dict (keyword
    arguments). Tensors are found in nested tuples, lists and dicts too; they are copied, so that a model that works in
    place does not change the caller's. Raises TypeError for anything else.
    """

    def copy(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device=device or tensor.device, copy=True)

    if isinstance(example_inputs, Tensor | PackedSequence):
        return (map_tensors(copy, example_inputs),), {}
    if isinstance(example_inputs, tuple):
        if example_inputs and all(isinstance(size, int) for size in example_inputs):
            sizes = ", ".join(map(str, example_inputs))
            raise TypeError(f"example_inputs are tensors, not a shape; write torch.zeros({sizes})")
        return tuple(map_tensors(copy, item) for item in example_inputs), {}
    if isinstance(example_inputs, Mapping):
        unnamed = [key for key in example_inputs if not isinstance(key, str)]
        if unnamed:
            raise TypeError(
                f"example_inputs as a dict holds keyword arguments: a key must be a string, not {unnamed[0]!r}"
            )
        return (), {key: map_tensors(copy, item) for key, item in example_inputs.items()}
    raise TypeError(
        "example_inputs must be a tensor, a tuple of positional arguments or a dict of keyword arguments, not "
        f"{type(example_inputs).__name__}; {_way_out(example_inputs)}"
    )


def to_device(item: Any, device: torch.device | None) -> Any:
    """`item` with each tensor in it, through tuples, lists and dicts, on `device` (None: where it is)."""
    return map_tensors(lambda tensor: tensor.to(device=device or tensor.device), item)


def _way_out(example_inputs: Any) -> str:
    if isinstance(example_inputs, list):
        return "write tuple(inputs) for several arguments, or (inputs,) where forward takes one list"
    if hasattr(example_inputs, "__array__"):
        return "convert it with torch.as_tensor"
    return "where forward takes such an object as its one argument, write (inputs,)"


def map_tensors(function: Callable[[Tensor], Tensor], item: Any) -> Any:
    """`item` with `function` applied to each tensor in it, through tuples, lists, dicts and packed sequences."""
    if isinstance(item, Tensor):
        return function(item)
    if isinstance(item, PackedSequence):  # its batch sizes stay on the CPU
        data = function(item.data)
        indices = [None if i is None else i.to(data.device) for i in (item.sorted_indices, item.unsorted_indices)]
        return PackedSequence(data, item.batch_sizes, *indices)
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return type(item)(*(map_tensors(function, i) for i in item))
    if isinstance(item, tuple | list):
        return type(item)(map_tensors(function, i) for i in item)
    if isinstance(item, dict):
        return {key: map_tensors(function, i) for key, i in item.items()}
    return item


def tensors_in(item: Any, opaque: bool = False) -> list[Tensor]:
    """Every tensor in nested tuples, lists, dictionaries and dataclasses, in order; where `opaque`, in other objects
    too (a cache of keys and values that a language model returns beside its results is one)."""
    if isinstance(item, Tensor):
        return [item]
    if isinstance(item, Mapping):
        return [t for value in item.values() for t in tensors_in(value, opaque)]
    if isinstance(item, tuple | list):
        return [t for value in item for t in tensors_in(value, opaque)]
    if is_dataclass(item) and not isinstance(item, type):
        return [t for field in fields(item) for t in tensors_in(getattr(item, field.name), opaque)]
    if opaque and hasattr(item, "__dict__") and not isinstance(item, nn.Module | type):
        return [t for value in vars(item).values() for t in tensors_in(value, opaque)]
    return []


def results_in(item: Any) -> list[Tensor]:
    """The tensors that a model returned: those in objects of unknown kinds only where there are no others."""
    return tensors_in(item) or tensors_in(item, opaque=True)


@contextmanager
def undisturbed(model: nn.Module | Anatomy, *, training: bool = False, seed: int | None = None) -> Iterator[None]:
    """Evaluation (or training) mode without gradients inside; outside, model and random state are as they were.

    Put back, also when the body raises: each module's training flag, the buffers (a forward may update its running
    statistics), the other attributes (a counter, a cache that the first forward fills), and the state of the random
    generators of the CPU and of the model's CUDA devices. The fused paths that hide a whole layer in one operation are
    off. Raises ValueError for a lazy module not yet run, and for a model that makes layers when it runs; these are gone
    again, as are buffers that it made. With a `seed` chance is the same each time.
    """
    anatomy = model if isinstance(model, Anatomy) else Anatomy(model)
    _refuse_lazy(anatomy.parameters)
    modules = list(anatomy.modules.values())
    cuda = {t.device.index for t in (*anatomy.parameters.values(), *anatomy.buffers.values()) if t.is_cuda}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=sorted(cuda)))
        if seed is not None:  # not by `torch.manual_seed`, which sets the generators of all devices there are
            for generator in (torch.default_generator, *(torch.cuda.default_generators[i] for i in sorted(cuda))):
                generator.manual_seed(seed)
        stack.enter_context(torch.no_grad())
        stack.enter_context(_mode(modules, training))
        stack.enter_context(_same_attributes(modules))
        stack.enter_context(_same_buffers(modules))
        stack.enter_context(_same_members(anatomy.modules))
        stack.enter_context(_no_fast_path())
        yield


def _refuse_lazy(parameters: Mapping[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        if isinstance(parameter, UninitializedParameter):
            raise ValueError(f"{name!r} has no values yet (a lazy module): run the model once before tracing it")


@contextmanager
def _mode(modules: Iterable[nn.Module], training: bool) -> Iterator[None]:
    # The flag alone: `model.eval()` may be overridden with side effects (some adapters merge their weights in it).
    flags = [(module, module.training) for module in modules]
    try:
        for module, _ in flags:
            _set_training(module, training)
        yield
    finally:
        for module, was_training in flags:
            _set_training(module, was_training)


def _set_training(module: nn.Module, training: bool) -> None:
    if "training" in vars(module):  # as nearly always, and then not by way of `nn.Module.__setattr__`
        vars(module)["training"] = training
    else:
        module.training = training


@contextmanager
def _same_attributes(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Put back attributes that were bound anew, and what dictionaries and lists among them held."""
    saved = [(module, {k: v for k, v in vars(module).items() if k not in INTERNAL}) for module in modules]
    contents = [(v, _content(v)) for _, held in saved for v in held.values() if type(v) is dict or type(v) is list]
    try:
        yield
    finally:
        for module, attributes in saved:
            held = vars(module)
            for name in held.keys() - attributes.keys() - INTERNAL:
                del held[name]
            held.update(attributes)
        for value, content in contents:
            if [*map(id, _content(value))] != [*map(id, content)]:
                value.clear()
                if isinstance(value, list):
                    value.extend(content)
                else:
                    value.update(zip(content[::2], content[1::2], strict=True))


def _content(value: Any) -> list[Any]:
    """What a plain dictionary (keys and values in turn) or list holds."""
    return [item for pair in value.items() for item in pair] if isinstance(value, dict) else list(value)


@contextmanager
def _same_buffers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Put back the content of each buffer, and the buffer itself where the forward bound another one to its name; and
    the weights of embeddings that have a largest norm, which a forward brings there."""
    modules = list(modules)
    normed = (m.weight for m in modules if isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.max_norm is not None)
    bound = [(module, name, buffer) for module in modules for name, buffer in module._buffers.items()]
    real = (b for _, _, b in bound if b is not None and not b.is_meta and not isinstance(b, FakeTensor))
    contents = {id(b): (b, b.detach().clone()) for b in (*real, *(w.detach() for w in normed if not w.is_meta))}
    try:
        yield
    finally:
        for module, name, buffer in bound:
            if module._buffers.get(name) is not buffer:
                module._buffers[name] = buffer
        for buffer, content in contents.values():
            if not same_content(buffer, content):  # an idle copy would invalidate a graph that saved the buffer
                _write(buffer, content)


@contextmanager
def _same_members(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Take away the buffers, and refuse the layers, that a forward registered: they belong to a model that has run."""
    tables = [
        (path, module, table)
        for path, module in modules.items()
        for table in (module._buffers, module._parameters, module._modules)
        if isinstance(table, dict)  # TorchScript's modules have other ones, and nothing can be registered there
    ]
    sizes = [len(table) for _, _, table in tables]
    try:
        yield
    finally:
        made = [
            (f"{path}.{name}".lstrip("."), module, table.pop(name))
            for (path, module, table), size in zip(tables, sizes, strict=True)
            for name in list(table)[size:]  # in the order in which they came
        ]
        for name, module, _ in made:
            module._non_persistent_buffers_set.discard(name.rpartition(".")[2])
    for name, _, member in made:
        if isinstance(member, nn.Parameter) or (
            isinstance(member, nn.Module) and any(True for _ in member.parameters())
        ):
            raise ValueError(
                f"{name!r} is made by the model's first forward: run the model once, so that it has all of its "
                "parameters (and an optimizer can know them)"
            )


def _write(buffer: Tensor, content: Tensor) -> None:
    """Put `content` into a buffer, also into a sparse one that has another number of elements by now."""
    if buffer.layout in COMPRESSED and buffer._nnz() != content._nnz():
        buffer.resize_as_sparse_(content)
    buffer.copy_(content)


def same_content(a: Tensor, b: Tensor) -> bool:
    """The same content, where NaN equals NaN of the same bits; of sparse tensors, in the same places."""
    if a.layout is not torch.strided or a.is_nested:  # torch.equal refuses them
        parts, others = parts_of(a), parts_of(b)
        return a.layout is b.layout and len(parts) == len(others) and all(map(same_content, parts, others))
    try:
        if torch.equal(a, b):
            return True
        if not (a.is_floating_point() or a.is_complex()):
            return False
    except NotImplementedError:  # complex32, float4, bits8
        pass
    # As bytes: not every dtype that has a NaN (float8) can be compared element by element.
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(bytes_of(a), bytes_of(b))


def bytes_of(tensor: Tensor) -> Tensor:
    """The content of a strided tensor as uint8, element by element; its own memory where it is contiguous."""
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    # Not by `reshape`, which leaves a single element its stride: no bytes can be seen through that.
    return plain.as_strided((plain.numel(),), (1,)).view(torch.uint8)


COMPRESSED = frozenset({torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc})


def stored_in(tensor: Tensor) -> int | None:
    """The elements that a sparse tensor stores; None for one that is not sparse."""
    if tensor.layout is torch.sparse_coo or tensor.layout in COMPRESSED:
        return tensor._values().numel() if tensor.layout is torch.sparse_coo else tensor.values().numel()
    return None


def parts_of(tensor: Tensor) -> list[Tensor]:
    """What a tensor that is not strided, or nested, is made of: strided tensors, the elements last."""
    if tensor.is_nested:
        return list(tensor.unbind())
    if tensor.layout is torch.sparse_coo:
        return [torch.tensor(tensor.shape), tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [torch.tensor(tensor.shape), tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [torch.tensor(tensor.shape), tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return [tensor.to_dense()]


@contextmanager
def _no_fast_path() -> Iterator[None]:
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # flex_attention compiles itself, which no dispatch mode can watch. Asked only where it was imported: the
        # compiler takes a second to load.
        if "torch.nn.attention.flex_attention" in sys.modules:
            with torch.compiler.set_stance("force_eager"):
                yield
        else:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
