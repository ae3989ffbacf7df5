"""Finds the attention layers of a model: one target each, whose units lie in several projections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from torch import nn

from prunelab.granularity import Head, Layout
from prunelab.names import Exclude, excluded
from prunelab.targets import Target, find_targets, first_names, named_parameters, unwrap


@dataclass(frozen=True)
class _Attention:
    """The projections of one attention layer, as names of weights: those that make heads, and the one that reads."""

    rows: tuple[str, ...]
    columns: str
    packed: int = 1
    layer: nn.MultiheadAttention | None = None


# How libraries name the projections: (queries, keys and values; or all in one), then the output, beside or above them.
_NAMES = (
    (("q_proj", "k_proj", "v_proj"), ("o_proj", "out_proj")),
    (("query", "key", "value"), ("output.dense", "../output.dense")),
    (("q_lin", "k_lin", "v_lin"), ("out_lin",)),
    (("to_q", "to_k", "to_v"), ("to_out", "to_out.0")),
    (("q", "k", "v"), ("o", "proj")),
    (("qkv",), ("proj",)),
)


def find_heads(
    model: nn.Module, granularity: Head, parameters: Iterable[str] | None = None, exclude: Exclude | None = None
) -> list[Target]:
    """The attention layers whose heads pruning will look at, in the model's order.

    Known are `torch.nn.MultiheadAttention`, and modules with Linear projections named as the common libraries name
    them (q_proj/k_proj/v_proj/o_proj, query/key/value/output.dense, to_q/..., qkv/proj). A target has the name of its
    first projection. `parameters` restricts them to the layers of which it names any projection; `exclude` leaves
    out those of which it names any.

    Raises ValueError where there is none, or the heads do not divide a projection.
    """
    first, chosen = first_names(model), None
    if parameters is not None:
        chosen = {target.name for target in find_targets(model, parameters)}
    out = {first[name] for name in excluded(exclude, named_parameters(model))}
    targets: dict[str, Target] = {}
    for attention in _attentions(model):
        names = [first[name] for name in (*attention.rows, attention.columns)]
        if names[0] not in targets and (chosen is None or chosen & set(names)) and not out & set(names):
            targets[names[0]] = _target(model, attention, granularity)
    if not targets:
        raise ValueError(
            f"{type(model).__name__} has no attention layer to prune: known are torch.nn.MultiheadAttention and "
            "modules with Linear projections named " + ", ".join("/".join((*rows, out[0])) for rows, out in _NAMES)
        )
    return list(targets.values())


def _target(model: nn.Module, attention: _Attention, granularity: Head) -> Target:
    if attention.layer is not None:
        _check(attention.rows[0], attention.layer, granularity)
    first = first_names(model)
    found = {target.name: target for target in find_targets(model, [*attention.rows, attention.columns])}
    rows = [replace(found[first[name]], layout=Layout(packed=attention.packed)) for name in attention.rows]
    # The output projection's own bias is no part of any head.
    columns = replace(found[first[attention.columns]], layout=Layout(heads="columns"), biases=())
    for part in (*rows, columns):
        part.view(part.weight, granularity)  # raises where the heads do not divide it
    return replace(rows[0], others=(*rows[1:], columns))


def _attentions(model: nn.Module) -> Iterator[_Attention]:
    modules = {name.replace("_orig_mod.", ""): module for name, module in unwrap(model).named_modules()}
    for name, module in modules.items():
        at = f"{name}." if name else ""
        if isinstance(module, nn.MultiheadAttention):
            yield _multihead(name, module)
            continue
        for rows, outs in _NAMES:
            out = next((found for o in outs if isinstance(modules.get(found := _path(name, o)), nn.Linear)), None)
            if out is not None and all(isinstance(modules.get(f"{at}{row}"), nn.Linear) for row in rows):
                packed = 3 if len(rows) == 1 else 1
                yield _Attention(tuple(f"{at}{row}.weight" for row in rows), f"{out}.weight", packed)
                break


def _multihead(name: str, module: nn.MultiheadAttention) -> _Attention:
    at = f"{name}." if name else ""
    if module.in_proj_weight is not None:
        return _Attention((f"{at}in_proj_weight",), f"{at}out_proj.weight", packed=3, layer=module)
    return _Attention(tuple(f"{at}{which}_proj_weight" for which in "qkv"), f"{at}out_proj.weight", layer=module)


def _check(name: str, layer: nn.MultiheadAttention, granularity: Head) -> None:
    """Refuses heads that the layer does not have, and a bias that their masks could not follow."""
    if granularity.heads != layer.num_heads:
        raise ValueError(
            f"{name!r} belongs to a layer with {layer.num_heads} attention heads, not {granularity.heads}; write "
            f"granularity.Head({layer.num_heads}), or leave it out with exclude=[{name!r}]"
        )
    if layer.in_proj_weight is None and layer.in_proj_bias is not None:
        raise ValueError(
            f"{name!r} is one of three projections with one bias for them all, which a head's mask cannot follow; make "
            f"the layer with bias=False, or leave it out with exclude=[{name!r}]"
        )


def _path(module: str, relative: str) -> str:
    """The name of a module named relative to another: `../` goes one level up."""
    parts = module.split(".") if module else []
    while relative.startswith("../"):
        parts, relative = parts[:-1], relative[3:]
    return ".".join([*parts, relative])


def targets_of(
    model: nn.Module, granularity: object, parameters: Iterable[str] | None, exclude: Exclude | None = None
) -> list[Target]:
    """What pruning looks at: attention layers at the granularity of heads, else parameters."""
    if isinstance(granularity, Head):
        return find_heads(model, granularity, parameters, exclude)
    return find_targets(model, parameters, exclude)
