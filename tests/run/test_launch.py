"""Starting, resuming and extending studies in their folders."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import pytest
import torch

from harness.ablate import Replicates
from harness.config import Experiment, ReplicateSettings, SearchSettings, read_section
from harness.errors import StudyError
from harness.run import Resources, launch, run_replicates, run_search
from harness.run.inprocess import run_inprocess
from harness.run.measure import Measured
from harness.store import StudyFolder

HERE = Resources("inprocess")


@pytest.fixture
def study(results) -> StudyFolder:
    return StudyFolder(results / "hunt")


def test_a_search_leaves_a_folder_from_which_everything_can_be_learnt(study, tiny_space, console):
    space = tiny_space(trials=2)
    run_search(study, space, HERE, console, seed=4)
    names = {path.name for path in study.path.iterdir()}
    assert names == {"study.yaml", "provenance.json", "best.yaml", "optuna.db", "trials.jsonl", "epochs.jsonl", "runs"}
    settings = read_section(SearchSettings, study.settings)
    assert (settings.space, settings.seed) == (space, 4)
    provenance = json.loads(study.provenance.read_text())
    assert provenance["dataset"] == settings.dataset
    assert provenance["resources"]["executor"] == "inprocess"
    rows = study.trials.read()
    assert {path.name for path in (study.path / "runs").iterdir()} == {row.trial for row in rows}
    assert all(study.run(row.trial).best.exists() for row in rows if row.outcome != "failed")


def test_what_is_printed_first_is_the_folder_and_the_weights(study, tiny_space, console):
    run_search(study, tiny_space(trials=1), HERE, console, seed=0)
    first, second, *_ = console.file.getvalue().splitlines()
    assert first == f"hunt → {study.path}"
    assert "random weights" in second and "mobilenetv3_small_050" in second


def test_a_study_that_exists_is_refused_without_resume_and_left_alone(study, tiny_space, console):
    run_search(study, tiny_space(trials=1), HERE, console, seed=0)
    before = {path: path.read_bytes() for path in study.path.rglob("*") if path.is_file()}
    with pytest.raises(StudyError, match="study 'hunt' already exists at .*; go on with it by --resume, or give"):
        run_search(study, tiny_space(trials=1), HERE, console, seed=0)
    assert {path: path.read_bytes() for path in study.path.rglob("*") if path.is_file()} == before


def test_resuming_a_study_that_does_not_exist_is_refused(study, tiny_space, console):
    with pytest.raises(StudyError, match="--resume: there is no study at .*; leave --resume out to start it"):
        run_search(study, tiny_space(), HERE, console, seed=0, resume=True)
    assert not study.path.exists()


def test_resuming_with_other_settings_is_refused_with_each_difference(study, tiny, tiny_space, console):
    run_search(study, tiny_space(trials=1), HERE, console, seed=0)
    before = study.settings.read_text()
    with pytest.raises(StudyError, match="cannot go on with other settings: .*seed: 0 -> 1"):
        run_search(study, tiny_space(trials=1), HERE, console, seed=1, resume=True)
    longer = tiny_space(trials=1, experiment=tiny(training__epochs=4))
    with pytest.raises(StudyError, match="space.experiment.training.epochs: 3 -> 4"):
        run_search(study, longer, HERE, console, seed=0, resume=True)
    assert study.settings.read_text() == before


def test_a_finished_search_is_extended_by_asking_for_more_trials(study, tiny_space, console):
    run_search(study, tiny_space(trials=2), HERE, console, seed=0)
    before = study.trials.read()
    run_search(study, tiny_space(trials=3), HERE, console, seed=0, resume=True)
    assert study.trials.read()[:2] == before
    assert [row.number for row in study.trials.read()] == [0, 1, 2]
    assert read_section(SearchSettings, study.settings).space.search.trials == 3


def test_a_time_budget_of_nothing_starts_no_trial_and_the_study_can_go_on(study, tiny_space, console):
    search = run_search(study, tiny_space(trials=1), HERE, console, seed=0, time_budget=0.0)
    assert search.out_of_time() and study.trials.read() == []
    run_search(study, tiny_space(trials=1), HERE, console, seed=0, resume=True)
    assert len(study.trials.read()) == 1


def test_replicates_leave_their_settings_and_resume_with_more_seeds(study, tiny, console):
    experiment = tiny(training__epochs=1)
    run_replicates(study, experiment, range(1), HERE, console)
    assert read_section(ReplicateSettings, study.settings).arms == {"hunt": experiment}
    first = study.trials.read()
    run_replicates(study, experiment, range(2), HERE, console, resume=True)
    assert study.trials.read()[:1] == first
    assert [row.seed for row in study.trials.read()] == [0, 1]
    assert [row.picked for row in study.trials.read()] == [{"arm": "hunt"}, {"arm": "hunt"}]
    with pytest.raises(StudyError, match="arms.hunt.optimiser.lr: 0.001 -> 0.5"):
        run_replicates(study, tiny(training__epochs=1, optimiser__lr=0.5), range(2), HERE, console, resume=True)


def test_best_yaml_trains_to_the_same_score_as_the_winner(study, results, tiny_space, console):
    search = run_search(study, tiny_space(trials=2), HERE, console, seed=0)
    winner = search.record.ranking()[0]
    again = StudyFolder(results / "again")
    run_replicates(again, read_section(Experiment, study.best), range(1), HERE, console)
    assert again.trials.read()[0].score == winner.score
    assert again.trials.read()[0].trial == winner.trial


def test_measuring_shows_the_largest_steps_and_the_search_goes_on(study, tiny_space, console):
    run_search(study, tiny_space(trials=1), HERE, console, seed=0, measured=True)
    said = console.file.getvalue()
    assert "one training step, the largest" in said and "ms/image" in said
    assert len(study.trials.read()) == 1


def test_an_ended_trial_keeps_its_weights_and_no_state_to_resume_from(study, tiny_space, console):
    run_search(study, tiny_space(trials=2), HERE, console, seed=4, disk_budget=0)
    ended = [row.trial for row in study.trials.read() if row.outcome != "failed"]
    assert ended and all(study.run(trial).best.exists() and not study.run(trial).last.exists() for trial in ended)


# ---- the GPUs of a trial ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "asked", "each", "said"),
    [
        (2, None, 1.0, "each trial gets one GPU"),
        (0, None, 0.0, "trials train on the CPU: there is no GPU"),
        (2, 0.0, 0.0, ""),
        (2, 0.5, 0.5, ""),
    ],
)
def test_each_trial_gets_one_gpu_where_there_is_one_unless_another_share_is_asked_for(
    gpus, asked, each, said, study, tiny, console, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    run_replicates(study, tiny(training__epochs=1), range(1), Resources("inprocess", gpus_per_trial=asked), console)
    about = json.loads(study.provenance.read_text())
    assert about["resources"]["gpus_per_trial"] == each
    assert said in console.file.getvalue() and ("GPU" in console.file.getvalue()) == bool(said)


@pytest.mark.parametrize(("gpus", "device"), [(0.0, "cpu"), (0.5, "cuda"), (None, "cuda")])
def test_without_a_share_of_a_gpu_a_trial_trains_on_the_cpu_although_its_process_sees_one(
    gpus, device, study, tiny, monkeypatch
):
    devices = []

    def no_training(trial, run, device, known):
        devices.append(device.type)
        return (row for row in ())

    monkeypatch.setattr("harness.run.worker.fit", no_training)
    monkeypatch.setattr("harness.run.worker.pick_device", lambda: torch.device("cuda"))
    study.path.mkdir(parents=True)
    run_inprocess(Replicates(study, {"arm": tiny()}, range(1)), Resources(gpus_per_trial=gpus).device)
    assert devices == [device]


@pytest.mark.parametrize(("asked", "each", "visible"), [(None, 0.3333, "7"), (0.5, 0.5, "7"), (0.0, 0.0, "")])
def test_measuring_gives_the_share_that_a_trial_needs_and_uses_no_gpu_for_trials_that_get_none(
    asked, each, visible, tiny, console, monkeypatch
):
    seen = []

    def measure_all(shapes, threads):
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        return [Measured(1000, 10.0, 5000.0) for _ in shapes]

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setattr(launch, "measure_all", measure_all)
    monkeypatch.setattr(launch, "pick_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(total_memory=24e9))
    found, _ = launch.fit_resources(Resources(gpus_per_trial=asked), [tiny()], console)
    assert found.gpus_per_trial == each
    assert seen == [visible] and os.environ["CUDA_VISIBLE_DEVICES"] == "7"
