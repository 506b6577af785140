"""A searched value that reached nothing is noticed, and one that may act later is not taken for it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.config import Experiment, SearchSettings, Space, apply_overrides, dump_yaml, validate_section
from harness.report.unreached import LATER, find_unreached, unreached
from harness.store import EpochRow, Record, StudyFolder, TrialRow

FIELDS = {"lr": "optimiser.lr", "clip": "optimiser.clip_norm", "epochs": "training.epochs", "floor": "schedule.floor"}
SAME = [(1.25, 1.5), (1.125, 1.375)]


def trial(number: int, seed: int = 0, **picked: Any) -> TrialRow:
    return TrialRow(
        trial=f"t{number}", number=number, outcome="complete", seed=seed, picked=picked, score=0.5, best_epoch=1,
        epochs=1, seconds=1.0, error=None,
    )  # fmt: skip


def rows(number: int, losses: list[tuple[float | None, float]], first: int = 1) -> list[EpochRow]:
    return [
        EpochRow(
            trial=f"t{number}", epoch=epoch, score=0.5, train_loss=train, val_loss=val, terms={}, iou={},
            train_score=None, lr={}, train_seconds=1.0, val_seconds=1.0, images=1, peak_memory_mb=None, done=False,
        )
        for epoch, (train, val) in enumerate(losses, first)
    ]  # fmt: skip


def found(trials: list[TrialRow], losses: Mapping[int, list], first: int = 1) -> list[tuple[int, int, set[str]]]:
    """First, second, and the parameters of each pair."""
    pairs = find_unreached(
        trials,
        {f"t{number}": rows(number, pair, first) for number, pair in losses.items()},
        lambda row: apply_overrides(Experiment(), {FIELDS[name]: value for name, value in row.picked.items()}),
    )
    return [(pair.first.number, pair.second.number, set(pair.parameters)) for pair in pairs]


def test_two_experiments_with_the_same_losses_are_named_with_what_they_differ_in():
    trials = [trial(0, lr=0.1, clip=1.0), trial(1, lr=0.1, clip=5.0), trial(2, lr=0.2, clip=1.0)]
    assert found(trials, {0: SAME, 1: SAME, 2: [(1.0, 1.5)]}) == [(0, 1, {"clip"})]


@pytest.mark.parametrize(
    "other", [(1.25, 1.5000000000000002), (1.2500000000000002, 1.5)], ids=["validation", "training"]
)
def test_a_difference_in_the_last_bit_is_an_effect(other):
    trials = [trial(0, clip=1.0), trial(1, clip=5.0)]
    assert found(trials, {0: [(1.25, 1.5)], 1: [other]}) == []
    assert found(trials, {0: SAME, 1: [SAME[0], other]}) == []


def test_only_epochs_that_both_ran_are_compared():
    trials = [trial(0, clip=1.0), trial(1, clip=5.0)]
    assert found(trials, {0: SAME, 1: SAME[:1]}) == [(0, 1, {"clip"})]
    assert found(trials, {0: SAME, 1: []}) == []
    assert found(trials, {0: SAME}) == []


def test_the_starting_weights_epoch_0_is_no_effect_of_anything():
    assert found([trial(0, clip=1.0), trial(1, clip=5.0)], {0: [(None, 1.5)], 1: [(None, 1.5)]}, first=0) == []


@pytest.mark.parametrize("values", [{"epochs": (5, 9)}, {"floor": (0.0, 0.5)}, {"epochs": (5, 9), "floor": (0.0, 0.5)}])
def test_values_that_may_act_later_are_no_fault(values):
    trials = [trial(number, **{name: pair[number] for name, pair in values.items()}) for number in (0, 1)]
    assert found(trials, {0: SAME[:1], 1: SAME[:1]}) == []


def test_a_value_that_must_act_is_a_fault_beside_one_that_may_act_later():
    trials = [trial(0, clip=1.0, epochs=5), trial(1, clip=5.0, epochs=9)]
    assert found(trials, {0: SAME, 1: SAME}) == [(0, 1, {"clip", "epochs"})]


def test_the_same_values_with_another_seed_are_not_another_experiment():
    assert found([trial(0, clip=1.0), trial(1, seed=1, clip=1.0)], {0: SAME, 1: SAME}) == []


def test_many_equal_trials_are_each_paired_with_the_first():
    trials = [trial(number, clip=float(number + 1)) for number in (3, 1, 2, 0)]
    assert found(trials, dict.fromkeys(range(4), SAME)) == [(0, 1, {"clip"}), (0, 2, {"clip"}), (0, 3, {"clip"})]


def test_every_field_that_may_act_later_exists():
    values = Experiment().model_dump()
    for path in LATER:
        here = values
        for part in path.split("."):
            assert part in here, path
            here = here[part]


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    """A search of two parameters with two trials, written by hand."""
    folder = StudyFolder(tmp_path)
    parameters = {
        "clip": {"kind": "float", "field": "optimiser.clip_norm", "low": 1, "high": 9},
        "head": {"kind": "choice", "field": "training.drop_last", "choices": [True, False]},
    }
    settings = SearchSettings(
        space=validate_section(Space, {"parameters": parameters}, "space"), seed=0, dataset="f00d"
    )
    folder.settings.write_text(dump_yaml(settings.model_dump(mode="json")))
    for row in (trial(0, clip=1.0, head=True), trial(1, clip=5.0, head=True)):
        folder.trials.append(row)
    return folder


def shown(folder: StudyFolder) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(unreached(folder), soft_wrap=True)
    return console.file.getvalue()


def test_a_search_on_disk_is_read_and_the_pair_said_in_a_sentence(study):
    record = Record(study)
    for number in (0, 1):
        for row in rows(number, SAME):
            record.add_epoch(row)
    said = shown(study)
    assert "searched values that changed nothing" in said
    assert "trials 0 and 1 have the same losses to the last bit in all 2 epochs that both ran, and differ in " in said
    assert "differ in clip (1.0 / 5.0)\n" in said


def test_a_search_whose_values_all_act_has_nothing_to_show(study):
    record = Record(study)
    for row in [*rows(0, SAME), *rows(1, [(1.0, 1.0)])]:
        record.add_epoch(row)
    assert unreached(study) is None
