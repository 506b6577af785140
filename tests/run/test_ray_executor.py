"""The executor on Ray against the one in this process; Ray is started once for all of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.config import Trial
from harness.errors import StudyError
from harness.run import Resources, ray_executor
from harness.run.inprocess import run_inprocess
from harness.run.ray_executor import StudySearcher, run_on_ray
from harness.run.study import Study
from harness.run.worker import TrialRun
from harness.search import Search
from harness.store import EpochRow, StudyFolder

SECONDS = {"seconds", "train_seconds", "val_seconds"}

#: asks the cluster at argv[1] who its nodes are, as any client's first call does
CLIENT = """
import sys
from ray._raylet import GcsClient
print(len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)), "node")
"""


@dataclass
class Facts:
    """What was seen while Ray ran."""

    search: StudyFolder
    trials: list[Trial] = field(default_factory=list)
    killed: list[tuple[int, str]] = field(default_factory=list)
    at_once: int = 0
    fits: int = 0
    listening: set[str] = field(default_factory=set)
    clients: dict[str, subprocess.CompletedProcess] = field(default_factory=dict)
    too_much: dict[str, str] = field(default_factory=dict)
    usage_statistics: bool = True


class Watched:
    """A study that kills the worker of a trial once, after its second epoch, and counts the trials at once."""

    def __init__(self, study: Study, facts: Facts) -> None:
        self.study, self.facts, self.folder = study, facts, study.folder
        self.running: set[str] = set()

    def next_trial(self) -> Trial | None:
        trial = self.study.next_trial()
        if trial is not None:
            self.running.add(trial.id)
            self.facts.trials.append(trial)
            self.facts.at_once = max(self.facts.at_once, len(self.running))
        return trial

    def waits(self) -> bool:
        return self.study.waits()

    def on_epoch(self, row: EpochRow) -> bool:
        goes_on = self.study.on_epoch(row)
        if goes_on and row.epoch == 2 and not self.facts.killed:
            self.facts.killed = [(process.pid, row.trial) for process in workers()]
            for pid, _ in self.facts.killed:
                os.kill(pid, signal.SIGKILL)
        return goes_on

    def on_end(self, trial_id: str, error: str | None = None):
        self.running.discard(trial_id)
        return self.study.on_end(trial_id, error)


def workers() -> list[psutil.Process]:
    """The processes that train: Ray's raylet started them, so they are below this process."""
    processes = psutil.Process().children(recursive=True)
    return [p for p in processes if any("ray::TrialActor" in part for part in p.cmdline())]


def journals(folder: StudyFolder) -> tuple[list[dict], list[dict]]:
    return (
        [row.model_dump(exclude=SECONDS) for row in folder.trials.read()],
        [row.model_dump(exclude=SECONDS) for row in folder.epochs.read()],
    )


def new_folder(parent: Path, name: str) -> StudyFolder:
    (parent / name).mkdir()
    return StudyFolder(parent / name)


@pytest.fixture(scope="module")
def facts(tmp_path_factory, tiny_space) -> Facts:
    """One Ray, and on it a search with one worker, which is killed once."""
    resources = Resources(cpus_per_trial=0.5, concurrency=1)
    seen = Facts(new_folder(tmp_path_factory.mktemp("ray"), "search"))
    ray_executor.connect(resources)
    _look_around(seen)
    run_on_ray(Watched(Search(seen.search, tiny_space(trials=5), seed=1), seen), resources)
    return seen


def _look_around(seen: Facts) -> None:
    ours = {psutil.Process().pid, *(p.pid for p in psutil.Process().children(recursive=True))}
    connections = psutil.net_connections("inet")
    seen.listening = {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN and c.pid in ours}
    seen.fits = ray_executor._fitting(Resources(cpus_per_trial=0.5))
    seen.usage_statistics = ray_executor.ray._common.usage.usage_lib.usage_stats_enabled()
    address = ray_executor.ray.get_runtime_context().gcs_address
    for name, variables in {
        "right token": {"RAY_AUTH_MODE": "token"},
        "wrong token": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64},
        "no token": {"RAY_AUTH_MODE": "disabled"},
    }.items():
        seen.clients[name] = subprocess.run(
            [sys.executable, "-c", CLIENT, address], env={**os.environ, **variables}, capture_output=True, text=True
        )
    for name, resources in {
        "cpus": Resources(cpus_per_trial=4096.5),
        "gpus": Resources(gpus_per_trial=64.0),
        "a share, with a concurrency": Resources(gpus_per_trial=64.0, cpus_per_trial=0.5, concurrency=1),
    }.items():
        with pytest.raises(StudyError) as error:
            ray_executor._fitting(resources)
        seen.too_much[name] = str(error.value)


def test_ray_runs_the_same_trials_and_epochs_to_the_same_bit_as_this_process(facts, tiny_space, tmp_path):
    here = new_folder(tmp_path, "search")
    run_inprocess(Search(here, tiny_space(trials=5), seed=1))
    assert journals(facts.search) == journals(here)
    # the folder's name is in the head of best.yaml: it is the same
    assert facts.search.best.read_text() == here.best.read_text()


