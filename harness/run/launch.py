"""Starting and resuming studies: everything is checked before the first file is written."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn
from rich.progress import Progress as Bar
from rich.table import Table

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
from harness.run.disk import Pruned
from harness.run.driver_lock import check_not_driven, driver_lock, is_new
from harness.run.gives_up import GivesUp
from harness.run.inprocess import run_inprocess
from harness.run.measure import Measured, gpu_share, measure_all
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
from harness.run.progress import Progress
from harness.run.study import Displayed, Resources, Study
from harness.run.worker import pick_device
from harness.search import Search
from harness.store import StudyFolder, TrialRow, provenance, write_json, write_text

#: rows of the table of measured steps
_SHOWN = 8


def run_search(
    folder: StudyFolder,
    space: Space,
    resources: Resources,
    console: Console,
    *,
    seed: int,
    time_budget: float | None = None,
    disk_budget: float | None = None,
    measured: bool = False,
    resume: bool = False,
) -> Search:
    """Search a space in a study folder, new or resumed.

    Args:
        time_budget: seconds after which no epoch is started; none: no limit.
        disk_budget: bytes that the weights of ended trials may take; none: no limit.
        measured: train one step of each model first, and give each trial the share of a GPU that it needs.

    Raises:
        HarnessError: bad input, before anything is written.
        TrainingError: the first trials all failed.
    """
    deadline = None if time_budget is None else time.monotonic() + time_budget
    check_folder(folder, resume)
    check_resources(resources)
    space, notes = settle_space(space)
    with decoding(console) as shown:
        decode_frames(space, shown)
    if measured:
        resources = fit_resources(resources, shapes_of(space), console)
    settings = SearchSettings(space=space, seed=seed, dataset=_dataset(space.experiment))
    _connect(resources, console)
    with _driving(folder, resume):
        _open_folder(folder, settings, resources, console, notes)
        search = Search(folder, space, seed, deadline)
        execute(search, resources, console, space.search.trials, space.experiment.training.epochs, disk_budget)
    return search


def run_replicates(
    folder: StudyFolder,
    experiment: Experiment,
    seeds: Sequence[int],
    resources: Resources,
    console: Console,
    *,
    measured: bool = False,
    resume: bool = False,
) -> Replicates:
    """Train one Experiment with several seeds in a study folder, new or resumed.

    Raises:
        HarnessError: bad input, before anything is written.
        TrainingError: the first trials all failed.
    """
    check_folder(folder, resume)
    check_resources(resources)
    experiment, notes = settle_experiment(experiment)
    check_experiment(experiment)
    with decoding(console) as shown:
        decode_frames_of(experiment, shown)
    if measured:
        resources = fit_resources(resources, [experiment], console)
    arms = {folder.name: experiment}
    settings = ReplicateSettings(arms=arms, dataset=_dataset(experiment))
    _connect(resources, console)
    with _driving(folder, resume):
        _open_folder(folder, settings, resources, console, notes)
        study = Replicates(folder, arms, seeds)
        execute(study, resources, console, len(seeds), experiment.training.epochs)
    return study


def _connect(resources: Resources, console: Console) -> None:
    """Start or join Ray where it is the executor: what it lacks is known before the first file is written."""
    if resources.executor == "ray":
        # ray takes seconds to import, which the in-process executor need not pay
        from harness.run.ray_executor import connect

        with console.status("starting Ray" if resources.address is None else f"joining Ray at {resources.address}"):
            connect(resources)


def run_ablation(
    folder: StudyFolder,
    ablation: Ablation,
    scale: str,
    seeds: int | None,
    resources: Resources,
    console: Console,
    *,
    race: int | None = None,
    measured: bool = False,
    resume: bool = False,
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
    if race is not None and isinstance(ablation.design, Path):
        raise ConfigError("--race: a path decides its arms itself, from the same seeds of all; leave --race out")
    ablation, notes = settle_ablation(_with_stored_steps(ablation, folder), scale)
    arms = {name: arm.experiment for name, arm in resolve_arms(ablation, scale).items()}
    replicates = seeds or ablation.scale[scale].seeds
    with decoding(console) as shown:
        for experiment in arms.values():
            decode_frames_of(experiment, shown)
    if measured:
        resources = fit_resources(resources, distinct_shapes(arms.values()), console)
    first = next(iter(arms.values()))
    settings = AblationSettings(ablation=ablation, scale=scale, seeds=replicates, race=race, dataset=_dataset(first))
    _connect(resources, console)
    with _driving(folder, resume):
        _open_folder(folder, settings, resources, console, notes)
        study = _ablation_study(folder, settings, console, race)
        tried = path_arms(len(ablation.factors)) if isinstance(study, GreedyPath) else len(arms)
        planned = max(replicates, race or 0) * tried
        execute(study, resources, console, planned, max(e.training.epochs for e in arms.values()))
    return study


def path_arms(factors: int) -> int:
    """How many arms a path tries in all: the baseline, then every factor left, until none is."""
    return 1 + factors * (factors + 1) // 2


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
) -> None:
    """Run a study on the chosen executor, with its progress on the console.

    Raises:
        TrainingError: the first trials all failed.
    """
    trials = GivesUp(Pruned(study, disk_budget))
    with Progress(console, planned, max_epochs) as progress:
        shown = Displayed(trials, progress)
        if resources.executor == "inprocess":
            torch.set_num_threads(max(1, int(resources.cpus_per_trial)))
            run_inprocess(shown)
        else:
            from harness.run.ray_executor import run_on_ray

            run_on_ray(shown, resources)
    trials.check()


def fit_resources(resources: Resources, shapes: list[Experiment], console: Console) -> Resources:
    """Measure one step of each shape, show it, and give each trial the share of a GPU that the largest needs.

    Raises:
        StudyError: a shape that does not fit, or more than the share that was asked for.
    """
    with console.status(f"measuring one step of {len(shapes)} models and sizes"):
        found = measure_all(shapes, max(1, int(resources.cpus_per_trial)))
    console.print(measured_table(shapes, found))
    if pick_device().type == "cpu":
        return resources
    total = torch.cuda.get_device_properties(0).total_memory / 1e6
    share = max(gpu_share(one.peak_memory_mb or math.inf, total) for one in found)
    asked = resources.gpus_per_trial
    if 0 < asked < share:
        raise StudyError(
            f"--gpus-per-trial {asked:g}: the largest model needs {share:g} of a GPU; ask for that, or leave it out"
        )
    share = asked or share
    console.print(f"each trial gets {share:g} of a GPU", highlight=False)
    return replace(resources, gpus_per_trial=share)


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
    if resume and not folder.settings.exists():
        raise StudyError(f"--resume: there is no study at {folder.path}; leave --resume out to start it")
    if not resume and not is_new(folder):
        fix = "go on with it by --resume" if folder.settings.exists() else "it has no study.yaml, so remove it"
        raise StudyError(f"study '{folder.name}' already exists at {folder.path}; {fix}, or give another --name")


def _open_folder(
    folder: StudyFolder, settings: Section, resources: Resources, console: Console, notes: list[str]
) -> None:
    """Make the folder, or check that a resumed study asks for the same."""
    if folder.settings.exists():
        changed = differences(read_section(type(settings), folder.settings), settings)
        if changed:
            raise StudyError(
                f"study '{folder.name}' cannot go on with other settings: {'; '.join(changed)}; "
                "give the same ones, or start a new study by another --name"
            )
    console.print(f"[bold]{folder.name}[/] → {folder.path}", highlight=False, soft_wrap=True)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    folder.path.mkdir(parents=True, exist_ok=True)
    if not folder.provenance.exists():
        about = {"device": device_name(), "resources": asdict(resources)}
        write_json(folder.provenance, provenance(dataset=settings.dataset, **about))
    write_text(folder.settings, dump_yaml(settings.model_dump(mode="json")))


def device_name() -> str:
    """The GPU's name, or `cpu`."""
    device = pick_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _dataset(experiment: Experiment) -> str:
    return dataset_fingerprint(dataset_root(experiment.data))
