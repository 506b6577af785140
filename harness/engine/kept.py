"""Frozen encoders, kept by a worker from one trial to the next: to build one takes seconds, and no trial changes it.

Those that a trial does not use wait in the host's memory: its peak on a GPU must not depend on the trials before it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import torch

from harness.config import Trial, canonical_json
from harness.config.model import BackboneModel, LinearHead
from harness.engine.seeds import HEAD, INITIALISATION, seed_torch
from harness.models import Encoder, SegmentationModel, build_model, load_encoder

#: encoders that a worker keeps
_ROOM = 2


@dataclass(frozen=True)
class Kept:
    """An encoder and the digest of its weights."""

    encoder: Encoder
    digest: str


_kept: OrderedDict[str, Kept] = OrderedDict()


def build_trial_model(trial: Trial, classes: int, device: torch.device) -> tuple[SegmentationModel, str | None]:
    """The model of a trial on its device, before any `start`, and the digest of its encoder if it was kept.

    The same weights whether the encoder was kept or is built now: encoder and head have seeds of their own.
    """
    key = _key(trial, device) if _keepable(trial) else None
    for other in _kept.keys() - {key}:
        _kept[other].encoder.module.cpu()
    if key is None:
        seed_torch(trial.seed, INITIALISATION)
        return build_model(trial.experiment.model, classes).to(device), None
    kept = _keep(key, trial, device)
    seed_torch(trial.seed, HEAD)
    return build_model(trial.experiment.model, classes, kept.encoder).to(device), kept.digest


def encoder_digest(encoder: torch.nn.Module, trained: tuple[str, ...]) -> str | None:
    """Stands for the weights of an encoder outside the submodules `trained`; None where all of it trains."""
    if "" in trained:
        return None
    digest = hashlib.blake2b(digest_size=12)
    for name, tensor in encoder.state_dict().items():
        if not name.startswith(tuple(f"{module}." for module in trained)):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _keepable(trial: Trial) -> bool:
    """Frozen, and the same for every trial that asks for it: weights from a file or a start may hold a head too."""
    config = trial.experiment.model
    frozen = isinstance(config, BackboneModel) and config.trainable_blocks == 0
    return frozen and config.weights in ("none", "pretrained") and not trial.experiment.start


def _key(trial: Trial, device: torch.device) -> str:
    config = _without_head(trial)
    return f"{canonical_json(config)} {trial.seed if config.weights == 'none' else ''} {device}"


def _without_head(trial: Trial) -> BackboneModel:
    return trial.experiment.model.model_copy(update={"head": LinearHead()})


def _keep(key: str, trial: Trial, device: torch.device) -> Kept:
    if key not in _kept:
        seed_torch(trial.seed, INITIALISATION)
        encoder = load_encoder(_without_head(trial))
        encoder.module.to(device)
        _kept[key] = Kept(encoder, encoder_digest(encoder.module, encoder.trained))
        while len(_kept) > _ROOM:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return _kept[key]
