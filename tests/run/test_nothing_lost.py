"""What a crash, a torn line or a full disk leaves behind is enough to go on, and nothing is there twice."""

from __future__ import annotations

import errno

import pytest

from harness.errors import StorageError
from harness.run import Resources, run_search
from harness.store import Journal, StudyFolder

HERE = Resources("inprocess")
SECONDS = {"seconds", "setup_seconds", "train_seconds", "val_seconds"}
LR = {"lr": {"kind": "choice", "field": "optimiser.lr", "choices": [1e-3, 1e-2]}}


def journals(folder: StudyFolder) -> list[list[dict]]:
    return [[row.model_dump(exclude=SECONDS) for row in journal.read()] for journal in (folder.trials, folder.epochs)]


@pytest.fixture
def whole(results, tiny_space, console) -> StudyFolder:
    """A search of one trial of three epochs that nothing disturbed."""
    folder = StudyFolder(results / "whole")
    run_search(folder, tiny_space(LR, trials=1), HERE, console, seed=0)
    return folder


@pytest.fixture
def study(results) -> StudyFolder:
    return StudyFolder(results / "hunt")


def full_after(rows: int, monkeypatch) -> None:
    """A disk on which the journals find room for so many rows, and for half of the next."""
    append, left = Journal.append, [rows]

    def until_full(journal, row):
        if left[0] == 0:
            with open(journal.path, "ab") as file:
                file.write(row.model_dump_json().encode()[:40])
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        append(journal, row)

    monkeypatch.setattr(Journal, "append", until_full)


@pytest.mark.parametrize("rows", [0, 1, 2, 3], ids=["first epoch", "second epoch", "last epoch", "end of the trial"])
def test_a_full_disk_stops_the_study_with_a_torn_line_and_once_there_is_room_it_ends_as_if_there_always_had_been(
    whole, study, tiny_space, console, monkeypatch, rows
):
    space = tiny_space(LR, trials=1)
    with monkeypatch.context() as patch:
        full_after(rows, patch)
        with pytest.raises(StorageError, match="stopped: .+ no room for another file .No space left on device"):
            run_search(study, space, HERE, console, seed=0)
    torn = (study.trials if rows == 3 else study.epochs).path.read_bytes()
    assert not torn.endswith(b"\n") and torn.count(b"\n") == rows % 3
    run_search(study, space, HERE, console, seed=0, resume=True)
    assert journals(study) == journals(whole)
