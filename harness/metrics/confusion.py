"""The one accumulator: a confusion matrix per image, from which every score and convention is computed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.config import IGNORE
from harness.errors import DataError


def confusion_matrix(truth: NDArray[np.uint8], prediction: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Count the pixels of one image by true class and predicted class.

    `truth` and `prediction` are uint8 class maps (H W). Pixels whose truth is IGNORE are left out; a
    prediction that is no class (IGNORE, or an index of `classes` and above) goes to the last column, "none":
    it is a miss of the true class and in no other class's union.
    Returns int64 (C, C+1), rows truth, columns prediction, in pixels.
    Raises DataError where the maps differ in shape or type, or the truth holds a class that is not listed.
    """
    check_classes(classes)
    _check_maps(truth, prediction)
    kept = truth != IGNORE
    row = truth[kept].astype(np.intp)
    if row.size and row.max() >= classes:
        raise DataError(unlisted_truth(int(row.max()), classes))
    column = np.minimum(prediction[kept], classes)
    counts = np.bincount(row * (classes + 1) + column, minlength=classes * (classes + 1))
    return counts.reshape(classes, classes + 1).astype(np.int64, copy=False)


def check_matrices(matrices: NDArray[np.integer]) -> None:
    """Refuse anything but stored counts of at least one image: integers (N, C, C+1), N and C at least 1.

    Raises DataError with the shape or type found.
    """
    shape = matrices.shape
    if matrices.ndim != 3 or shape[0] < 1 or shape[1] < 1 or shape[2] != shape[1] + 1:
        raise DataError(
            f"confusion matrices of shape {shape}: they are (N, C, C+1) with N and C at least 1; "
            "stack the matrices of confusion_matrix along a new first axis"
        )
    if not np.issubdtype(matrices.dtype, np.integer):
        raise DataError(f"confusion matrices of type {matrices.dtype}: they hold pixel counts; store them as int64")


def check_classes(classes: int) -> None:
    """Refuse a number of classes that a uint8 class map beside IGNORE cannot hold; raises DataError."""
    if not 1 <= classes <= IGNORE:
        raise DataError(f"{classes} classes: a uint8 class map holds 1 to {IGNORE}; give a number in that range")


def unlisted_truth(largest: int, classes: int) -> str:
    """Word the refusal of a truth map that holds a class index above the last."""
    return (
        f"the truth holds class {largest} but there are {classes} classes (0 to {classes - 1}); "
        f"map the masks with the taxonomy of the model, or set those pixels to {IGNORE} (ignore)"
    )


def _check_maps(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
    if truth.shape != prediction.shape:
        raise DataError(
            f"truth of shape {truth.shape} and prediction of shape {prediction.shape} differ; "
            f"resize the prediction to {truth.shape}"
        )
    for name, found in (("truth", truth), ("prediction", prediction)):
        if found.dtype != np.uint8:
            raise DataError(
                f"{name} of type {found.dtype}: class maps are uint8; "
                "map raw ids with the taxonomy, cast an argmax with astype(np.uint8)"
            )
