"""A disk that is full or refuses, simulated and real: the study stops with one message, and goes on once it can."""

from __future__ import annotations

import errno
import io
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError
from rich.console import Console

from harness.config import Experiment, Trial
from harness.errors import DiskFull, StorageError, StudyError
from harness.run import Resources, run_search
from harness.run.full_disk import StopsWithoutRoom
from harness.run.inprocess import run_inprocess
from harness.run.ray_executor import Deaths, Ends, StudySearcher, Whole
from harness.run.worker import TrialRun
from harness.store import EpochRow, Failure, Journal, Record, StudyFolder

HERE = Resources("inprocess")
SECONDS = {"seconds", "setup_seconds", "train_seconds", "val_seconds"}
LR = {"lr": {"kind": "choice", "field": "optimiser.lr", "choices": [1e-3, 1e-2]}}
SAID = r"study 'hunt' stopped: .+ has no room for another file \(.+; [\d,.]+ MB free\): make room there, then go on"


def journals(folder: StudyFolder) -> list[list[dict]]:
    return [[row.model_dump(exclude=SECONDS) for row in journal.read()] for journal in (folder.trials, folder.epochs)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_space) -> StudyFolder:
    """A search of two trials of three epochs that nothing disturbed."""
    folder = StudyFolder(tmp_path_factory.mktemp("results") / "whole")
    run_search(folder, tiny_space(LR, trials=2), HERE, Console(file=io.StringIO()), seed=0)
    return folder


# ---- what the executors tell ----


