"""The search behind the executor's three calls, with rows made by hand: outcomes, seeds, kills, resuming."""

from __future__ import annotations

import random
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from harness.config import Experiment, SearchSettings, dump_yaml, fingerprint, read_section
from harness.errors import StudyError
from harness.search import Search, read_export
from harness.store import StudyFolder


class Killed(Exception):
    """Stands for SIGKILL: nothing after it runs."""


def score_of(trial: str, epoch: int) -> float:
    """A score that depends on the trial and the epoch alone, as a real training's does."""
    return random.Random(f"{trial}/{epoch}").random()


def run_trial(search: Search, row, epochs: int, first: int = 1):
    """Drive the next trial to its end as an executor would; returns its last row."""
    trial = search.next_trial()
    assert trial is not None
    for epoch in range(first, epochs + 1):
        if not search.on_epoch(row(trial.id, epoch, score_of(trial.id, epoch), done=epoch == epochs)):
            break
    return search.on_end(trial.id)


def run_all(search: Search, row, epochs: int) -> None:
    """One trial after the other; each resumes from the epochs that the record holds."""
    while (trial := search.next_trial()) is not None:
        # a resumed training first yields the row of its last checkpoint again
        epoch = max(1, len(search.record.epochs.get(trial.id, [])))
        while search.on_epoch(row(trial.id, epoch, score_of(trial.id, epoch), done=epoch == epochs)):
            epoch += 1
        search.on_end(trial.id)


def optuna_trials(folder: StudyFolder) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder.optuna}").trials


def as_rows(folder: StudyFolder) -> list[dict]:
    return [r.model_dump() for r in sorted(folder.trials.read(), key=lambda r: r.number)]


def test_the_default_experiment_is_trial_zero_with_the_studys_seed(make_space, folder):
    space = make_space()
    trial = Search(folder, space, seed=7).next_trial()
    assert trial.experiment == space.experiment
    assert trial.seed == 7


def test_trial_zero_is_a_draw_where_the_space_does_not_contain_the_default(make_space, folder):
    space = make_space({"lr": {"kind": "float", "field": "optimiser.lr", "low": 0.01, "high": 0.1}})
    trial = Search(folder, space, seed=0).next_trial()
    assert 0.01 <= trial.experiment.optimiser.lr <= 0.1


def test_a_trial_that_runs_to_its_end_is_complete_with_its_best_epoch(make_space, folder, row):
    search = Search(folder, make_space(epochs=2, grace_epochs=2), seed=0)
    trial = search.next_trial()
    assert search.on_epoch(row(trial.id, 1, 0.7))
    assert not search.on_epoch(row(trial.id, 2, 0.4, done=True))
    ended = search.on_end(trial.id)
    assert (ended.outcome, ended.score, ended.best_epoch, ended.epochs) == ("complete", 0.7, 1, 2)
    assert ended.seconds == 3.0
    assert folder.trials.read() == [ended]
    assert optuna_trials(folder)[0].value == 0.7


def test_a_trial_below_the_best_third_at_a_rung_is_stopped_and_pruned_there(make_space, folder, row):
    search = Search(folder, make_space(), seed=0)
    good, bad = search.next_trial(), search.next_trial()
    assert search.on_epoch(row(good.id, 1, 0.9))
    assert not search.on_epoch(row(bad.id, 1, 0.1))
    ended = search.on_end(bad.id)
    assert (ended.outcome, ended.score, ended.epochs) == ("stopped", 0.1, 1)
    stored = optuna_trials(folder)[1]
    assert (stored.state, stored.last_step) == (TrialState.PRUNED, 1)


def test_a_trial_whose_last_epoch_is_done_is_complete_although_a_rung_would_stop_it(make_space, folder, row):
    search = Search(folder, make_space(), seed=0)
    good, patient = search.next_trial(), search.next_trial()
    search.on_epoch(row(good.id, 1, 0.9))
    # its own patience is over at the rung's epoch
    assert not search.on_epoch(row(patient.id, 1, 0.1, done=True))
    assert search.on_end(patient.id).outcome == "complete"


