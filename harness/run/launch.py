"""Starting and resuming studies: everything is checked before the first file is written."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from harness.ablate import GreedyPath, Racing, Replicates, baseline_of, resolve_arms
from harness.config import (
    Ablation,
    AblationSettings,
    Experiment,
    ReplicateSettings,
    SearchSettings,
    Section,
    Space,
    differences,
    dump_yaml,
    read_section,
)
from harness.config.ablation import Path, with_steps
from harness.data import dataset_fingerprint, dataset_root
from harness.errors import ConfigError, StudyError
from harness.metrics import dataset_counts, miou
from harness.models.names import model_name
from harness.run.budget import Budgeted
from harness.run.disk import Pruned
from harness.run.driver_lock import check_not_driven, driver_lock, is_new
from harness.run.forecast import Pace, forecast, limits_of, measured_pace, recorded_pace
from harness.run.full_disk import StopsWithoutRoom
from harness.run.gives_up import GivesUp
from harness.run.inprocess import run_inprocess
from harness.run.interrupt import Stoppable, stoppable
from harness.run.measure import Measured, gpu_share, measure_all
from harness.run.parameters import ParameterCounter
from harness.run.plan import path_arms
from harness.run.preflight import (
    check_experiment,
    check_resources,
    decode_frames,
    decode_frames_of,
    distinct_shapes,
    settle_ablation,
    settle_experiment,
    settle_space,
    shapes_of,
)
from harness.run.progress import Progress, facts_of, tally_of
from harness.run.study import Displayed, Resources, Study
from harness.run.trackers import Tracked, check_trackers
from harness.run.worker import pick_device
from harness.search import Search
from harness.search.strategies import prior_notes
from harness.store import StudyFolder, TrialRow, check_links, record_session, write_text
from harness.store.upload import Upload

#: rows of the table of measured steps
_SHOWN = 8
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_ONE_GPU = "each trial gets one GPU; --gpus-per-trial 0.5: two share one, 0: on the CPU; --measure finds the share"
_NO_GPU = "trials train on the CPU: there is no GPU"


def run_search(
    folder: StudyFolder,
    space: Space,
    resources: Resources,
    console: Console,
    *,
    seed: int,
    time_budget: float | None = None,
    disk_budget: float | None = None,
    compute_hours: float | None = None,
    measured: bool = False,
    resume: bool = False,
    trackers: Sequence[str] = (),
) -> Search:
    """Search a space in a study folder, new or resumed.

    Args:
        time_budget: seconds within which every epoch ends: none is started that takes longer than what is left, by
            the trial's last one; none: no limit.
        disk_budget: bytes that weights and checkpoints may take; none: no limit (see `Pruned`).
        compute_hours: hours of GPUs, or without any of CPU cores, after which no epoch is started (see `Budgeted`).
        measured: train one step of each model first, and give each trial the share of a GPU that it needs.
        trackers: names of experiment trackers that every epoch is sent to.

    Raises:
        HarnessError: bad input, before anything is written.
        TrainingError: the first trials all failed.
    """
    deadline = None if time_budget is None else time.monotonic() + time_budget
    check_folder(folder, resume)
    check_resources(resources)
    check_trackers(trackers)
    space, notes = settle_space(space)
    notes += prior_notes(space)
    with decoding(console) as shown:
        decode_frames(space, shown)
    pace = None
    if measured:
        resources, pace = fit_resources(resources, shapes_of(space), console)
    settings = SearchSettings(space=space, seed=seed, dataset=_dataset(space.experiment))
    resources, on_gpus = _connect(resources, console)
    with _driving(folder, resume):
        asked = {"trials": space.search.trials, "time_budget_s": time_budget, "disk_budget_bytes": disk_budget}
        asked |= _if_given("compute_hours", compute_hours)
        _open_folder(folder, settings, resources, console, notes + on_gpus, asked)
        search = Search(folder, space, seed, deadline, count_parameters=ParameterCounter())
        trials, epochs = space.search.trials, space.experiment.training.epochs
        print_forecast(search, resources, console, trials, epochs, pace, compute_hours)
        search.interrupted = execute(
            search, resources, console, trials, epochs, disk_budget, trackers, compute_hours=compute_hours
        )
    left = len(search.proposals) < trials or bool(search.resumable())
    if time_budget is not None and left and not search.interrupted:
        console.print("--time-budget: no epoch was started that would have ended too late; --resume goes on")
    return search


def run_replicates(
    folder: StudyFolder,
    experiment: Experiment,
    seeds: Sequence[int],
    resources: Resources,
    console: Console,
    *,
    compute_hours: float | None = None,
    measured: bool = False,
    resume: bool = False,
    trackers: Sequence[str] = (),
) -> Replicates:
    """Train one Experiment with several seeds in a study folder, new or resumed.

    Raises:
        HarnessError: bad input, before anything is written.
        TrainingError: the first trials all failed.
    """
    return run_arms(
        folder,
        {folder.name: experiment},
        seeds,
        resources,
        console,
        compute_hours=compute_hours,
        measured=measured,
        resume=resume,
        trackers=trackers,
    )


def run_arms(
    folder: StudyFolder,
    arms: Mapping[str, Experiment],
    seeds: Sequence[int],
    resources: Resources,
    console: Console,
    *,
    pace: Pace | None = None,
    compute_hours: float | None = None,
    measured: bool = False,
    resume: bool = False,
    trackers: Sequence[str] = (),
) -> Replicates:
    """Train several Experiments with the same seeds, which follow each other, in a study folder, new or resumed.

    Args:
        pace: what is known of the seconds of an epoch, for the forecast.

    Raises:
        HarnessError: bad input, before anything is written.
        TrainingError: the first trials all failed.
    """
    check_folder(folder, resume)
    check_resources(resources)
    check_trackers(trackers)
    settled = {name: settle_experiment(experiment) for name, experiment in arms.items()}
    arms = {name: experiment for name, (experiment, _) in settled.items()}
    notes = list(dict.fromkeys(note for _, own in settled.values() for note in own))
    for experiment in arms.values():
        check_experiment(experiment)
    with decoding(console) as shown:
        for experiment in arms.values():
            decode_frames_of(experiment, shown)
    if measured:
        resources, pace = fit_resources(resources, distinct_shapes(arms.values()), console)
    dataset = _dataset(next(iter(arms.values())))
    settings = ReplicateSettings(arms=arms, seeds=len(seeds), first_seed=seeds[0], dataset=dataset)
    planned, epochs = len(arms) * len(seeds), max(e.training.epochs for e in arms.values())
    resources, on_gpus = _connect(resources, console)
    with _driving(folder, resume):
        asked = {"seeds": len(seeds)} | _if_given("compute_hours", compute_hours)
        _open_folder(folder, settings, resources, console, notes + on_gpus, asked)
        study = Replicates(folder, arms, seeds)
        print_forecast(study, resources, console, planned, epochs, pace, compute_hours)
        study.interrupted = execute(
            study, resources, console, planned, epochs, trackers=trackers, compute_hours=compute_hours
        )
    return study


def _connect(resources: Resources, console: Console) -> tuple[Resources, list[str]]:
    """Start or join Ray where it is the executor: what it lacks is known before the first file is written.

    Returns:
        The resources with the GPUs of a trial, and what to say of them where they were not asked for.
    """
    settled = _with_gpus(resources)
    if resources.executor == "ray":
        # ray takes seconds to import, which the in-process executor need not pay
        from harness.run.ray_executor import connect

        with console.status("starting Ray" if resources.address is None else f"joining Ray at {resources.address}"):
            settled = connect(settled)
    return settled, [_ONE_GPU if settled.gpus_per_trial else _NO_GPU] * (resources.gpus_per_trial is None)


def _with_gpus(resources: Resources) -> Resources:
    """One GPU for each trial where nothing was asked for and torch sees one; a cluster's are seen once it is joined."""
    if resources.gpus_per_trial is not None or (resources.executor == "ray" and resources.address is not None):
        return resources
    return replace(resources, gpus_per_trial=float(torch.cuda.device_count() > 0))


