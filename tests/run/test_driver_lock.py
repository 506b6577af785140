"""Two drivers never write one study; a dead one locks nobody out."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.errors import StudyError
from harness.run import Resources, run_replicates, run_search
from harness.run.driver_lock import LOCK, check_not_driven, driver_lock, is_new
from harness.store import StudyFolder

HERE = Resources("inprocess")
DRIVER = """
import sys, time
from pathlib import Path
from harness.run.driver_lock import driver_lock
from harness.store import StudyFolder
with driver_lock(StudyFolder(Path(sys.argv[1]))):
    print("drives", flush=True)
    time.sleep(600)
"""


@contextmanager
def another_driver(folder: StudyFolder) -> Iterator[subprocess.Popen]:
    """A process that drives a study until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", DRIVER, str(folder.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "drives\n"
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def contents(folder: StudyFolder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.path.rglob("*") if path.is_file() and path.name != LOCK}


@pytest.fixture
def study(results) -> StudyFolder:
    return StudyFolder(results / "hunt")


def test_a_second_driver_is_refused_while_the_first_lives_and_accepted_after_it_was_killed(study, tiny_space, console):
    space = tiny_space(trials=1)
    run_search(study, space, HERE, console, seed=0)
    before = contents(study)
    with another_driver(study) as other:
        message = (
            rf"study 'hunt' is run by another process \(pid {other.pid} on {socket.gethostname()}, since .*--resume"
        )
        for resume in (True, False):
            with pytest.raises(StudyError, match=message):
                run_search(study, tiny_space(trials=2), HERE, console, seed=0, resume=resume)
        assert contents(study) == before
    assert (study.path / LOCK).exists()
    run_search(study, tiny_space(trials=2), HERE, console, seed=0, resume=True)
    assert len(study.trials.read()) == 2
    assert not (study.path / LOCK).exists()


def test_a_training_is_refused_too(study, tiny, console):
    with another_driver(study):
        with pytest.raises(StudyError, match="study 'hunt' is run by another process"):
            run_replicates(study, tiny(), range(1), HERE, console)


def test_a_driver_that_was_killed_before_it_wrote_anything_leaves_a_folder_as_good_as_none(study, tiny, console):
    with another_driver(study):
        pass
    assert [path.name for path in study.path.iterdir()] == [LOCK] and is_new(study)
    with pytest.raises(StudyError, match="--resume: there is no study at"):
        run_replicates(study, tiny(training__epochs=1), range(1), HERE, console, resume=True)
    run_replicates(study, tiny(training__epochs=1), range(1), HERE, console)
    assert len(study.trials.read()) == 1


@pytest.mark.parametrize("left", [[], ["provenance.json"], [LOCK, "provenance.json", ".study.yaml.123"]])
def test_what_is_written_before_the_settings_is_no_study_yet(study, left):
    study.path.mkdir(parents=True)
    for name in left:
        (study.path / name).touch()
    assert is_new(study)
    (study.path / "thesis.pdf").touch()
    assert not is_new(study)


def test_of_two_new_studies_of_one_name_the_later_is_refused_although_both_began_without_a_folder(
    study, tiny, console, monkeypatch
):
    def other_was_quicker(*_):
        study.path.mkdir(parents=True)
        study.settings.write_text("kind: replicates")
        return HERE, []

    monkeypatch.setattr("harness.run.launch._connect", other_was_quicker)
    with pytest.raises(StudyError, match="study 'hunt' already exists"):
        run_replicates(study, tiny(), range(1), HERE, console)
    assert study.settings.read_text() == "kind: replicates"


def test_the_lock_ends_with_its_context_and_with_an_error(folder):
    with driver_lock(folder):
        with pytest.raises(StudyError, match=rf"another process \(pid {os.getpid()} "):
            check_not_driven(folder)
        with pytest.raises(StudyError, match="another process"), driver_lock(folder):
            pass
    with pytest.raises(KeyboardInterrupt), driver_lock(folder):
        raise KeyboardInterrupt
    check_not_driven(folder)
    assert list(folder.path.iterdir()) == []


def test_a_lock_that_its_holder_removes_at_this_moment_is_taken_anew(folder, monkeypatch):
    real, path = os.open, folder.path / LOCK

    def removed_after_opening(*arguments):
        monkeypatch.setattr(os, "open", real)
        opened = real(*arguments)
        path.unlink()
        return opened

    monkeypatch.setattr(os, "open", removed_after_opening)
    with driver_lock(folder):
        assert path.exists()
        with pytest.raises(StudyError, match="another process"):
            check_not_driven(folder)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, tiny, console):
    (tmp_path / "file").write_text("")
    study = StudyFolder(tmp_path / "file" / "hunt")
    with pytest.raises(StudyError, match=r"study 'hunt': .*file/hunt cannot be written \(.*\); mend that, or set HARN"):
        run_replicates(study, tiny(), range(1), HERE, console)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_results_folder_is_refused(results, tiny, console):
    results.mkdir()
    results.chmod(0o555)
    with pytest.raises(StudyError, match=r"cannot be written \(Permission denied\)"):
        run_replicates(StudyFolder(results / "hunt"), tiny(), range(1), HERE, console)


def test_a_folder_of_something_else_is_left_alone(study, tiny, console):
    study.path.mkdir(parents=True)
    (study.path / "thesis.tex").write_text("mine")
    with pytest.raises(StudyError, match="already exists at .*; it has no study.yaml, so remove it, or give"):
        run_replicates(study, tiny(), range(1), HERE, console)
    assert [path.name for path in study.path.iterdir()] == ["thesis.tex"]
