"""Shared fixtures: one torch thread (tiny nets crawl with more), and every device that this machine has.

With `-n auto`, as the Makefile runs them, there is one worker for each core. A file of unit tests stays with one worker,
so that what it makes once is made once. So do the tests that look at one view of a page of the book; all other tests of
the book go to whoever is free. Everything is given out in the order of collection.
"""

from __future__ import annotations

import os
import re
from typing import Any

# Also for the processes that tests start. Before torch is imported: it reads this once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

from prunelab.site.device import count_cores

# Each worker of the browser tests has a browser, a server and kernels.
MOST_WORKERS = 6

torch.set_num_threads(1)
# PyTorch says many a warning once a process: which test it failed would hang on the order of the tests.
torch.set_warn_always(True)
# No test measures time: a busy machine must not fail one.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    return min(count_cores(), MOST_WORKERS)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            view = re.search(r"\[(.*-(?:wide|narrow)-(?:light|dark))\]$", nodeid)
            return (view[1] if view else nodeid) if file.startswith("tests/book/") else file

    config.option.loadscopereorder = False  # the browser comes last: see tests/book/conftest.py
    return Scheduling(config, log)


def _devices() -> list[str]:
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=_devices())
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)
