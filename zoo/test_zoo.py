"""Every architecture of torchvision, timm and transformers that the zoo lists, and the floors they are held to.

Run by `make zoo`, in its own environment. Writes `coverage.md` and `coverage.json` when all have passed.
"""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import torch

from zoo import coverage, from_timm, from_torchvision, from_transformers, plain
from zoo.architecture import Architecture
from zoo.check import check
from zoo.peer import peer

torch.set_num_threads(1)
ELSEWHERE = ("plain_unet", "plain_lstm2", "plain_encoder", "plain_branching")  # written by hand, and part of the zoo
ARCHITECTURES = [
    *(a for a in plain.architectures() if a.name in ELSEWHERE),
    *(a for collection in (from_torchvision, from_timm, from_transformers) for a in collection.architectures()),
]
MEDIAN = 0.35
SOON_DONE = ("hf_llama", "hf_mixtral")  # Torch-Pruning gives nothing in 90 seconds
OF_THE_PEER = 0.95
ROWS: dict[str, dict[str, Any]] = {}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
def test_removed_equals_masked(architecture: Architecture) -> None:
    outcome, theirs = check(architecture), peer(architecture.name)
    ROWS[architecture.name] = coverage.row(architecture, outcome, theirs)
    ours = outcome.removed
    if architecture.name in SOON_DONE:
        assert outcome.forwards <= 10
    if architecture.batch_normalised and theirs.runs and theirs.removed is not None:
        assert ours >= OF_THE_PEER * theirs.removed, f"{ours:.1%} went, with Torch-Pruning {theirs.removed:.1%}"


def test_the_median_architecture_loses_enough() -> None:
    if len(ROWS) < len(ARCHITECTURES):
        pytest.skip("not every architecture was checked in this run")
    coverage.write(list(ROWS.values()))
    assert statistics.median(row["removed"] for row in ROWS.values()) >= MEDIAN
