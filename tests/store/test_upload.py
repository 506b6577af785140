"""Copies of a study on another file system."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from harness.errors import StudyError, TrainingError
from harness.store import EpochRow, StudyFolder, TrialRow
from harness.store.upload import Upload, check_upload, upload_reports


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    """A study of two ended trials, of which the second is the better."""
    folder = StudyFolder(tmp_path / "results" / "heads")
    folder.path.mkdir(parents=True)
    for name in ("study.yaml", "provenance.json", "best.yaml", "optuna.db", "driver.lock"):
        (folder.path / name).write_text(name)
    for number, score in enumerate((0.3, 0.6)):
        end_trial(folder, number, score)
    return folder


def end_trial(folder: StudyFolder, number: int, score: float) -> None:
    run = folder.run(f"t{number}")
    run.path.mkdir(parents=True)
    for file in (run.experiment, run.best, run.last, run.confusion):
        file.write_text(f"{file.name} of t{number}")
    row = EpochRow(
        trial=f"t{number}", epoch=1, score=score, train_loss=1.0, val_loss=1.0, terms={}, iou={},
        train_score=None, lr={}, train_seconds=1.0, val_seconds=1.0, images=1, peak_memory_mb=None, done=True,
    )  # fmt: skip
    folder.epochs.append(row)
    folder.trials.append(ended(number, score))


def ended(number: int, score: float) -> TrialRow:
    return TrialRow(
        trial=f"t{number}", number=number, outcome="complete", seed=0, picked={}, score=score, best_epoch=1, epochs=1,
        seconds=2.0, error=None,
    )  # fmt: skip


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


RECORDS = ["best.yaml", "epochs.jsonl", "provenance.json", "study.yaml", "trials.jsonl"]


def test_records_settings_report_and_the_best_trials_weights_are_copied_and_nothing_else(study, tmp_path):
    (study.path / "report" / "plots").mkdir(parents=True)
    (study.path / "report" / "plots" / "a.svg").write_text("svg")
    (study.path / "report.html").write_text("page")
    uri = (tmp_path / "elsewhere" / "deep").as_uri()
    with Upload(study, uri):
        pass
    copy = tmp_path / "elsewhere" / "deep" / "heads"
    weights = [f"runs/t1/{name}" for name in ("best.safetensors", "confusion.npz", "experiment.yaml")]
    assert files(copy) == sorted([*RECORDS, "report.html", "report/plots/a.svg", *weights])
    for name in files(copy):
        assert (copy / name).read_bytes() == (study.path / name).read_bytes()


def test_what_has_not_changed_is_not_sent_again(study, tmp_path):
    copy = tmp_path / "copy" / "heads"
    with Upload(study, (tmp_path / "copy").as_uri()) as upload:
        upload.now()
        (copy / "study.yaml").write_text("kept")
        (copy / "trials.jsonl").write_text("replaced")
        end_trial(study, 2, 0.9)
        upload.now()
        assert (copy / "study.yaml").read_text() == "kept"
        assert (copy / "trials.jsonl").read_bytes() == study.trials.path.read_bytes()
        assert (copy / "runs" / "t2" / "best.safetensors").read_text() == "best.safetensors of t2"


def test_the_copy_follows_each_ended_trial_and_is_complete_at_the_end(study, tmp_path):
    copy = tmp_path / "copy" / "heads"
    with Upload(study, (tmp_path / "copy").as_uri()) as upload:
        upload.ended("t1", None)
        upload._next.cancel()
        assert not copy.exists(), "a trial that only paused was copied"
        upload.ended("t1", ended(1, 0.6))
        upload._next.result(timeout=30)
        assert (copy / "trials.jsonl").read_bytes() == study.trials.path.read_bytes()
        (study.path / "best.yaml").write_text("another")
    assert (copy / "best.yaml").read_text() == "another"


def test_without_a_uri_nothing_is_copied(study):
    before = files(study.path)
    with Upload(study, None) as upload:
        upload.ended("t1", ended(1, 0.6))
    assert files(study.path) == before


def test_what_is_written_after_the_end_follows_and_the_weights_do_not_travel_twice(study, tmp_path):
    uri, copy = (tmp_path / "copy").as_uri(), tmp_path / "copy" / "heads"
    with Upload(study, uri):
        pass
    (copy / "runs" / "t1" / "best.safetensors").write_text("sent once")
    (study.path / "report.html").write_text("page")
    upload_reports(study, uri)
    assert (copy / "report.html").read_text() == "page"
    assert (copy / "runs" / "t1" / "best.safetensors").read_text() == "sent once"


def test_a_confirmation_lies_in_the_copy_where_it_lies_in_the_study(study, tmp_path):
    nested = StudyFolder(study.path / "confirm")
    nested.path.mkdir()
    (nested.path / "study.yaml").write_text("nested")
    with Upload(nested, (tmp_path / "copy").as_uri()):
        pass
    assert files(tmp_path / "copy") == ["heads/confirm/study.yaml"]


def test_a_place_that_only_fsspec_knows_is_used_too(study):
    check_upload("memory://bucket/studies")
    with Upload(study, "memory://bucket/studies"):
        pass
    assert fsspec.filesystem("memory").cat("/bucket/studies/heads/study.yaml") == b"study.yaml"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (
            "nonsense://bucket/x",
            r"^--upload nonsense://bucket/x: nothing can be written there \(Protocol not known: nons",
        ),
        (
            "results/copy",
            r"^--upload results/copy is no URI; write s3://BUCKET/FOLDER, gs://… or file:///.+/results/copy$",
        ),
        (
            "/results/copy",
            r"^--upload /results/copy is no URI; write s3://BUCKET/FOLDER, gs://… or file:///results/copy$",
        ),
        ("s3://name:secret@bucket/x", r"^--upload: the URI holds a password, which the study's records would keep"),
        (
            "file:///proc/nothing/here",
            r"^--upload file:///proc/nothing/here: nothing can be written there \(.*create dir",
        ),
    ],
)
def test_a_place_where_nothing_can_be_written_is_refused_with_what_to_do(uri, said):
    with pytest.raises(StudyError, match=said) as refused:
        check_upload(uri)
    assert refused.value.exit_code == 2
    assert "secret" not in str(refused.value)


def test_a_place_that_is_good_is_left_as_it_was(tmp_path):
    check_upload((tmp_path / "copy").as_uri())
    assert files(tmp_path) == []


def test_a_copy_that_fails_at_the_end_says_where_the_study_is_and_how_the_rest_is_sent(study, tmp_path):
    (tmp_path / "copy").write_text("a file where the folder should be")
    uri = (tmp_path / "copy").as_uri()
    with pytest.raises(
        StudyError, match=rf"^the study is whole in {study.path}, but its copy at {uri} is not \(.+--resume"
    ):
        with Upload(study, uri):
            pass


def test_a_copy_that_fails_does_not_hide_why_the_study_ended(study, tmp_path, caplog):
    (tmp_path / "copy").write_text("a file where the folder should be")
    with pytest.raises(TrainingError, match="gave up"):
        with Upload(study, (tmp_path / "copy").as_uri()):
            raise TrainingError("gave up")
    assert "the study is whole in" in caplog.text


def test_who_stops_at_once_waits_for_no_copy(study, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with Upload(study, (tmp_path / "copy").as_uri()):
            raise KeyboardInterrupt
    assert not (tmp_path / "copy").exists()