class Told:
    """A study that notes what it is told."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder, self.record, self.told = folder, Record(folder), []

    def next_trial(self) -> Trial | None:
        self.told.append("next")
        return Trial(Experiment(), 0)

    def waits(self) -> bool:
        return True

    def may_go_on(self) -> bool:
        return True

    def resumable(self) -> tuple[str, ...]:
        return ()

    def on_epoch(self, row: EpochRow) -> bool:
        self.told.append("epoch")
        return True

    def on_end(self, trial_id: str, error: str | None = None) -> None:
        self.told.append(error)


@pytest.fixture
def told(folder) -> Told:
    return Told(folder)


def row(epoch: int = 1) -> EpochRow:
    return EpochRow(
        trial="t", epoch=epoch, score=0.5, train_loss=1.0, val_loss=1.0, terms={}, iou={}, train_score=None, lr={},
        train_seconds=1.0, val_seconds=1.0, images=1, peak_memory_mb=None, done=False,
    )  # fmt: skip


def test_a_failure_for_lack_of_room_is_no_end_of_its_trial(told):
    with pytest.raises(StorageError, match="study 'study' stopped: x has no room"):
        StopsWithoutRoom(told).on_end("t", Failure("x has no room", "disk"))
    assert told.told == []


@pytest.mark.parametrize("call", ["next_trial", "on_epoch", "on_end"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DiskFull("journal"), "stopped: journal"),
        (
            OSError(errno.EROFS, "Read-only file system"),
            r"stopped: .+study cannot be written \(Read-only file system\)",
        ),
    ],
)
def test_journals_that_cannot_be_written_stop_the_study_with_one_message(call, error, said, told, monkeypatch):
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(told, call, refuse)
    study = StopsWithoutRoom(told)
    with pytest.raises(StorageError, match=said):
        getattr(study, call)(*{"next_trial": [], "on_epoch": [row()], "on_end": ["t"]}[call])


def test_other_ends_are_told(told):
    study = StopsWithoutRoom(told)
    assert study.next_trial() and study.waits() and study.may_go_on() and study.on_epoch(row())
    for error in (None, "broken", Failure("too large", "memory")):
        study.on_end("t", error)
    assert told.told == ["next", "epoch", None, "broken", "too large"]


def test_ray_passes_on_whose_fault_an_end_is(told):
    study = Whole(StopsWithoutRoom(told))
    searcher = StudySearcher(study, Resources(), lambda: 2, Deaths(), Ends())
    for name in ("one", "two"):
        searcher.suggest(name)
    searcher.on_trial_complete("one", {"error": "x has no room", "cause": "disk"})
    searcher.on_trial_complete("two", {"row": "{}"})
    assert searcher.suggest("three") == StudySearcher.FINISHED and told.told == ["next", "next"]
    with pytest.raises(StorageError, match="x has no room"):
        study.check()


# ---- a disk that says that it is full ----


def full_for(monkeypatch: pytest.MonkeyPatch, name: str, after: int) -> None:
    """A disk without room for the files of a name, after the first ones."""
    left, fsync = [after], os.fsync

    def until_full(descriptor: int) -> None:
        if f"/.{name}." in os.readlink(f"/proc/self/fd/{descriptor}"):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", until_full)


def no_half_files(folder: StudyFolder) -> bool:
    return not [path for path in folder.path.rglob(".*")]


@pytest.mark.parametrize("name", ["last.safetensors", "confusion.npz"])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_checkpoint_without_room_stops_the_study_and_with_room_it_ends_as_if_there_always_had_been(
    name, after, whole, results, tiny_space, console, monkeypatch
):
    study, space = StudyFolder(results / "hunt"), tiny_space(LR, trials=2)
    with monkeypatch.context() as patch:
        full_for(patch, name, after)
        with pytest.raises(StorageError, match=SAID) as error:
            run_search(study, space, HERE, console, seed=0)
    assert error.value.exit_code == 3 and no_half_files(study)
    assert all(ended.outcome != "failed" for ended in study.trials.read())

    run_search(study, space, HERE, console, seed=0, resume=True)

    assert journals(study) == journals(whole)
    for trial in Record(study).ended:
        assert study.run(trial).best.exists() and not study.run(trial).last.exists()


def test_a_stopped_trial_whose_weights_find_no_room_has_not_ended(tiny, folder, monkeypatch):
    class StopsAtOnce(Told):
        def next_trial(self) -> Trial | None:
            return Trial(tiny(), 0)

        def on_epoch(self, row: EpochRow) -> bool:
            self.told.append(row.epoch)
            return False

    study = StopsWithoutRoom(StopsAtOnce(folder))
    full_for(monkeypatch, "last.safetensors", 0)

    with pytest.raises(StorageError, match="has no room for another file"):
        run_inprocess(study)

    assert study.study.told == [1]


# ---- a disk that refuses ----


def refuse_after(calls: int, name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses to replace the files of a name, after the first ones."""
    left, replace = [calls], os.replace

    def until_refused(source: Path, target: Path) -> None:
        if Path(target).name == name:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(number, os.strerror(number), str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", until_refused)


@pytest.mark.parametrize(
    ("name", "after", "number"), [("last.safetensors", 1, errno.EIO), ("best.yaml", 0, errno.EROFS)]
)
def test_a_disk_that_refuses_a_file_stops_the_study_with_one_message_and_it_goes_on_once_it_takes_it(
    name, after, number, whole, results, tiny_space, console, monkeypatch
):
    study, space = StudyFolder(results / "hunt"), tiny_space(LR, trials=2)
    with monkeypatch.context() as patch:
        refuse_after(after, name, number, patch)
        said = rf"study 'hunt' stopped: .+ cannot be written \({os.strerror(number)}: .+{name}\): .+ --resume"
        with pytest.raises(StorageError, match=said):
            run_search(study, space, HERE, console, seed=0)
    assert all(ended.outcome != "failed" for ended in study.trials.read())

    run_search(study, space, HERE, console, seed=0, resume=True)

    assert journals(study) == journals(whole)


def test_a_storage_that_finds_no_room_when_it_is_opened_is_not_called_damaged(
    results, tiny_space, console, monkeypatch
):
    def refuse(**_: object) -> None:
        raise StorageInternalError("an exception is raised during the commit") from sqlite3.OperationalError(
            "database or disk is full"
        )

    monkeypatch.setattr("optuna.create_study", refuse)
    with pytest.raises(DiskFull, match=r"hunt has no room for another file \(SQLite: database or disk is full"):
        run_search(StudyFolder(results / "hunt"), tiny_space(LR, trials=2), HERE, console, seed=0)


def test_a_storage_that_sqlite_cannot_write_stops_the_study_with_one_message(
    whole, results, tiny_space, console, monkeypatch
):
    study, space = StudyFolder(results / "hunt"), tiny_space(LR, trials=2)

    def refuse(*_: object) -> None:
        raise StorageInternalError("an exception is raised during the commit") from sqlite3.OperationalError(
            "database is locked"
        )

    with monkeypatch.context() as patch:
        patch.setattr("optuna.storages._CachedStorage.set_trial_intermediate_value", refuse)
        with pytest.raises(
            StorageError, match=r"stopped: .+hunt cannot be written \(SQLite: database is locked\): mend"
        ):
            run_search(study, space, HERE, console, seed=0)

    run_search(study, space, HERE, console, seed=0, resume=True)

    assert journals(study) == journals(whole)


def test_a_traceback_that_cannot_be_written_hides_no_failure(tiny, tmp_path, caplog):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "error.txt").mkdir()
    run = TrialRun(Trial(tiny(training__batch_size=9), 0), tmp_path / "run")
    assert "leaves no batch of 6 frames" in run.next_row()
    assert "error.txt is not written" in caplog.text


