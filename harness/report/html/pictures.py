"""The pictures that a study kept of a few frames, small enough to be part of its page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.data import read_image
from harness.report.html.sections import Picture, Pictures, Section, Words
from harness.store import RunFolder, StudyFolder

_FIRST = ("image", "truth")
#: pixels
_WIDEST = 360
#: of all pictures of a page, before base64
_MOST_BYTES = 700_000
_QUALITY = 82


def pictures_section(folder: StudyFolder, runs: Mapping[str, RunFolder]) -> Section | None:
    """Image, truth and predictions of the frames that a study kept; none where there is neither a picture nor a run.

    Args:
        runs: the columns of predictions in their order, `pictured_runs`; what is missing of them is said.

    Raises:
        DataError: a picture cannot be read.
    """
    columns = _columns(folder.tiles, tuple(runs))
    missing = _missing(folder, {name: run for name, run in runs.items() if name not in columns})
    if not columns:
        return Section("pictures", "Predictions", tuple(missing)) if missing else None
    rows, left_out = _rows(folder.tiles, columns)
    blocks = [
        Words(
            "The image, its truth, and what each run predicts on it, at a reduced size. The frames are spread evenly "
            "over the validation frames, not chosen for what is seen on them.",
            "muted",
        )
    ]
    if left_out:
        blocks.append(Words(f"{left_out} frames are left out, to keep this file small; all are in tiles/."))
    return Section("pictures", "Predictions", (*blocks, *missing, Pictures(tuple(columns), tuple(rows))))


def _missing(folder: StudyFolder, runs: Mapping[str, RunFolder]) -> list[Words]:
    """Why runs have no pictures."""
    without = [name for name, run in runs.items() if not run.best.exists()]
    undrawn = [name for name in runs if name not in without]
    found = [Words(f"Not shown, as no weights of their own were kept: {', '.join(without)}.")] if without else []
    if undrawn and folder.undrawn.exists():
        why = folder.undrawn.read_text(encoding="utf-8").strip()
        found.append(Words(f"Pictures could not be drawn when the study ended: {why}", "warning"))
    elif undrawn:
        found.append(Words(f"Not drawn yet: {', '.join(undrawn)}. A study draws when it ends, or is resumed and ends."))
    return found


def _columns(tiles: Path, order: Sequence[str]) -> list[str]:
    there = sorted(path.name for path in tiles.iterdir() if path.is_dir()) if tiles.is_dir() else []
    wanted = dict.fromkeys([*_FIRST, *order, *there])
    return [name for name in wanted if name in there]


def _rows(tiles: Path, columns: Sequence[str]) -> tuple[list[tuple[str, tuple[Picture, ...]]], int]:
    """A row for each frame, as far as the bytes reach, and the frames left out."""
    frames = sorted({path.name for name in columns for path in (tiles / name).glob("*.png")})
    rows, size = [], 0
    for frame in frames:
        own = tuple(_picture(tiles / name / frame, name) for name in columns)
        size += sum(len(one.uri) * 3 // 4 for one in own)
        if size > _MOST_BYTES and rows:
            break
        rows.append((Path(frame).stem, own))
    return rows, len(frames) - len(rows)


def _picture(path: Path, column: str) -> Picture:
    pixels = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2BGR)
    height, width = pixels.shape[:2]
    if width > _WIDEST:
        photo = column == _FIRST[0]
        size = (_WIDEST, round(height * _WIDEST / width))
        # colours of classes must not be mixed
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if photo else cv2.INTER_NEAREST)
    return Picture(_uri(pixels, column), f"{column} of {path.stem}", pixels.shape[1], pixels.shape[0])


def _uri(pixels: NDArray[np.uint8], column: str) -> str:
    if column == _FIRST[0]:
        kind, (_, data) = "jpeg", cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    else:
        kind, (_, data) = "png", cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"
