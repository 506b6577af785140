from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from harness.config import Experiment
from harness.data import Frame, Taxonomy, build_taxonomy
from harness.data.loose_files import frames_of_images
from harness.engine.inference import View, class_logits
from harness.engine.predict import overlay, predict_classes, side_by_side, write_predictions
from harness.engine.trained import Trained
from harness.models import build_model

#: the model sees 32 x 48
HEIGHT, WIDTH = 37, 53
LOOKS = (View(32, 48, False),)
#: white pixels between two pictures
GAP = 4


@pytest.fixture
def trained(experiment: Callable[..., Experiment]) -> Trained:
    """A network whose predictions hold several classes."""
    torch.manual_seed(1)
    model = build_model(experiment().model, 10).eval()
    with torch.no_grad():
        model.head.bias -= model(2 * torch.randn(8, 3, 32, 48)).mean((0, 2, 3))
    return Trained(experiment(), build_taxonomy(experiment().taxonomy), model, epoch=1, score=0.5)


def _write_image(path: Path, seed: int = 0) -> np.ndarray:
    """A smooth RGB picture, written without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), image[..., ::-1])
    return image


def _write_mask(path: Path, taxonomy: Taxonomy) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = np.random.default_rng(1).choice(np.array(taxonomy.ids, np.uint16), (HEIGHT, WIDTH))
    cv2.imwrite(str(path), raw)
    return raw


def _read_rgb(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1]


def _expected_classes(trained: Trained, image: np.ndarray, looks: tuple[View, ...]) -> np.ndarray:
    seen = torch.from_numpy(cv2.resize(image, (48, 32))).permute(2, 0, 1)[None]
    return class_logits(trained.model, seen, (HEIGHT, WIDTH), trained.experiment, looks)[0].numpy().argmax(0)


def _colours_of_raw(raw: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    picture = np.zeros((*raw.shape, 3), np.uint8)
    for raw_id, colour in zip(taxonomy.ids, taxonomy.colours, strict=True):
        picture[raw == raw_id] = colour
    return picture


@pytest.mark.parametrize("looks", [LOOKS, (*LOOKS, View(32, 48, True), View(40, 60, False))])
def test_classes_are_the_argmax_of_the_logits_at_the_images_own_size(
    trained: Trained, tmp_path: Path, looks: tuple[View, ...]
) -> None:
    image = _write_image(tmp_path / "a.png")

    classes = predict_classes(trained, image, looks)

    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes, _expected_classes(trained, image, looks))
    assert len(np.unique(classes)) > 2


def test_a_frame_with_truth_gets_four_files_of_its_own_odd_size(trained: Trained, tmp_path: Path) -> None:
    taxonomy, root, out = trained.taxonomy, tmp_path / "frames" / "val", tmp_path / "out"
    image = _write_image(root / "Color_Images" / "a.png")
    truth = _write_mask(root / "Segmentation" / "a.png", taxonomy)
    frames = (Frame("a", root / "Color_Images" / "a.png", root / "Segmentation" / "a.png"),)

    assert list(write_predictions(trained, frames, out, LOOKS)) == [out / "raw" / "a.png"]

    raw = cv2.imread(str(out / "raw" / "a.png"), cv2.IMREAD_UNCHANGED)
    assert (raw.dtype, raw.shape) == (np.uint16, (HEIGHT, WIDTH))
    np.testing.assert_array_equal(raw, np.array(taxonomy.ids)[_expected_classes(trained, image, LOOKS)])
    colour = _read_rgb(out / "colour" / "a.png")
    np.testing.assert_array_equal(colour, _colours_of_raw(raw, taxonomy))
    mixed = (image.astype(float) + colour) / 2
    np.testing.assert_allclose(_read_rgb(out / "overlay" / "a.png"), mixed, atol=0.51)
    row = _read_rgb(out / "side_by_side" / "a.png")
    gap = np.full((HEIGHT, GAP, 3), 255)
    np.testing.assert_array_equal(row, np.hstack([image, gap, _colours_of_raw(truth, taxonomy), gap, colour]))


def test_images_outside_the_layout_have_no_truth(trained: Trained, tmp_path: Path) -> None:
    image = _write_image(tmp_path / "mine" / "a.png")
    # a mask beside them is not theirs: only Color_Images has its masks in Segmentation
    _write_mask(tmp_path / "Segmentation" / "a.png", trained.taxonomy)

    list(write_predictions(trained, frames_of_images([tmp_path / "mine"]), tmp_path / "out", LOOKS))

    row = _read_rgb(tmp_path / "out" / "side_by_side" / "a.png")
    colour = _read_rgb(tmp_path / "out" / "colour" / "a.png")
    np.testing.assert_array_equal(row, np.hstack([image, np.full((HEIGHT, GAP, 3), 255), colour]))


def test_images_in_the_layout_bring_their_truth(trained: Trained, tmp_path: Path) -> None:
    _write_image(tmp_path / "Color_Images" / "a.png")
    _write_mask(tmp_path / "Segmentation" / "a.png", trained.taxonomy)

    list(write_predictions(trained, frames_of_images([tmp_path / "Color_Images"]), tmp_path / "out", LOOKS))

    assert _read_rgb(tmp_path / "out" / "side_by_side" / "a.png").shape == (HEIGHT, 3 * WIDTH + 2 * GAP, 3)


def test_files_are_named_after_their_images_and_dots_in_a_name_stay(trained: Trained, tmp_path: Path) -> None:
    for seed, name in enumerate(("a.1.png", "a.2.png", "b.png")):
        _write_image(tmp_path / "train" / "Color_Images" / name, seed)
    folder, out = tmp_path / "train" / "Color_Images", tmp_path / "out"
    # a frame of a dataset is called by its stem, a loose image by its file name
    listed = tuple(Frame(path.stem, path, None) for path in sorted(folder.iterdir()))

    for frames in (listed, frames_of_images([folder])):
        written = list(write_predictions(trained, frames, out, LOOKS))
        assert [path.name for path in written] == ["a.1.png", "a.2.png", "b.png"]
    for kind in ("raw", "colour", "overlay", "side_by_side"):
        assert sorted(path.name for path in (out / kind).iterdir()) == ["a.1.png", "a.2.png", "b.png"]


def test_a_jpeg_becomes_a_png(trained: Trained, tmp_path: Path) -> None:
    _write_image(tmp_path / "photo.jpg")

    written = list(write_predictions(trained, frames_of_images([tmp_path / "photo.jpg"]), tmp_path / "out", LOOKS))

    assert [path.name for path in written] == ["photo.png"]
    assert cv2.imread(str(written[0]), cv2.IMREAD_UNCHANGED).shape == (HEIGHT, WIDTH)


def test_the_files_of_a_frame_are_there_when_it_is_yielded(trained: Trained, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        _write_image(tmp_path / f"{name}.png", seed)
    out = tmp_path / "out"

    next(write_predictions(trained, frames_of_images([tmp_path / "a.png", tmp_path / "b.png"]), out, LOOKS))

    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.png")) == [
        f"{kind}/a.png" for kind in ("colour", "overlay", "raw", "side_by_side")
    ]


def test_a_lone_picture_has_no_gap_and_an_overlay_is_the_mean() -> None:
    image, colour = np.full((3, 5, 3), 100, np.uint8), np.full((3, 5, 3), 200, np.uint8)

    assert side_by_side(image).shape == (3, 5, 3)
    assert np.unique(overlay(image, colour)).tolist() == [150]
