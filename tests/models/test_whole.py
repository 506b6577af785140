"""Whole models of segmentation_models_pytorch and torchvision."""

from __future__ import annotations

from typing import get_args

import pytest
import segmentation_models_pytorch as smp
import torch
from torchvision.models import segmentation

from harness.config.model import SmpModel, TorchvisionModel
from harness.errors import ModelError
from harness.models import build_model, parameter_counts, parameter_groups

TINY = "tu-mobilenetv3_small_050"
DECODERS = get_args(SmpModel.model_fields["decoder"].annotation)


def total(counts: dict[str, tuple[int, int]]) -> int:
    return sum(whole for whole, _ in counts.values())


@pytest.mark.parametrize(("classes", "parameters"), [(7, 45_671_255), (10, 45_672_026)])
def test_deeplabv3plus_on_resnet101_has_the_published_parameters(classes, parameters):
    with torch.device("meta"):
        counts = parameter_counts(build_model(SmpModel(weights="none"), classes))
    assert total(counts) == parameters
    assert (counts["encoder"][0], counts["decoder"][0]) == (42_500_160, 3_169_296)
    assert counts["head"][0] == 257 * classes


def test_torchvisions_mobilenet_has_the_published_parameters_and_no_auxiliary_head():
    counts = parameter_counts(build_model(TorchvisionModel(weights="none"), 10))
    assert counts["encoder"][0] == 2_971_952
    assert counts["decoder"][0] + counts["head"][0] == 8_050_698


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_decoder_computes_what_the_library_computes_and_trains(decoder):
    size = (128, 160) if decoder == "PAN" else (64, 96)  # PAN pools features of stride 16 three times more
    model = build_model(SmpModel(decoder=decoder, encoder=TINY, weights="none"), 4)
    library = getattr(smp, decoder)(encoder_name=TINY, encoder_weights=None, in_channels=3, classes=4)
    names = {"encoder": "encoder", "decoder": "decoder", "head": "segmentation_head"}
    for ours, theirs in names.items():
        getattr(library, theirs).load_state_dict(getattr(model, ours).state_dict())
    images = torch.randn(2, 3, *size)
    logits = model.eval()(images)
    torch.testing.assert_close(logits, library.eval()(images))
    assert logits.shape == (2, 4, *size)
    model.train()(images).square().mean().backward()
    assert all(any(p.grad is not None for p in group) for group in parameter_groups(model).values())
    assert set(parameter_groups(model)) == {"encoder", "decoder", "head"}


def test_torchvisions_forward_is_the_librarys():
    model = build_model(TorchvisionModel(weights="none"), 5).eval()
    library = segmentation.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=5, aux_loss=False
    ).eval()
    library.backbone.load_state_dict(model.encoder.backbone.state_dict())
    state = {**model.decoder.state_dict(), **{f"4.{k}": v for k, v in model.head.state_dict().items()}}
    library.classifier.load_state_dict(state)
    images = torch.randn(1, 3, 65, 97)
    torch.testing.assert_close(model(images), library(images)["out"])


@pytest.mark.parametrize(
    ("decoder", "encoder", "reason"),
    [
        ("Unet", "tu-test_vit", "Unsupported model downsampling pattern"),
        ("UnetPlusPlus", "mit_b0", "not support"),
        ("PAN", "vgg11", "dilated mode"),
        ("DeepLabV3", "tu-pvt_v2_b0", "output_stride"),
        ("DeepLabV3Plus", "tu-hrnet_w18_small", "refuses the dilation"),
    ],
)
def test_a_pair_that_does_not_fit_is_refused_by_name(decoder, encoder, reason):
    config = SmpModel(decoder=decoder, encoder=encoder, weights="none")
    with (
        torch.device("meta"),
        pytest.raises(ModelError, match=f"decoder '{decoder}' does not fit encoder '{encoder}': .*{reason}"),
    ):
        build_model(config, 4)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("resnet1001", "encoder 'resnet1001' is unknown to segmentation_models_pytorch; did you mean 'resnet101'"),
        ("tu-mobilnetv3_small_050", "unknown to timm .*; did you mean 'mobilenetv3_small_050'"),
    ],
)
def test_an_unknown_encoder_is_refused_with_the_nearest_name(encoder, message):
    with pytest.raises(ModelError, match=message):
        build_model(SmpModel(encoder=encoder, weights="none"), 4)
