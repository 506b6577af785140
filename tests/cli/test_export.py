"""`harness export`: a study's best, or a run, handed over as a folder that needs nothing else."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.config import Experiment, read_section
from harness.engine import onnx as exporter
from harness.errors import ModelError
from harness.store import StudyFolder

HERE = ("--executor", "inprocess")
FILES = ["README.md", "best.safetensors", "experiment.yaml"]


@pytest.fixture
def hunt(harness, results, space, desert) -> StudyFolder:
    # a frozen backbone, whose weights lie once beside all runs
    space.write_text(space.read_text().replace("trainable_blocks: all", "trainable_blocks: 0"))
    assert harness("search", space, "--data", desert, "--name", "hunt", *HERE).code == 0
    return StudyFolder(results / "hunt")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_holds_all_that_is_needed_when_the_study_is_gone(harness, hunt, desert, tmp_path):
    best = max(hunt.trials.read(), key=lambda row: (row.outcome == "complete", row.score))

    said = harness("export", "hunt", "--to", tmp_path / "handed")

    assert said.code == 0 and "README.md, best.safetensors, experiment.yaml" in said.out
    assert names(tmp_path / "handed") == FILES
    text = (tmp_path / "handed" / "experiment.yaml").read_text()
    assert text == hunt.best.read_text() and text.startswith("# rank 1 of study hunt: trial ")
    card = (tmp_path / "handed" / "README.md").read_text()
    assert card.startswith(f"# Model card: hunt, rank 1, run {best.trial}\n") and "model.onnx" not in card
    assert "harness predict handed" in card and f"{best.score:.4f}" in card
    shutil.rmtree(hunt.path)
    values = json.loads(harness("evaluate", tmp_path / "handed", "--json").out)
    assert values["score"]["miou"] == pytest.approx(best.score, abs=1e-12)
    images = desert / "val" / "Color_Images"
    assert harness("predict", tmp_path / "handed", images, "-o", tmp_path / "out").code == 0


def test_onnx_puts_a_compared_file_beside_and_says_so(harness, hunt, desert, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")

    said = harness("export", "hunt", "--to", tmp_path / "handed", "--onnx")

    assert said.code == 0 and "agrees with PyTorch in onnxruntime on noise and on validation frame 0000000" in said.out
    assert names(tmp_path / "handed") == ["README.md", "best.safetensors", "experiment.yaml", "model.onnx"]
    card = (tmp_path / "handed" / "README.md").read_text()
    assert "agrees with PyTorch" in card and "cv2.resize(image, (48, 32))" in card
    said_of = r"logits differ by at most (\S+), which is (\S+) of the largest \((\S+); 0\.0001 of it is allowed\)"
    absolute, relative, largest = map(float, re.search(said_of, card).groups())
    assert relative == pytest.approx(absolute / largest, rel=0.1) and relative <= 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "handed" / "model.onnx"))
    (logits,) = session.run(None, {"images": np.zeros((2, 3, 32, 48), np.uint8)})
    assert logits.shape == (2, 10, 32, 48)


def test_a_file_that_disagrees_leaves_no_folder(harness, hunt, tmp_path, monkeypatch):
    def disagree(*_: object) -> None:
        raise ModelError("the ONNX file gives other logits than PyTorch")

    monkeypatch.setattr(exporter, "check_onnx", lambda: None)
    monkeypatch.setattr(exporter, "export_onnx", disagree)
    before = names(tmp_path)
    said = harness("export", "hunt", "--to", tmp_path / "handed", "--onnx")
    assert said.code == 2 and "gives other logits than PyTorch" in said.err
    assert names(tmp_path) == before


def test_a_missing_package_is_told_before_anything_is_written(harness, hunt, tmp_path, monkeypatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(exporter, "import_module", missing)
    said = harness("export", "hunt", "--to", tmp_path / "handed", "--onnx")
    assert said.code == 2 and "pip install 'harness[onnx]'" in said.err
    assert not (tmp_path / "handed").exists()


def test_a_trial_whose_weights_were_not_kept_is_handed_over_without_and_cannot_be_onnx(harness, hunt, tmp_path):
    trial = hunt.trials.read()[0].trial
    hunt.run(trial).best.unlink()
    said = harness("export", hunt.run(trial).path, "--to", tmp_path / "handed")
    assert said.code == 0 and "its weights were not kept" in said.out
    assert names(tmp_path / "handed") == ["README.md", "experiment.yaml"]
    assert "weights of this trial were not kept" in (tmp_path / "handed" / "README.md").read_text()
    said = harness("export", hunt.run(trial).path, "--to", tmp_path / "other", "--onnx")
    assert said.code == 2 and "weights of this trial were not kept, and --onnx needs them" in said.err


def test_a_run_is_exported_like_a_study(harness, hunt, tmp_path):
    run = hunt.run(hunt.trials.read()[1].trial)
    assert harness("export", run.path).out == run.experiment.read_text()
    assert harness("export", run.path, "--card", tmp_path / "card.md", "-o", tmp_path / "e.yaml").code == 0
    assert read_section(Experiment, tmp_path / "e.yaml") == run.read_experiment()
    assert (tmp_path / "card.md").read_text().startswith("# Model card: hunt, rank ")
    said = harness("export", run.path, "--rank", "2")
    assert said.code == 2 and "--rank 2 chooses among the trials of a study" in said.err


def test_the_best_seed_of_a_training_and_the_run_of_an_arm_can_be_handed_over(harness, results, desert, tmp_path):
    (tmp_path / "e.yaml").write_text("training: {epochs: 1}\ndata: {input_size: [32, 48]}\n")
    assert harness("train", tmp_path / "e.yaml", "--data", desert, "--seeds", "2", "--name", "t", *HERE).code == 0
    said = harness("export", "t", "--to", tmp_path / "handed")
    assert said.code == 0 and names(tmp_path / "handed") == FILES
    rows = StudyFolder(results / "t").trials.read()
    best = max(rows, key=lambda row: row.score)
    card = (tmp_path / "handed" / "README.md").read_text()
    assert f"run {best.trial}" in card and f"seed {best.seed}; 2 seed(s) of it" in card and "mean" in card

    (tmp_path / "a.yaml").write_text(
        "experiment: {training: {epochs: 1}, data: {input_size: [32, 48]}}\n"
        "arms: {first: {}, second: {set: {optimiser.lr: 0.01}}}\n"
        "design: {kind: ladder, rungs: [first, second]}\nscale: {full: {seeds: 1}}\n"
    )
    assert harness("ablate", tmp_path / "a.yaml", "--data", desert, "--name", "a", *HERE).code == 0
    said = harness("export", "a")
    assert said.code == 2 and "its arms are compared, none of them is the result; give one of its runs" in said.err
    arm = StudyFolder(results / "a").trials.read()[0]
    assert harness("export", results / "a" / "runs" / arm.trial, "--to", tmp_path / "arm").code == 0
    assert f"Arm `{arm.picked['arm']}` of the ablation `a`" in (tmp_path / "arm" / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--to", "{there}"), "is there already; give the name of a new folder"),
        (("--to", "{tmp}/no/such"), "the folder .* does not exist; make it first"),
        (("--card", "{tmp}/no/card.md"), "--card .* does not exist; make it first"),
        (("-o", "{tmp}/no/e.yaml"), "-o .* does not exist; make it first"),
        (("--onnx",), "--onnx writes model.onnx into the folder of --to"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_the_study_is_read(harness, tmp_path, words, message):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine")
    words = [word.format(tmp=tmp_path, there=tmp_path / "there") for word in words]
    said = harness("export", "nothing", *words)
    assert said.code == 2
    assert re.search(message, said.err), said.err
    assert names(tmp_path / "there") == ["mine.txt"]
