"""Workers that die: killed twenty times in one study, killed by their own trial, out of memory, with their node.

A worker that trains imports torch anew after each death, ten seconds of a core. Most of these workers therefore train
a stand-in, which has the engine's habits: a checkpoint an epoch, written while the next one runs, and numbers that
depend on every epoch before. `HARNESS_LONG_TESTS=1` (make test-long) kills workers that train.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.ablate import Replicates
from harness.config import Experiment, Trial
from harness.run import Resources, cluster, inprocess, ray_executor
from harness.run.cluster import Room
from harness.run.inprocess import run_inprocess
from harness.run.ray_executor import MAX_DEATHS, TrialActor, ray, run_on_ray, tune
from harness.run.study import Study, Wrapped
from harness.search import Search
from harness.store import EpochRow, StudyFolder, write_text

SECONDS = {"seconds", "setup_seconds", "train_seconds", "val_seconds"}
#: in a study of six trials, 54 epochs; each costs a start of Ray's worker: 4 minutes of two cores for twenty
KILLS = 20 if "HARNESS_LONG_TESTS" in os.environ else 3
#: seconds in which a busy machine starts a node, or a worker
PATIENCE = 120.0
LR = {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True}
LONG = pytest.mark.skipif("HARNESS_LONG_TESTS" not in os.environ, reason="twenty imports of torch: make test-long")


def stand_in(trial: Trial, run: Path) -> Iterator[EpochRow]:
    """Rows as `fit` yields them: the checkpoint's first, where there is one, then the epochs after it."""
    state = {"epoch": 0, "score": trial.experiment.optimiser.lr}
    if (run / "last.json").exists():
        state = json.loads((run / "last.json").read_text())
        yield row_of(trial, state)
    run.mkdir(parents=True, exist_ok=True)
    while state["epoch"] < trial.experiment.training.epochs:
        time.sleep(0.02)
        # chaotic: a step too many or too few changes every digit
        state = {"epoch": state["epoch"] + 1, "score": 3.9 * state["score"] * (1 - state["score"])}
        yield row_of(trial, state)
        time.sleep(0.02)
        write_text(run / "last.json", json.dumps(state))


def row_of(trial: Trial, state: dict[str, Any]) -> EpochRow:
    return EpochRow(
        trial=trial.id,
        epoch=state["epoch"],
        score=state["score"],
        val_loss=1.0,
        iou={},
        train_loss=1.0,
        terms={},
        train_score=None,
        lr={},
        train_seconds=0.0,
        val_seconds=0.0,
        images=1,
        parameters=1,
        peak_memory_mb=None,
        done=state["epoch"] == trial.experiment.training.epochs,
    )


class StandIn(tune.Trainable):
    """A worker without torch: it starts in a third of the time."""

    def setup(self, config: dict[str, Any]) -> None:
        trial = Trial(Experiment.model_validate_json(config["experiment"]), config["seed"])
        self.crashes = trial.experiment.training.patience == 77
        self.rows = stand_in(trial, Path(config["run"]))
        self.hold, self.seen = Path(config["study"]) / "hold", Path(config["study"]) / "seen"
        self.node = ray.get_runtime_context().get_node_id()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        with open(self.seen, "a") as seen:
            seen.write(f"{self.node}\n")
        # until the node that the test waits for does a step
        until = time.monotonic() + PATIENCE
        while self.hold.exists() and self.hold.read_text() != self.node and time.monotonic() < until:
            time.sleep(0.05)
        row = next(self.rows)
        if self.crashes and row.epoch == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        return {"row": row.model_dump_json()}

    def finish(self) -> None:
        self.rows.close()


class StandInHere:
    """The same for the executor in this process."""

    def __init__(self, trial: Trial, path: Path, device: str | None, known: int) -> None:
        self.rows = stand_in(trial, path)

    def next_row(self) -> EpochRow:
        return next(self.rows)

    def close(self) -> None:
        self.rows.close()


@pytest.fixture
def without_torch(monkeypatch):
    monkeypatch.setattr(ray_executor, "TrialActor", StandIn)
    monkeypatch.setattr(inprocess, "TrialRun", StandInHere)
    # workers cannot import tests
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


