"""Messages: the file, the line, the field, the rule, the nearest word."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from harness.config import Experiment, Space, did_you_mean, parse_yaml, read_section, validate_section, visible
from harness.config.data import CustomTaxonomy
from harness.errors import ConfigError


def refused(text: str, section: type = Experiment) -> str:
    """The message for a file of this text."""
    value, lines = parse_yaml(text, "f.yaml")
    with pytest.raises(ConfigError) as error:
        validate_section(section, value, "f.yaml", lines)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dta: {}", "f.yaml:1: dta: unknown key; did you mean 'data'?"),
        ("data:\n  normalize: unit", "f.yaml:2: data.normalize: unknown key; did you mean 'normalise'?"),
        (
            "model:\n  kind: backbone\n  head:\n    kind: conv_stack\n    chanels: 3",
            "f.yaml:5: model.head.chanels: unknown key; did you mean 'channels'?",
        ),
        (
            "model:\n  kind: backbone\n  backbone: lcnet_050\n  strid: 8",
            "f.yaml:4: model.strid: unknown key; did you mean 'stride'?",
        ),
        ("model: {kind: smp, head: {}}", "f.yaml:1: model.head: unknown key; known: decoder, encoder, kind"),
        (
            "augmentation:\n  kind: steps\n  steps:\n    - {kind: blur}\n    - kind: clahe\n      tile: 3",
            "f.yaml:6: augmentation.steps.1.tile: unknown key; did you mean 'tiles'?",
        ),
        (
            "loss:\n  dice:\n    class_weights:\n      kind: log_frequency\n      ofset: 2",
            "f.yaml:5: loss.dice.class_weights.ofset: unknown key; did you mean 'offset'?",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_key_of_its_own_section(text: str, message: str) -> None:
    assert refused(text).startswith(message)


def test_an_unknown_key_of_a_parameter_gets_the_keys_of_its_kind() -> None:
    text = "parameters:\n  low:\n    kind: float\n    field: optimiser.lr\n    low: 1.0\n    high: 2.0\n    hihg: 3.0"
    assert refused(text, Space) == "f.yaml:7: parameters.low.hihg: unknown key; did you mean 'high'?"


def test_a_wrong_kind_is_refused_with_the_nearest_kind() -> None:
    text = "model:\n  kind: backbone\n  backbone: x\n  head: {kind: conv_stak}"
    assert refused(text) == "f.yaml:4: model.head: kind 'conv_stak' does not exist; did you mean 'conv_stack'?"


def test_a_wrong_kind_that_resembles_none_gets_the_list() -> None:
    message = refused("optimiser: {kind: lion}")
    assert message == "f.yaml:1: optimiser: kind 'lion' does not exist; known: adamw, sgd"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {backbone: x}", "f.yaml:1: model: needs a 'kind'; one of 'backbone', 'smp', 'torchvision'"),
        (
            "model:\n  kind: backbone\n  head: {channels: 8}",
            "f.yaml:3: model.head: needs a 'kind'; one of 'linear', 'convnext_style', 'upernet_style', 'conv_stack'",
        ),
        (
            "augmentation:\n  kind: steps\n  steps:\n    - {probability: 0.5}",
            "f.yaml:4: augmentation.steps.0: needs a 'kind'; one of 'horizontal_flip', 'vertical_flip',",
        ),
    ],
)
def test_a_missing_kind_is_refused_with_the_kinds(text: str, message: str) -> None:
    assert refused(text).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {normalise: imagnet}", "data.normalise: 'imagnet' is not a choice; did you mean 'imagenet'?"),
        ("training: {precision: fp8}", "training.precision: 'fp8' is not a choice; known: bf16, fp16, fp32"),
        ("training: {epochs: -1}", "training.epochs: input should be greater than or equal to 0, not -1"),
        ("optimiser: {kind: sgd, momentum: 1.0}", "optimiser.momentum: input should be less than 1, not 1.0"),
        ("optimiser: {kind: adamw, lr: .nan}", "optimiser.lr: input should be a finite number, not nan"),
        ("optimiser: {kind: adamw, lr: .inf}", "optimiser.lr: input should be a finite number, not inf"),
        ("optimiser: {kind: adamw, lr: '1e-3'}", "optimiser.lr: input should be a valid number, not '1e-3'"),
        ("training: {epochs: '3'}", "training.epochs: input should be a valid integer, not '3'"),
        ("training: {epochs: 3.0}", "training.epochs: input should be a valid integer, not 3.0"),
        ("training: {epochs: true}", "training.epochs: input should be a valid integer, not True"),
        ("training: {drop_last: no}", "training.drop_last: input should be a valid boolean, not 'no'"),
        ("model: {kind: backbone, stride: '4'}", "model.stride: '4' is text; write the number 4 without quotes"),
        ("model: {kind: backbone, stride: 5}", "model.stride: input should be 4, 8, 16 or 32, not 5"),
        ("model: {kind: backbone, backbone: 3}", "model.backbone: input should be a valid string, not 3"),
        ("model: 3", "model: input should be an object, not 3"),
        ("data: {input_size: [96]}", "data.input_size.1: is missing; it has no default"),
        ("data: {input_size: [96, 96, 96]}", "data.input_size: has 3 items; it takes 2 or fewer"),
        ("evaluation: {tta: {scales: []}}", "evaluation.tta.scales: has 0 items; it takes 1 or more"),
        (
            "loss: {dice: {class_weights: {kind: explicit}}}",
            "loss.dice.class_weights.values: is missing; it has no default",
        ),
        ("loss: {cross_entropy: {weight: 0}}", "loss: every term has weight 0; give at least one term a weight"),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused_with_its_field_and_itself(text: str, message: str) -> None:
    assert refused(text).startswith(f"f.yaml:1: {message}")


def test_every_fault_of_a_file_is_told_at_once_each_with_its_line() -> None:
    text = "training:\n  epochs: -1\n  batch_size: 0\nevaluation:\n  tta:\n    flp: true\n"
    assert [re.match(r"f\.yaml:(\d+): ([\w.]+): ", line).groups() for line in refused(text).splitlines()] == [
        ("2", "training.epochs"),
        ("3", "training.batch_size"),
        ("6", "evaluation.tta.flp"),
    ]


def test_a_rule_between_sections_names_the_file() -> None:
    message = refused("schedule: {kind: cosine, warmup_epochs: 12}")
    assert message.startswith("f.yaml: warm-up (12) and freeze + encoder warm-up (0) must fit into training.epochs (9)")


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "3\n", "words\n"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    assert refused(text).startswith("f.yaml: input should be an object, not ")


def test_a_value_that_json_has_not_is_refused_with_its_field() -> None:
    with pytest.raises(
        ConfigError, match=r"^f: data\.root: a value of type date; use only numbers, text, true/false, lists and map"
    ):
        validate_section(Experiment, {"data": {"root": date(2024, 1, 1)}}, "f")


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing changed\n")
    assert read_section(Experiment, tmp_path / "empty.yaml") == Experiment()


def test_a_file_names_itself_in_the_message(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text("# a comment\ntraining:\n  epoch: 3\n")
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(path))}:3: training\.epoch: .*did you mean 'epochs'\?$"):
        read_section(Experiment, path)


def test_did_you_mean_gives_the_nearest_word_or_all_of_them() -> None:
    assert did_you_mean("blurr", ["blur", "grey"]) == "; did you mean 'blur'?"
    assert did_you_mean("zzz", ["grey", "blur"]) == "; known: blur, grey"


def test_stored_text_is_shown_with_its_control_characters_spelt_out_and_its_lines_kept():
    assert visible("loss \x1b[31mnan\r\x07\nat step 3\u2028") == "loss \\x1b[31mnan\\r\\x07\nat step 3\\u2028"
    assert visible("größe 3 µm → ok") == "größe 3 µm → ok"


def test_a_class_whose_name_would_move_the_cursor_is_refused():
    classes = [{"name": "Sand\x1b[2J", "ids": [1], "colour": [1, 2, 3]}]
    with pytest.raises(ConfigError, match="characters that cannot be printed"):
        validate_section(CustomTaxonomy, {"kind": "custom", "classes": classes}, "taxonomy")
