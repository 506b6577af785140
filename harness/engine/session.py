"""Everything that one training holds in memory, built from its trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from harness.config import Experiment, Trial, canonical_json, policy_steps
from harness.data import (
    FrameArrays,
    Taxonomy,
    build_taxonomy,
    class_counts,
    dataset_root,
    needs_native,
    needs_style,
    open_frames,
    train_batches,
)
from harness.data.batches import Rows, stored_batches, training_truths
from harness.data.cache import frames_name
from harness.engine.evaluate import EvalFrames, adapts, open_eval_frames, open_train_frames
from harness.engine.features import (
    FeatureCache,
    check_cached_views,
    choose_views,
    features_are_cached,
    find_stored,
    name_in_store,
    open_stored,
    stored_name,
    views_of_epoch,
)
from harness.engine.kept import build_trial_model, encoder_digest
from harness.engine.optimiser import build_optimiser
from harness.engine.seeds import set_determinism
from harness.engine.start import load_start
from harness.losses import build_loss
from harness.models import SegmentationModel, check_input_size
from harness.store import RunFolder
from harness.store.cache_room import NoRoom

T = TypeVar("T")


@dataclass
class TrainFrames:
    """Training frames, and what some policies and faults need beside them."""

    frames: FrameArrays
    native: FrameArrays | None
    style: FrameArrays | None


@dataclass
class Session:
    """Data, model, loss and optimiser of a trial.

    `run`: where it says what people should know. `whole_start`: the weights that the training started from filled
    every layer, the head too. `frozen`: the digest of an encoder that never trains. `cache`: where what the model's
    stem makes of frames is stored.
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
    run: RunFolder
    whole_start: bool
    frozen: str | None
    cache: FeatureCache | None

    @property
    def experiment(self) -> Experiment:
        return self.trial.experiment

    def batches(self, epoch: int, shuffled: bool = True):  # noqa: ANN201  (an iterator of images and truth)
        """The augmented batches of an epoch, shuffled, or all of them in file order."""
        experiment = self.experiment
        return train_batches(
            self.train_frames.frames,
            self.taxonomy,
            experiment.augmentation,
            experiment.data.input_size,
            batch_size=experiment.training.batch_size,
            drop_last=experiment.training.drop_last and shuffled,
            workers=experiment.training.workers,
            shuffled=shuffled,
            seed=self.trial.seed,
            epoch=epoch,
            protocol=experiment.protocol,
            truth=self.train_frames.native,
            style=self.train_frames.style,
        )

    def inputs(self, epoch: int):  # noqa: ANN201  (as batches)
        """The batches of an epoch, images or, where they can be stored, what the stem makes of them.

        What is stored is made here, or waited for, not when the batches are taken.
        """
        rows = self._if_there_is_room(lambda: self._stored(epoch))
        if rows is None:
            return self.batches(epoch)
        training = self.experiment.training
        return stored_batches(
            *rows,
            frames=len(self.train_frames.frames),
            batch_size=training.batch_size,
            drop_last=training.drop_last,
            seed=self.trial.seed,
            epoch=epoch,
        )

    def store_scored(self) -> None:
        """Make, or wait for, what is stored of the frames that an epoch scores."""
        if not adapts(self.model, self.experiment):
            self._if_there_is_room(lambda: [self.cache.of_frames(frames) for frames in self._scored()])

    def _scored(self) -> Iterator[FrameArrays]:
        yield self.val_frames.images
        if self.experiment.training.score_training_set:
            yield open_eval_frames(self.experiment, "train").images

    def _if_there_is_room(self, store: Callable[[], T]) -> T | None:
        """What is stored; None where nothing is, which the run says if there was no room.

        Raises:
            NoRoom: epochs would choose among stored draws, so that without them the training would be another one.
        """
        if self.cache is None:
            return None
        training = self.experiment.training
        chooses = policy_steps(self.experiment.augmentation) and 0 < training.cached_views < training.epochs
        try:
            return store()
        except NoRoom as error:
            if chooses:
                raise
            self.run.note(f"no features are stored, every epoch computes them anew, to the same scores: {error}")
            self.cache = None
            return None

    def _stored(self, epoch: int) -> tuple[Rows, Rows] | None:
        """Stored inputs and truths by frame number; None where the images are needed."""
        experiment, frames, steps = self.experiment, self.train_frames, policy_steps(self.experiment.augmentation)
        if not steps:
            truths = training_truths(frames.frames, self.taxonomy, steps, experiment.protocol, frames.native)
            return self.cache.of_frames(frames.frames), truths
        if not experiment.training.cached_views:
            return None
        views = views_of_epoch(self.trial.seed, epoch, experiment.training.cached_views, len(frames.frames))
        return choose_views(views, self._features_of_view), choose_views(views, self._truths_of_view)

    def _features_of_view(self, view: int) -> np.ndarray:
        return self.cache.of_draws(self.train_frames.frames, self._draw(view), lambda: self._in_file_order(view))

    def _truths_of_view(self, view: int) -> np.ndarray:
        experiment = self.experiment
        decides = [canonical_json(experiment.taxonomy), canonical_json(experiment.protocol), *self._draw(view)]
        name = stored_name("truths", self.train_frames.frames, decides)
        return open_stored(
            name,
            len(self.train_frames.frames),
            lambda: (truth.numpy() for _, truth in self._in_file_order(view)),
        )

    def _draw(self, view: int) -> list[Any]:
        """What decides the images of a view besides the frames."""
        style = self.train_frames.style
        steps = canonical_json(self.experiment.augmentation)
        size = self.experiment.data.input_size
        return [steps, size, self.trial.seed, view, None if style is None else style.folder.name]

    def _in_file_order(self, epoch: int):  # noqa: ANN202
        return self.batches(epoch, shuffled=False)


