"""One trial of a study again, with its traceback, and the study as it was."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.cli import main
from harness.errors import ConfigError
from harness.store import StudyFolder

HERE = ("--executor", "inprocess")


@pytest.fixture
def hunt(harness, results, space, desert) -> StudyFolder:
    """A search with a trial that worked and one that failed."""
    failing = "  batch: {kind: int, field: training.batch_size, low: 2, high: 9, step: 7}\n"
    space.write_text(space.read_text() + failing)
    harness("search", space, "--data", desert, "--name", "hunt", "--trials", "6", *HERE)
    folder = StudyFolder(results / "hunt")
    assert {row.outcome for row in folder.trials.read()} >= {"complete", "failed"}
    return folder


def of_outcome(folder: StudyFolder, outcome: str):
    return next(row for row in folder.trials.read() if row.outcome == outcome)


def files(folder: StudyFolder) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() for path in folder.path.rglob("*") if path.is_file() and "-rerun-" not in str(path)
    }


def test_a_trial_runs_again_to_the_same_losses_in_a_folder_of_its_own(harness, hunt):
    before, good = files(hunt), of_outcome(hunt, "complete")
    for word, number in ((good.number, 1), (good.trial, 2)):
        said = harness("rerun", "hunt", word)
        assert (said.code, said.err) == (0, "")
        lines = said.out.splitlines()
        assert lines[0] == f"trial {good.trial} → {hunt.run(good.trial).path}-rerun-{number}"
        assert [line.split()[1] for line in lines[1:]] == ["1/2", "2/2"]
        assert all(line.endswith("· as in the study") for line in lines[1:])
        assert f"score {good.score:.4f}" in said.out
    assert files(hunt) == before


def test_what_goes_wrong_comes_through_itself(hunt, monkeypatch):
    bad = of_outcome(hunt, "failed")
    before = files(hunt)
    monkeypatch.setattr(sys, "argv", ["harness", "rerun", "hunt", str(bad.number)])
    with pytest.raises(ConfigError, match="leaves no batch of 6 frames") as caught:
        main()
    assert str(caught.value) == bad.error
    assert "train_batches" in [entry.name for entry in caught.traceback]
    assert files(hunt) == before


def test_as_a_program_it_ends_with_code_1_and_the_traceback_and_a_debugger_stops_there(hunt):
    words = ["-m", "harness", "rerun", str(hunt.path), str(of_outcome(hunt, "failed").number)]
    plain = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert plain.returncode == 1
    assert "Traceback (most recent call last)" in plain.stderr and "in train_batches" in plain.stderr
    debugged = subprocess.run(
        [sys.executable, "-m", "pdb", "-c", "continue", *words],
        input="p batch_size\nq\n",
        capture_output=True,
        text=True,
    )
    assert "Entering post mortem debugging" in debugged.stdout
    assert "(Pdb) 9\n" in debugged.stdout


def test_a_trial_that_fails_no_more_is_said_to_have_failed(harness, hunt):
    bad, good = of_outcome(hunt, "failed"), of_outcome(hunt, "complete")
    hunt.run(bad.trial).experiment.write_text(hunt.run(good.trial).experiment.read_text())
    said = harness("rerun", "hunt", bad.number)
    assert said.code == 0
    assert f"it failed in the study, and here it did not: {bad.error}" in said.out


@pytest.mark.parametrize("word", ["77", "nothing-s0", "../../hunt"])
def test_a_trial_that_is_not_there_is_refused_with_the_numbers_there_are(harness, hunt, word):
    said = harness("rerun", "hunt", word)
    assert said.code == 2 and said.out == ""
    assert f"study 'hunt' has no trial '{word}'; give a number (0 to 5) or the name of a folder in" in said.err


def test_values_that_make_no_experiment_cannot_be_run(harness, hunt):
    row = of_outcome(hunt, "failed").model_copy(update={"trial": "invalid-6", "number": 6, "error": "size 5 is odd"})
    hunt.trials.append(row)
    said = harness("rerun", "hunt", "6")
    assert said.code == 2
    assert "trial 6 of study 'hunt' has no Experiment to run: size 5 is odd" in said.err


def test_a_study_that_does_not_exist_is_refused(harness, results):
    said = harness("rerun", "hunt", "0")
    assert said.code == 2 and "study 'hunt' does not exist" in said.err
