"""Every figure that has a bar, as one table and one picture, from the stored results of the other benchmarks.

    python benchmarks/summary.py            the CPU's figures; with "cuda", those of a GPU where it has been measured
    make bench                              run everything first

A figure is a ratio to a peer or to a physical limit, measured with it in one run. The picture shows how far each lies
beyond its bar.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from environment import RESULTS, store
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Bar:
    """A figure in a stored result, found by its keys, and the bar for it; `at_most` where smaller is better."""

    what: str
    result: str
    keys: tuple[str, ...]
    bar: float
    at_most: bool = False


BARS = [
    Bar("global threshold, times torch prune's speed", "magnitude", ("speedup_over_peer", "median"), 50),
    Bar("global threshold, times fasterai's speed", "magnitude", ("speedup_over_fasterai", "median"), 8),
    Bar("global threshold, reads of the weights", "magnitude", ("reads",), 7, at_most=True),
    Bar("extra memory, in weight bytes", "magnitude", ("extra_memory_in_weight_bytes",), 0.35, at_most=True),
    Bar("Wanda's selection, times the published sort's", "selection", ("per_row", "speedup_over_peer", "median"), 10),
    Bar("filter correlation, times the pair loop's", "correlation", ("speedup_over_pair_loop", "median"), 100),
    Bar("mutual information, times KSG's (targets)", "information", ("measurement", "histogram", "times_faster"), 300),
    Bar("mutual information, times KSG's (labels)", "information", ("classes", "histogram", "times_faster"), 300),
    *(
        Bar(f"a held step, in dense ones ({case})", "hold", ("cases", case, "ratio_to_dense", "prunelab"), 1.15, True)
        for case in ("LeNet-300-100, SGD", "LeNet-300-100, Adam", "ResNet-20, SGD")
    ),
    *(
        Bar(f"to a pruned {name}, times Torch-Pruning's speed", "surgery", ("time", key, "times_faster", "median"), bar)
        for name, key, bar in (
            ("ResNet-50", "resnet50", 1.3),
            ("DenseNet-121", "densenet121", 10),
            ("DenseNet-201", "densenet201", 60),
        )
    ),
    Bar("forwards that verify a pruned ResNet-50", "surgery", ("forwards", "ResNet-50", "verification"), 5, True),
    *(
        Bar(f"all forwards to a pruned {name}", "surgery", ("forwards", name, "all"), 10, True)
        for name in ("Llama, tiny", "Mixtral, tiny")
    ),
    Bar(
        "SparseGPT on 3072 x 768, times the published one's speed",
        "layerwise",
        ("layers", "3072x768", "sparsegpt, 50 %", "speedup_over_published", "median"),
        3,
    ),
    Bar("greedy surgeon, times the textbook loop's speed", "second_order", ("textbook", "speedup"), 100),
    Bar("greedy surgeon, times rank-1 updates' speed", "second_order", ("rank_one", "speedup"), 4),
    *(
        Bar(
            f"Hessian diagonal, in gradient steps ({case})",
            "second_order",
            ("diagonal", case, "gradient_steps", "prunelab"),
            2,
            True,
        )
        for case in ("LeNet-300-100, 64", "LeNet-300-100, 128")
    ),
    Bar(
        "Hessian diagonal of LeNet-5, times backpack's time",
        "second_order",
        ("diagonal", "LeNet-5, 64", "times_backpack"),
        1.3,
        True,
    ),
    Bar("latency of half of ResNet-50, in dense ones", "surgery", ("latency", "ratio", "median"), 0.35, True),
    Bar(
        "20 networks of 100-50 units at once, times the loop's speed",
        "lottery",
        ("speed", "100-50", "speedup_over_plain_loop", "median"),
        2.5,
    ),
    Bar("5 tickets of 14 rounds and all controls, seconds", "lottery", ("experiment", "seconds"), 30, at_most=True),
]


def look_up(result: dict[str, Any], keys: tuple[str, ...]) -> float | None:
    for key in keys:
        result = result.get(key) or {}
    return float(result) if isinstance(result, int | float) else None


def measured(device: str) -> list[dict[str, Any]]:
    """One row a bar: the figure (None where it was not measured here), the bar, and whether it is met."""
    rows = []
    for bar in BARS:
        path = RESULTS / f"{bar.result}-{device}.json"
        figure = look_up(json.loads(path.read_text()), bar.keys) if path.exists() else None
        met = None if figure is None else (figure <= bar.bar if bar.at_most else figure >= bar.bar)
        rows.append({"what": bar.what, "measured": figure, "bar": bar.bar, "at_most": bar.at_most, "met": met})
    return rows


def plot(rows: list[dict[str, Any]]) -> Figure:
    """How many times better than its bar each figure is, on a logarithmic axis; 1 is the bar."""
    shown = [row for row in rows if row["measured"]][::-1]
    beyond = [r["bar"] / r["measured"] if r["at_most"] else r["measured"] / r["bar"] for r in shown]
    figure = Figure(figsize=(8, 0.4 * len(shown) + 1), layout="constrained")
    axes = figure.add_subplot(xlabel="times better than the bar", xscale="log")
    axes.barh([row["what"] for row in shown], [value - 1 for value in beyond], left=1, color="#0072B2")
    axes.axvline(1, color="black")
    for y, (row, value) in enumerate(zip(shown, beyond, strict=True)):
        axes.annotate(f" {row['measured']:.3g}", (max(value, 1), y), va="center")
    axes.set_xlim(min([0.5, *beyond]), 2 * max([1, *beyond]))
    axes.set_xticks([0.5, 1, 2, 5, 10], ["0.5", "1 (the bar)", "2", "5", "10"])
    axes.minorticks_off()
    return figure


def main() -> None:
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    rows = measured(device)
    if all(row["measured"] is None for row in rows):
        sys.exit(f"nothing was measured on {device} yet; run the other benchmarks there first (make bench)")
    width = max(len(row["what"]) for row in rows)
    print(f"{'':{width}}  measured      bar")
    for row in rows:
        figure = "      --" if row["measured"] is None else f"{row['measured']:8.3g}"
        mark = {True: "", False: "  MISSED", None: "  not measured here"}[row["met"]]
        print(f"{row['what']:{width}}  {figure}  {'<=' if row['at_most'] else '>='} {row['bar']:<5g}{mark}")
    store(f"summary-{device}", {"device": device, "bars": rows})
    plot(rows).savefig(RESULTS / f"summary-{device}.png", dpi=120)


if __name__ == "__main__":
    main()
