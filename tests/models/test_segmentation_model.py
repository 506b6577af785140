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
    assert seen == [None]


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
