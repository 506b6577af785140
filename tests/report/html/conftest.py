"""Searches on disk, made up: rows with known scores, nothing trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.config import SearchSettings, Space, dump_yaml, validate_section
from harness.report.html.search_data import SearchData, read_search_data
from harness.search.strategies import rung_rule
from harness.search.values import Picked, random_pick
from harness.store import EpochRow, StudyFolder, TrialRow, write_json, write_text

LR: dict[str, Any] = {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True}
DICE: dict[str, Any] = {"kind": "float", "field": "loss.dice.weight", "low": 0.0, "high": 2.0}


class MadeUpSearch:
    """Writes a search's folder, trial by trial; the journals are written by `read`."""

    def __init__(self, path: Path, parameters: dict[str, Any], epochs: int = 9, **search: Any) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.folder = StudyFolder(path)
        search = {"strategy": "random_asha", "grace_epochs": 1, "reduction_factor": 3} | search
        space = {"experiment": {"training": {"epochs": epochs}}, "search": search, "parameters": parameters}
        values = {"space": space, "seed": 0, "dataset": "0123456789ab"}
        self.settings = validate_section(SearchSettings, values, "settings")
        self.ends: list[TrialRow] = []
        self.rows: list[EpochRow] = []
        self.number = 0

    @property
    def space(self) -> Space:
        return self.settings.space

    @staticmethod
    def row(trial: str, epoch: int, score: float, **fields: Any) -> EpochRow:
        """An epoch's row as a training would yield it."""
        return epoch_row(trial, epoch, score, **fields)

    def trial(self, picked: Picked, scores: Sequence[float], outcome: str | None = "complete", **fields: Any) -> str:
        """A trial with a score after each epoch, from 1; outcome None: it has not ended. Returns its id."""
        trial, number = f"t{self.number}", self.number
        self.number += 1
        rows = [epoch_row(trial, epoch, score, **fields) for epoch, score in enumerate(scores, 1)]
        self.rows += rows
        if outcome is not None:
            best = max(rows, key=lambda r: r.score, default=None)
            self.ends.append(
                TrialRow(
                    trial=trial,
                    number=number,
                    outcome=outcome,
                    seed=0,
                    picked=picked,
                    score=best.score if best else None,
                    best_epoch=best.epoch if best else None,
                    epochs=len(rows),
                    seconds=sum(r.train_seconds + r.val_seconds for r in rows),
                    error="out of memory" if outcome == "failed" else None,
                )  # fmt: skip
            )
        return trial

    def halving(self, trials: int, score: Callable[[Picked, int], float], seed: int = 0, **fields: Any) -> MadeUpSearch:
        """Trials of random values, stopped at the rungs as the search itself would."""
        rule = rung_rule(self.space.search, self.space.experiment.training.epochs)
        rng = np.random.default_rng(seed)
        for _ in range(trials):
            picked, scores = random_pick(self.space, rng), []
            for epoch in range(1, self.space.experiment.training.epochs + 1):
                scores.append(score(picked, epoch))
                if rule.report(f"t{self.number}", epoch, scores[-1]) == "stop":
                    break
            whole = len(scores) == self.space.experiment.training.epochs
            self.trial(picked, scores, "complete" if whole else "stopped", **fields)
        return self

    def read(self) -> SearchData:
        write_text(self.folder.settings, dump_yaml(self.settings.model_dump(mode="json")))
        write_json(self.folder.provenance, {"created": "2026-01-01T00:00:00+00:00", "resources": {"gpus_per_trial": 1}})
        write_text(self.folder.trials.path, "".join(f"{row.model_dump_json()}\n" for row in self.ends))
        write_text(self.folder.epochs.path, "".join(f"{row.model_dump_json()}\n" for row in self.rows))
        return read_search_data(self.folder)


def epoch_row(trial: str, epoch: int, score: float, **fields: Any) -> EpochRow:
    """An epoch's row; what is not named has a fixed value."""
    values: dict[str, Any] = {
        "train_loss": 1.0, "val_loss": 1.0, "terms": {}, "iou": {"Sky": 0.9, "Rocks": 0.2, "Logs": None},
        "train_score": None, "lr": {}, "train_seconds": 8.0, "val_seconds": 2.0, "images": 100,
        "parameters": 1_234_567, "peak_memory_mb": 512.0, "done": False,
    }  # fmt: skip
    return EpochRow(trial=trial, epoch=epoch, score=score, **values | fields)


@pytest.fixture
def search_of(tmp_path: Path) -> Callable[..., MadeUpSearch]:
    """Starts a search: `search_of(parameters, epochs=9, strategy=...)`; lr and dice unless others are given."""

    def start(parameters: dict[str, Any] | None = None, epochs: int = 9, **search: Any) -> MadeUpSearch:
        return MadeUpSearch(tmp_path / "hunt", parameters or {"lr": LR, "dice": DICE}, epochs, **search)

    return start
