"""Which device to train on, decided once and said once."""

from __future__ import annotations

import logging
import os
import sys

import torch

from prunelab.lab.progress import building

VARIABLE = "PRUNELAB_DEVICE"
_log = logging.getLogger("prunelab")
_told: set[torch.device] = set()


def device() -> torch.device:
    """The fastest device of this machine: CUDA, else Apple's MPS, else the CPU.

    The environment variable `PRUNELAB_DEVICE` ("cpu", "cuda", "cuda:1", "mps") overrules it. The first call says which
    device it is and why: one line under the cell in a notebook, an INFO record of the logger "prunelab" anywhere.

    Raises:
        ValueError: `PRUNELAB_DEVICE` names a device that does not exist or that this machine does not have.
    """
    wanted = os.environ.get(VARIABLE, "").strip()
    chosen = _parse(wanted) if wanted else _best()
    if chosen not in _told:
        _told.add(chosen)
        _tell(f"device: {_describe(chosen)}" + (f" ({VARIABLE}={wanted})" if wanted else ""))
    return chosen


def _best() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _parse(wanted: str) -> torch.device:
    way_out = f"unset {VARIABLE} to have the best device chosen, or set it to 'cpu', 'cuda', 'cuda:1' or 'mps'"
    try:
        chosen = torch.device(wanted)
    except RuntimeError as error:
        raise ValueError(f"{VARIABLE}={wanted!r} is not a device; {way_out}") from error
    if chosen.type not in {"cpu", "cuda", "mps"}:
        raise ValueError(f"{VARIABLE}={wanted!r}: the lab trains on CPU, CUDA or MPS only; {way_out}")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ValueError(f"{VARIABLE}={wanted!r}, but torch sees {found} CUDA devices on this machine; {way_out}")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"{VARIABLE}={wanted!r}, but torch sees no MPS device on this machine; {way_out}")
    return chosen


def _describe(chosen: torch.device) -> str:
    if chosen.type == "cuda":
        return f"{chosen}, {torch.cuda.get_device_name(chosen)}"
    if chosen.type == "mps":
        return "mps, the GPU of this Mac"
    return f"cpu, {torch.get_num_threads()} thread(s)"


def _tell(line: str) -> None:
    _log.info(line)
    # A reader of a notebook sees no INFO record. A page under construction says its device elsewhere, in its header.
    ipython = sys.modules.get("IPython")
    if ipython is not None and not building() and hasattr(ipython.get_ipython(), "kernel"):
        ipython.display.display({"text/plain": line}, raw=True)