def test_a_trial_with_an_error_is_failed_with_its_message_and_the_search_goes_on(make_space, folder, row):
    search = Search(folder, make_space(), seed=0)
    trial = search.next_trial()
    search.on_epoch(row(trial.id, 1, 0.9))
    ended = search.on_end(trial.id, "the loss is not finite")
    assert (ended.outcome, ended.error) == ("failed", "the loss is not finite")
    assert optuna_trials(folder)[0].state is TrialState.FAIL
    assert search.next_trial() is not None


def test_a_failed_trial_is_never_the_best(make_space, folder, row):
    search = Search(folder, make_space(epochs=1), seed=0)
    failed, whole = search.next_trial(), search.next_trial()
    search.on_epoch(row(failed.id, 1, 0.9, done=True))
    search.on_end(failed.id, "killed")
    search.on_epoch(row(whole.id, 1, 0.2, done=True))
    search.on_end(whole.id)
    assert read_section(Experiment, folder.best) == whole.experiment


def test_a_trial_that_did_not_end_is_interrupted_and_leaves_no_row(make_space, folder, row):
    search = Search(folder, make_space(), seed=0)
    trial = search.next_trial()
    search.on_epoch(row(trial.id, 1, 0.9))
    assert search.on_end(trial.id) is None
    assert folder.trials.read() == []
    assert optuna_trials(folder)[0].state is TrialState.RUNNING


def test_no_more_trials_are_started_than_asked_for(make_space, folder, row):
    search = Search(folder, make_space(trials=3), seed=0)
    started = [search.next_trial() for _ in range(4)]
    assert [trial is not None for trial in started] == [True, True, True, False]


def test_the_same_values_again_get_a_new_seed(make_space, folder, row):
    two = {"batch": {"kind": "choice", "field": "training.batch_size", "choices": [2, 4]}}
    search = Search(folder, make_space(two, trials=8, epochs=1), seed=3)
    run_all(search, row, 1)
    rows = as_rows(folder)
    seeds: dict[int, list[int]] = {}
    for ended in rows:
        seeds.setdefault(ended["picked"]["batch"], []).append(ended["seed"])
    assert len({ended["trial"] for ended in rows}) == 8
    assert all(those == list(range(3, 3 + len(those))) for those in seeds.values())


def test_trials_that_run_at_once_do_not_share_an_id(make_space, folder):
    two = {"batch": {"kind": "choice", "field": "training.batch_size", "choices": [2, 4]}}
    search = Search(folder, make_space(two, trials=8), seed=0)
    assert len({search.next_trial().id for _ in range(8)}) == 8


def test_a_trial_that_was_cut_short_for_lack_of_time_shares_its_id_with_none_that_starts_after_it(
    make_space, folder, row
):
    two = {"batch": {"kind": "choice", "field": "training.batch_size", "choices": [2, 4]}}
    search = Search(folder, make_space(two, trials=8, default_first=False), seed=0, deadline=time.monotonic() + 1000)
    started = []
    for _ in range(8):
        trial = search.next_trial()
        # of the third one, a second epoch would not end in time
        first = row(trial.id, 1, 0.9).model_copy(update={"train_seconds": 2000.0 if len(started) == 2 else 1.0})
        started.append(trial.id)
        if not search.on_epoch(first):
            assert search.on_end(trial.id) is None
    assert len(search.cut) == 1 and len(set(started)) == 8


EXCLUSIVE = {
    "epochs": {"kind": "choice", "field": "training.epochs", "choices": [9, 4]},
    "warmup": {"kind": "choice", "field": "schedule.warmup_epochs", "choices": [0, 6]},
}