def open_session(trial: Trial, run: RunFolder, device: torch.device) -> Session:
    """Build everything; the model starts from `start` where the Experiment names weights.

    Raises:
        HarnessError: data, model, size or starting weights that cannot be used.
    """
    experiment = trial.experiment
    set_determinism(experiment.training.deterministic)
    check_input_size(experiment.model, experiment.data.input_size)
    check_cached_views(experiment)
    taxonomy = build_taxonomy(experiment.taxonomy)
    model, digest = build_trial_model(trial, len(taxonomy.names), device)
    whole = load_start(model, trial, run)
    digest = digest or encoder_digest(model.encoder, model.trained)
    _compile(model, experiment.training.compile)
    stores = model.has_stem and features_are_cached()
    session = Session(
        trial=trial,
        device=device,
        taxonomy=taxonomy,
        train_frames=open_all_train_frames(experiment),
        val_frames=open_eval_frames(experiment, selection_split(experiment)),
        model=model,
        loss=nn.Identity(),
        optimiser=build_optimiser(experiment.optimiser, model),
        scaler=torch.amp.GradScaler(device.type, enabled=experiment.training.precision == "fp16"),
        run=run,
        whole_start=whole,
        frozen=digest if model.frozen else None,
        cache=FeatureCache(model, digest, experiment, device) if stores else None,
    )
    session.loss = build_loss(experiment.loss, training_counts(session), taxonomy.names).to(device)
    return session


def _compile(model: SegmentationModel, mode: str) -> None:
    """Compile what trains; a frozen encoder is shared by trials that may not ask for it."""
    if mode == "off":
        return
    # a worker's trials share torch's code: past its limit of variants it would go on uncompiled without a word
    torch._dynamo.reset()
    for part in (*(() if model.frozen else (model.encoder,)), model.decoder, model.head):
        part.compile(mode=mode)


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
        frames, taxonomy = session.train_frames.frames, session.taxonomy
        name = stored_name("counts", frames, canonical_json(session.experiment.taxonomy))
        # every mask is read once per machine, not once per trial
        return np.array(open_stored(name, len(taxonomy.names), lambda: [class_counts(frames, taxonomy)]))
    classes = len(session.taxonomy.names)
    # epoch 0 is nobody else's: the draws of the first epoch stay its own
    passes = (np.bincount(truth[truth < classes].flatten(), minlength=classes) for _, truth in session.batches(0))
    return sum(passes)


def known_training_counts(experiment: Experiment, fingerprint: str) -> np.ndarray | None:
    """Pixels per class (C,) of the training frames, at the size that is trained on, without a look at any frame.

    Args:
        fingerprint: of the dataset.

    None where no training on this machine has counted them, or the cache has let them go.
    """
    taxonomy = build_taxonomy(experiment.taxonomy)
    size = None if needs_native(policy_steps(experiment.augmentation)) else experiment.data.input_size
    frames = frames_name(fingerprint, "train", size, allow_8bit=taxonomy.eight_bit)
    return find_stored(name_in_store("counts", frames, canonical_json(experiment.taxonomy)))
