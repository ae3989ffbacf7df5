"""The ledger's conclusions against a partition kept by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import DisjointSet

from prunelab.surgery.labels import FIXED
from prunelab.surgery.ledger import Ledger, Verdict

pairs = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12)), max_size=12)
some = st.lists(st.integers(1, 12), max_size=4)


@settings(max_examples=120, derandomize=True)
@given(ties=pairs, kept=some, inexact=some, made=some)
def test_units_and_who_may_go(
    ties: list[tuple[int, int]], kept: list[int], inexact: list[int], made: list[int]
) -> None:
    ledger, partition = Ledger(), DisjointSet(range(13))
    assert ledger.new(12).tolist() == list(range(1, 13))
    for a, b in ties:
        ledger.tie(np.array([a]), np.array([b]))
        partition.merge(a, b)
    for channel in inexact:  # written before those that forbid: the order must not matter
        ledger.freeze(np.array([channel]), Verdict("inexact", f"{channel}", inexact=True))
    for channel in kept:
        ledger.freeze(np.array([channel]), Verdict("kept", f"{channel}"))
    for channel in made:
        ledger.made(np.array([channel]))
    solution = ledger.solve()
    for a in range(13):
        for b in range(13):
            assert (solution.unit_of[a] == solution.unit_of[b]) == partition.connected(a, b)
    for channel in range(13):
        mine, unit = partition.subset(channel), solution.unit_of[channel]
        forbidden = bool(mine & {FIXED, *kept})
        is_made = bool(mine & set(made))
        assert solution.free(False)[unit] == (is_made and not forbidden)
        assert solution.free(True)[unit] == (is_made and not forbidden and not mine & set(inexact))
        if forbidden or mine & set(inexact):
            verdict = solution.verdicts[solution.why[unit]]
            assert verdict.inexact == (not forbidden)
            if FIXED not in mine:
                assert int(verdict.where) in mine
        else:
            assert solution.why[unit] == -1


def test_ties_broadcast_position_by_position() -> None:
    """(2, 3) with (1, 3): each column is one unit. Along an axis: each row is one."""
    ledger = Ledger()
    box, row = ledger.new(6).reshape(2, 3), ledger.new(3).reshape(1, 3)
    ledger.tie(box, row)
    units = ledger.solve().unit_of
    assert (units[box] == units[row]).all()
    assert len(set(units[row].ravel())) == 3

    ledger = Ledger()
    box = ledger.new(6).reshape(2, 3)
    first = ledger.tie_along(box, 1)
    assert first.shape == (2, 1)
    units = ledger.solve().unit_of[box]
    assert (units == units[:, :1]).all()
    assert units[0, 0] != units[1, 0]


def test_nothing_said_nothing_tied() -> None:
    solution = Ledger().solve()
    assert solution.unit_of.tolist() == [0]
    assert not solution.free(False).any()


def test_demands_that_ties_meet_are_dropped_and_each_is_told_once() -> None:
    ledger = Ledger()
    parts = ledger.new(6).reshape(2, 3)
    ledger.balance(parts)
    ledger.balance(parts)
    alike = ledger.new(3)
    ledger.balance(np.stack([alike, alike]))
    whole = ledger.new(4).reshape(2, 2)
    ledger.tie_along(whole, 1)
    ledger.balance(whole)
    solution = ledger.solve()
    (kept,) = solution.balances
    np.testing.assert_array_equal(kept, solution.unit_of[parts])


def test_made_and_read_are_kept_apart() -> None:
    ledger = Ledger()
    one, other = ledger.new(3), ledger.new(2)
    ledger.made(one)
    ledger.read(other)
    assert np.flatnonzero(ledger.made_channels()).tolist() == one.tolist()
    assert np.flatnonzero(ledger.read_channels()).tolist() == other.tolist()
    assert ledger.is_made(np.array([[1, 4]])).tolist() == [[True, False]]
