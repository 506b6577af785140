"""The frames that the benchmarks of this machine's processor read."""

from __future__ import annotations

import os
from pathlib import Path

import cv2

from harness.bench.workplace import Workplace
from harness.data import write_desert
from harness.data.frames import IMAGES, MASKS

#: height and width of a Falcon frame, pixels
NATIVE = (540, 960)


def desert_frames(place: Workplace, train: int, val: int, size: tuple[int, int] = NATIVE) -> Path:
    """A synthetic desert of PNG files in the official layout, written once per workplace."""
    root = place.folder / f"desert-{train}-{val}-{size[0]}x{size[1]}"
    if not root.is_dir():
        write_desert(root, train=train, val=val, test=1, height=size[0], width=size[1], seed=0)
    return root


def one_opencv_thread() -> None:
    """Decode and augment on one core, as a trial of one core should; for both sides alike."""
    cv2.setNumThreads(1)


def repeated_frames(place: Workplace, train: int, val: int, size: tuple[int, int]) -> Path:
    """A data set of many frames, of which few differ: links to the files of a small desert under other names.

    A trial's start reads every mask once, so that it is to be measured with as many frames as a real set has.
    """
    source = desert_frames(place, min(train, 16), min(val, 4), size)
    root = place.folder / f"repeated-{train}-{val}-{size[0]}x{size[1]}"
    for split, count in (("train", train), ("val", val)):
        for folder in (IMAGES, MASKS):
            files = sorted((source / split / folder).iterdir())
            target = root / split / folder
            target.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                os.link(files[index % len(files)], target / f"{index:07}.png")
    return root
