"""What a data set holds: every broken rule of its files, and its pixels per class, colours and sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.config import IGNORE
from harness.data.cache import FrameArrays
from harness.data.frames import Frame, existing_splits, find_frames, list_frames, read_frame, read_in_order
from harness.data.taxonomy import Taxonomy
from harness.errors import DataError

Size = tuple[int, int]


@dataclass(frozen=True)
class DatasetCheck:
    """Frames and masks per split, frames per (height, width), and one line for each broken rule."""

    frames: Mapping[str, int]
    masks: Mapping[str, int]
    sizes: Mapping[Size, int]
    problems: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Census:
    """Counts over one split at native size.

    `pixels` and `frames_with_class` are int64 (C,); `ignored` counts pixels; `colour_mean` and
    `colour_deviation` are float64 (3,), RGB, 0-255, over all pixels of the split; `sizes` counts frames per
    (height, width). Frames without a mask count in `frames`, the colours and the sizes only.
    """

    names: tuple[str, ...]
    frames: int
    labelled: int
    pixels: NDArray[np.int64]
    ignored: int
    frames_with_class: NDArray[np.int64]
    colour_mean: NDArray[np.float64]
    colour_deviation: NDArray[np.float64]
    sizes: Mapping[Size, int]


def check_dataset(root: Path, taxonomy: Taxonomy) -> DatasetCheck:
    """Read every frame of every split and collect all problems, instead of stopping at the first."""
    frames: dict[str, int] = {}
    masks: dict[str, int] = {}
    sizes: Counter[Size] = Counter()
    problems: list[str] = []
    # train and val are always looked for: their absence is a problem, that of test is not
    for split in dict.fromkeys(("train", "val", *existing_splits(root))):
        found, broken = find_frames(root, split)
        problems += broken
        frames[split], masks[split] = len(found), sum(f.mask is not None for f in found)
        for size, problem in read_in_order(lambda frame: _check_frame(frame, taxonomy), found):
            sizes.update([size] if size else [])
            problems += [problem] if problem else []
    return DatasetCheck(frames, masks, dict(sizes), tuple(problems))


def census(root: Path, split: str, taxonomy: Taxonomy) -> Census:
    """Count the classes, colours and sizes of a split.

    Raises DataError as `list_frames` and `read_frame` do, and for raw ids that the taxonomy does not list.
    """
    frames = list_frames(root, split)
    classes = len(taxonomy.names)
    pixels, seen, ignored = np.zeros(classes, np.int64), np.zeros(classes, np.int64), 0
    total, squares = np.zeros(3, np.int64), np.zeros(3, np.int64)
    sizes: Counter[Size] = Counter()
    for size, counts, image_sum, image_squares in read_in_order(lambda f: _count_frame(f, taxonomy), frames):
        pixels += counts[:classes]
        seen += counts[:classes] > 0
        ignored += int(counts[IGNORE])
        total += image_sum
        squares += image_squares
        sizes[size] += 1
    area = sum(height * width * count for (height, width), count in sizes.items())
    mean = total / area
    return Census(
        names=taxonomy.names,
        frames=len(frames),
        labelled=sum(f.mask is not None for f in frames),
        pixels=pixels,
        ignored=ignored,
        frames_with_class=seen,
        colour_mean=mean,
        colour_deviation=np.sqrt(squares / area - mean**2),
        sizes=dict(sizes),
    )


def class_counts(frames: FrameArrays, taxonomy: Taxonomy) -> NDArray[np.int64]:
    """Count the pixels of each class, int64 (C,), ignored ones left out.

    Class weights come from these counts. They are taken from the frames as they are: counted over an
    augmented loader, as two of the teams did, the border fill of rotated frames enters the weight of a class
    (trap T4).
    """
    if frames.masks is None:
        raise DataError("these frames were opened without masks, so no class can be counted; open them with masks=True")
    counts = np.zeros(256, np.int64)
    for name, mask in zip(frames.names, frames.masks, strict=True):
        counts += np.bincount(taxonomy.to_classes(mask, name).ravel(), minlength=256)
    return counts[: len(taxonomy.names)]


def _check_frame(frame: Frame, taxonomy: Taxonomy) -> tuple[Size | None, str | None]:
    """Size, or None where the frame cannot be read, and what is wrong with it."""
    size = None
    try:
        image, mask = read_frame(frame, taxonomy.eight_bit)
        size = image.shape[:2]
        if mask is not None:
            taxonomy.to_classes(mask, str(frame.mask))
    except DataError as problem:
        return size, str(problem)
    return size, None


def _count_frame(
    frame: Frame, taxonomy: Taxonomy
) -> tuple[Size, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Size, pixels per class (256,), and per channel the sum and the sum of squares."""
    image, mask = read_frame(frame, taxonomy.eight_bit)
    counts = np.zeros(256, np.int64)
    if mask is not None:
        counts += np.bincount(taxonomy.to_classes(mask, str(frame.mask)).ravel(), minlength=256)
    levels = np.arange(256)
    histogram = np.stack([np.bincount(image[..., c].ravel(), minlength=256) for c in range(3)])
    return image.shape[:2], counts, histogram @ levels, histogram @ levels**2
