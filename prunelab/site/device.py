"""What the kernels of this build run on, in words. Asked of another process: this one does not import torch."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

_QUESTION = """
import torch
if torch.cuda.is_available():
    print(torch.cuda.get_device_name())
elif torch.backends.mps.is_available():
    print("Apple GPU (MPS)")
"""


@functools.cache
def describe() -> str:
    """The GPU's name, or "2 CPU cores": the cores this process may use, which can be fewer than the machine has."""
    done = subprocess.run([sys.executable, "-c", _QUESTION], capture_output=True, text=True, check=False)
    gpu = done.stdout.strip()
    return gpu if gpu and not done.returncode else cores()


def count_cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores() -> str:
    """How many CPU cores this process may use, in words."""
    count = count_cores()
    return "1 CPU core" if count == 1 else f"{count} CPU cores"