class Watched(Wrapped):
    """A study that tells who listens of every epoch that is new."""

    def __init__(self, study: Study, progress: threading.Event) -> None:
        super().__init__(study)
        self.progress = progress

    def on_epoch(self, row: EpochRow) -> bool:
        before = len(self.record.epochs.get(row.trial, ()))
        goes_on = self.study.on_epoch(row)
        if len(self.record.epochs[row.trial]) > before:
            self.progress.set()
        return goes_on


class Killer(threading.Thread):
    """Kills the worker again and again, at random moments: soon after it appears, and after an epoch that was new.

    At most twice in a row before the trial got on, since three times are the trial's own fault.
    """

    def __init__(self, progress: threading.Event) -> None:
        super().__init__(daemon=True)
        self.progress, self.random = progress, random.Random(7)
        self.killed: list[int] = []
        self.in_vain = 0

    def run(self) -> None:
        while len(self.killed) < KILLS:
            # one fewer than would fail the trial: the epoch that ends the waiting may be one that was under way at the
            # last death, and the driver counts that death after it
            if self.in_vain == MAX_DEATHS - 2 or self.random.random() < 0.6:
                self.progress.wait()
                self.in_vain = 0
            time.sleep(self.random.uniform(0, 0.15))
            self.progress.clear()
            self.kill()
            self.in_vain += 1

    def kill(self) -> None:
        while not (alive := [process for process in workers() if process.pid not in self.killed]):
            time.sleep(0.05)
        for process in alive:
            self.killed.append(process.pid)
            os.kill(process.pid, signal.SIGKILL)


def workers() -> list[psutil.Process]:
    """The processes that train: Ray's raylet started them, so they are below this process."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE and is_worker(" ".join(process.cmdline())):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def is_worker(command: str) -> bool:
    return f"ray::{ray_executor.TrialActor.__name__}" in command


def journals(folder: StudyFolder) -> tuple[list[dict], list[dict]]:
    return (
        [row.model_dump(exclude=SECONDS) for row in folder.trials.read()],
        [row.model_dump(exclude=SECONDS) for row in folder.epochs.read()],
    )


def new_folder(parent: Path) -> StudyFolder:
    (parent / "study").mkdir(parents=True)
    return StudyFolder(parent / "study")


def kill_again_and_again(parent: Path, tiny, tiny_space) -> None:
    space = tiny_space({"lr": LR}, tiny(training__epochs=9), trials=6)
    # what it proposes depends on every score, and every trial runs to its end
    space = space.model_copy(update={"search": space.search.model_copy(update={"strategy": "tpe"})})
    disturbed, here = new_folder(parent / "disturbed"), new_folder(parent / "here")
    resources, progress = Resources(concurrency=1), threading.Event()
    killer = Killer(progress)
    ray_executor.connect(resources)
    killer.start()
    run_on_ray(Watched(Search(disturbed, space, seed=3), progress), resources)
    assert len(killer.killed) >= KILLS, "the study was over before"
    run_inprocess(Search(here, space, seed=3))
    trials, epochs = journals(disturbed)
    assert (trials, epochs) == journals(here)
    assert [row["outcome"] for row in trials] == ["complete"] * 6
    assert len(epochs) == len({(row["trial"], row["epoch"]) for row in epochs}) == 54
    assert disturbed.best.read_text() == here.best.read_text()


def test_a_study_whose_workers_are_killed_again_and_again_ends_with_the_rows_of_an_undisturbed_one(
    tmp_path, tiny, tiny_space, without_torch
):
    kill_again_and_again(tmp_path, tiny, tiny_space)


@LONG
def test_a_study_whose_workers_are_killed_twenty_times_while_they_train_ends_with_the_same_rows(
    tmp_path, tiny, tiny_space
):
    kill_again_and_again(tmp_path, tiny, tiny_space)


class NodesComeAndGo(Wrapped):
    """A study that takes a node's power away after a few epochs, and later brings another one."""

    def __init__(self, study: Study, nodes: Any) -> None:
        super().__init__(study)
        self.nodes = nodes
        self.hold, self.seen = self.folder.path / "hold", self.folder.path / "seen"
        self.first, self.second = nodes.add_node(num_cpus=1), None
        # until that node has begun, all trials would go to the head
        self.hold.write_text(self.first.node_id)
        self.epochs = 0

    def on_epoch(self, row: EpochRow) -> bool:
        if self.hold.exists():
            if self.hold.read_text() in self.seen.read_text():
                self.hold.unlink()
        else:
            self.epochs += 1
            if self.epochs == 6:
                self.nodes.remove_node(self.first, allow_graceful=False)
            if self.epochs == 12:
                self.second = self.nodes.add_node(num_cpus=1)
                self.hold.write_text(self.second.node_id)
        return self.study.on_epoch(row)