def test_values_that_exclude_each_other_are_a_failed_trial_with_the_rule_as_message(make_space, folder, row):
    search = Search(folder, make_space(EXCLUSIVE, trials=12, epochs=9), seed=0)
    while (trial := search.next_trial()) is not None:
        search.on_epoch(row(trial.id, 1, 0.5, done=True))
        search.on_end(trial.id)
    rows = as_rows(folder)
    invalid = [r for r in rows if r["picked"] == {"epochs": 4, "warmup": 6}]
    assert len(rows) == 12 and 0 < len(invalid) < 12
    assert all(r["outcome"] == "failed" and "must fit into training.epochs (4)" in r["error"] for r in invalid)
    states = [t.state for t in optuna_trials(folder)]
    assert [r["outcome"] == "failed" for r in rows] == [s is TrialState.FAIL for s in states]


def test_a_kill_between_an_invalid_trials_row_and_optuna_does_not_write_the_row_again(
    make_space, folder, row, monkeypatch
):
    space = make_space(EXCLUSIVE, trials=12, epochs=9)
    search = Search(folder, space, seed=0)
    tell = search.proposals.tell

    def killed_on_failure(number, outcome, score, infeasible=False):
        if outcome == "failed":
            raise Killed
        tell(number, outcome, score)

    monkeypatch.setattr(search.proposals, "tell", killed_on_failure)
    with pytest.raises(Killed):
        while (trial := search.next_trial()) is not None:
            search.on_epoch(row(trial.id, 1, 0.5, done=True))
            search.on_end(trial.id)
    written = folder.trials.read()
    Search(folder, space, seed=0)
    assert folder.trials.read() == written
    assert optuna_trials(folder)[written[-1].number].state is TrialState.FAIL


# ---- kills and resuming --------------------------------------------------------------------------------------


def test_a_kill_before_the_first_draw_leaves_the_default_as_the_only_trial_zero(make_space, folder):
    space = make_space()
    Search(folder, space, seed=0)
    search = Search(folder, space, seed=0)
    first, second = search.next_trial(), search.next_trial()
    assert first.experiment == space.experiment != second.experiment


def test_a_kill_after_the_draw_keeps_the_number_the_values_and_the_default(make_space, folder, monkeypatch):
    space = make_space()
    search = Search(folder, space, seed=0)
    start = search.proposals.start

    def killed_after(*args, **facts):
        start(*args, **facts)
        raise Killed

    monkeypatch.setattr(search.proposals, "start", killed_after)
    with pytest.raises(Killed):
        search.next_trial()
    (drawn,) = optuna_trials(folder)
    resumed = Search(folder, space, seed=0)
    trial = resumed.next_trial()
    assert trial.experiment == space.experiment
    assert resumed.running[trial.id].number == 0
    assert optuna_trials(folder)[0].params == drawn.params
    assert len(optuna_trials(folder)) == 1


def test_an_unfinished_trial_is_handed_out_first_with_its_id_and_seed(make_space, folder, row):
    space = make_space(trials=4)
    search = Search(folder, space, seed=2)
    run_trial(search, row, 9)
    waiting = [search.next_trial(), search.next_trial()]
    search.on_epoch(row(waiting[1].id, 1, 0.9))
    resumed = Search(folder, space, seed=2)
    again = [resumed.next_trial(), resumed.next_trial()]
    assert again == waiting
    assert [t.seed for t in again] == [t.seed for t in waiting]
    assert resumed.next_trial() not in waiting


def test_an_epoch_that_was_written_before_the_kill_is_not_written_twice(make_space, folder, row):
    space = make_space()
    search = Search(folder, space, seed=0)
    trial = search.next_trial()
    for epoch in (1, 2):
        search.on_epoch(row(trial.id, epoch, 0.1 * epoch))
    resumed = Search(folder, space, seed=0)
    trial = resumed.next_trial()
    # from the last checkpoint: epoch 2 comes again, then 3
    assert resumed.on_epoch(row(trial.id, 2, 0.2))
    assert resumed.on_epoch(row(trial.id, 3, 0.3))
    assert [(r.trial, r.epoch) for r in folder.epochs.read()] == [(trial.id, 1), (trial.id, 2), (trial.id, 3)]
    assert optuna_trials(folder)[0].intermediate_values == {1: 0.1, 2: 0.2, 3: pytest.approx(0.3)}


