"""One image's counts, against a hand-worked case, torchmetrics and the pixel-by-pixel definition."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from harness.config import IGNORE
from harness.errors import DataError
from harness.metrics import confusion_matrix

TRUTH = np.array([[0, 0, 1], [1, 1, IGNORE], [2, 0, 1]], dtype=np.uint8)
PREDICTION = np.array([[0, 1, 1], [1, 3, 0], [IGNORE, 0, 2]], dtype=np.uint8)
COUNTS = [
    [2, 1, 0, 0, 0],
    [0, 2, 1, 1, 0],
    [0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0],
]


def test_a_three_by_three_image_with_an_ignored_pixel_and_an_absent_class_counts_as_by_hand():
    matrix = confusion_matrix(TRUTH, PREDICTION, classes=4)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == COUNTS


def test_the_same_prediction_with_three_classes_puts_class_three_in_the_none_column():
    matrix = confusion_matrix(TRUTH, PREDICTION, classes=3)
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 2, 1, 1], [0, 0, 0, 1]]


@pytest.mark.parametrize("seed", range(3))
def test_random_maps_count_as_in_torchmetrics(seed):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 6, (37, 53), dtype=np.uint8)
    truth[generator.random(truth.shape) < 0.1] = IGNORE
    prediction = generator.integers(0, 6, (37, 53), dtype=np.uint8)
    expected = multiclass_confusion_matrix(
        torch.from_numpy(prediction).long(),
        torch.from_numpy(truth).long(),
        num_classes=6,
        ignore_index=IGNORE,
    )
    matrix = confusion_matrix(truth, prediction, classes=6)
    assert np.array_equal(matrix[:, :6], expected.numpy())
    assert not matrix[:, 6].any()
    assert matrix.sum() == (truth != IGNORE).sum()


def test_the_none_column_counts_every_unlisted_prediction_pixel_by_pixel():
    generator = np.random.default_rng(3)
    truth = generator.choice(np.array([0, 1, 2, IGNORE], dtype=np.uint8), (11, 7))
    prediction = generator.choice(np.array([0, 1, 2, 3, 77, IGNORE], dtype=np.uint8), (11, 7))
    expected = np.zeros((3, 4), dtype=int)
    for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if t != IGNORE:
            expected[t, p if p < 3 else 3] += 1
    assert expected[:, 3].all()
    assert np.array_equal(confusion_matrix(truth, prediction, classes=3), expected)


def test_an_image_that_is_all_ignored_counts_nothing():
    truth = np.full((4, 5), IGNORE, dtype=np.uint8)
    assert confusion_matrix(truth, np.zeros_like(truth), classes=3).tolist() == [[0] * 4] * 3


def test_an_image_without_pixels_counts_nothing():
    empty = np.zeros((0, 5), dtype=np.uint8)
    assert confusion_matrix(empty, empty, classes=2).tolist() == [[0] * 3] * 2


def test_one_class_counts_hits_and_none():
    truth = np.zeros((2, 2), dtype=np.uint8)
    prediction = np.array([[0, 0], [0, IGNORE]], dtype=np.uint8)
    assert confusion_matrix(truth, prediction, classes=1).tolist() == [[3, 1]]


def test_255_classes_fit_beside_ignore():
    maps = np.array([[254, 0]], dtype=np.uint8)
    matrix = confusion_matrix(maps, maps, classes=255)
    assert matrix.shape == (255, 256)
    assert matrix[254, 254] == matrix[0, 0] == 1


@pytest.mark.parametrize("classes", [0, 256])
def test_a_number_of_classes_that_uint8_cannot_hold_is_refused(classes):
    with pytest.raises(DataError, match=f"{classes} classes: a uint8 class map holds 1 to 255"):
        confusion_matrix(TRUTH, PREDICTION, classes=classes)


def test_a_truth_class_that_is_not_listed_is_refused_with_the_class():
    with pytest.raises(DataError, match="the truth holds class 2 but there are 2 classes"):
        confusion_matrix(TRUTH, PREDICTION, classes=2)


def test_maps_of_two_sizes_are_refused_with_both_sizes():
    with pytest.raises(DataError, match=r"truth of shape \(3, 3\) and prediction of shape \(2, 3\)"):
        confusion_matrix(TRUTH, PREDICTION[:2], classes=4)


def test_maps_of_another_type_are_refused():
    with pytest.raises(DataError, match="prediction of type int64: class maps are uint8"):
        confusion_matrix(TRUTH, PREDICTION.astype(np.int64), classes=4)


def test_the_metrics_door_loads_without_torch():
    code = "import sys; import harness.metrics, harness.stats; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
