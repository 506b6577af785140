"""Scoring a model: per-image confusion matrices, from which every score follows."""

from __future__ import annotations

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
from harness.engine.inference import View, class_logits
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
    if experiment.evaluation.raster == "input":
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
) -> Evaluation:
    """One pass over frames with truth; the model is left in evaluation mode."""
    model.eval()
    matrices, losses = [], []
    batches = eval_batches(
        frames.images,
        taxonomy,
        batch_size=experiment.evaluation.batch_size,
        workers=experiment.training.workers,
        truth=frames.truth,
    )
    for images, truth in batches:
        images, truth = images.to(device, non_blocking=True), truth.to(device, non_blocking=True)
        logits = class_logits(model, images, truth.shape[-2:], experiment, looks)
        matrices.append(confusion_matrices(truth, logits.argmax(1), len(taxonomy.names)))
        if loss is not None:
            # image by image: Dice and weighted means depend on which images share a batch
            pairs = zip(logits.split(1), truth.split(1), strict=True)
            losses += [loss(*pair)[0].detach() for pair in pairs]
    mean_loss = torch.stack(losses).mean().item() if losses else None
    return Evaluation(frames.images.names, torch.cat(matrices).cpu().numpy(), mean_loss)
