from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from harness.config.data import NamedTaxonomy
from harness.data.cache import open_frames
from harness.data.census import census, check_dataset, class_counts
from harness.data.frames import list_frames, read_frame
from harness.data.taxonomy import build_taxonomy
from harness.errors import DataError

FALCON10 = build_taxonomy(NamedTaxonomy(name="falcon10"))
FALCON7 = build_taxonomy(NamedTaxonomy(name="falcon7"))
RAW_IDS = (100, 200, 300, 500, 550, 600, 700, 800, 7100, 10000)


def mask_of(root, name="a"):
    return root / "train" / "Segmentation" / f"{name}.png"


def test_a_hand_made_split_is_counted_to_the_pixel(tmp_path):
    for folder in ("Color_Images", "Segmentation"):
        (tmp_path / "train" / folder).mkdir(parents=True)
    for name, ids in (("a", [[100, 100, 600]]), ("b", [[100, 10000, 10000]])):
        image = np.full((1, 3, 3), (30, 20, 10), np.uint8) if name == "a" else np.zeros((1, 3, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "train" / "Color_Images" / f"{name}.png"), image)
        cv2.imwrite(str(tmp_path / "train" / "Segmentation" / f"{name}.png"), np.array(ids, np.uint16))
    found = census(tmp_path, "train", FALCON7)
    assert found.pixels.tolist() == [3, 0, 0, 0, 0, 0, 2] and found.ignored == 1
    assert found.frames_with_class.tolist() == [2, 0, 0, 0, 0, 0, 1]
    assert (found.frames, found.labelled, found.sizes) == (2, 2, {(1, 3): 2})
    # half the pixels are (10, 20, 30) RGB and half are black
    assert found.colour_mean.tolist() == [5, 10, 15] and found.colour_deviation.tolist() == [5, 10, 15]


def test_the_census_agrees_with_numpy_on_all_pixels_at_once(frames_root):
    found = census(frames_root, "train", FALCON10)
    images, masks = zip(*(read_frame(f) for f in list_frames(frames_root, "train")), strict=True)
    pixels = np.stack(images).reshape(-1, 3).astype(float)
    assert np.allclose(found.colour_mean, pixels.mean(0)) and np.allclose(found.colour_deviation, pixels.std(0))
    assert found.pixels.tolist() == [int((np.stack(masks) == i).sum()) for i in RAW_IDS]


def test_frames_without_masks_count_for_colour_only(frames_root):
    shutil.copytree(frames_root / "val" / "Color_Images", frames_root / "test" / "Color_Images")
    found, val = census(frames_root, "test", FALCON10), census(frames_root, "val", FALCON10)
    assert (found.frames, found.labelled, found.pixels.sum()) == (2, 0, 0)
    assert np.array_equal(found.colour_mean, val.colour_mean)


def test_class_counts_are_those_of_the_frames_without_any_augmentation(frames_root):
    native = class_counts(open_frames(frames_root, "train", None), FALCON7)
    assert native.dtype == np.int64
    assert native.tolist() == census(frames_root, "train", FALCON7).pixels.tolist()
    resized = class_counts(open_frames(frames_root, "train", (32, 48)), FALCON10)
    assert resized.sum() == 5 * 32 * 48


def test_classes_of_frames_without_masks_cannot_be_counted(frames_root):
    with pytest.raises(DataError, match="open them with masks=True"):
        class_counts(open_frames(frames_root, "train", None, masks=False), FALCON7)


def test_an_unlisted_id_stops_the_counts_with_the_frame(frames_root):
    cv2.imwrite(str(mask_of(frames_root, "c")), np.full((64, 96), 77, np.uint16))
    with pytest.raises(DataError, match=r"c\.png.* 77 \(6144 pixels\)"):
        census(frames_root, "train", FALCON10)
    with pytest.raises(DataError, match=r"^c: .* 77 \(6144 pixels\)"):
        class_counts(open_frames(frames_root, "train", None), FALCON10)


def test_a_sound_data_set_has_no_problems(frames_root):
    found = check_dataset(frames_root, FALCON10)
    assert found.problems == ()
    assert found.frames == found.masks == {"train": 5, "val": 2} and found.sizes == {(64, 96): 7}


def test_the_check_collects_every_problem_of_every_split(frames_root, add_frame):
    add_frame(frames_root, "test", "x")
    cv2.imwrite(str(mask_of(frames_root, "a")), np.full((64, 96), 3, np.uint8))
    cv2.imwrite(str(mask_of(frames_root, "b")), np.full((64, 96), 77, np.uint16))
    cv2.imwrite(str(mask_of(frames_root, "c")), np.full((32, 32), 100, np.uint16))
    mask_of(frames_root, "d").unlink()
    image = frames_root / "test" / "Color_Images" / "x.png"
    image.write_bytes(image.read_bytes()[:200])
    found = check_dataset(frames_root, FALCON10)
    words = ("1 images without a mask (d)", "8-bit mask", "77 (6144 pixels)", "32x32 pixels", "cut short")
    assert len(found.problems) == len(words)
    assert all(word in line for word, line in zip(words, found.problems, strict=True))
    assert found.frames == {"train": 4, "val": 2, "test": 1}
    assert all("\n" not in line for line in found.problems)


def test_the_check_of_an_empty_folder_says_that_train_and_val_are_missing(tmp_path):
    found = check_dataset(tmp_path, FALCON10)
    assert len(found.problems) == 2 and all("no frames there" in line for line in found.problems)
    assert found.frames == {"train": 0, "val": 0}


def test_the_real_frames_have_the_seven_classes_and_an_independent_count(falcon_frames):
    found = census(falcon_frames, "train", FALCON10)
    present = {name for name, n in zip(found.names, found.pixels, strict=True) if n}
    assert present == set(FALCON7.names) and found.sizes == {(540, 960): 10}
    masks = [
        cv2.imread(str(p), cv2.IMREAD_UNCHANGED)
        for p in sorted((falcon_frames / "train" / "Segmentation").glob("*.png"))
    ]
    assert found.pixels.tolist() == [sum(int((m == i).sum()) for m in masks) for i in RAW_IDS]
    assert found.pixels.sum() == 10 * 540 * 960 and found.ignored == 0


def test_the_real_frames_break_no_rule(falcon_frames):
    found = check_dataset(falcon_frames, FALCON7)
    assert found.problems == () and found.frames == {"train": 10, "val": 4}
