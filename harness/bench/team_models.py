"""The peers' networks: the layers that the teams' scripts name, put together plainly, with random weights."""

from __future__ import annotations

import timm
from torch import nn

from harness.bench.teams import CLASSES, TeamModel
from harness.config.model import Head
from harness.models.heads import build_head


def team_model(backbone: str, head: Head, trainable: int = 0) -> TeamModel:
    """A timm ViT, of which the last `trainable` blocks train, and the layers of a head."""
    vit = timm.create_model(backbone, pretrained=False, num_classes=0, dynamic_img_size=True)
    return TeamModel(vit, nn.Sequential(*build_head(head, vit.num_features, CLASSES)), trainable)
