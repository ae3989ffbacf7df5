"""Sweeps against loops written out, with one process and several, killed and resumed; and what is recorded, not fatal."""

from __future__ import annotations

import copy
import os
import random
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

import prunelab
from prunelab import criteria, scope
from prunelab.evaluate.kept import network_file
from prunelab.evaluate.method import Method
from prunelab.evaluate.results import Sweep
from prunelab.evaluate.sweep import sweep
from prunelab.granularity import Filter, Kernel, Weight

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # worker processes cannot import a test

QUIET: dict[str, Any] = {"progress": False}
SEEDS, SPARSITIES = (0, 1, 2), (0.25, 0.5)


def train(seed: int) -> nn.Module:
    """A network whose weights depend on chance, which the seed decides."""
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


def score(model: nn.Module) -> float:
    x = torch.linspace(-1, 1, 60).reshape(10, 6)
    return float(model(x).detach().double().square().sum())


def finetune(model: nn.Module, masks: prunelab.Masks | None, seed: int) -> None:
    """One noisy step that keeps what is pruned at zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    if masks is not None:
        masks.apply_(model)


METHODS = {"magnitude": Method(scope="local"), "largest": Method(criteria.Magnitude(p=torch.inf), scope="local")}


def small(methods: Any = METHODS, sparsities: Any = SPARSITIES, seeds: Any = SEEDS, **changes: Any) -> Sweep:
    settings: dict[str, Any] = {"train": train, "score": score, "finetune": finetune, **QUIET, **changes}
    return sweep(methods, sparsities, seeds, **settings)


def by_loops() -> pd.DataFrame:
    """The same sweep, written out."""
    rows = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        dense = train(seed)
        rows.append(("dense", "", 0.0, seed, score(dense)))
        for what in (Weight(), Filter()):
            for name, criterion in (
                ("magnitude", criteria.Magnitude()),
                ("largest", criteria.Magnitude(p=torch.inf)),
                ("random", criteria.Random(seed)),
            ):
                for sparsity in SPARSITIES:
                    model = copy.deepcopy(dense)
                    masks = prunelab.prune(model, sparsity, criterion=criterion, granularity=what, scope="local")
                    torch.manual_seed(seed)
                    finetune(model, masks, seed)
                    rows.append((name, str(what), sparsity, seed, score(model)))
    return pd.DataFrame(rows, columns=["method", "granularity", "sparsity", "seed", "score"])


def comparable(frame: pd.DataFrame) -> pd.DataFrame:
    columns = ["method", "granularity", "sparsity", "seed", "score"]
    return frame[columns].sort_values(columns[:-1]).reset_index(drop=True)


KINDS = {"granularities": (Weight(), Filter())}


def test_the_numbers_are_those_of_the_loops() -> None:
    with torch.random.fork_rng():
        expected = by_loops()
    pd.testing.assert_frame_equal(comparable(small(**KINDS).frame()), comparable(expected), check_exact=True)


def without_time(result: Sweep) -> pd.DataFrame:
    return result.frame().drop(columns="seconds")


def test_the_same_with_several_processes_and_in_any_order() -> None:
    here = without_time(small(**KINDS))
    for other in (small(**KINDS, jobs=2), small(**KINDS, engine=Shuffled())):
        pd.testing.assert_frame_equal(without_time(other), here, check_exact=True)


class Shuffled:
    """An engine of one's own: cells in a random order."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def map(self, function: Callable[[Any], Any], cells: Sequence[Any]) -> Iterator[Any]:
        self.calls.append(len(cells))
        order = random.Random(0).sample(range(len(cells)), len(cells))
        return (function(cells[index]) for index in order)


def test_an_engine_gets_the_dense_networks_first() -> None:
    engine = Shuffled()
    small(engine=engine)
    assert engine.calls == [3, 3 * 2 * 3]


class Lossy(Shuffled):
    def map(self, function: Callable[[Any], Any], cells: Sequence[Any]) -> Iterator[Any]:
        return (function(cell) for cell in cells[1:])


def test_an_engine_that_loses_cells_is_found_out() -> None:
    with pytest.raises(RuntimeError, match="no result for 1 of 3 cells"):
        small(engine=Lossy())


