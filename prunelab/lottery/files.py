"""Nested data with tensors in it as one safetensors file: loading it runs no code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_PLAIN = (str, int, float, bool, type(None))


def write(path: str | os.PathLike[str], content: Mapping[str, Any], kind: str) -> None:
    """Write dicts, lists, tuples, numbers, strings and tensors. An existing file is replaced whole, or not at all.

    Raises TypeError for anything else, FileNotFoundError and IsADirectoryError where `path` is no place for a file.
    """
    target = Path(path).resolve()  # through a link, so that the link stays one
    if target.is_dir():
        raise IsADirectoryError(f"{os.fspath(target)!r} is a folder; name a file in it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {os.fspath(target.parent)!r} to save in")
    tensors: dict[str, Tensor] = {}
    metadata = {"format": kind, "content": json.dumps(_packed(content, tensors, "content"))}
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        save_file(tensors, part, metadata)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def read(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """What `write` wrote as this `kind`, tensors on the CPU.

    Raises FileNotFoundError where there is no file, ValueError where it is of another kind or damaged.
    """
    if not Path(path).is_file():
        what = "a folder, not a file" if Path(path).is_dir() else "not there"
        raise FileNotFoundError(f"{os.fspath(path)!r} is {what}")
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != kind:
                raise ValueError(f"{os.fspath(path)!r} is not of the format {kind}, but {metadata.get('format')}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            return _unpacked(json.loads(metadata["content"]), tensors)
    except SafetensorError as error:
        raise ValueError(f"{os.fspath(path)!r} is not a safetensors file: {error}") from error
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{os.fspath(path)!r} is damaged: its description cannot be read") from error


def _packed(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """`value` for JSON. What JSON has not becomes a pair of its kind and its content; tensors go into `tensors`."""
    if isinstance(value, Tensor):
        name = str(len(tensors))  # names of the model are no keys of the file: safetensors reserves one
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        items = [[_packed(key, tensors, where), _packed(one, tensors, f"{where}.{key}")] for key, one in value.items()]
        return {"dict": items}
    if isinstance(value, tuple):
        return {"tuple": [_packed(one, tensors, where) for one in value]}
    if isinstance(value, list):
        return [_packed(one, tensors, where) for one in value]
    if not isinstance(value, _PLAIN):
        raise TypeError(f"{where} is {value!r:.60}, which the file cannot hold: tensors, numbers and strings only")
    return value


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_unpacked(one, tensors) for one in content)
    return {_unpacked(key, tensors): _unpacked(one, tensors) for key, one in content}
