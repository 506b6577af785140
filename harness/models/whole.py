"""Whole models of segmentation_models_pytorch and torchvision, taken apart into encoder, decoder and head."""

from __future__ import annotations

from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import segmentation as torchvision_models

from harness.config.model import SmpModel, TorchvisionModel
from harness.errors import ModelError
from harness.models.names import TIMM_PREFIX
from harness.models.segmentation_model import FROZEN, WHOLE, SegmentationModel

#: classes of torchvision's pretrained DeepLabV3: COCO images, the labels of Pascal VOC
VOC_CLASSES = 21


class OutFeatures(nn.Module):
    """torchvision's backbone, its one feature map taken out of the dictionary; N 3 H W -> N C h w."""

    one_map = True

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(images)["out"]


def build_smp(config: SmpModel, classes: int, file: Path | None) -> SegmentationModel:
    """A decoder of segmentation_models_pytorch on its encoder, the encoder's weights from `file` or random.

    The library's forward is head(decoder(encoder(images))), and so is ours; the head upsamples by itself
    (bilinear, align_corners on), so logits come at the input's size.

    Raises:
        ModelError: the decoder does not fit the encoder.
    """
    trained = WHOLE if config.trainable_encoder else FROZEN
    try:
        library = _smp_library(config, classes, file)
    except (ValueError, TypeError, AssertionError) as error:
        reason = str(error) or "it refuses the dilation that this decoder asks for"
        raise ModelError(
            f"decoder '{config.decoder}' does not fit encoder '{config.encoder}': {reason}; "
            "choose another encoder (resnet34 fits every decoder) or another decoder"
        ) from error
    return SegmentationModel(library.encoder, library.decoder, library.segmentation_head, trained)


def build_torchvision(config: TorchvisionModel, classes: int, file: Path | None) -> SegmentationModel:
    """torchvision's DeepLabV3 with a new last 1x1 convolution; the unused auxiliary head is left out.

    Logits are resized to the input (bilinear, align_corners off) as in the library.
    """
    build = getattr(torchvision_models, config.name)
    library = build(weights=None, weights_backbone=None, num_classes=VOC_CLASSES, aux_loss=False)
    if file is not None:
        state = _read_library(file)
        library.load_state_dict({k: v for k, v in state.items() if not k.startswith("aux_classifier.")})
    *decoder, last = library.classifier
    return SegmentationModel(
        OutFeatures(library.backbone),
        nn.Sequential(*decoder),
        nn.Conv2d(last.in_channels, classes, 1),
        WHOLE if config.trainable_encoder else FROZEN,
        resize=True,
    )


def _read_library(file: Path) -> dict[str, Tensor]:
    try:
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    # torch's own name for it: this package imports nothing that can unpickle
    except (torch.serialization.pickle.UnpicklingError, RuntimeError, ValueError, TypeError, EOFError) as error:
        why = (str(error) or repr(error)).splitlines()[0]
        raise ModelError(f"{file}: no file of tensors alone ({why}); remove it, so that it is fetched again") from error


def _smp_library(config: SmpModel, classes: int, file: Path | None) -> nn.Module:
    architecture = getattr(smp, config.decoder)
    # every option by name: the library accepts a misspelt one in silence
    if file is not None and config.encoder.startswith(TIMM_PREFIX):
        return architecture(
            encoder_name=config.encoder,
            encoder_weights=True,
            in_channels=3,
            classes=classes,
            pretrained_cfg_overlay={"file": str(file)},
        )
    library = architecture(encoder_name=config.encoder, encoder_weights=None, in_channels=3, classes=classes)
    if file is not None:
        library.encoder.load_state_dict(load_file(file))
    return library