# ---- a small disk ----


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", path], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield path
    # lazily: SQLite may still hold its file
    subprocess.run(["umount", "--lazy", path], check=True)


def fill(path: Path, left: int) -> None:
    """Leave so many bytes of the file system that holds a path."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        file.truncate(max(0, file.tell() - left))


def full_after(rows: int, filler: Path, left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill a disk, up to so many bytes, when a study's journals have so many rows."""
    append, written = Journal.append, [0]

    def counted(journal: Journal, row: EpochRow) -> None:
        append(journal, row)
        written[0] += 1
        if written[0] == rows:
            fill(filler, left)

    monkeypatch.setattr(Journal, "append", counted)


@pytest.mark.parametrize(
    ("rows", "left"),
    [(1, 0), (1, 8_000), (1, 60_000), (2, 20_000), (3, 4_000)],
    ids=["no byte", "8 kB", "60 kB", "later", "at the end of a trial"],
)
def test_a_real_disk_that_fills_up_stops_the_study_and_with_room_it_ends_as_if_there_always_had_been(
    rows, left, disk, whole, tiny_space, console, monkeypatch
):
    study, space = StudyFolder(disk / "hunt"), tiny_space(LR, trials=2)
    with monkeypatch.context() as patch:
        full_after(rows, disk / "filler", left, patch)
        with pytest.raises(StorageError, match=SAID):
            run_search(study, space, HERE, console, seed=0)
    assert not [path for path in study.path.rglob(".*")]
    assert len(study.epochs.read()) < 6
    (disk / "filler").unlink()

    run_search(study, space, HERE, console, seed=0, resume=True)

    assert journals(study) == journals(whole)


def test_a_disk_that_is_full_before_a_study_begins_leaves_a_name_that_is_free(disk, whole, tiny_space, console):
    study, space = StudyFolder(disk / "hunt"), tiny_space(LR, trials=2)
    fill(disk / "filler", 0)
    with pytest.raises(DiskFull, match="no room"):
        run_search(study, space, HERE, console, seed=0)
    (disk / "filler").unlink()

    run_search(study, space, HERE, console, seed=0)

    assert journals(study) == journals(whole)


def test_a_real_disk_that_fills_up_under_rays_workers_stops_the_study_likewise(
    disk, whole, tiny_space, console, monkeypatch
):
    study, space = StudyFolder(disk / "hunt"), tiny_space(LR, trials=2)
    resources = Resources(cpus_per_trial=0.5, concurrency=1)
    with monkeypatch.context() as patch:
        full_after(1, disk / "filler", 60_000, patch)
        with pytest.raises(StorageError, match=SAID):
            run_search(study, space, resources, console, seed=0)
    assert study.trials.read() == []
    (disk / "filler").unlink()

    run_search(study, space, HERE, console, seed=0, resume=True)

    assert journals(study) == journals(whole)


# ---- a folder that cannot be written ----


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A file system that is mounted for reading only."""
    path = tmp_path / "read-only"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", path], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_read_only_disk_is_refused_before_anything_starts(read_only, tiny_space, console, monkeypatch):
    refused_before_anything(monkeypatch)
    for folder in (read_only / "hunt", read_only / "deeper" / "hunt"):
        with pytest.raises(
            StudyError, match=rf"study 'hunt': {folder} cannot be written \({read_only} is read-only or"
        ):
            run_search(StudyFolder(folder), tiny_space(LR, trials=1), HERE, console, seed=0)
    assert list(read_only.iterdir()) == []


def refused_before_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("preparation has started")

    for step in ("settle_space", "decode_frames", "_connect", "Search"):
        monkeypatch.setattr(f"harness.run.launch.{step}", too_late)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_another_users_results_folder_is_refused_before_anything_starts(tmp_path, tiny_space, console, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    refused_before_anything(monkeypatch)
    folder, message = tmp_path / "results" / "hunt", tmp_path / "message"
    folder.parent.mkdir()
    message.touch()
    message.chmod(0o666)
    child = os.fork()
    if child == 0:
        # what a failed assertion would print is the parent's to print
        with suppress(BaseException):
            with open(message, "w") as file:
                os.setuid(65534)
                try:
                    run_search(StudyFolder(folder), tiny_space(LR, trials=1), HERE, console, seed=0)
                except BaseException as error:
                    file.write(f"{type(error).__name__}: {error}")
        os._exit(0)
    os.waitpid(child, 0)

    assert f"StudyError: study 'hunt': {folder} cannot be written (" in message.read_text()
    assert "is read-only or another user's); mend that, or set HARNESS_RESULTS to a folder" in message.read_text()
    assert not folder.exists()
