"""What a search's winner changed, as the factors of a path."""

from __future__ import annotations

import json

import pytest

from harness.ablate import resolve_arms
from harness.config import SearchSettings, apply_overrides, dump_yaml, to_overrides
from harness.config.ablation import with_steps
from harness.errors import StudyError
from harness.search import path_factors
from harness.search.confirmation import Confirmation, Retrained
from harness.stats import Estimate
from harness.store import Record, StudyFolder, write_text

#: what the default Experiment has, with trainings of 9 epochs
DEFAULT = {"head": "stack", "channels": 64, "lr": 1e-3, "dice": 0.0, "batch": 4}


@pytest.fixture
def searched(folder, make_space, row):
    """Writes a search of one trial with the default's values but for those given; the folder and the Space."""

    def write(drop: str | None = None, **changed) -> tuple[StudyFolder, object]:
        space = make_space()
        values = json.loads(space.experiment.model_dump_json())
        base = {"lr": values["optimiser"]["lr"], "dice": values["loss"]["dice"]["weight"],
                "batch": values["training"]["batch_size"]}  # fmt: skip
        picked = {name: value for name, value in (DEFAULT | base | changed).items() if name != drop}
        settings = SearchSettings(space=space, seed=0, dataset="abc")
        write_text(folder.settings, dump_yaml(settings.model_dump(mode="json")))
        record = Record(folder)
        record.add_epoch(row("first", 1, 0.5, done=True))
        record.end("first", 0, 0, "complete", picked=picked)
        winner = apply_overrides(space.experiment, to_overrides(space, picked))
        return folder, winner

    return write


def factors(folder: StudyFolder) -> dict:
    return {name: factor.set for name, factor in path_factors(folder, 1).factors.items()}


def test_each_changed_parameter_is_a_factor_and_no_other(searched):
    folder, _ = searched(lr=0.02, dice=1.5)
    assert factors(folder) == {"lr": {"optimiser.lr": 0.02}, "dice": {"loss.dice.weight": 1.5}}
    assert path_factors(folder, 1).design.steps == ()


def test_a_section_is_replaced_whole(searched):
    folder, _ = searched(head="linear", dice=0.5, drop="channels")
    assert factors(folder) == {"head": {"model.head": {"kind": "linear"}}, "dice": {"loss.dice.weight": 0.5}}


def test_a_parameter_under_a_condition_that_did_not_change_is_a_factor_of_its_own(searched):
    folder, _ = searched(channels=96, lr=0.02)
    assert factors(folder)["channels"] == {"model.head.channels": 96}
    assert "head" not in factors(folder)


def test_a_parameter_under_a_condition_that_changed_goes_with_it(folder, make_space, row):
    parameters = {
        "optimiser": {
            "kind": "choice", "field": "optimiser", "choices": {"adamw": {"kind": "adamw"}, "sgd": {"kind": "sgd"}},
        },
        "momentum": {
            "kind": "float", "field": "optimiser.momentum", "low": 0.0, "high": 0.99, "when": {"optimiser": ["sgd"]},
        },
        "batch": {"kind": "int", "field": "training.batch_size", "low": 1, "high": 64},
    }  # fmt: skip
    settings = SearchSettings(space=make_space(parameters), seed=0, dataset="abc")
    write_text(folder.settings, dump_yaml(settings.model_dump(mode="json")))
    record = Record(folder)
    record.add_epoch(row("first", 1, 0.5, done=True))
    record.end("first", 0, 0, "complete", picked={"optimiser": "sgd", "momentum": 0.5, "batch": 3})
    assert factors(folder) == {
        "optimiser": {"optimiser": {"kind": "sgd"}, "optimiser.momentum": 0.5},
        "batch": {"training.batch_size": 3},
    }


@pytest.mark.parametrize(
    "changed",
    [{"head": "linear", "drop": "channels", "lr": 0.02}, {"channels": 32, "lr": 0.02, "dice": 2.0, "batch": 7}],
)
def test_all_factors_together_are_the_ranked_experiment(searched, changed):
    folder, winner = searched(**changed)
    ablation = path_factors(folder, 1)
    every = with_steps(ablation, tuple(ablation.factors))
    assert resolve_arms(every, "full")["all"].experiment == winner
    assert resolve_arms(every, "full")["baseline"].experiment == ablation.experiment


def test_an_experiment_with_fewer_than_two_changes_is_refused(searched):
    with pytest.raises(StudyError, match="rank 1 of study 'hunt' differs .* in nothing; a path needs two"):
        path_factors(searched()[0], 1)


def test_a_rank_beyond_the_last_is_refused(searched):
    with pytest.raises(StudyError, match="--rank 2: study 'hunt' has 1 trials with a score; give 1 to 1"):
        path_factors(searched(lr=0.02, dice=1.0)[0], 2)


def test_the_path_of_a_confirmed_search_leads_to_the_first_by_fresh_seeds(searched):
    folder, _ = searched(lr=0.02, dice=1.5)
    first, record = Record(folder).ranking()[0], Record(folder)
    picked = first.picked | {"lr": 0.03, "dice": 0.5}
    record.end("second", 1, 0, "failed", picked=picked)
    second = Retrained(record.ended["second"], 2, {}, {}, {})
    second.__dict__["mean"] = Estimate(0.6, 0.5, 0.7)
    confirmation = Confirmation(folder, (second,), (1000,), 9, 2, 1, 1, False)
    found = path_factors(folder, 1, confirmation).factors
    assert {name: factor.set for name, factor in found.items()} == {
        "lr": {"optimiser.lr": 0.03}, "dice": {"loss.dice.weight": 0.5},
    }  # fmt: skip
    with pytest.raises(StudyError, match="--rank 2: 1 trials of study .* were trained again"):
        path_factors(folder, 2, confirmation)
