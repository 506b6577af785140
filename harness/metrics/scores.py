"""Scores as pure functions of three counts per class: intersection, truth and predicted pixels.

Every function works on the last axis, so that the sum over a dataset and a stack of images both serve.
A score whose denominator is 0 is nan: whether such a class counts as 0, as 1 or not at all is a convention
(see `harness.metrics.conventions`), not a measurement.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.metrics.confusion import check_matrices


class Counts(NamedTuple):
    """Pixels per class (..., C): predicted right, in the truth, and predicted, ignored pixels left out."""

    intersection: NDArray[np.int64]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]

    @property
    def union(self) -> NDArray[np.int64]:
        """Pixels (..., C) that are of the class in the truth, in the prediction, or in both."""
        return self.truth + self.predicted - self.intersection


def counts(matrices: NDArray[np.integer]) -> Counts:
    """Reduce confusion matrices (..., C, C+1) to counts (..., C); the "none" column is in `truth` alone."""
    listed = matrices[..., :-1]
    return Counts(
        intersection=np.diagonal(listed, axis1=-2, axis2=-1),
        truth=matrices.sum(axis=-1),
        predicted=listed.sum(axis=-2),
    )


def dataset_counts(matrices: NDArray[np.integer]) -> Counts:
    """Sum the matrices (N, C, C+1) of all images to counts (C,); raises DataError on another shape."""
    check_matrices(matrices)
    return counts(matrices.sum(axis=0))


def ratio(numerator: NDArray, denominator: NDArray) -> NDArray[np.float64]:
    """Divide, with nan for 0/0: no pixel, no score."""
    with np.errstate(invalid="ignore"):
        return np.true_divide(numerator, denominator)


def mean_over(values: NDArray[np.float64], kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over the last axis of the values that are kept; nan where none is."""
    return ratio(np.where(kept, values, 0.0).sum(axis=-1), kept.sum(axis=-1))


def iou(c: Counts) -> NDArray[np.float64]:
    """Intersection over union per class (..., C) in [0, 1]; nan for a class neither true nor predicted."""
    return ratio(c.intersection, c.union)


def dice(c: Counts) -> NDArray[np.float64]:
    """Dice coefficient (F1) per class (..., C) in [0, 1]; nan for a class neither true nor predicted."""
    return ratio(2 * c.intersection, c.truth + c.predicted)


def precision(c: Counts) -> NDArray[np.float64]:
    """Share of the predicted pixels that are right, per class (..., C) in [0, 1]; nan where none is."""
    return ratio(c.intersection, c.predicted)


def recall(c: Counts) -> NDArray[np.float64]:
    """Share of the true pixels that are found, per class (..., C) in [0, 1]; nan where there are none."""
    return ratio(c.intersection, c.truth)


def miou(c: Counts) -> NDArray[np.float64]:
    """Mean IoU over the classes present in the ground truth, in [0, 1]: THE score where `c` sums a dataset.

    A mean over non-empty unions lets the predictions choose the classes that are averaged: one stray pixel of
    a class that is not there adds a zero. Here the truth alone chooses; the stray pixel costs what it covers.
    """
    return mean_over(iou(c), c.truth > 0)


def mean_dice(c: Counts) -> NDArray[np.float64]:
    """Mean Dice over the classes present in the ground truth, in [0, 1]."""
    return mean_over(dice(c), c.truth > 0)


def mean_class_accuracy(c: Counts) -> NDArray[np.float64]:
    """Mean recall over the classes present in the ground truth, in [0, 1]."""
    return mean_over(recall(c), c.truth > 0)


def accuracy(c: Counts) -> NDArray[np.float64]:
    """Share of the pixels that are right, in [0, 1]."""
    return ratio(c.intersection.sum(axis=-1), c.truth.sum(axis=-1))


def micro_iou(c: Counts) -> NDArray[np.float64]:
    """Sum of intersections over sum of unions, in [0, 1]; accuracy / (2 - accuracy) if no pixel is "none"."""
    return ratio(c.intersection.sum(axis=-1), c.union.sum(axis=-1))


def frequency_weighted_iou(c: Counts) -> NDArray[np.float64]:
    """IoU averaged with each class's share of the true pixels as its weight, in [0, 1]."""
    weighted = np.where(c.truth > 0, c.truth * iou(c), 0.0)
    return ratio(weighted.sum(axis=-1), c.truth.sum(axis=-1))


def per_image_table(matrices: NDArray[np.integer]) -> dict[str, NDArray[np.float64]]:
    """Score each image by itself: accuracy (N,); iou, dice, precision and recall (N, C); nan where undefined.

    `matrices` is (N, C, C+1). Raises DataError on another shape.
    """
    check_matrices(matrices)
    c = counts(matrices)
    return {
        "accuracy": accuracy(c),
        "iou": iou(c),
        "dice": dice(c),
        "precision": precision(c),
        "recall": recall(c),
    }
