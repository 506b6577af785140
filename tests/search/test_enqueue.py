"""Recipes tried first: completed, expressed in a space, taken from earlier studies, and the same after a resume."""

from __future__ import annotations

import numpy as np
import pytest

from harness.config import Experiment, SearchSettings, apply_overrides, dump_yaml, read_section, validate_section
from harness.errors import ConfigError, StudyError
from harness.search import Search, default_pick
from harness.search.enqueue import best_recipes, completed, expressed, first_picks, recipe_of
from harness.store import StudyFolder

NARROW = {"lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-2, "high": 1e-1, "log": True}}


def picks_of(folder: StudyFolder, search: Search, count: int) -> list[dict]:
    return [search.running[search.next_trial().id].picked for _ in range(count)]


@pytest.mark.parametrize("strategy", ["promote", "random", "asha"])
def test_recipes_come_right_after_the_default_and_then_what_would_have_been_drawn(strategy, make_space, folder):
    recipes = [{"lr": 0.05, "head": "linear"}, {"dice": 1.5}]
    space = make_space(strategy=strategy, trials=8, enqueue=recipes)
    picked = picks_of(folder, Search(folder, space, seed=0), 4)
    default = default_pick(space)
    assert picked[0] == default
    assert picked[1] == {"head": "linear", "lr": 0.05, "dice": default["dice"], "batch": default["batch"]}
    assert picked[2] == default | {"dice": 1.5}
    assert picked[3] not in picked[:3]


def test_without_the_default_the_first_recipe_is_trial_zero(make_space, folder):
    space = make_space(enqueue=[{"lr": 0.05}], default_first=False)
    (picked,) = picks_of(folder, Search(folder, space, seed=0), 1)
    assert picked["lr"] == 0.05


def test_a_source_by_seed_and_number_draws_as_if_nothing_had_been_enqueued(make_space, folder, tmp_path):
    plain, queued = make_space(strategy="random"), make_space(strategy="random", enqueue=[{"lr": 0.05}])
    (tmp_path / "other").mkdir()
    without = picks_of(folder, Search(folder, plain, seed=0), 4)
    with_it = picks_of(folder, Search(StudyFolder(tmp_path / "other"), queued, seed=0), 4)
    assert with_it[2:] == without[2:]


def test_what_a_recipe_and_the_default_lack_is_drawn_and_drawn_the_same_again(make_space):
    space = make_space(NARROW | {"batch": {"kind": "choice", "field": "training.batch_size", "choices": [4, 8]}})
    picks = [completed(space, {"batch": 8}, np.random.default_rng(n)) for n in (0, 0, 1)]
    assert picks[0] == picks[1] != picks[2]
    assert all(p["batch"] == 8 and 1e-2 <= p["lr"] <= 1e-1 for p in picks)


def test_a_search_killed_among_its_recipes_goes_on_with_the_next(make_space, folder, tmp_path):
    space = make_space(NARROW, trials=6, enqueue=[{"lr": 0.02}, {"lr": 0.03}, {"lr": 0.04}], strategy="random")
    picks_of(folder, Search(folder, space, seed=0), 2)
    resumed = picks_of(folder, Search(folder, space, seed=0), 5)
    assert [p["lr"] for p in resumed[:3]] == [0.02, 0.03, 0.04]
    (tmp_path / "other").mkdir()
    assert picks_of(folder, Search(StudyFolder(tmp_path / "other"), space, seed=0), 5) == resumed


def test_more_recipes_than_trials_are_as_many_as_there_are_trials(make_space, folder):
    search = Search(folder, make_space(trials=2, enqueue=[{"lr": 0.02}, {"lr": 0.03}]), seed=0)
    assert [search.next_trial() is None for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"learning": 0.1}, r"search\.enqueue: recipe 2: there is no parameter 'learning'; known: batch, channels"),
        ({"lr": 1.0}, r"recipe 2: lr 1\.0 lies outside its range; give one from 0\.0001 to 0\.1"),
        ({"head": "stak"}, r"recipe 2: head 'stak' is no choice of it; it has: stack, linear"),
        ({"dice": 0.3}, r"recipe 2: dice 0\.3 lies between two steps; give 0 or 0\.5"),
        ({"batch": 2.0}, r"recipe 2: batch 2\.0 is no whole number"),
        ({"channels": 64}, r"recipe 2: channels exists only where head is stack; give head too, or leave channels out"),
        ({"head": "linear", "channels": 64}, r"recipe 2: channels exists only where head is stack"),
        ({}, r"search\.enqueue.*1 or more"),
    ],
)
def test_a_recipe_that_the_space_cannot_take_is_refused(recipe, message, make_space):
    with pytest.raises(ConfigError, match=message):
        make_space(enqueue=[{"lr": 0.05}, recipe])


# ---- published Experiments -----------------------------------------------------------------------------------