def test_a_kill_between_the_journal_and_optuna_loses_no_epoch(make_space, folder, row, monkeypatch):
    space = make_space()
    search = Search(folder, space, seed=0)
    trial = search.next_trial()
    monkeypatch.setattr(search.proposals, "report", _kill)
    with pytest.raises(Killed):
        search.on_epoch(row(trial.id, 1, 0.4))
    Search(folder, space, seed=0)
    assert optuna_trials(folder)[0].intermediate_values == {1: 0.4}


def test_a_kill_between_the_trials_row_and_optuna_settles_the_trial_and_the_best_file(
    make_space, folder, row, monkeypatch
):
    space = make_space(epochs=1, trials=1)
    search = Search(folder, space, seed=0)
    monkeypatch.setattr(search.proposals, "tell", _kill)
    with pytest.raises(Killed):
        run_trial(search, row, 1)
    assert not folder.best.exists()
    resumed = Search(folder, space, seed=0)
    assert resumed.next_trial() is None
    assert len(folder.trials.read()) == 1
    assert optuna_trials(folder)[0].state is TrialState.COMPLETE
    assert read_section(Experiment, folder.best) == space.experiment


def test_a_row_that_was_lost_after_optuna_was_told_is_written_again(make_space, folder, row):
    search = Search(folder, make_space(trials=3), seed=0)
    run_trial(search, row, 9)
    trial = search.next_trial()
    search.on_epoch(row(trial.id, 1, 0.01))
    assert search.on_end(trial.id).outcome == "stopped"
    trial = search.next_trial()
    assert search.on_end(trial.id, "broken").outcome == "failed"
    before = folder.trials.read()
    folder.trials.path.write_text("")
    resumed = Search(folder, make_space(trials=3), seed=0)
    assert resumed.next_trial() is None
    lost = before[2].model_copy(update={"error": "its row was lost, and with it the cause"})
    assert folder.trials.read() == [*before[:2], lost]


def test_a_kill_after_a_rungs_decision_gives_the_same_decision_again(make_space, folder, row):
    space = make_space()
    search = Search(folder, space, seed=0)
    good, bad = search.next_trial(), search.next_trial()
    search.on_epoch(row(good.id, 1, 0.9))
    assert not search.on_epoch(row(bad.id, 1, 0.1))
    resumed = Search(folder, space, seed=0)
    resumed.next_trial(), resumed.next_trial()
    assert resumed.on_epoch(row(good.id, 1, 0.9))
    assert not resumed.on_epoch(row(bad.id, 1, 0.1))
    assert resumed.on_end(bad.id).outcome == "stopped"


def test_the_rungs_after_a_kill_equal_those_before(make_space, folder, row):
    space = make_space(trials=8)
    search = Search(folder, space, seed=0)
    for _ in range(5):
        run_trial(search, row, 9)
    assert sum(len(rung) for rung in search.rule.rungs.values()) > 5
    assert Search(folder, space, seed=0).rule.rungs == search.rule.rungs