def run_ablation(
    folder: StudyFolder,
    ablation: Ablation,
    scale: str,
    seeds: int | None,
    resources: Resources,
    console: Console,
    *,
    race: int | None = None,
    compute_hours: float | None = None,
    measured: bool = False,
    resume: bool = False,
    trackers: Sequence[str] = (),
) -> Replicates:
    """Train every arm of an ablation at a scale with the same seeds, in a study folder, new or resumed.

    Args:
        seeds: replicates of every arm; none: the scale's.
        race: arms that those do not resolve get further seeds, up to this many; none: no arm does. Not for a path.

    Raises:
        HarnessError: bad input, before anything is written.
        TrainingError: the first trials all failed.
    """
    check_folder(folder, resume)
    check_resources(resources)
    check_trackers(trackers)
    if race is not None and isinstance(ablation.design, Path):
        raise ConfigError("--race: a path decides its arms itself, from the same seeds of all; leave --race out")
    ablation, notes = settle_ablation(_with_stored_steps(ablation, folder), scale)
    arms = {name: arm.experiment for name, arm in resolve_arms(ablation, scale).items()}
    replicates = seeds or ablation.scale[scale].seeds
    with decoding(console) as shown:
        for experiment in arms.values():
            decode_frames_of(experiment, shown)
    pace = None
    if measured:
        resources, pace = fit_resources(resources, distinct_shapes(arms.values()), console)
    first = next(iter(arms.values()))
    settings = AblationSettings(ablation=ablation, scale=scale, seeds=replicates, race=race, dataset=_dataset(first))
    resources, on_gpus = _connect(resources, console)
    with _driving(folder, resume):
        asked = {"seeds": replicates, "race": race} | _if_given("compute_hours", compute_hours)
        _open_folder(folder, settings, resources, console, notes + on_gpus, asked)
        study = _ablation_study(folder, settings, console, race)
        tried = path_arms(len(ablation.factors)) if isinstance(study, GreedyPath) else len(arms)
        planned = max(replicates, race or 0) * tried
        epochs = max(e.training.epochs for e in arms.values())
        print_forecast(study, resources, console, planned, epochs, pace, compute_hours)
        study.interrupted = execute(
            study, resources, console, planned, epochs, trackers=trackers, compute_hours=compute_hours
        )
    return study


