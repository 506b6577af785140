"""Ablation studies on disk, made up: rows and confusion matrices with known numbers, nothing trained."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.config import AblationSettings, dump_yaml, validate_section
from harness.report.records import AblationRecords, read_ablation
from harness.store import EpochRow, Record, StudyFolder, write_bytes, write_json, write_text

#: pixels of every class in the truth of one image
PIXELS = 1000


def image_matrices(
    hits: Mapping[str, int],
    names: Sequence[str],
    wrong: Mapping[str, int] = {},
    images: int = 4,  # noqa: B006
) -> NDArray[np.int64]:
    """Matrices (images, C, C+1): each class of `hits` has 1000 pixels an image in the truth, of which on average
    that many are found; the misses are predicted as no class, but for `wrong`: pixels of the first class that
    are predicted as another one. So IoU is hits / 1000 for each class that `wrong` does not name.
    """
    matrices = np.zeros((images, len(names), len(names) + 1), np.int64)
    for name, found in hits.items():
        row = names.index(name)
        # the images differ, their sum does not change
        matrices[:, row, row] = found + np.array([20, -20] * (images // 2) + [0] * (images % 2))
        matrices[:, row, -1] = PIXELS - matrices[:, row, row]
    first = names.index(next(iter(hits)))
    for name, pixels in wrong.items():
        matrices[:, first, names.index(name)] += pixels
        matrices[:, first, -1] -= pixels
    return matrices


class MadeUpStudy:
    """Writes a study folder of an ablation, trial by trial."""

    def __init__(self, path: Path, ablation: dict[str, Any], seeds: int = 3) -> None:
        path.mkdir(parents=True)
        self.folder = StudyFolder(path)
        values = {"ablation": ablation, "scale": "full", "seeds": seeds, "dataset": "0123456789ab"}
        settings = validate_section(AblationSettings, values, "settings")
        write_text(self.folder.settings, dump_yaml(settings.model_dump(mode="json")))
        write_json(self.folder.provenance, {"commit": "abcdef123456", "created": "2026-01-01T00:00:00+00:00"})
        self.record = Record(self.folder)
        self.number = 0

    def trial(
        self,
        arm: str,
        seed: int,
        names: Sequence[str],
        matrices: NDArray[np.int64],
        test: NDArray[np.int64] | None = None,
        epochs: Sequence[int] = (1, 2),
        **fields: Any,
    ) -> None:
        """A complete trial, its last epoch the best, whose score and IoUs are those of its matrices."""
        trial = f"{arm}-s{seed}"
        ious = own_ious(matrices)
        iou = {n: None if np.isnan(v) else float(v) for n, v in zip(names, ious, strict=True)}
        for epoch in epochs:
            last = epoch == epochs[-1]
            row = epoch_row(trial, epoch, float(np.nanmean(ious)) if last else 0.1, iou, done=last, **fields)
            self.record.add_epoch(row)
        self._end(trial, seed, arm, "complete", None)
        self.folder.run(trial).path.mkdir(parents=True)
        write_bytes(self.folder.run(trial).confusion, npz(matrices))
        if test is not None:
            write_bytes(self.folder.run(trial).test_confusion, npz(test))

    def failed(self, arm: str, seed: int, error: str) -> None:
        self._end(f"{arm}-s{seed}", seed, arm, "failed", error)

    def read(self) -> AblationRecords:
        return read_ablation(self.folder)

    def _end(self, trial: str, seed: int, arm: str, outcome: str, error: str | None) -> None:
        self.record.end(trial, self.number, seed, outcome, picked={"arm": arm}, error=error)
        self.number += 1


def own_ious(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU by class over all images, nan where the truth lacks the class; written out, without harness.metrics."""
    total = matrices.sum(axis=0)
    ious = []
    for i in range(len(total)):
        truth, predicted, hit = total[i].sum(), total[:, i].sum(), total[i, i]
        ious.append(hit / (truth + predicted - hit) if truth else np.nan)
    return np.array(ious)


def epoch_row(trial: str, epoch: int, score: float, iou: dict[str, float | None], **fields: Any) -> EpochRow:
    """An epoch's row; what is not named has a fixed value."""
    values: dict[str, Any] = {
        "train_loss": 1.0, "val_loss": 1.0, "terms": {}, "train_score": None, "lr": {}, "train_seconds": 88.0,
        "val_seconds": 2.0, "images": 8, "parameters": 1_234_567, "peak_memory_mb": None,
    }  # fmt: skip
    return EpochRow(trial=trial, epoch=epoch, score=score, iou=iou, **values | fields)


def npz(matrices: NDArray[np.int64]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, names=np.array([f"{i}.png" for i in range(len(matrices))]), matrices=matrices)
    return buffer.getvalue()


@pytest.fixture
def made_up(tmp_path: Path) -> Callable[..., MadeUpStudy]:
    """Starts a study folder: `made_up(ablation, seeds=3)`."""
    return lambda ablation, seeds=3, name="study": MadeUpStudy(tmp_path / name, ablation, seeds)


@pytest.fixture
def matrices() -> Callable[..., NDArray[np.int64]]:
    return image_matrices
