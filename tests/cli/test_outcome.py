"""What a study's command prints below its summary, and the exit code that its trials earned."""

from __future__ import annotations

import os
import signal

import pytest

from harness.cli.outcome import print_stopped_higher
from harness.run.driver_lock import driver_lock
from harness.run.worker import TrialRun
from harness.store import StudyFolder

HERE = ("--executor", "inprocess")
BROKEN = ("--set", "training.batch_size=9")
BATCH = "  batch: {kind: int, field: training.batch_size, low: 2, high: 9, step: 7}\n"


@pytest.fixture
def ablation(tmp_path, space):
    """An ablation of two arms, the second of which can be made to fail."""
    path = tmp_path / "two.yaml"
    experiment = space.read_text().split("search:")[0]
    path.write_text(
        f"{experiment}arms:\n  base: {{}}\n  big:\n    set: {{training.batch_size: 9}}\n"
        "design: {kind: arms, baseline: base, arms: [big]}\nscale:\n  smoke: {seeds: 1}\n"
    )
    return path


@pytest.fixture
def train_file(tmp_path, space):
    """The Experiment of the space, alone in a file."""
    lines = space.read_text().split("search:")[0].splitlines()[2:]
    path = tmp_path / "e.yaml"
    path.write_text("\n".join(line.removeprefix("  ") for line in lines))
    return path


def test_failed_trials_stand_below_the_summary_of_a_search_with_what_they_share(harness, space, desert):
    space.write_text(space.read_text() + BATCH)
    said = harness("search", space, "--data", desert, "--name", "hunt", "--trials", "6", *HERE)
    assert said.code == 3
    summary, failed = said.out.split("trials failed\n")
    assert "best trials" in summary
    assert "training.batch_size 9 with drop_last leaves no batch of 6 frames" in failed
    assert "all of them, and no trial that went well: batch=9" in failed


def test_a_search_in_which_all_goes_well_says_nothing_of_failures_or_of_values_without_effect(harness, space, desert):
    said = harness("search", space, "--data", desert, "--name", "hunt", *HERE)
    assert said.code == 0
    assert "failed\n" not in said.out and "changed nothing" not in said.out


def test_a_search_that_gives_up_shows_the_causes_and_ends_with_code_3(harness, results, space, desert):
    said = harness("search", space, "--data", desert, "--name", "hunt", "--trials", "30", *BROKEN, *HERE)
    assert said.code == 3
    assert "5 of 5 trials failed" in said.out and "interrupted" not in said.out
    assert said.err.startswith("error: study 'hunt' gave up: the first 5 trials all failed, the first with: ")
    assert "leaves no batch of 6 frames" in said.err
    assert len(StudyFolder(results / "hunt").trials.read()) == 5
    assert f"page    {results}/hunt/report.html" in said.out and (results / "hunt" / "report.html").exists()


def test_a_clipping_norm_that_no_gradient_reaches_is_reported(harness, space, desert):
    text = space.read_text().split("parameters:")[0]
    clip = "parameters:\n  clip: {kind: choice, field: optimiser.clip_norm, choices: [100000.0, 200000.0]}\n"
    space.write_text(text + clip)
    words = ("--trials", "4", "--set", "optimiser.clip_norm=100000.0", "--max-epochs", "1")
    said = harness("search", space, "--data", desert, "--name", "hunt", *words, *HERE)
    assert said.code == 0
    assert "have the same losses to the last bit in epoch 1, the only one that both ran, and differ in clip" in said.out


def test_a_training_whose_seeds_all_fail_ends_with_code_3(harness, train_file, desert):
    said = harness("train", train_file, "--data", desert, "--seeds", "2", "--name", "t", *BROKEN, *HERE)
    assert said.code == 3
    assert "2 of 2 trials failed" in said.out and "2 × training.batch_size 9" in said.out
    said = harness("train", train_file, "--data", desert, "--seeds", "9", "--name", "nine", *BROKEN, *HERE)
    assert said.code == 3 and "gave up" in said.err and "5 of 5 trials failed" in said.out


