"""`harness score` on hand-made masks and on the stored predictions of the real frames."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.mark.parametrize(("folder", "expected"), [("predictions", 0.375453), ("predictions_codecrunch", 0.404358)])
def test_the_stored_predictions_reach_the_dataset_miou_computed_independently(
    harness, falcon_frames, tmp_path, folder, expected
):
    truth = tmp_path / "truth"
    truth.mkdir()
    for mask in falcon_frames.glob("*/Segmentation/*.png"):
        (truth / mask.name).symlink_to(mask)
    said = harness("score", falcon_frames / "reference" / folder, truth, "--json")
    values = json.loads(said.out)
    assert said.code == 0 and values["frames"] == 14
    assert values["score"]["miou"] == pytest.approx(expected, abs=5e-7)
    shown = harness("score", falcon_frames / "reference" / folder, truth)
    assert f"mIoU {expected:.4f}" in shown.out


@pytest.fixture
def masks(tmp_path: Path) -> tuple[Path, Path]:
    """Two pairs of 2x2 masks: predictions and truth."""
    pairs = {
        "a.png": ([[100, 100], [10000, 10000]], [[100, 10000], [10000, 10000]]),
        "b.png": ([[100, 42], [10000, 100]], [[100, 100], [10000, 10000]]),
    }
    for side, folder in enumerate(("predicted", "truth")):
        (tmp_path / folder).mkdir()
        for name, both in pairs.items():
            cv2.imwrite(str(tmp_path / folder / name), np.array(both[side], np.uint16))
    return tmp_path / "predicted", tmp_path / "truth"


def test_hand_made_masks_give_the_fractions_worked_by_hand(harness, masks):
    values = json.loads(harness("score", *masks, "--json").out)
    # Trees: truth 3, predicted 4, both 2. Sky: truth 5, predicted 3, both 3. One pixel is none of the classes
    assert values["per_class"]["Trees"]["iou"] == pytest.approx(2 / 5)
    assert values["per_class"]["Sky"]["iou"] == pytest.approx(3 / 5)
    assert values["score"]["miou"] == pytest.approx(1 / 2)
    assert values["score"]["accuracy"] == pytest.approx(5 / 8)
    assert values["per_class"]["Rocks"]["iou"] is None


def test_per_image_adds_a_line_for_each_image(harness, masks):
    said = harness("score", *masks, "--per-image")
    assert said.code == 0
    lines = {line.split()[0]: line.split()[1:] for line in said.out.splitlines() if line.startswith(("a.png", "b.png"))}
    assert lines == {"a.png": ["0.7500", "0.5833"], "b.png": ["0.5000", "0.4167"]}


def test_a_truth_with_an_unlisted_id_is_refused_although_a_prediction_may_hold_one(harness, masks):
    said = harness("score", masks[1], masks[0])
    assert said.code == 2 and "b.png: raw ids in no class: 42 (1 pixel)" in said.err
