"""Which input sizes a model takes, and which models need two images per training step."""

from __future__ import annotations

from typing import get_args

import pytest
import segmentation_models_pytorch as smp
import torch

from harness.config.model import BackboneModel, ConvStackHead, LinearHead, SmpModel, TorchvisionModel
from harness.errors import ModelError
from harness.models import build_model, check_input_size, needs_two_images, size_multiple

TINY = "tu-mobilenetv3_small_050"
DECODERS = get_args(SmpModel.model_fields["decoder"].annotation)
VIT14 = BackboneModel(backbone="vit_small_patch14_dinov2", weights="none")


def whole(decoder: str, encoder: str = TINY) -> SmpModel:
    return SmpModel(decoder=decoder, encoder=encoder, weights="none")


def cnn(name: str, **fields) -> BackboneModel:
    return BackboneModel(backbone=name, weights="none", **{"head": LinearHead(), **fields})


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_multiple_is_what_the_library_checks(decoder):
    model = getattr(smp, decoder)(encoder_name=TINY, encoder_weights=None)
    checked = model.encoder.output_stride if model.requires_divisible_input_shape else 1
    assert size_multiple(whole(decoder)) == checked


@pytest.mark.parametrize(
    ("config", "multiple"), [(VIT14, 14), (cnn("test_resnet"), 1), (TorchvisionModel(weights="none"), 1)]
)
def test_a_vit_needs_whole_patches_and_a_cnn_nothing(config, multiple):
    assert size_multiple(config) == multiple


def test_a_side_that_is_no_multiple_is_refused_with_its_neighbours():
    with pytest.raises(ModelError) as error:
        check_input_size(VIT14, (270, 476))
    assert str(error.value) == ("vit_small_patch14_dinov2: input height 270 is not a multiple of 14; use 266 or 280")


def test_both_wrong_sides_are_named_and_never_size_zero():
    with pytest.raises(ModelError) as error:
        check_input_size(VIT14, (9, 480))
    assert "height 9 is not a multiple of 14; use 14" in str(error.value)
    assert "width 480 is not a multiple of 14; use 476 or 490" in str(error.value)


@pytest.mark.parametrize(
    ("config", "size"),
    [(VIT14, (266, 476)), (whole("Unet"), (65, 97)), (whole("DeepLabV3Plus", "resnet101"), (512, 896)),
     (TorchvisionModel(weights="none"), (540, 960)), (cnn("test_convnext"), (65, 97))],
    ids=lambda value: getattr(value, "kind", str(value)),
)  # fmt: skip
def test_a_size_that_fits_passes(config, size):
    check_input_size(config, size)


def test_a_size_that_fits_runs():
    for config, size in ((whole("Unet"), (65, 97)), (cnn("test_convnext"), (65, 97))):
        assert build_model(config, 3).eval()(torch.zeros(1, 3, *size)).shape[:2] == (1, 3)


@pytest.mark.parametrize(
    ("config", "size", "reason"),
    [
        (whole("PAN"), (64, 96), "Output size is too small"),
        (cnn("test_maxvit"), (112, 224), "must be divisible by window"),
        (cnn("swin_tiny_patch4_window7_224"), (256, 256), "doesn't match model"),
    ],
)
def test_a_size_that_the_network_itself_refuses_is_found_before_it_is_built(config, size, reason):
    with pytest.raises(ModelError, match=f"cannot take an input of {size[0]} x {size[1]} pixels: .*{reason}"):
        check_input_size(config, size)


#: measured: features pooled to one pixel before a BatchNorm
TWO_IMAGES = {"PAN", "DeepLabV3", "DeepLabV3Plus", "UPerNet"}


@pytest.mark.parametrize("decoder", DECODERS)
def test_one_image_per_training_step_fails_exactly_where_it_is_foretold(decoder):
    config, size = whole(decoder), (128, 128)
    assert needs_two_images(config, size) == (decoder in TWO_IMAGES)
    model = build_model(config, 3).train()
    if decoder in TWO_IMAGES:
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            model(torch.randn(1, 3, *size))
    assert model(torch.randn(2 if decoder in TWO_IMAGES else 1, 3, *size)).shape[1:] == (3, *size)


def test_one_image_per_step_depends_on_the_head_and_the_size():
    stack = cnn("test_resnet", head=ConvStackHead(channels=8))
    assert needs_two_images(TorchvisionModel(weights="none"), (540, 960))
    assert not needs_two_images(stack, (64, 64)) and needs_two_images(stack, (16, 16))
    assert not needs_two_images(VIT14, (14, 14))
