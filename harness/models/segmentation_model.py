"""The one shape of every model: encoder, decoder, head; and which part of the encoder trains."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: `trained` of an encoder that trains as a whole, and of one that is frozen
WHOLE: tuple[str, ...] = ("",)
FROZEN: tuple[str, ...] = ()


class SegmentationModel(nn.Module):
    """Images to class logits: `head(decoder(encoder(images)))`.

    The encoder hands on one feature map or a list of them, the decoder one map, the head (the last classifier
    layer only) logits. `trained` names the submodules of the encoder that train ("" is the encoder itself).
    Every other part of it is frozen: no gradient, and evaluation mode whatever `train()` is asked for, since
    the statistics of a BatchNorm move in training mode even where its weights do not.

    Shapes: N 3 H W float, normalised -> N C h w at the stride that the model gives, or N C H W with `resize`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        head: nn.Module,
        trained: tuple[str, ...] = WHOLE,
        resize: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, head
        self.trained, self.resize = trained, resize
        set_encoder_trainable(self, True)

    def forward(self, images: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.encoder_trains):
            features = self.encoder(images)
        logits = self.head(self.decoder(features))
        if self.resize:
            logits = F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return logits

    def train(self, mode: bool = True) -> SegmentationModel:
        """Set training mode everywhere but in the frozen part of the encoder."""
        super().train(mode)
        self.encoder.eval()
        for module in self.trained_modules():
            module.train(mode)
        return self

    def trained_modules(self) -> list[nn.Module]:
        """The submodules of the encoder that train at present."""
        return [self.encoder.get_submodule(name) for name in self.trained] if self.encoder_trains else []


def set_encoder_trainable(model: SegmentationModel, on: bool) -> None:
    """Freeze the encoder (off), or give back what its configuration lets train (on).

    Off holds for BatchNorm statistics too. On never thaws a block that `trainable_blocks` leaves out.
    """
    model.encoder_trains = on and bool(model.trained)
    model.encoder.requires_grad_(False)
    for module in model.trained_modules():
        module.requires_grad_(True)
    model.train(model.training)


def parameter_groups(model: SegmentationModel) -> dict[str, list[nn.Parameter]]:
    """The trainable parameters under `encoder`, `decoder` and `head`; empty groups are left out."""
    groups = {name: [p for p in module.parameters() if p.requires_grad] for name, module in _parts(model).items()}
    return {name: parameters for name, parameters in groups.items() if parameters}


def parameter_counts(model: SegmentationModel) -> dict[str, tuple[int, int]]:
    """(all, trainable) numbers of parameters of `encoder`, `decoder` and `head`."""
    return {name: (_count(module, False), _count(module, True)) for name, module in _parts(model).items()}


def _parts(model: SegmentationModel) -> dict[str, nn.Module]:
    return {"encoder": model.encoder, "decoder": model.decoder, "head": model.head}


def _count(module: nn.Module, trainable_only: bool) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable_only)
