"""Arms and seeds without a training: order, resuming, arms that start from others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.ablate import Replicates
from harness.ablate.replicates import chain
from harness.config import Experiment, Trial, apply_overrides, fingerprint
from harness.engine.trained import open_run
from harness.errors import StudyError
from harness.run.inprocess import run_inprocess
from harness.store import EpochRow, StudyFolder


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path)


@pytest.fixture
def arms() -> dict[str, Experiment]:
    return {"base": Experiment(), "dice": apply_overrides(Experiment(), {"loss.dice.weight": 1.0})}


def row(trial: str, epoch: int, score: float, done: bool) -> EpochRow:
    return EpochRow(
        trial=trial, epoch=epoch, score=score, train_loss=1.0, val_loss=1.0, terms={}, iou={}, train_score=None,
        lr={}, train_seconds=1.0, val_seconds=1.0, images=6, peak_memory_mb=None, done=done,
    )  # fmt: skip


def finish(study: Replicates, score: float = 0.5) -> str:
    trial = study.next_trial()
    assert not study.on_epoch(row(trial.id, 1, score, done=True))
    assert study.on_end(trial.id).outcome == "complete"
    return trial.id


def test_every_arm_is_trained_with_every_seed_seed_by_seed(folder, arms):
    study = Replicates(folder, arms, [0, 3])
    trials = [study.next_trial() for _ in range(5)]
    assert [(t.experiment, t.seed) for t in trials[:4]] == [
        (arms["base"], 0),
        (arms["dice"], 0),
        (arms["base"], 3),
        (arms["dice"], 3),
    ]
    assert trials[4] is None


def test_no_trial_is_stopped_however_low_its_score(folder, arms):
    study = Replicates(folder, arms, [0])
    good, bad = study.next_trial(), study.next_trial()
    assert study.on_epoch(row(good.id, 1, 0.9, done=False))
    assert study.on_epoch(row(bad.id, 1, 0.0, done=False))


def test_the_rows_name_arm_number_and_seed(folder, arms):
    study = Replicates(folder, arms, [0, 1])
    for _ in range(4):
        finish(study)
    rows = folder.trials.read()
    assert [(r.number, r.seed, r.picked["arm"]) for r in rows] == [
        (0, 0, "base"),
        (1, 0, "dice"),
        (2, 1, "base"),
        (3, 1, "dice"),
    ]


def test_a_failed_trial_keeps_its_message_and_is_not_run_again(folder, arms):
    study = Replicates(folder, arms, [0])
    trial = study.next_trial()
    assert study.on_end(trial.id, "out of memory").error == "out of memory"
    assert Replicates(folder, arms, [0]).next_trial().experiment == arms["dice"]


def test_ended_trials_are_left_out_on_resuming_and_interrupted_ones_come_first(folder, arms):
    study = Replicates(folder, arms, [0, 1])
    ended = finish(study)
    interrupted = study.next_trial()
    study.on_epoch(row(interrupted.id, 1, 0.1, done=False))
    assert study.on_end(interrupted.id) is None
    resumed = Replicates(folder, arms, [0, 1])
    left = [resumed.next_trial() for _ in range(3)]
    assert left[0] == interrupted
    assert ended not in {trial.id for trial in left}
    # the checkpoint's epoch comes again and is not written twice
    resumed.on_epoch(row(interrupted.id, 1, 0.1, done=False))
    resumed.on_epoch(row(interrupted.id, 2, 0.3, done=True))
    assert [r.epoch for r in folder.epochs.read() if r.trial == interrupted.id] == [1, 2]
    assert resumed.on_end(interrupted.id).score == 0.3


def test_a_trial_that_was_cut_short_while_later_ones_ended_keeps_its_number(folder, arms):
    study = Replicates(folder, arms, [0, 1])
    study.next_trial()
    later = finish(study)
    resumed = Replicates(folder, arms, [0, 1])
    for _ in range(3):
        finish(resumed)
    assert [(r.number, r.seed) for r in folder.trials.read()] == [(1, 0), (0, 0), (2, 1), (3, 1)]
    assert folder.trials.read()[0].trial == later


def test_more_seeds_go_on_where_the_study_ended(folder, arms):
    study = Replicates(folder, arms, [0])
    for _ in range(2):
        finish(study)
    more = Replicates(folder, arms, [0, 1])
    assert [more.next_trial().seed, more.next_trial().seed, more.next_trial()] == [1, 1, None]


# ---- arms that start from others ----


def arm(start: list[str] | None = None, **overrides: Any) -> Experiment:
    """An Experiment whose `start` names arms."""
    changes = {path.replace("__", "."): value for path, value in overrides.items()}
    return apply_overrides(Experiment(), {"start": [f"arm:{name}" for name in start or []]} | changes)


@pytest.fixture
def ladder() -> dict[str, Experiment]:
    """a, then b from a, then c from b; d from nothing."""
    return {
        "a": arm(),
        "b": arm(["a"], optimiser__lr=0.01),
        "c": arm(["b"], optimiser__lr=0.02),
        "d": arm(optimiser__lr=0.03),
    }


def begin(study: Replicates) -> str | None:
    """The arm of the next trial, which is then under way."""
    trial = study.next_trial()
    return None if trial is None else study.arm_of[trial.id]


def end(study: Replicates, name: str, error: str | None = None) -> None:
    """Complete the one trial of an arm that is under way, or fail it."""
    (trial_id,) = [trial_id for trial_id in study.running if study.arm_of[trial_id] == name]
    if error is None:
        study.on_epoch(row(trial_id, 1, 0.5, done=True))
    assert study.on_end(trial_id, error).outcome == ("complete" if error is None else "failed")


def outcomes(folder: StudyFolder) -> list[tuple[str, int, str]]:
    return [(r.picked["arm"], r.seed, r.outcome) for r in folder.trials.read()]


def test_a_chained_arm_names_the_fingerprint_of_the_whole_history(ladder):
    chained = chain(ladder)

    assert chained["a"] == ladder["a"] and chained["d"] == ladder["d"]
    assert chained["b"].start == (f"run:{fingerprint(chained['a'])}",)
    assert chained["c"].start == (f"run:{fingerprint(chained['b'])}",)
    # another first arm makes other trials of all that follow, though they say the same of themselves
    other = chain(ladder | {"a": arm(loss__dice__weight=1.0)})
    assert all(fingerprint(other[name]) != fingerprint(chained[name]) for name in ("a", "b", "c"))
    assert fingerprint(other["d"]) == fingerprint(chained["d"])


def test_files_and_runs_in_a_start_stay_as_they_are():
    start = ["arm:a", "best.safetensors", "run:0123456789ab"]
    ensemble = apply_overrides(arm(), {"start": start, "training.epochs": 0})

    first, *others = chain({"a": arm(), "e": ensemble})["e"].start

    assert first == f"run:{fingerprint(arm())}"
    assert others == ["best.safetensors", "run:0123456789ab"]


def test_an_arm_waits_for_the_trial_of_the_same_seed_that_it_starts_from(folder, ladder):
    study = Replicates(folder, ladder, [0])

    assert [begin(study), begin(study), begin(study)] == ["a", "d", None]
    assert study.waits()
    end(study, "d")
    assert begin(study) is None
    end(study, "a")
    assert [begin(study), begin(study)] == ["b", None]
    end(study, "b")
    assert [begin(study), begin(study), study.waits()] == ["c", None, False]


def test_one_seed_does_not_wait_for_another(folder, ladder):
    study = Replicates(folder, {"a": ladder["a"], "b": ladder["b"]}, [0, 1])
    first, second = study.next_trial(), study.next_trial()
    assert (first.seed, second.seed) == (0, 1)

    study.on_epoch(row(second.id, 1, 0.5, done=True))
    study.on_end(second.id)

    third = study.next_trial()
    assert (study.arm_of[third.id], third.seed) == ("b", 1)
    assert third.experiment.start == (f"run:{second.id.removesuffix('-s1')}",)
    assert study.next_trial() is None


def test_an_ensemble_waits_for_all_its_members(folder, ladder):
    arms = {"a": ladder["a"], "d": ladder["d"], "both": arm(["a", "d"], training__epochs=0)}
    study = Replicates(folder, arms, [0])

    assert [begin(study), begin(study)] == ["a", "d"]
    end(study, "d")
    assert begin(study) is None
    end(study, "a")
    assert begin(study) == "both"


def test_a_failed_trial_fails_those_that_start_from_it_and_no_other(folder, ladder):
    study = Replicates(folder, ladder, [0])
    assert [begin(study), begin(study)] == ["a", "d"]
    end(study, "a", error="out of memory")

    assert begin(study) is None
    assert not study.waits()
    end(study, "d")

    rows = {r.picked["arm"]: r for r in folder.trials.read()}
    assert [rows[name].outcome for name in "abcd"] == ["failed", "failed", "failed", "complete"]
    assert rows["a"].error == "out of memory"
    assert rows["b"].error == "arm 'a', from whose weights it starts, failed"
    assert rows["c"].error == "arm 'b', from whose weights it starts, failed"
    assert (rows["b"].score, rows["b"].epochs, rows["b"].number) == (None, 0, 1)


def test_a_trial_that_failed_before_fails_its_children_when_the_study_is_opened_again(folder, ladder):
    study = Replicates(folder, ladder, [0])
    begin(study)
    end(study, "a", error="out of memory")

    again = Replicates(folder, ladder, [0])
    assert begin(again) == "d"
    end(again, "d")

    assert outcomes(folder) == [("a", 0, "failed"), ("b", 0, "failed"), ("c", 0, "failed"), ("d", 0, "complete")]


def test_an_interrupted_trial_waits_again_and_those_after_it_with_it(folder, ladder):
    study = Replicates(folder, ladder, [0])
    a, d = study.next_trial(), study.next_trial()
    study.on_epoch(row(a.id, 1, 0.5, done=False))

    assert study.on_end(a.id) is None
    assert study.on_end(d.id) is None
    assert not study.waits()  # nothing runs: whoever stopped them goes home

    again = Replicates(folder, ladder, [0])
    assert [begin(again), begin(again), begin(again)] == ["a", "d", None]
    end_of_a = row(a.id, 2, 0.5, done=True)
    again.on_epoch(end_of_a)
    again.on_end(a.id)
    assert begin(again) == "b"


def test_an_interrupted_trial_is_the_next_to_run(folder, ladder):
    study = Replicates(folder, ladder, [0])
    begin(study)
    end(study, "a")
    b = study.next_trial()
    assert study.arm_of[b.id] == "b"

    study.on_end(b.id)

    assert study.next_trial() == b


def test_nothing_is_run_twice_when_a_finished_ladder_is_opened_again(folder, ladder):
    study = Replicates(folder, ladder, [0, 1])
    while (name := begin(study)) is not None:
        end(study, name)
    assert sorted(outcomes(folder)) == [(name, seed, "complete") for name in "abcd" for seed in (0, 1)]

    again = Replicates(folder, ladder, [0, 1])

    assert again.next_trial() is None
    assert not again.waits()
    assert len(folder.trials.read()) == 8


def test_a_ladder_opened_again_in_the_middle_goes_on_from_what_is_complete(folder, ladder):
    study = Replicates(folder, ladder, [0])
    for name in ("a", "b"):
        while begin(study) != name:
            pass
        end(study, name)

    again = Replicates(folder, ladder, [0])

    assert [begin(again), begin(again), begin(again)] == ["c", "d", None]


def test_an_arm_whose_start_nobody_trains_is_refused_instead_of_waiting_for_ever(folder, ladder):
    lost = apply_overrides(Experiment(), {"start": ["run:0123456789ab"]})
    with pytest.raises(StudyError, match="arm 'lost' with seed 2 starts from run 0123456789ab-s2, which this study"):
        Replicates(folder, {"lost": lost}, [2])

    study = Replicates(folder, ladder, [0])
    with pytest.raises(StudyError, match=r"arm 'b' with seed 7 starts from run \w+-s7.* ask for that arm"):
        study.add(["b"], [7])


def test_more_seeds_of_a_ladder_bring_their_own_first_arms(folder, ladder):
    study = Replicates(folder, ladder, [0])
    while (name := begin(study)) is not None:
        end(study, name)

    study.add(["a", "b"], [5])

    trial = study.next_trial()
    assert (study.arm_of[trial.id], trial.seed) == ("a", 5)
    assert study.next_trial() is None


# ---- with real trainings ----

TINY = {
    "data.synthetic": {"train": 4, "val": 3, "test": 2, "height": 32, "width": 48},
    "data.input_size": [32, 48],
    "model.backbone": "test_efficientnet",
    "model.head": {"kind": "linear"},
    "training.epochs": 2,
    "training.batch_size": 2,
}
SCORED = {"training.epochs": 0, "schedule": {"kind": "constant"}}


@pytest.fixture
def real_ladder() -> dict[str, Experiment]:
    """a; b from a; b with mirrored views; the ensemble of a and b; seven classes from b; one whose start failed."""
    flip = {"evaluation.tta": {"flip": True}}
    changes: dict[str, dict[str, Any]] = {
        "a": {"optimiser.lr": 1e-5},
        "b": {"start": ["arm:a"], "optimiser.lr": 0.01},
        "b_flip": {"start": ["arm:b"]} | SCORED | flip,
        "both": {"start": ["arm:a", "arm:b"]} | SCORED,
        "seven": {"start": ["arm:b"], "taxonomy": {"kind": "named", "name": "falcon7"}, "training.epochs": 1},
        "broken": {"training.batch_size": 9, "training.drop_last": True},
        "orphan": {"start": ["arm:broken"]},
    }
    return {name: apply_overrides(Experiment(), TINY | own) for name, own in changes.items()}


def test_a_ladder_of_real_trainings_hands_its_weights_on(folder, real_ladder):
    study = Replicates(folder, real_ladder, [0, 1])
    run_inprocess(study)

    rows = {(r.picked["arm"], r.seed): r for r in folder.trials.read()}
    assert len(rows) == len(folder.trials.read()) == 14
    assert {name: rows[name, 0].outcome for name in real_ladder} == dict.fromkeys(real_ladder, "complete") | {
        "broken": "failed", "orphan": "failed"
    }  # fmt: skip
    assert rows["orphan", 1].error == "arm 'broken', from whose weights it starts, failed"
    assert [rows[name, 0].epochs for name in ("a", "b", "b_flip", "both", "seven")] == [2, 2, 0, 0, 1]
    epochs = {key: study.record.epochs.get(r.trial, []) for key, r in rows.items()}
    for seed in (0, 1):
        # b begins where the best of a ended, of the same seed
        assert epochs["b", seed][0].epoch == 0
        assert epochs["b", seed][0].score == rows["a", seed].score
        assert rows["b", seed].score >= rows["a", seed].score
        assert [e.epoch for e in epochs["b_flip", seed]] == [0]
        # a new head has nothing to score before its first epoch
        assert [e.epoch for e in epochs["seven", seed]] == [1]
    assert rows["a", 0].score != rows["a", 1].score


def test_a_flip_and_an_ensemble_are_scored_on_the_weights_that_their_arms_left(folder, real_ladder):
    arms = {name: real_ladder[name] for name in ("a", "b", "b_flip", "both")}
    study = Replicates(folder, arms, [3])
    run_inprocess(study)

    runs = {name: folder.run(Trial(study.arms[name], 3).id) for name in arms}
    models = {name: open_run(runs[name], torch.device("cpu")).model for name in ("a", "b", "b_flip")}
    for name, tensor in models["b"].state_dict().items():
        assert torch.equal(tensor, models["b_flip"].state_dict()[name])
    assert not runs["both"].best.exists()
    matrices = {name: np.load(run.confusion)["matrices"] for name, run in runs.items()}
    assert {m.sum() for m in matrices.values()} == {3 * 32 * 48}
    assert all((matrices[name] != matrices["b"]).any() for name in ("a", "b_flip", "both"))


def test_a_finished_ladder_of_real_trainings_opened_again_runs_nothing(folder, real_ladder):
    arms = {name: real_ladder[name] for name in ("a", "b", "b_flip", "broken", "orphan")}
    run_inprocess(Replicates(folder, arms, [0]))
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()}

    run_inprocess(Replicates(folder, arms, [0]))

    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()} == before
