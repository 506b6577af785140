"""Which frames are the worst, and their pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from harness.config import IGNORE, Experiment, validate_section
from harness.data import Frame, build_taxonomy, list_frames, read_image, write_desert
from harness.engine.inference import View
from harness.engine.predict import predict_classes
from harness.engine.trained import Trained
from harness.errors import DataError
from harness.models import build_model
from harness.report.worst import COLUMNS, error_picture, worst_frames, write_worst

RED, BLUE = (230, 30, 40), (30, 60, 160)
LOOKS = (View(32, 48, False),)


def matrix(*rows: list[int]) -> np.ndarray:
    return np.array(rows)


#: two classes and none; by hand: mIoU 1, (4/8 + 2/6)/2, 0, and the same with more wrong
MATRICES = np.stack(
    [
        matrix([5, 0, 0], [0, 5, 0]),
        matrix([4, 2, 0], [2, 2, 0]),
        matrix([0, 0, 0], [0, 0, 7]),
        matrix([0, 0, 0], [0, 0, 0]),
        matrix([0, 9, 0], [0, 0, 0]),
    ]
)


def test_frames_come_by_their_own_miou_over_the_classes_in_their_truth() -> None:
    found = worst_frames(["good", "half", "none", "unlabelled", "all"], MATRICES, ("a", "b"), 9)
    assert [frame.name for frame in found] == ["all", "none", "half", "good"]
    half = found[2]
    assert half.miou == pytest.approx((4 / 8 + 2 / 6) / 2) and half.wrong == pytest.approx(4 / 10)
    assert half.mistakes == "a taken for b 20.0 %, b taken for a 20.0 %"
    assert found[1].mistakes == "b taken for none 100.0 %" and found[3].mistakes == ""
    assert [frame.name for frame in worst_frames("abcde", MATRICES, ("a", "b"), 1)] == ["c"]


def test_of_two_frames_with_the_same_miou_the_one_with_more_wrong_is_worse() -> None:
    pair = np.stack([matrix([0, 1, 0], [0, 0, 0]), matrix([0, 0, 3], [0, 0, 0]), matrix([1, 1, 0], [0, 0, 0])])
    assert [f.name for f in worst_frames(["b", "a", "c"], pair, ("x", "y"), 3)] == ["a", "b", "c"]


def test_wrong_pixels_are_red_ignored_ones_blue_and_the_rest_the_faded_image() -> None:
    image = np.full((1, 4, 3), 0, np.uint8)
    truth, predicted = np.array([[0, 1, IGNORE, 2]], np.uint8), np.array([[0, 2, 2, 2]], np.uint8)
    picture = error_picture(image, truth, predicted)
    assert [tuple(p) for p in picture[0]] == [(140, 140, 140), RED, BLUE, (140, 140, 140)]


@pytest.fixture(scope="module")
def desert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("worst") / "desert"
    write_desert(root, train=1, val=3, test=1, height=37, width=53, seed=0)
    return root


@pytest.fixture
def trained() -> Trained:
    values = {
        "data": {"input_size": [32, 48]},
        "model": {
            "kind": "backbone", "backbone": "test_efficientnet", "weights": "none", "trainable_blocks": "all",
            "stride": 8, "head": {"kind": "linear"},
        },
    }  # fmt: skip
    experiment = validate_section(Experiment, values, "tiny")
    torch.manual_seed(0)
    model = build_model(experiment.model, 10).eval()
    return Trained(experiment, build_taxonomy(experiment.taxonomy), model, epoch=1, score=0.1)


def _worst(frames: tuple[Frame, ...]) -> list:
    return worst_frames([f.name for f in frames], np.tile(MATRICES[1], (len(frames), 1, 1)), ("a", "b"), 9)


def test_a_strip_is_image_truth_prediction_and_errors_at_the_frames_own_size(
    trained: Trained, desert: Path, tmp_path: Path
) -> None:
    frames = list_frames(desert, "val")

    paths = write_worst(trained, frames, _worst(frames)[:2], tmp_path / "out", LOOKS, "run <1>")

    assert [path.name for path in paths] == ["01-0000000.png", "02-0000001.png", "index.html"]
    strip = cv2.imread(str(paths[0]))[..., ::-1]
    assert strip.shape == (37, 4 * 53 + 3 * 4, 3)
    parts = [strip[:, i * 57 : i * 57 + 53] for i in range(4)]
    classes = predict_classes(trained, read_image(frames[0].image), LOOKS)
    raw = cv2.imread(str(frames[0].mask), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(parts[0], read_image(frames[0].image))
    np.testing.assert_array_equal(parts[2], trained.taxonomy.colours[classes])
    wrong = raw != np.array(trained.taxonomy.ids)[classes]
    np.testing.assert_array_equal((parts[3] == RED).all(-1), wrong)
    assert wrong.any() and not (parts[1] == parts[2]).all()


def test_the_page_shows_every_strip_with_its_scores_and_the_colours_of_the_classes(
    trained: Trained, desert: Path, tmp_path: Path
) -> None:
    frames = list_frames(desert, "val")

    write_worst(trained, frames, _worst(frames), tmp_path, LOOKS, "run <1>")

    page = (tmp_path / "index.html").read_text()
    assert page.count("<img ") == 3 and 'src="02-0000001.png"' in page
    assert "run &lt;1&gt;" in page and "mIoU 0.417 · 40.0 % of the pixels wrong" in page
    assert "a taken for b 20.0 %" in page and "Ordered by the mIoU of the frame" in page
    for name, colour in zip(trained.taxonomy.names, trained.taxonomy.colours, strict=True):
        assert f"background:#{bytes(colour).hex()}" in page and name in page
    for column in COLUMNS:
        assert page.count(f"<div>{column}</div>") == 3
    assert cv2.imread(str(tmp_path / "worst.png")).shape[1] == 1080


def test_a_frame_without_truth_or_that_is_gone_is_refused(trained: Trained, desert: Path, tmp_path: Path) -> None:
    frames = list_frames(desert, "val")
    blind = tuple(Frame(f.name, f.image, None) for f in frames)
    with pytest.raises(DataError, match="frame 0000000 has no mask to compare with"):
        write_worst(trained, blind, _worst(frames), tmp_path, LOOKS, "")
    with pytest.raises(DataError, match="frame 0000000 is not among the frames of this split any more"):
        write_worst(trained, frames[1:], _worst(frames), tmp_path, LOOKS, "")


def test_without_a_scored_frame_there_is_a_page_without_pictures(trained: Trained, tmp_path: Path) -> None:
    assert [p.name for p in write_worst(trained, (), [], tmp_path, LOOKS, "")] == ["index.html"]
    assert not (tmp_path / "worst.png").exists()
