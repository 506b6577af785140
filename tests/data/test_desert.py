from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from harness.data.desert import frame_seed, render_frame, write_desert
from harness.errors import DataError

# Per cent of the pixels, and the ids, as the official data set has them.
TRAIN_SHARES = {
    100: 3.5, 200: 5.9, 300: 18.9, 500: 1.1, 550: 4.4, 600: 2.8, 700: 0.08, 800: 1.2, 7100: 24.4, 10000: 37.6,
}  # fmt: skip
TEST_SHARES = {100: 0.27, 300: 17.4, 500: 3.05, 800: 18.1, 7100: 43.2, 10000: 18.0}
ABSENT_FROM_TEST = (550, 600, 700)


@pytest.fixture(scope="module")
def frames() -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    return {place: [render_frame(place, seed, 136, 240) for seed in range(40)] for place in ("train", "test")}


def mean_share(masks: list[np.ndarray], raw_id: int) -> float:
    return float(np.mean([100 * (mask == raw_id).mean() for mask in masks]))


@pytest.mark.parametrize(
    ("place", "raw_id", "share"),
    [("train", *item) for item in TRAIN_SHARES.items()] + [("test", *item) for item in TEST_SHARES.items()],
)
def test_each_class_has_its_share_of_the_pixels_within_a_fifth(frames, place, raw_id, share):
    assert mean_share([mask for _, mask in frames[place]], raw_id) == pytest.approx(share, rel=0.2)


def test_the_test_environment_has_a_trace_of_lush_bushes_and_no_clutter_flowers_or_logs(frames):
    masks = [mask for _, mask in frames["test"]]
    assert 0.0005 <= mean_share(masks, 200) <= 0.02
    assert [int((mask == raw_id).sum()) for mask in masks for raw_id in ABSENT_FROM_TEST] == [0] * 120


def test_shares_hold_at_another_size_of_frame():
    masks = [render_frame("train", seed, 90, 122)[1] for seed in range(40)]
    expected = {raw_id: share for raw_id, share in TRAIN_SHARES.items() if raw_id != 700}
    assert {raw_id: mean_share(masks, raw_id) for raw_id in expected} == pytest.approx(expected, rel=0.2)


def test_some_training_frames_have_no_logs_and_some_no_flowers(frames):
    for raw_id in (600, 700):
        present = [bool((mask == raw_id).any()) for _, mask in frames["train"]]
        assert any(present) and not all(present)


@pytest.mark.parametrize("size", [(97, 131), (32, 32), (33, 200), (150, 35), (135, 240)])
@pytest.mark.parametrize("place", ["train", "test"])
def test_any_size_gives_an_rgb_image_and_a_mask_of_listed_ids(place, size):
    image, mask = render_frame(place, 3, *size)
    assert (image.shape, image.dtype, mask.shape, mask.dtype) == ((*size, 3), np.uint8, size, np.uint16)
    assert set(np.unique(mask).tolist()) <= set(TRAIN_SHARES)
    assert {7100, 10000} <= set(np.unique(mask).tolist())


def test_the_same_arguments_give_the_same_arrays_whatever_was_drawn_before():
    first = render_frame("train", 11, 64, 96)
    render_frame("test", 5, 64, 96)
    np.random.default_rng(0).random(7)
    second = render_frame("train", 11, 64, 96)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize("other", [("train", 12), ("test", 11)])
def test_another_seed_or_environment_gives_another_frame(other):
    image, mask = render_frame("train", 11, 64, 96)
    other_image, other_mask = render_frame(*other, 64, 96)
    assert (mask != other_mask).mean() > 0.05
    assert (image != other_image).mean() > 0.5


def test_the_splits_never_share_a_frame_seed():
    splits = ("train", "val", "test")
    seeds = {frame_seed(seed, split, index) for seed in (0, 1) for split in splits for index in range(50)}
    assert len(seeds) == 300


