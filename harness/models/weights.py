"""Which weights a model starts from: looked up in the local caches, fetched once, or read from a file.

timm and segmentation_models_pytorch keep theirs in the cache of the Hugging Face hub (safetensors first,
otherwise a checkpoint read with weights_only), torchvision in torch.hub's checkpoint folder. Nothing but
`pretrained` and `pretrained_if_available` ever touches the network.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import timm
import torch
from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from torchvision.models import get_model_weights

from harness.config.model import BackboneModel, ModelConfig, SmpModel
from harness.errors import ModelError
from harness.models.names import TIMM_PREFIX, check_name, model_name

#: seconds that an unreachable host may cost; the hub's own client retries for 23 s before it gives up
REACH_TIMEOUT = 5
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


class WeightsUnavailable(ModelError):
    """Pretrained weights that are neither cached nor reachable."""


class NoSuchWeights(WeightsUnavailable):
    """Pretrained weights that the library does not have."""


@dataclass(frozen=True)
class HubFile:
    """Weights on the Hugging Face hub: the first of `names` that the repository has."""

    repo: str
    names: tuple[str, ...]
    revision: str | None = None

    def cached(self) -> Path | None:
        for name in self.names:
            path = try_to_load_from_cache(self.repo, name, constants.HF_HUB_CACHE, self.revision)
            if isinstance(path, str):
                return Path(path)
        return None

    def fetch(self) -> Path:
        if constants.HF_HUB_OFFLINE:
            raise ConnectionError("HF_HUB_OFFLINE is set")
        _reach(hf_hub_url(self.repo, self.names[0], revision=self.revision))
        for name in self.names[:-1]:
            try:
                return self._download(name)
            except RemoteEntryNotFoundError:
                continue
        return self._download(self.names[-1])

    def _download(self, name: str) -> Path:
        cache = constants.HF_HUB_CACHE
        return Path(
            hf_hub_download(self.repo, name, revision=self.revision, cache_dir=cache, etag_timeout=REACH_TIMEOUT)
        )

    def __str__(self) -> str:
        return f"{self.repo} on the Hugging Face hub (cache {constants.HF_HUB_CACHE})"


@dataclass(frozen=True)
class UrlFile:
    """Weights at a plain address, kept in torch.hub's checkpoint folder."""

    url: str

    @property
    def path(self) -> Path:
        return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(self.url).path).name

    def cached(self) -> Path | None:
        return self.path if self.path.is_file() else None

    def fetch(self) -> Path:
        _reach(self.url)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        digest = re.search(r"-([0-9a-f]{8,})\.", self.path.name)
        torch.hub.download_url_to_file(self.url, str(self.path), digest and digest.group(1), progress=False)
        return self.path

    def __str__(self) -> str:
        return f"{self.url} (cache {self.path.parent})"


def settle_weights(config: ModelConfig) -> tuple[ModelConfig, str]:
    """Turn `pretrained_if_available` into `pretrained` or `none`, and say in one sentence what will be used.

    Looks into the local cache, then tries the network once.

    Raises:
        ModelError: an unknown name, a missing file, or `pretrained` weights that cannot be had.
    """
    check_name(config)
    name = model_name(config)
    if config.weights == "none":
        return config, f"{name}: random weights"
    if config.weights not in ("pretrained", "pretrained_if_available"):
        return config, f"{name}: weights from {weights_path(config)}"
    try:
        file = pretrained_file(config)
    except WeightsUnavailable as error:
        if config.weights == "pretrained":
            raise
        why = "do not exist" if isinstance(error, NoSuchWeights) else "are neither cached nor reachable"
        return config.model_copy(update={"weights": "none"}), f"{name}: random weights (pretrained ones {why})"
    return config.model_copy(update={"weights": "pretrained"}), f"{name}: pretrained weights from {file}"


def weights_path(config: ModelConfig) -> Path:
    """The .safetensors file that `weights` names.

    Raises:
        ModelError: no such file, or another ending.
    """
    path = Path(config.weights)
    if path.suffix != ".safetensors":
        raise ModelError(
            f"weights '{config.weights}' is not a choice; use pretrained, pretrained_if_available, none, or "
            "the path of a .safetensors file"
        )
    if not path.is_file():
        raise ModelError(f"weights '{path}' does not exist; give a .safetensors file that does, or weights: none")
    return path


def pretrained_file(config: ModelConfig) -> Path:
    """The library's pretrained weights on this disk, fetched if they were not.

    Raises:
        WeightsUnavailable: there are none, or they are neither cached nor reachable.
    """
    source = pretrained_source(config)
    if (cached := source.cached()) is not None:
        return cached
    try:
        return source.fetch()
    except (OSError, RuntimeError) as error:  # not found, refused, cut off; a checksum that differs
        reason = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
        raise WeightsUnavailable(
            f"{model_name(config)}: pretrained weights are not in the cache and could not be fetched from "
            f"{source}: {reason}; run once where they can be reached to fill that cache, or set model.weights to "
            "the path of a .safetensors file, or to none"
        ) from error


def pretrained_source(config: ModelConfig) -> HubFile | UrlFile:
    """Where the library keeps the pretrained weights of a model.

    Raises:
        NoSuchWeights: the library has none.
    """
    if isinstance(config, BackboneModel):
        return _timm_source(config.backbone, config)
    if not isinstance(config, SmpModel):
        return UrlFile(get_model_weights(config.name).DEFAULT.url)
    if config.encoder.startswith(TIMM_PREFIX):
        return _timm_source(config.encoder.removeprefix(TIMM_PREFIX), config)
    settings = smp_encoders[config.encoder]["pretrained_settings"].get("imagenet")
    if settings is None:
        raise _none_exist(config, "segmentation_models_pytorch has no ImageNet weights for this encoder")
    return HubFile(settings["repo_id"], HUB_FILES[:1], settings["revision"])


def _timm_source(name: str, config: ModelConfig) -> HubFile | UrlFile:
    found = timm.get_pretrained_cfg(name)
    if found is not None and found.hf_hub_id:
        repo, _, revision = found.hf_hub_id.partition("@")
        names = (found.hf_hub_filename,) if found.hf_hub_filename else HUB_FILES
        return HubFile(repo, names, revision or None)
    if found is not None and found.url:
        return UrlFile(found.url)
    raise _none_exist(config, f"timm has no pretrained weights for '{name}'")


def _none_exist(config: ModelConfig, reason: str) -> NoSuchWeights:
    return NoSuchWeights(
        f"{model_name(config)}: {reason}; set model.weights to none or to the path of a .safetensors file"
    )


def _reach(url: str) -> None:
    """Raise an OSError within seconds where the host cannot be reached."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=REACH_TIMEOUT).close()
    except urllib.error.HTTPError as error:
        error.close()  # it answered: what it refuses, the download will say
