"""The Experiment: frozen, one fingerprint for one meaning, a JSON schema, the same after writing and reading."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.config import (
    Experiment,
    Space,
    Trial,
    apply_overrides,
    canonical_json,
    dump_yaml,
    fingerprint,
    json_schema,
    parse_yaml,
    validate_section,
)
from harness.errors import ConfigError


def read(values: Any) -> Experiment:
    return validate_section(Experiment, values, "here")


rates = st.floats(min_value=0, max_value=10, exclude_min=True)
shares = st.floats(min_value=0, max_value=1)


@given(
    rates, shares, st.floats(min_value=0, max_value=1, exclude_max=True), st.floats(min_value=1e-300, max_value=1e300)
)
def test_an_experiment_is_the_same_after_writing_and_reading(lr: float, decay: float, beta: float, clip: float) -> None:
    changes = {"lr": lr, "weight_decay": decay, "beta1": beta, "clip_norm": clip}
    experiment = apply_overrides(Experiment(), {f"optimiser.{name}": value for name, value in changes.items()})
    again = read(parse_yaml(dump_yaml(experiment.model_dump(mode="json")), "here")[0])
    assert again == experiment
    assert fingerprint(again) == fingerprint(experiment)
    assert again.optimiser.lr == lr


def test_the_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    one = {"training": {"epochs": 3, "batch_size": 2}, "optimiser": {"kind": "sgd", "lr": 0.1}}
    other = {"optimiser": {"lr": 0.1, "kind": "sgd"}, "training": {"batch_size": 2, "epochs": 3}}
    assert fingerprint(read(one)) == fingerprint(read(other))


def test_a_whole_number_and_its_float_are_one_experiment() -> None:
    whole, real = (read({"loss": {"dice": {"weight": weight}}}) for weight in (1, 1.0))
    assert canonical_json(whole) == canonical_json(real)


def test_a_default_spelt_out_is_the_same_experiment() -> None:
    assert fingerprint(read(json.loads(canonical_json(Experiment())))) == fingerprint(Experiment())


def leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [leaf for key, inner in value.items() for leaf in leaves(inner, f"{path}.{key}".lstrip("."))]
    return [(path, value)]


OTHER = {
    "data.root": "frames", "data.normalise": "unit", "data.input_size": [64, 64], "taxonomy.name": "falcon7",
    "taxonomy.merge": {"Logs": "ignore"}, "augmentation.policy": "none", "model.backbone": "lcnet_050",
    "model.weights": "pretrained", "model.trainable_blocks": 1, "model.stride": 4, "training.precision": "bf16",
    "evaluation.raster": "input", "evaluation.tta.scales": [1.0, 2.0], "loss.ohem.keep": 0.2,
    "training.batchnorm": "frozen", "training.compile": "default",
    "evaluation.tta.rounding": "floor", "evaluation.suppress": ["Logs"],
    "evaluation.batchnorm": "batch", "protocol.score": "union_present", "start": ["weights.safetensors"],
}  # fmt: skip


#: what a change needs beside it to be a valid Experiment
TOGETHER = {
    "protocol.bilinear_masks": {"evaluation.raster": "input"},
    "schedule.encoder_warmup_epochs": {"schedule.freeze_encoder_epochs": 1},
    "training.cached_views": {"model.trainable_blocks": 1},
}


def another(path: str, value: Any) -> Any:
    if path in OTHER:
        return OTHER[path]
    if isinstance(value, bool):
        return not value
    return 1 if value is None else value + 1 if isinstance(value, int) else value * 0.9 + 0.01


FIELDS = [(p, v) for p, v in leaves(Experiment().model_dump(mode="json")) if not p.endswith("kind")]


@pytest.mark.parametrize(("path", "value"), FIELDS, ids=[path for path, _ in FIELDS])
def test_every_change_has_its_own_fingerprint(path: str, value: Any) -> None:
    base = apply_overrides(Experiment(), TOGETHER.get(path, {}))
    assert fingerprint(apply_overrides(base, {path: another(path, value)})) != fingerprint(base)


def test_an_experiment_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Experiment().training = None
    with pytest.raises(ValidationError, match="frozen"):
        Experiment().training.epochs = 3


def test_the_trial_id_follows_from_the_experiment_and_the_seed() -> None:
    trial = Trial(Experiment(), 3)
    assert trial.id == f"{fingerprint(Experiment())}-s3"
    assert trial.id == Trial(read({}), 3).id
    assert trial.id != Trial(Experiment(), 4).id


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"schedule": {"kind": "cosine", "warmup_epochs": 10}},
            r"warm-up \(10\) .* must fit into training\.epochs \(9\)",
        ),
        (
            {"schedule": {"kind": "plateau", "freeze_encoder_epochs": 5, "encoder_warmup_epochs": 5}},
            r"freeze \+ encoder warm-up \(10\) must fit into training\.epochs \(9\); raise the epochs or lower",
        ),
        (
            {"schedule": {"kind": "constant", "encoder_warmup_epochs": 2}},
            r"encoder_warmup_epochs needs schedule\.freeze_encoder_epochs of at least 1",
        ),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(values)


@pytest.mark.parametrize("section", [Experiment, Space])
def test_the_json_schema_is_one(section: type) -> None:
    schema = json_schema(section)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_json_schema_takes_the_default_and_refuses_a_misspelt_key_and_a_wrong_value() -> None:
    validator = jsonschema.Draft202012Validator(json_schema(Experiment))
    assert validator.is_valid(Experiment().model_dump(mode="json"))
    assert not validator.is_valid({"trainig": {}})
    assert not validator.is_valid({"training": {"epochs": -1}})
    assert not validator.is_valid({"optimiser": {"kind": "lion"}})


def sections_of(schema: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (name, field, rule)
        for name, section in [("Experiment", schema), *schema["$defs"].items()]
        for field, rule in section["properties"].items()
    ]


def test_every_field_of_the_schema_says_what_it_is() -> None:
    silent = [
        f"{section}.{field}"
        for section, field, rule in sections_of(json_schema(Experiment))
        if field != "kind" and "description" not in rule
    ]
    assert silent == []


def test_cached_views_of_a_model_that_trains_as_a_whole_are_refused() -> None:
    with pytest.raises(ConfigError, match="all of this model trains; set it to 0, or freeze"):
        apply_overrides(Experiment(), {"training.cached_views": 2})


def test_cached_views_of_frames_that_cutmix_joins_are_refused() -> None:
    steps = {"kind": "steps", "steps": [{"kind": "cutmix"}]}
    with pytest.raises(
        ConfigError, match="a cutmix step joins the frames of a batch; set it to 0, or leave cutmix out"
    ):
        apply_overrides(Experiment(), {"training.cached_views": 2, "model.trainable_blocks": 0, "augmentation": steps})
