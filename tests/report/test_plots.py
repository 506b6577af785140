"""Plots show the numbers of the records, leave out what is not there, and are the same bytes when rebuilt."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.config import AblationSettings, dump_yaml, validate_section
from harness.metrics import dataset_counts, iou, miou
from harness.report.records import AblationRecords, read_ablation
from harness.store import EpochRow, Record, StudyFolder

CLASSES = (
    "Trees", "Lush Bushes", "Dry Grass", "Dry Bushes", "Ground Clutter", "Flowers", "Logs", "Rocks", "Landscape", "Sky",
)  # fmt: skip
SHARES = np.array([0.035, 0.058, 0.183, 0.011, 0.042, 0.028, 0.001, 0.012, 0.24, 0.39])
EASE = np.array([0.8, 0.7, 0.75, 0.55, 0.35, 0.7, 0.3, 0.5, 0.75, 0.99])
ABSENT_IN_TEST = (4, 5, 6)


def confusions(
    quality: float, images: int, generator: np.random.Generator, absent: Sequence[int] = ()
) -> NDArray[np.int64]:
    """Matrices (images, 10, 11) of 10,000 pixels each; the better the quality, the more of them right."""
    shares = np.where(np.isin(np.arange(10), absent), 0, SHARES)
    matrices = np.zeros((images, 10, 11), np.int64)
    hits = np.clip(EASE ** (1 / (0.3 + quality)) + generator.normal(0, 0.004, 10), 0.02, 0.99)
    for image in matrices:
        for i, pixels in enumerate(generator.multinomial(10_000, shares / shares.sum())):
            wrong = (1 - hits[i]) * SHARES / SHARES.sum()
            wrong[i] += 1 - wrong.sum()
            image[i, :10] = generator.multinomial(pixels, wrong / wrong.sum())
    return matrices


class Study:
    """Writes a study of made-up trials into a folder."""

    def __init__(self, path: Path, ablation: Mapping[str, Any], seeds: int) -> None:
        path.mkdir(parents=True)
        self.folder, self.seeds = StudyFolder(path), seeds
        values = {"ablation": ablation, "scale": "full", "seeds": seeds, "dataset": "f00d"}
        settings = validate_section(AblationSettings, values, "settings")
        self.folder.settings.write_text(dump_yaml(settings.model_dump(mode="json")))
        self.record = Record(self.folder)

    def arm(
        self, name: str, quality: float, *, epochs: int = 4, images: int = 8, test: bool = True, encoder: bool = False
    ) -> None:
        """A complete trial of each seed; of 0 epochs it is one row that only scores."""
        for seed in range(self.seeds):
            # the truth is that of the seed of the frames, whatever the arm
            generator = np.random.default_rng([seed, *name.encode()])
            own = quality + generator.normal(0, 0.01)
            matrices = confusions(own, images, generator)
            trial = f"{name}-s{seed}"
            for row in epoch_rows(trial, matrices, epochs, encoder, generator):
                self.record.add_epoch(row)
            self.record.end(trial, len(self.record.ended), seed, "complete", picked={"arm": name})
            folder = self.folder.run(trial)
            folder.path.mkdir(parents=True)
            save(folder.confusion, matrices)
            if test:
                save(folder.test_confusion, confusions(own - 0.35, images, generator, ABSENT_IN_TEST))

    def read(self) -> AblationRecords:
        return read_ablation(self.folder)


def save(path: Path, matrices: NDArray[np.int64]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, names=np.array([f"{i}.png" for i in range(len(matrices))]), matrices=matrices)
    path.write_bytes(buffer.getvalue())


def epoch_rows(
    trial: str, matrices: NDArray[np.int64], epochs: int, encoder: bool, generator: np.random.Generator
) -> list[EpochRow]:
    """Rows that rise to the score of the matrices at the last epoch but one, or a single row of epoch 0."""
    counts = dataset_counts(matrices)
    final, ious = float(miou(counts)), iou(counts)
    best = max(1, epochs - 1)
    rows = []
    for epoch in range(1, epochs + 1) if epochs else [0]:
        grown = 1.0 if epoch in (0, best) else min(0.99, 1 - 0.5 * np.exp(-3 * epoch / best) - abs(generator.normal(0, 0.01)))
        rate = 5e-4 * (1 + np.cos(np.pi * (epoch - 1) / max(1, epochs))) / 2
        lr = {"head": rate} | ({"encoder": 0.0 if epoch < 3 else rate / 10} if encoder else {})
        rows.append(
            EpochRow(
                trial=trial, epoch=epoch, score=final * grown, val_loss=1.3 - final * grown + generator.normal(0, 0.01),
                train_loss=1.2 - 1.1 * final * grown - 0.003 * epoch if epoch else None, terms={}, train_score=None,
                iou={n: float(v) * grown for n, v in zip(CLASSES, ious, strict=True)}, lr=lr if epoch else {},
                train_seconds=180.0 if epoch else 0.0, val_seconds=20.0, images=8, peak_memory_mb=None,
                done=epoch in (0, epochs),
            )
        )  # fmt: skip
    return rows