# --- baselines -------------------------------------------------------------------------------------------------------


def test_every_granularity_and_scope_has_chance_beside_it() -> None:
    methods = {
        "a": Method(granularity=Kernel()),
        "b": criteria.Magnitude(),
        "c": Method(granularity=Filter(), scope="local"),
    }
    frame = small(methods, finetune=None).frame()
    for (what, where), arms in frame[frame["kind"] != "dense"].groupby(["granularity", "scope"]):
        runs = {name: set(zip(rows["sparsity"], rows["seed"], strict=True)) for name, rows in arms.groupby("kind")}
        assert runs["random"] == runs["method"], (what, where)
    dense = frame[frame["kind"] == "dense"]
    assert list(zip(dense["method"], dense["sparsity"], dense["seed"], strict=True)) == [
        ("dense", 0.0, seed) for seed in SEEDS
    ]


def test_methods_that_differ_in_the_criterion_share_their_baseline() -> None:
    result = small()
    assert [(arm.name, arm.kind) for arm in result.arms] == [
        ("dense", "dense"), ("magnitude", "method"), ("largest", "method"), ("random", "random"),
    ]  # fmt: skip


def test_the_data_of_a_method_are_nothing_to_its_baseline() -> None:
    batches = [(torch.ones(4, 6), torch.arange(4))]
    taylor = Method(criteria.Taylor(), data=batches, loss=nn.functional.cross_entropy)
    arms = small({"magnitude": Method(), "Taylor": taylor}, seeds=[0]).arms
    assert [arm.name for arm in arms] == ["dense", "magnitude", "Taylor", "random"]


def test_baselines_at_one_place_are_told_apart() -> None:
    methods = {"all": Method(), "some": Method(parameters=["0.weight"]), "too": Method(criteria.Magnitude(p=2))}
    names = [arm.name for arm in small(methods).arms if arm.kind == "random"]
    assert names == ["random for all, too", "random for some"]


