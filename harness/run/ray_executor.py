"""The executor on Ray Tune: one machine or a cluster, fractions of GPUs, reused workers.

Ray is only the executor of the moment. Which trials there are, which stop and what was measured is the
study's business; nothing that Ray writes is read again.
"""

from __future__ import annotations

from harness.run.cluster import Room, check_nodes, connect, own_code

# isort: split
# ray.tune reads its variables when it is imported, ray its own in harness.run.cluster
import ctypes
import gc
import json
import logging
import os
import re
import socket
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# Ctrl-C is ours, see harness.run.interrupt
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
# nothing that Tune writes is read again: without its snapshots the driver keeps less of every trial
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "inf")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
# the study says how a trial ended, in one line
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
# how many trials may wait for room in Ray; how many there are at all is the searcher's business
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "1000")

import ray
import torch
from ray import tune
from ray.exceptions import RayError
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from harness.config import Experiment, Trial, canonical_json
from harness.errors import StudyError
from harness.run.study import Resources, Study, Wrapped, runs_path
from harness.run.worker import TrialRun
from harness.store import EpochRow, Failure, TrialRow

__all__ = ["StudyScheduler", "StudySearcher", "TrialActor", "connect", "run_on_ray"]

#: deaths of a trial's worker since the trial's last finished epoch, after which it fails
MAX_DEATHS = 3
#: the same of nodes that went with it: a machine that is taken away is not the trial's fault, unless it always is
MAX_LOSSES = 20

T = TypeVar("T")


