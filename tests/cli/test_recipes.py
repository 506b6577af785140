"""--enqueue and --warm-start: words of a command line as recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli.recipes import with_recipes
from harness.config import Experiment, SearchSettings, Space, apply_overrides, dump_yaml, read_section, validate_section
from harness.errors import ConfigError
from harness.store import StudyFolder

ROOT = Path(__file__).resolve().parents[2]
IGNITIA = ROOT / "ablations" / "ignitia.yaml"
HEADS = read_section(Space, ROOT / "search_spaces" / "dinov2_heads.yaml")


def test_an_arm_of_a_published_ablation_that_the_space_contains_is_its_first_recipe():
    space, (note,) = with_recipes(HEADS, [f"{IGNITIA}:phase2"], [], None)
    (recipe,) = space.search.enqueue
    assert recipe == {
        "backbone": "vit_small_patch14_dinov2", "trainable_blocks": 0, "head": "convnext_style",
        "resolution": "476x266",
        "augmentation": "ignitia_phase2", "class_weights": "inverse", "dice_weight": 0.0, "focal_weight": 0.0,
        "lr": 5e-4, "weight_decay": 1e-4,
    }  # fmt: skip
    assert "training.epochs 27 (there 30)" in note


def test_an_arm_that_the_space_cannot_take_is_refused_with_the_field():
    with pytest.raises(
        ConfigError, match=r"phase3 lies outside this space: augmentation\.policy is ignitia_phase3, and"
    ):
        with_recipes(HEADS, [f"{IGNITIA}:phase3"], [], None)


def test_an_unknown_arm_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"has no arm 'phase33'; did you mean 'phase3'\?"):
        with_recipes(HEADS, [f"{IGNITIA}:phase33"], [], None)


SPACE = {"parameters": {"lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True}}}


def test_an_experiment_file_is_a_recipe_after_those_of_the_space(tmp_path):
    path = tmp_path / "best.yaml"
    experiment = apply_overrides(Experiment(), {"optimiser.lr": 0.03})
    path.write_text(dump_yaml(experiment.model_dump(mode="json")))
    own = validate_section(Space, SPACE | {"search": {"enqueue": [{"lr": 0.01}]}}, "space")
    assert with_recipes(own, [str(path)], [], None)[0].search.enqueue == ({"lr": 0.01}, {"lr": 0.03})


def test_a_resumed_study_keeps_its_recipes_unless_those_of_its_space_changed(tmp_path):
    plain = validate_section(Space, SPACE, "space")
    other = validate_section(Space, SPACE | {"search": {"enqueue": [{"lr": 0.02}]}}, "space")
    stored = validate_section(Space, SPACE | {"search": {"enqueue": [{"lr": 0.01}]}}, "space")
    folder = StudyFolder(tmp_path)
    settings = SearchSettings(space=stored, seed=0, dataset="f00d")
    folder.settings.write_text(dump_yaml(settings.model_dump(mode="json")))
    # an earlier study that is not there any more is not looked for
    assert with_recipes(plain, [], ["gone"], folder) == (stored, ["recipes: as in study.yaml"])
    assert with_recipes(plain, [], [], folder) == (stored, [])
    assert with_recipes(other, [], [], folder) == (other, [])


def test_a_number_of_trials_below_one_is_refused():
    with pytest.raises(ConfigError, match="--warm-start hunt:0: 0 trials; give 1 or more"):
        with_recipes(HEADS, [], ["hunt:0"], None)
