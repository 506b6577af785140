"""The experiment trackers: one small class for each library, which is loaded where the tracker is asked for.

What a tracker lacks of a trial (a resumed study, a driver that was killed) it takes from the journals when the trial
goes on, every epoch at its own step, so that nothing is there twice.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from harness.config import dump_yaml
from harness.errors import StudyError
from harness.store import EpochRow, StudyFolder, TrialRow

#: values in one call that MLflow takes
_PARAMS_A_CALL = 100
_SOUND = ("complete", "stopped")


@dataclass(frozen=True)
class Facts:
    """What a tracker is told of a trial when it starts or goes on."""

    trial: str
    number: int | None
    seed: int
    picked: Mapping[str, Any]
    #: resolved; empty where the picked values make none
    experiment: Mapping[str, Any]


class Tracker(Protocol):
    """One library; a trial is started once or, where it pauses, several times, and ended once."""

    name: str
    #: what its library raises where its server, network or disk is gone
    errors: tuple[type[Exception], ...]

    def started(self, facts: Facts, rows: Sequence[EpochRow]) -> None:
        """A trial starts or goes on; `rows` are all its epochs so far, of which it takes those that it lacks."""

    def epoch(self, row: EpochRow) -> None:
        """A trial finished an epoch that is new."""

    def paused(self, trial: str) -> None:
        """A trial stops for now."""

    def ended(self, row: TrialRow) -> None:
        """A started trial ended."""

    def close(self) -> None:
        """The study ends, for now or for good."""


class TensorBoard:
    """Event files in STUDY/tensorboard/TRIAL."""

    name = "tensorboard"
    errors = (OSError,)

    def __init__(self, folder: StudyFolder) -> None:
        self.root = folder.path / "tensorboard"
        self.open: dict[str, Any] = {}
        self.sent: dict[str, int] = {}

    def started(self, facts: Facts, rows: Sequence[EpochRow]) -> None:
        last, folder = self.sent.get(facts.trial, -1), self.root / facts.trial
        # all is sent again where an earlier process has written: readers forget what it wrote. Not after a pause in
        # this process: files of one second may be read in another order, and all would be forgotten
        again = folder.exists() and facts.trial not in self.sent
        writer = library(self.name).SummaryWriter(str(folder), purge_step=0 if again else None)
        self.open[facts.trial] = writer
        if last < 0:
            writer.add_text("picked", json.dumps(dict(facts.picked)), 0)
            writer.add_text("experiment", _as_code(dump_yaml(dict(facts.experiment))), 0)
        for row in rows:
            if row.epoch > last:
                self.epoch(row)

    def epoch(self, row: EpochRow) -> None:
        for name, value in measured(row).items():
            self.open[row.trial].add_scalar(name, value, row.epoch)
        self.sent[row.trial] = row.epoch

    def paused(self, trial: str) -> None:
        self.open.pop(trial).close()

    def ended(self, row: TrialRow) -> None:
        self.open[row.trial].add_text("outcome", _outcome(row), row.epochs)
        self.paused(row.trial)

    def close(self) -> None:
        for trial in list(self.open):
            self.paused(trial)


class MLflow:
    """A run for the study and one inside it for each trial, on MLFLOW_TRACKING_URI or in STUDY/mlflow.db."""

    name = "mlflow"

    def __init__(self, folder: StudyFolder) -> None:
        # its own patience, several minutes a call, would hold up the study
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        mlflow = library(self.name)
        # it tells of every table that it makes
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self.entities = import_module("mlflow.entities")
        self.errors = (mlflow.exceptions.MlflowException, OSError)
        self.study = folder.name
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.path.resolve() / 'mlflow.db'}"
        self.client = mlflow.MlflowClient(uri)
        self.experiment: str | None = None
        self.runs: dict[str, str] = {}
        self.sent: dict[str, int] = {}

    def started(self, facts: Facts, rows: Sequence[EpochRow]) -> None:
        run = self._run(facts.trial, {"mlflow.parentRunId": self._parent()})
        self.client.update_run(run, status="RUNNING")
        if facts.trial not in self.sent:
            self.sent[facts.trial] = max((m.step for m in self.client.get_metric_history(run, "score")), default=-1)
            self._log_params(run, facts)
        for row in rows:
            if row.epoch > self.sent[facts.trial]:
                self.epoch(row)

    def epoch(self, row: EpochRow) -> None:
        # the score last: a row is there where its score is
        values = sorted(measured(row).items(), key=lambda item: item[0] == "score")
        now = int(time.time() * 1000)
        metrics = [self.entities.Metric(_plain(name), value, now, row.epoch) for name, value in values]
        self.client.log_batch(self.runs[row.trial], metrics=metrics)
        self.sent[row.trial] = row.epoch

    def paused(self, trial: str) -> None:
        self.client.update_run(self.runs[trial], status="SCHEDULED")

    def ended(self, row: TrialRow) -> None:
        run = self.runs[row.trial]
        self.client.set_tag(run, "outcome", row.outcome)
        if row.error is not None:
            self.client.set_tag(run, "error", row.error)
        if row.score is not None:
            self.client.log_metric(run, "best_score", row.score, step=row.best_epoch)
        self.client.set_terminated(run, "FINISHED" if row.outcome in _SOUND else "FAILED")

    def close(self) -> None:
        if self.study in self.runs:
            self.client.set_terminated(self.runs[self.study], "FINISHED")

    def _parent(self) -> str:
        if self.study not in self.runs:
            self.client.update_run(self._run(self.study, {}), status="RUNNING")
        return self.runs[self.study]

    def _run(self, name: str, tags: Mapping[str, str]) -> str:
        """The run of a trial or of the study, found by its tags or made."""
        if name not in self.runs:
            experiment = self._experiment()
            asked = f"tags.`harness.study` = '{_quoted(self.study)}' and tags.`harness.trial` = '{_quoted(name)}'"
            found = self.client.search_runs([experiment], asked, max_results=1)
            ours = {"harness.study": self.study, "harness.trial": name}
            run = found[0] if found else self.client.create_run(experiment, tags={**ours, **tags}, run_name=name)
            self.runs[name] = run.info.run_id
        return self.runs[name]

    def _experiment(self) -> str:
        if self.experiment is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "harness"
            found = self.client.get_experiment_by_name(name)
            self.experiment = found.experiment_id if found else self.client.create_experiment(name)
        return self.experiment

    def _log_params(self, run: str, facts: Facts) -> None:
        picked = {f"picked.{name}": value for name, value in facts.picked.items()}
        values = {"seed": facts.seed, **picked, **flat(facts.experiment, "experiment")}
        params = [self.entities.Param(_plain(name), str(value)) for name, value in values.items()]
        for start in range(0, len(params), _PARAMS_A_CALL):
            self.client.log_batch(run, params=params[start : start + _PARAMS_A_CALL])


class WandB:
    """A run for each trial, grouped by study; WANDB_MODE, WANDB_PROJECT and the rest as everywhere.

    Offline, where a run cannot be continued, each start of a trial makes a folder that holds all its epochs so far:
    of several folders of one run the last is the whole.
    """

    name = "wandb"

    def __init__(self, folder: StudyFolder) -> None:
        self.wandb = library(self.name)
        mailbox = import_module("wandb.sdk.mailbox")
        self.errors = (self.wandb.Error, mailbox.MailboxClosedError, mailbox.HandleAbandonedError, OSError)
        self.folder = folder
        self.open: dict[str, Any] = {}

    def started(self, facts: Facts, rows: Sequence[EpochRow]) -> None:
        run = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "harness",
            dir=str(self.folder.path),
            id=re.sub(r"[^\w.-]", "-", f"{self.folder.name}-{facts.trial}"),
            name=facts.trial if facts.number is None else f"{facts.number} {facts.trial}",
            group=self.folder.name,
            config={"seed": facts.seed, "picked": dict(facts.picked), "experiment": dict(facts.experiment)},
            resume="allow",
            # several trials run at once in one driver
            reinit="create_new",
            settings=self.wandb.Settings(
                silent=True, console="off", symlink=False, disable_git=True, disable_code=True, x_disable_stats=True
            ),
        )
        # a link out of the study's folder, which may hold none
        (Path(run.dir).parent / "logs" / "debug-core.log").unlink(missing_ok=True)
        self.open[facts.trial] = run
        for row in rows:
            # a run that the server had before goes on at the step after its last
            if row.epoch >= run.step:
                self.epoch(row)

    def epoch(self, row: EpochRow) -> None:
        self.open[row.trial].log(measured(row), step=row.epoch)

    def paused(self, trial: str) -> None:
        self.open.pop(trial).finish(exit_code=0)

    def ended(self, row: TrialRow) -> None:
        run = self.open.pop(row.trial)
        run.summary.update({"outcome": row.outcome, "error": row.error, "best_score": row.score})
        run.finish(exit_code=int(row.outcome not in _SOUND))

    def close(self) -> None:
        for trial in list(self.open):
            self.paused(trial)


#: name to the tracker, the module it needs
TRACKERS: dict[str, tuple[Callable[[StudyFolder], Tracker], str]] = {
    "tensorboard": (TensorBoard, "torch.utils.tensorboard"),
    "mlflow": (MLflow, "mlflow"),
    "wandb": (WandB, "wandb"),
}


def library(name: str) -> ModuleType:
    """A tracker's library, loaded only where the tracker is asked for.

    Raises:
        StudyError: it is missing.
    """
    try:
        return import_module(TRACKERS[name][1])
    except ImportError as error:
        raise StudyError(
            f"--tracker {name}: its library is not installed ({error}); pip install 'harness[trackers]', "
            "or leave the option out"
        ) from error


def measured(row: EpochRow) -> dict[str, float]:
    """All numbers of an epoch by name; what was not measured is left out."""
    values = {
        "score": row.score,
        "train_score": row.train_score,
        "train_loss": row.train_loss,
        "val_loss": row.val_loss,
        "train_seconds": row.train_seconds,
        "val_seconds": row.val_seconds,
        "peak_memory_mb": row.peak_memory_mb,
        **{f"terms/{name}": value for name, value in row.terms.items()},
        **{f"lr/{name}": value for name, value in row.lr.items()},
        **{f"iou/{name}": value for name, value in row.iou.items()},
    }
    return {name: value for name, value in values.items() if value is not None}


def flat(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Nested mappings as dotted names; lists stay whole."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        here = f"{path}.{key}"
        found |= flat(value, here) if isinstance(value, Mapping) and value else {here: value}
    return found


def _plain(name: str) -> str:
    """A name in the characters that MLflow allows."""
    return re.sub(r"[^\w\-. /:]", "_", name)


def _quoted(text: str) -> str:
    return text.replace("'", "\\'")


def _as_code(text: str) -> str:
    """A block as Markdown shows it unchanged."""
    return "".join(f"    {line}\n" for line in text.splitlines())


def _outcome(row: TrialRow) -> str:
    return row.outcome if row.error is None else f"{row.outcome}: {row.error}"