def run_on_ray(study: Study, resources: Resources) -> None:
    """Run a study to its end on the Ray that `connect` started or joined, and leave it.

    Raises:
        StudyError: a node of the cluster has other code, or does not see the study's folder.
        Exception: what the study raised first; nothing was handed out after it.
    """
    study = Whole(study)
    # "trials did not complete": those whose worker died have gone on under other names of Ray's
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    ends, deaths = Ends(), Deaths()
    try:
        if resources.address is not None:
            check_nodes(study.folder.path, resources)
        with tempfile.TemporaryDirectory(prefix="harness-ray-") as scratch:
            tune.run(
                TrialActor,
                search_alg=StudySearcher(study, resources, Room(resources), deaths, ends),
                scheduler=StudyScheduler(study, deaths, ends),
                num_samples=-1,
                resources_per_trial={"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial or 0.0},
                storage_path=scratch,
                reuse_actors=True,
                # none that Ray counts: it would fail a trial for a worker that died while it waited for a trial
                max_failures=0,
                raise_on_failed_trial=False,
                verbose=0,
            )
    finally:
        ray.shutdown()
    study.check()


class TrialActor(tune.Trainable):
    """One worker; it takes one trial after the other, so that torch is imported once."""

    def setup(self, config: dict[str, Any]) -> None:
        _check_code(config["code"])
        trial = Trial(Experiment.model_validate_json(config["experiment"]), config["seed"])
        _check_sees(config["study"], trial.experiment.data.root)
        _return_freed_memory()
        torch.set_num_threads(config["threads"])
        self._run = TrialRun(trial, Path(config["run"]), config["device"], config["known"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._run.close()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        row = self._run.next_row()
        # as text: Ray flattens and copies dictionaries on their way
        if isinstance(row, Failure):
            return {"error": str(row), "cause": row.cause}
        return {"row": row.model_dump_json()}

    def finish(self) -> Failure | None:
        """Let go of the trial, all its files written, and say what went wrong with them."""
        return self._run.close()

    def cleanup(self) -> None:
        self._run.close()


class Whole(Wrapped):
    """A study that, once one of its calls has raised, hands out and hears of nothing more.

    Tune logs some of what its searcher and its scheduler raise, and goes on with half a study.
    """

    def __init__(self, study: Study) -> None:
        super().__init__(study)
        self.error: Exception | None = None

    def next_trial(self) -> Trial | None:
        return self._ask(self.study.next_trial, None)

    def waits(self) -> bool:
        return self._ask(self.study.waits, False)

    def may_go_on(self) -> bool:
        return self._ask(self.study.may_go_on, False)

    def on_epoch(self, row: EpochRow) -> bool:
        return self._ask(partial(self.study.on_epoch, row), False)

    def on_end(self, trial_id: str, error: str | None = None) -> TrialRow | None:
        return self._ask(partial(self.study.on_end, trial_id, error), None)

    def check(self) -> None:
        """Raise what a call raised, where one did."""
        if self.error is not None:
            raise self.error

    def _ask(self, call: Callable[[], T], otherwise: T) -> T:
        if self.error is not None:
            return otherwise
        try:
            return call()
        except Exception as error:  # `check` raises it again
            self.error = error
            return otherwise


class Deaths:
    """How often the worker of each trial died, alone or with its node, in all and since the last epoch that was new."""

    def __init__(self) -> None:
        self.epochs: dict[str, int] = {}
        self.in_all: Counter[str] = Counter()
        self.in_vain: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()

    def epoch(self, trial: str, epoch: int) -> None:
        """A trial finished an epoch; what it repeats after a death is no progress."""
        if epoch > self.epochs.get(trial, -1):
            self.epochs[trial], self.in_vain[trial], self.lost[trial] = epoch, 0, 0

    def death(self, trial: str, cause: str) -> Failure | None:
        """A trial's worker died; what is to be said where the trial is to fail for it."""
        self.in_all[trial] += 1
        (self.lost if cause in _NODE_GONE else self.in_vain)[trial] += 1
        if self.in_vain[trial] < MAX_DEATHS and self.lost[trial] < MAX_LOSSES:
            return None
        return Failure(
            f"its worker died {self.in_vain[trial] + self.lost[trial]} times without finishing an epoch in between "
            f"({self.in_all[trial]} times in all), the last time: {cause}; if memory is short, run fewer trials at "
            "once (--concurrency) or lower training.batch_size, data.input_size or training.workers",
            "memory" if cause == _NODE_FULL else "error",
        )


class Ends:
    """By Ray's names of trials: why their workers died, and what could not be written of those that stopped."""

    def __init__(self) -> None:
        self.died: dict[str, str] = {}
        self.unwritten: dict[str, Failure] = {}


class StudySearcher(Searcher):
    """Hands a study's trials to Ray and Ray's endings to the study.

    A trial whose worker died is handed to Ray again, as a trial of another name: it goes on from its checkpoint.
    """

    def __init__(self, study: Study, resources: Resources, room: Callable[[], int], deaths: Deaths, ends: Ends) -> None:
        """Take how many trials may run now, and how those that ended did."""
        super().__init__()
        self.study, self.resources, self.room, self.deaths, self.ends = study, resources, room, deaths, ends
        self.live: dict[str, Trial] = {}
        self.again: list[Trial] = []

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if len(self.live) >= self.room():
            return None
        trial = self._again() or self.study.next_trial()
        if trial is None:
            # the worker of a live trial may die yet
            return None if self.live or self.study.waits() else Searcher.FINISHED
        self.live[trial_id] = trial
        return {
            "code": own_code() if self.resources.address is not None else None,
            "experiment": canonical_json(trial.experiment),
            "seed": trial.seed,
            "study": str(self.study.folder.path.resolve()),
            "run": str(runs_path(self.study.folder, trial.id)),
            "known": self.study.record.last_epoch(trial.id),
            "threads": max(1, int(self.resources.cpus_per_trial)),
            "device": self.resources.device,
        }

    def _again(self) -> Trial | None:
        """One whose worker died; a study that was stopped meanwhile hears that they were interrupted."""
        while self.again and not self.study.may_go_on():
            self.study.on_end(self.again.pop(0).id)
        return self.again.pop(0) if self.again else None

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        trial = self.live.pop(trial_id, None)
        if trial is None:
            return
        died = error or trial_id in self.ends.died
        failure = self._of_death(trial, trial_id) if died else self._failure(trial_id, result or {})
        if died and failure is None:
            self.again.append(trial)
        else:
            self.study.on_end(trial.id, failure)

    def _of_death(self, trial: Trial, trial_id: str) -> Failure | None:
        cause = self.ends.died.pop(trial_id, None)
        # without a cause, its worker was dead before it could begin
        return None if cause is None else self.deaths.death(trial.id, cause)

    def _failure(self, trial_id: str, result: dict[str, Any]) -> Failure | None:
        if "error" in result:
            return Failure(result["error"], result.get("cause", "error"))
        return self.ends.unwritten.pop(trial_id, None)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the study's journals are the truth."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's journals are the truth."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a study is resumed from its journals")


class StudyScheduler(FIFOScheduler):
    """Passes every epoch to the study, which says whether the trial goes on."""

    def __init__(self, study: Study, deaths: Deaths, ends: Ends) -> None:
        super().__init__()
        self.study, self.deaths, self.ends = study, deaths, ends

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if "error" in result:
            return TrialScheduler.STOP
        row = EpochRow.model_validate(json.loads(result["row"]))
        self.deaths.epoch(row.trial, row.epoch)
        if self.study.on_epoch(row):
            return TrialScheduler.CONTINUE
        self._finish(trial)
        return TrialScheduler.STOP

    def _finish(self, trial: Any) -> None:
        """Wait for the files of a trial that stops: it has ended once they are on the disk, and not before.

        Tune itself gives a worker ten seconds, and does not look at what it says.
        """
        try:
            unwritten = ray.get(trial.temporary_state.ray_actor.finish.remote())
        except RayError as error:
            self.ends.died[trial.trial_id] = cause_of_death(str(error))
        else:
            if unwritten is not None:
                self.ends.unwritten[trial.trial_id] = unwritten

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # one that is handed a worker of an earlier trial is pending until that has taken it
        if trial.status == trial.RUNNING:
            self.ends.died[trial.trial_id] = cause_of_death(Path(trial.error_file).read_text())


def cause_of_death(said: str) -> str:
    """What Ray says of a worker's end, in a few words."""
    for words, cause in _CAUSES.items():
        if (found := re.search(words, said)) is not None:
            return cause.format(*found.groups())
    return [line for line in said.splitlines() if line.strip()][-1].strip()


_NODE_LOST, _NODE_SILENT = "its node was lost", "its node does not answer"
_NODE_FULL = "Ray killed it because its node ran out of memory"
_NODE_GONE = (_NODE_LOST, _NODE_SILENT)
#: what Ray writes, and what it means; anything else is an exception, whose last line says what it is
_CAUSES = {
    r"node has died|node was terminated": _NODE_LOST,
    r"node running low on memory|memory usage threshold": _NODE_FULL,
    r"exits with an exit code (\d+)": "it ended by itself, with exit code {}",
    r"connection error code": "it was killed or crashed (`dmesg` there says whether the kernel did it for memory)",
    r"actor \S+ is unavailable": _NODE_SILENT,
}


def _check_code(drivers: str | None) -> None:
    """Refuse to train with other code than the driver's, on a node that has joined since `check_nodes`."""
    if drivers not in (None, own_code()):
        raise StudyError(
            f"{socket.gethostname()} has harness {own_code()} instead of {drivers}: install the same on every node"
        )


def _check_sees(*folders: str | None) -> None:
    """Refuse to train where a trial would write to, or read from, what other nodes do not see."""
    for folder in folders:
        if folder is not None and not Path(folder).expanduser().is_dir():
            raise StudyError(f"{socket.gethostname()} does not see {folder}: mount the shared storage there")


def _return_freed_memory() -> None:
    """Give freed memory back to the system: a reused worker otherwise grows with every trial (glibc arenas)."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
