"""What shrinking reaches in each architecture, and why not the rest: a table for people, and the same as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo.architecture import Architecture
from zoo.check import Outcome
from zoo.peer import LIMIT, PeerOutcome

TABLE = Path(__file__).parent / "coverage.md"

# Every network keeps these; only the other reasons are told.
_OF_COURSE = "it leaves the network"


def row(architecture: Architecture, outcome: Outcome, peer: PeerOutcome) -> dict[str, Any]:
    """Plain data about one architecture, ours beside the peer's."""
    plan = outcome.small.plan
    inside = {name for part in plan.parts for name in part.members}
    sizes = {name: parameter.numel() for name, parameter in architecture.build().named_parameters()}
    return {
        "name": architecture.name,
        "source": architecture.source,
        "batch_normalised": architecture.batch_normalised,
        "parameters": outcome.parameters,
        "left": outcome.left,
        "removed": round(outcome.removed, 4),
        "in_prunable_groups": round(
            sum(size for name, size in sizes.items() if name in inside) / outcome.parameters, 4
        ),
        "stays": reasons(plan),
        "error": outcome.error,
        "forwards": outcome.forwards,
        "seconds": round(outcome.seconds, 2),
        "peer_removed": None if peer.removed is None else round(peer.removed, 4),
        "peer_runs": peer.runs,
        "peer_trouble": peer.trouble,
    }


def reasons(plan: Any) -> list[str]:
    """Why channels stay, each reason once, with how many layers and channels it concerns."""
    found: dict[str, list[int]] = {}
    for part in plan.frozen:
        if not part.reason.startswith(_OF_COURSE):
            found.setdefault(part.reason.split(" (")[0], []).append(part.channels)
    return [f"{reason} ({sum(channels)} channels, groups: {len(channels)})" for reason, channels in found.items()]


def median_removed(rows: Iterable[dict[str, Any]]) -> float:
    """Over the architectures, the fraction of the parameters that goes."""
    return statistics.median(entry["removed"] for entry in rows)


def write(rows: list[dict[str, Any]]) -> None:
    """Both files, beside this one."""
    TABLE.write_text(as_markdown(rows))
    TABLE.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table, with what its columns mean above it."""
    head = "| architecture | parameters | left | removed | in prunable groups | forwards | seconds | Torch-Pruning | why the rest stays |"
    lines = [_line(entry) for entry in rows]
    runs = sum(entry["peer_runs"] for entry in rows)
    return "\n".join(
        [
            "# What shrinking reaches",
            "",
            "Written by `make zoo`. Every architecture has random weights and loses half of the channels (or heads) of every group that "
            "can shrink; each passed the check in `check.py`. *In prunable groups*: parameters that lie in tensors of such a group. "
            "*Forwards*: all calls of the network that `shrink` made, verification among them. *Torch-Pruning*: parameters that "
            "Torch-Pruning 1.6.1 removes at the same ratio with the classifier left alone and nothing else said, and whether the "
            f"result still runs (limit {LIMIT:.0f} s). Widths under a norm over channels, which stay here, it removes: then "
            "the network computes something else than the masked one.",
            "",
            f"{len(rows)} architectures; the median one loses {median_removed(rows):.0%} of its parameters; "
            f"Torch-Pruning's result runs for {runs}.",
            "",
            head,
            "|" + "---|" * head.count(" | ") + "---|",
            *lines,
            "",
        ]
    )


def _line(entry: dict[str, Any]) -> str:
    peer = "gives no network" if entry["peer_removed"] is None else f"{entry['peer_removed']:.0%}"
    if entry["peer_removed"] is not None and not entry["peer_runs"]:
        peer += ", does not run"
    cells = [
        f"{entry['name']}", f"{entry['parameters']:,}", f"{entry['left']:,}", f"{entry['removed']:.0%}",
        f"{entry['in_prunable_groups']:.0%}", str(entry["forwards"]), f"{entry['seconds']:.1f}", peer,
        "; ".join(entry["stays"]).replace("|", "\\|") or "only the outputs stay",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"
