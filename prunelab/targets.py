"""Which parameters of a model may be pruned, and how their layers store them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import UninitializedParameter

from prunelab.granularity import PLAIN, Granularity, Layout, Weight
from prunelab.memory import memory_of
from prunelab.names import Exclude, excluded, expand, is_glob, matches

Memory = tuple[Any, ...]


@dataclass(frozen=True)
class Target:
    """A parameter to prune.

    `layout` is how its layer stores it, `biases` the names of the biases of the same units, `modules` the Linear and
    convolution modules that use it (several where it is shared, none where it belongs to another kind of module).
    `obstacle` says why nothing larger than single weights can be removed from it, where that is so. `others` are the
    further parameters in which the same units lie: the projections of an attention layer.
    """

    name: str
    weight: nn.Parameter
    layout: Layout = PLAIN
    biases: tuple[str, ...] = ()
    modules: tuple[nn.Module, ...] = ()
    obstacle: str = ""
    others: tuple[Target, ...] = ()

    @property
    def parts(self) -> tuple[Target, ...]:
        """The parameters in which the units lie: this one, and the others."""
        return self, *self.others

    def matrix(self, values: Mapping[str, Tensor], granularity: Granularity) -> Tensor:
        """`values`, by parameter name, as one matrix (units, members): those of all parts side by side."""
        views = [part.view(values[part.name], granularity) for part in self.parts]
        return torch.cat(views, 1) if self.others else views[0]

    def sizes(self, granularity: Granularity) -> int | Tensor:
        """Weights in a unit, over all parts: one number where all units are alike, else int64 (units,)."""
        sizes = [granularity.sizes(part.weight.shape, part.layout) for part in self.parts]
        return sum(sizes[1:], start=sizes[0])

    def view(self, values: Tensor, granularity: Granularity) -> Tensor:
        """`values`, of the parameter's shape, as a matrix (units, members). Raises ValueError, naming the parameter."""
        if self.obstacle and not isinstance(granularity, Weight):
            raise ValueError(f"{self.name!r} {self.obstacle}; prune its single weights with granularity.Weight()")
        try:
            return granularity.view(values, self.layout)
        except ValueError as error:
            raise ValueError(f"{self.name!r}: {error}") from None


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
    """Every parameter under every name it has: a shared one is found under each of its names.

    Names are those of the model as it was written: compiling it, or a part of it, does not change them.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    named = unwrap(model).named_parameters(remove_duplicate=False)
    return {name.replace("_orig_mod.", ""): parameter for name, parameter in named}


def first_names(model: nn.Module) -> dict[str, str]:
    """Every name of a parameter → the first name of the same memory; the same name where nothing is shared."""
    known = named_parameters(model)
    names = _names(known)
    return {name: names[memory_of(parameter)] for name, parameter in known.items()}


def _names(known: dict[str, nn.Parameter]) -> dict[Memory, str]:
    """The first name of each piece of memory, in the model's order."""
    names: dict[Memory, str] = {}
    for name, parameter in known.items():
        names.setdefault(memory_of(parameter), name)
    return names


def default_names(model: nn.Module) -> list[str]:
    """What is pruned by default, by first names: the weights of all Linear and convolution modules, frozen ones too."""
    names, owners = _names(named_parameters(model)), _owners(model)[0]
    return [name for memory, name in names.items() if memory in owners]


def find_targets(
    model: nn.Module, parameters: Iterable[str] | None = None, exclude: Exclude | None = None
) -> list[Target]:
    """The parameters that pruning will look at, in the model's order; a shared one counts once, under its first name.

    By default these are the weights of all Linear and convolution modules, frozen ones too. `parameters` names others,
    `exclude` leaves some out (`prunelab.names`); a shared parameter that is left out under one name is left out.
    Raises ValueError where a name is unknown, a weight has no values, or nothing is left to prune.
    """
    known = named_parameters(model)
    names = _names(known)
    owners, computed = _owners(model)
    wanted = list(owners)
    if parameters is not None:
        patterns = _patterns(parameters, known)
        default = [names[memory] for memory in owners]
        wanted = [memory_of(known[name]) for pattern in patterns for name in expand(pattern, list(known), default)]
        computed = [
            name for name in computed if any(matches(pattern, [name]) for pattern in patterns if is_glob(pattern))
        ]
    out = excluded(exclude, known, computed)
    _refuse_computed(model, [name for name in computed if name not in out])
    chosen = set(wanted) - {memory_of(known[name]) for name in out & set(known)}
    targets = [
        _target(name, owners.get(memory, []), known, names) for memory, name in names.items() if memory in chosen
    ]
    if not targets:
        why = "exclude= leaves none; " if wanted else ""
        raise ValueError(
            f"{type(model).__name__} has no parameter to prune: {why}by default these are the weights of Linear and "
            "convolution modules; name others with parameters=[...]"
        )
    return targets


