"""Models: timm backbones with our heads, and whole models of libraries, all as encoder, decoder and head."""

from __future__ import annotations

import os

# before anything imports huggingface_hub, which reads it once
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from harness.models.backbones import Encoder
from harness.models.build import build_model, load_encoder
from harness.models.segmentation_model import (
    SegmentationModel,
    parameter_counts,
    parameter_groups,
    set_encoder_trainable,
)
from harness.models.sizes import check_input_size, has_stem, needs_two_images, size_multiple
from harness.models.weights import WeightsUnavailable, settle_weights

__all__ = [
    "Encoder",
    "SegmentationModel",
    "WeightsUnavailable",
    "build_model",
    "check_input_size",
    "has_stem",
    "load_encoder",
    "needs_two_images",
    "parameter_counts",
    "parameter_groups",
    "set_encoder_trainable",
    "settle_weights",
    "size_multiple",
]