@pytest.mark.parametrize("call", range(0, 60, 7))
def test_a_study_killed_at_any_call_ends_like_one_that_was_not(call, make_space, tmp_path, row, monkeypatch):
    """Random draws depend on the resumed seed, so the rows are compared by what was run, not by values."""
    (tmp_path / "hunt").mkdir()
    folder, space = StudyFolder(tmp_path / "hunt"), make_space(trials=6)
    calls = iter(range(10_000))

    def counted(function):
        def maybe_killed(*args, **kwargs):
            if next(calls) == call:
                raise Killed
            return function(*args, **kwargs)

        return maybe_killed

    search = Search(folder, space, seed=0)
    for name in ("draw", "start", "report", "tell"):
        monkeypatch.setattr(search.proposals, name, counted(getattr(search.proposals, name)))
    try:
        run_all(search, row, 9)
    except Killed:
        search = Search(folder, space, seed=0)
        run_all(search, row, 9)
    ended, epochs = folder.trials.read(), folder.epochs.read()
    assert sorted(r.number for r in ended) == list(range(6))
    assert len({(r.trial, r.epoch) for r in epochs}) == len(epochs) == sum(r.epochs for r in ended)
    for stored, last in zip(optuna_trials(folder), sorted(ended, key=lambda r: r.number), strict=True):
        expected = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED}[last.outcome]
        assert stored.state is expected
        assert stored.intermediate_values == {e: score_of(last.trial, e) for e in range(1, last.epochs + 1)}
    assert Search(folder, space, seed=0).rule.rungs == search.rule.rungs
    assert read_section(Experiment, folder.best) == search.experiment_of(search.record.ranking()[0].picked)


def test_a_finished_study_goes_on_when_more_trials_are_asked_for(make_space, folder, row):
    search = Search(folder, make_space(trials=3), seed=0)
    run_all(search, row, 9)
    before = as_rows(folder)
    extended = Search(folder, make_space(trials=5), seed=0)
    run_all(extended, row, 9)
    after = as_rows(folder)
    assert after[:3] == before
    assert [r["number"] for r in after] == [0, 1, 2, 3, 4]
    assert len({r["trial"] for r in after}) == 5


# ---- pausing and promotion -----------------------------------------------------------------------------------


def pause_all(search: Search, row, scores: list[float]) -> list[str]:
    """Start a trial for each score, let it reach the first rung with it, and pause; returns their ids."""
    ids = []
    for score in scores:
        trial = search.next_trial()
        assert not search.on_epoch(row(trial.id, 1, score))
        assert search.on_end(trial.id) is None
        ids.append(trial.id)
    return ids


@pytest.mark.parametrize("strategy", ["random_promote", "random_asha"])
def test_the_default_is_trained_to_its_end_whatever_the_rungs_say_and_the_rungs_know_its_scores(
    make_space, folder, row, strategy
):
    space = make_space(strategy=strategy, trials=4)
    search = Search(folder, space, seed=0)
    trials = [search.next_trial() for _ in range(4)]
    default, *others = [trial.id for trial in trials]
    for trial, score in zip(others, [0.3, 0.2, 0.1], strict=True):
        search.on_epoch(row(trial, 1, score))
        search.on_end(trial)
    # the worst of all, and a kill between two of its epochs
    assert search.on_epoch(row(default, 1, 0.01))
    assert search.rule.rungs[1][default] == 0.01
    resumed = Search(folder, space, seed=0)
    assert default in {resumed.next_trial().id, resumed.next_trial().id}
    for epoch in range(2, 9):
        assert resumed.on_epoch(row(default, epoch, 0.01))
    resumed.on_epoch(row(default, 9, 0.01, done=True))
    assert resumed.on_end(default).outcome == "complete"


def test_a_trial_pauses_at_a_rung_and_is_handed_out_again_when_it_is_in_the_best_third(make_space, folder, row):
    search = Search(folder, make_space(strategy="random_promote", default_first=False, trials=9), seed=0)
    low, high, middle = pause_all(search, row, [0.1, 0.3, 0.2])
    promoted = search.next_trial()
    assert promoted.id == high
    # the resumed training yields the row of its last checkpoint again, then goes on to the next rung
    assert search.on_epoch(row(high, 1, 0.3))
    assert search.on_epoch(row(high, 2, 0.4))
    assert not search.on_epoch(row(high, 3, 0.5))
    assert search.on_end(high) is None
    assert {trial: paused.epoch for trial, paused in search.paused.items()} == {low: 1, middle: 1, high: 3}
    assert [(r.trial, r.epoch) for r in folder.epochs.read() if r.trial == high] == [(high, 1), (high, 2), (high, 3)]
    assert folder.trials.read() == []
    assert {t.state for t in optuna_trials(folder)} == {TrialState.RUNNING}