def test_the_networks_of_one_seed_are_the_same_for_all_and_trained_once(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def counted(seed: int) -> nn.Module:
        with log.open("a") as file:
            file.write(f"{seed}\n")
        return train(seed)

    frame = small(train=counted, finetune=None, sparsities=[0.0], jobs=2).frame()
    assert sorted(log.read_text().split()) == ["0", "1", "2"]
    assert (frame.groupby("seed")["score"].nunique() == 1).all()  # nothing is removed: all are the dense network


def test_chance_draws_anew_for_each_seed() -> None:
    frame = small(finetune=None, train=lambda seed: same, sparsities=[0.5]).frame()
    assert frame[frame["kind"] == "random"]["score"].nunique() == 3
    assert frame[frame["kind"] == "method"]["score"].nunique() < 3


torch.manual_seed(0)
same = train(0)


# --- methods ---------------------------------------------------------------------------------------------------------


def halves(model: nn.Module, sparsity: float, seed: int) -> prunelab.Masks:
    return prunelab.prune(model, sparsity, scope="local", apply=False)


def narrow(model: nn.Module, sparsity: float, seed: int, criterion: Any = None) -> nn.Module:
    """A smaller network: the hidden units with the largest scores."""
    scores = prunelab.score(model, criterion, Filter(), parameters=["0.weight"])["0.weight"]
    keep = scores.argsort(descending=True)[: 8 - round(8 * sparsity)].sort().values
    small = nn.Sequential(nn.Linear(6, len(keep)), nn.ReLU(), nn.Linear(len(keep), 4))
    with torch.no_grad():
        small[0].weight.copy_(model[0].weight[keep])
        small[0].bias.copy_(model[0].bias[keep])
        small[2].weight.copy_(model[2].weight[:, keep])
        small[2].bias.copy_(model[2].bias)
    return small


def test_a_function_is_a_method_and_its_masks_are_applied() -> None:
    frame = small({"mine": halves, "magnitude": Method(scope="local")}).frame().set_index("method")
    assert frame.loc["mine", "score"].tolist() == frame.loc["magnitude", "score"].tolist()
    assert set(frame.loc["mine", "kind"]) == {"method"}
    assert set(frame.loc["mine", "granularity"]) == {""}


def test_a_function_may_return_a_smaller_network() -> None:
    given = []

    def noted(model: nn.Module, masks: prunelab.Masks | None, seed: int) -> None:
        given.append(masks)

    result = small({"narrow": narrow}, sparsities=[0.5], finetune=noted)
    frame = result.frame().set_index("kind")
    # 8·7 + 4·9 = 92 parameters; with 4 hidden units 4·7 + 4·5 = 48
    assert frame.loc["method", "removed"].tolist() == pytest.approx([1 - 48 / 92] * 3)
    # It takes a criterion, so its baseline is its own, with random scores in place of the norm.
    assert frame.loc["random", "removed"].tolist() == pytest.approx([1 - 48 / 92] * 3)
    assert frame.loc["random", "score"].tolist() != frame.loc["method", "score"].tolist()
    assert given == [None] * 6


def test_where_no_method_takes_a_criterion_single_weights_go_by_chance() -> None:
    random_arms = [arm for arm in small({"mine": halves}).arms if arm.kind == "random"]
    assert [(arm.granularity, arm.scope) for arm in random_arms] == [("Weight()", "global")]


def test_two_functions_with_the_same_code_are_two_methods() -> None:
    def remover(k: float) -> Callable[..., Any]:
        boxed = [Boxed(k)]  # hidden from a description of the code
        return lambda model, sparsity, seed: prunelab.prune(model, boxed[0].k, apply=False)

    frame = small({"little": remover(0.1), "much": remover(0.9)}, sparsities=[0.5], finetune=None).frame()
    removed = frame.groupby("method")["removed"].mean()
    assert removed["much"] - removed["little"] > 0.5


class Boxed:
    def __init__(self, k: float) -> None:
        self.k = k

    def __repr__(self) -> str:
        return "Boxed"


def test_what_is_removed_counts_all_parameters() -> None:
    # 48 + 32 weights of 92 parameters; half of the weights: 40
    frame = small(sparsities=[0.5], finetune=None).frame().set_index("kind")
    assert frame.loc["method", "removed"].tolist() == pytest.approx([40 / 92] * 6)
    assert frame.loc["dense", "removed"].tolist() == [0.0] * 3


def test_a_layer_that_is_emptied_is_named_and_no_warning_breaks_the_sweep() -> None:
    def uneven(seed: int) -> nn.Module:
        model = train(seed)
        model[2].weight.data.mul_(1e-3)
        return model

    frame = small({"m": Method(granularity=Filter())}, train=uneven, finetune=None, sparsities=[0.4]).frame()
    assert set(frame.set_index("kind").loc["method", "collapsed"]) == {"2.weight"}


# --- interruption ----------------------------------------------------------------------------------------------------


SCRIPT = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from prunelab.evaluate.method import Method
from prunelab.evaluate.sweep import sweep

path, log, limit = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])

def train(seed):
    with log.open("a") as file:
        file.write(f"train {seed}\\n")
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))

def score(model):
    with log.open("a") as file:
        file.write("score\\n")
    if log.read_text().count("score") > int(limit.read_text()):
        time.sleep(600)  # until it is killed
    return float(model(torch.linspace(-1, 1, 60).reshape(10, 6)).detach().double().square().sum())

def finetune(model, masks, seed):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    masks.apply_(model)

results = sweep({"magnitude": Method(scope="local"), "global": Method()}, [0.25, 0.5], range(3), train=train,
                score=score, finetune=finetune, path=path, jobs=int(sys.argv[4]), progress=False)
