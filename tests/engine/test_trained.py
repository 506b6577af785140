from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from harness.config import Experiment, Trial
from harness.engine.trained import open_run
from harness.errors import StudyError
from harness.store import EpochRow, RunFolder

CPU = torch.device("cpu")


def test_a_finished_run_opens_with_the_weights_of_its_best_epoch(
    experiment: Callable[..., Experiment], train: Callable[..., list[EpochRow]], tmp_path: Path
) -> None:
    rows = train(experiment({"optimiser.lr": 0.01}), tmp_path)

    trained = open_run(RunFolder(tmp_path), CPU)

    best = max(rows, key=lambda row: row.score)
    assert (trained.epoch, trained.score) == (best.epoch, best.score)
    assert trained.experiment == experiment({"optimiser.lr": 0.01})
    assert len(trained.taxonomy.names) == 10
    assert not trained.model.training
    saved = load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(tensor, saved[f"model.{name}"]) for name, tensor in trained.model.state_dict().items())


def test_no_pretrained_weights_are_looked_for(
    experiment: Callable[..., Experiment],
    train: Callable[..., list[EpochRow]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train(experiment({"training.epochs": 1}), tmp_path)
    file = RunFolder(tmp_path).experiment
    file.write_text(file.read_text().replace("weights: none", "weights: pretrained"))

    def refuse(_config: object) -> Path:
        raise AssertionError("asked for pretrained weights")

    monkeypatch.setattr("harness.models.build.pretrained_file", refuse)

    trained = open_run(RunFolder(tmp_path), CPU)

    assert trained.experiment.model.weights == "pretrained"
    assert trained.epoch == 1


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"no run here \(experiment\.yaml is missing\); give a folder such as"):
        open_run(RunFolder(tmp_path), CPU)


def test_a_run_without_a_finished_epoch_is_refused(experiment: Callable[..., Experiment], tmp_path: Path) -> None:
    RunFolder(tmp_path).create(Trial(experiment(), 0))

    with pytest.raises(StudyError, match=r"no epoch is finished \(best\.safetensors is missing\)"):
        open_run(RunFolder(tmp_path), CPU)
