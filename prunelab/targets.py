"""Which parameters of a model may be pruned, and how their layers store them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import UninitializedParameter

from prunelab.granularity import PLAIN, Layout


@dataclass(frozen=True)
class Target:
    """A parameter to prune.

    `layout` is how its layer stores it, `biases` the names of the biases of the same units, `modules` the Linear and
    convolution modules that use it (several where it is shared, none where it belongs to another kind of module).
    """

    name: str
    weight: nn.Parameter
    layout: Layout = PLAIN
    biases: tuple[str, ...] = ()
    modules: tuple[nn.Module, ...] = ()


def unwrap(model: nn.Module) -> nn.Module:
    """The model itself, without `torch.compile`'s or (Distributed)DataParallel's wrapper: these rename parameters."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter under every name it has: a shared one is found under each of its names."""
    return dict(unwrap(model).named_parameters(remove_duplicate=False))


def find_targets(model: nn.Module, parameters: Iterable[str] | None = None) -> list[Target]:
    """The parameters that pruning will look at, in the model's order; a shared one counts once, under its first name.

    By default these are the weights of all Linear and convolution modules, frozen ones too. `parameters` names others.
    Raises ValueError where a name is unknown, a weight does not exist yet, or nothing is left to prune.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    model = unwrap(model)
    owners = _owners(model, strict=parameters is None)
    first_names = {id(parameter): name for name, parameter in model.named_parameters()}
    wanted = {id(p) for p in _named(model, parameters)} if parameters is not None else set(owners)
    targets = [
        _target(name, parameter, owners.get(id(parameter), []), first_names)
        for name, parameter in model.named_parameters()
        if id(parameter) in wanted
    ]
    if not targets:
        raise ValueError(
            f"{type(model).__name__} has no parameter to prune: by default these are the weights of Linear and "
            "convolution modules; name others with parameters=[...]"
        )
    return targets


def _owners(model: nn.Module, *, strict: bool) -> dict[int, list[nn.Module]]:
    """The Linear and convolution modules that use each weight, by the weight's id.

    A weight that is computed at each forward is no parameter: `strict` refuses it rather than leave it out in silence.
    """
    owners: dict[int, list[nn.Module]] = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | _ConvNd):
            continue
        if not isinstance(module._parameters.get("weight"), nn.Parameter):
            if not strict:
                continue
            raise ValueError(
                f"the weight of {name!r} is computed (by a parametrization or torch.nn.utils.prune), so a mask "
                "could not hold it; make it a plain parameter first, with "
                "torch.nn.utils.parametrize.remove_parametrizations or torch.nn.utils.prune.remove, or leave it out "
                "with parameters=[...]"
            )
        owners.setdefault(id(module.weight), []).append(module)
    return owners


def _named(model: nn.Module, parameters: Iterable[str]) -> list[nn.Parameter]:
    if isinstance(parameters, str):
        raise TypeError(f"parameters must be a list of names, not the string {parameters!r}; write [{parameters!r}]")
    known = named_parameters(model)
    names = list(parameters)
    for name in names:
        if name not in known:
            raise ValueError(f"unknown parameter {name!r}; the model has {', '.join(known) or 'none'}")
    return [known[name] for name in names]


def _target(name: str, weight: nn.Parameter, owners: list[nn.Module], first_names: dict[int, str]) -> Target:
    if isinstance(weight, UninitializedParameter):
        raise ValueError(f"{name!r} has no values yet (a lazy module): run the model once before pruning it")
    if not weight.dtype.is_floating_point or weight.element_size() == 1:
        raise ValueError(f"{name!r} has dtype {weight.dtype}; prunable are float64, float32, float16 and bfloat16")
    layouts = {_layout(module) for module in owners}
    if len(layouts) > 1:
        raise ValueError(f"{name!r} is shared by layers that store it differently ({layouts}); prune it on its own")
    biases = [module.bias for module in owners if isinstance(module.bias, Tensor)]
    bias_names = dict.fromkeys(first_names[id(bias)] for bias in biases if id(bias) in first_names)
    return Target(name, weight, layouts.pop() if layouts else PLAIN, tuple(bias_names), tuple(owners))


def _layout(module: nn.Module) -> Layout:
    if isinstance(module, _ConvNd):
        return Layout(groups=module.groups, transposed=isinstance(module, _ConvTransposeNd))
    return PLAIN