def test_an_ablation_with_a_failed_arm_ends_with_code_3_and_one_without_with_code_0(harness, ablation, desert):
    words = ("--scale", "smoke", "--data", desert, *HERE)
    said = harness("ablate", ablation, "--name", "a", *words)
    assert said.code == 3
    assert "1 of 2 trials failed" in said.out and "arm=big" in said.out
    ablation.write_text(ablation.read_text().replace("batch_size: 9", "batch_size: 3"))
    assert harness("ablate", ablation, "--name", "b", *words).code == 0


def test_an_ablation_whose_arms_all_fail_ends_with_code_3(harness, ablation, desert):
    ablation.write_text(ablation.read_text().replace("base: {}", "base:\n    set: {training.batch_size: 8}"))
    said = harness("ablate", ablation, "--scale", "smoke", "--data", desert, "--name", "a", *HERE)
    assert said.code == 3 and "2 of 2 trials failed" in said.out


@pytest.mark.parametrize("calls_before", [0, 3], ids=["in the first arm", "in the second arm"])
def test_an_interrupted_ablation_ends_with_code_130_and_goes_on(harness, ablation, desert, monkeypatch, calls_before):
    ablation.write_text(ablation.read_text().replace("batch_size: 9", "batch_size: 3"))
    words = ("ablate", ablation, "--scale", "smoke", "--data", desert, "--name", "a", *HERE)
    next_row, calls = TrialRun.next_row, iter(range(100))

    def ctrl_c(run):
        if next(calls) == calls_before:
            raise KeyboardInterrupt
        return next_row(run)

    with monkeypatch.context() as patch:
        patch.setattr(TrialRun, "next_row", ctrl_c)
        said = harness(*words)
    assert said.code == 130 and "--name a --resume" in said.out
    assert harness(*words, "--resume").code == 0


@pytest.mark.parametrize("command", ["search", "train", "ablate"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_study_that_is_stopped_by_ctrl_c_has_a_page_and_code_130(
    harness, results, space, train_file, ablation, desert, monkeypatch, command, epochs
):
    file = {"search": space, "train": train_file, "ablate": ablation}[command]
    more = ("--scale", "smoke") if command == "ablate" else ()
    next_row, calls = TrialRun.next_row, iter(range(1, 100))

    def ctrl_c(run):
        if next(calls) == epochs:
            os.kill(os.getpid(), signal.SIGINT)
        return next_row(run)

    monkeypatch.setattr(TrialRun, "next_row", ctrl_c)
    said = harness(command, file, "--data", desert, "--name", "hunt", *more, *HERE)
    assert said.code == 130 and "go on with: harness" in said.out.splitlines()[-1]
    assert f"page    {results}/hunt/report.html" in said.out
    assert "<html" in (results / "hunt" / "report.html").read_text()


def test_the_best_of_those_trained_to_the_end_is_called_so_where_a_stopped_trial_scored_higher(hunt_of, capsys):
    print_stopped_higher(hunt_of(epochs=2).search([0.3], [0.1, 0.2]).folder)
    assert (
        capsys.readouterr().out.split()
        == (
            "trial 1 is the best of those trained to the end; trial 0 scored 0.3000 and was stopped after 1 epochs"
        ).split()
    )
    print_stopped_higher(hunt_of(epochs=2, name="other").search([0.1], [0.1, 0.2]).folder)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("command", ["search", "train", "ablate"])
def test_a_study_that_another_process_runs_is_refused_with_code_2(
    harness, results, space, train_file, ablation, desert, command
):
    file = {"search": space, "train": train_file, "ablate": ablation}[command]
    more = ("--scale", "smoke") if command == "ablate" else ()
    with driver_lock(StudyFolder(results / "hunt")):
        said = harness(command, file, "--data", desert, "--name", "hunt", *more, *HERE)
    assert said.code == 2 and said.out == ""
    assert said.err.startswith("error: study 'hunt' is run by another process (pid ")
