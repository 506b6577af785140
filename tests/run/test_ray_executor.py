"""The executor on Ray against the one in this process; Ray is started once for all of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from harness.config import Experiment, Trial
from harness.errors import StudyError
from harness.run import Resources, cluster, ray_executor
from harness.run.inprocess import run_inprocess
from harness.run.interrupt import Stop, Stoppable
from harness.run.ray_executor import (
    MAX_DEATHS,
    MAX_LOSSES,
    Deaths,
    Ends,
    StudyScheduler,
    StudySearcher,
    Whole,
    cause_of_death,
    run_on_ray,
)
from harness.run.study import Study
from harness.run.worker import TrialRun
from harness.search import Search
from harness.store import EpochRow, Failure, Record, StudyFolder

SECONDS = {"seconds", "setup_seconds", "train_seconds", "val_seconds"}


@dataclass
class Facts:
    """What was seen while Ray ran."""

    search: StudyFolder
    trials: list[Trial] = field(default_factory=list)
    at_once: int = 0
    fits: int = 0
    too_much: dict[str, str] = field(default_factory=dict)


class Watched:
    """A study that counts the trials at once."""

    def __init__(self, study: Study, facts: Facts) -> None:
        self.study, self.facts, self.folder, self.record = study, facts, study.folder, study.record
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

    def may_go_on(self) -> bool:
        return self.study.may_go_on()

    def on_epoch(self, row: EpochRow) -> bool:
        return self.study.on_epoch(row)

    def on_end(self, trial_id: str, error: str | None = None):
        self.running.discard(trial_id)
        return self.study.on_end(trial_id, error)


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
    """One Ray, and on it a search with one worker."""
    resources = Resources(cpus_per_trial=0.5, concurrency=1)
    seen = Facts(new_folder(tmp_path_factory.mktemp("ray"), "search"))
    ray_executor.connect(resources)
    _look_around(seen)
    run_on_ray(Watched(Search(seen.search, tiny_space(trials=5), seed=1), seen), resources)
    return seen


def _look_around(seen: Facts) -> None:
    seen.fits = cluster.fitting(Resources(cpus_per_trial=0.5))
    for name, resources in {
        "cpus": Resources(cpus_per_trial=4096.5),
        "gpus": Resources(gpus_per_trial=64.0),
        "a share, with a concurrency": Resources(gpus_per_trial=64.0, cpus_per_trial=0.5, concurrency=1),
    }.items():
        with pytest.raises(StudyError) as error:
            cluster.fitting(resources)
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
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    assert cluster.fitting(resources) == fits


@pytest.mark.parametrize(
    ("nodes", "asked", "each"), [([node(8), node(8, 4)], None, 1.0), ([node(8)], None, 0.0), ([node(8, 4)], 0.0, 0.0)]
)
def test_a_trial_gets_a_gpu_of_a_cluster_that_has_one_unless_it_asks_for_none(nodes, asked, each, monkeypatch):
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(cluster, "_join", lambda address: None)
    assert cluster.connect(Resources(address="there", gpus_per_trial=asked)).gpus_per_trial == each


def test_a_worker_is_told_to_train_on_the_cpu_where_its_trial_has_no_gpu(tiny_space, folder):
    for gpus, device in ((0.0, "cpu"), (0.5, None)):
        resources = Resources(gpus_per_trial=gpus)
        searcher = StudySearcher(Search(folder, tiny_space(), 0), resources, lambda: 1, Deaths(), {})
        assert searcher.suggest("a")["device"] == device


def test_a_trial_does_not_spread_over_two_nodes(monkeypatch):
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [node(2), node(2)])
    with pytest.raises(StudyError, match="asks for 3 CPUs and 0 GPUs; Ray's nodes have 2 and 0; 2 and 0"):
        cluster.fitting(Resources(cpus_per_trial=3))


@pytest.mark.parametrize(
    ("asked", "nodes", "room"),
    [(None, [node(2)], 2), (None, [node(2), node(3)], 5), (3, [node(2), node(3)], 3), (8, [node(2)], 2), (8, [], 1)],
)
def test_there_is_room_for_what_was_asked_for_and_fits_and_one_waits_where_no_node_is_left(
    asked, nodes, room, monkeypatch
):
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    assert cluster.Room(Resources(concurrency=asked))() == room


def test_room_follows_the_nodes_and_says_when_the_last_is_lost(monkeypatch, caplog):
    nodes = [node(1)]
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    room = cluster.Room(Resources(), count_again=0.0)
    slow = cluster.Room(Resources())
    assert room() == slow() == 1
    nodes.append(node(2))
    assert room() == 3
    assert slow() == 1, "the nodes are asked for at every look"
    nodes.clear()
    assert room() == 1
    assert room() == 1
    assert [r.getMessage() for r in caplog.records] == [
        "no node with room for a trial is left in the cluster; waiting for one (Ctrl-C: stop)"
    ]


def test_a_worker_whose_last_trial_could_not_be_written_takes_the_next_all_the_same(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_executor, "_return_freed_memory", lambda: None)

    def config(name: str) -> dict[str, Any]:
        run, experiment = str(tmp_path / name), tiny(training__epochs=1).model_dump_json()
        own = {"experiment": experiment, "seed": 0, "study": str(tmp_path), "run": run, "threads": 1}
        return own | {"code": None, "device": None, "known": None}

    actor = ray_executor.TrialActor(config("one"))
    for name, failure in (("two", Failure("broken")), ("three", Failure("no room", "disk"))):
        monkeypatch.setattr(actor._run, "close", lambda failure=failure: failure)
        assert actor.reset_config(config(name))
        assert "error" not in actor.step()


def new_searcher(search: Study, ends: Ends | None = None, room: int = 1) -> StudySearcher:
    return StudySearcher(search, Resources(), lambda: room, Deaths(), ends or Ends())


def test_the_searcher_hands_out_no_more_than_there_is_room_for(tiny_space, folder):
    searcher = new_searcher(Search(folder, tiny_space(trials=2), seed=0))
    config = searcher.suggest("one")
    assert config["run"].startswith("/") and config["threads"] == 1
    assert searcher.suggest("two") is None
    searcher.on_trial_complete("unknown", error=True)
    searcher.on_trial_complete("one", {"error": "broken"})
    assert searcher.suggest("two")["seed"] == 0
    assert searcher.suggest("three") is None, "the worker of the last trial may die yet"
    searcher.on_trial_complete("two", {"error": "broken"})
    assert searcher.suggest("three") == ray_executor.Searcher.FINISHED
    assert [row.error for row in folder.trials.read()] == ["broken", "broken"]


#: what is said of a worker, each time that it dies
KILLED, NODE_LOST, NODE_FULL = (
    "it was killed", "its node was lost", "Ray killed it because its node ran out of memory",
)  # fmt: skip


def test_a_trial_is_handed_out_again_until_its_worker_died_too_often_in_vain(tiny_space, folder):
    ends = Ends()
    searcher = new_searcher(Search(folder, tiny_space(trials=1), seed=0), ends)
    first = searcher.suggest("0")
    for death in range(MAX_DEATHS):
        assert folder.trials.read() == []
        ends.died[str(death)] = KILLED
        searcher.on_trial_complete(str(death), error=True)
        again = searcher.suggest(str(death + 1))
        assert again == (first if death + 1 < MAX_DEATHS else ray_executor.Searcher.FINISHED)
    (row,) = folder.trials.read()
    assert row.outcome == "failed"
    assert row.error.startswith(
        "its worker died 3 times without finishing an epoch in between (3 times in all), the last time: it was killed; "
        "if memory is short, run fewer trials at once (--concurrency) or lower training.batch_size"
    )


def test_a_trial_that_ends_the_memory_of_its_node_again_and_again_is_failed_for_lack_of_memory(tiny_space, folder):
    ends = Ends()
    searcher = new_searcher(Search(folder, tiny_space(trials=1), seed=0), ends)
    for death in range(MAX_DEATHS):
        searcher.suggest(str(death))
        ends.died[str(death)] = NODE_FULL
        searcher.on_trial_complete(str(death), error=True)
    (row,) = folder.trials.read()
    assert row.outcome == "failed" and row.out_of_memory and NODE_FULL in row.error


def test_nodes_that_are_taken_away_are_not_their_trials_fault_unless_they_always_are():
    deaths = Deaths()
    for _ in range(MAX_LOSSES - 1):
        assert deaths.death("t", NODE_LOST) is None
    for _ in range(MAX_DEATHS - 1):
        assert deaths.death("t", KILLED) is None
    assert deaths.death("t", NODE_LOST).cause == "error"
    deaths.epoch("t", 1)
    assert deaths.death("t", NODE_LOST) is None


def test_a_trial_whose_worker_died_is_not_started_again_in_a_study_that_was_asked_to_stop(tiny_space, folder):
    ends, stop = Ends(), Stop()
    searcher = new_searcher(Stoppable(Search(folder, tiny_space(trials=2), seed=0), stop), ends)
    first = searcher.suggest("0")
    ends.died["0"] = KILLED
    searcher.on_trial_complete("0", error=True)
    stop.asked = True
    assert searcher.suggest("1") == ray_executor.Searcher.FINISHED
    assert folder.trials.read() == []
    resumed = Search(folder, tiny_space(trials=2), seed=0)
    assert resumed.next_trial().id == first["run"].rpartition("/")[2]


class Raises:
    """A study of one trial of which one call raises."""

    def __init__(self, folder: StudyFolder, call: str) -> None:
        self.folder, self.record, self.called = folder, Record(folder), []
        setattr(self, call, self._refuse)

    def _refuse(self, *_: object) -> None:
        self.called.append("refused")
        raise RuntimeError("database is locked")

    def next_trial(self) -> Trial:
        return Trial(Experiment(), 0)

    def waits(self) -> bool:
        return True

    def may_go_on(self) -> bool:
        return True

    def on_epoch(self, row: EpochRow) -> bool:
        return True

    def on_end(self, trial_id: str, error: str | None = None) -> None:
        self.called.append("end")


@pytest.mark.parametrize("call", ["next_trial", "waits", "may_go_on", "on_epoch", "on_end"])
def test_after_a_call_that_raised_nothing_is_handed_out_or_told_and_it_is_raised_at_the_end(call, folder):
    study = Whole(Raises(folder, call))
    study.check()
    getattr(study, call)(*{"on_epoch": ["row"], "on_end": ["t"]}.get(call, []))
    assert study.next_trial() is None and not study.waits() and not study.may_go_on()
    assert not study.on_epoch("row") and study.on_end("t") is None
    assert study.study.called == ["refused"]
    with pytest.raises(RuntimeError, match="database is locked"):
        study.check()


class Worker:
    """A trial of Tune's on a worker that says how its last files were written."""

    trial_id = "0"

    def __init__(self, said: Failure | Exception | None) -> None:
        self.said = said
        self.temporary_state = SimpleNamespace(ray_actor=SimpleNamespace(finish=SimpleNamespace(remote=lambda: self)))

    def get(self) -> Failure | None:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


