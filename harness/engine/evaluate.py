"""Scoring a model: per-image confusion matrices, from which every score follows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from harness.config import Experiment, policy_steps
from harness.data import (
    FrameArrays,
    Taxonomy,
    build_taxonomy,
    dataset_root,
    eval_batches,
    needs_native,
    open_frames,
)
from harness.engine.features import FeatureCache
from harness.engine.inference import View, class_logits, forward, predicted_classes
from harness.errors import ModelError
from harness.losses import resize_logits
from harness.metrics.confusion_torch import confusion_matrices


class EvalFrames(NamedTuple):
    """Images at the input size, and the truth at the raster of the score."""

    images: FrameArrays
    truth: FrameArrays


class Evaluation(NamedTuple):
    """Per-image confusion matrices int64 (N C C+1) in file order, and the mean of the images' losses if asked for."""

    names: tuple[str, ...]
    matrices: np.ndarray
    loss: float | None


def open_eval_frames(experiment: Experiment, split: str) -> EvalFrames:
    """The frames of a split as an evaluation wants them."""
    root, size = dataset_root(experiment.data), experiment.data.input_size
    eight_bit = build_taxonomy(experiment.taxonomy).eight_bit
    images = open_frames(root, split, size, allow_8bit=eight_bit)
    if experiment.evaluation.raster == "input" and not experiment.protocol.bilinear_masks:
        return EvalFrames(images, images)
    return EvalFrames(images, open_frames(root, split, None, allow_8bit=eight_bit))


def open_train_frames(experiment: Experiment) -> FrameArrays:
    """The training frames: native where the policy crops, otherwise at the input size."""
    native = needs_native(policy_steps(experiment.augmentation))
    return open_frames(
        dataset_root(experiment.data),
        "train",
        None if native else experiment.data.input_size,
        allow_8bit=build_taxonomy(experiment.taxonomy).eight_bit,
    )


def evaluate(
    model: nn.Module,
    frames: EvalFrames,
    experiment: Experiment,
    taxonomy: Taxonomy,
    device: torch.device,
    *,
    loss: nn.Module | None = None,
    looks: tuple[View, ...] | None = None,
    cache: FeatureCache | None = None,
) -> Evaluation:
    """One pass over frames with truth; the model is left in evaluation mode.

    `cache` gives what the model's stem makes of the frames; views and adapted statistics need the images.
    Classes of `evaluation.suppress` are never predicted; the loss still sees their logits.
    """
    matrices, losses = [], []
    batches = eval_batches(
        frames.images,
        taxonomy,
        batch_size=experiment.evaluation.batch_size,
        workers=experiment.training.workers,
        truth=frames.truth,
        bilinear=experiment.protocol.bilinear_masks,
        stored=None if cache is None or looks or adapts(model, experiment) else cache.of_frames(frames.images),
    )
    for images, truth in batches:
        images, truth = images.to(device, non_blocking=True), truth.to(device, non_blocking=True).long()
        size = truth.shape[-2:]
        with evaluating(model, experiment.evaluation.batchnorm), torch.inference_mode():
            # one look stays at the model's own stride: the loss enlarges it faster than two steps would
            logits = (
                class_logits(model, images, size, experiment, looks) if looks else forward(model, images, experiment)
            )
            if loss is not None:
                losses.append(loss.per_image(logits, truth))
            predicted = predicted_classes(resize_logits(logits, size), experiment, taxonomy)
        matrices.append(confusion_matrices(truth, predicted, len(taxonomy.names)))
    mean_loss = torch.cat(losses).mean().item() if losses else None
    return Evaluation(frames.images.names, torch.cat(matrices).cpu().numpy(), mean_loss)


def adapts(model: nn.Module, experiment: Experiment) -> bool:
    """Whether an evaluation needs the images: a BatchNorm of the encoder takes the statistics of the batch at hand."""
    return experiment.evaluation.batchnorm == "batch" and bool(_batchnorms(model.encoder))


def freeze_batchnorm(model: nn.Module) -> None:
    """Use the stored statistics and let them stand still; scale and shift still train."""
    for module in _batchnorms(model):
        module.eval()


@contextmanager
def evaluating(model: nn.Module, batchnorm: str) -> Iterator[None]:
    """Evaluation mode; with `batch`, BatchNorm normalises by the batch at hand and keeps its stored statistics.

    Raises:
        ModelError: a batch of one image leaves a BatchNorm one value per channel, which has no statistics.
    """
    model.eval()
    adapted = [module for module in _batchnorms(model) if batchnorm == "batch" and module.track_running_stats]
    for module in adapted:
        # torch takes the batch's statistics in training mode only, and counts and moves the stored ones if it tracks;
        # the module alone, not what is inside it: timm puts dropout there
        module.training, module.track_running_stats = True, False
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ModelError(
            "evaluation.batchnorm batch: a BatchNorm of this model sees a single value per channel in a batch of one "
            "image; choose an evaluation.batch_size of 2 or more that leaves no last batch of one image, or use stored"
        ) from error
    finally:
        for module in adapted:
            module.training, module.track_running_stats = False, True


def _batchnorms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
