"""Shared fixtures: one torch thread (tiny nets crawl with more), and every device that this machine has."""

from __future__ import annotations

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
# No test measures time: a busy machine must not fail one.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


def _devices() -> list[str]:
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=_devices())
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)