@pytest.mark.parametrize(
    ("said", "ends_with"),
    [(None, [None]), (Failure("no room", "disk"), ["no room"]), (ActorDiedError(), [])],
    ids=["written", "no room", "its worker is dead"],
)
def test_a_trial_that_stops_has_ended_once_its_worker_has_written_its_files(said, ends_with, folder, monkeypatch):
    monkeypatch.setattr(ray_executor.ray, "get", Worker.get)
    ended: list[str | None] = []
    study, ends, deaths = Raises(folder, "waits"), Ends(), Deaths()
    monkeypatch.setattr(study, "on_epoch", lambda row: False)
    monkeypatch.setattr(study, "on_end", lambda trial, error: ended.append(error))
    searcher = StudySearcher(study, Resources(), lambda: 1, deaths, ends)
    first = searcher.suggest("0")
    result = {"row": epoch_row().model_dump_json()}

    assert StudyScheduler(study, deaths, ends).on_trial_result(None, Worker(said), result) == "STOP"
    searcher.on_trial_complete("0", result)

    assert ended == ends_with
    if not ends_with:
        assert searcher.suggest("1") == first


def epoch_row() -> EpochRow:
    return EpochRow(
        trial="t", epoch=1, score=0.5, train_loss=1.0, val_loss=1.0, terms={}, iou={}, train_score=None, lr={},
        train_seconds=1.0, val_seconds=1.0, images=1, peak_memory_mb=None, done=False,
    )  # fmt: skip


