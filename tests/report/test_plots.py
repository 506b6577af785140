"""Plots show the numbers of the records, leave out what is not there, and are the same bytes when rebuilt."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.config import AblationSettings, dump_yaml, validate_section
from harness.report.records import AblationRecords, read_ablation
from harness.store import EpochRow, Record, StudyFolder

CLASSES = (
    "Trees", "Lush Bushes", "Dry Grass", "Dry Bushes", "Ground Clutter", "Flowers", "Logs", "Rocks", "Landscape", "Sky",
)  # fmt: skip
SHARES = np.array([0.0347, 0.058, 0.183, 0.011, 0.042, 0.028, 0.0008, 0.012, 0.24, 0.39])
EASE = np.array([0.85, 0.75, 0.82, 0.6, 0.4, 0.7, 0.35, 0.55, 0.8, 0.99])
ABSENT_IN_TEST = [4, 5, 6]


def confusions(quality: float, images: int, generator: np.random.Generator, absent: Sequence[int] = ()) -> NDArray[np.int64]:
    """Matrices (images, 10, 11) of frames of 10,000 pixels; `quality` in (0, 1) is the hit rate of an easy class."""
    shares = SHARES.copy()
    shares[list(absent)] = 0
    matrices = np.zeros((images, len(CLASSES), len(CLASSES) + 1), np.int64)
    for matrix in matrices:
        truth = generator.multinomial(10_000, generator.dirichlet(np.maximum(60 * shares / shares.sum(), 1e-9)))
        truth[list(absent)] = 0
        for i, pixels in enumerate(truth):
            hit = float(np.clip(quality ** (1.3 - EASE[i]) * EASE[i] + generator.normal(0, 0.01), 0, 1))
            wrong = (1 - hit) * (SHARES / SHARES.sum())
            matrix[i, :-1] = generator.multinomial(pixels, np.append(wrong, max(0.0, 1 - wrong.sum()))[:-1].tolist() + [hit + 0.0] if False else _row(i, hit))
    return matrices


def _row(i: int, hit: float) -> list[float]:
    row = (1 - hit) * SHARES / SHARES.sum()
    row[i] += hit
    return (row / row.sum()).tolist()
