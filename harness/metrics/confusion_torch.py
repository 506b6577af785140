"""The same counts as `harness.metrics.confusion`, for a batch of tensors on any device.

A file of its own, outside the door of `harness.metrics`: tables are rebuilt from stored counts without torch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.config import IGNORE
from harness.errors import DataError
from harness.metrics.confusion import check_classes, unlisted_truth


def confusion_matrices(truth: Tensor, prediction: Tensor, classes: int) -> Tensor:
    """Count the pixels of each image of a batch by true class and predicted class.

    `truth` and `prediction` are integer class maps (N H W) on one device. Truth IGNORE is left out; a prediction
    below 0, or of `classes` and above, goes to the last column, "none".
    Returns int64 (N, C, C+1) on the same device, rows truth, columns prediction, in pixels.
    Raises DataError where the maps differ in shape, are not integer, or the truth holds a class that is not listed.
    """
    check_classes(classes)
    _check_maps(truth, prediction)
    images, cells = truth.shape[0], classes * (classes + 1)
    # One bin more per image for ignored pixels: no boolean indexing, whose size the host would have to wait for.
    bins = cells + 1
    row, column = truth.flatten(1).long(), prediction.flatten(1).long()
    column = torch.where((column < 0) | (column > classes), classes, column)
    cell = torch.where(row == IGNORE, cells, row * (classes + 1) + column)
    # Unlisted truth would land in another image's bins; one common bin at the end collects it instead.
    unlisted = ((row < 0) | (row >= classes)) & (row != IGNORE)
    offset = torch.arange(images, device=truth.device).unsqueeze(1) * bins
    cell = torch.where(unlisted, images * bins, cell + offset)
    counts = torch.bincount(cell.flatten(), minlength=images * bins + 1)
    if counts[-1]:
        raise DataError(unlisted_truth(int(row[unlisted].max()), classes))
    return counts[:-1].reshape(images, bins)[:, :cells].reshape(images, classes, classes + 1)


def _check_maps(truth: Tensor, prediction: Tensor) -> None:
    if truth.shape != prediction.shape or truth.ndim != 3:
        raise DataError(
            f"truth of shape {tuple(truth.shape)} and prediction of shape {tuple(prediction.shape)}: both are "
            "class maps (N H W) of one size; take the argmax over the logits' channels and resize to the truth"
        )
    for name, found in (("truth", truth), ("prediction", prediction)):
        if found.is_floating_point() or found.dtype == torch.bool:
            raise DataError(
                f"{name} of type {found.dtype}: class maps are integer; take the argmax of the logits"
            )
