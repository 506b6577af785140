"""`harness data`: synth, check, census."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest


def test_synth_writes_a_dataset_that_check_accepts(harness, tmp_path):
    root = tmp_path / "desert"
    words = ("--train", 2, "--val", 1, "--test", 1, "--height", 32, "--width", 48)
    said = harness("data", "synth", root, *words)
    assert said.code == 0 and "2 train, 1 val, 1 test frames" in said.out
    mask = cv2.imread(str(next((root / "train" / "Segmentation").iterdir())), cv2.IMREAD_UNCHANGED)
    assert (mask.dtype, mask.shape) == (np.uint16, (32, 48))
    said = harness("data", "check", root)
    assert said.code == 0 and "✓ 2 train, 1 val, 1 test frames, fingerprint" in said.out


def test_check_refuses_a_folder_without_frames(harness, tmp_path):
    said = harness("data", "check", tmp_path)
    assert said.code == 2
    assert "no frames there; the layout is" in said.out


def test_census_counts_every_pixel_as_numpy_does(harness, desert):
    said = harness("data", "census", desert, "--json")
    values = json.loads(said.out)
    raw = [cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in (desert / "train" / "Segmentation").iterdir()]
    classes = values["splits"]["train"]["classes"]
    assert classes["Sky"]["pixels"] == sum(int((mask == 10000).sum()) for mask in raw)
    assert classes["Rocks"]["frames"] == sum(bool((mask == 800).any()) for mask in raw)
    assert sum(c["pixels"] for c in classes.values()) == 6 * 32 * 48
    assert sum(c["share"] for c in classes.values()) == pytest.approx(1.0)
    images = [cv2.imread(str(p))[..., ::-1] for p in (desert / "train" / "Color_Images").iterdir()]
    assert values["splits"]["train"]["colour_mean"] == pytest.approx(np.stack(images).mean((0, 1, 2)))
    assert {split: counted["frames"] for split, counted in values["splits"].items()} == {
        "train": 6,
        "val": 3,
        "test": 2,
    }
    assert max(values["class_weights"]["inverse"].values()) == pytest.approx(5.0)
    assert np.mean(list(values["class_weights"]["log"].values())) == pytest.approx(1.0)


def test_census_shows_shares_in_a_table(harness, desert):
    values = json.loads(harness("data", "census", desert, "--json").out)
    said = harness("data", "census", desert)
    share = values["splits"]["val"]["classes"]["Sky"]["share"]
    (line,) = [line for line in said.out.splitlines() if line.startswith("Sky")]
    assert f"{100 * share:.3f}" in line.split()


def test_census_of_a_folder_without_splits_is_refused(harness, tmp_path):
    said = harness("data", "census", tmp_path)
    assert said.code == 2 and "no split here; it needs train/Color_Images" in said.err
