"""How many parameters a model has, before anything is trained."""

from __future__ import annotations

from harness.config import Experiment, canonical_json
from harness.data import build_taxonomy
from harness.models import build_model


class ParameterCounter:
    """Counts the parameters of an Experiment's model, each model once: it is built, which can take a second."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, int], int] = {}

    def __call__(self, experiment: Experiment) -> int:
        """Parameters of the whole model, trained or not."""
        model = experiment.model.model_copy(update={"weights": "none"})
        classes = len(build_taxonomy(experiment.taxonomy).names)
        key = canonical_json(model), classes
        if key not in self.known:
            self.known[key] = sum(p.numel() for p in build_model(model, classes).parameters())
        return self.known[key]
