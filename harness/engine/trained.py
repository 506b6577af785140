"""A trained run, opened again to score and to predict."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from harness.config import Experiment
from harness.data import Taxonomy, build_taxonomy
from harness.engine.checkpoint import load_header, load_weights
from harness.errors import StudyError
from harness.models import build_model
from harness.store import RunFolder


class Trained(NamedTuple):
    """The best epoch's model of a run, in evaluation mode."""

    experiment: Experiment
    taxonomy: Taxonomy
    model: nn.Module
    epoch: int
    score: float


def open_run(run: RunFolder, device: torch.device) -> Trained:
    """Load the best weights of a run.

    Raises:
        StudyError: there is no run, or it has not finished an epoch.
    """
    experiment = run.read_experiment()
    if not run.best.exists():
        raise StudyError(f"{run.path}: no epoch is finished ({run.best.name} is missing); let the run go on first")
    header = load_header(run.best)
    epoch, score = header.get("epoch"), header.get("score")
    if not (isinstance(epoch, int) and isinstance(score, float)):
        raise StudyError(f"{run.best}: does not name its epoch and score; give a run that this harness trained")
    taxonomy = build_taxonomy(experiment.taxonomy)
    # the checkpoint holds every weight: nothing is fetched to be thrown away
    random_weights = experiment.model.model_copy(update={"weights": "none"})
    model = build_model(random_weights, len(taxonomy.names))
    load_weights(run.best, model)
    return Trained(experiment, taxonomy, model.to(device).eval(), epoch, score)