def _owners(model: nn.Module) -> tuple[dict[Memory, list[nn.Module]], list[str]]:
    """The Linear and convolution modules that use each weight, and the names of weights that are no parameters."""
    owners: dict[Memory, list[nn.Module]] = {}
    computed = []
    for name, module in unwrap(model).named_modules():
        if not isinstance(module, nn.Linear | _ConvNd):
            continue
        weight = module._parameters.get("weight")
        if weight is not None:
            owners.setdefault(memory_of(weight), []).append(module)
        else:
            computed.append(f"{name}.weight".removeprefix("."))
    return owners, computed


def _refuse_computed(model: nn.Module, computed: list[str]) -> None:
    """A weight that is computed at each forward cannot be pruned: refuse it rather than leave it out in silence."""
    for name in computed:
        module = name.rpartition(".")[0] or type(model).__name__
        raise ValueError(
            f"the weight of {module!r} is computed (by a parametrization or torch.nn.utils.prune), so a mask could not "
            "hold it; make it a plain parameter first, with torch.nn.utils.parametrize.remove_parametrizations, "
            "torch.nn.utils.prune.remove or torch.nn.utils.remove_weight_norm, or leave it out with "
            f"exclude=[{name!r}]"
        )


def _patterns(parameters: Iterable[str], known: dict[str, nn.Parameter]) -> list[str]:
    if isinstance(parameters, str):
        raise TypeError(f"parameters must be a list of names, not the string {parameters!r}; write [{parameters!r}]")
    patterns = list(parameters)
    for name in patterns:
        if not isinstance(name, str):
            raise TypeError(
                f"parameters must hold names such as {next(iter(known), 'fc1.weight')!r}, not {type(name).__name__}s"
            )
    return patterns


def _target(name: str, owners: list[nn.Module], known: dict[str, nn.Parameter], names: dict[Memory, str]) -> Target:
    weight = known[name]
    _check_values(name, weight)
    layouts = {_layout(module) for module in owners}
    layout = layouts.pop() if len(layouts) == 1 else PLAIN
    biases = _biases(name, owners, known)
    bias_names = tuple(dict.fromkeys(names[memory_of(bias)] for bias in biases))
    return Target(name, weight, layout, bias_names, tuple(owners), _obstacle(name, weight, owners))


def _biases(name: str, owners: list[nn.Module], known: dict[str, nn.Parameter]) -> list[Tensor]:
    """The biases of the units of a weight: of all layers that use it, or of the module that it stands in."""
    if owners:
        return [bias for module in owners if (bias := module._parameters.get("bias")) is not None]
    # Embeddings have none; attention's in_proj_weight has its in_proj_bias, a Bilinear layer its bias.
    module, _, last = name.rpartition(".")
    bias = known.get(".".join(filter(None, [module, last.replace("weight", "bias")])))
    weight = known[name]
    fits = bias is not None and bias is not weight and weight.dim() > 1 and bias.shape == weight.shape[:1]
    return [bias] if bias is not None and fits else []


def _check_values(name: str, weight: nn.Parameter) -> None:
    if isinstance(weight, UninitializedParameter):
        raise ValueError(f"{name!r} has no values yet (a lazy module): run the model once before pruning it")
    if weight.is_meta:
        raise ValueError(f"{name!r} has no values (it is on the meta device): load the model's weights first")
    if not weight.dtype.is_floating_point or weight.element_size() == 1:
        raise ValueError(f"{name!r} has dtype {weight.dtype}; prunable are float64, float32, float16 and bfloat16")


def _obstacle(name: str, weight: nn.Parameter, owners: list[nn.Module]) -> str:
    own = [(_layout(module), module._parameters["weight"]) for module in owners]
    ways = {(layout, used.shape, used.stride()) for layout, used in own if used is not None}
    if len(ways | {(layout, weight.shape, weight.stride()) for layout, _ in own}) > 1:
        return "is shared by layers that store it differently, so a unit of one is no unit of the other"
    if any(module._parameters.get("bias") is None and isinstance(module.bias, Tensor) for module in owners):
        return "has a bias that is computed by a parametrization, which a mask cannot hold"
    # The names that parametrizations, torch.nn.utils.prune and the older weight_norm give to what they compute from.
    if ".parametrizations." in f".{name}" or name.rpartition(".")[2] in {"weight_orig", "weight_g", "weight_v"}:
        return "is what a layer computes its weight from, and how its units lie is not known"
    return ""


def _layout(module: nn.Module) -> Layout:
    if isinstance(module, _ConvNd):
        return Layout(groups=module.groups, transposed=isinstance(module, _ConvTransposeNd))
    return PLAIN
