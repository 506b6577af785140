"""Soak: thousands of tiny trials through Ray's reused workers. Does anything grow, does anything disagree?"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import numpy as np
import optuna
import psutil

from harness.bench.rows import Goal, Measured, Row
from harness.bench.trials import ray_study
from harness.bench.workplace import Workplace
from harness.config import Space, validate_section
from harness.run.preflight import decode_frames_of
from harness.search import Search
from harness.store import StudyFolder

TITLE = "Soak: tiny trials through Ray's reused workers"
_MIB = 2**20
_EVERY = 1.0


@dataclass(frozen=True)
class Effort:
    """Trials, and height and width of the frames."""

    trials: int
    size: tuple[int, int]


FULL, QUICK = Effort(2000, (32, 48)), Effort(12, (32, 48))


class Sample(NamedTuple):
    """Epochs so far; memory of its own (bytes) and open files of the driver, and of a worker (mean)."""

    epochs: int
    driver_memory: int
    driver_files: int
    worker_memory: float
    worker_files: float


def rows(place: Workplace, quick: bool = False) -> Iterator[Row]:
    """Memory and open files of driver and workers, and what journals and storage disagree on."""
    effort = QUICK if quick else FULL
    space = soak_space(effort)
    decode_frames_of(space.experiment)
    folder = StudyFolder(place.folder / "soak")
    folder.path.mkdir()
    search = Search(folder, space, seed=0)
    with sampling(search) as samples:
        _, seconds = ray_study(place, search, space)
    note = f"{effort.trials} trials, {_epochs(search)} epochs in {seconds:.0f} s; median of the last quarter of the "
    note += "epochs against that of the second"
    for words, field, unit in (
        ("memory of the driver", "driver_memory", "MiB"),
        ("memory of a worker", "worker_memory", "MiB"),
        ("open files of the driver", "driver_files", ""),
        ("open files of a worker", "worker_files", ""),
    ):
        yield growth_row(words, [(s.epochs, getattr(s, field)) for s in samples if s.worker_files], unit, note)
    yield consistency_row(folder, effort.trials)


def growth_row(words: str, values: list[tuple[int, float]], unit: str, note: str) -> Row:
    """The last quarter of the epochs against the second: the first is that of imports and caches."""
    last = max(epochs for epochs, _ in values)
    early = [value for epochs, value in values if last / 4 <= epochs < last / 2]
    late = [value for epochs, value in values if epochs >= 3 * last / 4]
    before, after = (float(np.median(side)) / (_MIB if unit else 1) for side in (early or late, late))
    return Row(
        what=words,
        ours=f"{after:.4g} {unit}".strip(),
        theirs=f"{before:.4g} {unit} before".replace("  ", " "),
        value=Measured(after / before),
        unit="x",
        pairs=len(late),
        goal=Goal(1.05, at_least=False),
        note=note,
    )


def consistency_row(folder: StudyFolder, trials: int) -> Row:
    """Trials and epochs that journals and Optuna's storage do not have in common."""
    epochs = {(row.trial, row.epoch, row.score) for row in folder.epochs.read()}
    ends = [(row.number, row.outcome) for row in folder.trials.read()]
    states = {"COMPLETE": "complete", "PRUNED": "stopped", "FAIL": "failed"}
    stored = optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder.optuna}").get_trials(deepcopy=False)
    values = {(t.user_attrs["trial"], e, s) for t in stored for e, s in t.intermediate_values.items()}
    known = {(t.number, states.get(t.state.name, "running")) for t in stored}
    differences = len(epochs ^ values) + len(set(ends) ^ known) + len(ends) - len(set(ends)) + abs(len(ends) - trials)
    return Row(
        what="rows on which journals and Optuna's storage disagree",
        ours=f"{len(epochs)} epochs, {len(ends)} trials",
        theirs=f"{len(values)} epochs, {len(known)} trials in optuna.db",
        value=Measured(differences),
        unit="",
        pairs=1,
        goal=Goal(0, at_least=False),
        note=f"{sum(outcome == 'failed' for _, outcome in ends)} failed",
    )


@contextmanager
def sampling(search: Search) -> Iterator[list[Sample]]:
    """Look at this process and at Ray's workers every second."""
    samples: list[Sample] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(_EVERY):
            samples.append(_sample(_epochs(search)))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def _epochs(search: Search) -> int:
    # the driver adds to it meanwhile
    return sum(map(len, list(search.record.epochs.values())))


def _sample(epochs: int) -> Sample:
    driver = psutil.Process(os.getpid())
    workers = [found for child in driver.children(recursive=True) if (found := _worker(child)) is not None]
    return Sample(
        epochs,
        driver.memory_full_info().uss,
        driver.num_fds(),
        fmean(memory for memory, _ in workers) if workers else 0.0,
        fmean(files for _, files in workers) if workers else 0.0,
    )


def _worker(process: psutil.Process) -> tuple[int, int] | None:
    """Memory and open files of one of Ray's trial workers; None for any other process, or one that has gone."""
    try:
        if not " ".join(process.cmdline()).startswith("ray::TrialActor"):
            return None
        return process.memory_full_info().uss, process.num_fds()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def soak_space(effort: Effort) -> Space:
    """A search of one learning rate over the smallest model and four small frames, three epochs each."""
    height, width = effort.size
    values = {
        "experiment": {
            "data": {
                "synthetic": {"train": 4, "val": 2, "test": 1, "height": height, "width": width},
                "input_size": effort.size,
            },
            "model": {
                "kind": "backbone",
                "backbone": "mobilenetv3_small_050",
                "weights": "none",
                "head": {"kind": "linear"},
            },
            "training": {"epochs": 3, "batch_size": 2},
        },
        "search": {"trials": effort.trials, "strategy": "promote"},
        "parameters": {"lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True}},
    }
    return validate_section(Space, values, "space")
