"""Encoder, decoder and head; what is frozen stays frozen, BatchNorm statistics included."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from harness.config.model import BackboneModel, ConvStackHead, LinearHead, SmpModel, TorchvisionModel
from harness.models import SegmentationModel, build_model, parameter_groups, set_encoder_trainable

TINY = "tu-mobilenetv3_small_050"
FROZEN = [
    SmpModel(decoder="Unet", encoder=TINY, weights="none", trainable_encoder=False),
    TorchvisionModel(weights="none", trainable_encoder=False),
    BackboneModel(backbone="test_resnet", weights="none", head=ConvStackHead(channels=8)),
    BackboneModel(backbone="test_vit", weights="none", head=ConvStackHead(channels=8)),
]


def buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def changed(module: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, buffer in module.named_buffers() if not torch.equal(buffer, before[name])}


def step(model: SegmentationModel) -> None:
    model.train()(torch.randn(2, 3, 64, 96)).square().mean().backward()


@pytest.mark.parametrize("config", FROZEN, ids=lambda config: config.kind)
def test_a_frozen_encoder_keeps_weights_and_batchnorm_statistics_in_training(config):
    model = build_model(config, 4)
    before, decoder_before = buffers(model.encoder), buffers(model.decoder)
    step(model)
    assert changed(model.encoder, before) == set()
    assert changed(model.decoder, decoder_before) != set()
    assert not any(module.training for module in model.encoder.modules()) and model.decoder.training
    assert all(p.grad is None and not p.requires_grad for p in model.encoder.parameters())
    assert set(parameter_groups(model)) == {"decoder", "head"}


def test_a_frozen_encoder_runs_without_a_graph():
    model = build_model(FROZEN[2], 4)
    seen = []
    model.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output.grad_fn))
    step(model)
    assert set(seen) == {None}


def test_batchnorm_moves_only_in_the_stages_that_train():
    config = BackboneModel(backbone="test_resnet", weights="none", trainable_blocks=1, head=LinearHead())
    model = build_model(config, 4)
    before = buffers(model.encoder)
    step(model)
    assert {name.split(".")[1] for name in changed(model.encoder, before)} == {"layer3"}


def test_an_encoder_frozen_for_the_first_epochs_thaws_to_its_own_blocks():
    config = BackboneModel(backbone="test_resnet", weights="none", trainable_blocks=1, head=LinearHead())
    model = build_model(config, 4)
    asked = [p.requires_grad for p in model.parameters()]
    set_encoder_trainable(model, False)
    before = buffers(model.encoder)
    step(model)
    assert changed(model.encoder, before) == set() and "encoder" not in parameter_groups(model)
    set_encoder_trainable(model, True)
    assert [p.requires_grad for p in model.parameters()] == asked
    step(model)
    assert changed(model.encoder, before) != set()


@pytest.mark.parametrize("config", FROZEN, ids=lambda config: config.kind)
def test_turning_the_encoder_on_never_thaws_a_frozen_one(config):
    model = build_model(config, 4)
    set_encoder_trainable(model, True)
    assert "encoder" not in parameter_groups(model) and not model.encoder.training


def test_freezing_in_evaluation_leaves_the_model_in_evaluation():
    model = build_model(SmpModel(decoder="FPN", encoder=TINY, weights="none"), 4).eval()
    set_encoder_trainable(model, False)
    set_encoder_trainable(model, True)
    assert not any(module.training for module in model.modules())


def test_every_parameter_is_in_one_group_once_under_one_stable_name():
    model = build_model(SmpModel(decoder="FPN", encoder=TINY, weights="none"), 4)
    grouped = [id(p) for group in parameter_groups(model).values() for p in group]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert len(set(grouped)) == len(grouped)
    assert {name.split(".")[0] for name in model.state_dict()} == {"encoder", "decoder", "head"}
    assert sum(1 for _ in model.named_parameters(remove_duplicate=False)) == len(grouped)


def test_a_copy_freezes_its_own_encoder():
    model = build_model(SmpModel(decoder="FPN", encoder=TINY, weights="none"), 4)
    twin = copy.deepcopy(model)
    set_encoder_trainable(twin, False)
    assert "encoder" in parameter_groups(model) and "encoder" not in parameter_groups(twin)


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_what_the_stem_made_is_classified_as_the_images_are(blocks):
    config = BackboneModel(backbone="test_vit2", weights="none", trainable_blocks=blocks, head=LinearHead())
    model = build_model(config, 4).eval()
    images = torch.randn(3, 3, 32, 48)
    with torch.no_grad():
        assert torch.equal(model.classify(model.stem(images), (32, 48)), model(images))
        # timm's own way through all blocks at once, whatever part is the stem
        whole = model.encoder.vit.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)[0]
        torch.testing.assert_close(model(images), model.head(model.decoder(whole)))


@pytest.mark.parametrize("backbone", ["test_vit2", "test_resnet", "test_convnext"])
def test_what_the_stem_makes_of_an_image_does_not_depend_on_its_batch(backbone):
    model = build_model(BackboneModel(backbone=backbone, weights="none", head=LinearHead()), 4)
    images = torch.randn(5, 3, 32, 64)
    with torch.autocast("cpu", torch.bfloat16):
        together = model.stem(images)
        assert torch.equal(together[3:4], model.stem(images[3:4]))
    assert together.dtype == torch.bfloat16 and together.is_contiguous(memory_format=torch.channels_last)


def test_only_a_part_that_never_trains_and_hands_on_one_map_is_a_stem():
    def has_stem(**fields):
        return build_model(BackboneModel(weights="none", head=LinearHead(), **fields), 4).has_stem

    assert has_stem(backbone="test_vit2") and has_stem(backbone="test_resnet")
    assert has_stem(backbone="test_vit2", trainable_blocks=1)
    assert not has_stem(backbone="test_vit2", trainable_blocks="all")
    assert not has_stem(backbone="test_resnet", trainable_blocks=1)
    several = SmpModel(decoder="FPN", encoder="resnet18", weights="none", trainable_encoder=False)
    assert not build_model(several, 4).has_stem
