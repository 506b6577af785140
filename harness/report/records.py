"""The records of an ablation on disk, as the tables and plots want them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from harness.ablate import ResolvedArm, baseline_of, resolve_arms, rungs_of
from harness.config import AblationSettings, read_section, shortened
from harness.errors import StudyError
from harness.store import EpochRow, Record, StudyFolder, TrialRow

#: unpacked: a hundred thousand images of thirty classes
_MAX_BYTES = 1 << 30

#: what NumPy and zipfile raise over a file that is no archive of arrays
_DAMAGED = (
    OSError, ValueError, KeyError, TypeError, EOFError, OverflowError, MemoryError, NotImplementedError, BadZipFile,
    zlib.error,
)  # fmt: skip

Matrices = dict[str, dict[int, NDArray[np.int64]]]


@dataclass(frozen=True)
class AblationRecords:
    """What an ablation measured, by arm in the order of its design, then by seed.

    `matrices` and `test_matrices` hold per-image confusion matrices (N C C+1) of the best weights; `test_matrices`
    only where test frames were scored. `names` are the frames' names. An arm without a complete trial has no entry.
    """

    folder: StudyFolder
    settings: AblationSettings
    arms: Mapping[str, ResolvedArm]
    trials: dict[str, dict[int, TrialRow]]
    epochs: dict[str, dict[int, list[EpochRow]]]
    matrices: Matrices
    test_matrices: Matrices

    @property
    def baseline(self) -> str:
        return baseline_of(self.settings.ablation)

    @property
    def rungs(self) -> tuple[str, ...] | None:
        """The arms that are each a step from the one before; none where the design has no such order."""
        return rungs_of(self.settings.ablation)

    @property
    def scores(self) -> dict[str, dict[int, float]]:
        """Best score of every complete trial."""
        return {
            arm: {s: t.score for s, t in by_seed.items() if t.score is not None} for arm, by_seed in self.trials.items()
        }

    def classes(self, arm: str) -> tuple[str, ...]:
        """Class names of an arm, in index order."""
        rows = next(iter(self.epochs[arm].values()))
        return tuple(rows[-1].iou)


def read_ablation(folder: StudyFolder) -> AblationRecords:
    """Read a finished, running or interrupted ablation; only complete trials count.

    Raises:
        StudyError, ConfigError: the folder holds no ablation, or a damaged one.
    """
    settings = read_section(AblationSettings, folder.settings)
    arms = resolve_arms(settings.ablation, settings.scale)
    record = Record(folder)
    complete = sorted((row for row in record.ended.values() if row.outcome == "complete"), key=lambda row: row.seed)
    rows = {arm: [row for row in complete if row.picked.get("arm") == arm] for arm in arms}
    kept = {arm: those for arm, those in rows.items() if those}
    return AblationRecords(
        folder=folder,
        settings=settings,
        arms=arms,
        trials={arm: {row.seed: row for row in those} for arm, those in kept.items()},
        epochs={arm: {row.seed: _epochs(record, row) for row in those} for arm, those in kept.items()},
        matrices=_matrices(
            {arm: {r.seed: folder.run(r.trial).confusion for r in those} for arm, those in kept.items()}
        ),
        test_matrices=_matrices(
            {arm: {r.seed: folder.run(r.trial).test_confusion for r in those} for arm, those in kept.items()}
        ),
    )


def _matrices(paths: dict[str, dict[int, Path]]) -> Matrices:
    there = {arm: {seed: p for seed, p in by_seed.items() if p.exists()} for arm, by_seed in paths.items()}
    return {arm: {seed: read_matrices(p) for seed, p in some.items()} for arm, some in there.items() if some}


def _epochs(record: Record, row: TrialRow) -> list[EpochRow]:
    rows = record.epochs.get(row.trial)
    if not rows:
        raise StudyError(
            f"{record.folder.epochs.path}: no epoch of trial {shortened(row.trial)}, which has ended; restore the file"
        )
    return rows


def read_matrices(path: Path) -> NDArray[np.int64]:
    """The per-image confusion matrices (N C C+1) that a run keeps, N and C at least 1.

    Raises:
        StudyError: the file is missing, damaged, too large, or holds something else.
    """
    try:
        with ZipFile(path) as members:
            # zeros pack to nothing: what they unpack to is looked at before they are unpacked
            if sum(member.file_size for member in members.infolist()) > _MAX_BYTES:
                raise ValueError(f"more than {_MAX_BYTES} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            matrices = arrays["matrices"]
    except _DAMAGED as error:
        raise StudyError(f"{path}: damaged ({error}); restore it, or remove it to leave it out") from error
    shape = matrices.shape
    if matrices.dtype != np.int64 or len(shape) != 3 or 0 in shape or shape[2] != shape[1] + 1:
        what = f"{matrices.dtype} {shape} are no confusion matrices (N C C+1)"
        raise StudyError(f"{path}: damaged ({what}); restore it, or remove it to leave it out")
    return matrices
