"""Everything that one training holds in memory, built from its trial."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from harness.config import Experiment, Trial, policy_steps
from harness.data import (
    FrameArrays,
    Taxonomy,
    build_taxonomy,
    class_counts,
    dataset_root,
    needs_style,
    open_frames,
    train_batches,
)
from harness.engine.evaluate import EvalFrames, open_eval_frames, open_train_frames
from harness.engine.optimiser import build_optimiser
from harness.engine.seeds import INITIALISATION, seed_torch, set_determinism
from harness.engine.start import load_start
from harness.losses import build_loss
from harness.models import build_model, check_input_size
from harness.store import RunFolder


@dataclass
class TrainFrames:
    """Training frames, and what some policies and faults need beside them."""

    frames: FrameArrays
    native: FrameArrays | None
    style: FrameArrays | None


@dataclass
class Session:
    """Data, model, loss and optimiser of a trial.

    `whole_start`: the weights that the training started from filled every layer, the head too.
    """

    trial: Trial
    device: torch.device
    taxonomy: Taxonomy
    train_frames: TrainFrames
    val_frames: EvalFrames
    model: nn.Module
    loss: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    whole_start: bool

    @property
    def experiment(self) -> Experiment:
        return self.trial.experiment

    def batches(self, epoch: int):  # noqa: ANN201  (an iterator of images and truth)
        """The shuffled, augmented batches of an epoch."""
        experiment = self.experiment
        return train_batches(
            self.train_frames.frames,
            self.taxonomy,
            experiment.augmentation,
            experiment.data.input_size,
            batch_size=experiment.training.batch_size,
            drop_last=experiment.training.drop_last,
            workers=experiment.training.workers,
            seed=self.trial.seed,
            epoch=epoch,
            protocol=experiment.protocol,
            truth=self.train_frames.native,
            style=self.train_frames.style,
        )


def open_session(trial: Trial, run: RunFolder, device: torch.device) -> Session:
    """Build everything; the model starts from `start` where the Experiment names weights.

    Raises:
        HarnessError: data, model, size or starting weights that cannot be used.
    """
    experiment = trial.experiment
    set_determinism(experiment.training.deterministic)
    check_input_size(experiment.model, experiment.data.input_size)
    taxonomy = build_taxonomy(experiment.taxonomy)
    seed_torch(trial.seed, INITIALISATION)
    model = build_model(experiment.model, len(taxonomy.names))
    whole = load_start(model, trial, run)
    session = Session(
        trial=trial,
        device=device,
        taxonomy=taxonomy,
        train_frames=open_all_train_frames(experiment),
        val_frames=open_eval_frames(experiment, selection_split(experiment)),
        model=model.to(device),
        loss=nn.Identity(),
        optimiser=build_optimiser(experiment.optimiser, model),
        scaler=torch.amp.GradScaler(device.type, enabled=experiment.training.precision == "fp16"),
        whole_start=whole,
    )
    session.loss = build_loss(experiment.loss, training_counts(session), taxonomy.names).to(device)
    return session


def selection_split(experiment: Experiment) -> str:
    """The split whose score chooses the best epoch: val, unless the fault of choosing on test is asked for."""
    return "test" if experiment.protocol.select_on_test else "val"


def open_all_train_frames(experiment: Experiment) -> TrainFrames:
    """The training frames with native masks and style images where they are needed."""
    root = dataset_root(experiment.data)
    style = needs_style(policy_steps(experiment.augmentation))
    eight_bit = build_taxonomy(experiment.taxonomy).eight_bit
    bilinear = experiment.protocol.bilinear_masks
    return TrainFrames(
        frames=open_train_frames(experiment),
        native=open_frames(root, "train", None, allow_8bit=eight_bit) if bilinear else None,
        style=open_frames(root, "test", experiment.data.input_size, masks=False) if style else None,
    )


def training_counts(session: Session) -> np.ndarray:
    """Pixels per class (C,): of the frames themselves, or, the fault, of one augmented pass."""
    if not session.experiment.protocol.augmented_class_counts:
        return class_counts(session.train_frames.frames, session.taxonomy)
    classes = len(session.taxonomy.names)
    # epoch 0 is nobody else's: the draws of the first epoch stay its own
    passes = (np.bincount(truth[truth < classes].flatten(), minlength=classes) for _, truth in session.batches(0))
    return sum(passes)
