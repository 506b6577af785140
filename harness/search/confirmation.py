"""What the best trials of a search score with fresh seeds: the honest ranking, and how far the first one was too high.

The highest of many noisy scores is too high on average (winner's curse), also where all trials are equally good: of n
scores by about E[max of n] standard deviations of the seed. Fresh seeds had no say in that choice, so the mean of their
scores is an estimate of what a trial reaches. The confirmed first is again the best of a few: that it is ranked by the
lower end of its interval keeps what is left of the same fault small.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count, islice

import numpy as np

from harness.config import (
    CONFIRMED_TRIALS,
    Experiment,
    ReplicateSettings,
    SearchSettings,
    Space,
    apply_overrides,
    fingerprint,
    read_section,
    to_overrides,
)
from harness.errors import StudyError
from harness.stats import Estimate, mean_interval
from harness.store import EpochRow, Record, StudyFolder, TrialRow, best_epoch, experiment_text, write_text
from harness.store.front import ranking_of

#: of a confirmation's intervals
LEVEL = 0.95
#: seeds from which on an interval is given: of two values it reaches 12.7 times as far from their mean as they do
LEAST_SEEDS = 3
#: seeds of confirmations begin at a multiple of this, above all that are taken
_SEEDS = 1000
_ARM = "rank-"


@dataclass(frozen=True)
class Retrained:
    """A trial of the search, trained again from fresh seeds.

    `row` is its row in the search, `search_rank` its rank there when it was chosen, from 1. `runs`: fresh seed to its
    complete row; `scores`: their scores, 0-1. `alike`: the best score within as many epochs as the search gave the
    trial, which differs from `scores` only where the search stopped it early. `failed`: seed to what went wrong.
    """

    row: TrialRow
    search_rank: int
    runs: Mapping[int, TrialRow]
    alike: Mapping[int, float]
    failed: Mapping[int, str]

    @property
    def scores(self) -> dict[int, float]:
        return {seed: row.score for seed, row in self.runs.items() if row.score is not None}

    @property
    def best_run(self) -> TrialRow:
        """Of the fresh trainings the one of the highest score."""
        return max(self.runs.values(), key=lambda row: (row.score, -row.seed))

    @cached_property
    def mean(self) -> Estimate | None:
        """Mean of the fresh scores with its t interval, whose ends are nan below three seeds; none: no score."""
        return _mean(list(self.scores.values()))

    @cached_property
    def optimism(self) -> Estimate | None:
        """The search's score minus the mean of the fresh ones after as many epochs; none: no fresh score."""
        return _mean([self.row.score - score for score in self.alike.values()])

    @property
    def was_stopped(self) -> bool:
        """Whether the search did not train it to its end."""
        return self.row.outcome == "stopped"


@dataclass(frozen=True)
class Confirmation:
    """The best trials of a search, trained again.

    `trials` are ranked: by the lower end of the mean's interval; then, by their means, those with too few seeds for an
    interval; last those without a score. `asked`: trainings in all; `seeds`: fresh seeds of each trial. `searched`:
    trials with a score among which the search chose. `moved_on`: the search has other best trials by now.
    """

    folder: StudyFolder
    trials: tuple[Retrained, ...]
    seeds: tuple[int, ...]
    epochs: int
    searched: int
    asked: int
    ended: int
    moved_on: bool

    @property
    def finished(self) -> bool:
        return self.ended >= self.asked

    @property
    def confirmed(self) -> tuple[Retrained, ...]:
        """The trials that have a fresh score."""
        return tuple(trial for trial in self.trials if trial.mean is not None)

    @property
    def first(self) -> Retrained:
        """The one that the search ranked first."""
        return min(self.trials, key=lambda trial: trial.search_rank)

    @cached_property
    def optimism_of_all(self) -> Estimate | None:
        """Mean optimism of all trials that have a fresh score, its interval over the seeds that all of them have.

        Over seeds, not over trials: trainings with one seed resemble each other, whatever their values.
        """
        known = self.confirmed
        common = [seed for seed in self.seeds if known and all(seed in trial.alike for trial in known)]
        return _mean([float(np.mean([t.row.score - t.alike[seed] for t in known])) for seed in common])


def best_arms(folder: StudyFolder, top: int) -> dict[str, Experiment]:
    """The best `top` of a search on disk, fewer where it has fewer, as arms `rank-1`, `rank-2`, ...

    Of trials with the same values, the best alone; with two objectives those of the front alone, as `ranked` has them.

    Raises:
        StudyError: no trial has a score.
        ConfigError: the folder holds no search.
    """
    space = read_section(SearchSettings, folder.settings).space
    ranking = ranking_of(Record(folder), space.search.cost)
    if not ranking:
        raise StudyError(f"study '{folder.name}' has no trial with a score yet; let it go on first")
    return dict(islice(_distinct(space, ranking), top))


