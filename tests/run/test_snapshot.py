"""What a study looks like at one moment: from its calls, and from its files."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from harness.ablate import resolve_arms
from harness.config import (
    Ablation,
    AblationSettings,
    Experiment,
    ReplicateSettings,
    SearchSettings,
    Space,
    Trial,
    dump_yaml,
    validate_section,
)
from harness.config.ablation import with_steps
from harness.config.space import SearchConfig
from harness.errors import StudyError
from harness.run import Resources, run_replicates, run_search
from harness.run.driver_lock import driver_lock, is_driven
from harness.run.folder_view import FolderView, Tail
from harness.run.gpu_memory import GpuMemory, GpuMeter
from harness.run.plan import Plan, path_arms, read_asked
from harness.run.remaining import epochs_left
from harness.run.snapshot import RungShown, Tally
from harness.search import Search
from harness.store import EpochRow, Record, StudyFolder, TrialRow, write_json, write_text

PROMOTE = SearchConfig(trials=9, strategy="promote", default_first=False, grace_epochs=1, reduction_factor=3)


def epoch(trial: str, number: int, score: float, done: bool = False, seconds: float = 10.0) -> EpochRow:
    return EpochRow(
        trial=trial,
        epoch=number,
        score=score,
        train_loss=1.0,
        val_loss=1.0,
        terms={},
        iou={},
        train_score=None,
        lr={"head": 0.001},
        train_seconds=seconds,
        val_seconds=0.0,
        images=6,
        peak_memory_mb=None,
        done=done,
    )


def end(trial: str, outcome: str, epochs: int, number: int = 0, error: str | None = None) -> TrialRow:
    return TrialRow(
        trial=trial,
        number=number,
        outcome=outcome,
        seed=0,
        picked={"lr": 0.1},
        score=0.5,
        best_epoch=1,
        epochs=epochs,
        seconds=1.0,
        error=error,
    )


def test_a_tally_counts_every_trial_once_by_its_state():
    tally = Tally(Plan("hunt", "search", 9, 9, search=PROMOTE))
    for trial in "abcd":
        tally.goes_on(trial)
        tally.epoch(epoch(trial, 1, 0.1))
    tally.waits("b")
    tally.ended(end("c", "failed", 1, number=2, error="broken"))
    tally.ended(end("d", "stopped", 1, number=3))
    snapshot = tally.snapshot("running", 5.0)
    assert [trial.trial for trial in snapshot.running] == ["a"]
    assert (snapshot.waiting, snapshot.complete, snapshot.stopped, snapshot.failed) == (1, 0, 1, 1)
    assert snapshot.ended == 2
    assert snapshot.last_failure.error == "broken"


def test_the_best_is_the_highest_score_of_any_epoch_of_trials_that_did_not_fail():
    tally = Tally(Plan("hunt", "search", 9, 9))
    for trial, number, score in (("a", 1, 0.3), ("a", 2, 0.6), ("a", 3, 0.5), ("b", 1, 0.9)):
        tally.known(trial, number=ord(trial), picked={"lr": trial})
        tally.epoch(epoch(trial, number, score))
    assert tally.snapshot("running", 0.0).best.trial == "b"
    tally.ended(end("b", "failed", 1))
    best = tally.snapshot("running", 0.0).best
    assert (best.trial, best.number, best.score, best.epoch, best.picked) == ("a", 97, 0.6, 2, {"lr": "a"})
    assert not best.stopped
    tally.ended(end("a", "stopped", 3))
    assert tally.snapshot("running", 0.0).best.stopped


def test_a_rung_tells_who_came_who_waits_who_went_on_and_who_was_stopped():
    tally = Tally(Plan("hunt", "search", 9, 9, search=PROMOTE))
    for trial, score in zip("abcde", (0.1, 0.2, 0.3, 0.4, 0.5), strict=True):
        tally.epoch(epoch(trial, 1, score))
    for trial in "abcd":
        tally.waits(trial)
    tally.goes_on("d")
    tally.ended(end("a", "stopped", 1))
    # e goes on to the next rung and waits there
    for number in (2, 3):
        tally.epoch(epoch("e", number, 0.6))
    tally.waits("e")
    assert tally.snapshot("running", 0.0).rungs == (RungShown(1, 5, 2, 2, 0.5), RungShown(3, 1, 1, 0, 0.6))


def test_a_trial_that_goes_on_after_its_time_was_over_is_no_longer_counted_as_stopped():
    tally = Tally(Plan("hunt", "search", 9, 9, search=PROMOTE))
    tally.epoch(epoch("a", 1, 0.5))
    tally.ended(end("a", "stopped", 1))
    assert tally.snapshot("running", 0.0).rungs[0].passed == 0
    tally.epoch(epoch("a", 2, 0.5))
    snapshot = tally.snapshot("running", 0.0)
    assert (snapshot.stopped, len(snapshot.running), snapshot.rungs[0].passed) == (0, 1, 1)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        # two run, at 4 and 0 of 9; three not started: 5 + 9 + 27
        ({"under_way": [(4, 9), (0, 9)], "unstarted": 3, "rungs": []}, 41),
        # arms of other lengths end where they end
        ({"under_way": [(4, 20), (2, 3)], "unstarted": 0, "rungs": []}, 17),
        # nine new ones, pausing: 9 x 1, then 3 x 2, then 1 x 6
        ({"under_way": [], "unstarted": 9, "rungs": [(1, 0, 0), (3, 0, 0)]}, 9 + 6 + 6),
        # nine came to the first rung, two went on and stand at epoch 2: one more goes on (2), those two finish their
        # leg (1 + 1), and one of the three goes to the end (6)
        ({"under_way": [(2, 9), (2, 9)], "unstarted": 0, "rungs": [(1, 9, 2), (3, 0, 0)]}, 2 + 2 + 6),
        # fewer than `factor` in all: the best goes on all the same
        ({"under_way": [], "unstarted": 2, "rungs": [(1, 0, 0), (3, 0, 0)]}, 2 + 2 + 6),
        # all is over but one, on its last leg
        ({"under_way": [(7, 9)], "unstarted": 0, "rungs": [(1, 9, 3), (3, 3, 1)]}, 2),
        # stopping for good: a third of those still to come, whoever went before
        ({"under_way": [(0, 9)], "unstarted": 8, "rungs": [(1, 9, 5), (3, 0, 0)], "pauses": False}, 9 + 6 + 6),
    ],
)
def test_the_epochs_that_are_left_are_those_that_the_rungs_will_ask_for(case, expected):
    assert epochs_left(**{"epochs": 9, "factor": 3, "pauses": True} | case) == pytest.approx(expected)


def test_a_trial_that_stands_at_a_rung_and_goes_on_needs_the_epochs_of_its_next_leg_only():
    # it was let go on from epoch 1 already: two epochs to the next rung, where it is one of one, then six
    assert epochs_left([(1, 9)], 0, 9, [(1, 3, 1), (3, 0, 0)], 3, True) == 2 + 6


def test_the_time_left_follows_what_an_epoch_takes_and_how_many_trials_run_at_once():
    tally = Tally(Plan("arms", "ablation", 4, 10))
    assert tally.snapshot("running", 0.0).left is None
    for trial in "ab":
        tally.epoch(epoch(trial, 1, 0.5, seconds=10.0), live=False)
    # 2 x 9 + 2 x 10 epochs of ten seconds, two at once
    assert tally.snapshot("running", 0.0).left == pytest.approx(38 * 10 / 2)
    assert tally.snapshot("stopped", 0.0).left is None


def test_the_pace_is_measured_once_enough_epochs_came_in(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("harness.run.snapshot.time.monotonic", lambda: now[0])
    tally = Tally(Plan("one", "training", 1, 20))
    for number in range(1, 11):
        now[0] += 60.0
        tally.epoch(epoch("a", number, 0.5, seconds=10.0))
    # ten epochs left at a minute each, whatever the rows say
    assert tally.snapshot("running", 0.0).left == pytest.approx(600.0)


def test_the_time_left_is_no_more_than_a_budget_leaves(monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: 5000.0)
    tally = Tally(Plan("hunt", "training", 10, 100))
    for trial in ("a", "b"):
        for number in (1, 2):
            tally.epoch(epoch(trial, number, 0.1, seconds=10.0), live=False)
    # 996 epochs of 10 seconds, two at once
    assert tally.snapshot("running", 1.0).left == 4980.0
    tally.deadline = 5600.0
    assert tally.snapshot("running", 1.0).left == 600.0
    # 40 of 240 seconds are used
    tally.device_seconds = 240.0
    assert tally.snapshot("running", 1.0).left == 100.0
    tally.deadline = 4000.0
    assert tally.snapshot("running", 1.0).left == 0.0


def test_the_plan_of_a_search_is_its_spaces(folder, tiny_space):
    settings = SearchSettings(space=tiny_space(trials=7), seed=0, dataset="f00d")
    write_text(folder.settings, dump_yaml(settings.model_dump(mode="json")))
    plan = read_asked(folder).plan
    assert (plan.name, plan.kind, plan.planned, plan.epochs, plan.at_most) == ("study", "search", 7, 3, False)
    assert list(plan.rule().rungs) == [1]


def test_a_training_is_planned_by_its_seeds(folder, tiny):
    settings = ReplicateSettings(arms={"study": tiny()}, seeds=3, dataset="f00d")
    write_text(folder.settings, dump_yaml(settings.model_dump(mode="json")))
    assert read_asked(folder).plan == Plan("study", "training", 3, 3)


def ablation(**design) -> Ablation:
    values = {
        "experiment": {"training": {"epochs": 4}},
        "factors": {"slow": {"set": {"optimiser.lr": 1e-5}}, "dice": {"set": {"loss.dice.weight": 1.0}}},
        "scale": {"full": {"seeds": 3}},
        "design": design,
    }
    return validate_section(Ablation, values, "ablation")


@pytest.mark.parametrize(
    ("design", "race", "planned", "at_most"),
    [
        ({"kind": "one_factor"}, None, 9, False),
        ({"kind": "one_factor"}, 5, 15, True),
        ({"kind": "path"}, None, 12, True),
    ],
)
def test_an_ablation_is_planned_by_its_design_and_a_race_and_a_path_at_the_most(folder, design, race, planned, at_most):
    settings = AblationSettings(ablation=ablation(**design), scale="full", seeds=3, race=race, dataset="f00d")
    write_text(folder.settings, dump_yaml(settings.model_dump(mode="json")))
    assert read_asked(folder).plan == Plan("study", "ablation", planned, 4, at_most)


def test_a_path_tries_each_factor_until_none_is_left():
    # the baseline, then 3 + 2 + 1
    assert (path_arms(0), path_arms(1), path_arms(3)) == (1, 2, 7)


def test_an_arms_trial_is_found_by_its_id_also_after_a_step_of_a_path(folder):
    for steps in ((), ("dice",)):
        what = with_steps(ablation(kind="path"), steps)
        settings = AblationSettings(ablation=what, scale="full", seeds=3, dataset="f00d")
        write_text(folder.settings, dump_yaml(settings.model_dump(mode="json")))
        asked = read_asked(folder)
        for arm, resolved in resolve_arms(what, "full").items():
            assert asked.trial(Trial(resolved.experiment, 2).id) == (None, {"arm": arm, "seed": 2}, 4)
    assert asked.trial("frozen") is None
    assert asked.trial(Trial(Experiment(), 2).id + "-rerun-1") is None


def test_a_settings_file_of_an_unknown_kind_is_refused(folder):
    write_text(folder.settings, "kind: dream\n")
    with pytest.raises(StudyError, match=r"study.yaml: kind 'dream' is none of search, replicates, ablation"):
        read_asked(folder)


def test_a_tail_reads_each_whole_row_once(folder):
    tail = Tail(folder.epochs)
    assert tail.new_rows() == []
    folder.epochs.append(epoch("a", 1, 0.1))
    with open(folder.epochs.path, "ab") as file:
        file.write(b'{"trial": "a", "ep')
    assert [row.epoch for row in tail.new_rows()] == [1]
    assert tail.new_rows() == []
    # the driver cuts the torn line off
    folder.epochs.append(epoch("a", 2, 0.2))
    folder.epochs.append(epoch("a", 3, 0.3))
    assert [row.epoch for row in tail.new_rows()] == [2, 3]


def test_a_tail_says_which_line_is_no_row(folder):
    folder.epochs.append(epoch("a", 1, 0.1))
    tail = Tail(folder.epochs)
    tail.new_rows()
    with open(folder.epochs.path, "ab") as file:
        file.write(b"{}\n")
    with pytest.raises(StudyError, match=r"epochs.jsonl:2: not a EpochRow"):
        tail.new_rows()


@pytest.fixture
def hunt(folder) -> tuple[StudyFolder, Space, Search]:
    """A search of nine trials of nine epochs, driven from here."""
    space = validate_section(
        Space,
        {
            "experiment": {"training": {"epochs": 9}},
            "search": PROMOTE.model_dump(),
            "parameters": {"lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True}},
        },
        "space",
    )
    settings = SearchSettings(space=space, seed=0, dataset="f00d")
    write_text(folder.settings, dump_yaml(settings.model_dump(mode="json")))
    return folder, space, Search(folder, space, 0)


def run_to_rung(search: Search, score: float) -> str:
    """Give the next trial epochs up to its rung; its id."""
    trial = search.next_trial().id
    done = search.running[trial].epoch
    while search.on_epoch(epoch(trial, done := done + 1, score)):
        pass
    search.on_end(trial)
    return trial


def test_from_outside_running_trials_have_their_values_before_their_first_epoch(hunt):
    folder, _, search = hunt
    with driver_lock(folder):
        view = FolderView(folder)
        assert view.look().running == ()
        trial = search.next_trial()
        (shown,) = view.look().running
    assert (shown.trial, shown.number, shown.epochs, shown.of) == (trial.id, 0, 0, 9)
    assert shown.picked == pytest.approx({"lr": trial.experiment.optimiser.lr})


def test_from_outside_the_default_waits_at_no_rung(folder, hunt):
    _, space, _ = hunt
    own = StudyFolder(folder.path.parent / "with-default")
    own.path.mkdir()
    space = space.model_copy(update={"search": space.search.model_copy(update={"default_first": True})})
    write_text(own.settings, dump_yaml(SearchSettings(space=space, seed=0, dataset="f00d").model_dump(mode="json")))
    search = Search(own, space, 0)
    with driver_lock(own):
        default = search.next_trial().id
        assert search.on_epoch(epoch(default, 1, 0.1))
        snapshot = FolderView(own).look()
    assert [trial.trial for trial in snapshot.running] == [default] and snapshot.waiting == 0


def test_from_outside_those_that_wait_at_a_rung_are_told_from_the_one_that_went_on(hunt):
    folder, _, search = hunt
    with driver_lock(folder):
        view = FolderView(folder)
        trials = [run_to_rung(search, score) for score in (0.1, 0.3, 0.2)]
        # of three the best goes on: it is handed out next
        assert search.next_trial().id == trials[1]
        snapshot = view.look()
        assert [trial.trial for trial in snapshot.running] == [trials[1]]
        assert snapshot.waiting == 2
        assert snapshot.rungs[0] == RungShown(1, 3, 2, 1, 0.3)
        assert snapshot.status == "running"
        for number in (2, 3):
            search.on_epoch(epoch(trials[1], number, 0.4))
        search.on_end(trials[1])
        assert view.look().rungs[1].reached == 1


def test_from_outside_a_budget_of_the_last_start_limits_the_time_left(hunt):
    folder, _, search = hunt
    trial = search.next_trial()
    for number in (1, 2, 3):
        search.on_epoch(epoch(trial.id, number, 0.1, seconds=1000.0))
    write_json(folder.provenance, {"sessions": [
        {"asked": {"time_budget_s": 1.0}},
        {"asked": {"trials": 9, "compute_hours": 1.0}, "resources": {"gpus_per_trial": 0.5, "cpus_per_trial": 8.0}},
    ]})  # fmt: skip
    with driver_lock(folder):
        # an hour of one GPU is two of a half; 3000 seconds are used
        assert FolderView(folder).look().left == pytest.approx(4200.0)
        write_json(folder.provenance, {"sessions": [{"asked": {"time_budget_s": 100.0}}]})
        assert 0 < FolderView(folder).look().left <= 100.0


def test_from_outside_two_objectives_decide_who_waits(folder):
    config = PROMOTE.model_copy(update={"objectives": ("score", "parameters")})
    space = validate_section(
        Space,
        {
            "experiment": {"training": {"epochs": 9}},
            "search": config.model_dump(),
            "parameters": {"lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True}},
        },
        "space",
    )
    write_text(folder.settings, dump_yaml(SearchSettings(space=space, seed=0, dataset="f").model_dump(mode="json")))
    search = Search(folder, space, 0)
    with driver_lock(folder):
        # no other has fewer parameters than the second, none has a better score than the last
        for score, parameters in ((0.1, 900), (0.2, 100), (0.3, 900)):
            trial = search.next_trial().id
            assert not search.on_epoch(epoch(trial, 1, score).model_copy(update={"parameters": parameters}))
            search.on_end(trial)
        goes_on = search.next_trial().id
        assert [trial.trial for trial in FolderView(folder).look().running] == [goes_on]


def test_from_outside_the_last_best_of_a_rung_runs_once_nothing_else_does(hunt):
    folder, space, search = hunt
    two = space.model_copy(update={"search": space.search.model_copy(update={"trials": 2})})
    settings = SearchSettings(space=two, seed=0, dataset="f00d")
    write_text(folder.settings, dump_yaml(settings.model_dump(mode="json")))
    search.space = two
    with driver_lock(folder):
        trials = [run_to_rung(search, score) for score in (0.1, 0.3)]
        assert search.next_trial().id == trials[1]
        assert [trial.trial for trial in FolderView(folder).look().running] == [trials[1]]


def test_from_outside_a_study_without_a_driver_has_stopped_and_nothing_runs(hunt):
    folder, _, search = hunt
    run_to_rung(search, 0.1)
    search.next_trial()
    snapshot = FolderView(folder).look()
    assert (snapshot.status, snapshot.running, snapshot.waiting, snapshot.seconds) == ("stopped", (), 2, None)


def test_from_outside_a_search_out_of_time_has_stopped_although_every_trial_has_a_row(hunt):
    folder, _, search = hunt
    while len(search.record.epochs) < 9:
        run_to_rung(search, 0.5)
    search.deadline = 0.0
    assert search.next_trial() is None
    assert len(Record(folder).ended) == 9
    assert FolderView(folder).look().status == "stopped"


@pytest.mark.parametrize("kind", ["search", "training"])
def test_looking_changes_no_file_and_a_finished_study_is_finished(results, tiny, tiny_space, console, kind):
    folder = StudyFolder(results / "study")
    if kind == "search":
        run_search(folder, tiny_space(trials=3), Resources("inprocess"), console, seed=0)
    else:
        run_replicates(folder, tiny(), range(2), Resources("inprocess"), console)

    def state() -> dict[str, tuple[int, int]]:
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.path.rglob("*"))}

    before = state()
    view = FolderView(folder)
    for _ in range(2):
        snapshot = view.look()
    assert snapshot.status == "finished"
    assert snapshot.ended == snapshot.plan.planned == len(Record(folder).ended)
    assert state() == before


def test_a_busy_storage_is_asked_again_at_the_next_look(hunt):
    folder, _, search = hunt
    trial = search.next_trial().id
    with driver_lock(folder):
        view = FolderView(folder)
        writer = sqlite3.connect(folder.optuna, isolation_level=None)
        writer.execute("BEGIN EXCLUSIVE")
        assert view.look().running == ()
        writer.execute("ROLLBACK")
        writer.close()
        assert [shown.trial for shown in view.look().running] == [trial]


def test_a_study_is_driven_while_a_driver_holds_its_lock_and_looking_keeps_nobody_out(folder):
    assert not is_driven(folder)
    with driver_lock(folder):
        assert is_driven(folder)
    assert not is_driven(folder)
    # a driver that was killed leaves its file
    (folder.path / "driver.lock").write_text("pid 1 on elsewhere\n")
    assert not is_driven(folder)
    with driver_lock(folder):
        assert is_driven(folder)
    assert not is_driven(StudyFolder(folder.path / "nowhere"))


def nvidia_smi(folder: Path, says: str, code: int = 0) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho \"$@\" >> {folder}/asked\nprintf '{says}'\nexit {code}\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)


@pytest.mark.parametrize(
    ("says", "code", "expected"),
    [
        ("0, 2048, 143771\\n1, 0, 81559\\n", 0, (GpuMemory(0, 2.0, 143771 / 1024), GpuMemory(1, 0.0, 81559 / 1024))),
        ("0, [N/A], [N/A]\\n", 0, ()),
        ("No devices were found\\n", 6, ()),
    ],
)
def test_gpu_memory_is_what_nvidia_smi_says(tmp_path, monkeypatch, says, code, expected):
    nvidia_smi(tmp_path, says, code)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    meter = GpuMeter()
    assert meter.read() == expected
    assert meter.read() == expected
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["--query-gpu=index,memory.used,memory.total --format=csv,noheader,nounits"]


def test_without_nvidias_tools_there_is_no_gpu_memory(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert GpuMeter().read() == ()
