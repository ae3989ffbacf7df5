"""Build the smaller network: a copy of the modules around smaller tensors, their numbers brought into line."""

from __future__ import annotations

import copy
import copyreg
from collections import OrderedDict
from collections.abc import Container, Iterable, Mapping
from functools import cache
from operator import attrgetter
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.weight_norm import WeightNorm

from prunelab.anatomy import PLAIN, Anatomy
from prunelab.surgery.slices import Slices
from prunelab.trace.forward import COMPRESSED

_CONTAINERS = frozenset({dict, OrderedDict, set, list})


def copied(anatomy: Anatomy, replaced: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A deep copy of a model, with other tensors under some of the names. Nothing large is copied twice.

    Raises TypeError, with what went wrong, for a model that cannot be copied.
    """
    memo: dict[int, Any] = {}
    model, tensors, replaced = anatomy.model, anatomy.tensors, replaced or {}
    by_memory = {anatomy.memory[id(tensors[name])]: value for name, value in replaced.items()}
    for tensor in (*anatomy.parameters.values(), *anatomy.buffers.values()):
        if (value := by_memory.get(anatomy.memory[id(tensor)])) is not None:
            memo[id(tensor)] = value
    memo.update((id(tensors[name]), value) for name, value in replaced.items())
    for buffer in anatomy.buffers.values():
        if buffer.layout in COMPRESSED:  # which know no deep copy
            memo.setdefault(id(buffer), buffer.detach().clone())
    try:
        return _copied(model, memo)
    except Exception as error:
        raise TypeError(
            f"{type(model).__name__} cannot be copied ({error}); pruning builds a new network and needs copy.deepcopy"
        ) from error


def _copied(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """`copy.deepcopy(module, memo)`, without asking each number and each empty dictionary of hooks how it is copied."""
    if id(module) in memo:
        found: nn.Module = memo[id(module)]
        return found
    kind: type = type(module)
    if not _is_copied_by_state(kind) or "__deepcopy__" in vars(module):
        return copy.deepcopy(module, memo)
    made: nn.Module = nn.Module.__new__(kind)
    memo[id(module)] = made
    state: dict[str, Any] = {}
    for name, value in vars(module).items():
        sort = type(value)
        if sort in PLAIN:
            state[name] = value
        elif sort in _CONTAINERS and not value and id(value) not in memo:  # hooks: a dozen a module
            state[name] = memo[id(value)] = sort()
        elif name != "_compiled_call_impl":  # `nn.Module.__getstate__` leaves that one out
            state[name] = _copied_value(value, memo)
    made.__setstate__(state)
    return made


def _copied_value(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in PLAIN or (kind is tuple and PLAIN.issuperset(map(type, value))):
        return value
    if id(value) in memo:
        return memo[id(value)]
    if kind is dict and PLAIN.issuperset(map(type, value)):
        memo[id(value)] = table = dict[Any, Any]()
        for key, item in value.items():
            table[key] = _copied_value(item, memo)
        return table
    if kind is Tensor:
        return _copied_tensor(value, memo)
    return _copied(value, memo) if isinstance(value, nn.Module) else copy.deepcopy(value, memo)


def _copied_tensor(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """`copy.deepcopy(tensor, memo)`; at once where it has its memory for itself, as the counters of normalisations."""
    if not tensor.is_leaf:  # computed by the forward before, which weight normalisation does: without its graph
        memo[id(tensor)] = held = tensor.detach().clone()
        return held
    storages: dict[int, Any] = cast(dict[Any, Any], memo).setdefault("torch", {})  # where PyTorch keeps them, too
    own = _owns_its_storage(tensor) and not (tensor.requires_grad or vars(tensor))
    if not own or tensor.untyped_storage()._cdata in storages:
        copied_: Tensor = copy.deepcopy(tensor, memo)
        return copied_
    memo[id(tensor)] = made = tensor.clone()
    storages[tensor.untyped_storage()._cdata] = made.untyped_storage()
    return made


def _owns_its_storage(tensor: Tensor) -> bool:
    """Whether the storage is these elements and nothing else, as they are."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_conj() or tensor.is_neg():
        return False
    return tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size() > 0


@cache
def _is_copied_by_state(kind: type) -> bool:
    """Whether a deep copy is a new object with a copy of the attributes, as for PyTorch's own layers."""
    own = hasattr(kind, "__deepcopy__") or kind in copyreg.dispatch_table
    ways = ("__new__", "__reduce_ex__", "__reduce__", "__getstate__")
    return not own and all(getattr(kind, way) is getattr(nn.Module, way) for way in ways)


def smaller_tensors(anatomy: Anatomy, slices: Mapping[str, Slices], caches: Container[str] = ()) -> dict[str, Tensor]:
    """Of a model's tensors, by name, those that change, smaller. A parameter stays one, with its `requires_grad`;
    gradients are not kept.

    `caches` are those that a model fills when it runs: one that has not run has none.
    """
    tensors, small = anatomy.tensors, dict[str, Tensor]()
    indices: dict[Any, Tensor] = {}
    for name, cut in slices.items():
        if name not in tensors and name in caches:
            continue
        if name not in tensors:
            raise ValueError(
                f"{type(anatomy.model).__name__} has no parameter or buffer {name!r}: the plan is another network's"
            )
        tensor = tensors[name]
        try:
            left = cut.keep(tensor.detach(), indices)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from None
        if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous():
            left = left.contiguous(memory_format=torch.channels_last)
        small[name] = nn.Parameter(left, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else left
    return small


def update_attributes(model: nn.Module, slices: Mapping[str, Slices]) -> None:
    """Bring the numbers of PyTorch's own modules (`out_channels`, `num_features`, `groups`, ...) into line."""
    anatomy = Anatomy(model)
    convolutions = [module for module in anatomy.modules.values() if isinstance(module, _ConvNd)]
    names = anatomy.names if any(module.groups > 1 for module in convolutions) else {}
    for module in anatomy.modules.values():
        _compute_weights(module)
        weight = _weight_of(module)
        if isinstance(module, _ConvNd):
            if weight is not None:
                _update_convolution(module, weight, slices.get(names.get(id(weight), "")))
        elif isinstance(module, nn.RNNBase):
            _update_recurrent(module)
        elif isinstance(module, nn.RNNCellBase):
            module.hidden_size, module.input_size = module.weight_hh.shape[1], module.weight_ih.shape[1]
        else:
            _update(module, weight)


def _compute_weights(module: nn.Module) -> None:
    """Where weight normalisation of the older kind sets the weight before each forward: set it, so that whoever looks
    at it before the first one sees its size."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            with torch.no_grad():
                setattr(module, hook.name, hook.compute_weight(module))


def _weight_of(module: nn.Module) -> Tensor | None:
    """A layer's weight, or the parameter of its shape from which it is computed: that of a parametrization, or of the
    weight normalisation that came before these."""
    held = module._parameters
    if held.get("weight") is not None or "weight_v" in held:
        return held.get("weight", held.get("weight_v"))
    if not is_parametrized(module, "weight"):
        return None
    lists = cast(nn.ModuleDict, module.parametrizations)["weight"]
    modes = [(one, one.training) for one in lists.modules()]
    lists.eval()  # in training mode spectral normalisation goes on iterating, and rewrites its buffers
    with torch.no_grad():
        shape = cast(Tensor, module.weight).shape
    for one, mode in modes:
        one.training = mode
    return next((tensor for tensor in lists.parameters() if tensor.shape == shape), None)


def _update(module: nn.Module, weight: Tensor | None) -> None:
    if isinstance(module, _NormBase):
        held = weight if weight is not None else module._buffers.get("running_mean")
        module.num_features = module.num_features if held is None else held.numel()
    elif weight is None:
        return
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.Bilinear):
        module.out_features, module.in1_features, module.in2_features = weight.shape
    elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
        module.embedding_dim = weight.shape[1]
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = weight.numel()
    elif isinstance(module, nn.PReLU):
        module.num_parameters = weight.numel()


def _update_convolution(module: _ConvNd, weight: Tensor, cut: Slices | None) -> None:
    # Both layouts, (O, I/g, ...) and transposed (I, O/g, ...), run over all groups along dimension 0.
    if module.groups > 1 and cut is not None:
        module.groups = int(cut.mask().flatten(1).any(1).reshape(module.groups, -1).any(1).sum())
    ends = weight.shape[0], weight.shape[1] * module.groups
    module.in_channels, module.out_channels = ends if isinstance(module, _ConvTransposeNd) else ends[::-1]


def _update_recurrent(module: nn.RNNBase) -> None:
    with torch.no_grad():  # they may be computed, by a parametrization
        hidden, inputs = cast(Tensor, module.weight_hh_l0), cast(Tensor, module.weight_ih_l0)
    module.hidden_size = hidden.shape[1] if module.proj_size == 0 else hidden.shape[0] // 4
    module.proj_size = module.proj_size and hidden.shape[1]
    module.input_size = inputs.shape[1]


def set_attribute(model: nn.Module, path: str, attribute: str, value: int) -> None:
    """`attribute` may name an entry of a list: "sizes[1]"; `path` may lead to a record that a module holds."""
    holder = attrgetter(path)(model) if path else model
    name, _, index = attribute.partition("[")
    new: Any = value
    if index:
        held = getattr(holder, name)
        entries = list(held)
        entries[int(index.rstrip("]"))] = value
        new = type(held)(entries)
    if isinstance(holder, nn.Module):
        setattr(holder, name, new)
    else:
        vars(holder)[name] = new  # a record may be frozen; this one is our copy


def add_biases(model: nn.Module, biases: Mapping[str, Iterable[float]]) -> None:
    """Add constants to biases, by parameter name; a layer that has none gets one."""
    for name, values in biases.items():
        path, _, last = name.rpartition(".")
        module = model.get_submodule(path)
        held = module._parameters.get(last)
        weight = module._parameters.get("weight")
        like = held if held is not None else weight
        assert like is not None
        added = torch.from_numpy(np.fromiter(values, np.float64))
        if held is None:
            value = added.to(like.device, like.dtype)
            setattr(module, last, nn.Parameter(value, like.requires_grad))
        else:
            with torch.no_grad():
                held.copy_((held.detach().to("cpu", torch.float64) + added).to(held.dtype))
