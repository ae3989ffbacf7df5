"""Sweeps that go on in another process, or beside another run; and functions that do what nobody expects."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import prunelab
from prunelab import criteria
from prunelab.evaluate.method import Method
from prunelab.evaluate.results import Sweep
from prunelab.evaluate.sweep import sweep
from prunelab.granularity import Filter, Granularity, Weight

# A network of a class that the script defines, and a score that asks for that class. It ends after so many scores.
SCRIPT = """
import os, sys
from pathlib import Path
import torch
from torch import nn
from prunelab import criteria
from prunelab.evaluate.sweep import sweep
torch.set_num_threads(1)

class Block(nn.Linear):
    pass

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = Block(8, 4)
    def forward(self, x):
        return self.layer(x)

def train(seed):
    return Net()

def score(model):
    log = Path(sys.argv[2])
    done = len(log.read_text()) if log.exists() else 0
    if done == int(sys.argv[3]):
        os._exit(7)
    with log.open("a") as file:
        file.write(".")
    return {"net": isinstance(model, Net) + 0.0, "block": (type(model.layer) is Block) + 0.0}

result = sweep({"magnitude": criteria.Magnitude()}, [0.3, 0.5, 0.9], range(3), train=train, score=score,
               path=sys.argv[1], jobs=int(sys.argv[4]), progress=False)
