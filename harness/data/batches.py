"""Frames to batches: shuffled and augmented for training, in file order for scoring.

What a batch holds is a function of (seed, epoch, index) alone: the number of worker processes, and what else
the process has drawn, change nothing. Images stay uint8; they are normalised on the device.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from typing import Protocol

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.config import IGNORE, policy_steps
from harness.config.augmentation import AugmentationConfig, Step
from harness.config.training import ProtocolConfig
from harness.data.augment import augment, build_augmentation, needs_native
from harness.data.cache import FrameArrays, Size
from harness.data.faults import blend_classes
from harness.data.mixing import cut_and_mix, needs_style, restyle
from harness.data.taxonomy import Taxonomy
from harness.errors import ConfigError, DataError

Batch = tuple[Tensor, Tensor]

#: what a stream of random numbers is for: shuffling and augmentation never share one
_SHUFFLE, _AUGMENT, _STYLE, _CUTMIX = 0, 1, 2, 3


NO_FAULTS = ProtocolConfig()


def train_batches(
    frames: FrameArrays,
    taxonomy: Taxonomy,
    augmentation: AugmentationConfig,
    input_size: Size,
    *,
    batch_size: int,
    drop_last: bool,
    workers: int,
    seed: int,
    epoch: int,
    protocol: ProtocolConfig = NO_FAULTS,
    truth: FrameArrays | None = None,
    style: FrameArrays | None = None,
    shuffled: bool = True,
) -> Iterator[Batch]:
    """Yield one epoch of shuffled, augmented batches; `shuffled` False gives the same draws in file order.

    `frames` come at native size where a step crops, else at `input_size` (height, width). `protocol.border_class`
    fills uncovered truth with class 0; `protocol.bilinear_masks` takes the masks of `truth`, the same frames at
    native size, and resizes their classes bilinearly. `style` holds the images of the test split, needed by
    Fourier steps. These come before every other step of the policy, and CutMix after, on the finished batch,
    wherever they stand in it.

    Yields images, uint8 RGB (N 3 H W) in channels-last memory, and truth, uint8 (N H W), class indices and IGNORE.
    Raises ConfigError where no batch would be left, a step is wrong, or a step crops masks that are to be resized
    bilinearly; DataError for frames of another size, frames without masks, raw ids that are not listed, a `truth`
    of other frames, or `truth` or `style` missing where needed.
    """
    steps = policy_steps(augmentation)
    if not needs_native(steps) and frames.size != input_size:
        raise DataError(
            f"frames of {frames.size} (height, width), and no augmentation step crops them to the input size "
            f"{input_size}; open them with size={input_size}"
        )
    if needs_style(steps) and style is None:
        raise DataError(
            "augmentation.steps has a fourier step, and no style images were given; open the test split with "
            "masks=False and pass it as style"
        )
    order = _order(len(frames), seed, epoch) if shuffled else np.arange(len(frames))
    batches = _slices(order, batch_size, drop_last)
    dataset = _TrainingBatches(
        frames=frames,
        truths=training_truths(frames, taxonomy, steps, protocol, truth),
        pipeline=build_augmentation(steps, input_size, 0 if protocol.border_class else IGNORE),
        steps=steps,
        style=style,
        seed=seed,
        epoch=epoch,
    )
    return _load(dataset, batches, workers)


def eval_batches(
    frames: FrameArrays,
    taxonomy: Taxonomy,
    *,
    batch_size: int,
    workers: int,
    truth: FrameArrays | None = None,
    bilinear: bool = False,
    stored: np.ndarray | None = None,
) -> Iterator[Batch]:
    """Yield every frame once, unchanged and in file order; the last batch may be smaller.

    The truth has the size of `frames`, or that of `truth`, the same frames opened at another size. `bilinear`
    resizes the classes of `truth` bilinearly to the size of `frames`: the fault `protocol.bilinear_masks`. `stored`
    (frames h w C) comes in the place of the images. Yields images, uint8 RGB (N 3 H W) in channels-last memory, and
    truth, uint8 (N H W), class indices and IGNORE.
    Raises DataError for frames without masks, raw ids that are not listed, or a `truth` of other frames, or none
    where `bilinear` needs it.
    """
    if bilinear and truth is None:
        raise DataError(_needs_truth())
    truths = _truths(frames, taxonomy, frames if truth is None else truth, frames.size if bilinear else None)
    batches = _slices(np.arange(len(frames)), batch_size, drop_last=False)
    if stored is not None:
        return _load(_StoredBatches(stored, truths), batches, 0)
    return _load(_EvaluationBatches(frames, truths), batches, workers)


def stored_batches(
    inputs: Rows, truths: Rows, frames: int, *, batch_size: int, drop_last: bool, seed: int, epoch: int
) -> Iterator[Batch]:
    """Yield one epoch of what is stored per frame, in the order in which `train_batches` shuffles the frames.

    `inputs` gives an array (h w C) by frame number, `truths` classes uint8 (H W). Yields inputs (N C h w) in
    channels-last memory and truth, uint8 (N H W). Raises ConfigError where no batch would be left.
    """
    batches = _slices(_order(frames, seed, epoch), batch_size, drop_last)
    return _load(_StoredBatches(inputs, truths), batches, 0)  # reading costs less than a worker's handing over


class Rows(Protocol):
    """One array for each frame number."""

    def __getitem__(self, index: int) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class _Truths:
    """The class indices of frames with masks, resized bilinearly where `blended` gives a size."""

    masks: FrameArrays
    taxonomy: Taxonomy
    blended: Size | None

    def __getitem__(self, index: int) -> np.ndarray:
        """Classes, uint8 (H W), of one frame."""
        classes = self.taxonomy.to_classes(self.masks.masks[index], f"mask of frame {self.masks.names[index]}")
        return classes if self.blended is None else blend_classes(classes, self.blended)


class _Batches(Dataset):
    """A list of frame indices gives their batch, or the error that stopped it."""

    def __getitem__(self, indices: Sequence[int]) -> Batch | DataError:
        try:
            images, truths = self.arrays(indices)
        except DataError as error:
            # returned, because torch would bury the message of an exception under its worker's traceback
            return error
        return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(truths)

    def arrays(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 (N H W 3) and classes uint8 (N H W) of some frames."""
        images, truths = zip(*(self.sample(i) for i in indices), strict=True)
        return np.stack(images), np.stack(truths)

    def sample(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 (H W 3) and classes uint8 (H W) of one frame."""
        raise NotImplementedError


@dataclass(eq=False)
class _TrainingBatches(_Batches):
    frames: FrameArrays
    truths: _Truths
    pipeline: A.Compose
    steps: Sequence[Step]
    style: FrameArrays | None
    seed: int
    epoch: int

    def arrays(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        # a frame is the first of one batch in an epoch only
        rng = np.random.default_rng(_seed(self.seed, _CUTMIX, self.epoch, indices[0]))
        return cut_and_mix(*super().arrays(indices), self.steps, rng)

    def sample(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image = np.asarray(self.frames.images[index])
        if needs_style(self.steps):
            rng = np.random.default_rng(_seed(self.seed, _STYLE, self.epoch, index))
            image = restyle(image, self.style.images, self.steps, rng)
        stream = _seed(self.seed, _AUGMENT, self.epoch, index)
        seed = int(stream.generate_state(1, np.uint64)[0])
        return augment(self.pipeline, image, self.truths[index], seed)


@dataclass(eq=False)
class _EvaluationBatches(_Batches):
    frames: FrameArrays
    truths: _Truths

    def sample(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.frames.images[index], self.truths[index]


@dataclass(eq=False)
class _StoredBatches(_Batches):
    inputs: Rows
    truths: Rows

    def sample(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.inputs[index], self.truths[index]


def _order(frames: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng(_seed(seed, _SHUFFLE, epoch)).permutation(frames)


def training_truths(
    frames: FrameArrays,
    taxonomy: Taxonomy,
    steps: Sequence[Step],
    protocol: ProtocolConfig,
    truth: FrameArrays | None,
) -> Rows:
    """The classes, uint8 (H W) by frame number, before any step; raises as `train_batches` does."""
    if not protocol.bilinear_masks:
        return _truths(frames, taxonomy, frames, None)
    if needs_native(steps):
        raise ConfigError(
            "protocol.bilinear_masks resizes whole masks to data.input_size, and an augmentation step crops native "
            "ones; use a policy without random_resized_crop and random_crop, or leave bilinear_masks off"
        )
    if truth is None:
        raise DataError(_needs_truth())
    return _truths(frames, taxonomy, truth, frames.size)


def _truths(frames: FrameArrays, taxonomy: Taxonomy, truth: FrameArrays, blended: Size | None) -> _Truths:
    if truth.names != frames.names:
        raise DataError(
            f"truth of {len(truth)} frames for {len(frames)} images, or of other names; "
            "open both from the same split with masks=True"
        )
    if truth.masks is None:
        raise DataError(f"frames of {truth.folder} were opened without masks; open them with masks=True")
    return _Truths(truth, taxonomy, blended)


def _needs_truth() -> str:
    return "masks resized bilinearly come from native ones; open the same frames with size=None and pass them as truth"


def _load(dataset: Dataset, batches: list[list[int]], workers: int) -> Iterator[Batch]:
    loader = DataLoader(
        dataset,
        sampler=batches,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=_context() if workers else None,
        worker_init_fn=_start_worker,
        # copied to a GPU while it computes; everything travels as uint8, or as features, and widens there
        pin_memory=torch.cuda.is_available(),
        # its own generator, or every epoch would draw a worker seed from torch's global one
        generator=torch.Generator(),
    )
    return _receive(loader)


def _receive(loader: DataLoader) -> Iterator[Batch]:
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch


def _context() -> multiprocessing.context.BaseContext:
    # a fork of a process with threads (torch, Ray, OpenCV) can hang; the fork server has none, and loads
    # torch once
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    _start_fork_server()
    return context


def _start_fork_server() -> None:
    """Start the fork server, if it does not run, with SIGINT blocked, and so blocked in all that it forks.

    Ctrl-C in a terminal reaches every process there; which batches are still wanted is the training's business.
    """
    # it would unblock the signal
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(_worker: int) -> None:
    cv2.setNumThreads(1)


def _seed(*parts: int) -> np.random.SeedSequence:
    """Independent stream for each tuple; as a spawn key, (1, 2) and (1, 2, 0) are not the same stream."""
    return np.random.SeedSequence(parts[0], spawn_key=parts[1:])


def _slices(order: np.ndarray, batch_size: int, drop_last: bool) -> list[list[int]]:
    end = len(order) - len(order) % batch_size if drop_last else len(order)
    if end == 0:
        raise ConfigError(
            f"training.batch_size {batch_size} with drop_last leaves no batch of {len(order)} frames; "
            f"use a batch size of {len(order)} or less, or training.drop_last false"
        )
    return [order[i : min(i + batch_size, end)].tolist() for i in range(0, end, batch_size)]
