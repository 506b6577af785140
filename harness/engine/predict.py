"""Predictions on image files, at their own size: raw ids, colours, overlays, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from harness.data import Frame, Taxonomy, read_image, read_mask
from harness.engine.evaluate import evaluating
from harness.engine.inference import View, class_logits, predicted_classes
from harness.engine.trained import Trained
from harness.engine.windows import window_logits
from harness.store import write_bytes

#: how much of the class colour an overlay shows
OVERLAY_OPACITY = 0.5
_GAP = 4


def predict_classes(
    trained: Trained, image: np.ndarray, looks: tuple[View, ...], overlap: float | None = None
) -> np.ndarray:
    """Class indices uint8 (H W) of an RGB uint8 image (H W 3) of any size.

    Args:
        looks: the views that are averaged.
        overlap: share of a side that windows of the input size have in common; none: the image is resized whole.

    Raises:
        DataError: windows are asked for, and the image is smaller than one.
    """
    device = next(trained.model.parameters()).device
    if overlap is not None:
        logits = window_logits(trained, _batch_of(image, device), looks, overlap)
    else:
        height, width = trained.experiment.data.input_size
        seen = _batch_of(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), device)
        with evaluating(trained.model, trained.experiment.evaluation.batchnorm):
            logits = class_logits(trained.model, seen, image.shape[:2], trained.experiment, looks)
    return predicted_classes(logits, trained.experiment, trained.taxonomy)[0].to(torch.uint8).cpu().numpy()


def write_predictions(
    trained: Trained, frames: tuple[Frame, ...], out: Path, looks: tuple[View, ...], overlap: float | None = None
) -> Iterator[Path]:
    """Predict each frame and write `raw`, `colour`, `overlay` and `side_by_side` under `out`.

    Yields:
        The raw-id mask (16-bit PNG) of each frame once all its files are written.
    """
    for name in ("raw", "colour", "overlay", "side_by_side"):
        (out / name).mkdir(parents=True, exist_ok=True)
    for frame in frames:
        image = read_image(frame.image)
        classes = predict_classes(trained, image, looks, overlap)
        colour = trained.taxonomy.to_colour(classes)
        truth = true_classes(frame, trained.taxonomy)
        truth_colour = None if truth is None else trained.taxonomy.to_colour(truth)
        name = f"{frame.image.stem}.png"
        write_rgb(out / "colour" / name, colour)
        write_rgb(out / "overlay" / name, overlay(image, colour))
        pictures = (image, truth_colour, colour)
        write_rgb(out / "side_by_side" / name, side_by_side(*(p for p in pictures if p is not None)))
        write_raw(out / "raw" / name, trained.taxonomy, classes)
        yield out / "raw" / name


def overlay(image: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """An image with the class colours laid over it, RGB uint8."""
    return cv2.addWeighted(image, 1 - OVERLAY_OPACITY, colour, OVERLAY_OPACITY, 0)


def side_by_side(*pictures: np.ndarray) -> np.ndarray:
    """Pictures of one size in a row, a white gap between them, RGB uint8."""
    gap = np.full((pictures[0].shape[0], _GAP, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(row[:-1], axis=1)


def true_classes(frame: Frame, taxonomy: Taxonomy) -> np.ndarray | None:
    """Class indices uint8 (H W) of a frame's mask, IGNORE where it is ignored; None without a mask."""
    if frame.mask is None:
        return None
    raw = read_mask(frame.mask, allow_8bit=taxonomy.eight_bit)
    return taxonomy.to_classes(raw, str(frame.mask))


def write_rgb(path: Path, picture: np.ndarray) -> None:
    """Write an RGB uint8 picture (H W 3) as PNG."""
    _write_png(path, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def write_raw(path: Path, taxonomy: Taxonomy, classes: np.ndarray) -> None:
    """Write class indices (H W) as a 16-bit PNG of raw ids."""
    _write_png(path, taxonomy.to_raw(classes))


def _batch_of(image: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].to(device)


def _write_png(path: Path, array: np.ndarray) -> None:
    write_bytes(path, cv2.imencode(".png", array)[1].tobytes())
