"""The one shape of every model: encoder, decoder, head; and which part of the encoder trains."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: `trained` of an encoder that trains as a whole, and of one that is frozen
WHOLE: tuple[str, ...] = ("",)
FROZEN: tuple[str, ...] = ()


class SegmentationModel(nn.Module):
    """Images to class logits: `head(decoder(encoder(images)))`, or `classify(stem(images))`.

    The encoder hands on one feature map or a list of them, the decoder one map, the head (the last classifier
    layer only) logits. `trained` names the submodules of the encoder that train ("" is the encoder itself).
    Every other part of it is frozen: no gradient, and evaluation mode whatever `train()` is asked for, since
    the statistics of a BatchNorm move in training mode even where its weights do not.

    The stem is the first part that never trains: what it makes of an image can be cached.

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
        return self.classify(self.stem(images), images.shape[-2:])

    @property
    def frozen(self) -> bool:
        """Whether nothing of the encoder ever trains."""
        return self.trained == FROZEN

    @property
    def has_stem(self) -> bool:
        """Whether a first part never trains and hands on one map."""
        return self.frozen and getattr(self.encoder, "one_map", False) or hasattr(self.encoder, "stem")

    def stem(self, images: Tensor) -> Tensor:
        """What the part that never trains makes of images; the images themselves where there is no such part.

        Rounded to the type of autocast, and on a CPU computed image by image, so that it depends neither on
        the images that share a batch nor on whether it was cached.

        Shapes: N 3 H W -> N C h w, channels last.
        """
        if not self.has_stem:
            return images
        run = self.encoder if self.frozen else self.encoder.stem
        # a BatchNorm in training mode (test-time adaptation) looks at the whole batch
        alone = images.device.type == "cpu" and not any(m.training for m in self.encoder.modules() if self.frozen)
        with torch.no_grad():
            features = torch.cat([run(image) for image in images.split(1)]) if alone else run(images)
        return _rounded(features).contiguous(memory_format=torch.channels_last)

    def classify(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits from what `stem` made of images of `size` (height, width)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.encoder_trains):
            maps = self._after_stem(features, size)
        logits = self.head(self.decoder(maps))
        if self.resize:
            logits = F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)
        return logits

    def _after_stem(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        if not self.has_stem:
            return self.encoder(features)
        return features if self.frozen else self.encoder(features, size)

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


def _rounded(features: Tensor) -> Tensor:
    kind = features.device.type
    # no autocast on a device that only traces shapes (meta)
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return features.to(torch.get_autocast_dtype(kind)) if on else features


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
