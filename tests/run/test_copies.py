"""Studies that are copied to a URI while they run."""

from __future__ import annotations

import pytest

from harness.errors import StudyError
from harness.run import Resources, run_search
from harness.store import StudyFolder


def test_a_search_is_copied_to_a_uri_with_the_weights_of_its_best_trial(tiny_space, results, tmp_path, console):
    folder = StudyFolder(results / "search")
    resources = Resources("inprocess", upload=(tmp_path / "copy").as_uri())
    study = run_search(folder, tiny_space(trials=2), resources, console, seed=0)
    copy = StudyFolder(tmp_path / "copy" / "search")
    assert copy.trials.read() == folder.trials.read()
    assert copy.epochs.read() == folder.epochs.read()
    assert copy.best.read_text() == folder.best.read_text()
    best = study.record.ranking()[0].trial
    assert copy.run(best).best.read_bytes() == folder.run(best).best.read_bytes()
    assert [path.name for path in (copy.path / "runs").iterdir()] == [best]


def test_a_place_where_nothing_can_be_written_is_refused_before_the_study_begins(tiny_space, results, console):
    folder = StudyFolder(results / "search")
    with pytest.raises(StudyError, match="^--upload nonsense://x: nothing can be written there"):
        run_search(folder, tiny_space(), Resources("inprocess", upload="nonsense://x"), console, seed=0)
    assert not folder.path.exists()
