"""Racing spends further seeds where doubt is, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.ablate import Racing
from harness.ablate.replicates import chain
from harness.config import Experiment, apply_overrides
from harness.store import EpochRow, StudyFolder, TrialRow

#: score of each arm by seed: `clear` is far above the baseline, `doubtful` is not told from it
SCORES = {
    "baseline": [0.40, 0.41, 0.40, 0.41, 0.40, 0.41],
    "clear": [0.60, 0.61, 0.60, 0.61, 0.60, 0.61],
    "doubtful": [0.40, 0.43, 0.38, 0.44, 0.37, 0.43],
}


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    (tmp_path / "race").mkdir()
    return StudyFolder(tmp_path / "race")


def arms(**starts: str) -> dict[str, Experiment]:
    rates = {"baseline": 1e-3, "clear": 2e-3, "doubtful": 3e-3}
    return {
        name: apply_overrides(Experiment(), {"optimiser.lr": rate, "start": [starts[name]] if name in starts else []})
        for name, rate in rates.items()
    }


def row(trial: str, score: float) -> EpochRow:
    return EpochRow(
        trial=trial, epoch=1, score=score, train_loss=1.0, val_loss=1.0, terms={}, iou={}, train_score=None, lr={},
        train_seconds=1.0, val_seconds=1.0, images=1, peak_memory_mb=None, done=True,
    )  # fmt: skip


def own(row: TrialRow) -> float:
    """The score in the row itself."""
    return row.score


def run(study: Racing, most: int | None = None) -> list[tuple[str, int]]:
    """Drive a study with the scores above; the arm and seed of each trial in order."""
    done: list[tuple[str, int]] = []
    while len(done) != most and (trial := study.next_trial()) is not None:
        arm = study.arm_of[trial.id]
        study.on_epoch(row(trial.id, SCORES[arm][trial.seed]))
        study.on_end(trial.id)
        done.append((arm, trial.seed))
    return done


def test_only_the_arm_in_doubt_and_its_reference_get_further_seeds(folder: StudyFolder) -> None:
    done = run(Racing(folder, arms(), range(3), "baseline", most=5, score=own))
    assert done[:9] == [(arm, seed) for seed in range(3) for arm in SCORES]
    assert done[9:] == [("baseline", 3), ("doubtful", 3), ("baseline", 4), ("doubtful", 4)]


def test_no_arm_gets_more_seeds_than_the_most(folder: StudyFolder) -> None:
    assert len(run(Racing(folder, arms(), range(3), "baseline", most=3, score=own))) == 9


@pytest.mark.parametrize("stop", [1, 8, 9, 10, 11, 12, 13, 14])
def test_an_interrupted_race_goes_on_where_it_was_and_its_rows_are_those_of_one_that_was_not(
    folder: StudyFolder, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # with its fourth seed `clear` is told from the baseline no more, and then again
    monkeypatch.setitem(SCORES, "clear", [0.44, 0.45, 0.43, 0.60, 0.30, 0.61])
    whole = StudyFolder(_other(folder))
    undisturbed = run(Racing(whole, arms(), range(3), "baseline", most=6, score=own))
    assert len(undisturbed) > 14

    first = run(Racing(folder, arms(), range(3), "baseline", most=6, score=own), most=stop)
    rest = run(Racing(folder, arms(), range(3), "baseline", most=6, score=own))

    assert first + rest == undisturbed
    assert folder.trials.read() == whole.trials.read()
    assert [ended.number for ended in folder.trials.read()] == list(range(len(undisturbed)))


def test_an_arm_that_starts_from_another_takes_it_along(folder: StudyFolder) -> None:
    done = run(Racing(folder, arms(doubtful="arm:clear"), range(3), "baseline", most=4, score=own))
    assert done[9:] == [("clear", 3), ("baseline", 3), ("doubtful", 3)]


def test_it_waits_while_scores_are_still_to_come(folder: StudyFolder) -> None:
    study = Racing(folder, arms(), range(1), "baseline", most=2, score=own)
    trials = [study.next_trial() for _ in range(3)]
    assert study.next_trial() is None and study.waits()
    for trial in trials:
        study.on_epoch(row(trial.id, 0.5))
        study.on_end(trial.id)
    assert not study.waits()
    assert chain(arms())["clear"] == study.arms["clear"]


def _other(folder: StudyFolder) -> Path:
    path = folder.path.with_name("undisturbed")
    path.mkdir()
    return path


def test_arms_are_raced_by_the_score_that_the_tables_compare(folder: StudyFolder) -> None:
    def equal_for_all(row: TrialRow) -> float:
        return SCORES["doubtful"][row.seed] + 0.01 * (row.picked["arm"] == "clear") * (-1) ** row.seed

    done = run(Racing(folder, arms(), range(3), "baseline", most=4, score=equal_for_all))
    assert {arm for arm, seed in done if seed == 3} == set(SCORES)


def test_an_arm_scored_on_the_test_frames_is_compared_with_nothing(folder: StudyFolder) -> None:
    those = arms()
    those["doubtful"] = apply_overrides(those["doubtful"], {"protocol.select_on_test": True})
    assert len(run(Racing(folder, those, range(3), "baseline", most=5, score=own))) == 9
