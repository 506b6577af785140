"""`harness search --confirm`, `harness confirm`, and what `harness export` hands over then."""

from __future__ import annotations

import json

import pytest

from harness.config import Experiment, fingerprint, read_section
from harness.run.worker import TrialRun
from harness.search.confirmation import read_confirmation
from harness.store import StudyFolder

HERE = ("--executor", "inprocess")
SHORT = ("--max-epochs", "1", *HERE)


@pytest.fixture
def hunt(results) -> StudyFolder:
    return StudyFolder(results / "hunt")


def test_a_search_is_confirmed_and_export_gives_the_confirmed_ranking(harness, hunt, space, desert, tmp_path):
    said = harness("search", space, "--data", desert, "--name", "hunt", "--confirm", "3", *SHORT)
    assert said.code == 0
    assert said.out.count("Winner's curse:") == 2 and "next    harness confirm" not in said.out
    assert "with 3 fresh seeds each (1000 to 1002)" in said.out
    assert 'id="confirmation"' in (hunt.path / "report.html").read_text()
    best = read_confirmation(hunt).confirmed[0]
    low, high = best.mean.low, best.mean.high

    said = harness("export", "hunt")
    assert f"# confirmed validation mIoU {best.mean.point:.4f}, 95 % interval {low:.4f} to {high:.4f}" in said.out
    assert "(t, 3 fresh seeds: 1000, 1001, 1002)" in said.out and "--as-searched gives the search's own" in said.err
    (tmp_path / "e.yaml").write_text(said.out)
    assert fingerprint(read_section(Experiment, tmp_path / "e.yaml")) == best.row.trial.partition("-s")[0]
    assert StudyFolder(hunt.path / "confirm").best.read_text() == said.out

    said = harness("evaluate", "hunt", "--worst-count", "0", "--json")
    run = hunt.path / "confirm" / "runs" / best.best_run.trial
    assert json.loads(said.out)["run"] == str(run)
    which = f"this is {run}; any other run can be given by its folder"
    assert said.err == f"rank 1 by fresh seeds ({hunt.path}/confirm); {which}\n"

    searched = harness("export", "hunt", "--as-searched")
    assert searched.out == hunt.best.read_text() and "fresh" not in searched.out + searched.err
    assert harness("export", "hunt", "--rank", "9").code == 2

    said = harness("export", "hunt", "--to", tmp_path / "model")
    assert said.code == 0 and f"confirm/runs/{best.best_run.trial}" in said.out
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert files == {"experiment.yaml", "README.md", "best.safetensors"}
    card = (tmp_path / "model" / "README.md").read_text()
    assert card.startswith(f"# Model card: hunt, rank 1 by fresh seeds, run {best.best_run.trial}\n")
    assert f"mean {best.mean.point:.4f}, 95 % interval" in card
    assert f"Trial {best.row.number} of the search `hunt` (random_asha), rank {best.search_rank} of 2 trials" in card
    assert f"| lr | {best.row.picked['lr']} |" in card and "- Winner's curse: trial " in card
    assert f"the best of 3 fresh seeds: their own score, {best.best_run.score:.4f}, is again too high" in card
    assert "the validation frames chose the epoch, and the trial" in card and "command of the search" in card


def test_a_finished_search_is_confirmed_later_and_resumed_with_more_seeds(harness, hunt, space, desert):
    assert harness("search", space, "--data", desert, "--name", "hunt", *SHORT).code == 0
    # on the executor of the search, with what its trials had
    said = harness("confirm", "hunt", "--seeds", "1", "--top", "1")
    searched, confirmed = (json.loads((hunt.path / f / "provenance.json").read_text()) for f in (".", "confirm"))
    assert confirmed["resources"] == searched["resources"] and searched["resources"]["executor"] == "inprocess"
    assert said.code == 0 and "1 of the 3 seeds that an interval needs" in said.out
    said = harness("confirm", "hunt", "--seeds", "1", "--top", "1", *HERE)
    assert said.code == 2 and "--resume --seeds 2 trains them with further seeds" in said.err
    assert harness("confirm", "hunt", "--seeds", "3", "--resume", *HERE).code == 0
    assert len(read_confirmation(hunt).confirmed[0].scores) == 3
    said = harness("search", space, "--data", desert, "--name", "hunt", "--resume", *SHORT)
    assert f"next    harness export {hunt.path} --to model" in said.out and "harness confirm" not in said.out


def test_a_confirmation_stopped_at_once_says_how_it_goes_on(harness, hunt, space, desert, monkeypatch):
    assert harness("search", space, "--data", desert, "--name", "hunt", *SHORT).code == 0
    next_row, calls = TrialRun.next_row, iter(range(100))

    def ctrl_c(run):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return next_row(run)

    with monkeypatch.context() as patch:
        patch.setattr(TrialRun, "next_row", ctrl_c)
        said = harness("confirm", "hunt", "--top", "1", *HERE)
    assert said.code == 130 and "harness confirm hunt --top 1 --executor inprocess --resume" in said.out
    assert harness(*said.out.split("go on with: harness ")[1].split()).code == 0
    assert read_confirmation(hunt).finished


def test_a_search_stopped_in_its_confirmation_goes_on_there(harness, hunt, space, desert, monkeypatch):
    next_row, calls = TrialRun.next_row, iter(range(100))

    def ctrl_c(run):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return next_row(run)

    with monkeypatch.context() as patch:
        patch.setattr(TrialRun, "next_row", ctrl_c)
        said = harness("search", space, "--data", desert, "--name", "hunt", "--confirm", "1", *SHORT)
    assert said.code == 130
    command = said.out.split("go on with: harness ")[1].split()
    assert command[-3:] == ["--name", "hunt", "--resume"] and "--confirm" in command
    assert harness(*command).code == 0
    assert read_confirmation(hunt).finished and not (hunt.path / "confirm-2").exists()


def test_a_search_without_a_score_is_not_confirmed(harness, hunt, space, desert):
    words = ("--time-budget", "0s", "--confirm", "3")
    said = harness("search", space, "--data", desert, "--name", "hunt", *words, *SHORT)
    assert said.code == 0 and "no trial has ended with a score" in said.out
    assert not (hunt.path / "confirm").exists()
    assert harness("confirm", "hunt", *HERE).code == 2


def test_a_failed_training_in_a_confirmation_gives_code_3(harness, hunt, space, desert, monkeypatch):
    assert harness("search", space, "--data", desert, "--name", "hunt", *SHORT).code == 0
    next_row, calls = TrialRun.next_row, iter(range(100))

    def fails_once(run):
        if next(calls) == 0:
            run.rows = iter(())
        return next_row(run)

    monkeypatch.setattr(TrialRun, "next_row", fails_once)
    monkeypatch.setattr(TrialRun, "close", lambda run: None)
    said = harness("confirm", "hunt", "--seeds", "2", *HERE)
    assert said.code == 3 and "failed with 1 of 2 fresh seeds (1000)" in said.out


def test_no_epoch_is_started_beyond_the_hours(harness, hunt, space, desert):
    said = harness("search", space, "--data", desert, "--name", "hunt", "--compute-hours", "0", *HERE)
    assert said.code == 0 and "--compute-hours 0 is used up (0 CPU-core-hours, 0 of 2 trials ended)" in said.out
    assert hunt.trials.read() == []
