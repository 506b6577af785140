"""The records of a search on disk, as the figures and tables of its page want them."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple
from urllib.parse import quote

from optuna.storages import RDBStorage

from harness.config import Experiment, SearchSettings, Space, apply_overrides, read_section, to_overrides
from harness.config.space import ChoiceParameter, Parameter
from harness.errors import ConfigError
from harness.search.proposals import in_order
from harness.search.strategies import rung_rule
from harness.search.values import Picked
from harness.store import EpochRow, Record, StudyFolder, TrialRow, best_epoch, read_provenance

#: going: it has no end in the journal: under way, paused at a rung, or interrupted
State = Literal["complete", "stopped", "failed", "infeasible", "going"]
Kind = Literal["float", "int", "log", "choice"]


@dataclass(frozen=True)
class SearchTrial:
    """One trial: what was picked, how it went, what it cost.

    `number` is its position in the study, from 0; none, and nothing `picked`, where it is under way and only its
    epochs are on disk. `epochs` rise, without those whose score is not finite. `planned`: epochs, had it run to its
    end. `row`: its end in the journal.
    """

    trial: str
    number: int | None
    state: State
    picked: Picked
    epochs: tuple[EpochRow, ...]
    planned: int
    row: TrialRow | None = None

    @property
    def name(self) -> str:
        """`trial 12`, or its id where the number is unknown."""
        return f"trial {self.trial if self.number is None else self.number}"

    @cached_property
    def best(self) -> EpochRow | None:
        """The epoch of the best score; none: no epoch finished."""
        return best_epoch(self.epochs)

    @property
    def score(self) -> float | None:
        """The best epoch's score, 0-1."""
        return self.best.score if self.best else None

    @property
    def last(self) -> EpochRow | None:
        """The last epoch that finished."""
        return self.epochs[-1] if self.epochs else None

    @property
    def ran(self) -> int:
        """Epochs of training that finished."""
        return sum(row.epoch > 0 for row in self.epochs)

    @cached_property
    def seconds(self) -> float:
        """Set-up, training and validation."""
        return sum(row.all_seconds for row in self.epochs)

    @property
    def parameters(self) -> int | None:
        """Of the whole model; none: no epoch finished, or not recorded."""
        return (self.last.parameters or None) if self.last else None

    @property
    def peak_memory_mb(self) -> float | None:
        """Highest peak of allocated GPU memory of its epochs, MB; none: no GPU, or no epoch."""
        return max((row.peak_memory_mb for row in self.epochs if row.peak_memory_mb is not None), default=None)

    @property
    def ms_per_image(self) -> float | None:
        """Milliseconds of training per image seen, waiting for data included; none: no image was trained on."""
        images = sum(row.images for row in self.epochs)
        return 1000 * sum(row.train_seconds for row in self.epochs) / images if images else None

    def score_at(self, epoch: int) -> float | None:
        """The score right after an epoch; none: it did not come so far."""
        return self._scores.get(epoch)

    @cached_property
    def _scores(self) -> dict[int, float]:
        return {row.epoch: row.score for row in self.epochs}


class Device(NamedTuple):
    """What a trial held while it ran: `GPU`, `CPU core` or, where it is not recorded, an empty name."""

    name: str
    per_trial: float


@dataclass(frozen=True)
class SearchData:
    """What a search measured so far.

    `trials` are in the order of their numbers; `journal` holds every epoch in the order in which they finished,
    `ended` the ids of ended trials in the order of their ends. `rungs` are epochs, rising; empty where every trial
    runs to its end. `device`: whose time the trials' seconds are.
    """

    name: str
    settings: SearchSettings
    trials: tuple[SearchTrial, ...]
    journal: tuple[EpochRow, ...]
    ended: tuple[str, ...]
    rungs: tuple[int, ...]
    device: Device

    @property
    def space(self) -> Space:
        return self.settings.space

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """The parameters that vary, in the order of the space."""
        return self.space.parameters

    @property
    def kinds(self) -> dict[str, Kind]:
        """Kind of every parameter; `log`: a number, real or whole, on a logarithmic scale."""
        return {name: kind_of(parameter) for name, parameter in self.parameters.items()}

    @cached_property
    def by_id(self) -> dict[str, SearchTrial]:
        return {trial.trial: trial for trial in self.trials}

    @property
    def rows(self) -> dict[int, TrialRow]:
        """The ends in the journal, by number."""
        return {trial.row.number: trial.row for trial in self.trials if trial.row is not None}

    @cached_property
    def ranked(self) -> tuple[SearchTrial, ...]:
        """Sound and feasible trials with a score, best first: those that ran to their end before all others."""
        scored = [t for t in self.trials if t.score is not None and t.state not in ("failed", "infeasible")]
        return tuple(sorted(scored, key=lambda t: (t.state != "complete", -(t.score or 0.0))))

    def of(self, *states: State) -> tuple[SearchTrial, ...]:
        """The trials in these states."""
        return tuple(trial for trial in self.trials if trial.state in states)

    @property
    def score_title(self) -> str:
        """What the score is: `validation mIoU`, unless the default Experiment's protocol says otherwise."""
        protocol = self.space.experiment.protocol
        rule = "mIoU" if protocol.score == "miou" else protocol.score
        return f"{'test' if protocol.select_on_test else 'validation'} {rule}"