results.frame().drop(columns="seconds").to_pickle(sys.argv[5])
"""


def prepared(folder: Path, limit: int, jobs: int = 1) -> list[str]:
    """The script with its arguments; it hangs in every call of `score` after the first `limit`."""
    (folder / "script.py").write_text(SCRIPT)
    (folder / "limit").write_text(str(limit))
    files = {name: str(folder / name) for name in ("script.py", "sweep.jsonl", "log", "limit", "frame.pkl")}
    return [files["script.py"], files["sweep.jsonl"], files["log"], files["limit"], str(jobs), files["frame.pkl"]]


def run_here(folder: Path) -> pd.DataFrame:
    """What the script gives when nothing stops it; run in this process, which saves the start of another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", prepared(folder, limit=10**9))
        runpy.run_path(sys.argv[0], run_name="__main__")
    return pd.read_pickle(folder / "frame.pkl")


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return run_here(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(("jobs", "finished"), [(1, 2), (2, 12)])
def test_killed_and_resumed_it_gives_the_same(tmp_path: Path, whole: pd.DataFrame, jobs: int, finished: int) -> None:
    """SIGKILL to the whole process group, in the middle of a cell; then the same script again, with one process."""
    process = subprocess.Popen([sys.executable, *prepared(tmp_path, finished + 1, jobs)], start_new_session=True)
    journal, log = tmp_path / "sweep.jsonl", tmp_path / "log"
    while lines(journal) < 1 + finished and process.poll() is None:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    before = lines(journal)
    scored = log.read_text().count("score")
    assert 1 + finished <= before < 1 + 3 + 24  # it was cut off on the way
    with journal.open("ab") as file:
        file.write(b'{"cell": {"arm": "dense", "spars')  # what a kill within a write would leave

    pd.testing.assert_frame_equal(run_here(tmp_path), whole, check_exact=True)
    done, cells = before - 1, 3 + 4 * 2 * 3
    assert log.read_text().count("score") - scored == cells - done  # what was finished is not run again
    if done >= 3:
        assert log.read_text().count("train") == 3


def test_interrupted_it_keeps_what_was_finished(tmp_path: Path) -> None:
    calls = []

    def stops(model: nn.Module) -> float:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return score(model)

    path = tmp_path / "sweep.jsonl"
    with pytest.raises(KeyboardInterrupt):
        small(score=stops, path=path)
    assert lines(path) == 1 + 5


def test_a_finished_sweep_runs_nothing_again(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    first = small(path=path)
    content = path.read_bytes()
    second = small(path=path, engine=Lossy())  # which would be found out, if it had anything to do
    pd.testing.assert_frame_equal(first.frame(), second.frame(), check_exact=True)
    assert path.read_bytes() == content


def test_methods_sparsities_and_seeds_may_be_added(tmp_path: Path) -> None:
    path, engine = tmp_path / "sweep.jsonl", Shuffled()
    small({"magnitude": METHODS["magnitude"]}, [0.5], [0, 1], path=path)
    grown = small(path=path, engine=engine)
    assert engine.calls == [1, 3 * 2 * 3 - 2 * 2]
    pd.testing.assert_frame_equal(without_time(grown), without_time(small()), check_exact=True)
    fewer = small({"magnitude": METHODS["magnitude"]}, [0.5], [1], path=path, engine=Lossy())
    assert len(fewer.frame()) == 1 + 2


def test_another_configuration_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    small(path=path)
    content = path.read_bytes()
    for change, message in (
        ({"train": lambda seed: nn.Linear(2, 2)}, r"there train is train#\w+, here .*<lambda>#"),
        ({"score": lambda model: 0.0}, "there score is score#"),
        ({"finetune": None}, r"there finetune is finetune#\w+, here None"),
        (
            {"methods": METHODS | {"largest": Method(scope="local")}},
            r"the method 'largest' is Method\(criterion=Magnitude\(p=inf",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            small(path=path, **change)
    assert path.read_bytes() == content


def test_a_network_that_was_deleted_or_damaged_is_trained_again(tmp_path: Path) -> None:
    path, engine = tmp_path / "sweep.jsonl", Shuffled()
    small(sparsities=[0.5], path=path)
    folder = tmp_path / "sweep.jsonl.networks"
    network_file(folder, 0).unlink()
    network_file(folder, 1).write_bytes(b"torn")
    grown = small(path=path, engine=engine)
    assert engine.calls[0] == 2
    pd.testing.assert_frame_equal(without_time(grown), without_time(small()), check_exact=True)


class Meddling(Shuffled):
    """Somebody overwrites a trained network while the sweep runs."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def map(self, function: Callable[[Any], Any], cells: Sequence[Any]) -> Iterator[Any]:
        yield from super().map(function, cells)
        torch.save(train(99), self.file)


@pytest.mark.filterwarnings("ignore:.*of the sweep failed:RuntimeWarning")
def test_a_network_that_was_exchanged_is_not_used(tmp_path: Path) -> None:
    file = network_file(tmp_path / "sweep.jsonl.networks", 1)
    frame = small(path=tmp_path / "sweep.jsonl", engine=Meddling(file)).frame()
    wrong = frame[frame["error"].str.contains("is not the network that was trained for this sweep")]
    assert set(wrong["seed"]) == {1}
    assert len(wrong) == 3 * 2


def test_another_network_under_the_same_seed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    drawn = iter(range(100))

    def unsteady(seed: int) -> nn.Module:
        model = train(seed)
        model[0].weight.data.fill_(next(drawn))
        return model

    small(train=unsteady, sparsities=[0.5], path=path)
    network_file(tmp_path / "sweep.jsonl.networks", 2).unlink()
    with pytest.raises(ValueError, match=r"train\(2\) does not give the same network again"):
        small(train=unsteady, path=path)


def test_a_network_of_an_older_sweep_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    """The journal was deleted, the networks were not, and train has changed."""
    path = tmp_path / "sweep.jsonl"
    small(train=lambda seed: nn.Sequential(nn.Linear(6, 2)), path=path)
    path.unlink()
    pd.testing.assert_frame_equal(without_time(small(path=path)), without_time(small()), check_exact=True)


# --- failures --------------------------------------------------------------------------------------------------------


def bad_at_half(model: nn.Module, sparsity: float, seed: int) -> prunelab.Masks:
    if sparsity == 0.5 and seed == 1:
        raise ZeroDivisionError("seed 1")
    return halves(model, sparsity, seed)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failure_is_recorded_and_the_rest_goes_on(jobs: int) -> None:
    with pytest.warns(
        RuntimeWarning, match=r"1 of 15 cells of the sweep failed, the first with ZeroDivisionError: seed 1"
    ):
        result = small({"bad": bad_at_half}, jobs=jobs)
    frame = result.frame()
    failed = frame[frame["error"] != ""]
    assert failed[["method", "sparsity", "seed", "error"]].values.tolist() == [
        ["bad", 0.5, 1, "ZeroDivisionError: seed 1"]
    ]
    assert failed["score"].isna().all()
    assert frame["score"].notna().sum() == 14
    (outcome,) = result.failures
    assert 'raise ZeroDivisionError("seed 1")' in outcome.error["traceback"]
    summary = result.summary().set_index(["method", "sparsity"])
    assert summary.loc[("bad", 0.5), ["count", "failed"]].tolist() == [2, 1]
    assert "1 of 15 cells failed" in repr(result)
    assert "(1 failed)" in result._repr_html_()


@pytest.mark.filterwarnings("ignore:.*of the sweep failed:RuntimeWarning")
def test_failures_are_run_again_when_asked(tmp_path: Path) -> None:
    path, engine = tmp_path / "sweep.jsonl", Shuffled()
    fails = [True]

    def sometimes(model: nn.Module, sparsity: float, seed: int) -> prunelab.Masks:
        if fails[0] and seed == 1:
            raise OSError("no disk")
        return halves(model, sparsity, seed)

    assert len(small({"m": sometimes}, path=path).failures) == 2
    fails[0] = False
    assert len(small({"m": sometimes}, path=path, engine=Lossy()).failures) == 2  # known, and not asked for
    assert not small({"m": sometimes}, path=path, retry=True, engine=engine).failures
    assert engine.calls == [2]
    assert not small({"m": sometimes}, path=path, engine=Lossy()).failures  # the last line of a cell counts


@pytest.mark.filterwarnings("ignore:.*of the sweep failed:RuntimeWarning")
def test_what_belongs_to_a_network_that_failed_fails_with_it(tmp_path: Path) -> None:
    broken = [True]

    def sometimes(seed: int) -> nn.Module:
        if broken[0] and seed == 1:
            raise ValueError("diverged")
        return train(seed)

    path = tmp_path / "sweep.jsonl"
    result = small(train=sometimes, path=path)
    failed = result.frame().query("error != ''")
    assert set(failed["seed"]) == {1}
    assert len(failed) == 1 + 3 * 2
    assert set(failed["error"]) == {"ValueError: diverged", "ValueError: the dense network of seed 1 failed: diverged"}
    broken[0] = False
    again = small(train=sometimes, path=path, retry=True)
    pd.testing.assert_frame_equal(without_time(again), without_time(small()), check_exact=True)


@pytest.mark.filterwarnings("ignore:.*of the sweep failed:RuntimeWarning")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": lambda seed: 3}, r"TypeError: train\(seed\) must return the trained network, not int"),
        ({"score": lambda model: "good"}, r"TypeError: score\(model\) must return a number"),
        ({"score": lambda model: {}}, "TypeError: score.model. returned no number"),
        ({"score": lambda model: {"a": None}}, r"TypeError: score\(model\) must return a number"),
        ({"score": lambda model: torch.ones(2)}, r"TypeError: score\(model\) must return a number"),
        ({"methods": {"m": lambda model, sparsity, seed: None}}, "TypeError: a method must return Masks or the pruned network"),
        ({"finetune": lambda m, masks, seed: nn.init.ones_(m[0].weight)}, r"ValueError: after finetune, \d+ of the pruned entries of '0.weight'"),
    ],
)  # fmt: skip
def test_what_a_function_does_wrong_is_said(change: dict, message: str) -> None:
    frame = small(**change).frame()
    assert frame["error"].str.match(message).any()


def test_a_sweep_in_which_all_fails_says_so_when_asked_for_numbers() -> None:
    def fails(seed: int) -> nn.Module:
        raise ValueError("no data")

    with pytest.warns(RuntimeWarning, match="21 of 21 cells"):
        result = small(train=fails)
    assert len(result.frame()) == 21
    assert "No value" in result._repr_html_()
    for ask in (result.summary, result.against, result.plot):
        with pytest.raises(ValueError, match="every cell failed"):
            ask()


# --- chance ----------------------------------------------------------------------------------------------------------


def state() -> tuple:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), torch.get_num_threads()  # noqa: NPY002


def test_the_generators_are_as_they_were() -> None:
    before = state()

    def draws(seed: int) -> nn.Module:
        random.random(), np.random.rand()  # noqa: NPY002
        return train(seed)

    small(train=draws)
    assert state() == before


def test_chance_starts_from_the_seed_whatever_was_drawn_before() -> None:
    def chancy(model: nn.Module) -> dict[str, float]:
        return {"torch": float(torch.rand(())), "numpy": np.random.rand(), "python": random.random()}  # noqa: NPY002

    torch.rand(3)
    frame = small(score=chancy).frame()
    for name in ("torch", "numpy", "python"):
        assert (frame.groupby("seed")[name].nunique() == 1).all()
        assert frame[name].nunique() == 3


def test_one_thread_a_cell() -> None:
    before = torch.get_num_threads()

    def threads(model: nn.Module) -> float:
        return torch.get_num_threads()

    assert set(small(score=threads, jobs=2).frame()["score"]) == {1}
    assert set(small(score=threads, threads=2).frame()["score"]) == {2}
    assert torch.get_num_threads() == before


# --- results ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result() -> Sweep:
    return small(**KINDS)


def test_the_summary_has_scipys_intervals(result: Sweep) -> None:
    frame, summary = result.frame(), result.summary(confidence=0.9)
    assert len(summary) == 1 + 3 * 2 * 2
    for row in summary.itertuples():
        same = (
            (frame["method"] == row.method)
            & (frame["granularity"] == row.granularity)
            & (frame["sparsity"] == row.sparsity)
        )
        values = frame.loc[same, "score"]
        low, high = stats.t.interval(0.9, 2, loc=values.mean(), scale=stats.sem(values))
        assert (row.mean, row.low, row.high, row.count, row.failed) == pytest.approx((values.mean(), low, high, 3, 0))


@pytest.mark.parametrize("baseline", ["random", "dense"])
def test_differences_are_taken_seed_by_seed(result: Sweep, baseline: str) -> None:
    frame = result.frame().set_index(["method", "granularity", "sparsity", "seed"])["score"].sort_index()
    against = result.against(baseline)
    assert len(against) == 2 * 2 * 2
    for row in against.itertuples():
        other = ("random", row.granularity, row.sparsity) if baseline == "random" else ("dense", "", 0.0)
        pairs = frame[row.method, row.granularity, row.sparsity] - frame[other]
        test = stats.ttest_1samp(pairs, 0.0).confidence_interval(0.95)
        assert (row.mean, row.low, row.high) == pytest.approx((pairs.mean(), test.low, test.high))


def test_pairs_need_both() -> None:
    with pytest.warns(RuntimeWarning, match="1 of 15"):
        result = small({"bad": bad_at_half})
    assert result.against("dense")["count"].tolist() == [3, 2]
    assert result.against("random").empty  # it has no baseline of its own


def test_several_values_are_columns_of_their_own() -> None:
    result = small(score=lambda model: {"accuracy": score(model), "loss": -score(model)})
    assert result.values == ("accuracy", "loss")
    frame = result.frame()
    assert (frame["accuracy"] == -frame["loss"]).all()
    assert result.summary()["mean"].tolist() == result.summary("accuracy")["mean"].tolist()
    assert result.summary("loss")["mean"].tolist() == [-mean for mean in result.summary()["mean"]]
    with pytest.raises(ValueError, match="nothing called 'f1' was scored; there is accuracy, loss"):
        result.summary("f1")


def test_nan_is_no_failure_and_is_not_hidden() -> None:
    result = small(score=lambda model: float("nan"), finetune=None)
    assert not result.failures
    assert result.summary()["mean"].isna().all()


def test_the_chart_says_its_numbers(result: Sweep) -> None:
    for against in ("sparsity", "removed"):
        drawn = result.plot(against=against, title="Trade-off")
        assert len(drawn.axes) == 2
        for name in ("dense", "magnitude (Weight())", "largest (Filter())", "random (Filter())"):
            assert f"{name}: " in drawn.prunelab_alt
        for row in result.summary().itertuples():
            assert f"{row.mean:.3f} ± {row.high - row.mean:.3f}" in drawn.prunelab_alt
        labels = [[text.get_text() for text in axes.texts] for axes in drawn.axes]
        assert labels == [["dense", "magnitude", "largest", "random"]] * 2


def test_one_seed_has_no_interval() -> None:
    result = small(seeds=[0])
    assert result.summary()["low"].isna().all()
    assert "±" not in result.plot().prunelab_alt
    assert "± nan" not in result._repr_html_()


def test_the_table_shows_means_and_escapes_names() -> None:
    result = small({"<b>": Method()}, sparsities=[0.5])
    shown = result._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown
    assert str(result.interval(result.arms[1], 0.5)) in shown


def test_the_table_names_method_granularity_and_scope_apart() -> None:
    shown = small({"largest": Method(granularity=Filter(), scope="local")}, sparsities=[0.5])._repr_html_()
    assert re.findall(r"<th [^>]*>([^<]*)</th>", shown) == [
        "method", "granularity", "scope", "0.5", "dense", "largest", "random",
    ]  # fmt: skip
    rows = [re.findall(r"text-align:(\w+)\">([^<]*)</t[hd]>", row) for row in shown.split("<tr>")[2:]]
    assert [[text for _, text in row[:3]] for row in rows] == [
        ["dense", "", ""], ["largest", "Filter()", "local"], ["random", "Filter()", "local"],
    ]  # fmt: skip
    assert {tuple(side for side, _ in row) for row in rows} == {("left", "left", "left", "right")}
    assert shown.count("padding:0.2em 0.6em") == 16  # or the columns touch on the page


def test_more_methods_than_colours() -> None:
    result = small({f"m{i}": Method() for i in range(8)}, sparsities=[0.5], seeds=[0], finetune=None)
    with pytest.raises(ValueError, match="8 methods, but only 7 can be told apart"):
        result.plot()


# --- bad arguments ---------------------------------------------------------------------------------------------------


def never(seed: int) -> nn.Module:
    raise AssertionError("nothing may be trained")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"methods": {}}, TypeError, "methods must be a mapping of names"),
        ({"methods": [Method()]}, TypeError, "methods must be a mapping of names"),
        ({"methods": {"dense": Method()}}, ValueError, "cannot be called 'dense'"),
        ({"methods": {3: Method()}}, ValueError, "cannot be called 3"),
        ({"methods": {"m": criteria.Magnitude}}, TypeError, "the method 'm' must be a Method"),
        ({"methods": {"m": nn.Linear(1, 1)}}, TypeError, "the method 'm' must be a Method"),
        ({"methods": {"m": Method(scope=scope.NM(2, 4))}}, ValueError, "0.25"),
        ({"methods": {"m": criteria.FilterCorrelation()}}, ValueError, "no meaning at the granularity"),
        ({"sparsities": []}, ValueError, "sparsities is empty"),
        ({"sparsities": 0.5}, TypeError, "sparsities must be several fractions"),
        ({"sparsities": [0.5, 0.5]}, ValueError, "sparsities names 0.5 twice"),
        ({"sparsities": [50]}, ValueError, "did you mean 0.5"),
        ({"seeds": []}, ValueError, "seeds is empty"),
        ({"seeds": 5}, TypeError, r"such as range\(5\), not 5"),
        ({"seeds": [1, 1]}, ValueError, "seeds names 1 twice"),
        ({"seeds": [-1]}, ValueError, "a seed is a whole number"),
        ({"seeds": [True]}, ValueError, "a seed is a whole number"),
        ({"score": None}, TypeError, "score must be a function, not None"),
        ({"finetune": 3}, TypeError, "finetune must be a function, not 3"),
        ({"jobs": 0}, ValueError, "jobs must be a number of processes"),
        ({"threads": 0}, ValueError, "threads must be a whole number"),
    ],
)  # fmt: skip
def test_a_bad_argument_is_refused_before_anything_is_trained(
    tmp_path: Path, change: dict, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        small(**{"train": never, "path": tmp_path / "sweep.jsonl"} | change)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"criterion": criteria.Magnitude},
            TypeError,
            r"must be a Criterion such as Magnitude\(\).*write Magnitude\(\)",
        ),
        ({"granularity": Filter}, TypeError, r"write Filter\(\)"),
        ({"scope": "everywhere"}, ValueError, "unknown scope"),
        ({"scope": {"0.weight": 0.5}}, ValueError, "leaves no sparsity to sweep"),
        ({"criterion": criteria.Taylor()}, ValueError, "needs data"),
        ({"criterion": criteria.FilterCorrelation(), "granularity": Weight()}, ValueError, "no meaning"),
    ],
)
def test_a_method_that_cannot_work_is_refused(settings: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Method(**settings)


def test_what_cannot_be_sent_is_refused_before_anything_runs(tmp_path: Path) -> None:
    file = (tmp_path / "open").open("w")
    with pytest.raises(TypeError, match=r"score cannot be sent to other processes .*use jobs=1"):
        small(train=never, score=lambda model: file.write("x"), path=tmp_path / "sweep.jsonl", jobs=2)
    file.close()
    assert [one.name for one in tmp_path.iterdir()] == ["open"]


def test_criteria_that_need_data_get_them() -> None:
    batches = [(torch.randn(12, 6, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 4)]
    taylor = Method(criteria.Taylor(), scope="local", data=batches, loss=nn.functional.cross_entropy)
    frame = small({"Taylor": taylor}, sparsities=[0.5], finetune=None).frame().set_index(["kind", "seed"])["score"]
    for seed in SEEDS:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = train(seed)
        prunelab.prune(
            model, 0.5, criterion=criteria.Taylor(), scope="local", data=batches, loss=nn.functional.cross_entropy
        )
        assert frame["method", seed] == score(model)


def test_names_that_are_used_up_by_iterating_are_kept() -> None:
    once = Method(parameters=iter(["0.weight"]))
    frame = small({"m": once}, finetune=None, sparsities=[0.5]).frame()
    assert frame.query("kind == 'method'")["removed"].tolist() == pytest.approx([24 / 92] * 3)
