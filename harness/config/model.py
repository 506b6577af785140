"""What is trained: a timm backbone with a head, or a whole model of a library."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.config.base import Section, Weights

_WEIGHTS = (
    "pretrained: the library's, an error where they cannot be had. pretrained_if_available: those or random "
    "ones, settled and said on screen before the first trial. none: random. Otherwise a .safetensors file"
)


class LinearHead(Section):
    """One 1x1 convolution."""

    kind: Literal["linear"] = "linear"


class ConvNeXtStyleHead(Section):
    """Ignitia's phases 1-2: 7x7, depthwise 7x7, 1x1, each with GELU; no normalisation."""

    kind: Literal["convnext_style"] = "convnext_style"
    channels: int = Field(128, ge=8, le=1024, description="channels inside the head")


class UPerNetStyleHead(Section):
    """Ignitia's phases 3-6: pyramid pooling and three dilated branches, GroupNorm, single level."""

    kind: Literal["upernet_style"] = "upernet_style"
    channels: int = Field(256, ge=32, le=1024, multiple_of=32, description="channels inside the head")
    dropout: float = Field(0.1, ge=0, lt=1, description="channel dropout before the classifier, 0-1")


class ConvStackHead(Section):
    """The head that Ignitia documented but did not run: twice 3x3 convolution, BatchNorm, GELU."""

    kind: Literal["conv_stack"] = "conv_stack"
    channels: int = Field(256, ge=8, le=1024, description="channels inside the head")


Head = Annotated[LinearHead | ConvNeXtStyleHead | UPerNetStyleHead | ConvStackHead, Field(discriminator="kind")]


class BackboneModel(Section):
    """A timm backbone and one of our heads."""

    kind: Literal["backbone"] = "backbone"
    backbone: str = Field("vit_small_patch14_dinov2", description="a timm model name, CNN or ViT")
    weights: Weights = Field("pretrained", description=_WEIGHTS)
    trainable_blocks: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        0, description="last blocks of the backbone that train; 0: frozen; all: everything"
    )
    stride: Literal[4, 8, 16, 32] | None = Field(
        None, description="stride of the features handed to the head, pixels; none: a ViT's patch, a CNN's 16"
    )
    head: Head = Field(ConvNeXtStyleHead(), description="what turns features into class logits")


class SmpModel(Section):
    """A segmentation_models_pytorch decoder on one of its encoders."""

    kind: Literal["smp"] = "smp"
    decoder: Literal[
        "Unet", "UnetPlusPlus", "FPN", "PSPNet", "Linknet", "PAN", "MAnet", "DeepLabV3", "DeepLabV3Plus",
        "UPerNet", "Segformer",
    ] = Field("DeepLabV3Plus", description="architecture")  # fmt: skip
    encoder: str = Field("resnet101", description="encoder name of the library; any timm model as tu-NAME")
    weights: Weights = Field("pretrained", description=_WEIGHTS)
    trainable_encoder: bool = Field(True, description="false: the encoder is frozen, its BatchNorm too")


class TorchvisionModel(Section):
    """torchvision's DeepLabV3, its last layer replaced."""

    kind: Literal["torchvision"] = "torchvision"
    name: Literal["deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "deeplabv3_resnet101"] = Field(
        "deeplabv3_mobilenet_v3_large", description="architecture"
    )
    weights: Weights = Field("pretrained", description=_WEIGHTS)
    trainable_encoder: bool = Field(True, description="false: the backbone is frozen, its BatchNorm too")


ModelConfig = Annotated[BackboneModel | SmpModel | TorchvisionModel, Field(discriminator="kind")]


def has_frozen_part(config: BackboneModel | SmpModel | TorchvisionModel) -> bool:
    """Whether a first part of the model never trains."""
    return config.trainable_blocks != "all" if isinstance(config, BackboneModel) else not config.trainable_encoder
