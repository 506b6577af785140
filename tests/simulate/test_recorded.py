"""A study replayed as learning curves."""

from __future__ import annotations

import numpy as np
import pytest

from harness.errors import StudyError
from harness.simulate import RecordedCurves, simulate


def test_a_recorded_trials_own_values_bring_its_own_curve(make_curves, record, tmp_path):
    curves = make_curves(strategy="random", trials=5)
    folder = record(tmp_path / "seen", curves.space, curves)
    replay = RecordedCurves(folder)
    for row in folder.trials.read():
        np.testing.assert_allclose(replay.curve(row.picked, 0).true, curves.curve(row.picked, row.seed).observed)
        assert replay.curve(row.picked, 1).seconds == 3.0


def test_values_a_little_off_bring_the_nearest_trials_curve(make_curves, record, tmp_path):
    curves = make_curves(strategy="random", trials=5)
    folder = record(tmp_path / "seen", curves.space, curves)
    replay = RecordedCurves(folder)
    for row in folder.trials.read():
        near = row.picked | {"lr": row.picked["lr"] * 1.02}
        np.testing.assert_array_equal(replay.curve(near, 0).true, replay.curve(row.picked, 0).true)


def test_a_stopped_trial_goes_on_by_the_steps_of_a_complete_one(make_curves, record, tmp_path):
    curves = make_curves(strategy="asha", trials=20)
    folder = record(tmp_path / "seen", curves.space, curves)
    replay, rows = RecordedCurves(folder), folder.trials.read()
    whole = [replay.curve(r.picked, 0).true for r in rows if r.outcome == "complete"]
    stopped = [r for r in rows if r.outcome == "stopped" and r.epochs == 1]
    assert stopped
    for row in stopped:
        curve = replay.curve(row.picked, 0).true
        assert len(curve) == 9
        assert any(np.allclose(np.diff(curve), np.diff(other)) for other in whole)


def test_a_study_with_fewer_than_two_complete_trials_is_refused(make_curves, record, tmp_path):
    curves = make_curves(strategy="random", trials=1)
    folder = record(tmp_path / "short", curves.space, curves)
    with pytest.raises(StudyError, match="study 'short' has 1 trials that ran all 9 epochs; a replay needs 2"):
        RecordedCurves(folder)


def test_a_search_runs_over_recorded_curves(make_curves, record, tmp_path):
    curves = make_curves(strategy="random", trials=8)
    replay = RecordedCurves(record(tmp_path / "seen", curves.space, curves))
    trace = simulate(curves.space, replay, workers=2, seed=1)
    assert trace.epochs == 8 * 9
    # eight trials of nine epochs of three seconds, on two workers
    assert trace.seconds == 8 * 9 * 3 / 2
