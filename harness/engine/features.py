"""What the part of a model that never trains makes of frames, kept on disk, shared by every trial of a machine.

On a CPU a stored feature is bit for bit what the plain path computes: `SegmentationModel.stem` rounds to the type of
autocast whether it is stored or not, and a draw of the augmentation is a function of (seed, epoch, frame).
So validation frames, and training frames without augmentation, are stored exactly. With augmentation,
`training.cached_views` V stores the draws of the first V epochs: those epochs are exact too, later ones
choose among the V draws of each frame.

A CPU computes a feature image by image. On a GPU the images that share a batch can move its last bit: there the two
agree up to rounding.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from torch import Tensor

from harness.config import Experiment
from harness.data import FrameArrays
from harness.data.batches import Batch, Rows
from harness.engine.inference import autocast, normalise
from harness.errors import ConfigError
from harness.models import SegmentationModel, has_stem
from harness.models.names import model_name
from harness.store.cache_arrays import map_built, map_once
from harness.store.cache_folders import cache_folder
from harness.store.cache_room import make_room

#: part of the folder names; raise it when the files' content changes meaning
_VERSION = 2
#: numpy knows no bfloat16: its bits travel as int16
_STORED = {"fp32": np.float32, "bf16": np.int16, "fp16": np.float16}
_SMALLER = "use a smaller training.cached_views or data.input_size, or set HARNESS_CACHE_FEATURES=0 to store none"
#: images of one forward pass on a GPU, and of one write
_CHUNK = 8


def features_are_cached() -> bool:
    """Whether features may be stored: unless $HARNESS_CACHE_FEATURES is 0."""
    return os.environ.get("HARNESS_CACHE_FEATURES") != "0"


def check_cached_views(experiment: Experiment) -> None:
    """Refuse `training.cached_views` of a model of which nothing can be stored.

    Raises:
        ConfigError: what could be stored instead.
    """
    if experiment.training.cached_views and not has_stem(experiment.model):
        raise ConfigError(
            f"training.cached_views {experiment.training.cached_views}: nothing of {model_name(experiment.model)} can "
            "be stored as it is to train; a frozen backbone (model.trainable_blocks: 0), the frozen first blocks of a "
            "plain ViT and a frozen torchvision model can: set training.cached_views to 0, or use one of these"
        )


@dataclass(frozen=True, eq=False)
class FeatureCache:
    """The stem of a model, and where what it makes of frames is stored.

    `digest` stands for the stem's weights.
    """

    model: SegmentationModel
    digest: str
    experiment: Experiment
    device: torch.device
    #: what was opened: it stays in use, and nobody waits for it again
    held: dict[str, np.ndarray] = field(default_factory=dict)

    def of_frames(self, frames: FrameArrays) -> np.ndarray:
        """Features (frames h w C) of the frames as they are, read-only."""
        return self._open(frames, "still", lambda: _images(frames))

    def of_draws(self, frames: FrameArrays, draw: list[Any], images: Callable[[], Iterator[Batch]]) -> np.ndarray:
        """Features (frames h w C) of augmented frames, read-only.

        Args:
            draw: what decides the draw besides the frames.
            images: batches of that draw, in file order.
        """
        return self._open(frames, draw, lambda: (batch for batch, _ in images()))

    def _open(self, frames: FrameArrays, draw: Any, images: Callable[[], Iterable[Tensor]]) -> np.ndarray:
        settings = self.experiment.training.precision, self.experiment.data.normalise
        name = stored_name("features", frames, [self.digest, draw, *settings, *self._computation()])
        if name not in self.held:
            self.held[name] = open_stored(name, len(frames), lambda: (self._features(batch) for batch in images()))
        return self.held[name]

    def _computation(self) -> list[Any]:
        """What decides a feature besides weights and pixels: equal weights may meet another activation or padding."""
        network = self.experiment.model.model_dump(mode="json", exclude={"weights", "head"})
        processor = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return [network, processor, torch.__version__, timm.__version__, torchvision.__version__]

    @torch.inference_mode()
    def _features(self, images: Tensor) -> np.ndarray:
        precision = self.experiment.training.precision
        with autocast(precision, self.device):
            features = self.model.stem(normalise(images.to(self.device), self.experiment.data.normalise))
        bits = features.view(torch.int16) if features.dtype == torch.bfloat16 else features
        return bits.permute(0, 2, 3, 1).cpu().numpy().astype(_STORED[precision], copy=False)


@dataclass(frozen=True)
class ChosenViews:
    """One of several stored arrays for each frame number."""

    views: tuple[np.ndarray, ...]
    choice: np.ndarray

    def __getitem__(self, index: int) -> np.ndarray:
        return self.views[self.choice[index]][index]


def views_of_epoch(seed: int, epoch: int, views: int, frames: int) -> np.ndarray:
    """The view (from 1) that each frame shows in an epoch (from 1): the epoch's own while there is one."""
    if epoch <= views:
        return np.full(frames, epoch)
    return np.random.default_rng((seed, epoch)).integers(1, views + 1, size=frames)


def choose_views(choice: np.ndarray, open_view: Callable[[int], np.ndarray]) -> Rows:
    """The stored arrays of the views in `choice`, which are opened, and made, only if it names them."""
    named = sorted(set(choice.tolist()))
    return ChosenViews(tuple(open_view(view) for view in named), np.searchsorted(named, choice))


def open_stored(name: str, count: int, parts: Callable[[], Iterable[np.ndarray]]) -> np.ndarray:
    """The array `name` of the cache folder, read-only; `parts` along its first axis, `count` rows in all, make it."""

    def build(folder: Path) -> None:
        with open(folder / "array.npy", "wb") as file:
            for index, part in enumerate(parts()):
                if index == 0:
                    make_room(count * part[0].nbytes, f"{name.partition('-')[0]} of {count} frames", _SMALLER)
                    _write_header(file, part.dtype, (count, *part.shape[1:]))
                file.write(np.ascontiguousarray(part).tobytes())

    # a changed byte would change scores without a word; a process reads each cache once for that
    return map_once(cache_folder() / name, build, verify=True)["array"]


def stored_name(kind: str, frames: FrameArrays, decides: Any) -> str:
    """The name in the cache folder of something made of frames, and what decides it besides them."""
    return name_in_store(kind, frames.folder.name, decides)


def name_in_store(kind: str, frames: str, decides: Any) -> str:
    """As `stored_name`, of frames that are not open: by their own name in the cache folder."""
    return f"{kind}-v{_VERSION}-{_key(frames, decides)}"


def find_stored(name: str) -> np.ndarray | None:
    """The array `name` of the cache folder; None where nobody has made it on this machine, or it has gone."""
    arrays = map_built(cache_folder() / name)
    return None if arrays is None else np.array(arrays["array"])


def _images(frames: FrameArrays) -> Iterator[Tensor]:
    for start in range(0, len(frames), _CHUNK):
        yield torch.from_numpy(np.array(frames.images[start : start + _CHUNK])).permute(0, 3, 1, 2)


def _write_header(file: Any, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]