def test_the_search_waits_while_a_trial_runs_that_may_change_who_is_promoted(make_space, folder, row):
    search = Search(folder, make_space(strategy="random_promote", default_first=False, trials=1), seed=0)
    assert not search.waits()
    trial = search.next_trial()
    assert search.next_trial() is None and search.waits()
    search.on_epoch(row(trial.id, 1, 0.5))
    search.on_end(trial.id)
    # alone at its rung, and nothing more can come
    assert search.next_trial().id == trial.id


def test_at_the_end_the_best_run_on_and_the_others_are_stopped_and_pruned_where_they_paused(make_space, folder, row):
    search = Search(folder, make_space(strategy="random_promote", default_first=False, trials=10), seed=0)
    run_all(search, row, 9)
    rows = {r.number: r for r in folder.trials.read()}
    assert sorted(rows) == list(range(10))
    # a third of ten, and those that were in it when there were fewer, at the second rung; the best of them to the end
    counts = [sum(r.epochs == epochs for r in rows.values()) for epochs in (1, 3, 9)]
    assert sum(counts) == 10 and counts[1] + counts[2] >= 3 and counts[2] >= 1
    assert all((r.outcome == "complete") == (r.epochs == 9) for r in rows.values())
    assert {r.outcome for r in rows.values()} == {"stopped", "complete"}
    best_at_second = max(search.rule.rungs[3], key=search.rule.rungs[3].get)
    assert search.record.ended[best_at_second].outcome == "complete"
    for trial in optuna_trials(folder):
        last = rows[trial.number]
        assert trial.state is (TrialState.COMPLETE if last.outcome == "complete" else TrialState.PRUNED)
        assert list(trial.intermediate_values) == list(range(1, last.epochs + 1))
    assert not search.paused and not search.waits()


def test_paused_trials_are_paused_after_a_kill_and_the_same_one_is_promoted(make_space, folder, row):
    space = make_space(strategy="random_promote", default_first=False, trials=9)
    search = Search(folder, space, seed=0)
    ids = pause_all(search, row, [0.1, 0.3, 0.2])
    promoted = search.next_trial()
    # killed before the promoted trial's next epoch
    resumed = Search(folder, space, seed=0)
    assert set(resumed.paused) == set(ids)
    assert resumed.rule.rungs == search.rule.rungs
    assert resumed.next_trial() == promoted


def test_a_kill_between_the_pausing_row_and_its_end_leaves_the_trial_paused(make_space, folder, row):
    space = make_space(strategy="random_promote", default_first=False, trials=9)
    trial = (search := Search(folder, space, seed=0)).next_trial()
    search.on_epoch(row(trial.id, 1, 0.3))
    assert {t: p.epoch for t, p in Search(folder, space, seed=0).paused.items()} == {trial.id: 1}


def test_a_trial_that_was_promoted_and_killed_between_rungs_goes_on_first(make_space, folder, row):
    space = make_space(strategy="random_promote", default_first=False, trials=9)
    search = Search(folder, space, seed=0)
    _, high, _ = pause_all(search, row, [0.1, 0.3, 0.2])
    search.next_trial()
    search.on_epoch(row(high, 1, 0.3)), search.on_epoch(row(high, 2, 0.4))
    resumed = Search(folder, space, seed=0)
    assert resumed.next_trial().id == high
    assert resumed.on_epoch(row(high, 2, 0.4))
    assert not resumed.on_epoch(row(high, 3, 0.5))


