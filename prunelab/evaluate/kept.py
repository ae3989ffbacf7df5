"""The trained networks of a sweep on disk: written by one process, read by others and by later runs."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import torch
from torch import nn

from prunelab.extras import extra
from prunelab.trace.forward import bytes_of


def network_file(folder: Path, seed: int) -> Path:
    """Where the trained network of a seed is kept."""
    return folder / f"dense-{seed}.pt"


def keep(folder: Path, seed: int, model: nn.Module) -> None:
    """Write the network, a whole file or none: under another name first, and renamed when it is on the disk."""
    content, path = _to_bytes(model), network_file(folder, seed)
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load(content: bytes, classes: Mapping[str, type]) -> nn.Module:
    """A fresh copy of the network in `content`, its modules of these `classes` where theirs have the same names.

    A class of a script or notebook is kept with its code, and would come back as another class of the same name:
    `isinstance(model, Net)` would be false in a run that goes on where an earlier one ended.
    """
    model: nn.Module = torch.load(io.BytesIO(content), weights_only=False)
    for module in model.modules():
        current = classes.get(_name_in_script(type(module)), type(module))
        if current is not type(module):
            module.__class__ = current
    return model


def classes_of(model: nn.Module) -> dict[str, type]:
    """The classes that the script or notebook has now for those modules of the network that are its own."""
    names = {_name_in_script(type(module)) for module in model.modules()} - {""}
    script = vars(sys.modules["__main__"])
    return {name: found for name in names if isinstance(found := script.get(name), type)}


def digest(model: nn.Module) -> str:
    """SHA-256, in hexadecimal digits, of all parameters and buffers with their names: the same in every process."""
    found = hashlib.sha256()
    for name, tensor in chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    ):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        values = tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
        found.update(bytes_of(values.cpu()).numpy().tobytes())
    return found.hexdigest()


def _name_in_script(kind: type) -> str:
    """The name of a class that the script or notebook defines; "" for all others."""
    return kind.__qualname__ if kind.__module__ == "__main__" else ""


def _to_bytes(model: nn.Module) -> bytes:
    """The network as torch.save writes it, with the code of classes that other processes could not import."""
    with extra("a sweep"):
        import cloudpickle
    buffer = io.BytesIO()
    try:
        torch.save(model, buffer, pickle_module=cloudpickle)
    except Exception as error:  # pickling raises whatever the objects do
        raise TypeError(
            f"the network that train returned cannot be stored ({error}): something that it refers to exists in this "
            "process only. Return the plain module, not compiled or wrapped"
        ) from error
    return buffer.getvalue()
