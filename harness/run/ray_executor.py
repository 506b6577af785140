"""The executor on Ray Tune: one machine or a cluster, fractions of GPUs, reused workers.

Ray is only the executor of the moment. Which trials there are, which stop and what was measured is the
study's business; nothing that Ray writes is read again.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import math
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

# read by ray when it is imported
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")

import ray
import torch
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from harness.config import Experiment, Trial, canonical_json
from harness.errors import StudyError
from harness.run.study import Resources, Study, runs_path
from harness.run.worker import TrialRun
from harness.store import EpochRow

#: a worker that dies (killed, out of memory, node gone) is started again this often for one trial
MAX_WORKER_DEATHS = 2
#: bytes; nothing of ours travels through the object store, so it stays at Ray's minimum
_OBJECT_STORE = 100 * 2**20


def connect(resources: Resources) -> None:
    """Start a local Ray, or join the cluster at `resources.address`.

    Raises:
        StudyError: the cluster cannot be reached or does not have what one trial asks for.
    """
    _connect(resources)
    try:
        _fitting(resources)
    except StudyError:
        ray.shutdown()
        raise


def run_on_ray(study: Study, resources: Resources) -> None:
    """Run a study to its end on the Ray that `connect` started or joined, and leave it."""
    try:
        fits = _fitting(resources)
        concurrency = min(resources.concurrency or fits, fits)
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(concurrency)
        with tempfile.TemporaryDirectory(prefix="harness-ray-") as scratch:
            tune.run(
                TrialActor,
                search_alg=StudySearcher(study, resources, concurrency),
                scheduler=StudyScheduler(study),
                num_samples=-1,
                resources_per_trial={"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial},
                storage_path=scratch,
                reuse_actors=True,
                max_failures=MAX_WORKER_DEATHS,
                raise_on_failed_trial=False,
                verbose=0,
            )
    finally:
        ray.shutdown()


def _connect(resources: Resources) -> None:
    quiet = {"include_dashboard": False} if resources.address is None else {}
    size = {"object_store_memory": _OBJECT_STORE} if resources.address is None else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(
                # without "local", Ray would join a cluster that somebody else started on this machine
                address=resources.address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **quiet,
                **size,
            )
    except ConnectionError as error:
        raise StudyError(
            f"no Ray cluster at address '{resources.address}' ({error}); start one with `ray start --head`, "
            "or leave --address out to use this machine alone"
        ) from error


def _fitting(resources: Resources) -> int:
    """How many trials fit at once.

    Raises:
        StudyError: not even one does.
    """
    # node by node: a trial does not spread over two
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    asked = {"CPU": resources.cpus_per_trial, "GPU": resources.gpus_per_trial}
    fits = sum(_fitting_on(node, asked) for node in nodes)
    if fits < 1:
        have = "; ".join(f"{node.get('CPU', 0):g} and {node.get('GPU', 0):g}" for node in nodes)
        raise StudyError(
            f"one trial asks for {resources.cpus_per_trial:g} CPUs and {resources.gpus_per_trial:g} GPUs; Ray's nodes "
            f"have {have}: lower --cpus-per-trial or --gpus-per-trial"
        )
    return fits


def _fitting_on(node: dict[str, float], asked: dict[str, float]) -> int:
    return min(math.floor(node.get(kind, 0) / amount + 1e-9) for kind, amount in asked.items() if amount > 0)


class TrialActor(tune.Trainable):
    """One worker; it takes one trial after the other, so that torch is imported once."""

    def setup(self, config: dict[str, Any]) -> None:
        _return_freed_memory()
        torch.set_num_threads(config["threads"])
        trial = Trial(Experiment.model_validate_json(config["experiment"]), config["seed"])
        self._run = TrialRun(trial, Path(config["run"]))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._run.close()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        row = self._run.next_row()
        # as text: Ray flattens and copies dictionaries on their way
        return {"error": row} if isinstance(row, str) else {"row": row.model_dump_json()}

    def cleanup(self) -> None:
        self._run.close()


class StudySearcher(Searcher):
    """Hands a study's trials to Ray and Ray's endings to the study."""

    def __init__(self, study: Study, resources: Resources, concurrency: int) -> None:
        super().__init__()
        self.study, self.resources, self.concurrency = study, resources, concurrency
        self.live: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if len(self.live) >= self.concurrency:
            return None
        trial = self.study.next_trial()
        if trial is None:
            return None if self.study.waits() else Searcher.FINISHED
        self.live[trial_id] = trial.id
        return {
            "experiment": canonical_json(trial.experiment),
            "seed": trial.seed,
            "run": str(runs_path(self.study.folder, trial.id)),
            "threads": max(1, int(self.resources.cpus_per_trial)),
        }

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        ours = self.live.pop(trial_id, None)
        if ours is None:
            return
        message = f"its worker died {MAX_WORKER_DEATHS + 1} times (killed, out of memory or its node lost)"
        self.study.on_end(ours, message if error else (result or {}).get("error"))

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the study's journals are the truth."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's journals are the truth."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a study is resumed from its journals")


class StudyScheduler(FIFOScheduler):
    """Passes every epoch to the study, which says whether the trial goes on."""

    def __init__(self, study: Study) -> None:
        super().__init__()
        self.study = study

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if "error" in result:
            return TrialScheduler.STOP
        goes_on = self.study.on_epoch(EpochRow.model_validate(json.loads(result["row"])))
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP


def _return_freed_memory() -> None:
    """Give freed memory back to the system: a reused worker otherwise grows with every trial (glibc arenas)."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
