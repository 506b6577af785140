"""timm backbones as encoders of one feature map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from harness.config.model import BackboneModel
from harness.errors import ModelError
from harness.models.segmentation_model import FROZEN, WHOLE

#: stride of a CNN's features where the configuration names none
DEFAULT_STRIDE = 16


@dataclass(frozen=True)
class Encoder:
    """A backbone, the channels of its features, and the names of the submodules that train."""

    module: nn.Module
    channels: int
    trained: tuple[str, ...]


class ViTEncoder(nn.Module):
    """A ViT's patch tokens after the last block and the final norm, on their grid; prefix tokens dropped.

    The position embedding is interpolated to the grid (bicubic, antialiased, as timm does). A ViT that timm
    pools before its norm (`fc_norm`) has no final norm over patch tokens, so none is applied.

    Shapes: N 3 H W, both multiples of the patch -> N C H/patch W/patch.
    """

    one_map = True

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = vit
        # attention pooling and the norm behind it, where a ViT has them, never see a gradient here
        vit.prune_intermediate_layers(1, prune_head=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.vit.forward_intermediates(images, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True)[
            0
        ]


class SplitViTEncoder(ViTEncoder):
    """A ViTEncoder whose first blocks never train: with a `size` it goes on from the stem's cached tokens.

    timm's plain VisionTransformer only: relatives of it hand more than tokens from block to block.

    Shapes: stem N 3 H W -> N D T 1, prefix tokens included; those, or N 3 H W -> N D H/patch W/patch.
    """

    def __init__(self, vit: VisionTransformer, stem_blocks: int) -> None:
        super().__init__(vit)
        self.stem_blocks = stem_blocks

    def forward(self, inputs: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        # one way in, also for tokens: a compiled module compiles what is called, not its methods
        return self._tail(self.stem(inputs), inputs.shape[-2:]) if size is None else self._tail(inputs, size)

    def stem(self, images: Tensor) -> Tensor:
        tokens = self.vit.norm_pre(self.vit.patch_drop(self.vit._pos_embed(self.vit.patch_embed(images))))
        tokens = self.vit.blocks[: self.stem_blocks](tokens)
        return tokens.transpose(1, 2).unsqueeze(-1)

    def _tail(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        tokens = self.vit.blocks[self.stem_blocks :](tokens.squeeze(-1).transpose(1, 2))
        patches = self.vit.norm(tokens)[:, self.vit.num_prefix_tokens :]
        height, width = self.vit.patch_embed.dynamic_feat_size(size)
        return patches.transpose(1, 2).unflatten(2, (height, width)).contiguous()


class StageEncoder(nn.Module):
    """One stage of a CNN or a hierarchical transformer; N 3 H W -> N C h w, about H and W / stride."""

    one_map = True

    def __init__(self, stages: nn.Module) -> None:
        super().__init__()
        self.stages = stages
        self.channels_last = getattr(stages, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> Tensor:
        features = self.stages(images)[0]
        return features.permute(0, 3, 1, 2).contiguous() if self.channels_last else features


def build_encoder(config: BackboneModel, file: Path | None) -> Encoder:
    """The encoder of a backbone, with the weights of `file` (timm's layout), or random ones.

    Raises:
        ModelError: a stride or a number of blocks that the backbone does not have, or no feature maps at all.
    """
    probe = probe_backbone(config.backbone)
    return _vit(config, probe, file) if is_vit(probe) else _stages(config, probe, file)


def probe_backbone(name: str) -> nn.Module:
    """The timm model without memory for its weights (meta device), to look at."""
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    if not getattr(model, "feature_info", None):
        raise ModelError(f"backbone '{name}' gives no feature maps (timm lists none); choose another backbone")
    return model


def is_vit(probe: nn.Module) -> bool:
    """Is every block at the same stride, as in a plain vision transformer?"""
    return len(_reductions(probe)) == 1


def vit_patch(probe: nn.Module) -> int:
    """The patch of a plain vision transformer in pixels."""
    return _reductions(probe)[0]


def _reductions(probe: nn.Module) -> list[int]:
    return sorted({info["reduction"] for info in probe.feature_info})


def _loading(file: Path | None) -> dict[str, str] | None:
    # timm then reads this very file and asks no hub
    return None if file is None else {"file": str(file)}


def _vit(config: BackboneModel, probe: nn.Module, file: Path | None) -> Encoder:
    _check_stride(config, _reductions(probe), vit_patch(probe))
    try:
        vit = timm.create_model(
            config.backbone,
            pretrained=file is not None,
            pretrained_cfg_overlay=_loading(file),
            num_classes=0,
            dynamic_img_size=True,
        )
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise
        raise ModelError(
            f"backbone '{config.backbone}' takes one input size only (timm cannot interpolate its position "
            "embedding); choose a ViT such as vit_small_patch14_dinov2, or a CNN"
        ) from error
    trained = _last([(f"vit.blocks.{i}",) for i in range(len(vit.blocks))], config, "blocks")
    return Encoder(_vit_encoder(vit, len(vit.blocks) - len(trained), trained), vit.num_features, trained)


def _vit_encoder(vit: nn.Module, stem_blocks: int, trained: tuple[str, ...]) -> ViTEncoder:
    split = trained not in (WHOLE, FROZEN) and stem_blocks and isinstance(vit, VisionTransformer)
    return SplitViTEncoder(vit, stem_blocks) if split else ViTEncoder(vit)


def _stages(config: BackboneModel, probe: nn.Module, file: Path | None) -> Encoder:
    stride = _check_stride(config, _reductions(probe), DEFAULT_STRIDE)
    # several stages can share a stride (dilated networks): the deepest has seen most
    index = max(i for i, info in enumerate(probe.feature_info) if info["reduction"] == stride)
    try:
        net = timm.create_model(
            config.backbone,
            pretrained=file is not None,
            pretrained_cfg_overlay=_loading(file),
            features_only=True,
            out_indices=(index,),
        )
    except RuntimeError as error:
        if "features_only" not in str(error):
            raise
        raise ModelError(f"backbone '{config.backbone}' gives no feature maps: {error}") from error
    modules = [info["module"] for info in probe.feature_info[: index + 1]]
    _drop_later_stages(net, modules[-1])
    return Encoder(StageEncoder(net), net.feature_info.channels()[0], _trained_stages(config, net, modules))


def _trained_stages(config: BackboneModel, net: nn.Module, modules: list[str]) -> tuple[str, ...]:
    if not isinstance(config.trainable_blocks, int) or config.trainable_blocks == 0:
        return _last([], config, "stages")
    ends = [_stage_end(net, module, config) for module in modules]
    stages = [tuple(f"stages.{name}" for name in part) for part in _split_at(_parts(net, ends), ends)]
    return _last(stages, config, "stages")


def _check_stride(config: BackboneModel, strides: list[int], default: int) -> int:
    stride = config.stride or default
    if stride not in strides:
        raise ModelError(
            f"stride {stride}: backbone '{config.backbone}' has features at stride "
            f"{', '.join(map(str, strides))}; set model.stride to one of these"
            + (" or to none" if default in strides else "")
        )
    return stride


def _last(blocks: list[tuple[str, ...]], config: BackboneModel, word: str) -> tuple[str, ...]:
    """The names in the last `trainable_blocks` blocks."""
    count = config.trainable_blocks
    if count == "all":
        return WHOLE
    if count > len(blocks):
        raise ModelError(
            f"trainable_blocks {count}: backbone '{config.backbone}' has {len(blocks)} {word} up to the "
            f"features used; use 0 to {len(blocks)}, or all"
        )
    return tuple(name for block in blocks[len(blocks) - count :] for name in block) if count else FROZEN


def _stage_end(net: nn.Module, name: str, config: BackboneModel) -> str:
    """Where timm's feature wrappers put the classifier's module `name`, with which a stage ends."""
    modules = dict(net.named_modules())
    for path in (name, name.replace(".", "_"), f"model.{name}"):
        if name and path in modules:
            return path
    raise ModelError(
        f"trainable_blocks {config.trainable_blocks}: timm does not say where the stages of backbone "
        f"'{config.backbone}' lie; use 0 or all"
    )


def _drop_later_stages(net: nn.Module, last: str) -> None:
    """Cut what timm's EfficientNet and MobileNetV3 features run behind the stage that is used."""
    parent, _, index = last.rpartition(".")
    if parent == "blocks" and isinstance(blocks := getattr(net, "blocks", None), nn.Sequential):
        del blocks[int(index) + 1 :]


def _parts(net: nn.Module, ends: list[str], prefix: str = "") -> list[str]:
    """The largest submodules, in order, that do not contain the end of a stage."""
    names: list[str] = []
    for name, child in net.named_children():
        path = prefix + name
        inside = any(end.startswith(path + ".") for end in ends)
        names += _parts(child, ends, path + ".") if inside else [path]
    return names


def _split_at(parts: list[str], ends: list[str]) -> list[tuple[str, ...]]:
    """The parts of each stage: what follows the stage before, up to its own end."""
    stops = [parts.index(end) + 1 for end in ends]
    return [tuple(parts[start:stop]) for start, stop in zip([0, *stops], stops, strict=False)]
