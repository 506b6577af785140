"""Is the name one that timm or segmentation_models_pytorch knows?"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import timm
from segmentation_models_pytorch.encoders import get_encoder_names

from harness.config import did_you_mean
from harness.config.model import BackboneModel, ModelConfig, SmpModel
from harness.errors import ModelError

#: encoders of segmentation_models_pytorch with this prefix are timm models
TIMM_PREFIX = "tu-"


def model_name(config: ModelConfig) -> str:
    """The name that messages give a model: `vit_small_patch14_dinov2`, `DeepLabV3Plus with resnet101`."""
    if isinstance(config, BackboneModel):
        return config.backbone
    return f"{config.decoder} with {config.encoder}" if isinstance(config, SmpModel) else config.name


def check_name(config: ModelConfig) -> None:
    """Refuse a backbone or encoder that its library does not have.

    Raises:
        ModelError: with the nearest name that exists.
    """
    if isinstance(config, BackboneModel):
        _check_timm_name(config.backbone, "backbone")
    elif isinstance(config, SmpModel) and config.encoder.startswith(TIMM_PREFIX):
        _check_timm_name(config.encoder.removeprefix(TIMM_PREFIX), f"encoder {config.encoder}:")
    elif isinstance(config, SmpModel) and config.encoder not in get_encoder_names():
        nearest = _nearest(config.encoder, get_encoder_names(), "segmentation_models_pytorch's documentation")
        raise ModelError(f"encoder '{config.encoder}' is unknown to segmentation_models_pytorch{nearest}")


def _check_timm_name(name: str, role: str) -> None:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        nearest = _nearest(architecture, timm.list_models(), "timm.list_models()")
        raise ModelError(f"{role} '{name}' is unknown to timm {timm.__version__}{nearest}")
    if tag and name not in (known := timm.list_pretrained(f"{architecture}.*")):
        raise ModelError(f"{role} '{name}': timm has no weights with the tag '{tag}'{did_you_mean(name, known)}")


def _nearest(word: str, known: Iterable[str], listing: str) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    # timm knows 1,300 names: far too many to list in a message
    return did_you_mean(word, close) if close else f"; {listing} has every name"