def test_an_experiment_is_expressed_by_the_values_of_its_fields(make_space):
    space = make_space()
    picked = {"head": "stack", "channels": 96, "lr": 0.02, "dice": 1.0, "batch": 16}
    overrides = {"model.head.channels": 96, "optimiser.lr": 0.02, "loss.dice.weight": 1.0, "training.batch_size": 16}
    assert expressed(space, apply_overrides(Experiment(), overrides)) == picked


def test_a_field_that_the_space_cannot_take_is_named_with_what_it_takes(make_space):
    experiment = apply_overrides(Experiment(), {"model.head": {"kind": "upernet_style"}})
    with pytest.raises(
        ConfigError,
        match=r"ablations/x\.yaml:phase3 lies outside this space: model\.head is .*upernet.*"
        r"and parameter 'head' takes stack, linear; widen that parameter",
    ):
        recipe_of(make_space(), experiment, "ablations/x.yaml:phase3")
    with pytest.raises(
        ConfigError, match=r"loss\.dice\.weight is 0\.7, and parameter 'dice' takes 0\.0 to 2\.0 in steps"
    ):
        recipe_of(make_space(), apply_overrides(Experiment(), {"loss.dice.weight": 0.7}), "x")


def test_fields_that_the_space_does_not_vary_stay_its_own_and_are_said(make_space):
    experiment = apply_overrides(Experiment(), {"optimiser.lr": 0.02, "training.epochs": 40})
    picked, note = recipe_of(make_space(epochs=9), experiment, "best.yaml")
    assert picked["lr"] == 0.02
    assert note.startswith("enqueued best.yaml: head stack, channels 64, lr 0.02")
    assert note.endswith("what this space does not vary stays its own: training.epochs 9 (there 40)")


# ---- earlier studies -----------------------------------------------------------------------------------------


def earlier(folder: StudyFolder, space, scores: dict[float, float]) -> StudyFolder:
    """A study whose trials have these rates and scores."""
    settings = SearchSettings(space=space, seed=0, dataset="f00d")
    folder.settings.write_text(dump_yaml(settings.model_dump(mode="json")))
    search = Search(folder, space, seed=0)
    for number, (lr, score) in enumerate(scores.items()):
        row = search.record.end(f"t{number}", number, 0, "complete", picked={"lr": lr})
        search.record.ended[row.trial] = row.model_copy(update={"score": score, "best_epoch": 1})
    folder.trials.path.write_text("".join(r.model_dump_json() + "\n" for r in search.record.ended.values()))
    return folder


WIDE = {"lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-5, "high": 1.0, "log": True}}


def test_the_best_of_an_earlier_study_that_lie_in_the_space_are_taken_and_the_others_named(make_space, folder):
    scores = {0.5: 0.9, 0.03: 0.7, 0.02: 0.8, 1e-5: 0.75, 0.05: 0.1}
    recipes, notes = best_recipes(make_space(NARROW), earlier(folder, make_space(WIDE), scores), top=2)
    assert recipes == [{"lr": 0.02}, {"lr": 0.03}]
    assert notes == [
        "warm start from hunt: its trial 2 (0.8000), trial 1 (0.7000)",
        "left out, as they lie outside this space: trial 0 (0.9000): optimiser.lr is 0.5, and parameter 'lr' takes "
        "0.01 to 0.1; trial 3 (0.7500): optimiser.lr is 1e-05, and parameter 'lr' takes 0.01 to 0.1",
    ]


def test_a_study_with_other_names_for_the_same_fields_can_be_started_from(make_space, folder):
    recipes, _ = best_recipes(make_space({"rate": NARROW["lr"]}), earlier(folder, make_space(WIDE), {0.03: 0.5}), 3)
    assert recipes == [{"rate": 0.03}]


def test_a_study_with_nothing_to_start_from_is_refused(make_space, folder):
    with pytest.raises(StudyError, match="--warm-start hunt: it has no trial with a score yet; leave it out"):
        best_recipes(make_space(NARROW), earlier(folder, make_space(WIDE), {}), 3)
    with pytest.raises(StudyError, match="none of its trials lies in this space: trial 0 .*optimiser.lr is 0.5"):
        best_recipes(make_space(NARROW), earlier(folder, make_space(WIDE), {0.5: 0.5}), 3)


def test_recipes_are_the_same_after_writing_and_reading(make_space):
    space = make_space(enqueue=[{"head": "linear", "lr": 1e-3, "batch": 4}])
    settings = SearchSettings(space=space, seed=0, dataset="f00d")
    assert validate_section(SearchSettings, settings.model_dump(mode="json"), "study.yaml") == settings


def test_first_picks_read_from_study_yaml_are_those_of_the_space(make_space, folder):
    space = make_space(enqueue=[{"lr": 0.05}])
    settings = SearchSettings(space=space, seed=0, dataset="f00d")
    folder.settings.write_text(dump_yaml(settings.model_dump(mode="json")))
    assert first_picks(read_section(SearchSettings, folder.settings).space, 0) == first_picks(space, 0)
