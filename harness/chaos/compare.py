"""What a disturbed study must have in common with the same study left alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from harness.store import Record, StudyFolder

#: fields that tell how long something took
_TIMES = {"seconds", "setup_seconds", "train_seconds", "val_seconds"}


@dataclass(frozen=True)
class Verdict:
    """Counts over the journals of a disturbed study, against those of one that nothing disturbed."""

    finished: int
    lost: int
    doubled: int
    changed: int
    best_equal: bool

    def good(self) -> bool:
        return self.lost == self.doubled == self.changed == 0 and self.best_equal


def compare(disturbed: StudyFolder, alone: StudyFolder) -> Verdict:
    """Compare two studies of the same space and seed, both at their end.

    `lost`: epochs and trials that only the undisturbed study has; `doubled`: rows of an epoch or a trial beyond its
    first; `changed`: epochs and trials that are another in any field but seconds, or that only the disturbed has.
    """
    ours, theirs = _rows(disturbed), _rows(alone)
    seen = Counter(key for key, _ in ours)
    known, found = dict(theirs), dict(ours)
    return Verdict(
        finished=len(disturbed.trials.read()),
        lost=len(known.keys() - found.keys()),
        doubled=sum(count - 1 for count in seen.values()),
        changed=sum(known.get(key) != row for key, row in found.items()),
        best_equal=_best(disturbed) == _best(alone),
    )


def _rows(folder: StudyFolder) -> list[tuple[tuple, dict]]:
    epochs = [((row.trial, row.epoch), row.model_dump(exclude=_TIMES)) for row in folder.epochs.read()]
    return epochs + [((row.trial,), row.model_dump(exclude=_TIMES)) for row in folder.trials.read()]


def _best(folder: StudyFolder) -> tuple | None:
    """The best trial, and the weights that are kept of it."""
    ranking = Record(folder).ranking()
    if not ranking:
        return None
    weights = folder.run(ranking[0].trial).best
    kept = weights.read_bytes() if weights.exists() else None
    return ranking[0].trial, ranking[0].score, ranking[0].best_epoch, kept
