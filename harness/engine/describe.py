"""What an Experiment builds, as plain values: no training, no weights fetched."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from harness.config import Experiment
from harness.data import build_taxonomy, class_counts
from harness.engine.evaluate import open_train_frames
from harness.engine.inference import views
from harness.engine.optimiser import build_optimiser
from harness.engine.schedule import learning_rates
from harness.losses import class_weights
from harness.models import build_model, check_input_size, parameter_counts


def describe(experiment: Experiment) -> dict[str, Any]:
    """Parameters, shapes, optimiser groups, learning rates, loss terms and class weights.

    Raises:
        HarnessError: a model, size, taxonomy or dataset that cannot be used.
    """
    size = experiment.data.input_size
    check_input_size(experiment.model, size)
    taxonomy = build_taxonomy(experiment.taxonomy)
    # counts and shapes do not depend on the weights, which need not be at hand
    random_weights = experiment.model.model_copy(update={"weights": "none"})
    model = build_model(random_weights, len(taxonomy.names)).eval()
    with torch.inference_mode():
        output = model(torch.zeros(1, 3, *size))
    optimiser = build_optimiser(experiment.optimiser, model)
    counts = class_counts(open_train_frames(experiment), taxonomy)
    epochs = experiment.training.epochs
    return {
        "classes": list(taxonomy.names),
        "parameters": parameter_counts(model),
        "input": [1, 3, *size],
        "output": list(output.shape),
        "views": [view._asdict() for view in views(experiment, experiment.evaluation.tta)],
        "optimiser": {
            "kind": experiment.optimiser.kind,
            "groups": {g["name"]: sum(p.numel() for p in g["params"]) for g in optimiser.param_groups},
        },
        # a plateau depends on scores; without any it stays at its peak
        "learning_rates": [learning_rates(experiment, epoch, []) for epoch in range(1, epochs + 1)],
        "loss": {name: term.weight for name, term in experiment.loss.active_terms().items()},
        "class_pixels": {name: int(n) for name, n in zip(taxonomy.names, counts, strict=True)},
        "class_weights": {
            name: _by_class(class_weights(term.class_weights, counts, taxonomy.names), taxonomy.names)
            for name, term in experiment.loss.active_terms().items()
        },
    }


def _by_class(values: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}
