"""Scores of counts, against a hand-worked case and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_jaccard_index,
    multiclass_precision,
    multiclass_recall,
)
from torchmetrics.functional.segmentation import mean_iou

from harness import metrics
from harness.config import IGNORE
from harness.errors import DataError

# Truth 0 0 1 / 1 1 - / 2 0 1, prediction 0 1 1 / 1 3 0 / none 0 2 (- ignored): class 3 is not in the truth.
HAND = np.array([[[2, 1, 0, 0, 0], [0, 2, 1, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]])


@pytest.fixture
def hand() -> metrics.Counts:
    return metrics.dataset_counts(HAND)


def random_maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Four images of seven classes, classes 5 and 6 not in the truth, 6 not predicted, a tenth ignored."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 5, (4, 31, 17), dtype=np.uint8)
    right = generator.random(truth.shape) < 0.5
    prediction = np.where(right, truth, generator.integers(0, 6, truth.shape, dtype=np.uint8))
    truth[generator.random(truth.shape) < 0.1] = IGNORE
    return truth, prediction


def stored(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    return np.stack([metrics.confusion_matrix(t, p, 7) for t, p in zip(truth, prediction, strict=True)])


def test_the_counts_of_the_hand_worked_case(hand):
    assert hand.intersection.tolist() == [2, 2, 0, 0]
    assert hand.truth.tolist() == [3, 4, 1, 0]
    assert hand.predicted.tolist() == [2, 3, 1, 1]
    assert hand.union.tolist() == [3, 5, 2, 1]


def test_per_class_scores_of_the_hand_worked_case(hand):
    assert metrics.iou(hand) == pytest.approx([2 / 3, 2 / 5, 0, 0])
    assert metrics.dice(hand) == pytest.approx([4 / 5, 4 / 7, 0, 0])
    assert metrics.precision(hand) == pytest.approx([1, 2 / 3, 0, 0])
    assert metrics.recall(hand) == pytest.approx([2 / 3, 1 / 2, 0, np.nan], nan_ok=True)


def test_dataset_scores_of_the_hand_worked_case_average_the_three_true_classes(hand):
    assert metrics.miou(hand) == pytest.approx((2 / 3 + 2 / 5) / 3)
    assert metrics.mean_dice(hand) == pytest.approx((4 / 5 + 4 / 7) / 3)
    assert metrics.mean_class_accuracy(hand) == pytest.approx((2 / 3 + 1 / 2) / 3)
    assert metrics.accuracy(hand) == pytest.approx(4 / 8)
    assert metrics.micro_iou(hand) == pytest.approx(4 / 11)
    assert metrics.frequency_weighted_iou(hand) == pytest.approx((3 * 2 / 3 + 4 * 2 / 5) / 8)


def test_a_none_prediction_is_a_miss_but_in_no_other_union():
    right = metrics.dataset_counts(np.array([[[4, 0, 0], [0, 4, 0]]]))
    none = metrics.dataset_counts(np.array([[[3, 0, 1], [0, 4, 0]]]))
    wrong = metrics.dataset_counts(np.array([[[3, 1, 0], [0, 4, 0]]]))
    assert metrics.iou(right).tolist() == [1, 1]
    assert metrics.iou(none).tolist() == [3 / 4, 1]
    assert metrics.iou(wrong).tolist() == [3 / 4, 4 / 5]
    assert metrics.accuracy(none) == metrics.accuracy(wrong) == 7 / 8


@pytest.mark.parametrize("seed", range(3))
def test_per_class_scores_equal_torchmetrics_on_random_maps(seed):
    truth, prediction = random_maps(seed)
    c = metrics.dataset_counts(stored(truth, prediction))
    maps = torch.from_numpy(prediction).long(), torch.from_numpy(truth).long()
    options = {"num_classes": 7, "average": "none", "ignore_index": IGNORE}
    for ours, theirs in [
        (metrics.iou, multiclass_jaccard_index),
        (metrics.dice, multiclass_f1_score),
        (metrics.precision, multiclass_precision),
        (metrics.recall, multiclass_recall),
    ]:
        expected = theirs(*maps, **options).double().numpy()
        assert np.nan_to_num(ours(c)) == pytest.approx(np.nan_to_num(expected), abs=1e-6)
    micro = multiclass_accuracy(*maps, num_classes=7, average="micro", ignore_index=IGNORE)
    assert metrics.accuracy(c) == pytest.approx(float(micro), abs=1e-6)


def test_each_images_iou_equals_torchmetrics_mean_iou():
    truth, prediction = random_maps(3)
    prediction[truth == IGNORE] = truth[truth == IGNORE] = 0
    expected = mean_iou(
        torch.from_numpy(prediction).long(),
        torch.from_numpy(truth).long(),
        num_classes=7,
        per_class=True,
        input_format="index",
    )
    found = metrics.per_image_table(stored(truth, prediction))["iou"]
    assert found[:, :6] == pytest.approx(expected.numpy()[:, :6], abs=1e-6)
    assert np.isnan(found[:, 6]).all()


def test_the_score_is_of_the_summed_counts_and_not_the_mean_of_image_scores():
    matrices = np.array([[[9, 1, 0], [0, 0, 0]], [[0, 0, 0], [9, 1, 0]]])
    assert metrics.miou(metrics.dataset_counts(matrices)) == pytest.approx((9 / 19 + 1 / 11) / 2)
    assert metrics.miou(metrics.counts(matrices)) == pytest.approx([9 / 10, 1 / 10])


def test_micro_iou_follows_from_accuracy_where_nothing_is_predicted_as_none():
    c = metrics.dataset_counts(stored(*random_maps(4)))
    assert metrics.micro_iou(c) == pytest.approx(metrics.accuracy(c) / (2 - metrics.accuracy(c)))


def test_one_class_scores_its_hits_over_its_pixels():
    c = metrics.dataset_counts(np.array([[[3, 1]]]))
    assert metrics.miou(c) == metrics.accuracy(c) == metrics.micro_iou(c) == 3 / 4


def test_an_all_ignored_dataset_has_no_score_in_place_of_zero():
    c = metrics.dataset_counts(np.zeros((2, 3, 4), dtype=np.int64))
    for score in (
        metrics.miou,
        metrics.mean_dice,
        metrics.accuracy,
        metrics.mean_class_accuracy,
        metrics.frequency_weighted_iou,
        metrics.micro_iou,
    ):
        assert np.isnan(score(c))
    assert np.isnan(metrics.iou(c)).all()


def test_the_table_of_images_has_a_row_per_image_and_nan_for_an_ignored_one():
    table = metrics.per_image_table(np.concatenate([HAND, np.zeros_like(HAND)]))
    assert table["accuracy"] == pytest.approx([4 / 8, np.nan], nan_ok=True)
    assert set(table) == {"accuracy", "iou", "dice", "precision", "recall"}
    for name in ("iou", "dice", "precision", "recall"):
        assert table[name].shape == (2, 4)
        assert np.isnan(table[name][1]).all()


@pytest.mark.parametrize("shape", [(4, 5), (0, 4, 5), (1, 4, 4), (1, 0, 1)])
def test_counts_of_another_shape_are_refused_with_the_shape(shape):
    wanted = r"shape \(" + ", ".join(map(str, shape))
    with pytest.raises(DataError, match=wanted):
        metrics.dataset_counts(np.zeros(shape, dtype=np.int64))


def test_shares_in_place_of_counts_are_refused():
    with pytest.raises(DataError, match="type float64: they hold pixel counts"):
        metrics.per_image_table(np.zeros((1, 2, 3)))
