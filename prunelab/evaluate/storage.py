"""A pruned network as a file that is smaller: each tensor in the encoding that takes the fewest bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from prunelab.evaluate.encoding import Encoded, check_dense, decode, encode, same_bits
from prunelab.memory import memory_of
from prunelab.targets import unwrap

_FORMAT = "prunelab.sparse.1"


def save_sparse(path: str | os.PathLike[str], model: nn.Module | Mapping[str, Tensor]) -> int:
    """Write a model's `state_dict`, or one that is given, with zeros left out; returns the size of the file in bytes.

    Each tensor takes the smallest of its encodings (`prunelab.evaluate.encode`); one that has several names is stored
    once. The file is a safetensors file, so that loading it runs no code. It is read back and compared, bit for
    bit, before it takes the name `path`; an existing file is replaced whole or not at all.

    Raises TypeError for entries that are no dense tensors, ValueError for tensors without values (meta device),
    FileNotFoundError and IsADirectoryError where `path` is no place for a file.

    >>> import tempfile
    >>> layer = nn.Linear(100, 100)
    >>> with torch.no_grad():
    ...     _ = layer.weight.fill_diagonal_(1.0).mul_(torch.eye(100))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = save_sparse(f"{folder}/layer.sparse", layer)
    ...     again = load_sparse(f"{folder}/layer.sparse")
    >>> size < 4 * 100 * 100 / 10, torch.equal(again["weight"], layer.weight)
    (True, True)
    """
    state = _state(model)
    target = Path(path).resolve()  # through a link, so that the link stays one
    if target.is_dir():
        raise IsADirectoryError(f"{os.fspath(target)!r} is a folder; name a file, such as small.safetensors, in it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {os.fspath(target.parent)!r} to save the model in")
    tensors, metadata = _to_file(state)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        save_file(tensors, part, metadata)
        _compare(load_sparse(part), state)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target.stat().st_size


def load_sparse(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The `state_dict` that `save_sparse` wrote: the same names in the same order, the same bits, on the CPU.

    `model.load_state_dict(load_sparse(path))` puts it into a model. Names that shared one tensor share it again.
    Raises FileNotFoundError where there is no file, and ValueError where it is not one of `save_sparse`, or damaged.
    """
    if not Path(path).is_file():
        what = "a folder, not a file" if Path(path).is_dir() else "not there"
        raise FileNotFoundError(f"{os.fspath(path)!r} is {what}; load_sparse reads what save_sparse wrote")
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise ValueError(f"{os.fspath(path)!r} was not written by save_sparse (format {_FORMAT})")
            tensors: dict[str, Tensor] = {}  # by payload: names with one payload are one tensor
            state = {}
            for name, fields in json.loads(metadata["tensors"]).items():
                payload = fields.pop("payload")
                if payload not in tensors:
                    tensors[payload] = decode(_encoded(fields, file.get_tensor(payload)))
                state[name] = tensors[payload]
            return state
    except SafetensorError as error:
        raise ValueError(f"{os.fspath(path)!r} is not a safetensors file: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{os.fspath(path)!r} is damaged: its description of the tensors cannot be read") from error


def _state(model: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not isinstance(model, nn.Module | Mapping):
        raise TypeError(f"what is saved is a torch.nn.Module or its state_dict, not {type(model).__name__}")
    state = dict(unwrap(model).state_dict() if isinstance(model, nn.Module) else model)
    for name, tensor in state.items():
        if not isinstance(name, str):
            raise TypeError(f"a state_dict names its tensors by strings, not by {name!r}")
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name!r} is no tensor but {type(tensor).__name__}, which this file cannot hold")
    return state


def _to_file(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The payloads, by number, and the metadata: what `Encoded` says of each name's tensor, and the number of its
    payload. Names of the model are no keys of the file, so that none can collide with what safetensors reserves."""
    described: dict[str, dict[str, Any]] = {}
    payloads: dict[str, Tensor] = {}
    first: dict[Any, str] = {}
    for name, tensor in state.items():
        try:
            check_dense(tensor)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name!r}: {error}") from None
        key = (memory_of(tensor), tensor.shape, tensor.stride(), tensor.dtype)
        if first.setdefault(key, name) != name:
            described[name] = described[first[key]]
            continue
        encoded = encode(tensor)
        number = str(len(payloads))
        payloads[number] = torch.from_numpy(np.frombuffer(encoded.payload, np.uint8).copy())
        described[name] = {
            "encoding": encoded.encoding,
            "dtype": str(encoded.dtype).removeprefix("torch."),
            "shape": encoded.shape,
            "nonzero": encoded.nonzero,
            "signs": encoded.signs,
            "payload": number,
        }
    return payloads, {"format": _FORMAT, "tensors": json.dumps(described)}


def _encoded(fields: Mapping[str, Any], payload: Tensor) -> Encoded:
    """What `_to_file` took apart. TypeError or AttributeError where it is something else."""
    dtype, shape = getattr(torch, fields["dtype"]), tuple(map(int, fields["shape"]))
    if not isinstance(dtype, torch.dtype) or min(shape, default=0) < 0:
        raise TypeError(f"{fields['dtype']!r} of shape {shape}")
    return Encoded(fields["encoding"], dtype, shape, int(fields["nonzero"]), fields["signs"], payload.numpy().tobytes())


def _compare(written: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    for name, tensor in state.items():
        if not same_bits(written[name], tensor):
            raise RuntimeError(f"{name!r} does not read back as it was written; no file was made. Is the disk sound?")
