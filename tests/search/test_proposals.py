"""What Optuna's storage holds, and which values come next."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import optuna
import pytest
from optuna.trial import TrialState

from harness.config import Space, apply_overrides, validate_section
from harness.config.space import Strategy
from harness.search import Proposals, default_pick
from harness.search.proposals import in_order
from harness.store import StudyFolder


def read_back(folder: StudyFolder) -> optuna.Study:
    """The study as anybody with plain Optuna opens it."""
    return optuna.load_study(study_name="hunt", storage=f"sqlite:///{folder.optuna}")


def ask(proposals: Proposals, **facts) -> tuple[int, dict]:
    """The next trial's number and values."""
    picked = proposals.draw()
    return proposals.start(picked, **facts), picked


def test_plain_optuna_reads_a_stopped_trial_as_pruned_with_every_epoch(make_space, folder):
    proposals = Proposals(folder, make_space(), seed=0)
    number, _ = ask(proposals)
    for epoch, score in ((1, 0.2), (2, 0.5), (3, 0.4)):
        proposals.report(number, epoch, score)
    proposals.tell(number, "stopped", 0.5)
    (trial,) = read_back(folder).trials
    assert trial.state is TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.2, 2: 0.5, 3: 0.4}
    assert trial.last_step == 3
    # as Optuna's own `tell` would have it
    assert trial.value == 0.4


def test_plain_optuna_reads_a_complete_trial_with_its_best_score_and_a_failed_one_as_failed(make_space, folder):
    proposals = Proposals(folder, make_space(), seed=0)
    (whole, _), (broken, _) = ask(proposals), ask(proposals)
    proposals.report(whole, 1, 0.6)
    proposals.report(whole, 2, 0.3)
    proposals.tell(whole, "complete", 0.6)
    proposals.report(broken, 1, 0.9)
    proposals.tell(broken, "failed", 0.9)
    study = read_back(folder)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE, TrialState.FAIL]
    assert study.best_value == 0.6
    assert study.trials[1].value is None
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE
    assert all(t.datetime_start is not None and t.datetime_complete is not None for t in study.trials)


def test_the_stored_names_and_values_are_those_of_the_space(make_space, folder):
    proposals = Proposals(folder, make_space(), seed=0)
    for n in range(8):
        number, picked = ask(proposals, trial=f"id{n}", seed=n)
        stored = read_back(folder).trials[number]
        assert (number, stored.state) == (n, TrialState.RUNNING)
        assert stored.params == picked
        assert stored.user_attrs == {"trial": f"id{n}", "seed": n}
        assert set(picked) <= {"head", "channels", "lr", "dice", "batch"}
        assert picked["head"] in ("stack", "linear")


def test_a_repeated_report_leaves_the_first_value(make_space, folder):
    proposals = Proposals(folder, make_space(), seed=0)
    number, _ = ask(proposals)
    proposals.report(number, 1, 0.2)
    proposals.report(number, 1, 0.9)
    assert read_back(folder).trials[0].intermediate_values == {1: 0.2}


@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_each_strategy_draws_inside_the_ranges_before_and_after_its_model_has_data(make_space, folder, strategy):
    proposals = Proposals(folder, make_space(strategy=strategy), seed=0)
    for n in range(16):
        number, picked = ask(proposals)
        assert number == n
        assert 1e-4 <= picked["lr"] <= 1e-1 and 1 <= picked["batch"] <= 64
        assert ("channels" in picked) == (picked["head"] == "stack")
        proposals.report(number, 1, 0.01 * n)
        proposals.tell(number, "stopped" if n % 3 else "complete", 0.01 * n)
    assert len(proposals) == 16 == len(read_back(folder).trials)


def test_a_conditional_parameter_is_there_exactly_where_its_condition_holds(make_space, folder):
    proposals = Proposals(folder, make_space(), seed=0)
    drawn = [ask(proposals)[1] for _ in range(20)]
    assert all(("channels" in picked) == (picked["head"] == "stack") for picked in drawn)
    assert {picked["head"] for picked in drawn} == {"stack", "linear"}