def test_a_lost_nodes_trials_go_on_elsewhere_from_their_checkpoints_and_a_new_node_gets_trials(
    tmp_path, tiny, tiny_space, without_torch, monkeypatch
):
    # after harness.run, which sets what ray reads when it is imported
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setattr(ray_executor, "Room", lambda resources: Room(resources, count_again=0.5))
    space = tiny_space({"lr": LR}, tiny(training__epochs=30), trials=8)
    space = space.model_copy(update={"search": space.search.model_copy(update={"strategy": "random"})})
    disturbed, here = new_folder(tmp_path / "disturbed"), new_folder(tmp_path / "here")
    # an earlier test of this process has started a Ray for this machine alone
    cluster._on_loopback_only(False)
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        changing = NodesComeAndGo(Search(disturbed, space, seed=3), nodes)
        resources = Resources(address=nodes.address, concurrency=2)
        ray_executor.connect(resources)
        run_on_ray(changing, resources)
    finally:
        nodes.shutdown()
    assert changing.second.node_id in changing.seen.read_text(), "the new node got no trial"
    run_inprocess(Search(here, space, seed=3))
    trials, epochs = in_order(disturbed)
    assert (trials, epochs) == in_order(here)
    assert [row["outcome"] for row in trials] == ["complete"] * 8
    assert len(epochs) == 240
    assert disturbed.best.read_text() == here.best.read_text()


def in_order(folder: StudyFolder) -> tuple[list[dict], list[dict]]:
    trials, epochs = journals(folder)
    return sorted(trials, key=lambda row: row["number"]), sorted(epochs, key=lambda row: (row["trial"], row["epoch"]))


def test_a_trial_that_kills_its_worker_again_and_again_fails_and_says_how_often_and_the_study_goes_on(
    folder, tiny, without_torch
):
    crashes = tiny(training__patience=77, training__epochs=4)
    study = Replicates(folder, {"crashes": crashes, "good": tiny(training__epochs=4)}, [0])
    resources = Resources(concurrency=1)
    ray_executor.connect(resources)
    run_on_ray(study, resources)
    crashed, good = sorted(folder.trials.read(), key=lambda row: row.number)
    assert good.outcome == "complete" and good.epochs == 4
    assert crashed.outcome == "failed" and crashed.epochs == 1
    assert crashed.error.startswith(
        "its worker died 3 times without finishing an epoch in between (3 times in all), the last time: it was killed "
        "or crashed (`dmesg` there says whether the kernel did it for memory); if memory is short, run fewer trials"
    )


def test_a_trial_for_which_host_memory_does_not_suffice_fails_with_the_cause_and_the_study_goes_on(
    folder, tiny, monkeypatch
):
    class Limited(TrialActor):
        def setup(self, config: dict[str, Any]) -> None:
            in_use = psutil.Process().memory_info().vms
            resource.setrlimit(resource.RLIMIT_AS, (in_use + 300 * 2**20, resource.RLIM_INFINITY))
            super().setup(config)

    monkeypatch.setattr(ray_executor, "TrialActor", Limited)
    hungry = tiny(data__input_size=[1024, 1536], training__batch_size=6)
    study = Replicates(folder, {"hungry": hungry, "modest": tiny()}, [0])
    resources = Resources(concurrency=1)
    ray_executor.connect(resources)
    run_on_ray(study, resources)
    failed, good = sorted(folder.trials.read(), key=lambda row: row.number)
    assert good.outcome == "complete"
    assert failed.outcome == "failed"
    assert "memory" in failed.error and "training.batch_size" in failed.error
