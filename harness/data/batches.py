"""Frames to batches: shuffled and augmented for training, in file order for scoring.

What a batch holds is a function of (seed, epoch, index) alone: the number of worker processes, and what else
the process has drawn, change nothing. Images stay uint8; they are normalised on the device.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.config import policy_steps
from harness.config.augmentation import AugmentationConfig
from harness.data.augment import augment, build_augmentation, needs_native
from harness.data.cache import FrameArrays, Size
from harness.data.taxonomy import Taxonomy
from harness.errors import ConfigError, DataError

Batch = tuple[Tensor, Tensor]

#: what a stream of random numbers is for: shuffling and augmentation never share one
_SHUFFLE, _AUGMENT = 0, 1


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
) -> Iterator[Batch]:
    """Yield one epoch of shuffled, augmented batches.

    `frames` come at native size where a step crops, else at `input_size` (height, width). Yields images,
    uint8 RGB (N 3 H W) in channels-last memory, and truth, int64 (N H W), class indices and IGNORE. Raises
    ConfigError where no batch would be left or a step is wrong; DataError for frames of another size, frames
    without masks, or raw ids that are not listed.
    """
    steps = policy_steps(augmentation)
    if not needs_native(steps) and frames.size != input_size:
        raise DataError(
            f"frames of {frames.size} (height, width), and no augmentation step crops them to the input size "
            f"{input_size}; open them with size={input_size}"
        )
    order = np.random.default_rng(_seed(seed, _SHUFFLE, epoch)).permutation(len(frames))
    batches = _slices(order, batch_size, drop_last)
    pipeline = build_augmentation(steps, input_size)
    return _load(_TrainingBatches(frames, taxonomy, pipeline, seed, epoch), batches, workers)


def eval_batches(
    frames: FrameArrays,
    taxonomy: Taxonomy,
    *,
    batch_size: int,
    workers: int,
    truth: FrameArrays | None = None,
) -> Iterator[Batch]:
    """Yield every frame once, unchanged and in file order; the last batch may be smaller.

    The truth has the size of `frames`, or that of `truth`, the same frames opened at another size. Yields
    images, uint8 RGB (N 3 H W) in channels-last memory, and truth, int64 (N H W), class indices and IGNORE.
    Raises DataError for frames without masks, raw ids that are not listed, or a `truth` of other frames.
    """
    truth = frames if truth is None else truth
    if truth.names != frames.names:
        raise DataError(
            f"truth of {len(truth)} frames for {len(frames)} images, or of other names; "
            "open both from the same split with masks=True"
        )
    batches = _slices(np.arange(len(frames)), batch_size, drop_last=False)
    return _load(_EvaluationBatches(frames, taxonomy, truth), batches, workers)


class _Batches(Dataset):
    """A list of frame indices gives their batch, or the error that stopped it."""

    def __getitem__(self, indices: Sequence[int]) -> Batch | DataError:
        try:
            images, truths = zip(*(self.sample(i) for i in indices), strict=True)
        except DataError as error:
            # returned, because torch would bury the message of an exception under its worker's traceback
            return error
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.from_numpy(np.stack(truths))

    def sample(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 (H W 3) and classes uint8 (H W) of one frame."""
        raise NotImplementedError


class _TrainingBatches(_Batches):
    def __init__(self, frames: FrameArrays, taxonomy: Taxonomy, pipeline: A.Compose, seed: int, epoch: int) -> None:
        _check_masks(frames)
        self.frames, self.taxonomy, self.pipeline, self.seed, self.epoch = frames, taxonomy, pipeline, seed, epoch

    def sample(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        truth = _truth(self.frames, self.taxonomy, index)
        stream = _seed(self.seed, _AUGMENT, self.epoch, index)
        seed = int(stream.generate_state(1, np.uint64)[0])
        return augment(self.pipeline, np.asarray(self.frames.images[index]), truth, seed)


class _EvaluationBatches(_Batches):
    def __init__(self, frames: FrameArrays, taxonomy: Taxonomy, truth: FrameArrays) -> None:
        _check_masks(truth)
        self.frames, self.taxonomy, self.truth = frames, taxonomy, truth

    def sample(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.frames.images[index], _truth(self.truth, self.taxonomy, index)


def _load(dataset: Dataset, batches: list[list[int]], workers: int) -> Iterator[Batch]:
    loader = DataLoader(
        dataset,
        sampler=batches,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=_context() if workers else None,
        worker_init_fn=_start_worker,
        # its own generator, or every epoch would draw a worker seed from torch's global one
        generator=torch.Generator(),
    )
    return _receive(loader)


def _receive(loader: DataLoader) -> Iterator[Batch]:
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        images, truth = batch
        # classes travel between processes as uint8, an eighth of int64
        yield images, truth.long()


def _context() -> multiprocessing.context.BaseContext:
    # a fork of a process with threads (torch, Ray, OpenCV) can hang; the fork server has none, and loads
    # torch once
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


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


def _check_masks(frames: FrameArrays) -> None:
    if frames.masks is None:
        raise DataError(f"frames of {frames.folder} were opened without masks; open them with masks=True")


def _truth(frames: FrameArrays, taxonomy: Taxonomy, index: int) -> np.ndarray:
    return taxonomy.to_classes(frames.masks[index], f"mask of frame {frames.names[index]}")
