"""Shared fixtures: one torch thread (tiny nets crawl with more), and every device that this machine has."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)


def _devices() -> list[str]:
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=_devices())
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)
