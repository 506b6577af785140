"""A GPU whose memory runs out: half the images in a forward pass, or a message that names what needs less."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch

from harness.config import Experiment, Trial
from harness.data.batches import Batch
from harness.errors import OutOfMemory
from harness.models import needs_two_images

# an answer costs most of a second
_needs_two_images = lru_cache(maxsize=16)(needs_two_images)


def half_batch(experiment: Experiment) -> int | None:
    """Images in a forward pass after memory ran out with a batch; None where a batch cannot be halved."""
    size = experiment.training.batch_size
    return math.ceil(size / 2) if size >= 2 * least_images(experiment) else None


def least_images(experiment: Experiment) -> int:
    """Images that a forward pass needs: two where a BatchNorm that trains sees one value per channel of each."""
    trains = experiment.training.batchnorm == "train"
    return 2 if trains and _needs_two_images(experiment.model, experiment.data.input_size) else 1


def in_parts(batches: Sequence[Batch], size: int, least: int) -> Iterator[Batch]:
    """Each batch in parts of up to `size` images, or a little more where a part would have less than `least`."""
    for images, truth in batches:
        parts = max(1, min(math.ceil(len(images) / size), len(images) // least))
        yield from zip(images.tensor_split(parts), truth.tensor_split(parts), strict=True)


def free_memory(device: torch.device) -> None:
    """Give back what nothing holds any more, to the GPU's other processes too."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def too_large(trial: Trial, micro_batch: int | None, error: Exception) -> str:
    """The message about a training step for which there is no memory, in parts of `micro_batch` images neither."""
    (height, width), batch = trial.experiment.data.input_size, trial.experiment.training.batch_size
    smaller = "" if micro_batch is None else f", nor for {micro_batch} at a time"
    return (
        f"trial {trial.id}: the GPU has no memory for a training step of {batch} images of {height} x {width} "
        f"pixels{smaller} ({_first_line(error)}); lower training.batch_size (raise training.accumulation instead) or "
        "data.input_size, use training.precision bf16, or give each trial more of the GPU (--gpus-per-trial)"
    )


@contextmanager
def scoring_named(experiment: Experiment) -> Iterator[None]:
    """Name the setting that decides the memory of scoring: a smaller training batch would not help.

    Raises:
        OutOfMemory: in the place of torch's error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"the GPU has no memory to score {experiment.evaluation.batch_size} images at a time "
            f"({_first_line(error)}); lower evaluation.batch_size, on which no score depends"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
