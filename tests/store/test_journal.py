"""Journals: rows in order, a torn last line left out, a foreign line refused."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import StorageError, StudyError
from harness.store import EpochRow, Journal, TrialRow

Row = Callable[..., EpochRow]


@pytest.fixture
def journal(tmp_path: Path) -> Journal[EpochRow]:
    return Journal(tmp_path / "epochs.jsonl", EpochRow)


def test_rows_are_read_in_the_order_in_which_they_were_written(journal: Journal[EpochRow], epoch_row: Row) -> None:
    rows = [epoch_row("b", 1), epoch_row("a", 1), epoch_row("b", 2)]
    for row in rows:
        journal.append(row)
    assert journal.read() == rows
    assert journal.path.read_bytes().count(b"\n") == 3


def test_a_journal_that_does_not_exist_has_no_rows(journal: Journal[EpochRow]) -> None:
    assert journal.read() == []
    journal.path.touch()
    assert journal.read() == []


@given(st.floats(allow_nan=False, allow_infinity=False), st.text(st.characters(exclude_categories=("Cs",))))
def test_a_row_is_read_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, number: float, text: str) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal") / "trials.jsonl", TrialRow)
    row = TrialRow(
        trial=text, number=0, outcome="failed", seed=0, picked={text: number}, score=number, best_epoch=None,
        epochs=0, seconds=0.0, error=text,
    )  # fmt: skip
    journal.append(row)
    assert journal.read() == [row]
    assert journal.path.read_bytes().count(b"\n") == 1


def test_a_last_line_cut_at_any_byte_is_no_row_and_the_next_append_drops_it(
    journal: Journal[EpochRow], epoch_row: Row
) -> None:
    first, torn, next_ = epoch_row(epoch=1), epoch_row(epoch=2), epoch_row(epoch=3)
    journal.append(first)
    start = journal.path.stat().st_size
    journal.append(torn)
    whole = journal.path.read_bytes()
    for end in range(start, len(whole)):
        journal.path.write_bytes(whole[:end])
        assert journal.read() == [first]
        journal.append(next_)
        assert journal.read() == [first, next_]


def test_a_torn_first_line_leaves_an_empty_journal(journal: Journal[EpochRow], epoch_row: Row) -> None:
    journal.path.write_bytes(b'{"trial": "t", "ep')
    assert journal.read() == []
    journal.append(epoch_row())
    assert journal.read() == [epoch_row()]


@pytest.mark.parametrize(
    "line",
    [b"{}", b"", b"not json", b'{"trial": "t"}', b"\xff\xfe", b"null"],
    ids=["no fields", "empty", "words", "some fields", "not UTF-8", "null"],
)
def test_a_foreign_line_is_refused_with_its_file_and_number(
    journal: Journal[EpochRow], epoch_row: Row, line: bytes
) -> None:
    journal.append(epoch_row())
    with open(journal.path, "ab") as file:
        file.write(line + b"\n")
    journal.append(epoch_row(epoch=2))
    with pytest.raises(StudyError, match=r"epochs\.jsonl:2: not a EpochRow: .*restore it or start a new study"):
        journal.read()


def test_a_row_of_another_kind_is_refused(journal: Journal[EpochRow], epoch_row: Row) -> None:
    journal.append(epoch_row())
    with pytest.raises(StudyError, match=r"epochs\.jsonl:1: not a TrialRow"):
        Journal(journal.path, TrialRow).read()


def test_a_row_is_on_disk_before_append_returns(
    journal: Journal[EpochRow], epoch_row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(journal.path.read_bytes()))
    journal.append(epoch_row())
    # the row, and the name of the new file
    assert len(synced) == 2
    assert synced[0].endswith(b"}\n")
    journal.append(epoch_row())
    assert len(synced) == 3


def test_a_row_for_which_there_is_no_room_is_no_row_and_the_next_one_is(
    journal: Journal[EpochRow], epoch_row: Row
) -> None:
    journal.append(epoch_row(epoch=1))
    size = journal.path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # the system takes 40 bytes of the row and refuses the rest, as where the disk is full
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, before[1]))
    try:
        with pytest.raises(StorageError, match="File too large"):
            journal.append(epoch_row(epoch=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert journal.path.stat().st_size == size + 40
    assert journal.read() == [epoch_row(epoch=1)]
    journal.append(epoch_row(epoch=2))
    assert journal.read() == [epoch_row(epoch=1), epoch_row(epoch=2)]