@pytest.mark.skipif("HARNESS_LONG_TESTS" not in os.environ, reason="a Ray of its own: make test-long")
def test_what_a_study_raises_on_ray_ends_it_and_is_raised_again(tmp_path, tiny_space, monkeypatch):
    folder = new_folder(tmp_path, "search")
    search = Search(folder, tiny_space(trials=5), seed=1)
    monkeypatch.setattr(search.proposals, "tell", lambda *_: Raises(folder, "waits")._refuse())
    resources = Resources(cpus_per_trial=0.5, concurrency=1)
    ray_executor.connect(resources)

    with pytest.raises(RuntimeError, match="database is locked"):
        run_on_ray(search, resources)

    assert len(folder.trials.read()) == 1 and not ray_executor.ray.is_initialized()


def test_a_worker_that_was_dead_before_the_trial_began_does_not_count(tiny_space, folder):
    searcher = new_searcher(Search(folder, tiny_space(trials=1), seed=0))
    first = searcher.suggest("0")
    for death in range(2 * MAX_DEATHS):
        searcher.on_trial_complete(str(death), error=True)
        assert searcher.suggest(str(death + 1)) == first
    assert folder.trials.read() == []


def test_only_an_epoch_that_is_new_is_progress():
    deaths = Deaths()
    for epoch in range(1, 10):
        deaths.epoch("t", epoch)
        assert deaths.death("t", "killed") is None
        deaths.epoch("t", epoch)
        assert deaths.death("t", "killed") is None
    # the epoch of the checkpoint is repeated
    deaths.epoch("t", 9)
    failure = deaths.death("t", "killed")
    assert "died 3 times without finishing an epoch in between (19 times in all), the last time: killed;" in failure


EXIT = "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (EXIT + "Worker unexpectedly exits with a connection error code 2. End of file.", "it was killed or crashed"),
        (EXIT + "Worker exits unexpectedly. Worker exits with an exit code 3.", "it ended by itself, with exit code 3"),
        ("The actor died because its node has died. Node Id: 9d83\n\tthe actor's node was", "its node was lost"),
        ("Task was killed due to the node running low on memory.\nMemory on the", "Ray killed it because its node ran"),
        ("The actor faee is unavailable: The actor is temporarily unavailable: RpcError", "its node does not answer"),
        (
            "Traceback:\n  File\nharness.errors.StudyError: b does not see /x\n\n",
            "harness.errors.StudyError: b",
        ),
    ],
)
def test_what_ray_says_of_a_dead_worker_becomes_a_few_words(said, cause):
    assert cause_of_death(f"Failure # 1 (occurred at 2026)\n{said}\n").startswith(cause)
