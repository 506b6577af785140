"""`harness evaluate`: the confusion matrix and the worst frames."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from harness.config.data import NamedTaxonomy
from harness.data import build_taxonomy, list_frames, read_mask
from harness.store import StudyFolder

HERE = ("--executor", "inprocess")


@pytest.fixture
def run(harness, results, desert, tmp_path):
    (tmp_path / "e.yaml").write_text("training: {epochs: 1}\ndata: {input_size: [32, 48]}\n")
    assert harness("train", tmp_path / "e.yaml", "--data", desert, "--seeds", "1", "--name", "t", *HERE).code == 0
    study = StudyFolder(results / "t")
    return study.run(study.trials.read()[0].trial)


def test_the_confusion_matrix_is_that_of_the_predicted_masks_on_screen_and_in_json(harness, run, desert, tmp_path):
    assert harness("predict", run.path, desert / "val" / "Color_Images", "-o", tmp_path / "out").code == 0
    taxonomy = build_taxonomy(NamedTaxonomy())
    expected = np.zeros((10, 11), int)
    for frame in list_frames(desert, "val"):
        raw = read_mask(tmp_path / "out" / "raw" / frame.mask.name)
        pairs = taxonomy.table[read_mask(frame.mask)], taxonomy.table[raw]
        np.add.at(expected, pairs, 1)

    values = json.loads(harness("evaluate", run.path, "--json").out)

    assert values["confusion"] == expected.tolist()
    assert json.loads((run.path / "evaluation-val.json").read_text())["confusion"] == expected.tolist()
    assert not (run.path / "worst-val").exists()
    said = harness("evaluate", run.path, "--worst-count", "0")
    assert said.code == 0 and "what each class was taken for, % of its true pixels" in said.out
    sky = next(line.split() for line in reversed(said.out.splitlines()) if line.startswith("Sky"))
    share = 100 * expected[9, 9] / expected[9].sum()
    assert sky[10] == ("·" if share == 0 else "100" if share == 100 else f"{share:.1f}")
    assert not (run.path / "worst-val").exists()


def test_the_worst_frames_lie_beside_the_run_in_the_order_of_their_own_miou(harness, run, desert):
    said = harness("evaluate", run.path, "--worst-count", "2")
    assert said.code == 0 and "worst 2 frames (mIoU of the frame over the classes in its truth" in said.err
    per_image = json.loads((run.path / "evaluation-val.json").read_text())["per_image"]

    def miou(name: str) -> float:
        recall = per_image[name]["recall"]
        # a class has a recall where the truth holds it
        return np.mean([iou for key, iou in per_image[name]["iou"].items() if not np.isnan(recall[key])])

    order = sorted(per_image, key=miou)[:2]
    strips = sorted(path.name for path in (run.path / "worst-val").glob("0*.png"))
    assert strips == [f"{n:02d}-{name}.png" for n, name in enumerate(order, 1)]
    assert cv2.imread(str(run.path / "worst-val" / strips[0])).shape == (32, 4 * 48 + 12, 3)
    assert (run.path / "worst-val" / "index.html").exists() and (run.path / "worst-val" / "worst.png").exists()


def test_the_worst_frames_go_into_the_folder_that_is_named_with_json_too(harness, run, tmp_path):
    said = harness("evaluate", run.path, "--split", "test", "--json", "--worst", tmp_path / "bad")
    assert said.code == 0 and json.loads(said.out)["frames"] == 2
    assert len(list((tmp_path / "bad").glob("0*.png"))) == 2
    assert not (run.path / "worst-test").exists()
