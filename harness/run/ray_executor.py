"""The executor on Ray Tune: one machine or a cluster, fractions of GPUs, reused workers.

Ray is only the executor of the moment. Which trials there are, which stop and what was measured is the
study's business; nothing that Ray writes is read again.
"""

from __future__ import annotations

from harness.run.cluster import Room, check_nodes, connect

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
from pathlib import Path
from typing import Any

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
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from harness.config import Experiment, Trial, canonical_json
from harness.errors import StudyError
from harness.run.study import Resources, Study, runs_path
from harness.run.worker import TrialRun
from harness.store import EpochRow, Failure

__all__ = ["StudyScheduler", "StudySearcher", "TrialActor", "connect", "run_on_ray"]

#: deaths of a trial's worker since the trial's last finished epoch, after which it fails
MAX_DEATHS = 3


def run_on_ray(study: Study, resources: Resources) -> None:
    """Run a study to its end on the Ray that `connect` started or joined, and leave it.

    Raises:
        StudyError: a node of the cluster has other code, or does not see the study's folder.
    """
    # "trials did not complete": those whose worker died have gone on under other names of Ray's
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    causes: dict[str, str] = {}
    deaths = Deaths()
    try:
        if resources.address is not None:
            check_nodes(study.folder.path, resources)
        with tempfile.TemporaryDirectory(prefix="harness-ray-") as scratch:
            tune.run(
                TrialActor,
                search_alg=StudySearcher(study, resources, Room(resources), deaths, causes),
                scheduler=StudyScheduler(study, deaths, causes),
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


class TrialActor(tune.Trainable):
    """One worker; it takes one trial after the other, so that torch is imported once."""

    def setup(self, config: dict[str, Any]) -> None:
        trial = Trial(Experiment.model_validate_json(config["experiment"]), config["seed"])
        _check_sees(config["study"], trial.experiment.data.root)
        _return_freed_memory()
        torch.set_num_threads(config["threads"])
        self._run = TrialRun(trial, Path(config["run"]), config["device"])
        self._unwritten: Failure | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        unwritten = self._run.close()
        self.setup(new_config)
        # a disk without room stops the study, whichever trial says so; any other error is that of the trial before,
        # which has ended, and stands in its folder
        self._unwritten = unwritten if unwritten is not None and unwritten.cause == "disk" else None
        return True

    def step(self) -> dict[str, Any]:
        row = self._unwritten or self._run.next_row()
        # as text: Ray flattens and copies dictionaries on their way
        if isinstance(row, Failure):
            return {"error": str(row), "cause": row.cause}
        return {"row": row.model_dump_json()}

    def cleanup(self) -> None:
        self._run.close()


class Deaths:
    """How often the worker of each trial died, in all and since the last epoch that was new."""

    def __init__(self) -> None:
        self.epochs: dict[str, int] = {}
        self.in_all: Counter[str] = Counter()
        self.in_vain: Counter[str] = Counter()

    def epoch(self, trial: str, epoch: int) -> None:
        """A trial finished an epoch; what it repeats after a death is no progress."""
        if epoch > self.epochs.get(trial, -1):
            self.epochs[trial], self.in_vain[trial] = epoch, 0

    def death(self, trial: str, cause: str) -> Failure | None:
        """A trial's worker died; what is to be said where the trial is to fail for it."""
        self.in_all[trial] += 1
        self.in_vain[trial] += 1
        if self.in_vain[trial] < MAX_DEATHS:
            return None
        return Failure(
            f"its worker died {self.in_vain[trial]} times without finishing an epoch in between "
            f"({self.in_all[trial]} times in all), the last time: {cause}; if memory is short, run fewer trials at "
            "once (--concurrency) or lower training.batch_size, data.input_size or training.workers"
        )


class StudySearcher(Searcher):
    """Hands a study's trials to Ray and Ray's endings to the study.

    A trial whose worker died is handed to Ray again, as a trial of another name: it goes on from its checkpoint.
    """

    def __init__(
        self, study: Study, resources: Resources, room: Callable[[], int], deaths: Deaths, causes: dict[str, str]
    ) -> None:
        """Take how many trials may run now, and why workers died, by Ray's names of their trials."""
        super().__init__()
        self.study, self.resources, self.room, self.deaths, self.causes = study, resources, room, deaths, causes
        self.live: dict[str, Trial] = {}
        self.again: list[Trial] = []

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if len(self.live) >= self.room():
            return None
        trial = self.again.pop(0) if self.again else self.study.next_trial()
        if trial is None:
            # the worker of a live trial may die yet
            return None if self.live or self.study.waits() else Searcher.FINISHED
        self.live[trial_id] = trial
        return {
            "experiment": canonical_json(trial.experiment),
            "seed": trial.seed,
            "study": str(self.study.folder.path.resolve()),
            "run": str(runs_path(self.study.folder, trial.id)),
            "threads": max(1, int(self.resources.cpus_per_trial)),
            "device": self.resources.device,
        }

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        trial = self.live.pop(trial_id, None)
        if trial is None:
            return
        failure = self._failure(trial, trial_id) if error else _failure(result or {})
        if error and failure is None:
            self.again.append(trial)
        else:
            self.study.on_end(trial.id, failure)

    def _failure(self, trial: Trial, trial_id: str) -> Failure | None:
        cause = self.causes.pop(trial_id, None)
        # without a cause, its worker was dead before it could begin
        return None if cause is None else self.deaths.death(trial.id, cause)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the study's journals are the truth."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's journals are the truth."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a study is resumed from its journals")


def _failure(result: dict[str, Any]) -> Failure | None:
    return Failure(result["error"], result.get("cause", "error")) if "error" in result else None


class StudyScheduler(FIFOScheduler):
    """Passes every epoch to the study, which says whether the trial goes on."""

    def __init__(self, study: Study, deaths: Deaths, causes: dict[str, str]) -> None:
        super().__init__()
        self.study, self.deaths, self.causes = study, deaths, causes

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if "error" in result:
            return TrialScheduler.STOP
        row = EpochRow.model_validate(json.loads(result["row"]))
        self.deaths.epoch(row.trial, row.epoch)
        return TrialScheduler.CONTINUE if self.study.on_epoch(row) else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # one that is handed a worker of an earlier trial is pending until that has taken it
        if trial.status == trial.RUNNING:
            self.causes[trial.trial_id] = cause_of_death(Path(trial.error_file).read_text())


def cause_of_death(said: str) -> str:
    """What Ray says of a worker's end, in a few words."""
    for words, cause in _CAUSES.items():
        if (found := re.search(words, said)) is not None:
            return cause.format(*found.groups())
    return [line for line in said.splitlines() if line.strip()][-1].strip()


#: what Ray writes, and what it means; anything else is an exception, whose last line says what it is
_CAUSES = {
    r"node has died|node was terminated": "its node was lost",
    r"node running low on memory|memory usage threshold": "Ray killed it because its node ran out of memory",
    r"exits with an exit code (\d+)": "it ended by itself, with exit code {}",
    r"connection error code": "it was killed or crashed (`dmesg` there says whether the kernel did it for memory)",
    r"actor \S+ is unavailable": "its node does not answer",
}


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
