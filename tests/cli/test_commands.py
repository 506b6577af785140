"""The commands one after the other, as people use them."""

from __future__ import annotations

import json
import os

import cv2
import numpy as np
import pytest

from harness.config import Experiment, read_section
from harness.run.worker import TrialRun
from harness.store import StudyFolder

HERE = ("--executor", "inprocess")


def test_search_export_train_evaluate_predict_score_go_hand_in_hand(harness, results, space, desert, tmp_path):
    said = harness("search", space, "--data", desert, "--name", "hunt", *HERE)
    assert (said.code, said.err.strip()) == (0, "")
    hunt = StudyFolder(results / "hunt")
    winner = max(hunt.trials.read(), key=lambda row: (row.outcome == "complete", row.score))
    assert f"{winner.score:.4f}" in said.out and "next    harness confirm" in said.out
    assert "    # re-trains the best 2 with fresh seeds\n        harness export" in said.out

    best = tmp_path / "best.yaml"
    said = harness("export", "hunt", "--rank", "1", "-o", best)
    assert said.code == 0 and "rank 1 of hunt" in said.out
    assert read_section(Experiment, best) == read_section(Experiment, hunt.best)
    assert harness("export", hunt.path).out == best.read_text()
    assert harness("export", "hunt", "--rank", "9").code == 2

    said = harness("train", best, "--seeds", "2", "--name", "final", *HERE)
    assert said.code == 0
    scores = [row.score for row in StudyFolder(results / "final").trials.read()]
    assert scores[0] == winner.score
    assert f"val mIoU {np.mean(scores):.4f}, 95 % interval" in said.out
    assert f"next    harness evaluate {results / 'final'} --split test" in said.out

    said = harness("evaluate", "final", "--json")
    values = json.loads(said.out)
    assert values["score"]["miou"] == pytest.approx(max(scores), abs=1e-12)
    assert list(values["per_image"]) == sorted(values["per_image"]) and values["frames"] == 3
    run = results / "final" / "runs" / StudyFolder(results / "final").trials.read()[scores.index(max(scores))].trial
    assert json.loads((run / "evaluation-val.json").read_text())["score"] == values["score"]
    said = harness("evaluate", run, "--split", "test", "--tta", "0.5,1,flip")
    assert said.code == 0 and "2 frames · 4 view(s)" in said.out

    out = tmp_path / "predicted"
    images = desert / "val" / "Color_Images"
    assert harness("predict", "final", images, "-o", out).code == 0
    names = sorted(path.name for path in images.iterdir())
    for kind in ("raw", "colour", "overlay", "side_by_side"):
        assert sorted(path.name for path in (out / kind).iterdir()) == names
    mask = cv2.imread(str(out / "raw" / names[0]), cv2.IMREAD_UNCHANGED)
    assert (mask.dtype, mask.shape) == (np.uint16, (32, 48))
    assert set(np.unique(mask)) <= {100, 200, 300, 500, 550, 600, 700, 800, 7100, 10000}

    said = harness("score", out / "raw", desert / "val" / "Segmentation", "--json")
    assert json.loads(said.out)["score"]["miou"] == pytest.approx(max(scores), abs=1e-12)


def test_describe_shows_what_an_experiment_builds(harness, desert, results):
    said = harness("describe", "--data", desert, "--set", "data.input_size=[32, 48]", "--json")
    values = json.loads(said.out)
    assert said.code == 0 and not results.exists()
    assert values["input"] == [1, 3, 32, 48]
    assert values["output"] == [1, 10, 4, 6]
    assert sum(values["class_pixels"].values()) == 6 * 32 * 48
    said = harness("describe", "--data", desert, "--set", "data.input_size=[32, 48]")
    assert "input 1×3×32×48 → logits 1×10×4×6" in said.out
    total = sum(total for total, _ in values["parameters"].values())
    assert f"{total:,}" in said.out


def test_a_search_with_failed_trials_ends_with_code_3_and_names_them(harness, results, space, desert):
    space.write_text(space.read_text() + "  batch: {kind: int, field: training.batch_size, low: 2, high: 9, step: 7}\n")
    said = harness("search", space, "--data", desert, "--name", "hunt", "--trials", "4", *HERE)
    rows = StudyFolder(results / "hunt").trials.read()
    assert len(rows) == 4 and any(row.outcome == "failed" for row in rows)
    assert said.code == 3
    assert "training.batch_size 9 with drop_last leaves no batch of 6 frames" in said.out


