"""Trials: what a search on Ray costs beside its training steps, how fast a worker starts or resumes its next trial."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from harness.bench.frames import desert_frames, repeated_frames
from harness.bench.rows import Goal, Row, milliseconds
from harness.bench.timing import median_interval, seconds_of
from harness.bench.workplace import Workplace
from harness.config import Experiment, Space, Trial, apply_overrides, dump_yaml, read_section, validate_section
from harness.data import class_counts
from harness.engine import fit
from harness.engine.session import open_session
from harness.errors import TrainingError
from harness.run.launch import execute
from harness.run.preflight import decode_frames_of
from harness.run.study import Resources
from harness.run.worker import TrialRun
from harness.search import Search
from harness.store import EpochRow, RunFolder, StudyFolder

TITLE = "Trials: overhead of a search on Ray, and what a worker's next trial costs"
_WORKERS = 2
_RESOURCES = Resources(executor="ray", cpus_per_trial=1.0, concurrency=_WORKERS)


@dataclass(frozen=True)
class Effort:
    """Trials and epochs of a search, its frames, pairs of searches; frames and starts for the second line."""

    trials: int
    epochs: int
    frames: int
    pairs: int
    many_frames: int
    starts: int


FULL, QUICK = Effort(20, 3, 96, 3, 2857, 10), Effort(4, 1, 8, 1, 16, 2)


class Walls(NamedTuple):
    """Wall seconds of one search: starting Ray, running the study; and of the plain loop over the same trials."""

    ray: float
    study: float
    plain: float


def rows(place: Workplace, quick: bool = False) -> Iterator[Row]:
    """The overhead of a search, the start of a trial, and going on with a paused one."""
    effort = QUICK if quick else FULL
    yield overhead_row(place, effort)
    yield start_row(place, effort)
    yield resume_row(place, effort)


def overhead_row(place: Workplace, effort: Effort) -> Row:
    """Run search and plain loop by turns."""
    space = _space(place, effort)
    decode_frames_of(space.experiment)
    walls = [_pair(place, space, turn) for turn in range(effort.pairs)]
    with_ray = median_interval([(wall.ray + wall.study) / wall.plain for wall in walls])
    ray, study, plain = (float(np.median(seconds)) for seconds in zip(*walls, strict=True))
    return Row(
        what=f"search of {effort.trials} short trials on Ray, {_WORKERS} workers",
        ours=f"{study:.1f} s",
        theirs=f"{plain:.1f} s",
        value=median_interval([wall.study / wall.plain for wall in walls]),
        unit="x",
        pairs=effort.pairs,
        goal=Goal(1.10, at_least=False),
        note=f"ours / theirs; theirs: {_WORKERS} processes, each a plain loop of engine.fit over its share of the same "
        f"trials; the start of the workers (torch, timm) is in both; starting Ray itself takes {ray:.1f} s more and "
        f"is not counted: with it the ratio is {with_ray.point:.2f}",
        why="a fixed number of seconds per search (Ray's own controller and workers) weighs in short trials",
    )


def _pair(place: Workplace, space: Space, turn: int) -> Walls:
    place.console.print(f"trials: search and plain loop, turn {turn + 1}", highlight=False)
    plain = -1.0
    if turn % 2:
        plain = plain_loop(place.folder / f"plain-{turn}", space)
    ray, study = ray_search(place, space, turn)
    return Walls(ray, study, plain if turn % 2 else plain_loop(place.folder / f"plain-{turn}", space))


def ray_search(place: Workplace, space: Space, turn: int) -> tuple[float, float]:
    """Seconds to start Ray, and to run the search on it."""
    search = _search(place.folder / f"search-{turn}", space)
    ray, study = ray_study(place, search, space)
    failed = [row.error for row in search.record.ended.values() if row.outcome != "complete"]
    _check(not failed and len(search.record.ended) == space.search.trials, f"the search on Ray: {failed}")
    return ray, study


def ray_study(place: Workplace, search: Search, space: Space) -> tuple[float, float]:
    """Seconds to start Ray, and to run a search of a space on it."""
    # ray takes seconds to import, which the other benchmarks need not pay
    from harness.run.ray_executor import connect

    ray = seconds_of(lambda: connect(_RESOURCES))
    epochs = space.experiment.training.epochs
    return ray, seconds_of(lambda: execute(search, _RESOURCES, place.console, space.search.trials, epochs))


def plain_loop(folder: Path, space: Space) -> float:
    """Seconds of the same trials in plain loops, one process for each half of them."""
    search = _search(folder, space)
    trials = list(iter(search.next_trial, None))
    context = multiprocessing.get_context("spawn")
    halves = [trials[part::_WORKERS] for part in range(_WORKERS)]
    processes = [context.Process(target=train_all, args=(half, folder)) for half in halves]

    def run() -> None:
        for process in processes:
            process.start()
        for process in processes:
            process.join()

    seconds = seconds_of(run)
    _check(not any(process.exitcode for process in processes), "the plain loop")
    return seconds


def _check(whole: bool, what: str) -> None:
    if not whole:
        raise TrainingError(f"harness bench trials: {what} did not train all of its trials, so no time is comparable")


def train_all(trials: Sequence[Trial], folder: Path) -> None:
    """Train one trial after the other: the plain loop."""
    torch.set_num_threads(1)
    for trial in trials:
        for _ in fit(trial, RunFolder(folder / trial.id), torch.device("cpu")):
            pass


def _search(folder: Path, space: Space) -> Search:
    folder.mkdir(parents=True)
    return Search(StudyFolder(folder), space, seed=0)


def _space(place: Workplace, effort: Effort) -> Space:
    """Trials of one cost, of which none is stopped early: only the learning rate varies."""
    root = desert_frames(place, effort.frames, max(2, effort.frames // 3), (136, 240))
    values = {
        "experiment": {"data": {"root": str(root)}, "training": {"epochs": effort.epochs}},
        "search": {"trials": effort.trials, "strategy": "random"},
        "parameters": {"lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-2, "log": True}},
    }
    return validate_section(Space, values, "space")


def start_row(place: Workplace, effort: Effort) -> Row:
    """Open trial after trial in this process, as a reused worker does, against a fresh process for one."""
    experiment = _frozen(place, effort)
    decode_frames_of(experiment)
    fresh = _fresh_start(place, experiment)
    folders = iter(place.folder / f"start-{number}" for number in range(effort.starts + 1))
    learning_rates = iter(np.geomspace(1e-4, 1e-2, effort.starts + 1).tolist())

    def start() -> None:
        trial = Trial(apply_overrides(experiment, {"optimiser.lr": next(learning_rates)}), 0)
        run = RunFolder(next(folders))
        run.create(trial)
        session = open_session(trial, run, torch.device("cpu"))
        counted.append(seconds_of(lambda: class_counts(session.train_frames.frames, session.taxonomy)))

    counted: list[float] = []
    first, *others = [seconds_of(start) - counted[-1] for _ in range(effort.starts + 1)]
    value = median_interval(others)
    return Row(
        what=f"start of a trial after the first on its worker, {effort.many_frames} frames",
        ours=milliseconds(value.point, "a start"),
        theirs=milliseconds(fresh, "a start"),
        value=value,
        unit="s",
        pairs=effort.starts,
        goal=Goal(0.1, at_least=False),
        note="frozen ViT-S at 476x266, until the first batch is asked for; theirs: a fresh process that imports torch "
        f"and timm and opens the same trial; the first trial of this worker took {first:.2f} s; of a start, counting "
        f"the class pixels of all training masks takes {median_interval(counted).point:.3f} s if nobody has done so",
    )


def resume_row(place: Workplace, effort: Effort) -> Row:
    """Pause one trial and go on with the other, by turns: until it says from which epoch it goes on.

    Model, data and optimiser are opened and the checkpoint is read, in one process as on a reused worker.
    """
    experiment = apply_overrides(_space(place, effort).experiment, {"training.epochs": 1000})
    decode_frames_of(experiment)
    trials = [Trial(experiment, seed) for seed in (0, 1)]

    def open_run(trial: Trial) -> TrialRun:
        return TrialRun(trial, place.folder / f"paused-{trial.seed}")

    def first_row(run: TrialRun) -> None:
        row = run.next_row()
        _check(isinstance(row, EpochRow), str(row))

    taken = []
    for turn in range(2 * effort.starts + 2):
        run = open_run(trials[turn % 2])
        taken.append(seconds_of(lambda run=run: first_row(run)))
        run.close()
    trained, resumed = taken[:2], taken[2:]
    value = median_interval(resumed)
    return Row(
        what="a paused trial goes on, another having run on its worker meanwhile",
        ours=milliseconds(value.point, "a resume"),
        theirs=milliseconds(float(np.median(trained)), "its first epoch, trained again"),
        value=value,
        unit="s",
        pairs=len(resumed),
        goal=Goal(1.0, at_least=False),
        note="the synthetic desert's default Experiment; until the checkpoint's epoch is reported and training goes on",
    )


def _frozen(place: Workplace, effort: Effort) -> Experiment:
    root = repeated_frames(place, effort.many_frames, max(2, effort.many_frames // 9), (266, 476))
    return apply_overrides(
        Experiment(),
        {
            "data": {"root": str(root), "input_size": (266, 476)},
            "augmentation": {"kind": "named", "policy": "none"},
            "model": {"kind": "backbone", "backbone": "vit_small_patch14_dinov2", "weights": "none"},
            "training": {"precision": "bf16"},
        },
    )


def _fresh_start(place: Workplace, experiment: Experiment) -> float:
    """Seconds of a process that imports everything and opens the trial."""
    file = place.folder / "experiment.yaml"
    file.write_text(dump_yaml(experiment.model_dump(mode="json")))
    code = f"from harness.bench.trials import open_once; open_once({str(file)!r}, {str(place.folder / 'fresh')!r})"
    return seconds_of(lambda: subprocess.run([sys.executable, "-c", code], check=True))


def open_once(file: str, folder: str) -> None:
    """Open the trial of an Experiment file: what a fresh worker does before its first step."""
    torch.set_num_threads(1)
    trial = Trial(read_section(Experiment, Path(file)), 0)
    run = RunFolder(Path(folder))
    run.create(trial)
    open_session(trial, run, torch.device("cpu"))
