"""What each module of a network takes in a file: as it is stored, and with its zeros left out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from prunelab.evaluate.encoding import decode, encode, same_bits
from prunelab.memory import memory_of
from prunelab.trace import NonzeroCounter


@dataclass(frozen=True)
class Size:
    """Of one tensor: elements × bytes per element, the same in its smallest encoding, and what that is called."""

    dense: int
    sparse: int
    encoding: str


def stored_sizes(model: nn.Module, counter: NonzeroCounter | None) -> dict[str, list[Size]]:
    """For each module's path the sizes of its own parameters and persistent buffers, the largest first.

    What is shared is stored once, where it is met first. Encodings are not estimated: each tensor in which `counter`
    finds zeros is encoded, decoded and compared. With `counter=None` all count as dense; so do tensors without values
    (meta device) and those that are sparse already.
    """
    seen = set()
    sizes: dict[str, list[Size]] = {}
    for path, module in model.named_modules():
        buffers = {k: b for k, b in module._buffers.items() if k not in module._non_persistent_buffers_set}
        for tensor in (*module._parameters.values(), *buffers.values()):
            if tensor is not None and (memory := memory_of(tensor)) not in seen:
                seen.add(memory)
                sizes.setdefault(path, []).append(_size(tensor, counter))
    return {path: sorted(own, key=lambda size: -size.dense) for path, own in sizes.items()}


def _size(tensor: Tensor, counter: NonzeroCounter | None) -> Size:
    dense = tensor.numel() * tensor.element_size()
    plain = tensor.layout == torch.strided and not tensor.is_quantized
    values = plain and not tensor.is_meta and not isinstance(tensor, FakeTensor)
    if counter is None or not values or counter.count(tensor) == tensor.numel():
        return Size(dense, dense, "dense")
    encoded = encode(tensor)
    if encoded.encoding != "dense" and not same_bits(decode(encoded), tensor):
        raise RuntimeError(f"{encoded!r} does not read back as it was written; please report this as a mistake in it")
    return Size(dense, len(encoded.payload), encoded.encoding)