def _ablation_study(folder: StudyFolder, settings: AblationSettings, console: Console, race: int | None) -> Replicates:
    ablation, scale, seeds = settings.ablation, settings.scale, range(settings.seeds)
    if isinstance(ablation.design, Path):

        def on_step(steps: tuple[str, ...]) -> None:
            now = settings.model_copy(update={"ablation": with_steps(ablation, steps)})
            write_text(folder.settings, dump_yaml(now.model_dump(mode="json")))
            console.print(f"step {len(steps)}: {steps[-1]}", highlight=False, soft_wrap=True)

        return GreedyPath(folder, ablation, scale, seeds, on_step)
    arms = {name: arm.experiment for name, arm in resolve_arms(ablation, scale).items()}
    if race is not None:
        return Racing(folder, arms, seeds, baseline_of(ablation), race, lambda row: _miou(folder, row))
    return Replicates(folder, arms, seeds)


def _miou(folder: StudyFolder, row: TrialRow) -> float:
    """Dataset mIoU of a trial's best epoch, whatever rule chose it."""
    with np.load(folder.run(row.trial).confusion, allow_pickle=False) as arrays:
        return miou(dataset_counts(arrays["matrices"]))


def _with_stored_steps(ablation: Ablation, folder: StudyFolder) -> Ablation:
    """A path goes on from the steps in its folder; steps of other factors are left to the check of the settings."""
    if not isinstance(ablation.design, Path) or not folder.settings.exists():
        return ablation
    stored = read_section(AblationSettings, folder.settings).ablation.design
    known = isinstance(stored, Path) and set(stored.steps) <= set(ablation.factors)
    return with_steps(ablation, stored.steps) if known else ablation