def test_a_trial_that_raises_is_failed_and_the_study_goes_on(facts):
    rows = facts.search.trials.read()
    failed = [row.number for row in rows if row.outcome == "failed"]
    assert failed and failed[0] < 4, "no trial came after the failed one"
    assert all("leaves no batch of 6 frames" in row.error for row in rows if row.outcome == "failed")
    assert len(rows) == 5


def test_a_killed_worker_is_started_again_and_no_epoch_is_lost_or_doubled(facts):
    ((_, trial),) = facts.killed
    epochs = [row.epoch for row in facts.search.epochs.read() if row.trial == trial]
    assert epochs == [1, 2, 3]
    (ended,) = [row for row in facts.search.trials.read() if row.trial == trial]
    assert ended.outcome == "complete"


def test_a_reused_workers_trial_equals_the_trial_alone(facts, tmp_path):
    ended = [row for row in facts.search.trials.read() if row.outcome != "failed"][-1]
    trial = next(trial for trial in facts.trials if trial.id == ended.trial)
    assert ended.number > 0, "the only trial that trained is the first: its worker was not used before"
    run = TrialRun(trial, tmp_path / "alone")
    alone = [run.next_row() for _ in range(ended.epochs)]
    reused = [row for row in facts.search.epochs.read() if row.trial == trial.id]
    assert [r.model_dump(exclude=SECONDS) for r in reused] == [r.model_dump(exclude=SECONDS) for r in alone]


def test_no_more_trials_run_at_once_than_asked_for_although_more_would_fit(facts):
    assert facts.fits >= 2
    assert facts.at_once == 1


def test_ray_is_left_when_the_study_ends(facts):
    assert not ray_executor.ray.is_initialized()


def test_ray_listens_on_loopback_only(facts):
    assert facts.listening
    assert {ip.removeprefix("::ffff:") for ip in facts.listening} == {"127.0.0.1"}


def test_a_client_without_the_token_is_refused(facts):
    assert facts.clients["right token"].stdout.strip() == "1 node"
    for name in ("wrong token", "no token"):
        assert facts.clients[name].returncode != 0, name
        assert "node" not in facts.clients[name].stdout
        assert "token" in facts.clients[name].stderr


def test_usage_statistics_are_off(facts):
    assert not facts.usage_statistics


def test_a_trial_that_fits_nowhere_is_refused_with_what_there_is(facts):
    assert "one trial asks for 4096.5 CPUs and 0 GPUs; Ray's nodes have" in facts.too_much["cpus"]
    assert "one trial asks for 1 CPUs and 64 GPUs" in facts.too_much["gpus"]
    assert "lower --cpus-per-trial or --gpus-per-trial" in facts.too_much["a share, with a concurrency"]


def node(cpus: float, gpus: float = 0.0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}}


@pytest.mark.parametrize(
    ("nodes", "resources", "fits"),
    [
        ([node(2)], Resources(cpus_per_trial=0.5), 4),
        ([node(8, 1)], Resources(cpus_per_trial=1, gpus_per_trial=0.25), 4),
        ([node(3), node(3)], Resources(cpus_per_trial=2), 2),
        ([node(8), node(8, alive=False)], Resources(cpus_per_trial=2), 4),
        ([node(1)], Resources(cpus_per_trial=0.1), 10),
    ],
)
def test_trials_that_fit_are_counted_node_by_node(nodes, resources, fits, monkeypatch):
    monkeypatch.setattr(ray_executor.ray, "nodes", lambda: nodes)
    assert ray_executor._fitting(resources) == fits


def test_a_trial_does_not_spread_over_two_nodes(monkeypatch):
    monkeypatch.setattr(ray_executor.ray, "nodes", lambda: [node(2), node(2)])
    with pytest.raises(StudyError, match="asks for 3 CPUs and 0 GPUs; Ray's nodes have 2 and 0; 2 and 0"):
        ray_executor._fitting(Resources(cpus_per_trial=3))


def test_the_searcher_hands_out_no_more_than_the_concurrency_and_reports_dead_workers(tiny_space, folder):
    search = Search(folder, tiny_space(trials=2), seed=0)
    searcher = StudySearcher(search, Resources(), concurrency=1)
    config = searcher.suggest("one")
    assert config["run"].startswith("/") and config["threads"] == 1
    assert searcher.suggest("two") is None
    searcher.on_trial_complete("one", error=True)
    (row,) = folder.trials.read()
    assert row.outcome == "failed" and row.error.startswith("its worker died 3 times")
    assert searcher.suggest("two")["seed"] == 0
    searcher.on_trial_complete("unknown", error=True)
    searcher.on_trial_complete("two", {"error": "broken"})
    assert searcher.suggest("three") == ray_executor.Searcher.FINISHED