def test_the_environments_differ_in_mean_colour_by_more_than_the_training_frames_spread(frames):
    colours = {place: np.array([image.mean(axis=(0, 1)) for image, _ in pairs]) for place, pairs in frames.items()}
    train, test = colours["train"], colours["test"]
    gap = np.linalg.norm(train.mean(axis=0) - test.mean(axis=0))
    spread = np.linalg.norm(train - train.mean(axis=0), axis=1).mean()
    assert gap > 1.5 * spread


def class_colour(image: np.ndarray, mask: np.ndarray, raw_id: int) -> np.ndarray:
    return image[mask == raw_id].mean(axis=0)


def rock_contrast(image: np.ndarray, mask: np.ndarray) -> float:
    return float(np.linalg.norm(class_colour(image, mask, 800) - class_colour(image, mask, 7100)))


def test_rocks_stand_out_from_the_ground_in_training_but_not_in_the_test_environment(frames):
    train, test = (np.mean([rock_contrast(*frame) for frame in frames[place]]) for place in ("train", "test"))
    assert test < 0.5 * train


def test_sky_is_bluer_than_every_object_and_the_top_row_holds_no_ground(frames):
    for image, mask in frames["train"]:
        assert 7100 not in mask[0]
        blueness = [np.diff(class_colour(image, mask, raw_id)[[0, 2]])[0] for raw_id in (10000, 200, 300, 7100)]
        assert blueness[0] == max(blueness)


def test_a_written_desert_has_the_official_layout_and_reads_back_as_it_was_rendered(tmp_path: Path):
    root = tmp_path / "new" / "desert"
    write_desert(root, train=3, val=2, test=1, height=40, width=56, seed=9)
    written = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    assert written == sorted(
        f"{split}/{folder}/{index:07d}.png"
        for split, count in (("train", 3), ("val", 2), ("test", 1))
        for folder in ("Color_Images", "Segmentation")
        for index in range(count)
    )
    assert [path.name for path in root.parent.iterdir()] == ["desert"]
    for split, place, index in (("train", "train", 2), ("val", "train", 1), ("test", "test", 0)):
        image, mask = render_frame(place, frame_seed(9, split, index), 40, 56)
        read = cv2.imread(str(root / split / "Segmentation" / f"{index:07d}.png"), cv2.IMREAD_UNCHANGED)
        assert read.dtype == np.uint16
        np.testing.assert_array_equal(read, mask)
        colour = cv2.imread(str(root / split / "Color_Images" / f"{index:07d}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(colour[..., ::-1], image)


def test_an_existing_folder_is_refused_and_left_as_it_is(tmp_path: Path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(DataError, match="already exists and is never overwritten; choose a new folder"):
        write_desert(tmp_path, train=1, val=0, test=0, height=32, width=32, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_a_writer_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write = cv2.imwrite
    monkeypatch.setattr(cv2, "imwrite", lambda path, *rest: "0000001" not in path and write(path, *rest))
    with pytest.raises(DataError, match="0000001.png could not be written"):
        write_desert(tmp_path / "desert", train=2, val=0, test=0, height=32, width=32, seed=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mars", 0, 64, 64), "environment 'mars' is unknown; use 'train' or 'test'"),
        (("train", -1, 64, 64), "seed -1 is negative; use 0 or more"),
        (("train", 0, 31, 64), "height 31 is below the smallest desert frame; use 32 or more"),
        (("train", 0, 64, 20), "width 20 is below the smallest desert frame; use 32 or more"),
    ],
)
def test_impossible_arguments_are_refused_with_the_value_and_the_fix(arguments, message):
    with pytest.raises(DataError, match=message):
        render_frame(*arguments)


def test_a_negative_number_of_frames_is_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(DataError, match="val=-1 frames: the number of frames cannot be negative"):
        write_desert(tmp_path / "desert", train=1, val=-1, test=0, height=32, width=32, seed=0)
    assert list(tmp_path.iterdir()) == []
