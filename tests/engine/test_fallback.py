"""Checkpoints that a run finds damaged when it goes on: the one before them, or a new start, to the same end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.config import Experiment
from harness.engine.trained import open_run
from harness.errors import DiskFull, StudyError
from harness.store import EpochRow, RunFolder

Train = Callable[..., list[EpochRow]]
Build = Callable[..., Experiment]

LAST, PREVIOUS = "last.safetensors", "previous.safetensors"
#: random numbers, momentum and a rate that depend on the epoch
EVENTFUL = {
    "model.head": {"kind": "upernet_style", "channels": 32, "dropout": 0.5},
    "augmentation.policy": "ignitia_phase5",
    "schedule": {"kind": "cosine", "warmup_epochs": 1},
    "optimiser.lr": 0.01,
    "training.epochs": 4,
}


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _change_a_tensor(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1000] ^= 16
    path.write_bytes(content)


def _change_a_score(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'score\\": 0.', b'score\\": 9.', 1))


def _change_the_trial(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"-s0", b"-s1", 1))


DAMAGE = [_cut_short, _empty, _change_a_tensor, _change_a_score, _change_the_trial]


def _repeatable(rows: list[EpochRow]) -> list[dict[str, Any]]:
    return [row.model_dump(exclude={"setup_seconds", "train_seconds", "val_seconds"}) for row in rows]


def _bits(path: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}


@pytest.fixture
def whole(experiment: Build, train: Train, tmp_path: Path) -> list[EpochRow]:
    """The rows of a run of four epochs that nothing disturbed, in the folder `whole`."""
    return train(experiment(EVENTFUL), tmp_path / "whole")


@pytest.fixture
def cut(experiment: Build, train: Train, tmp_path: Path) -> RunFolder:
    """The same run, left after its third epoch."""
    train(experiment(EVENTFUL), tmp_path / "cut", epochs=3)
    return RunFolder(tmp_path / "cut")


def _goes_on_as(whole: list[EpochRow], rows: list[EpochRow], cut: RunFolder) -> None:
    assert _repeatable(rows) == _repeatable(whole[rows[0].epoch - 1 :])
    for name in (LAST, PREVIOUS, "best.safetensors"):
        assert _bits(cut.path / name) == _bits(cut.path.parent / "whole" / name)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_the_run_ends_the_same(
    damage: Callable[[Path], None], whole, cut: RunFolder, experiment: Build, train: Train, caplog
) -> None:
    damage(cut.last)

    with caplog.at_level(logging.WARNING):
        rows = train(experiment(EVENTFUL), cut.path)

    assert [row.epoch for row in rows] == [2, 3, 4]
    _goes_on_as(whole, rows, cut)
    said = r"last.safetensors was damaged ("
    assert said in cut.notes.read_text() and said in caplog.text
    assert "is removed; training goes on from previous.safetensors" in cut.notes.read_text()


@pytest.mark.parametrize("damage", DAMAGE)
def test_with_both_damaged_the_run_starts_anew_and_ends_the_same(
    damage: Callable[[Path], None], whole, cut: RunFolder, experiment: Build, train: Train
) -> None:
    damage(cut.last)
    damage(cut.previous)

    rows = train(experiment(EVENTFUL), cut.path)

    assert [row.epoch for row in rows] == [1, 2, 3, 4]
    _goes_on_as(whole, rows, cut)
    assert "previous.safetensors was damaged" in cut.notes.read_text()
    assert cut.notes.read_text().endswith("training goes on from the beginning\n")


def test_a_kill_between_the_two_renames_leaves_a_checkpoint_to_go_on_from(
    whole, cut: RunFolder, experiment: Build, train: Train
) -> None:
    cut.last.replace(cut.previous)

    rows = train(experiment(EVENTFUL), cut.path)

    assert [row.epoch for row in rows] == [3, 4]
    _goes_on_as(whole, rows, cut)
    assert not cut.notes.exists()


def test_a_damaged_checkpoint_is_not_kept_as_the_one_before(cut: RunFolder, experiment: Build, train: Train) -> None:
    _change_a_tensor(cut.last)
    train(experiment(EVENTFUL), cut.path, epochs=2)  # the second epoch again, and the third
    _change_a_tensor(cut.last)

    rows = train(experiment(EVENTFUL), cut.path)

    assert [row.epoch for row in rows] == [2, 3, 4]


def test_an_undisturbed_run_leaves_no_note(whole, tmp_path: Path) -> None:
    assert whole[-1].done
    assert not RunFolder(tmp_path / "whole").notes.exists()


def test_damaged_best_weights_are_refused_when_they_are_read(experiment: Build, train: Train, tmp_path: Path) -> None:
    train(experiment({"training.epochs": 1}), tmp_path)
    _change_a_tensor(RunFolder(tmp_path).best)

    with pytest.raises(
        StudyError,
        match=r"best\.safetensors: not a readable checkpoint \(its bytes have changed: .+\); train again or give",
    ):
        open_run(RunFolder(tmp_path), torch.device("cpu"))


@pytest.mark.parametrize("file", ["last", "best"])
def test_a_disk_without_room_ends_the_run_by_a_name_and_leaves_what_can_be_resumed(
    file: str, whole, experiment: Build, train: Train, tmp_path: Path, no_room_for
) -> None:
    with no_room_for(f"{file}.safetensors", after=1):
        with pytest.raises(DiskFull, match=r"parts has no room for another file \(No space left on device; [\d,.]+ MB"):
            train(experiment(EVENTFUL), tmp_path / "parts")
    assert not list((tmp_path / "parts").glob(".*")), "half a file was left"

    rows = train(experiment(EVENTFUL), tmp_path / "parts")

    assert rows[0].epoch <= 2
    _goes_on_as(whole, rows, RunFolder(tmp_path / "parts"))