def test_an_interrupted_search_ends_with_code_130_and_goes_on_by_the_words_it_prints(
    harness, results, space, desert, monkeypatch
):
    words = ("search", space, "--data", desert, "--name", "hunt", "--max-epochs", "3", *HERE)
    next_row, calls = TrialRun.next_row, iter(range(100))

    def ctrl_c(run):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return next_row(run)

    with monkeypatch.context() as patch:
        patch.setattr(TrialRun, "next_row", ctrl_c)
        said = harness(*words)
    assert said.code == 130
    line = next(line for line in said.out.splitlines() if line.startswith("interrupted; go on with: harness search "))
    assert line.endswith(" --max-epochs 3 --executor inprocess --name hunt --resume"), line
    assert len(StudyFolder(results / "hunt").epochs.read()) == 2
    assert harness(*words, "--resume").code == 0
    rows = StudyFolder(results / "hunt").trials.read()
    epochs = StudyFolder(results / "hunt").epochs.read()
    assert [row.number for row in rows] == [0, 1]
    assert len({(row.trial, row.epoch) for row in epochs}) == len(epochs) == sum(row.epochs for row in rows)


def test_an_interrupted_training_ends_with_code_130(harness, results, space, desert, tmp_path, monkeypatch):
    (tmp_path / "e.yaml").write_text("training: {epochs: 1}\ndata: {input_size: [32, 48]}\n")

    def ctrl_c(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrialRun, "next_row", ctrl_c)
        assert harness("train", tmp_path / "e.yaml", "--data", desert, "--seeds", "1", "--name", "t", *HERE).code == 130
    said = harness("train", tmp_path / "e.yaml", "--data", desert, "--seeds", "1", "--name", "t", "--resume", *HERE)
    assert said.code == 0 and "one seed: no interval" in said.out


def test_a_time_budget_that_is_over_ends_with_code_0(harness, results, space, desert):
    said = harness("search", space, "--data", desert, "--name", "hunt", "--time-budget", "0s", *HERE)
    assert said.code == 0
    assert StudyFolder(results / "hunt").trials.read() == []


def test_the_command_line_chooses_trials_epochs_seed_and_fields(harness, results, space, desert):
    words = ("--trials", "1", "--max-epochs", "1", "--seed", "5", "--set", "loss.dice.weight=0.5")
    assert harness("search", space, "--data", desert, "--name", "hunt", *words, *HERE).code == 0
    (row,) = StudyFolder(results / "hunt").trials.read()
    experiment = StudyFolder(results / "hunt").run(row.trial).read_experiment()
    assert (row.seed, row.epochs, experiment.loss.dice.weight) == (5, 1, 0.5)


def test_a_study_without_a_name_is_called_after_its_space_and_the_time(harness, results, space, desert):
    assert harness("search", space, "--data", desert, "--trials", "1", "--max-epochs", "1", *HERE).code == 0
    (folder,) = results.iterdir()
    assert folder.name.startswith("small-2")


def test_help_names_every_command(harness):
    said = harness("--help")
    assert said.code == 0
    for command in ("search", "train", "export", "evaluate", "predict", "describe", "score", "data"):
        assert command in said.out


def test_report_without_a_study_writes_the_page_of_the_newest_and_says_which(harness, hunt_of, results):
    said = harness("report")
    assert said.code == 2 and said.out == ""
    assert said.err.startswith(f"error: there is no study in {results}; start one")
    for age, name in enumerate(("new", "old")):
        made = hunt_of(name=f"results/{name}").search([0.5])
        os.utime(made.folder.settings, (1e9 - age, 1e9 - age))
    for words in (("report",), ("report", "study")):
        said = harness(*words)
        assert said.code == 0 and said.err == f"study new, the newest in {results}\n"
        assert said.out == f"page    {results}/new/report.html\n"
    assert harness("report", "old").err == ""


def test_the_published_tables_lie_with_the_results_unless_told_otherwise(harness, results):
    said = harness("report", "published")
    assert said.code == 0 and f"→ {results}/published-tables" in said.out
    assert (results / "published-tables" / "index.md").exists()