def execute(
    study: Study,
    resources: Resources,
    console: Console,
    planned: int,
    max_epochs: int,
    disk_budget: float | None = None,
    trackers: Sequence[str] = (),
    *,
    compute_hours: float | None = None,
) -> bool:
    """Run a study on the chosen executor, with its progress on the console; True where a signal ended it early.

    Raises:
        TrainingError: the first trials all failed.
        StorageError: a file cannot be written, e.g. for lack of room; the study can be resumed.
        KeyboardInterrupt: a second signal.
    """
    budget = None if compute_hours is None else Budgeted(study, compute_hours, resources)
    baseline, cost = (study.baseline, study.space.search.cost) if isinstance(study, Search) else (None, None)
    trials = GivesUp(Pruned(budget or study, disk_budget, baseline, cost))
    with (
        Upload(study.folder, resources.upload) as copy,
        Progress(console, study, planned, max_epochs, budget and budget.allowed) as progress,
        Tracked(trackers, study, facts_of, console) as tracked,
        stoppable(console) as stop,
    ):
        shown = Displayed(Displayed(Displayed(Stoppable(StopsWithoutRoom(trials), stop), progress), tracked), copy)
        if resources.executor == "inprocess":
            torch.set_num_threads(max(1, int(resources.cpus_per_trial)))
            run_inprocess(shown, resources.device)
        else:
            from harness.run.ray_executor import run_on_ray

            run_on_ray(shown, resources)
    trials.check()
    if budget is not None and (said := budget.said(planned)) is not None:
        console.print(said, highlight=False, soft_wrap=True)
    return stop.asked


def print_forecast(
    study: Study,
    resources: Resources,
    console: Console,
    planned: int,
    max_epochs: int,
    pace: Pace | None,
    compute_hours: float | None,
) -> None:
    """One line on what the study will take from here, and which of its budgets will end it before."""
    tally = tally_of(study, planned, max_epochs)
    rows = [row for rows in study.record.epochs.values() for row in rows]
    pace = recorded_pace(rows, "by the {} epochs so far") or pace
    workers = min(planned, _workers(resources))
    deadline = study.deadline if isinstance(study, Search) else None
    time_left = None if deadline is None else deadline - time.monotonic()
    device_left = None
    if compute_hours is not None:
        budget = Budgeted(study, compute_hours, resources)
        device_left = budget.allowed - budget.seconds
    line = forecast(tally, workers, pace, limits_of(tally, workers, pace, time_left, device_left))
    if line:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _workers(resources: Resources) -> int:
    if resources.executor != "ray":
        return 1
    from harness.run.ray_executor import Room

    return Room(resources)()


def fit_resources(resources: Resources, shapes: list[Experiment], console: Console) -> tuple[Resources, Pace | None]:
    """Measure one step of each shape, show it, and give each trial the share of a GPU that the largest needs.

    Returns what an epoch of them takes, too.

    Raises:
        StudyError: a shape that does not fit, or more than the share that was asked for.
    """
    asked = resources.gpus_per_trial
    with console.status(f"measuring one step of {len(shapes)} models and sizes"), _gpus_hidden(asked == 0):
        found = measure_all(shapes, max(1, int(resources.cpus_per_trial)))
    console.print(measured_table(shapes, found))
    pace = measured_pace(shapes, found)
    if asked == 0 or pick_device().type == "cpu":
        return resources, pace
    total = torch.cuda.get_device_properties(0).total_memory / 1e6
    share = max(gpu_share(one.peak_memory_mb or math.inf, total) for one in found)
    if asked is not None and asked < share:
        raise StudyError(
            f"--gpus-per-trial {asked:g}: the largest model needs {share:g} of a GPU; ask for that, or leave it out"
        )
    share = asked or share
    console.print(f"each trial gets {share:g} of a GPU", highlight=False)
    return replace(resources, gpus_per_trial=share), pace


@contextmanager
def _gpus_hidden(hidden: bool) -> Iterator[None]:
    """Let processes that are started meanwhile see no GPU."""
    before = os.environ.get(_VISIBLE)
    if hidden:
        os.environ[_VISIBLE] = ""
    try:
        yield
    finally:
        if hidden:
            os.environ.pop(_VISIBLE)
            os.environ.update({} if before is None else {_VISIBLE: before})


