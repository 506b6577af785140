"""Training the best trials of a search again from fresh seeds, in the folder `confirm` of its study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.console import Console

from harness.ablate import Replicates
from harness.config import CONFIRMED_TRIALS, Experiment, fingerprint
from harness.errors import StudyError
from harness.run.forecast import Pace, recorded_pace
from harness.run.launch import check_folder, run_arms
from harness.run.session import last_session
from harness.run.study import Resources
from harness.search.confirmation import (
    best_arms,
    confirmations,
    fresh_seed,
    next_confirmation,
    read_asked,
    read_one,
)
from harness.store import StudyFolder

Arms = Mapping[str, Experiment]


def run_confirmation(
    folder: StudyFolder,
    resources: Resources,
    console: Console,
    *,
    seeds: int | None = None,
    top: int = CONFIRMED_TRIALS,
    compute_hours: float | None = None,
    measured: bool = False,
    resume: bool = False,
    trackers: Sequence[str] = (),
) -> Replicates:
    """Train the best `top` trials of a search again with seeds that none had; or go on with what was begun.

    Args:
        folder: of the search, which no process drives.
        seeds: of each trial; none: 3, or as many as the confirmation that goes on was asked for.
        resume: go on with the last confirmation, whose trials stay those that were the best when it began.

    Raises:
        HarnessError: bad input, before anything is written.
        TrainingError: the first trials all failed.
    """
    check_folder(folder, resume=True)
    study, arms, first, count = _begun(folder, seeds) if resume else _new(folder, seeds or 3, top)
    return run_arms(
        study,
        arms,
        range(first, first + count),
        resources,
        console,
        pace=_pace(folder, arms),
        compute_hours=compute_hours,
        measured=measured,
        resume=resume,
        trackers=trackers,
    )


def searched_with(folder: StudyFolder) -> Resources:
    """What each trial of a search had, when it was started last.

    Raises:
        StudyError: provenance.json is damaged.
    """
    return replace(last_session(folder).resources, upload=None)


def goes_on(folder: StudyFolder, top: int) -> bool:
    """Whether the last confirmation of a search is not finished, or is one of the trials that are the best now."""
    before = confirmations(folder)
    return bool(before) and (not read_one(folder, before[-1]).finished or _is_of(before[-1], best_arms(folder, top)))


def _begun(folder: StudyFolder, seeds: int | None) -> tuple[StudyFolder, Arms, int, int]:
    before = confirmations(folder)
    if not before:
        raise StudyError(f"--resume: study '{folder.name}' has no confirmation yet; leave --resume out to begin it")
    settings = read_asked(before[-1])
    return before[-1], settings.arms, settings.first_seed, seeds or settings.seeds


def _new(folder: StudyFolder, seeds: int, top: int) -> tuple[StudyFolder, Arms, int, int]:
    before, arms = confirmations(folder), best_arms(folder, top)
    if before and not read_one(folder, before[-1]).finished:
        raise StudyError(f"{before[-1].path}: a confirmation was begun and is not finished; go on with it by --resume")
    if before and _is_of(before[-1], arms):
        raise StudyError(
            f"{before[-1].path}: the same trials were trained again already; `harness report {folder.path}` shows it, "
            f"--resume --seeds {2 * read_asked(before[-1]).seeds} trains them with further seeds"
        )
    return next_confirmation(folder), arms, fresh_seed(folder), seeds


def _is_of(study: StudyFolder, arms: Arms) -> bool:
    return set(map(fingerprint, read_asked(study).arms.values())) == set(map(fingerprint, arms.values()))


def _pace(folder: StudyFolder, arms: Arms) -> Pace | None:
    """What an epoch of these trials took in the search."""
    ids = tuple(f"{fingerprint(experiment)}-s" for experiment in arms.values())
    rows = [row for row in folder.epochs.read() if row.trial.startswith(ids)]
    return recorded_pace(rows, "by the {} epochs of these trials in the search")
