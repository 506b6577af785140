"""What can be known to be wrong before the first trial starts, and which weights there will be."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from harness.config import Experiment, Space, apply_overrides, check_space, is_active, to_overrides, validate_section
from harness.config.model import BackboneModel, LinearHead
from harness.config.space import ChoiceParameter, Scalar
from harness.data import build_taxonomy, dataset_root, list_frames
from harness.engine.evaluate import open_eval_frames, open_train_frames
from harness.errors import ConfigError, StudyError
from harness.losses import build_loss
from harness.models import check_input_size, needs_two_images, settle_weights
from harness.run.study import Resources

_IF_AVAILABLE = "pretrained_if_available"


def check_resources(resources: Resources) -> None:
    """Refuse a GPU where there is none; a cluster's GPUs are counted when it is joined.

    Raises:
        StudyError: what was asked for, what there is, what to ask for instead.
    """
    joins = resources.executor == "ray" and resources.address is not None
    if resources.gpus_per_trial > 0 and not joins and not torch.cuda.is_available():
        raise StudyError(
            f"--gpus-per-trial {resources.gpus_per_trial:g} asks for a GPU, and torch sees none on this machine; "
            "leave it out to train on the CPU, or join a cluster that has one with --address"
        )


def check_experiment(experiment: Experiment) -> None:
    """Refuse what would stop a training: taxonomy, class names, frames, input size, unknown model.

    Raises:
        HarnessError: what is wrong with the first of them.
    """
    names = build_taxonomy(experiment.taxonomy).names
    build_loss(experiment.loss, np.ones(len(names)), names)
    check_input_size(experiment.model, experiment.data.input_size)
    root = dataset_root(experiment.data)
    frames = {split: list_frames(root, split) for split in ("train", "val")}
    _check_batches(experiment, len(frames["train"]))


def _check_batches(experiment: Experiment, frames: int) -> None:
    """Refuse a batch of one image where BatchNorm needs two: it would stop the first epoch."""
    training = experiment.training
    size = min(training.batch_size, frames)
    alone = size == 1 or (frames % size == 1 and not training.drop_last)
    if alone and needs_two_images(experiment.model, experiment.data.input_size):
        raise ConfigError(
            f"training.batch_size {training.batch_size} with {frames} frames gives a batch of one image, on which this "
            "model's BatchNorm cannot train; use another batch size, or training.drop_last: true"
        )


def settle_experiment(experiment: Experiment) -> tuple[Experiment, list[str]]:
    """Decide `pretrained_if_available`; returns the Experiment and a sentence on its weights."""
    model, note = settle_weights(experiment.model)
    return experiment.model_copy(update={"model": model}), [note]


def settle_space(space: Space) -> tuple[Space, list[str]]:
    """Check every model and size that a search can reach and decide `pretrained_if_available`.

    One answer for the whole study: where one of the models has no pretrained weights, none uses them, since
    pretrained against random would decide the comparison.

    Raises:
        HarnessError: a model, its weights or a size that cannot be used; before any trial starts.
    """
    check_space(space)
    check_experiment(space.experiment)
    experiments = _reachable(space, ("model", "data"))
    for experiment in _distinct(map(_without_head, experiments)):
        check_experiment(experiment)
    settled = [settle_weights(model) for model in _distinct(_without_head(e).model for e in experiments)]
    have_all = all(model.weights != "none" for model, _ in settled)
    values = _replace_weights(json.loads(space.model_dump_json()), "pretrained" if have_all else "none")
    return validate_section(Space, values, "space"), _grouped(note for _, note in settled)


def _grouped(notes: Iterable[str]) -> list[str]:
    """`name: sentence` notes with the names of each sentence in one line."""
    names: dict[str, list[str]] = {}
    for note in notes:
        name, _, sentence = note.partition(": ")
        names.setdefault(sentence, []).append(name)
    return [f"{sentence}: {', '.join(dict.fromkeys(those))}" for sentence, those in names.items()]


def decode_frames(space: Space) -> None:
    """Decode every frame size that a search can ask for, once, before workers would each do it."""
    for experiment in _reachable(space, ("data", "augmentation")):
        decode_frames_of(experiment)


def decode_frames_of(experiment: Experiment) -> None:
    """Decode the frames that one Experiment asks for."""
    open_train_frames(experiment)
    open_eval_frames(experiment, "val")


def _reachable(space: Space, sections: tuple[str, ...]) -> list[Experiment]:
    """One Experiment for each combination of the choices in some of the Experiment's sections."""
    names = [
        name
        for name, parameter in space.parameters.items()
        if isinstance(parameter, ChoiceParameter) and parameter.field.split(".")[0] in sections
    ]
    labels = [list(space.parameters[name].values()) for name in names]
    picks = [_active(space, dict(zip(names, combination, strict=True))) for combination in itertools.product(*labels)]
    return _distinct(e for pick in picks if (e := _try(space, pick)) is not None)


def _without_head(experiment: Experiment) -> Experiment:
    """The Experiment with the smallest head: neither the input size nor the weights depend on the head."""
    if not isinstance(experiment.model, BackboneModel):
        return experiment
    return experiment.model_copy(update={"model": experiment.model.model_copy(update={"head": LinearHead()})})


def _active(space: Space, pick: dict[str, Scalar]) -> dict[str, Scalar]:
    kept: dict[str, Scalar] = {}
    for name, value in pick.items():
        if is_active(space.parameters[name], kept):
            kept[name] = value
    return kept


def _try(space: Space, pick: dict[str, Scalar]) -> Experiment | None:
    """The Experiment of a combination; None where its values exclude each other (such a trial fails alone)."""
    try:
        return apply_overrides(space.experiment, to_overrides(space, pick))
    except ConfigError:
        return None


def _distinct(values: Any) -> list[Any]:
    return list({value.model_dump_json(): value for value in values}.values())


def _replace_weights(values: Any, answer: str) -> Any:
    if isinstance(values, dict):
        return {key: _replace_weights(value, answer) for key, value in values.items()}
    if isinstance(values, list):
        return [_replace_weights(value, answer) for value in values]
    return answer if values == _IF_AVAILABLE else values
