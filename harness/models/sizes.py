"""Which input sizes a model takes, and whether it has a stem, found on a network without memory (meta device)."""

from __future__ import annotations

from functools import lru_cache

import torch

from harness.config.model import BackboneModel, LinearHead, ModelConfig, SmpModel
from harness.errors import ModelError
from harness.models.backbones import is_vit, probe_backbone, vit_patch
from harness.models.build import build_model
from harness.models.names import check_name, model_name
from harness.models.segmentation_model import SegmentationModel

#: what segmentation_models_pytorch asks of height and width: the encoder's output stride, where it asks
SMP_MULTIPLES = {"Unet": 1, "PSPNet": 8, "DeepLabV3": 8, "DeepLabV3Plus": 16, "PAN": 16}
SMP_MULTIPLE = 32


def size_multiple(config: ModelConfig) -> int:
    """The number of pixels that must divide the input's height and width."""
    return _multiple(_without_head(config))


def _without_head(config: ModelConfig) -> ModelConfig:
    """The model with the smallest head: no head minds the size of its features."""
    return config.model_copy(update={"head": LinearHead()}) if isinstance(config, BackboneModel) else config


@lru_cache(maxsize=256)
def _multiple(config: ModelConfig) -> int:
    check_name(config)
    if isinstance(config, BackboneModel):
        probe = probe_backbone(config.backbone)
        return vit_patch(probe) if is_vit(probe) else 1
    return SMP_MULTIPLES.get(config.decoder, SMP_MULTIPLE) if isinstance(config, SmpModel) else 1


def check_input_size(config: ModelConfig, size: tuple[int, int]) -> None:
    """Refuse an input size, (height, width) in pixels, that the model cannot take.

    Raises:
        ModelError: a side that is not a multiple (both are named), or a size that the network itself refuses.
    """
    _check(_without_head(config), tuple(size))


# a worker asks again for every trial, and an answer costs most of a second
@lru_cache(maxsize=256)
def _check(config: ModelConfig, size: tuple[int, int]) -> None:
    multiple = size_multiple(config)
    faults = [
        f"input {side} {pixels} is not a multiple of {multiple}; use {_neighbours(pixels, multiple)}"
        for side, pixels in zip(("height", "width"), size, strict=True)
        if pixels % multiple
    ]
    if faults:
        raise ModelError("\n".join(f"{model_name(config)}: {fault}" for fault in faults))
    try:
        _dry_run(config, size, images=1, training=False)
    except NotImplementedError:
        return  # an operator that cannot run without memory says nothing about the size
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ModelError(
            f"{model_name(config)} cannot take an input of {size[0]} x {size[1]} pixels: {error}; use a "
            "larger input, the size that the backbone was made for, or another backbone"
        ) from error


def needs_two_images(config: ModelConfig, size: tuple[int, int]) -> bool:
    """Does one training step on a single image fail, because a BatchNorm then sees one value per channel?

    So it is where features are pooled to one pixel before a BatchNorm that trains: DeepLabV3, DeepLabV3Plus,
    PAN, UPerNet and torchvision's models, and any BatchNorm head on a map of one pixel. The cure is a batch
    of two images or more, and a last batch that is dropped when it is smaller.
    """
    try:
        _dry_run(config, size, images=1, training=True)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        return True
    return False


def has_stem(config: ModelConfig) -> bool:
    """Whether a first part of the model never trains and hands on one map, which can be stored."""
    return _has_stem(_without_head(config))


@lru_cache(maxsize=256)
def _has_stem(config: ModelConfig) -> bool:
    return _without_memory(config).has_stem


def _dry_run(config: ModelConfig, size: tuple[int, int], images: int, training: bool) -> None:
    model = _without_memory(config).train(training)
    with torch.device("meta"), torch.no_grad():
        model(torch.zeros(images, 3, *size))


def _without_memory(config: ModelConfig) -> SegmentationModel:
    without_weights = config.model_copy(update={"weights": "none"})
    try:
        with torch.device("meta"):
            return build_model(without_weights, classes=2)
    except RuntimeError as error:
        if "meta tensors" not in str(error):
            raise
        # mix transformers (mit_b0 to mit_b5) read numbers from tensors while they are built
        return build_model(without_weights, classes=2).to("meta")


def _neighbours(pixels: int, multiple: int) -> str:
    below = pixels // multiple * multiple
    return f"{below} or {below + multiple}" if below else f"{multiple}"
