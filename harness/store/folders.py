"""The file names of a run and of a study, spelt once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from harness.config import Experiment, Trial, dump_yaml, read_section
from harness.errors import StudyError
from harness.store.files import write_text
from harness.store.journal import Journal
from harness.store.rows import EpochRow, TrialRow


@dataclass(frozen=True)
class RunFolder:
    """What one trial writes."""

    path: Path

    @property
    def experiment(self) -> Path:
        return self.path / "experiment.yaml"

    @property
    def last(self) -> Path:
        """Checkpoint to resume from: model, optimiser and, in its header, everything else."""
        return self.path / "last.safetensors"

    @property
    def best(self) -> Path:
        """Weights of the best epoch."""
        return self.path / "best.safetensors"

    @property
    def confusion(self) -> Path:
        """Per-image validation confusion matrices of the best epoch, int64 (N C C+1)."""
        return self.path / "confusion.npz"

    @property
    def test_confusion(self) -> Path:
        """Per-image test confusion matrices of the best weights, where they were asked for."""
        return self.path / "confusion-test.npz"

    def frozen(self, digest: str) -> Path:
        """Weights of an encoder that never trains, shared by the runs beside this one."""
        return self.path.parent / "frozen" / f"{digest}.safetensors"

    def create(self, trial: Trial) -> None:
        """Make the folder and write the Experiment; a folder that is there stays as it is."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.experiment.exists():
            write_text(self.experiment, experiment_text(trial.experiment, f"trial {trial.id}, seed {trial.seed}"))

    def read_experiment(self) -> Experiment:
        """The Experiment of a finished or interrupted run.

        Raises:
            StudyError: there is no run here.
        """
        if not self.experiment.exists():
            raise StudyError(
                f"{self.path}: no run here ({self.experiment.name} is missing); "
                "give a folder such as results/STUDY/runs/TRIAL"
            )
        return read_section(Experiment, self.experiment)


@dataclass(frozen=True)
class StudyFolder:
    """What one study writes."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def settings(self) -> Path:
        """Everything that was asked for, resolved."""
        return self.path / "study.yaml"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def best(self) -> Path:
        return self.path / "best.yaml"

    @property
    def optuna(self) -> Path:
        return self.path / "optuna.db"

    @property
    def trials(self) -> Journal[TrialRow]:
        return Journal(self.path / "trials.jsonl", TrialRow)

    @property
    def epochs(self) -> Journal[EpochRow]:
        return Journal(self.path / "epochs.jsonl", EpochRow)

    @property
    def tiles(self) -> Path:
        """Pictures of a few frames, a folder for image, truth and each arm."""
        return self.path / "tiles"

    def run(self, trial_id: str) -> RunFolder:
        return RunFolder(self.path / "runs" / trial_id)


def experiment_text(experiment: Experiment, *comments: str) -> str:
    """An Experiment as YAML under comment lines."""
    head = "".join(f"# {line}\n" for line in comments)
    return head + dump_yaml(experiment.model_dump(mode="json"))


def results_folder() -> Path:
    """Where studies are written: $HARNESS_RESULTS, or `results` in the working directory."""
    return Path(os.environ.get("HARNESS_RESULTS") or "results")


def find_study(name: str) -> StudyFolder:
    """A study by its name under the results folder, or by its path.

    Raises:
        StudyError: there is none.
    """
    for path in (Path(name), results_folder() / name):
        if (path / "study.yaml").exists():
            return StudyFolder(path)
    known = sorted(p.parent.name for p in results_folder().glob("*/study.yaml"))
    raise StudyError(
        f"study '{name}' does not exist: neither {name}/study.yaml nor {results_folder() / name}/study.yaml "
        f"is there; known studies: {', '.join(known) or 'none'}"
    )
