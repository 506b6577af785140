"""The contract that every kind of model keeps."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from harness.config.model import (
    BackboneModel,
    ConvNeXtStyleHead,
    ConvStackHead,
    LinearHead,
    SmpModel,
    TorchvisionModel,
    UPerNetStyleHead,
)
from harness.errors import ModelError
from harness.models import build_model, parameter_counts, parameter_groups

HEADS = [LinearHead(), ConvNeXtStyleHead(channels=16), UPerNetStyleHead(channels=32), ConvStackHead(channels=16)]
BACKBONES = ["test_vit", "test_vit4", "test_resnet", "test_convnext", "test_mambaout"]
MODELS = [
    *(BackboneModel(backbone=b, weights="none", trainable_blocks="all", head=h) for b in BACKBONES for h in HEADS),
    SmpModel(decoder="FPN", encoder="tu-mobilenetv3_small_050", weights="none"),
    SmpModel(decoder="DeepLabV3Plus", encoder="mobilenet_v2", weights="none"),
    SmpModel(decoder="Segformer", encoder="mit_b0", weights="none"),
    TorchvisionModel(weights="none"),
]


def label(config) -> str:
    return f"{config.backbone}-{config.head.kind}" if isinstance(config, BackboneModel) else config.kind


@pytest.mark.parametrize("config", MODELS, ids=label)
def test_every_model_gives_logits_groups_and_gradients(config):
    torch.manual_seed(0)
    model = build_model(config, 5)
    logits = model(torch.randn(2, 3, 64, 96))
    assert logits.shape[:2] == (2, 5) and logits.dtype == torch.float32
    assert abs(logits.shape[3] / logits.shape[2] - 1.5) < 0.01
    logits.square().mean().backward()
    groups = parameter_groups(model)
    assert set(groups) <= {"encoder", "decoder", "head"} and {"encoder", "head"} <= set(groups)
    assert all(p.requires_grad for group in groups.values() for p in group)
    assert all(any(p.grad is not None for p in group) for group in groups.values())
    counts = parameter_counts(model)
    assert sum(whole for whole, _ in counts.values()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("config", [MODELS[0], MODELS[-1]], ids=label)
def test_the_same_seed_builds_the_same_weights(config):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_model(config, 5).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_smal_patch14_dinov2", "unknown to timm .*; did you mean 'vit_small_patch14_dinov2'"),
        ("qqqq", r"'qqqq' is unknown to timm [\d.]+; timm.list_models\(\) has every name"),
        ("resnet18.a7_in1k", "timm has no weights with the tag 'a7_in1k'; did you mean 'resnet18.a"),
        ("hf-hub:someone/model", "is unknown to timm"),
    ],
)
def test_an_unknown_backbone_is_refused_with_the_nearest_name(name, message):
    with pytest.raises(ModelError, match=message):
        build_model(BackboneModel(backbone=name, weights="none"), 5)


def test_models_load_without_ray_and_without_telemetry():
    code = (
        "import sys, harness.models, huggingface_hub.constants as c;"
        "assert 'ray' not in sys.modules and c.HF_HUB_DISABLE_TELEMETRY"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
