"""Predictions on a video: the classes laid over every frame, and the raw ids of every frame if asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from harness.engine.inference import View
from harness.engine.predict import overlay, predict_classes, write_raw
from harness.engine.trained import Trained
from harness.errors import DataError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm", ".mpg", ".mpeg")
#: every build of OpenCV can write it
_CODEC = "mp4v"


class Video(NamedTuple):
    """A video file: frames per second, how many frames its header promises, if it says so, and (height, width)."""

    path: Path
    rate: float
    promised: int | None
    size: tuple[int, int]


def open_video(path: Path) -> Video:
    """Look at a video and read its first frame.

    Raises:
        DataError: no such file, no video that OpenCV can decode, no frame in it, or no frame rate.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such video; check the path")
    with _reading(path) as capture:
        if not capture.isOpened():
            raise DataError(
                f"{path}: OpenCV cannot open it ({path.stat().st_size} bytes): empty, cut short, no video, or of a "
                f"codec that this build does not know; copy it again, or convert it: ffmpeg -i {path.name} -c:v mpeg4 "
                f"{path.stem}-converted.mp4"
            )
        rate, promised = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        there, first = capture.read()
        if not there:
            raise DataError(f"{path}: not one frame of it can be decoded; copy the file again, or convert it")
    if not (isfinite(rate) and rate > 0):
        raise DataError(
            f"{path}: has no frame rate; give it one: ffmpeg -r 25 -i {path.name} -c:v mpeg4 {path.stem}-25.mp4"
        )
    return Video(path, rate, promised if promised > 0 else None, first.shape[:2])


def open_videos(paths: Sequence[Path]) -> list[Video]:
    """Look at every video before the first is predicted, which can take hours.

    Raises:
        DataError: as `open_video`, or two videos of one name.
    """
    stems: dict[str, Path] = {}
    for path in paths:
        if path.stem in stems:
            raise DataError(
                f"{stems[path.stem]} and {path} have one name, and predictions are named after their videos; "
                "predict them into two folders"
            )
        stems[path.stem] = path
    return [open_video(path) for path in paths]


def write_video(
    trained: Trained,
    video: Video,
    out: Path,
    looks: tuple[View, ...],
    *,
    overlap: float | None = None,
    masks: bool = False,
) -> Iterator[int]:
    """Predict each frame; write `overlay/NAME.mp4` under `out` and, with `masks`, `raw/NAME/000000.png`, ...

    Yields:
        The number of frames done. The video is there once all are.

    Raises:
        DataError: OpenCV cannot write the video, or wrote fewer frames than it was given.
    """
    file = out / "overlay" / f"{video.path.stem}.mp4"
    folder = out / "raw" / video.path.stem
    for needed in (file.parent, *([folder] if masks else [])):
        needed.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.stem}.unfinished.mp4")
    writer: cv2.VideoWriter | None = None
    count = 0
    try:
        for count, (image, classes) in enumerate(_predicted(trained, video, looks, overlap), 1):
            if writer is None:
                writer = _writer(unfinished, video.rate, image)
            picture = overlay(image, trained.taxonomy.to_colour(classes))
            writer.write(cv2.cvtColor(_even(picture), cv2.COLOR_RGB2BGR))
            if masks:
                write_raw(folder / f"{count - 1:06d}.png", trained.taxonomy, classes)
            yield count
        if writer is not None:
            writer.release()
        _check_written(unfinished, file, count)
        unfinished.replace(file)
    finally:
        if writer is not None:
            writer.release()
        unfinished.unlink(missing_ok=True)


def _predicted(
    trained: Trained, video: Video, looks: tuple[View, ...], overlap: float | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each frame, RGB uint8 (H W 3), and its classes (H W)."""
    with _reading(video.path) as capture:
        while True:
            there, image = capture.read()
            if not there:
                return
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            yield image, predict_classes(trained, image, looks, overlap)


@contextmanager
def _reading(path: Path) -> Iterator[cv2.VideoCapture]:
    capture = cv2.VideoCapture(str(path))
    try:
        yield capture
    finally:
        capture.release()


def _writer(path: Path, rate: float, image: np.ndarray) -> cv2.VideoWriter:
    height, width = _even(image).shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*_CODEC), rate, (width, height))
    if not writer.isOpened():
        raise DataError(
            f"{path.parent}: OpenCV {cv2.__version__} cannot write a video ({_CODEC}, {width}x{height}) there; check "
            "that the folder can be written, and `harness doctor` for two builds of OpenCV"
        )
    return writer


def _even(picture: np.ndarray) -> np.ndarray:
    """A picture of even height and width, its last row or column repeated: the codec would cut it off."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _check_written(path: Path, meant: Path, frames: int) -> None:
    # the writer says nothing of a disk that is full
    with _reading(path) as capture:
        written = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    if written != frames:
        raise DataError(f"{meant}: {written} of {frames} frames were written; is the disk full? Free some and repeat")
