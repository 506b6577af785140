"""Runs and studies on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.config import Experiment, Trial, apply_overrides
from harness.errors import ConfigError, StudyError
from harness.store import RunFolder, StudyFolder, experiment_text, find_study, newest_study, results_folder


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder with the studies `first` and `second`, and a folder that is none."""
    folder = tmp_path / "results"
    for name in ("second", "first", "published"):
        (folder / name).mkdir(parents=True)
    for name in ("first", "second"):
        (folder / name / "study.yaml").touch()
    monkeypatch.setenv("HARNESS_RESULTS", str(folder))
    return folder


def test_a_run_keeps_its_experiment(tmp_path: Path) -> None:
    experiment = apply_overrides(Experiment(), {"optimiser.lr": 1e-4, "taxonomy.merge": {"Logs": "ignore"}})
    run = RunFolder(tmp_path / "deep" / "run")
    run.create(Trial(experiment, 7))
    assert run.read_experiment() == experiment
    assert run.experiment.read_text().startswith(f"# trial {Trial(experiment, 7).id}, seed 7\n")


def test_a_run_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.create(Trial(Experiment(), 0))
    before = run.experiment.read_bytes()
    run.create(Trial(apply_overrides(Experiment(), {"training.epochs": 1}), 1))
    assert run.experiment.read_bytes() == before


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        StudyError, match=r"no run here \(experiment\.yaml is missing\); give a folder such as results/"
    ):
        RunFolder(tmp_path).read_experiment()


def test_an_experiment_changed_by_hand_is_refused_with_its_line(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.create(Trial(Experiment(), 0))
    run.experiment.write_text(run.experiment.read_text().replace("input_size", "inputsize"))
    with pytest.raises(ConfigError, match=r"experiment\.yaml:\d+: data\.inputsize: unknown key; .*'input_size'"):
        run.read_experiment()


def test_the_files_of_a_run_and_a_study_have_different_names(tmp_path: Path) -> None:
    run, study = RunFolder(tmp_path), StudyFolder(tmp_path)
    files = [run.experiment, run.last, run.previous, run.notes, run.best, run.confusion, study.settings, study.best]
    files += [study.provenance, study.optuna, study.trials.path, study.epochs.path, study.run("t").path]
    assert len(set(files)) == len(files)
    assert study.name == tmp_path.name


def test_comments_stand_above_the_experiment() -> None:
    text = experiment_text(Experiment(), "one", "two")
    assert text.startswith("# one\n# two\ndata:\n")


def test_a_study_is_found_by_name_and_by_path(results: Path) -> None:
    assert find_study("first") == StudyFolder(results / "first")
    assert find_study(str(results / "second")) == StudyFolder(results / "second")


def test_a_study_that_does_not_exist_is_refused_with_those_that_do(results: Path) -> None:
    with pytest.raises(StudyError) as error:
        find_study("thrid")
    assert str(error.value) == (
        f"study 'thrid' does not exist: neither thrid/study.yaml nor {results}/thrid/study.yaml is there; "
        "known studies: first, second"
    )


def test_a_folder_without_settings_is_no_study(results: Path) -> None:
    with pytest.raises(StudyError, match="study 'published' does not exist"):
        find_study("published")


def test_without_any_study_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path / "nowhere"))
    with pytest.raises(StudyError, match="known studies: none"):
        find_study("first")


def test_results_are_written_where_the_variable_says_else_into_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path))
    assert results_folder() == tmp_path
    monkeypatch.setenv("HARNESS_RESULTS", "")
    assert results_folder() == Path("results")
    monkeypatch.delenv("HARNESS_RESULTS")
    assert results_folder() == Path("results")


def test_the_newest_study_is_the_one_begun_last_and_no_confirmation(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path / "results"))
    with pytest.raises(StudyError, match=r"there is no study in .*results; start one, e.g. `harness search`"):
        newest_study()
    for name, when in {"b": 20, "c/confirm": 90, "a": 30, "c": 10}.items():
        (tmp_path / "results" / name).mkdir(parents=True, exist_ok=True)
        settings = tmp_path / "results" / name / "study.yaml"
        settings.write_text("")
        os.utime(settings, (when, when))
    assert newest_study().path == tmp_path / "results" / "a"
