"""From a model configuration to a network with its weights."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from harness.config.model import BackboneModel, ModelConfig, SmpModel
from harness.errors import ModelError
from harness.models.backbones import Encoder, build_encoder
from harness.models.heads import build_head
from harness.models.names import TIMM_PREFIX, check_name
from harness.models.segmentation_model import SegmentationModel
from harness.models.weights import pretrained_file, weights_path
from harness.models.whole import build_smp, build_torchvision

#: mismatched names that a message lists
LISTED = 4


def build_model(config: ModelConfig, classes: int, encoder: Encoder | None = None) -> SegmentationModel:
    """Build the network of a configuration, in training mode, on the CPU.

    Random weights come from torch's global generator: seed it first. `weights` as a path takes a file with
    exactly the names of the whole model, of its encoder, or (timm) of the library's own checkpoint. `encoder`
    is the one of an earlier model of this very configuration but for its head: its weights stay as they are.

    Shapes of its forward: N 3 H W float, normalised -> N classes h w logits.

    Raises:
        ModelError: an unknown name, parts that do not fit, weights that cannot be had or do not match.
    """
    if encoder is not None:
        return _with_head(config, encoder, classes)
    _check(config)
    if config.weights in ("none", "pretrained"):
        return _assemble(config, classes, _library_file(config))
    return _from_file(config, classes, weights_path(config))


def load_encoder(config: BackboneModel) -> Encoder:
    """The encoder alone, with random weights or the library's, for `build_model` to put heads on.

    Raises:
        ModelError: as `build_model`.
    """
    _check(config)
    return build_encoder(config, _library_file(config))


def _check(config: ModelConfig) -> None:
    check_name(config)
    if config.weights == "pretrained_if_available":
        raise ModelError("weights 'pretrained_if_available' is not settled; call settle_weights first")


def _library_file(config: ModelConfig) -> Path | None:
    return pretrained_file(config) if config.weights == "pretrained" else None


def _assemble(config: ModelConfig, classes: int, file: Path | None) -> SegmentationModel:
    if isinstance(config, BackboneModel):
        return _with_head(config, build_encoder(config, file), classes)
    if isinstance(config, SmpModel):
        return build_smp(config, classes, file)
    return build_torchvision(config, classes, file)


def _with_head(config: BackboneModel, encoder: Encoder, classes: int) -> SegmentationModel:
    decoder, classifier = build_head(config.head, encoder.channels, classes)
    return SegmentationModel(encoder.module, decoder, classifier, encoder.trained)


def _from_file(config: ModelConfig, classes: int, path: Path) -> SegmentationModel:
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ModelError(f"weights '{path}' is not a .safetensors file: {error}") from error
    if _is_timm_checkpoint(config, state):
        return _assemble(config, classes, path)
    model = _assemble(config, classes, None)
    target = model if "head" in {name.split(".")[0] for name in state} else model.encoder
    _check_match(target, state, path, "model" if target is model else "encoder")
    target.load_state_dict(state)
    return model


def _is_timm_checkpoint(config: ModelConfig, state: dict[str, Tensor]) -> bool:
    """Does the file hold timm's names for the backbone, its classifier there or not?"""
    if isinstance(config, BackboneModel):
        name = config.backbone
    elif isinstance(config, SmpModel) and config.encoder.startswith(TIMM_PREFIX):
        name = config.encoder.removeprefix(TIMM_PREFIX)
    else:
        return False
    with torch.device("meta"):
        features, classifier = timm.create_model(name, num_classes=0), timm.create_model(name)
    return features.state_dict().keys() <= state.keys() <= classifier.state_dict().keys()


def _check_match(target: nn.Module, state: dict[str, Tensor], path: Path, role: str) -> None:
    expected = target.state_dict()
    faults = [f"missing {name}" for name in expected if name not in state]
    faults += [f"unexpected {name}" for name in state if name not in expected]
    faults += [
        f"{name} is {tuple(state[name].shape)}, needs {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    if faults:
        more = f", and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
        raise ModelError(
            f"weights '{path}' do not match the {role}: {', '.join(faults[:LISTED])}{more}; give a file "
            "saved from this very configuration, or weights: none"
        )
