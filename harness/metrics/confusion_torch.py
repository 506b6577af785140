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

    `truth` and `prediction` are integer class maps (N H W) on one device. Truth IGNORE is left out; a
    prediction below 0, or of `classes` and above, goes to the last column, "none".
    Returns int64 (N, C, C+1) on the same device, rows truth, columns prediction, in pixels.
    Raises DataError where the maps differ in shape, are not integer, or the truth holds an unlisted class.
    """
    check_classes(classes)
    _check_maps(truth, prediction)
    images = truth.shape[0]
    row, column = truth.flatten(1).int(), prediction.flatten(1).int()
    unlisted = ((row < 0) | (row >= classes)) & (row != IGNORE)
    # Two rows more, for ignored and unlisted truth: the size of a boolean index would keep the host waiting.
    rows, columns = classes + 2, classes + 1
    row = torch.where(unlisted, classes + 1, torch.where(row == IGNORE, classes, row))
    column = torch.where((column < 0) | (column >= classes), classes, column)
    image = torch.arange(images, dtype=torch.int32, device=truth.device).unsqueeze(1)
    cell = (image * rows + row) * columns + column
    counts = torch.bincount(cell.flatten(), minlength=images * rows * columns).reshape(images, rows, columns)
    # Reading this waits for the device; on CUDA bincount has waited already, to size its result.
    if counts[:, classes + 1].any():
        raise DataError(unlisted_truth(int(truth.flatten(1)[unlisted].max()), classes))
    return counts[:, :classes]


def _check_maps(truth: Tensor, prediction: Tensor) -> None:
    if truth.shape != prediction.shape or truth.ndim != 3:
        raise DataError(
            f"truth of shape {tuple(truth.shape)} and prediction of shape {tuple(prediction.shape)}: "
            "both are class maps (N H W) of one size; resize the logits to the truth, then take the argmax"
        )
    for name, found in (("truth", truth), ("prediction", prediction)):
        if found.is_floating_point() or found.dtype == torch.bool:
            raise DataError(f"{name} of type {found.dtype}: class maps are integer; take the argmax of the logits")