def read_search_data(folder: StudyFolder) -> SearchData:
    """Read a finished, running or interrupted search.

    Raises:
        StudyError: a journal was changed by hand.
        ConfigError: the folder holds no search.
    """
    settings = read_section(SearchSettings, folder.settings)
    space, record = settings.space, Record(folder)
    under_way = _under_way(folder, space, record.epochs.keys() - record.ended.keys())
    trials = [_ended(row, record.epochs.get(row.trial, []), space) for row in record.ended.values()]
    trials += [
        _going(trial, rows, *under_way.get(trial, (None, {})), space)
        for trial, rows in record.epochs.items()
        if trial not in record.ended
    ]
    return SearchData(
        name=folder.name,
        settings=settings,
        trials=tuple(sorted(trials, key=lambda t: (t.number is None, t.number or 0))),
        journal=tuple(row for row in folder.epochs.read() if math.isfinite(row.score)),
        ended=tuple(record.ended),
        rungs=tuple(rung_rule(space.search, space.experiment.training.epochs).rungs),
        device=_device(folder),
    )


def kind_of(parameter: Parameter) -> Kind:
    """How a parameter's values are drawn."""
    if isinstance(parameter, ChoiceParameter):
        return "choice"
    return "log" if parameter.log else parameter.kind


def _device(folder: StudyFolder) -> Device:
    """GPUs where a trial held some, else cores, by the study's provenance."""
    held = read_provenance(folder).get("resources") or {}
    for name, key in (("GPU", "gpus_per_trial"), ("CPU core", "cpus_per_trial")):
        if held.get(key):
            return Device(name, float(held[key]))
    return Device("", 1.0)


def _ended(row: TrialRow, epochs: list[EpochRow], space: Space) -> SearchTrial:
    known = {name: row.picked[name] for name in space.parameters if name in row.picked}
    return SearchTrial(row.trial, row.number, row.outcome, known, _finite(epochs), _planned(space, known), row)


def _going(trial: str, epochs: list[EpochRow], number: int | None, picked: Picked, space: Space) -> SearchTrial:
    return SearchTrial(trial, number, "going", picked, _finite(epochs), _planned(space, picked))


def _finite(epochs: list[EpochRow]) -> tuple[EpochRow, ...]:
    return tuple(row for row in epochs if math.isfinite(row.score))


def _planned(space: Space, picked: Picked) -> int:
    """Epochs of a trial that runs to its end."""
    if not any(parameter.field in ("training", "training.epochs") for parameter in space.parameters.values()):
        return space.experiment.training.epochs
    try:
        experiment: Experiment = apply_overrides(space.experiment, to_overrides(space, picked))
    except ConfigError:
        # values that exclude each other: the trial failed before its first epoch
        return 0
    return experiment.training.epochs


def _under_way(folder: StudyFolder, space: Space, ids: Container[str]) -> dict[str, tuple[int, Picked]]:
    """Number and values of trials that have no end in the journal yet, from the search's own storage."""
    if not ids or not folder.optuna.exists():
        return {}
    # read only: a search may be writing
    url = f"sqlite:///file:{quote(str(folder.optuna.resolve()))}?mode=ro&uri=true"
    storage = RDBStorage(url, skip_compatibility_check=True, skip_table_creation=True)
    frozen = [t for study in storage.get_all_studies() for t in storage.get_all_trials(study._study_id, deepcopy=False)]
    storage.engine.dispose()
    return {t.user_attrs["trial"]: (t.number, in_order(space, t)) for t in frozen if t.user_attrs.get("trial") in ids}