def test_log_step_and_int_are_honoured(make_space, folder):
    proposals = Proposals(folder, make_space(), seed=0)
    drawn = [ask(proposals)[1] for _ in range(60)]
    assert {p["channels"] for p in drawn if "channels" in p} == {32, 64, 96}
    assert {p["dice"] for p in drawn} == {0.0, 0.5, 1.0, 1.5, 2.0}
    assert all(isinstance(p["batch"], int) and 1 <= p["batch"] <= 64 for p in drawn)
    # half of a logarithmic scale lies below its geometric middle: 10^-2.5 and 8
    assert 15 <= sum(p["lr"] < 10**-2.5 for p in drawn) <= 45
    assert sum(p["batch"] <= 8 for p in drawn) >= 15


@pytest.mark.parametrize("strategy", ["random", "asha", "promote"])
def test_a_resumed_source_does_not_draw_its_first_values_again(make_space, folder, strategy):
    space = make_space(strategy=strategy)
    first = Proposals(folder, space, seed=0)
    before = [ask(first) for _ in range(3)]
    for number, _ in before:
        first.tell(number, "failed", None)
    second = Proposals(folder, space, seed=0)
    after = [ask(second) for _ in range(3)]
    assert [number for number, _ in after] == [3, 4, 5]
    assert not {picked["lr"] for _, picked in before} & {picked["lr"] for _, picked in after}


def test_the_same_seed_draws_the_same_values_in_a_new_study(make_space, tmp_path: Path):
    drawn = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        proposals = Proposals(StudyFolder(tmp_path / name), make_space(strategy="asha"), seed=5)
        drawn.append([ask(proposals) for _ in range(4)])
    assert drawn[0] == drawn[1]


def test_the_first_values_are_the_default_experiments_and_only_the_first(make_space, folder):
    space = make_space()
    proposals = Proposals(folder, space, seed=0)
    assert ask(proposals)[1] == default_pick(space)
    assert ask(proposals)[1] != default_pick(space)


def test_trials_under_way_are_unfinished_after_reopening_and_keep_their_values(make_space, folder):
    space = make_space()
    number, picked = ask(Proposals(folder, space, seed=0))
    reopened = Proposals(folder, space, seed=0)
    (unfinished,) = reopened.unfinished
    assert (unfinished.number, in_order(space, unfinished)) == (number, picked)
    assert list(in_order(space, unfinished)) == list(picked)
    assert len(reopened) == 1


def test_the_default_pick_is_what_the_default_experiment_holds(make_space):
    # conv_stack with 64 channels is written out in full by the default Experiment, by label in the space
    assert default_pick(make_space()) == {"head": "stack", "channels": 64, "lr": 1e-3, "dice": 0.0, "batch": 4}


def test_a_section_among_the_choices_may_leave_its_defaults_out():
    values = {
        "parameters": {
            "weights": {
                "kind": "choice",
                "field": "loss.cross_entropy.class_weights",
                "choices": {"log": {"kind": "log_frequency"}, "none": {"kind": "none"}},
            },
            "schedule": {
                "kind": "choice",
                "field": "schedule",
                "choices": {"cosine": {"kind": "cosine"}, "constant": {"kind": "constant"}},
            },
        }
    }
    assert default_pick(validate_section(Space, values, "space")) == {"weights": "none", "schedule": "cosine"}


@pytest.mark.parametrize(
    "parameter",
    [
        {"kind": "float", "field": "optimiser.lr", "low": 0.01, "high": 0.1},
        {"kind": "choice", "field": "training.batch_size", "choices": [2, 8]},
        {"kind": "choice", "field": "model.head", "choices": {"a": {"kind": "linear"}, "b": {"kind": "upernet_style"}}},
        {"kind": "float", "field": "optimiser.encoder_lr", "low": 1e-5, "high": 1e-2},
    ],
    ids=["range", "choice", "section", "none"],
)
def test_there_is_no_default_pick_where_the_default_lies_outside_the_space(parameter):
    assert default_pick(validate_section(Space, {"parameters": {"x": parameter}}, "space")) is None


def test_a_choice_is_the_defaults_where_it_differs_only_in_what_another_parameter_sets(make_space):
    space = make_space()
    space = space.model_copy(update={"experiment": apply_overrides(space.experiment, {"model.head.channels": 96})})
    assert default_pick(space)["head"] == "stack" and default_pick(space)["channels"] == 96


def test_there_is_no_default_pick_between_two_steps(make_space):
    space = make_space()
    space = space.model_copy(update={"experiment": apply_overrides(space.experiment, {"loss.dice.weight": 0.7})})
    assert default_pick(space) is None
