"""The journal of a sweep: what is on the disk after a kill at any byte, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from prunelab.evaluate.journal import Journal

SETUP = {"train": "tr#1", "score": "acc#2"}
RECORDS = [{"cell": i, "values": {"score": 0.1 + i}} for i in range(3)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sweep.jsonl"


def written(path: Path) -> bytes:
    journal = Journal(path, SETUP)
    for record in RECORDS:
        journal.append(record)
    return path.read_bytes()


def test_what_was_appended_is_read_again(path: Path) -> None:
    lines = written(path).decode().splitlines()
    assert [json.loads(line) for line in lines[1:]] == RECORDS
    assert Journal(path, SETUP).records == RECORDS


def test_making_one_writes_nothing(path: Path) -> None:
    Journal(path, SETUP)
    assert not path.exists()


def test_cut_off_at_any_byte_it_loses_the_torn_line_only(path: Path) -> None:
    """A kill can stop a write after any number of bytes."""
    content = written(path)
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        journal = Journal(path, SETUP)
        whole = sum(end <= size for end in ends)
        assert journal.records == RECORDS[: max(whole - 1, 0)]
        assert path.read_bytes() == content[:size]  # reading changes nothing
        journal.append({"cell": "new"})
        assert Journal(path, SETUP).records == [*RECORDS[: max(whole - 1, 0)], {"cell": "new"}]


def test_two_runs_that_share_one_lose_nothing(path: Path) -> None:
    one, other = Journal(path, SETUP), Journal(path, SETUP)
    for number in range(4):
        (one, other)[number % 2].append({"cell": number})
    assert Journal(path, SETUP).records == [{"cell": number} for number in range(4)]
    with pytest.raises(ValueError, match="another sweep"):
        Journal(path, {**SETUP, "score": "acc#3"})


def test_two_runs_that_find_a_torn_line_lose_nothing(path: Path) -> None:
    """One cuts it off and goes on; the other must not cut there any more."""
    content = written(path)
    path.write_bytes(content + b'{"cell": 2, "val')
    one, other = Journal(path, SETUP), Journal(path, SETUP)
    for number in range(3):
        one.append({"cell": number})
    other.append({"cell": 3})
    assert Journal(path, SETUP).records == [*RECORDS, *({"cell": number} for number in range(4))]


def test_empty_lines_are_no_damage(path: Path) -> None:
    path.write_bytes(written(path) + b"\n\r\n")
    journal = Journal(path, SETUP)
    assert journal.records == RECORDS
    journal.append({"cell": "new"})
    assert Journal(path, SETUP).records == [*RECORDS, {"cell": "new"}]


def test_text_that_utf_8_does_not_have_is_kept(path: Path) -> None:
    Journal(path, SETUP).append({"cell": "\udcff"})
    assert Journal(path, SETUP).records == [{"cell": "\udcff"}]


def test_numbers_keep_every_bit(path: Path) -> None:
    values = [0.1 + 0.2, 1e-320, -0.0, math.inf, 2.0**60 + 1]
    Journal(path, SETUP).append({"values": values})
    assert list(map(repr, Journal(path, SETUP).records[0]["values"])) == list(map(repr, values))
    Journal(path, SETUP).append({"values": [math.nan]})
    assert math.isnan(Journal(path, SETUP).records[1]["values"][0])


def test_another_configuration_is_refused_and_named(path: Path) -> None:
    content = written(path)
    with pytest.raises(ValueError, match=r"another sweep: there score is acc#2, here acc#3"):
        Journal(path, {**SETUP, "score": "acc#3"})
    with pytest.raises(ValueError, match=r"there finetune is nothing, here ft#1"):
        Journal(path, {**SETUP, "finetune": "ft#1"})
    with pytest.raises(ValueError, match=r"there train is tr#1, here nothing"):
        Journal(path, {"score": "acc#2"})
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"a,b\n1,2\n", b"[1, 2]\n", b'{"format": "other"}\n', b"\xff\xfe\n", b"notes", b'{"a']
)
def test_what_is_no_journal_is_refused_and_kept(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no journal of a sweep"):
        Journal(path, SETUP)
    assert path.read_bytes() == content


@pytest.mark.parametrize("damage", [b"garbage", b"17"])
def test_damage_before_the_last_line_is_refused(path: Path, damage: bytes) -> None:
    lines = written(path).splitlines()
    path.write_bytes(b"\n".join([*lines[:2], damage, lines[3], b""]))
    with pytest.raises(ValueError, match=r"line 3 of .* cannot be read"):
        Journal(path, SETUP)


def test_a_folder_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=r"name a file in it, such as sweep.jsonl"):
        Journal(tmp_path, SETUP)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        Journal(tmp_path / "nowhere" / "sweep.jsonl", SETUP)


def test_where_the_process_goes_meanwhile_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    journal = Journal("sweep.jsonl", SETUP)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    journal.append({"cell": "new"})
    assert Journal(tmp_path / "sweep.jsonl", SETUP).records == [{"cell": "new"}]


def test_through_a_link_the_link_stays_one(tmp_path: Path, path: Path) -> None:
    written(path)
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    Journal(link, SETUP).append({"cell": "new"})
    assert link.is_symlink()
    assert Journal(path, SETUP).records[-1] == {"cell": "new"}
