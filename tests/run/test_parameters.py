"""Parameters of a model before anything is trained."""

from __future__ import annotations

from harness.config import Experiment, apply_overrides
from harness.data import build_taxonomy
from harness.models import build_model
from harness.run.parameters import ParameterCounter


def test_they_are_those_of_the_model_that_would_train_and_each_model_is_built_once(monkeypatch):
    built = []

    def build(model, classes):
        built.append(model)
        return build_model(model, classes)

    monkeypatch.setattr("harness.run.parameters.build_model", build)
    counter, small = ParameterCounter(), Experiment()
    wide = apply_overrides(small, {"model.head.channels": 128})
    found = [counter(e) for e in (small, wide, apply_overrides(small, {"optimiser.lr": 0.1}), small)]
    expected = [
        sum(p.numel() for p in build_model(e.model, len(build_taxonomy(e.taxonomy).names)).parameters())
        for e in (small, wide)
    ]
    assert found == [expected[0], expected[1], expected[0], expected[0]] and expected[0] < expected[1]
    assert len(built) == 2
