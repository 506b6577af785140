"""What a model card is made of: the records of a run and of its study, and a look at its frames."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.config import Experiment, ReplicateSettings, Settings, read_settings
from harness.data import Taxonomy, build_taxonomy, dataset_fingerprint, existing_splits, image_size
from harness.data.frames import find_frames
from harness.engine.session import known_training_counts
from harness.report.records import read_matrices
from harness.search.confirmation import Confirmation, Retrained, are_ranks, read_one
from harness.store import EpochRow, Record, RunFolder, StudyFolder, TrialRow, read_provenance


class Split(NamedTuple):
    """Frames, those with a mask, and frames by (width, height)."""

    frames: int
    masks: int
    sizes: dict[tuple[int, int], int]


@dataclass(frozen=True)
class DataFacts:
    """The frames as recorded by the study, and as they are on this disk today, where they are."""

    recorded: str | None
    found: str | None
    splits: dict[str, Split]


@dataclass(frozen=True)
class StudyFacts:
    """The study that a run belongs to."""

    folder: StudyFolder
    settings: Settings
    rows: list[TrialRow]
    ranking: list[TrialRow]
    provenance: dict[str, Any]


@dataclass(frozen=True)
class ConfirmedFacts:
    """The search that a run's Experiment comes from, where fresh seeds trained it again."""

    search: StudyFacts
    confirmation: Confirmation
    trial: Retrained

    @property
    def rank(self) -> int:
        """By fresh seeds, from 1."""
        return self.confirmation.confirmed.index(self.trial) + 1


@dataclass(frozen=True)
class CardFacts:
    """Everything that a card says, but for what is written beside it.

    `validation` and `test` are per-image confusion matrices (N C C+1) of the best epoch; none where they were not kept.
    """

    run: RunFolder
    experiment: Experiment
    taxonomy: Taxonomy
    row: TrialRow | None
    epochs: list[EpochRow]
    validation: NDArray[np.int64] | None
    test: NDArray[np.int64] | None
    study: StudyFacts | None
    data: DataFacts
    #: pixels per class (C,) of the training frames; none: not known on this machine
    trained_on: NDArray[np.int64] | None = None
    confirmed: ConfirmedFacts | None = None

    @property
    def rank(self) -> int | None:
        """From 1, among the trials of the study that have a score."""
        trials = [row.trial for row in self.study.ranking] if self.study else []
        return trials.index(self.run.path.name) + 1 if self.run.path.name in trials else None


def read_facts(run: RunFolder) -> CardFacts:
    """Read a run, and the study around it where there is one.

    Raises:
        StudyError: there is no run, or a record beside it is damaged.
    """
    experiment = run.read_experiment()
    study = _study_of(run)
    record = Record(study.folder) if study else None
    data = look_at_frames(experiment.data.root, study.settings.dataset if study else None)
    fingerprint = data.recorded or data.found
    return CardFacts(
        run=run,
        experiment=experiment,
        taxonomy=build_taxonomy(experiment.taxonomy),
        row=record.ended.get(run.path.name) if record else None,
        epochs=record.epochs.get(run.path.name, []) if record else [],
        validation=_matrices(run.confusion),
        test=_matrices(run.test_confusion),
        study=study,
        data=data,
        trained_on=known_training_counts(experiment, fingerprint) if fingerprint else None,
        confirmed=_confirmed(run, study) if study else None,
    )


def look_at_frames(root: str | None, recorded: str | None) -> DataFacts:
    """Count the frames of a folder and take its fingerprint; nothing of a generated desert, which its config tells."""
    splits = existing_splits(Path(root)) if root else ()
    counted = {split: _count(Path(root), split) for split in splits}
    return DataFacts(recorded, dataset_fingerprint(Path(root)) if splits else None, counted)


def _count(root: Path, split: str) -> Split:
    frames, _ = find_frames(root, split)
    sizes = Counter(image_size(frame.image)[::-1] for frame in frames)
    return Split(len(frames), sum(frame.mask is not None for frame in frames), dict(sizes))


def _study_of(run: RunFolder) -> StudyFacts | None:
    folder = StudyFolder(run.path.absolute().parent.parent)
    return _study(folder) if run.path.absolute().parent.name == "runs" and folder.settings.exists() else None


def _confirmed(run: RunFolder, study: StudyFacts) -> ConfirmedFacts | None:
    """The search around a confirmation; none where the study is no confirmation, or lies elsewhere by now."""
    parent = StudyFolder(study.folder.path.parent)
    if not (isinstance(study.settings, ReplicateSettings) and are_ranks(study.settings.arms)):
        return None
    if not parent.settings.exists():
        return None
    confirmation = read_one(parent, study.folder)
    runs = {row.trial: trial for trial in confirmation.confirmed for row in trial.runs.values()}
    trial = runs.get(run.path.name)
    return None if trial is None else ConfirmedFacts(_study(parent), confirmation, trial)


def _study(folder: StudyFolder) -> StudyFacts:
    record = Record(folder)
    rows = sorted(record.ended.values(), key=lambda row: row.number)
    return StudyFacts(folder, read_settings(folder.settings), rows, record.ranking(), read_provenance(folder))


def _matrices(path: Path) -> NDArray[np.int64] | None:
    return read_matrices(path) if path.exists() else None
