from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.config import Experiment
from harness.data import build_taxonomy, dataset_root, list_frames, read_mask
from harness.engine.describe import describe
from harness.engine.schedule import learning_rates
from harness.errors import ModelError
from harness.models import build_model, parameter_counts


def test_parameters_and_groups_are_those_of_the_model(experiment: Callable[..., Experiment]) -> None:
    whole = experiment({"model.trainable_blocks": 1, "model.head": {"kind": "conv_stack", "channels": 8}})

    values = describe(whole)

    counts = parameter_counts(build_model(whole.model, 10))
    assert values["parameters"] == counts
    assert values["optimiser"]["groups"] == {part: trainable for part, (_, trainable) in counts.items()}
    # 1x1 convolution, 8 channels to 10 classes, with bias
    assert values["optimiser"]["groups"]["head"] == 90
    assert 0 < counts["encoder"][1] < counts["encoder"][0]


def test_ignitias_phase_2_trains_the_2432778_parameters_of_its_head(experiment: Callable[..., Experiment]) -> None:
    model = {
        "kind": "backbone",
        "backbone": "vit_small_patch14_dinov2",
        "weights": "none",
        "trainable_blocks": 0,
        "head": {"kind": "convnext_style", "channels": 128},
    }

    values = describe(experiment({"model": model, "data.input_size": [28, 42]}))

    assert sum(values["optimiser"]["groups"].values()) == 2_432_778
    assert "encoder" not in values["optimiser"]["groups"]
    assert values["parameters"]["encoder"][1] == 0
    assert (values["input"], values["output"]) == ([1, 3, 28, 42], [1, 10, 2, 3])


def test_shapes_terms_and_views_are_listed(experiment: Callable[..., Experiment]) -> None:
    values = describe(experiment({"loss.dice.weight": 0.5, "evaluation.tta": {"scales": [1.0, 0.5], "flip": True}}))

    assert (values["input"], values["output"]) == ([1, 3, 32, 48], [1, 10, 4, 6])
    assert values["loss"] == {"cross_entropy": 1.0, "dice": 0.5}
    assert values["views"][2:] == [
        {"height": 16, "width": 24, "mirrored": False},
        {"height": 16, "width": 24, "mirrored": True},
    ]
    assert values["optimiser"]["kind"] == "adamw"
    assert len(values["classes"]) == 10


def test_there_is_one_set_of_rates_for_each_epoch(experiment: Callable[..., Experiment]) -> None:
    whole = experiment({"training.epochs": 7, "schedule": {"kind": "cosine", "warmup_epochs": 2}, "optimiser.lr": 0.1})

    rates = describe(whole)["learning_rates"]

    assert len(rates) == 7
    assert [rate["head"] for rate in rates[:3]] == pytest.approx([0.05, 0.1, 0.1])
    assert rates[6] == learning_rates(whole, 7, [])


def test_class_weights_follow_the_pixels_of_the_training_masks(experiment: Callable[..., Experiment]) -> None:
    whole = experiment(
        {
            "loss.dice.weight": 1.0,
            "loss.cross_entropy.class_weights": {"kind": "inverse_frequency", "maximum": 5.0},
        }
    )

    values = describe(whole)

    taxonomy = build_taxonomy(whole.taxonomy)
    raw = np.stack([read_mask(f.mask) for f in list_frames(dataset_root(whole.data), "train")])
    pixels = {name: int((raw == i).sum()) for name, i in zip(taxonomy.names, taxonomy.ids, strict=True)}
    rarest = min(n for n in pixels.values() if n)
    assert values["class_pixels"] == pixels
    assert values["class_weights"]["cross_entropy"] == pytest.approx(
        {name: 5.0 * rarest / n if n else 0.0 for name, n in pixels.items()}
    )
    assert values["class_weights"]["dice"] == dict.fromkeys(taxonomy.names, 1.0)


def test_no_weights_are_fetched_to_be_described(
    experiment: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_config: object) -> Path:
        raise AssertionError("asked for pretrained weights")

    monkeypatch.setattr("harness.models.build.pretrained_file", refuse)

    assert describe(experiment({"model.weights": "pretrained"})) == describe(experiment())


def test_an_input_size_that_the_model_cannot_take_is_refused(experiment: Callable[..., Experiment]) -> None:
    with pytest.raises(ModelError, match="height 40 is not a multiple of 16; use 32 or 48"):
        describe(experiment({"model.backbone": "test_vit", "model.stride": None, "data.input_size": [40, 48]}))