def measured_table(shapes: list[Experiment], found: list[Measured]) -> Table:
    """Parameters, milliseconds per image and peak memory of one training step, for the largest shapes."""
    gpu = pick_device().type == "cuda"
    pairs = sorted(zip(shapes, found, strict=True), key=lambda pair: _largeness(pair[1], gpu), reverse=True)
    title = f"one training step, the largest {min(_SHOWN, len(pairs))} of {len(pairs)} models and sizes"
    table = Table("model", "head", "input", "batch", "parameters", "ms/image", title=title)
    if gpu:
        table.add_column("GPU memory")
    for experiment, one in pairs[:_SHOWN]:
        height, width = experiment.data.input_size
        head = getattr(experiment.model, "head", None)
        peak = "does not fit" if one.peak_memory_mb is None else f"{one.peak_memory_mb:,.0f} MB"
        table.add_row(
            model_name(experiment.model),
            "" if head is None else head.kind,
            f"{width}×{height}",
            str(experiment.training.batch_size),
            f"{one.parameters:,}",
            "" if math.isnan(one.milliseconds) else f"{one.milliseconds:.1f}",
            *([peak] if gpu else []),
        )
    return table


def _largeness(one: Measured, gpu: bool) -> float:
    return (one.peak_memory_mb or math.inf) if gpu else one.milliseconds


@contextmanager
def decoding(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar of the frames decoded, of all."""
    with Bar(
        "decoding frames",
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def check_folder(folder: StudyFolder, resume: bool) -> None:
    """Refuse a study that another process runs, one that is there unless resuming, and to resume one that is not.

    Raises:
        StudyError: the name, and what to do.
    """
    check_not_driven(folder)
    _check_presence(folder, resume)


@contextmanager
def _driving(folder: StudyFolder, resume: bool) -> Iterator[None]:
    """Be the only one who writes a study; another may have begun and ended it since `check_folder`."""
    with driver_lock(folder):
        _check_presence(folder, resume)
        yield


def _check_presence(folder: StudyFolder, resume: bool) -> None:
    check_links(folder.path)
    if resume and not folder.settings.exists():
        raise StudyError(f"--resume: there is no study at {folder.path}; leave --resume out to start it")
    if not resume and not is_new(folder):
        fix = "go on with it by --resume" if folder.settings.exists() else "it has no study.yaml, so remove it"
        raise StudyError(f"study '{folder.name}' already exists at {folder.path}; {fix}, or give another --name")


def _open_folder(
    folder: StudyFolder,
    settings: Section,
    resources: Resources,
    console: Console,
    notes: list[str],
    asked: dict[str, float | None],
) -> None:
    """Make the folder, or check that a resumed study asks for the same; `asked` is what may differ at each start."""
    if folder.settings.exists():
        changed = differences(read_section(type(settings), folder.settings), settings)
        if changed:
            raise StudyError(
                f"study '{folder.name}' cannot go on with other settings: {'; '.join(changed)}; "
                "give the same ones, or start a new study by another --name"
            )
    console.print(Text.assemble((folder.name, "bold"), f" → {folder.path}"), soft_wrap=True)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    folder.path.mkdir(parents=True, exist_ok=True)
    if (failed := failed_text(folder)) is not None:
        console.print(failed, highlight=False, markup=False, soft_wrap=True)
    about = {"dataset": settings.dataset, "device": resources.device or device_name(), "resources": asdict(resources)}
    record_session(folder.provenance, asked, **about)
    write_text(folder.settings, dump_yaml(settings.model_dump(mode="json")))


def _if_given(name: str, value: float | None) -> dict[str, float]:
    return {} if value is None else {name: value}


def failed_text(folder: StudyFolder) -> str | None:
    """Which trials of a resumed study failed before, and what can be done; none where none did."""
    rows = {row.trial: row for row in folder.trials.read()}.values()
    failed = sorted(row.number for row in rows if row.outcome == "failed")
    if not failed:
        return None
    shown = ", ".join(map(str, failed[:_SHOWN])) + (", ..." if len(failed) > _SHOWN else "")
    return (
        f"{len(failed)} failed trials stay as they are ({shown}): --resume trains none of them again; "
        f"`harness rerun {folder.path} {failed[0]}` runs one alone, another --name all of them"
    )


def device_name() -> str:
    """The GPU's name, or `cpu`."""
    device = pick_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _dataset(experiment: Experiment) -> str:
    return dataset_fingerprint(dataset_root(experiment.data))
