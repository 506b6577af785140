"""Frames larger than the model's input, seen through overlapping windows of the input size."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from harness.engine.evaluate import evaluating
from harness.engine.inference import View, class_logits
from harness.engine.trained import Trained
from harness.errors import DataError


def window_logits(trained: Trained, images: Tensor, looks: tuple[View, ...], overlap: float) -> Tensor:
    """Logits (1 C H W) float32 of one image, uint8 (1 3 H W), each pixel the mean of the windows that hold it.

    A window counts most in its middle: towards its border the model sees less of what lies around.

    Args:
        overlap: the least share of a window's side that it has in common with the next, 0 to below 1.

    Raises:
        DataError: the image is smaller than a window.
    """
    height, width = trained.experiment.data.input_size
    size = (images.shape[-2], images.shape[-1])
    check_size(size, (height, width))
    corners = [(y, x) for y in starts(size[0], height, overlap) for x in starts(size[1], width, overlap)]
    weight = torch.outer(_ramp(height), _ramp(width)).to(images.device)
    total = torch.zeros(1, len(trained.taxonomy.names), *size, device=images.device)
    weights = torch.zeros(size, device=images.device)
    batch = trained.experiment.evaluation.batch_size
    for some in (corners[i : i + batch] for i in range(0, len(corners), batch)):
        windows = torch.cat([images[..., y : y + height, x : x + width] for y, x in some])
        with evaluating(trained.model, trained.experiment.evaluation.batchnorm):
            logits = class_logits(trained.model, windows, (height, width), trained.experiment, looks)
        for (y, x), one in zip(some, logits, strict=True):
            total[0, :, y : y + height, x : x + width] += one * weight
            weights[y : y + height, x : x + width] += weight
    return total / weights


def starts(side: int, window: int, overlap: float) -> list[int]:
    """Where windows begin along a side, pixels: evenly spread, the first at 0 and the last at the end."""
    # a window of 100 px at an overlap of 0.9 moves by 10 px, not by 9.999999
    step = max(1, math.floor(window * (1 - overlap) + 1e-9))
    count = math.ceil((side - window) / step) + 1
    return np.linspace(0, side - window, count).round().astype(int).tolist()


def _ramp(length: int) -> Tensor:
    """A weight above 0 for each pixel of a side, highest in the middle."""
    position = torch.arange(length) + 0.5
    return torch.minimum(position, length - position)


def check_size(size: tuple[int, int], window: tuple[int, int], what: str = "an image") -> None:
    """Refuse an image that is smaller than a window; sizes are (height, width) in pixels.

    Raises:
        DataError: it is; `what` names the image.
    """
    if size[0] < window[0] or size[1] < window[1]:
        raise DataError(
            f"{what} of {size[1]}x{size[0]} pixels is smaller than a window of {window[1]}x{window[0]} "
            "(data.input_size); leave out --windows: the whole image is then resized to the input size"
        )