def test_a_promoted_trial_whose_checkpoint_is_older_than_its_last_row_does_not_wait_again(make_space, folder, row):
    space = make_space(strategy="random_promote", default_first=False, trials=9)
    search = Search(folder, space, seed=0)
    _, high, _ = pause_all(search, row, [0.1, 0.3, 0.2])
    search.next_trial()
    search.on_epoch(row(high, 1, 0.3)), search.on_epoch(row(high, 2, 0.4))
    resumed = Search(folder, space, seed=0)
    assert resumed.next_trial().id == high
    assert resumed.on_epoch(row(high, 1, 0.3)) and resumed.on_epoch(row(high, 2, 0.4))
    assert not resumed.on_epoch(row(high, 3, 0.5))


def test_a_promoted_trial_that_fails_is_failed_and_never_promoted_again(make_space, folder, row):
    search = Search(folder, make_space(strategy="random_promote", default_first=False, trials=3), seed=0)
    low, high, middle = pause_all(search, row, [0.1, 0.3, 0.2])
    search.next_trial()
    assert search.on_end(high, "its worker died").outcome == "failed"
    assert search.next_trial() is None
    assert {r.trial: r.outcome for r in folder.trials.read()} == {high: "failed", low: "stopped", middle: "stopped"}


def test_an_interrupted_search_stops_none_of_its_paused_trials(make_space, folder, row):
    search = Search(folder, make_space(strategy="random_promote", default_first=False, trials=2), seed=0)
    pause_all(search, row, [0.1])
    trial = search.next_trial()
    assert search.on_end(trial.id) is None
    assert search.next_trial() is None
    assert folder.trials.read() == []


def test_without_default_first_trial_zero_is_a_draw(make_space, folder):
    space = make_space(default_first=False)
    assert Search(folder, space, seed=0).next_trial().experiment != space.experiment


@pytest.mark.parametrize("strategy", ["promote", "model_asha", "asha", "tpe"])
def test_the_same_order_of_events_gives_the_same_trials(strategy, make_space, tmp_path, row):
    told = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        search = Search(StudyFolder(tmp_path / name), make_space(strategy=strategy, trials=24), seed=3)
        run_all(search, row, 9)
        told.append(as_rows(search.folder))
    assert told[0] == told[1]
    assert len(told[0]) == 24


@pytest.mark.parametrize("call", range(0, 120, 13))
def test_a_promoting_study_killed_at_any_call_ends_every_trial_once(call, make_space, folder, row, monkeypatch):
    space, calls = make_space(strategy="promote", trials=16), iter(range(10_000))

    def counted(function):
        def maybe_killed(*args, **kwargs):
            if next(calls) == call:
                raise Killed
            return function(*args, **kwargs)

        return maybe_killed

    search = Search(folder, space, seed=0)
    for name in ("draw", "start", "report", "tell"):
        monkeypatch.setattr(search.proposals, name, counted(getattr(search.proposals, name)))
    try:
        run_all(search, row, 9)
    except Killed:
        search = Search(folder, space, seed=0)
        run_all(search, row, 9)
    ended, epochs = folder.trials.read(), folder.epochs.read()
    assert sorted(r.number for r in ended) == list(range(16))
    assert len({(r.trial, r.epoch) for r in epochs}) == len(epochs) == sum(r.epochs for r in ended)
    assert sum(r.outcome == "complete" for r in ended) >= 1
    assert {t.state for t in optuna_trials(folder)} <= {TrialState.COMPLETE, TrialState.PRUNED}


# ---- best.yaml and export ------------------------------------------------------------------------------------


def test_best_yaml_is_after_every_trial_the_winners_experiment_to_the_last_digit(make_space, folder, row):
    search = Search(folder, make_space(trials=6), seed=0)
    while (trial := search.next_trial()) is not None:
        epoch = 1
        while search.on_epoch(row(trial.id, epoch, score_of(trial.id, epoch), done=epoch == 9)):
            epoch += 1
        search.on_end(trial.id)
        winner = search.record.ranking()[0]
        best = read_section(Experiment, folder.best)
        assert f"{fingerprint(best)}-s{winner.seed}" == winner.trial


