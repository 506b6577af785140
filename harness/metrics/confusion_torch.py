"""The same counts as `harness.metrics.confusion`, for a batch of tensors on any device.

A file of its own, outside the door of `harness.metrics`: tables are rebuilt from stored counts without torch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.config import IGNORE
from harness.errors import DataError
from harness.metrics.confusion import check_classes, unlisted_truth


def class_of_highest(logits: Tensor) -> Tensor:
    """The class of the highest of the logits (N C H W) at each pixel, int64 (N H W); of equal ones the lowest.

    The same as `argmax(1)`, which takes nine times as long on a CPU. A nan counts as the highest.
    """
    return logits.max(dim=1).indices


def confusion_matrices(truth: Tensor, prediction: Tensor, classes: int) -> Tensor:
    """Count the pixels of each image of a batch by true class and predicted class.

    `truth` and `prediction` are integer class maps (N H W) on one device. Truth IGNORE is left out; a
    prediction below 0, or of `classes` and above, goes to the last column, "none".
    Returns int64 (N, C, C+1) on the same device, rows truth, columns prediction, in pixels.
    Raises DataError where the maps differ in shape, are not integer, or the truth holds an unlisted class.
    """
    check_classes(classes)
    _check_maps(truth, prediction)
    # Image by image the maps in between stay in a CPU's cache; another device waits once for a whole batch.
    size = 1 if truth.device.type == "cpu" else max(1, len(truth))
    pairs = zip(truth.split(size), prediction.split(size), strict=True)
    counts = torch.cat([_counts(*pair, classes) for pair in pairs])
    ignored = (truth == IGNORE).flatten(1).sum(1)
    # Reading this waits for the device; on CUDA bincount has waited already, to size its result.
    if counts[:, 0].any() or (counts[:, -1].sum(1) != ignored).any():
        unlisted = ((truth < 0) | (truth >= classes)) & (truth != IGNORE)
        raise DataError(unlisted_truth(int(truth[unlisted].max()), classes))
    below, *listed = counts[:, 1:-1].split([1, classes, 1], dim=2)
    listed[-1] = listed[-1] + below
    return torch.cat(listed, dim=2)


def _counts(truth: Tensor, prediction: Tensor, classes: int) -> Tensor:
    """Count (N, C+2, C+2), first and last row and column for what lies below 0, and for `classes` and above."""
    images, side = len(truth), classes + 2
    row, column = (maps.flatten(1).int().clamp(-1, classes) for maps in (truth, prediction))
    image = torch.arange(images, dtype=torch.int32, device=truth.device).unsqueeze(1)
    cell = row.mul_(side).add_(column).add_(image * side**2 + side + 1)
    return torch.bincount(cell.flatten(), minlength=images * side**2).view(images, side, side)


def _check_maps(truth: Tensor, prediction: Tensor) -> None:
    if truth.shape != prediction.shape or truth.ndim != 3:
        raise DataError(
            f"truth of shape {tuple(truth.shape)} and prediction of shape {tuple(prediction.shape)}: "
            "both are class maps (N H W) of one size; resize the logits to the truth, then take class_of_highest"
        )
    for name, found in (("truth", truth), ("prediction", prediction)):
        if found.is_floating_point() or found.dtype == torch.bool:
            raise DataError(
                f"{name} of type {found.dtype}: class maps are integer; take class_of_highest of the logits"
            )
