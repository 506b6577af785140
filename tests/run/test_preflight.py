"""What is refused before the first file is written, and how weights are settled."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from huggingface_hub import constants

from harness.errors import HarnessError, StudyError
from harness.run import Resources, run_replicates, run_search
from harness.run.preflight import check_resources, settle_experiment, settle_space
from harness.store import StudyFolder

HERE = Resources("inprocess")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cached weights and no network, on any machine."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def refused(results, console, tiny_space, tiny):
    """Ask for a search; returns the one message with which it is refused, nothing written."""

    def ask(parameters: dict[str, Any] | None = None, resources: Resources = HERE, **overrides: Any) -> str:
        space = tiny_space(parameters, experiment=tiny(**overrides))
        with pytest.raises(HarnessError) as error:
            run_search(StudyFolder(results / "study"), space, resources, console, seed=0)
        assert not results.exists(), "something was written"
        assert error.value.exit_code == 2
        return str(error.value)

    return ask


def choice(field: str, *choices: Any) -> dict[str, Any]:
    values = {f"label{i}": c for i, c in enumerate(choices)} if isinstance(choices[0], list | dict) else list(choices)
    return {"x": {"kind": "choice", "field": field, "choices": values}}


# ---- model and size ------------------------------------------------------------------------------------------


def test_an_input_size_that_the_model_cannot_take_is_refused_in_a_choice_of_the_space(refused):
    overrides = {"model__backbone": "vit_tiny_patch16_224", "model__stride": None}
    message = refused(choice("data.input_size", [32, 48], [32, 50]), **overrides)
    assert message == "vit_tiny_patch16_224: input width 50 is not a multiple of 16; use 48 or 64"


def test_an_input_size_is_checked_against_every_model_that_can_meet_it(refused):
    parameters = choice("model.backbone", "mobilenetv3_small_050", "vit_tiny_patch16_224")
    parameters["size"] = {"kind": "choice", "field": "data.input_size", "choices": {"a": [32, 48], "b": [36, 48]}}
    assert "vit_tiny_patch16_224: input height 36 is not a multiple of 16; use 32 or 48" in refused(
        parameters, model__stride=None
    )


def test_views_of_a_model_that_can_store_none_are_refused_before_any_trial(refused):
    message = refused(choice("model.trainable_blocks", 0, 1), training__cached_views=2, model__trainable_blocks=0)
    assert message.startswith("training.cached_views 2: nothing of mobilenetv3_small_050 can be stored")


def test_an_unknown_backbone_is_refused_with_the_nearest_name(refused):
    message = refused(choice("model.backbone", "mobilenetv3_small_050", "mobilenetv3_smal_075"))
    assert "backbone 'mobilenetv3_smal_075' is unknown to timm" in message
    assert "did you mean 'mobilenetv3_small_075'?" in message


def test_pretrained_weights_that_cannot_be_had_are_refused(refused):
    message = refused(model__weights="pretrained")
    assert "mobilenetv3_small_050: pretrained weights are not in the cache and could not be fetched" in message
    assert "or to none" in message


def test_a_weights_file_that_does_not_exist_is_refused(refused):
    assert "weights 'gone.safetensors' does not exist" in refused(model__weights="gone.safetensors")


DEEPLAB = {"kind": "smp", "decoder": "DeepLabV3Plus", "encoder": "resnet18", "weights": "none"}


@pytest.mark.parametrize("overrides", [{"training__batch_size": 1}, {"training__batch_size": 5}])
def test_a_batch_of_one_image_on_which_batchnorm_cannot_train_is_refused(refused, overrides):
    overrides |= {"training__drop_last": False, "model": DEEPLAB}
    message = refused({"lr": {"kind": "float", "field": "optimiser.lr", "low": 0.1, "high": 0.2}}, **overrides)
    assert "with 6 frames gives a batch of one image" in message
    assert "use another batch size, or training.drop_last: true" in message


def test_a_batch_of_one_image_is_refused_in_a_choice_of_the_space(refused):
    overrides = {"training__drop_last": False, "model": DEEPLAB}
    message = refused(choice("training.batch_size", 2, 5), **overrides)
    assert "training.batch_size 5 with 6 frames gives a batch of one image" in message


# ---- frames --------------------------------------------------------------------------------------------------


def test_a_missing_folder_is_refused_with_the_layout(refused, tmp_path):
    message = refused(data__root=str(tmp_path / "nowhere"))
    assert "nowhere/train: no frames there; the layout is <root>/<split>/Color_Images" in message


def test_an_image_without_a_mask_is_refused_with_its_name(refused, frames):
    mask = sorted((frames / "val" / "Segmentation").iterdir())[0]
    mask.unlink()
    assert f"1 images without a mask ({mask.stem})" in refused(data__root=str(frames))


def test_an_unlisted_id_is_refused_with_the_id_its_count_and_the_file(refused, frames):
    mask = sorted((frames / "train" / "Segmentation").iterdir())[2]
    raw = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    raw[3, 4:7] = 4321
    cv2.imwrite(str(mask), raw)
    message = refused(data__root=str(frames))
    assert message.startswith(f"{mask}: raw ids in no class: 4321 (3 pixels)")


def test_an_id_that_one_taxonomy_of_the_space_does_not_list_is_refused(refused, frames):
    mask = sorted((frames / "val" / "Segmentation").iterdir())[0]
    raw = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    raw[0, 0] = 0
    cv2.imwrite(str(mask), raw)
    message = refused(
        choice("taxonomy.name", "ignitia10", "falcon7"), data__root=str(frames), taxonomy__name="ignitia10"
    )
    assert f"{mask}: raw ids in no class: 0 (1 pixel)" in message


def test_an_8_bit_mask_is_refused(refused, frames):
    mask = sorted((frames / "train" / "Segmentation").iterdir())[0]
    cv2.imwrite(str(mask), np.zeros((32, 48), np.uint8))
    assert f"{mask}: an 8-bit mask" in refused(data__root=str(frames))


def test_a_truncated_image_is_refused(refused, frames):
    image = sorted((frames / "val" / "Color_Images").iterdir())[0]
    image.write_bytes(image.read_bytes()[:-40])
    assert f"{image}: cut short or damaged" in refused(data__root=str(frames))


# ---- taxonomy, loss, augmentation ----------------------------------------------------------------------------


def test_explicit_class_weights_that_miss_a_class_are_refused(refused):
    weights = {"kind": "explicit", "values": {"Trees": 1.0, "Sky": 2.0}}
    message = refused(loss__cross_entropy__class_weights=weights)
    assert message.startswith("class_weights.values has no weight for Lush Bushes, Dry Grass")


def test_explicit_class_weights_that_miss_a_class_are_refused_in_a_choice_of_the_space(refused):
    weights = [{"kind": "none"}, {"kind": "explicit", "values": {"Trees": 1.0}}]
    message = refused(choice("loss.cross_entropy.class_weights", *weights))
    assert message.startswith("class_weights.values has no weight for Lush Bushes")


def test_a_merge_of_an_unknown_class_is_refused(refused):
    assert "taxonomy.merge: no class 'Flower'; did you mean 'Flowers'?" in refused(
        taxonomy__merge={"Flower": "Landscape"}
    )


def test_an_augmentation_step_that_cannot_be_built_is_refused_in_a_choice_of_the_space(refused):
    even = {"kind": "steps", "steps": [{"kind": "gaussian_blur", "kernel": [3, 6]}]}
    message = refused(choice("augmentation", {"kind": "named"}, even))
    assert "augmentation.steps.0 (gaussian_blur): kernel 6 is even" in message


def test_a_field_that_does_not_exist_is_refused(refused):
    assert "parameter 'x' at 1: override training.epoch" in refused(choice("training.epoch", 1, 2))


# ---- resources -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("executor", ["ray", "inprocess"])
def test_a_gpu_is_refused_where_there_is_none(refused, executor):
    message = refused(resources=Resources(executor, gpus_per_trial=0.5))
    assert message.startswith("--gpus-per-trial 0.5 asks for a GPU, and torch sees none on this machine; leave it out")


def test_more_gpus_than_there_are_are_refused_with_their_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_resources(Resources(gpus_per_trial=2))
    with pytest.raises(StudyError, match="--gpus-per-trial 3 asks for a GPU, and torch sees 2 .*; ask for at most 2"):
        check_resources(Resources(gpus_per_trial=3))


def test_a_fraction_above_one_gpu_is_refused_with_the_whole_numbers_beside_it():
    with pytest.raises(StudyError, match="1.5 is neither a share of one GPU nor whole GPUs; use 1 or 2"):
        check_resources(Resources(gpus_per_trial=1.5, address="auto"))


def test_more_cpu_cores_than_the_machine_has_are_refused(refused):
    cores = os.cpu_count()
    message = refused(resources=Resources("ray", cpus_per_trial=cores + 0.5))
    assert message == f"--cpus-per-trial {cores + 0.5:g}: this machine has {cores} CPU cores; ask for at most {cores}"


def test_an_address_where_nothing_answers_is_refused(refused):
    with socket.socket() as taken:
        # bound and not listening: nobody answers, and nobody else can take the port
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        message = refused(resources=Resources("ray", address=address))
    assert message.startswith(f"--address {address}: nothing answers there")


# ---- weights -------------------------------------------------------------------------------------------------


def test_pretrained_if_available_becomes_none_for_the_whole_study_and_is_said(tiny, tiny_space):
    models = choice("model.backbone", "mobilenetv3_small_050", "mobilenetv3_small_075")
    space, notes = settle_space(tiny_space(models, experiment=tiny(model__weights="pretrained_if_available")))
    assert space.experiment.model.weights == "none"
    (note,) = notes
    assert note.startswith("random weights")
    assert "mobilenetv3_small_050" in note and "mobilenetv3_small_075" in note


def test_one_model_without_pretrained_weights_decides_for_all_sections_of_a_choice(tiny, tiny_space, tmp_path):
    cached = tmp_path / "hub" / "models--timm--mobilenetv3_small_050.lamb_in1k"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    (cached / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (cached / "snapshots" / ("0" * 40) / "model.safetensors").write_bytes(b"")
    base = {"kind": "backbone", "weights": "pretrained_if_available", "stride": 8, "head": {"kind": "linear"}}
    models = [base | {"backbone": f"mobilenetv3_small_{n}"} for n in ("050", "075")]
    alone = tiny(model=models[0])
    assert settle_experiment(alone)[0].model.weights == "pretrained"
    space, _ = settle_space(tiny_space(choice("model", *models), experiment=alone))
    settled = [space.experiment.model.weights, *(c["weights"] for c in space.parameters["x"].choices.values())]
    assert settled == ["none", "none", "none"]


def test_replicates_are_refused_by_the_same_rules(results, console, tiny):
    for overrides, message in (
        ({"model__backbone": "mobilenetv3_smal_075"}, "did you mean"),
        ({"model__weights": "pretrained"}, "pretrained weights are not in the cache"),
        ({"data__root": "nowhere"}, "no frames there"),
    ):
        with pytest.raises(HarnessError, match=message):
            run_replicates(StudyFolder(results / "study"), tiny(**overrides), range(2), HERE, console)
        assert not results.exists()