def test_a_complete_trial_ranks_before_a_stopped_one_with_a_higher_score(make_space, folder, row):
    search = Search(folder, make_space(epochs=9), seed=0)
    first, second, third = (search.next_trial() for _ in range(3))
    search.on_epoch(row(first.id, 1, 0.9))
    search.on_epoch(row(second.id, 1, 0.8))
    search.on_end(second.id)
    search.on_epoch(row(third.id, 1, 0.3, done=True))
    search.on_end(third.id)
    assert read_section(Experiment, folder.best) == third.experiment


def test_export_gives_any_rank_and_refuses_one_that_does_not_exist(make_space, folder, row):
    space = make_space(trials=3, epochs=1)
    folder.settings.write_text(dump_yaml(SearchSettings(space=space, seed=0, dataset="f00d").model_dump(mode="json")))
    search = Search(folder, space, seed=0)
    with pytest.raises(StudyError, match="has no trial with a score yet"):
        read_export(folder, 1)
    run_all(search, row, 1)
    for rank, ended in enumerate(search.record.ranking(), 1):
        text = read_export(folder, rank)
        assert f"rank {rank} of study hunt: trial {ended.number}" in text
        path = Path(folder.path / f"rank{rank}.yaml")
        path.write_text(text)
        assert f"{fingerprint(read_section(Experiment, path))}-s{ended.seed}" == ended.trial
    with pytest.raises(StudyError, match="--rank 4: study 'hunt' has 3 trials with a score; give 1 to 3"):
        read_export(folder, 4)


# ---- time budget ---------------------------------------------------------------------------------------------


def test_when_the_time_is_over_no_epoch_and_no_trial_is_started(make_space, folder, row):
    search = Search(folder, make_space(), seed=0, deadline=time.monotonic() + 1000)
    trial = search.next_trial()
    assert search.on_epoch(row(trial.id, 1, 0.5))
    search.deadline = time.monotonic()
    assert not search.on_epoch(row(trial.id, 2, 0.5))
    assert search.on_end(trial.id) is None
    assert search.next_trial() is None


def test_a_study_resumed_without_time_starts_not_even_its_unfinished_trials(make_space, folder, row):
    space = make_space()
    trial = Search(folder, space, seed=0).next_trial()
    assert Search(folder, space, seed=0, deadline=time.monotonic()).next_trial() is None
    assert Search(folder, space, seed=0).next_trial() == trial


def _kill(*_: object, **__: object) -> None:
    raise Killed


def test_when_the_time_is_over_paused_and_cut_trials_can_win_and_go_on_when_resumed(make_space, folder, row):
    space = make_space(trials=3, strategy="random_promote", default_first=False, grace_epochs=1, reduction_factor=3)
    search = Search(folder, space, seed=0, deadline=time.monotonic() + 1000)
    paused, cut = search.next_trial(), search.next_trial()
    assert not search.on_epoch(row(paused.id, 1, 0.3)) and search.on_end(paused.id) is None
    search.deadline = time.monotonic()
    search.on_epoch(row(cut.id, 1, 0.4))
    search.on_end(cut.id)
    assert search.next_trial() is None
    assert [(r.trial, r.outcome, r.score) for r in folder.trials.read()] == [
        (paused.id, "stopped", 0.3), (cut.id, "stopped", 0.4)
    ]  # fmt: skip
    assert cut.id in folder.best.read_text()

    resumed = Search(folder, space, seed=0)
    assert resumed.record.ended == {} and set(resumed.paused) == {paused.id, cut.id}
    third = resumed.next_trial()
    resumed.on_epoch(row(third.id, 1, 0.1))
    resumed.on_end(third.id)
    assert resumed.next_trial() == cut  # the best of three at the rung
