"""Training steps on a GPU on both sides: the harness's model and loss, and the same network written plainly.

Batches are random and lie in host memory: what is measured is the copy to the device and the step. Nothing here
imports albumentations, ray or optuna, so that it runs where only torch, timm and the models' library are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from harness.bench import teams
from harness.bench.phase3_loss import PHASE3, both_losses
from harness.bench.team_models import team_model
from harness.config.loss import LossConfig
from harness.config.model import BackboneModel, ConvNeXtStyleHead, ModelConfig, SmpModel, UPerNetStyleHead
from harness.losses import build_loss
from harness.models import build_model, parameter_groups

Step = Callable[[], object]
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_NAMES = tuple(f"class {index}" for index in range(teams.CLASSES))


class Case(NamedTuple):
    """A team's training step; `size` is height and width, pixels."""

    name: str
    model: ModelConfig
    loss: LossConfig
    size: tuple[int, int]
    batch: int


def _vit(backbone: str, head: ConvNeXtStyleHead | UPerNetStyleHead, trainable: int = 0) -> BackboneModel:
    return BackboneModel(backbone=backbone, weights="none", trainable_blocks=trainable, head=head)


_BASE = "vit_base_patch14_reg4_dinov2"
CASES = (
    Case("phase 1", _vit("vit_small_patch14_dinov2", ConvNeXtStyleHead()), LossConfig(), (266, 476), 2),
    Case("phase 3", _vit(_BASE, UPerNetStyleHead()), PHASE3, (364, 644), 2),
    Case("phase 5", _vit(_BASE, UPerNetStyleHead(), trainable=2), PHASE3, (364, 644), 2),
    Case("DeepLabV3+", SmpModel(weights="none"), LossConfig(), (512, 896), 4),
)


def case_of(name: str) -> Case:
    """The case of a name."""
    return next(case for case in CASES if case.name == name)


def has_stem(case: Case) -> bool:
    """Whether a first part of the model never trains, so that what it makes of a frame can be stored."""
    return isinstance(case.model, BackboneModel)


def our_step(case: Case, device: torch.device, stored: bool) -> Step:
    """One optimiser step of the harness: uint8 images, or the stored features of the part that never trains."""
    images, truth = _batch(case)
    model = build_model(case.model, teams.CLASSES).to(device).train()
    loss = build_loss(case.loss, np.ones(teams.CLASSES), _NAMES).to(device)
    optimiser = torch.optim.AdamW([{"params": group} for group in parameter_groups(model).values()], lr=1e-4)
    inputs = _stored(model, images, device) if stored else _pinned(images.contiguous(memory_format=torch.channels_last))
    truth = _pinned(truth)

    def step() -> None:
        moved, target = inputs.to(device, non_blocking=True), truth.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16):
            logits = model.classify(moved, case.size) if stored else model(_normalised(moved))
        total, _ = loss(logits, target)
        total.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def their_step(case: Case, device: torch.device) -> Step:
    """The same step written plainly: float32 images from the loader, per-class loss, the loss read every step."""
    images, truth = _batch(case)
    inputs = _normalised(images)
    model = _team_network(case).to(device).train()
    loss = both_losses(truth)[1] if case.loss is PHASE3 else nn.CrossEntropyLoss()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        moved, target = inputs.to(device), truth.to(device)
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            total = loss(model(moved), target)
        total.backward()
        optimiser.step()
        total.item()

    return step


def _team_network(case: Case) -> nn.Module:
    if isinstance(case.model, BackboneModel):
        return team_model(case.model.backbone, case.model.head, case.model.trainable_blocks)
    return smp.DeepLabV3Plus(case.model.encoder, encoder_weights=None, classes=teams.CLASSES)


@torch.no_grad()
def _stored(model: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """What the stem makes of the images, bf16, back in host memory as a feature store would hold it."""
    with torch.autocast(device.type, torch.bfloat16):
        features = model.stem(_normalised(images.to(device)))
    return _pinned(features.to("cpu", torch.bfloat16))


def _batch(case: Case) -> tuple[Tensor, Tensor]:
    """Random images uint8 (N 3 H W) and truth int64 (N H W)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (case.batch, 3, *case.size), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, teams.CLASSES, (case.batch, *case.size), generator=generator)


def _normalised(images: Tensor) -> Tensor:
    """As harness.engine does, whose import would need the augmentation library."""
    mean = torch.tensor(_MEAN, device=images.device).view(3, 1, 1)
    deviation = torch.tensor(_DEVIATION, device=images.device).view(3, 1, 1)
    return images.float().div_(255).sub_(mean).div_(deviation)


def _pinned(tensor: Tensor) -> Tensor:
    return tensor.pin_memory() if torch.cuda.is_available() else tensor