result.frame().to_pickle(sys.argv[1] + ".pkl")
"""


def train(seed: int) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def score(model: nn.Module) -> float:
    return float(model[0].weight.detach().abs().sum())


def small(methods: Any = None, sparsities: Any = (0.5,), seeds: Any = (0, 1), **changes: Any) -> Sweep:
    settings: dict[str, Any] = {"train": train, "score": score, "progress": False, **changes}
    return sweep(methods or {"magnitude": criteria.Magnitude()}, sparsities, seeds, **settings)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_class_of_the_script_is_the_same_class_after_a_resume(tmp_path: Path, jobs: int) -> None:
    script, journal, log = tmp_path / "script.py", tmp_path / "sweep.jsonl", tmp_path / "log"
    script.write_text(SCRIPT)
    for limit, processes, code in ((8, 1, 7), (10**6, jobs, 0)):
        command = [sys.executable, str(script), str(journal), str(log), str(limit), str(processes)]
        assert subprocess.run(command, check=False).returncode == code
    frame = pd.read_pickle(f"{journal}.pkl")
    assert len(frame) == 3 + 2 * 3 * 3
    assert (frame["net"] == 1).all()
    assert (frame["block"] == 1).all()


def test_a_failure_of_one_run_does_not_replace_what_the_other_found(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    first = small(path=path).frame()
    done = next(line for line in lines(path) if line.get("cell", {}).get("arm", "").startswith("method"))
    error = {"type": "ValueError", "message": "no", "traceback": ""}
    with path.open("a") as file:
        file.write(json.dumps(done | {"values": None, "error": error}) + "\n")
    pd.testing.assert_frame_equal(small(path=path).frame(), first, check_exact=True)


def test_scores_that_measure_time_may_differ_where_the_network_is_the_same(tmp_path: Path) -> None:
    path, ticks = tmp_path / "sweep.jsonl", itertools.count()

    def timed(model: nn.Module) -> dict[str, float]:
        return {"score": score(model), "ms": float(next(ticks))}

    small(path=path, score=timed)
    shutil.rmtree(f"{path}.networks")
    assert len(small(path=path, score=timed, sparsities=[0.5, 0.6]).frame()) == 2 + 2 * 2 * 2


def test_a_file_where_the_networks_should_go_is_refused(tmp_path: Path) -> None:
    Path(f"{tmp_path}/sweep.jsonl.networks").write_text("mine")
    with pytest.raises(ValueError, match="is no folder, and the trained networks go there"):
        small(path=tmp_path / "sweep.jsonl")
    assert Path(f"{tmp_path}/sweep.jsonl.networks").read_text() == "mine"


def test_a_line_that_is_no_cell_is_refused_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    small(path=path)
    whole = path.read_text()
    for line in ('{"x": 1}', whole.splitlines()[1].replace('"dense"', '["dense"]', 1)):
        path.write_text(f"{whole}{line}\n")
        with pytest.raises(ValueError, match=r"in '.*sweep.jsonl', this is no cell of a sweep.*Delete that line"):
            small(path=path)


class Plain(Granularity):
    """Single weights, by a class that does not say how it is shown."""

    __repr__ = object.__repr__

    def view(self, weight: torch.Tensor, layout: Any) -> torch.Tensor:
        return Weight().view(weight, layout)

    def restore(self, viewed: torch.Tensor, shape: Any, layout: Any) -> torch.Tensor:
        return Weight().restore(viewed, shape, layout)


def test_a_granularity_of_ones_own_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    frame = small({"m": Method(granularity=Plain())}, path=path).frame()
    content = path.read_bytes()
    assert set(frame.loc[frame["kind"] == "method", "granularity"]) == {"Plain"}
    small({"m": Method(granularity=Plain())}, path=path)  # another object
    assert path.read_bytes() == content


# --- functions that do what nobody expects ---------------------------------------------------------------------------


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (ValueError("bad \udcff name"), "ValueError", "bad \udcff name"),  # as a file's name may be
        (Silent(), "Silent", "its text cannot be shown"),
        (SystemExit(3), "SystemExit", "3"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*of the sweep failed:RuntimeWarning")
def test_whatever_is_raised_is_recorded(tmp_path: Path, raised: BaseException, kind: str, message: str) -> None:
    def fails(model: nn.Module, sparsity: float, seed: int) -> Any:
        raise raised

    path = tmp_path / "sweep.jsonl"
    methods = {"fails": fails, "magnitude": criteria.Magnitude()}
    for result in (small(methods, path=path), small(methods, path=path)):
        assert {one.error["type"] for one in result.failures if one.error} == {kind}
        assert all(one.error and message in one.error["message"] for one in result.failures)
        assert len(result.frame()) - len(result.failures) == 2 + 2 * 2


def test_whether_gradients_are_recorded_is_nothing_that_a_cell_hands_on() -> None:
    def careless(model: nn.Module) -> float:
        torch.set_grad_enabled(False)
        return score(model)

    def finetune(model: nn.Module, masks: prunelab.Masks, seed: int) -> None:
        model(torch.ones(1, 8)).sum().backward()
        masks.apply_(model)

    assert not small(score=careless, finetune=finetune).failures
    assert torch.is_grad_enabled()


@pytest.mark.filterwarnings("ignore:.*of the sweep failed:RuntimeWarning")
def test_a_number_with_the_name_of_a_column_is_refused() -> None:
    result = small(score=lambda model: {"accuracy": score(model), "sparsity": 0.1, "seed": 9})
    assert len(result.failures) == len(result.outcomes)
    assert "calls a number 'seed', 'sparsity'" in (result.failures[0].error or {})["message"]


def test_granularities_that_are_none() -> None:
    with pytest.raises(ValueError, match="granularities is empty"):
        small(granularities=[])
    for wrong in (Filter(), "filter", 3):
        with pytest.raises(TypeError, match="granularities must be several"):
            small(granularities=wrong)
    with pytest.raises(TypeError, match=r"write Magnitude\(\)"):
        small({"m": criteria.Magnitude})


def test_two_methods_under_one_name_are_refused() -> None:
    methods = {"a": Method(granularity=Filter()), "a Filter()": lambda model, s, seed: prunelab.prune(model, s)}
    with pytest.raises(ValueError, match=r"two methods are called 'a Filter\(\)'"):
        small(methods)


def test_what_there_is_no_curve_of() -> None:
    result = small(score=lambda model: float("nan"))
    with pytest.raises(ValueError, match="no pruned network has a score"):
        result.plot()


def test_functions_are_drawn_beside_chance() -> None:
    result = small({"mine": lambda model, s, seed: prunelab.prune(model, s, apply=False)})
    assert len(result.plot().axes) == 1
    assert result.against().empty
    assert "mean" in result.against().columns