def are_ranks(arms: Iterable[str]) -> bool:
    """Whether arms are those of a confirmation, by their names."""
    return all(arm.startswith(_ARM) and arm.removeprefix(_ARM).isdigit() for arm in arms)


def confirmations(folder: StudyFolder) -> list[StudyFolder]:
    """The confirmations of a search, the oldest first: its folders confirm, confirm-2, ..."""
    found = []
    for number in count(1):
        study = _numbered(folder, number)
        if not study.settings.exists():
            return found
        found.append(study)
    return found


def next_confirmation(folder: StudyFolder) -> StudyFolder:
    """The folder of a confirmation to come."""
    return _numbered(folder, len(confirmations(folder)) + 1)


def fresh_seed(folder: StudyFolder) -> int:
    """The first of the seeds that neither the search has, or may yet take, nor any confirmation."""
    settings = read_section(SearchSettings, folder.settings)
    studies = (folder, *confirmations(folder))
    rows = (row.seed for study in studies for row in study.trials.read())
    asked = (s.first_seed + s.seeds - 1 for s in map(read_asked, confirmations(folder)))
    # a search that draws the same values again takes the next seed for them
    taken = max(chain([settings.seed + settings.space.search.trials], rows, asked))
    return _SEEDS * (taken // _SEEDS + 1)


def read_asked(study: StudyFolder) -> ReplicateSettings:
    """What a confirmation was asked to do."""
    return read_section(ReplicateSettings, study.settings)


def read_confirmation(folder: StudyFolder) -> Confirmation | None:
    """The last confirmation of a search that is finished, or, where none is, the last; none where none was begun.

    Raises:
        StudyError, ConfigError: the folder holds no search, or a confirmation of another.
    """
    found = [read_one(folder, study) for study in confirmations(folder)]
    finished = [one for one in found if one.finished]
    return (finished or found or [None])[-1]


def read_one(folder: StudyFolder, study: StudyFolder) -> Confirmation:
    """One confirmation of a search.

    Raises:
        StudyError: it is one of another search.
    """
    settings = read_asked(study)
    space = read_section(SearchSettings, folder.settings).space
    searched, record = Record(folder), Record(study)
    ranking = searched.ranking()
    # the best trial of each Experiment; an id begins with its fingerprint
    found: dict[str, TrialRow] = {}
    for row in ranking:
        found.setdefault(_fingerprint_of(row), row)
    seeds = tuple(range(settings.first_seed, settings.first_seed + settings.seeds))
    trials = []
    for arm, experiment in settings.arms.items():
        row = found.get(fingerprint(experiment))
        if row is None:
            raise StudyError(f"{study.settings}: arm '{arm}' is no trial of study '{folder.name}'; restore the file")
        trials.append(_retrained(arm, row, record))
    now = dict(islice(_distinct(space, ranking_of(searched, space.search.cost)), len(trials)))
    planned = [(fingerprint(experiment), seed) for experiment in settings.arms.values() for seed in seeds]
    return Confirmation(
        folder=study,
        trials=tuple(sorted(trials, key=_order)),
        seeds=seeds,
        epochs=space.experiment.training.epochs,
        searched=len(ranking),
        asked=len(planned),
        ended=sum(f"{name}-s{seed}" in record.ended for name, seed in planned),
        moved_on={fingerprint(e) for e in now.values()} != {fingerprint(e) for e in settings.arms.values()},
    )


def is_confirmed(confirmation: Confirmation | None) -> bool:
    """Whether a confirmation's ranking stands for the search's."""
    return confirmation is not None and confirmation.finished and bool(confirmation.confirmed)


def asks_for_confirmation(folder: StudyFolder, word: str) -> tuple[str, str] | None:
    """The command that confirms a search, and what it does; none where it is confirmed, or no trial has a score.

    Args:
        word: the search on the command line.
    """
    confirmation = read_confirmation(folder)
    if is_confirmed(confirmation) or not Record(folder).ranking():
        return None
    if confirmation is not None and not confirmation.finished:
        return f"harness confirm {word} --resume", "goes on re-training the best with fresh seeds"
    count = len(best_arms(folder, CONFIRMED_TRIALS))
    return f"harness confirm {word}", f"re-trains the best {count if count > 1 else 'trial'} with fresh seeds"


def confirmed_at(confirmation: Confirmation, rank: int) -> Retrained:
    """The trial of rank `rank` (from 1) of a confirmation.

    Raises:
        StudyError: fewer were confirmed.
    """
    trials = confirmation.confirmed
    if rank > len(trials):
        raise StudyError(
            f"--rank {rank}: {len(trials)} trials of study '{confirmation.folder.path.parent.name}' were trained again "
            f"from fresh seeds; give 1 to {len(trials)}, or --as-searched for the search's own ranking"
        )
    return trials[rank - 1]


def confirmed_text(folder: StudyFolder, confirmation: Confirmation, rank: int) -> str:
    """The Experiment of rank `rank` of a confirmation as a complete YAML file that says what is known of it.

    Raises:
        StudyError: fewer were confirmed.
    """
    trial = confirmed_at(confirmation, rank)
    space = read_section(SearchSettings, folder.settings).space
    return experiment_text(
        _experiment(space, trial.row),
        f"rank {rank} of study {folder.name} as confirmed from fresh seeds: trial {trial.row.number} "
        f"({trial.row.trial}), rank {trial.search_rank} of the search",
        f"confirmed validation mIoU {mean_in_words(trial)} ({seeds_in_words(trial)})",
        f"search score {trial.row.score:.4f} at epoch {trial.row.best_epoch} of {trial.row.epochs} run, "
        f"seed {trial.row.seed}: one training, chosen among {confirmation.searched}",
        *(["the search has gone on since: some of its best trials were not trained again"] * confirmation.moved_on),
        *(f"{name}: {value}" for name, value in trial.row.picked.items()),
    )


def write_confirmed(folder: StudyFolder, study: StudyFolder) -> None:
    """Write the confirmed best as best.yaml of its confirmation, where that is finished."""
    confirmation = read_one(folder, study)
    if is_confirmed(confirmation):
        write_text(study.best, confirmed_text(folder, confirmation, 1))


def mean_in_words(trial: Retrained) -> str:
    """`0.4312, 95 % interval 0.4200 to 0.4424`, or why there is no interval."""
    if trial.mean is None:
        return "not known: every training failed"
    if math.isnan(trial.mean.low):
        return f"{trial.mean.point:.4f}, no interval from fewer than {LEAST_SEEDS} seeds"
    return f"{trial.mean.point:.4f}, {100 * LEVEL:g} % interval {trial.mean.low:.4f} to {trial.mean.high:.4f}"


def seeds_in_words(trial: Retrained) -> str:
    """`t, 3 fresh seeds: 1000, 1001, 1002`."""
    seeds = sorted(trial.scores)
    test = "t, " if len(seeds) >= LEAST_SEEDS else ""
    failed = f"; {len(trial.failed)} failed" if trial.failed else ""
    return f"{test}{len(seeds)} fresh seed{'s' * (len(seeds) != 1)}: {', '.join(map(str, seeds))}{failed}"


def _retrained(arm: str, row: TrialRow, record: Record) -> Retrained:
    own = sorted((r for r in record.ended.values() if r.picked.get("arm") == arm), key=lambda r: r.seed)
    runs = {r.seed: r for r in own if r.outcome == "complete" and r.score is not None}
    upto = row.epochs if row.outcome == "stopped" else math.inf
    alike = {seed: _best_until(record.epochs.get(r.trial, []), upto) for seed, r in runs.items()}
    failed = {r.seed: r.error or "no cause was recorded" for r in own if r.outcome == "failed"}
    known = {seed: score for seed, score in alike.items() if math.isfinite(score)}
    return Retrained(row, int(arm.removeprefix(_ARM)), runs, known, failed)


def _best_until(rows: list[EpochRow], epochs: float) -> float:
    best = best_epoch(row for row in rows if row.epoch <= epochs)
    return math.nan if best is None else best.score


def _order(trial: Retrained) -> tuple[int, float, int]:
    if trial.mean is None:
        return 2, 0.0, trial.search_rank
    if math.isnan(trial.mean.low):
        return 1, -trial.mean.point, trial.search_rank
    return 0, -trial.mean.low, trial.search_rank


def _mean(values: list[float]) -> Estimate | None:
    if not values:
        return None
    found = mean_interval(values, LEVEL)
    return found if len(values) >= LEAST_SEEDS else Estimate(found.point, math.nan, math.nan)


def _distinct(space: Space, ranking: list[TrialRow]) -> Iterator[tuple[str, Experiment]]:
    """Arms in the order of the ranking, none with the values of one before."""
    seen: set[str] = set()
    for rank, row in enumerate(ranking, 1):
        if _fingerprint_of(row) not in seen:
            seen.add(_fingerprint_of(row))
            yield f"{_ARM}{rank}", _experiment(space, row)


def _fingerprint_of(row: TrialRow) -> str:
    return row.trial.rpartition("-s")[0]


def _experiment(space: Space, row: TrialRow) -> Experiment:
    return apply_overrides(space.experiment, to_overrides(space, row.picked))


def _numbered(folder: StudyFolder, number: int) -> StudyFolder:
    return StudyFolder(folder.path / ("confirm" if number == 1 else f"confirm-{number}"))
